"""A screen in memory with a window manager, and somebody at its keyboard."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.interop.picture import Picture, read_xwd
from tests.interop.programs import program, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

_START_TIMEOUT = 60.0
"""Seconds for the X server to name its display; less than one is usual."""
_END_TIMEOUT = 15.0
_KEY_TIMEOUT = 30.0
_DEPTH = 24


class Desktop:
    """Xvfb and openbox from `with` to the end of it, and xdotool at the keyboard."""

    def __init__(self, environment: Mapping[str, str], *, size: str = "1024x768") -> None:
        self._size = size
        self.environment = dict(environment)
        """Environment for the programs of this desktop."""
        self._running: list[subprocess.Popen[bytes]] = []
        self._framebuffer = tempfile.TemporaryDirectory(prefix="keyfob-desktop-")
        self._xdotool = program("xdotool", "xdotool")

    def __enter__(self) -> Self:
        try:
            self.environment["DISPLAY"] = self._screen()
            self._start([program("openbox", "openbox")])
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._end()

    def _screen(self) -> str:
        reading, writing = os.pipe()
        try:
            xvfb = program("Xvfb", "xvfb")
            command = [
                xvfb,
                "-displayfd",
                str(writing),
                "-screen",
                "0",
                f"{self._size}x{_DEPTH}",
                "-nolisten",
                "tcp",
                "-noreset",
            ]
            command += ["-fbdir", self._framebuffer.name]
            self._start(command, pass_fds=[writing])
            os.close(writing)
            number = b""
            # It writes the number and the end of the line apart, and gives up when nobody reads both.
            while not number.endswith(b"\n"):
                ready, _, _ = select.select([reading], [], [], _START_TIMEOUT)
                part = os.read(reading, 16) if ready else b""
                assert part, "Xvfb did not start"
                number += part
        finally:
            os.close(reading)
        return f":{number.decode().strip()}"

    def _start(self, command: Sequence[str], pass_fds: Sequence[int] = ()) -> None:
        # Whatever ends the tests ends the desktop.
        killed_with_us = [program("setpriv", "util-linux"), "--pdeathsig", "KILL", *command]
        quiet = subprocess.DEVNULL
        self._running.append(
            subprocess.Popen(
                killed_with_us, env=self.environment, stdin=quiet, stdout=quiet, stderr=quiet, pass_fds=pass_fds
            )
        )

    def _end(self) -> None:
        for process in reversed(self._running):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_TIMEOUT)
            process.kill()
            process.wait(_END_TIMEOUT)
        self._framebuffer.cleanup()

    def _xdo(self, *words: str) -> str:
        return run([self._xdotool, *words], self.environment, timeout=_KEY_TIMEOUT).stdout.decode(errors="replace")

    def titles(self) -> list[str]:
        """The titles of all windows on the screen."""
        numbers = [word for word in self._xdo("search", "--onlyvisible", "--name", ".").split() if word.isdigit()]
        # A window that has just gone has no name any more; xdotool then names the failure.
        return [self._xdo("getwindowname", number).strip() for number in numbers]

    def place(self, title: str) -> tuple[int, int, int, int]:
        """Left, top, width and height of the window that begins with `title`, without its frame."""
        number = self._xdo("search", "--onlyvisible", "--name", f"^{title}").split()[-1]
        shell = self._xdo("getwindowgeometry", "--shell", number).splitlines()
        said = dict(line.split("=", 1) for line in shell if "=" in line)
        return int(said["X"]), int(said["Y"]), int(said["WIDTH"]), int(said["HEIGHT"])

    def put_pointer_away(self) -> None:
        """Move the pointer out of sight."""
        self._xdo("mousemove", "9999", "9999")

    def picture(self) -> Picture:
        """What is on the screen now."""
        return read_xwd((Path(self._framebuffer.name) / "Xvfb_screen0").read_bytes())

    def press(self, key: str) -> None:
        """Press one key (an X keysym such as `Return`) in the window that has the focus."""
        self._xdo("key", key)

    def type(self, text: str) -> None:
        """Type `text` and press Return."""
        self._xdo("type", "--delay", "30", text)
        self.press("Return")
