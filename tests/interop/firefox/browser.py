"""Firefox ESR: pages with client authentication, and its own windows for devices and certificates."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.interop.gecko import profile
from tests.interop.gecko.application import Application
from tests.interop.programs import program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.interop.gecko.application import Dialog

PREFERENCES: profile.Preferences = {
    # One connection for one visit: none on suspicion, none for an icon.
    "network.http.speculative-parallel-limit": 0,
    "browser.chrome.site_icons": False,
    "browser.startup.page": 0,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.shell.checkDefaultBrowser": False,
    "security.default_personal_cert": "Ask Every Time",
}


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of opening a page."""

    title: str
    dialogs: Sequence[Dialog]
    """The dialogs in order."""

    def kinds(self) -> list[str]:
        """The dialogs' kinds (`promptPassword`, `certificate`...), in order."""
        return [str(dialog["kind"]) for dialog in self.dialogs]


def make_profile(
    folder: Path, authority_pem: Path, environment: Mapping[str, str], preferences: profile.Preferences | None = None
) -> None:
    """Make a profile whose certificate database trusts the authority for servers, and which knows no module yet."""
    profile.make_profile(folder, authority_pem, environment, {**PREFERENCES, **(preferences or {})}, name="interop CA")


def installation_with_policies(folder: Path, policies: Mapping[str, object]) -> Path:
    """An installation of Firefox under `folder` that has enterprise `policies`; its executable.

    The browser looks for `distribution/policies.json` beside its executable, so that one file is copied and all others
    are links to the real installation, which stays as it is.
    """
    real = Path(program(Browser.command, Browser.package)).resolve()
    folder.mkdir(parents=True)
    for entry in real.parent.iterdir():
        if entry.name not in {real.name, "distribution"}:
            (folder / entry.name).symlink_to(entry)
    executable = folder / real.name
    shutil.copy2(real, executable)
    (folder / "distribution").mkdir()
    (folder / "distribution" / "policies.json").write_text(json.dumps({"policies": policies}))
    return executable


class Browser(Application):
    """A browser from `with` to the end of it."""

    name = "Firefox"
    command = "firefox-esr"
    package = "firefox-esr"

    def visit(self, url: str, *, pins: Sequence[str] = (), certificate: str | None = None) -> Visit:
        """Open `url` and wait for a page with a title; an error page of the browser has one too.

        One of `pins` is given to each PIN prompt, further prompts are cancelled. In the chooser the first entry that
        contains `certificate` is taken; None declines to send any.
        """
        self.answer_dialogs(pins=list(pins), certificate=certificate)
        self.start(
            """
            const uri = Services.io.newURI(arguments[0]);
            const triggeringPrincipal = Services.scriptSecurityManager.getSystemPrincipal();
            gBrowser.selectedBrowser.loadURI(uri, { triggeringPrincipal });
            """,
            url,
        )
        title = self.until(
            """
            const browser = gBrowser.selectedBrowser;
            const there = browser.currentURI.spec == arguments[0] && !browser.webProgress.isLoadingDocument;
            return there && browser.contentTitle;
            """,
            f"the page {url}",
            url,
        )
        return Visit(str(title), self.dialogs)

    def import_authority(self, pem: Path) -> Dialog:
        """Import a certificate as the certificate manager does once the file is chosen, and trust it for websites.

        That is Settings, View Certificates, Authorities, Import; only the system's own dialog for files is left out.
        Gives the record of the dialog that asks what to trust the authority for.
        """
        self.answer_dialogs(trust=True)
        self.start(
            """
            const file = Cc["@mozilla.org/file/local;1"].createInstance(Ci.nsIFile);
            file.initWithPath(arguments[0]);
            const database = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
            database.importCertsFromFile(file, Ci.nsIX509Cert.CA_CERT);
            """,
            str(pem),
        )
        self.until("return globalThis.answering.met.length;", "the dialog about the authority")
        return dict(self.dialogs[0])

    def load_module(self, name: str, module: Path) -> Dialog:
        """Load `module` through the browser's Load dialog (Settings, Security Devices, Load); the dialog's record."""
        self.answer_dialogs(pins=[], module={"name": name, "path": str(module)})
        self.start(
            """
            const dialog = "chrome://pippki/content/load_device.xhtml";
            Services.ww.openWindow(null, dialog, "_blank", "chrome,centerscreen", null);
            """
        )
        self.until(
            """
            const open = [...Services.wm.getEnumerator(null)].map(window => window.location.href);
            return globalThis.answering.met.length && !open.some(address => address.includes("load_device"));
            """,
            "the end of the Load dialog",
        )
        return dict(self.dialogs[0])
