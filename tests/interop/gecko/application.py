"""A Mozilla program without a screen, from its start to its end, with its dialogs answered as a person would."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from tests.interop.gecko.marionette import Marionette, MarionetteError
from tests.interop.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

START_TIMEOUT = 90.0
"""Seconds for the program to open its Marionette port; 1 to 5 are usual."""
TASK_TIMEOUT = 90.0
"""Seconds for one task with its dialogs; 1 to 3 are usual, 8 to 14 on a busy machine."""
QUIT_TIMEOUT = 30.0

_COMMAND_TIMEOUT = 30.0
_SCREENSHOT_TIMEOUT = 5.0
_POLL = 0.1

Dialog: TypeAlias = "Mapping[str, Any]"
"""One dialog that was met: `kind`, `text`, `answer` and more; see dialogs.js."""


class Application:
    """A program from `with` to the end of it. At the end the whole process group is killed and the profile removed.

    When the `with` block fails, the folder `evidence` keeps a screenshot (if the program still answers), the program's
    output, the dialogs that were met and a copy of the module's `log`, and the exception says so.

    Without a `display` (as in DISPLAY) it runs headless. `home` is the user's home folder; without one it is the
    profile, so that nothing of the user's own is read or written.
    """

    name: str
    """What people call it."""
    command: str
    package: str
    """The program's name, and the Debian package that brings it."""

    def __init__(
        self,
        profile: Path,
        environment: Mapping[str, str],
        *,
        evidence: Path,
        log: Path | None = None,
        executable: Path | None = None,
        keep_profile: bool = False,
        display: str | None = None,
        home: Path | None = None,
    ) -> None:
        self._profile = profile
        self._evidence = evidence
        self._log = log
        self._executable = executable or Path(program(self.command, self.package))
        self._keep_profile = keep_profile
        screen = {"MOZ_HEADLESS": "1"} if display is None else {"DISPLAY": display, "MOZ_ENABLE_WAYLAND": "0"}
        self._environment = (
            dict(environment)
            | screen
            | {
                "MOZ_CRASHREPORTER_DISABLE": "1",
                "MOZ_DATA_REPORTING": "0",
                "HOME": str(home or profile),
                "XDG_RUNTIME_DIR": str(profile),
            }
        )
        self.dialogs: Sequence[Dialog] = []
        """The dialogs met since the plan for them was last made."""
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the program
        self._marionette: Marionette | None = None

    def __enter__(self) -> Self:
        (self._profile / "MarionetteActivePort").unlink(missing_ok=True)
        command = [
            # Whatever ends the tests ends the program: its children leave by themselves when it has gone.
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
        assert process.poll() is None, f"{self.name} ended at its start with {process.returncode}"
        return Marionette(int(port_file.read_text()), _COMMAND_TIMEOUT)

    @property
    def marionette(self) -> Marionette:
        """The session with the running program."""
        assert self._marionette is not None, f"{self.name} is not running"
        return self._marionette

    def answer_dialogs(self, **plan: object) -> None:
        """From now on answer the dialogs by `plan` (see dialogs.js) in place of the plan before."""
        self.dialogs = []
        self.marionette.script("globalThis.answering?.timer.cancel();")
        self.marionette.script(Path(__file__).with_name("dialogs.js").read_text(), plan)

    def ask(self, body: str, *arguments: object) -> Any:
        """Run a script that only looks; None while a dialog is open.

        During a PIN prompt and the C_Login after it the program's network thread waits, and Marionette with it: the
        answer comes late. That is also why the dialogs are answered within the program and not from here.
        """
        try:
            return self.marionette.script(body, *arguments)
        except MarionetteError as refusal:
            if refusal.kind != "unexpected alert open":
                raise
            return None
        except TimeoutError:
            silence = (
                f"{self.name} was silent for {_COMMAND_TIMEOUT:.0f} s: a call of the module, or a dialog, does not end"
            )
            raise AssertionError(silence) from None

    def start(self, body: str, *arguments: object) -> None:
        """Start a script and do not wait for it: a dialog aborts the script under which it opens."""
        self.marionette.script(
            "const given = [...arguments]; setTimeout(() => { (function () {" + body + "}).apply(null, given); }, 0);",
            *arguments,
        )

    def until(self, body: str, what: str, *arguments: object) -> Any:
        """Ask `body` until it answers with something true, which is returned; AssertionError naming `what` if never."""
        seen: list[Any] = []

        def answered() -> bool:
            seen[:] = [self.ask(body, *arguments)]
            return bool(seen[0])

        try:
            wait_until(answered, TASK_TIMEOUT, what)
        finally:
            self._look_at_dialogs()
        return seen[0]

    def _look_at_dialogs(self) -> None:
        with contextlib.suppress(MarionetteError, OSError):
            self.dialogs = self.ask("return globalThis.answering?.met;") or self.dialogs

    def kinds(self) -> list[str]:
        """The kinds of the dialogs met, in order."""
        return [str(dialog["kind"]) for dialog in self.dialogs]

    def quit(self) -> int:
        """Close the program as its menu does and return its exit status; negative is the signal that ended it."""
        with contextlib.suppress(ConnectionError):
            self.marionette.command("Marionette:Quit", flags=["eAttemptQuit"])
        self.marionette.close()
        return self._process.wait(QUIT_TIMEOUT)

    def _keep_evidence(self, failure: BaseException) -> None:
        self._evidence.mkdir(parents=True, exist_ok=True)
        self._output.seek(0)
        (self._evidence / f"{self.command}-output.txt").write_bytes(self._output.read())
        (self._evidence / "dialogs.json").write_text(json.dumps(self.dialogs, indent=1))
        if self._log is not None and self._log.exists():
            shutil.copy(self._log, self._evidence)
        if self._marionette is not None:
            # Whatever fails here must not hide the failure that is being reported.
            with contextlib.suppress(OSError, ValueError, MarionetteError):
                image = self._marionette.screenshot(_SCREENSHOT_TIMEOUT)
                (self._evidence / f"{self.command}.png").write_bytes(image)
        failure.add_note(f"Screenshot, output and dialogs of {self.name} are in {self._evidence}")

    def _end(self) -> None:
        if self._marionette is not None:
            self._marionette.close()
        # The group is the program's own (start_new_session); its children outlive a killed parent for a moment.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(QUIT_TIMEOUT)
        self._output.close()
        if not self._keep_profile:
            shutil.rmtree(self._profile, ignore_errors=True)


def _has_text(file: Path) -> bool:
    return file.exists() and bool(file.read_text().strip())


def wait_until(condition: Callable[[], bool], timeout: float, what: str) -> None:
    """Poll `condition` until it holds; AssertionError naming `what` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what} did not come within {timeout:.0f} s"
        time.sleep(_POLL)
