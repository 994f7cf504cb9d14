"""Firefox ESR without a screen, in a profile of its own, with its dialogs answered as a person would answer them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.interop.firefox.marionette import Marionette, MarionetteError
from tests.interop.programs import program, succeed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

START_TIMEOUT = 90.0
"""Seconds for the browser to open its Marionette port; 3 to 5 are usual."""
VISIT_TIMEOUT = 60.0
"""Seconds for one page with its dialogs; 1 to 3 are usual, 8 to 14 on a busy machine."""
QUIT_TIMEOUT = 30.0

_COMMAND_TIMEOUT = 30.0
_SCREENSHOT_TIMEOUT = 5.0
_POLL = 0.1

_PREFERENCES: Mapping[str, bool | int | str] = {
    "marionette.port": 0,  # an ephemeral port; the browser writes it into the profile's MarionetteActivePort
    # Everything but loopback goes to a proxy that is not there: nothing leaves the machine.
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    # One connection for one visit: none on suspicion, none for an icon.
    "network.http.speculative-parallel-limit": 0,
    "browser.chrome.site_icons": False,
    "browser.startup.page": 0,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "security.default_personal_cert": "Ask Every Time",
    "security.OCSP.enabled": 0,
}


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of opening a page."""

    title: str
    dialogs: Sequence[Mapping[str, Any]]
    """The dialogs in order, each with `kind` (`promptPassword`, `certificate`), `text`, `answer`; see dialogs.js."""

    def kinds(self) -> list[str]:
        """The dialogs' kinds, in order."""
        return [str(dialog["kind"]) for dialog in self.dialogs]


def make_profile(folder: Path, authority_pem: Path, environment: Mapping[str, str]) -> None:
    """Make a profile whose certificate database trusts the authority for servers, and which knows no module yet."""
    folder.mkdir(parents=True)
    database = f"sql:{folder}"
    certutil = program("certutil", "libnss3-tools")
    succeed([certutil, "-N", "-d", database, "--empty-password"], environment)
    succeed([certutil, "-A", "-d", database, "-n", "interop CA", "-t", "C,,", "-i", authority_pem], environment)
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in _PREFERENCES.items()]
    (folder / "user.js").write_text("".join(lines))


def register_with_modutil(folder: Path, name: str, module: Path, environment: Mapping[str, str]) -> None:
    """Write `module` into the profile's list of modules, as `modutil -add` of any NSS does."""
    modutil = program("modutil", "libnss3-tools")
    command: list[str | Path] = [modutil, "-dbdir", f"sql:{folder}", "-add", name, "-libfile", module, "-force"]
    succeed(command, environment)


def installation_with_policies(folder: Path, policies: Mapping[str, object]) -> Path:
    """An installation of Firefox under `folder` that has enterprise `policies`; its executable.

    The browser looks for `distribution/policies.json` beside its executable, so that one file is copied and all others
    are links to the real installation, which stays as it is.
    """
    real = Path(program("firefox-esr", "firefox-esr")).resolve()
    folder.mkdir(parents=True)
    for entry in real.parent.iterdir():
        if entry.name not in {real.name, "distribution"}:
            (folder / entry.name).symlink_to(entry)
    executable = folder / real.name
    shutil.copy2(real, executable)
    (folder / "distribution").mkdir()
    (folder / "distribution" / "policies.json").write_text(json.dumps({"policies": policies}))
    return executable


