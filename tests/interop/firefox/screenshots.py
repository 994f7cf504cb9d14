"""Take the pictures of Firefox that the documents show: `make screenshots`, or this module with the folder to fill.

It is Firefox ESR on a screen in memory, with the keyfob of this repository, the token, the key and the server of
docs/firefox.md. What is seen is what a user sees; only the mark of a browser under remote control is taken away.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

from cryptography import x509

from demo.who_are_you import Authority
from tests.interop.desktop import Desktop
from tests.interop.firefox.browser import Browser, make_profile
from tests.interop.firefox.security_windows import DeviceManager
from tests.interop.gecko.application import TASK_TIMEOUT, wait_until
from tests.interop.gecko.profile import Preferences, register_with_modutil
from tests.interop.programs import succeed
from tests.interop.tokens import PIN, SO_PIN, Token, module_under_test

USER = "Alice Example"
TOKEN = "alice"
PORT = 8443

_SIZE = (900, 600)
_PREFERENCES: Preferences = {
    "network.proxy.type": 0,
    "browser.newtabpage.enabled": False,
    "browser.tabs.inTitlebar": 0,
    "ui.systemUsesDarkTheme": 0,
    "ui.caretBlinkTime": 0,
}
_CHOOSER = """
const shells = docShell.getAllDocShellsInSubtree(
  Ci.nsIDocShellTreeItem.typeAll, Ci.nsIDocShell.ENUMERATE_FORWARDS);
return shells.some(shell => shell.domWindow.location.href == "chrome://pippki/content/clientauthask.xhtml");
"""
_FRAME_TOP = 20
_FRAME_SIDE = 1
"""Pixels of openbox's frame around a window."""
_SETTLE = 1.5
"""Seconds for a window that has just come to be drawn to its end."""


class _Photographer:
    """Somebody at the desktop who writes pictures of it into `folder`."""

    def __init__(self, desktop: Desktop, folder: Path) -> None:
        self._desktop = desktop
        self._folder = folder

    def wait_for_window(self, title: str) -> None:
        wait_until(lambda: any(shown.startswith(title) for shown in self._desktop.titles()), TASK_TIMEOUT, title)

    def screen(self, name: str) -> None:
        """Keep the whole screen as `name`.png."""
        self._write(name, 0, 0, *_SIZE)

    def window(self, name: str, title: str) -> None:
        """Keep the window whose title begins with `title`, with its title bar, as `name`.png."""
        self.wait_for_window(title)
        time.sleep(_SETTLE)
        left, top, width, height = self._desktop.place(title)
        # xdotool adds the frame to the place of what is within the frame, which has it already.
        left, top = left - 2 * _FRAME_SIDE, top - 2 * _FRAME_TOP
        self._write(name, left, top, width + 2 * _FRAME_SIDE, height + _FRAME_TOP)

    def _write(self, name: str, left: int, top: int, width: int, height: int) -> None:
        time.sleep(_SETTLE)
        file = self._folder / f"{name}.png"
        file.write_bytes(self._desktop.picture().cut(left, top, width, height).png())
        print(f"{file}: {file.stat().st_size} bytes")


def take(folder: Path) -> None:
    """Write the pictures into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="keyfob-screenshots-") as scratch:
        authority = Authority(Path(scratch) / "who-are-you")
        token = _prepare(Path(scratch), authority)
        profile, environment = Path(scratch) / "profile", token.environment()
        make_profile(profile, authority.certificate_file, environment, _PREFERENCES)
        register_with_modutil(profile, "keyfob", token.module.path, environment)
        server = authority.server(PORT)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Desktop(environment, size="{}x{}".format(*_SIZE)) as desktop:
            display = desktop.environment["DISPLAY"]
            with Browser(profile, environment, evidence=Path(scratch), display=display) as browser:
                desktop.put_pointer_away()
                browser.ask("document.documentElement.removeAttribute('remotecontrol');")
                _take_all(_Photographer(desktop, folder), desktop, browser)
        server.shutdown()


def _prepare(folder: Path, authority: Authority) -> Token:
    """Steps 1 and 2 of docs/firefox.md."""
    module = module_under_test()
    token = Token(module, TOKEN, PIN, SO_PIN, module.home(folder / "home"))
    pin, environment = ("--pin", PIN), token.environment()
    request, certificate = folder / "alice.csr", folder / "alice.pem"
    succeed([module.command, "init", TOKEN, *pin, "--so-pin", SO_PIN], environment)
    succeed([module.command, "key", "generate", TOKEN, "--type", "ec:p256", "--name", "me", *pin], environment)
    subject = ("--subject", f"CN={USER}")
    succeed([module.command, "cert", "request", TOKEN, "me", *subject, "--out", request, *pin], environment)
    certificate.write_bytes(authority.certify(x509.load_pem_x509_csr(request.read_bytes())))
    succeed([module.command, "cert", "import", TOKEN, certificate], environment)
    return token


def _take_all(photographer: _Photographer, desktop: Desktop, browser: Browser) -> None:
    devices = DeviceManager(browser)
    devices.details("keyfob slot")
    photographer.window("firefox-devices", "Device Manager")
    devices.close()

    # As if typed: the address stays to be seen while the page is not there yet.
    browser.start("gURLBar.value = arguments[0]; gURLBar.handleCommand();", f"https://localhost:{PORT}/")
    browser.until(_CHOOSER, "the certificate chooser")
    photographer.screen("firefox-certificate")
    desktop.press("Return")
    photographer.wait_for_window("Password Required")
    photographer.screen("firefox-pin")
    desktop.type(PIN)
    photographer.wait_for_window(f"You are {USER}")
    photographer.screen("firefox-page")


if __name__ == "__main__":
    take(Path(sys.argv[1]))
