"""Thunderbird: one account, messages signed and encrypted in its compose window, messages shown in its own window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.interop.gecko import profile
from tests.interop.gecko.application import Application

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.interop.gecko.application import Dialog

_PREFERENCES: profile.Preferences = {
    "mail.rights.version": 1,
    "mail.shell.checkDefaultClient": False,
    "mailnews.start_page.enabled": False,
    "app.donation.eoy.version.viewed": 999,
    # One account, which never looks for new mail and sends by the server of the test; and the local folders.
    "mail.accountmanager.accounts": "account1,account2",
    "mail.accountmanager.defaultaccount": "account1",
    "mail.accountmanager.localfoldersserver": "server2",
    "mail.account.account1.server": "server1",
    "mail.account.account1.identities": "id1",
    "mail.account.account2.server": "server2",
    "mail.server.server1.type": "pop3",
    "mail.server.server1.hostname": "localhost",
    "mail.server.server1.userName": "somebody",
    "mail.server.server1.login_at_startup": False,
    "mail.server.server1.check_new_mail": False,
    "mail.server.server2.type": "none",
    "mail.server.server2.hostname": "Local Folders",
    "mail.server.server2.name": "Local Folders",
    "mail.server.server2.userName": "nobody",
    "mail.identity.id1.valid": True,
    "mail.identity.id1.smtpServer": "smtp1",
    "mail.identity.id1.compose_html": False,
    "mail.identity.id1.fcc": False,
    "mail.smtpservers": "smtp1",
    "mail.smtp.defaultserver": "smtp1",
    "mail.smtpserver.smtp1.hostname": "localhost",
    "mail.smtpserver.smtp1.try_ssl": 0,
    "mail.smtpserver.smtp1.authMethod": 1,
    # What is sent goes at once and in sight, and no finding of a spell checker or of a word is asked about.
    "mailnews.sendInBackground": False,
    "mail.spellcheck.inline": False,
    "mail.compose.attachment_reminder": False,
    "mail.warn_on_send_accel_key": False,
}


def make_profile(
    folder: Path, authority_pem: Path, environment: Mapping[str, str], *, name: str, address: str, smtp_port: int
) -> None:
    """Make a profile with an account of `name` and `address`, which trusts the authority and knows no module yet."""
    account: profile.Preferences = {
        "mail.identity.id1.fullName": name,
        "mail.identity.id1.useremail": address,
        "mail.smtpserver.smtp1.port": smtp_port,
    }
    profile.make_profile(folder, authority_pem, environment, {**_PREFERENCES, **account}, name="interop CA")


@dataclass(frozen=True, slots=True)
class Shown:
    """A message as Thunderbird shows it."""

    text: str
    """The body; empty where Thunderbird shows a page of its own that says why it cannot."""
    encrypted: str | None
    """`ok` with the icon of a message that was decrypted, `notok` with the crossed-out one, None without an icon."""
    signed: str | None
    """`ok` with the icon of a good signature, another word with another icon, None without one."""
    dialogs: Sequence[Dialog]


class MailProgram(Application):
    """Thunderbird from `with` to the end of it."""

    name = "Thunderbird"
    command = "thunderbird"
    package = "thunderbird"

    def choose_certificate(self, wanted: str) -> Sequence[str]:
        """Choose, as under Account Settings, End-To-End Encryption, S/MIME, the certificate that contains `wanted`.

        It becomes the account's for signing and for encryption, as the settings propose. Returns what was offered: the
        certificates that Thunderbird found for the account's address.
        """
        self.answer_dialogs(certificate=wanted)
        self.start(
            """
            const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
            const identity = MailServices.accounts.defaultAccount.defaultIdentity;
            const picker = Cc["@mozilla.org/user_cert_picker;1"].createInstance(Ci.nsIUserCertPicker);
            const window = Services.wm.getMostRecentWindow("mail:3pane");
            globalThis.choice = null;
            const emailSigner = 4;
            const canceled = {};
            let certificate = null;
            try {
              certificate = picker.pickByUsage(window, "", emailSigner, false, true, identity.email, canceled);
            } catch (none) { // thrown when there is nothing to choose from
            }
            for (const usage of certificate ? ["signing", "encryption"] : []) {
              identity.setUnicharAttribute(`${usage}_cert_name`, certificate.displayName);
              identity.setCharAttribute(`${usage}_cert_dbkey`, certificate.dbKey);
            }
            globalThis.choice = certificate ? certificate.displayName : "none";
            """
        )
        self.until("return globalThis.choice;", "the end of the certificate chooser")
        return [str(label) for dialog in self.dialogs for label in dialog.get("offered", ())]

    def send(
        self, to: str, subject: str, text: str, *, sign: bool, encrypt: bool, pins: Sequence[str] = ()
    ) -> Sequence[Dialog]:
        """Write a message in the compose window, press its buttons and Send; the dialogs that came.

        It ends when the window has closed, which is when the message has gone, or when Thunderbird has said in a dialog
        why it did not go.
        """
        self.answer_dialogs(pins=list(pins))
        self.start(
            """
            const [to, subject, body] = arguments;
            const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
            const params = Cc["@mozilla.org/messengercompose/composeparams;1"].createInstance(Ci.nsIMsgComposeParams);
            params.type = Ci.nsIMsgCompType.New;
            params.format = Ci.nsIMsgCompFormat.PlainText;
            params.identity = MailServices.accounts.defaultAccount.defaultIdentity;
            params.composeFields = Object.assign(
              Cc["@mozilla.org/messengercompose/composefields;1"].createInstance(Ci.nsIMsgCompFields),
              { to, subject, body });
            MailServices.compose.OpenComposeWindowWithParams(null, params);
            """,
            to,
            subject,
            text,
        )
        self.until(
            """
            const window = Services.wm.getMostRecentWindow("msgcompose");
            return window?.document.readyState == "complete" && window.gMsgCompose?.editor
              && window.gLoadingComplete && !window.gWindowLocked;
            """,
            "the compose window",
        )
        self.start(
            """
            const [sign, encrypt] = arguments;
            const window = Services.wm.getMostRecentWindow("msgcompose");
            if (window.gSendEncrypted != encrypt) {
              window.toggleEncryptMessage();
            }
            if (window.gSendSigned != sign) {
              window.toggleGlobalSignMessage();
            }
            """,
            sign,
            encrypt,
        )
        # The recipients' certificates are looked up in the background; sent before that, the message is refused.
        self.until(
            """
            const [sign, encrypt, to] = arguments;
            const window = Services.wm.getMostRecentWindow("msgcompose");
            const settled = window.gSendSigned == sign && window.gSendEncrypted == encrypt
              && !window.gCheckEncryptionStateCompletionIsPending;
            return settled && (!encrypt || window.gSMFields.haveValidCertForEmail(to));
            """,
            f"the certificate of {to}" if encrypt else "the compose window",
            sign,
            encrypt,
            to,
        )
        self.start('Services.wm.getMostRecentWindow("msgcompose").goDoCommand("cmd_sendNow");')
        self.until(
            """
            return globalThis.answering.met.some(dialog => dialog.kind == "alert")
              || !Services.wm.getMostRecentWindow("msgcompose");
            """,
            "the end of sending",
        )
        return self.dialogs

    def show(self, message: bytes, *, pins: Sequence[str] = ()) -> Shown:
        """Put `message` into the Inbox of the local folders, open it in a window, and say what is shown.

        One of `pins` is given to each PIN prompt, further prompts are cancelled.
        """
        self.answer_dialogs(pins=list(pins))
        self.start(
            """
            const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
            const { MailUtils } = ChromeUtils.importESModule("resource:///modules/MailUtils.sys.mjs");
            const root = MailServices.accounts.localFoldersServer.rootFolder.QueryInterface(Ci.nsIMsgLocalMailFolder);
            const inbox = root.containsChildNamed("Inbox") ? root.getChildNamed("Inbox")
              : root.createLocalSubfolder("Inbox");
            const header = inbox.QueryInterface(Ci.nsIMsgLocalMailFolder).addMessage(arguments[0]);
            globalThis.shown = MailUtils.openMessageInNewWindow(header);
            """,
            message.decode("latin-1"),
        )
        state: Mapping[str, Any] = self.until(
            """
            const about = globalThis.shown?.messageBrowser?.contentWindow;
            if (!about?.gMessage) {
              return null;
            }
            const state = id => {
              const icon = about.document.getElementById(id);
              return icon.hidden ? null : icon.getAttribute("src").match(/-([a-z]+)[.]svg$/)[1];
            };
            if (state("encryptedHdrIcon") == "notok") {
              const page = about.getMessagePaneBrowser();
              const text = page.contentDocument?.body?.textContent ?? "";
              // It tries more than once, and asks for the PIN each time.
              const quiet = globalThis.answering.met.every(dialog => dialog.at + 2000 < Date.now());
              return quiet && !page.webProgress.isLoadingDocument && { text, encrypted: "notok", signed: null };
            }
            const body = about.msgLoaded && about.getMessagePaneBrowser().contentDocument?.body;
            if (!body || about.gReceivedSignatureCount < about.gExpectedSignatureCount) {
              return null;
            }
            const texts = [...body.querySelectorAll(".moz-text-plain, .moz-text-flowed")];
            return {
              text: texts.map(part => part.textContent).join("").trim(),
              encrypted: state("encryptedHdrIcon"),
              signed: state("signedHdrIcon"),
            };
            """,
            "the message's text",
        )
        self.start("globalThis.shown.close(); globalThis.shown = null;")
        return Shown(dialogs=self.dialogs, **state)