class Browser:
    """A browser from `with` to the end of it. At the end the whole process group is killed and the profile removed.

    When the `with` block fails, the folder `evidence` keeps a screenshot (if the browser still answers), the browser's
    output, the dialogs that were met and a copy of the module's `log`, and the exception says so.
    """

    def __init__(
        self,
        profile: Path,
        environment: Mapping[str, str],
        *,
        evidence: Path,
        log: Path | None = None,
        executable: Path | None = None,
    ) -> None:
        self._profile = profile
        self._evidence = evidence
        self._log = log
        self._executable = executable or Path(program("firefox-esr", "firefox-esr"))
        self._environment = dict(environment) | {
            "MOZ_HEADLESS": "1",
            "MOZ_CRASHREPORTER_DISABLE": "1",
            "MOZ_DATA_REPORTING": "0",
            "HOME": str(profile),  # nothing of the user's own is read or written
            "XDG_RUNTIME_DIR": str(profile),
        }
        self._dialogs: list[Mapping[str, Any]] = []
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the browser
        self._marionette: Marionette | None = None

    def __enter__(self) -> Self:
        command = [
            # Whatever ends the tests ends the browser: its children leave by themselves when it has gone.
            program("setpriv", "util-linux"),
            "--pdeathsig",
            "KILL",
            str(self._executable),
            "--no-remote",
            "--profile",
            str(self._profile),
            "--marionette",
            "--remote-allow-system-access",
        ]
        self._process = subprocess.Popen(
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._marionette = self._connect()
        except BaseException as failure:
            self._keep_evidence(failure)
            self._end()
            raise
        return self

    def __exit__(self, _: type[BaseException] | None, failure: BaseException | None, __: TracebackType | None) -> None:
        if failure is not None:
            self._keep_evidence(failure)
        self._end()

    def _connect(self) -> Marionette:
        port_file = self._profile / "MarionetteActivePort"
        process = self._process
        wait_until(lambda: process.poll() is not None or _has_text(port_file), START_TIMEOUT, "the Marionette port")
        assert process.poll() is None, f"Firefox ended at its start with {process.returncode}"
        return Marionette(int(port_file.read_text()), _COMMAND_TIMEOUT)

    @property
    def marionette(self) -> Marionette:
        """The session with the running browser."""
        assert self._marionette is not None, "the browser is not running"
        return self._marionette

    def _answer_dialogs(self, **plan: object) -> None:
        """From now on answer the dialogs by `plan` (see dialogs.js) in place of the plan before."""
        self.marionette.script("globalThis.answering?.timer.cancel();")
        self.marionette.script(Path(__file__).with_name("dialogs.js").read_text(), plan)

    def visit(self, url: str, *, pins: Sequence[str] = (), certificate: str | None = None) -> Visit:
        """Open `url` and wait for a page with a title; an error page of the browser has one too.

        One of `pins` is given to each PIN prompt, further prompts are cancelled. In the chooser the first entry that
        contains `certificate` is taken; None declines to send any.
        """
        self._answer_dialogs(pins=list(pins), certificate=certificate)
        # A dialog aborts the script under which it opens, so the load is only started here and then watched.
        self.marionette.script(
            """
            const uri = Services.io.newURI(arguments[0]);
            const triggeringPrincipal = Services.scriptSecurityManager.getSystemPrincipal();
            const browser = gBrowser.selectedBrowser;
            setTimeout(() => browser.loadURI(uri, { triggeringPrincipal }), 0);
            """,
            url,
        )
        seen: dict[str, Any] = {}

        def loaded() -> bool:
            seen.update(self._look())
            return bool(seen.get("url") == url and seen["title"] and not seen["busy"])

        wait_until(loaded, VISIT_TIMEOUT, f"the page {url}")
        return Visit(str(seen["title"]), seen["dialogs"])

    def load_module(self, name: str, module: Path) -> Mapping[str, Any]:
        """Load `module` through the browser's Load dialog (Settings, Security Devices, Load); the dialog's record."""
        self._answer_dialogs(pins=[], module={"name": name, "path": str(module)})
        self.marionette.script(
            """
            const dialog = "chrome://pippki/content/load_device.xhtml";
            setTimeout(() => Services.ww.openWindow(null, dialog, "_blank", "chrome,centerscreen", null), 0);
            """
        )
        closed = """
            const open = [...Services.wm.getEnumerator(null)].map(window => window.location.href);
            return globalThis.answering.met.length && !open.some(address => address.includes("load_device"));
        """
        wait_until(lambda: bool(self._ask(closed)), VISIT_TIMEOUT, "the end of the Load dialog")
        return dict(self._ask("return globalThis.answering.met[0];"))

    def _ask(self, body: str) -> Any:
        """Run a script that only looks; None while a dialog is open.

        During a PIN prompt and the C_Login after it the browser's network thread waits, and Marionette with it: the
        answer comes late. That is also why the dialogs are answered within the browser and not from here.
        """
        try:
            return self.marionette.script(body)
        except MarionetteError as refusal:
            if refusal.kind != "unexpected alert open":
                raise
            return None
        except TimeoutError:
            silence = (
                f"Firefox was silent for {_COMMAND_TIMEOUT:.0f} s: a call of the module, or a dialog, does not end"
            )
            raise AssertionError(silence) from None

    def _look(self) -> dict[str, Any]:
        """Title and address of the page and the dialogs met so far; nothing while a dialog is open."""
        state: dict[str, Any] | None = self._ask(
            """
            const browser = gBrowser.selectedBrowser;
            return {
              title: browser.contentTitle,
              url: browser.currentURI.spec,
              busy: browser.webProgress.isLoadingDocument,
              dialogs: globalThis.answering.met,
            };
            """
        )
        if state is None:
            return {}
        self._dialogs = state["dialogs"]
        return state

    def quit(self) -> int:
        """Close the browser as its menu does and return its exit status; negative is the signal that ended it."""
        with contextlib.suppress(ConnectionError):
            self.marionette.command("Marionette:Quit", flags=["eAttemptQuit"])
        self.marionette.close()
        return self._process.wait(QUIT_TIMEOUT)

    def _keep_evidence(self, failure: BaseException) -> None:
        self._evidence.mkdir(parents=True, exist_ok=True)
        self._output.seek(0)
        (self._evidence / "firefox-output.txt").write_bytes(self._output.read())
        (self._evidence / "dialogs.json").write_text(json.dumps(self._dialogs, indent=1))
        if self._log is not None and self._log.exists():
            shutil.copy(self._log, self._evidence)
        if self._marionette is not None:
            # Whatever fails here must not hide the failure that is being reported.
            with contextlib.suppress(OSError, ValueError, MarionetteError):
                (self._evidence / "firefox.png").write_bytes(self._marionette.screenshot(_SCREENSHOT_TIMEOUT))
        failure.add_note(f"Screenshot, output and dialogs of Firefox are in {self._evidence}")

    def _end(self) -> None:
        if self._marionette is not None:
            self._marionette.close()
        # The group is the browser's own (start_new_session); its children outlive a killed parent for a moment.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(QUIT_TIMEOUT)
        self._output.close()
        shutil.rmtree(self._profile, ignore_errors=True)


def _has_text(file: Path) -> bool:
    return file.exists() and bool(file.read_text().strip())


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Poll `condition` until it holds; AssertionError naming `what` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what} did not come within {timeout:.0f} s"
        time.sleep(_POLL)
