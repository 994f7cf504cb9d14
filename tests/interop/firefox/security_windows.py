"""Firefox's windows under Settings, Privacy & Security, Certificates: Security Devices and View Certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.interop.gecko.application import TASK_TIMEOUT, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.interop.firefox.browser import Browser
    from tests.interop.gecko.application import Dialog

_DEVICES = "chrome://pippki/content/device_manager.xhtml"
_CERTIFICATES = "chrome://pippki/content/certManager.xhtml"

_OPEN = """
Services.ww.openWindow(null, arguments[0], "_blank", "chrome,centerscreen,width=900,height=500", null);
"""
_WINDOW = """
const window = [...Services.wm.getEnumerator(null)].find(window => window.location.href == arguments[0]);
if (window?.document.readyState != "complete") {
  return null;
}
const document = window.document;
"""
_LABELS = """
const tree = document.getElementById(arguments[1]);
const column = tree.columns.getFirstColumn();
const labels = [];
for (let row = 0; row < (tree.view?.rowCount ?? 0); row++) {
  labels.push(tree.view.getCellText(row, column));
}
"""
_SELECT = (
    _WINDOW
    + _LABELS
    + """
// A group of certificates can have the name of its only one.
const row = labels.findIndex((label, row) => label.includes(arguments[2]) && !tree.view.isContainer(row));
if (row < 0 || !tree.getBoundingClientRect().height) { // a tree that is not shown yet says nothing of its selection
  return null;
}
tree.view.selection.select(row);
return true;
"""
)
_PRESS = _WINDOW + "document.getElementById(arguments[1]).doCommand();"


class _SecurityWindow:
    """One of the two windows, opened when this is made, closed by `close`."""

    address: str
    tree: str
    always_filled: bool

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        browser.start(_OPEN, self.address)
        self.rows()

    def rows(self) -> list[str]:
        """The first column of the list, groups included."""
        body = _WINDOW + _LABELS + "return tree.view && (labels.length || !arguments[2]) && { labels };"
        seen = self._browser.until(body, f"rows in {self.address}", self.address, self.tree, self.always_filled)
        labels: list[str] = seen["labels"]
        return labels

    def select(self, label: str) -> None:
        """Select the first row that contains `label`, groups and modules left out."""
        self._browser.until(_SELECT, f"the row {label}", self.address, self.tree, label)

    def press(self, button: str) -> None:
        """Press the button with this id. It must be enabled."""
        enabled = _WINDOW + "return !document.getElementById(arguments[1]).disabled;"
        self._browser.until(enabled, f"the button {button}", self.address, button)
        self._browser.start(_PRESS, self.address, button)

    def close(self) -> None:
        """Close the window."""
        self._browser.start(_WINDOW + "window.close();", self.address)


class DeviceManager(_SecurityWindow):
    """The window Security Devices."""

    address = _DEVICES
    tree = "device_tree"
    always_filled = True

    def details(self, label: str) -> dict[str, str]:
        """What is shown of the slot whose row contains `label`: the table on the right, by cell."""
        self.select(label)
        shown: dict[str, str] = self._browser.until(
            _WINDOW
            + """
            const cells = [...document.querySelectorAll("#info_list treecell[id]")];
            const texts = cells.map(cell => [cell.id, cell.getAttribute("label")]);
            return cells.length && texts.every(pair => pair[1] !== null) && Object.fromEntries(texts);
            """,
            f"the details of {label}",
            self.address,
        )
        return shown

    def wait_for_status(self, label: str, status: str) -> None:
        """Wait until the slot whose row contains `label` is shown as, for instance, Logged In."""
        wait_until(lambda: self.details(label)["tok_status"] == status, TASK_TIMEOUT, f"{label}: {status}")

    def change_pin(self, label: str, old: str, new: str) -> Sequence[Dialog]:
        """Press Change Password for the slot whose row contains `label`; the dialogs that came.

        The first is the Change Password dialog, whose `first` tells whether it asked for no old PIN; the second says
        how it went.
        """
        self._browser.answer_dialogs(change={"old": old, "new": new})
        self.select(label)
        self.press("change_pw_button")
        self._browser.until("return globalThis.answering.met.length == 2;", "the answer to the change of the PIN")
        self._browser.start(
            """
            const dialog = "chrome://pippki/content/changepassword.xhtml";
            for (const window of Services.wm.getEnumerator(null)) {
              if (window.location.href == dialog) {
                window.close(); // it stays open when the PIN was not changed
              }
            }
            """
        )
        return self._browser.dialogs


class CertificateManager(_SecurityWindow):
    """The window View Certificates, with the tab Your Certificates in front."""

    address = _CERTIFICATES
    tree = "user-tree"
    always_filled = False

    def __init__(self, browser: Browser) -> None:
        super().__init__(browser)
        tab = "document.getElementById('certMgrTabbox').selectedItem = document.getElementById('mine_tab');"
        browser.start(_WINDOW + tab, self.address)

    def delete(self, name: str) -> Sequence[Dialog]:
        """Delete the certificate whose row contains `name`, say yes to that, and close the window; the dialogs.

        Firefox deletes from the token when nothing of its own refers to the certificate any more.
        """
        self._browser.answer_dialogs(confirm=True)
        self.select(name)
        self.press("mine_deleteButton")
        gone = _WINDOW + _LABELS + "return !labels.some(label => label.includes(arguments[2]));"
        self._browser.until(gone, f"the end of {name}", self.address, self.tree, name)
        self.close()
        self._browser.ask("Cu.forceGC(); Cu.forceCC(); Cu.forceGC(); Cu.forceCC();")
        return self._browser.dialogs

    def view(self, name: str) -> str:
        """Press View for the certificate whose row contains `name`; the address of the page that opens."""
        self.select(name)
        self.press("mine_viewButton")
        address: str = self._browser.until(
            """
            const tabs = Services.wm.getMostRecentWindow("navigator:browser").gBrowser.browsers;
            return tabs.map(tab => tab.currentURI.spec).find(address => address.startsWith("about:certificate?"));
            """,
            f"the page about {name}",
        )
        return address
