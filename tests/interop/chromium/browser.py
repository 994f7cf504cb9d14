"""Chromium in a home of its own, which uses that home's NSS database."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from tests.interop.programs import program, run, succeed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.interop.desktop import Desktop

TASK_TIMEOUT = 90.0
"""Seconds for one page with its dialogs; 2 to 5 are usual."""

PIN_DIALOG = "Unlock Security Device"
"""Title of the window that asks for a PIN."""

_PAGE_LIMIT = "60000"
"""Milliseconds after which headless Chromium prints what it has."""
_POLL = 0.3
_NEXT_KEY = 1.5
"""Seconds until Return is pressed again where nothing shows that it was taken."""


class Chromium:
    """A browser whose home is `home`: made here, with the authority trusted and no module known."""

    def __init__(self, home: Path, authority_pem: Path, environment: Mapping[str, str]) -> None:
        self.database = home / ".pki" / "nssdb"
        """Folder of the NSS database."""
        self._profile = home / "profile"
        self._output = home / "chromium-output.txt"
        self._executable = program("chromium", "chromium")
        self.environment = dict(environment) | {
            "HOME": str(home),  # nothing of the user's own is read or written
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "XDG_RUNTIME_DIR": str(home),
        }
        self.database.mkdir(parents=True)
        certutil = program("certutil", "libnss3-tools")
        database = f"sql:{self.database}"
        succeed([certutil, "-N", "-d", database, "--empty-password"], self.environment)
        succeed(
            [certutil, "-A", "-d", database, "-n", "interop CA", "-t", "C,,", "-i", authority_pem], self.environment
        )

    def register_with_modutil(self, name: str, module: Path) -> None:
        """Write `module` into the list of modules of the NSS database."""
        modutil = program("modutil", "libnss3-tools")
        command: list[str | Path] = [
            modutil,
            "-dbdir",
            f"sql:{self.database}",
            "-add",
            name,
            "-libfile",
            module,
            "-force",
        ]
        succeed(command, self.environment)

    def choose_by_itself(self, url: str) -> None:
        """Let it take the first matching certificate for `url`, as the policy AutoSelectCertificateForUrls does.

        The policy's folder belongs to the system; this is the setting in the profile that the policy sets.
        """
        chosen: dict[str, object] = {f"{url.rstrip('/')},*": {"setting": {"filters": [{}]}}}
        preferences = {"profile": {"content_settings": {"exceptions": {"auto_select_certificate": chosen}}}}
        file = self._profile / "Default" / "Preferences"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(preferences))

    def _command(self, *options: str) -> list[str]:
        return [
            # Whatever ends the tests ends the browser.
            program("setpriv", "util-linux"),
            "--pdeathsig",
            "KILL",
            self._executable,
            "--no-sandbox",  # which root cannot have
            "--no-first-run",
            "--no-default-browser-check",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-proxy-server",
            "--password-store=basic",
            f"--user-data-dir={self._profile}",
            *options,
        ]

    def title_without_a_screen(self, url: str) -> str:
        """The title of the page at `url`, opened without a screen, where nobody can be asked anything."""
        command = self._command("--headless", f"--timeout={_PAGE_LIMIT}", "--dump-dom", url)
        done = run(command, self.environment, timeout=TASK_TIMEOUT)
        page = done.stdout.decode(errors="replace")
        found = re.search("<title>(.*?)</title>", page)
        assert found, f"no page came:\n{page}"
        return found[1]

    @contextlib.contextmanager
    def on(self, desktop: Desktop, url: str) -> Iterator[Window]:
        """Open `url` in a window on the desktop; at the end the whole process group is killed."""
        environment = self.environment | {"DISPLAY": desktop.environment["DISPLAY"]}
        with self._output.open("wb") as output:
            process = subprocess.Popen(
                self._command("--window-size=1000,700", "--window-position=0,0", url),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Window(desktop)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(TASK_TIMEOUT)


class Window:
    """The browser on a desktop, as somebody at the keyboard sees it."""

    def __init__(self, desktop: Desktop) -> None:
        self._desktop = desktop

    def take_the_certificate(self) -> None:
        """Press Return in the certificate chooser, which has no title to look for, until the PIN is asked for."""
        self._until(lambda titles: PIN_DIALOG in titles, "the PIN dialog", "Return")

    def give_pin(self, pin: str) -> None:
        """Type `pin` into the PIN dialog."""
        self._desktop.type(pin)

    def wait_for_title(self, title: str, *, refusing_pins: bool = False) -> None:
        """Wait until the browser's window shows a page whose title starts with `title`.

        With `refusing_pins` the PIN dialog is closed with Escape as often as it comes.
        """
        refusal = "Escape" if refusing_pins else ""
        shown = f"the page {title!r}"
        self._until(lambda titles: any(text.startswith(title) for text in titles), shown, refusal, only_in=PIN_DIALOG)

    def _until(self, condition: Callable[[list[str]], bool], what: str, key: str, only_in: str = "") -> None:
        """Look at the windows' titles until `condition` holds; press `key` from time to time, while `only_in` is up."""
        end = time.monotonic() + TASK_TIMEOUT
        next_key = time.monotonic() + _NEXT_KEY
        while not condition(titles := self._desktop.titles()):
            assert time.monotonic() < end, f"{what} did not come within {TASK_TIMEOUT:.0f} s; on the screen: {titles}"
            awaited = only_in in titles if only_in else bool(titles)
            if key and awaited and time.monotonic() > next_key:
                self._desktop.press(key)
                next_key = time.monotonic() + _NEXT_KEY
            time.sleep(_POLL)
