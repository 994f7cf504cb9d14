"""A small client of Marionette, Firefox's remote control, as the protocol is spoken on its loopback socket.

A packet is the length of a JSON text in ASCII digits, a colon and the text. The server greets with an object; then each
command `[0, id, name, parameters]` gets one answer `[1, id, error or null, result]`.
"""

from __future__ import annotations

import base64
import json
import socket
from typing import Any, Self

_LONGEST_LENGTH = 20
"""Digits of a packet's length that can be meant seriously."""


class MarionetteError(Exception):
    """The browser refused a command. `kind` is WebDriver's word for it, such as `unexpected alert open`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Marionette:
    """One session with the browser on `port`. Every command raises TimeoutError after `timeout` seconds of silence."""

    def __init__(self, port: int, timeout: float) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), timeout)
        self._unread = b""
        self._last_id = 0
        try:
            self._receive()  # the greeting; it says no more than the protocol's version
            # A dialog must stay for the answering script to see it, so the session leaves every prompt alone.
            capabilities = {"alwaysMatch": {"unhandledPromptBehavior": "ignore"}}
            self.command("WebDriver:NewSession", capabilities=capabilities)
            self.command("Marionette:SetContext", value="chrome")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the browser goes on."""
        self._connection.close()

    def command(self, name: str, **parameters: object) -> Any:
        """Run the command `name` and return its result; MarionetteError when the browser refuses it."""
        self._last_id += 1
        text = json.dumps([0, self._last_id, name, parameters]).encode()
        self._connection.sendall(b"%d:%b" % (len(text), text))
        while True:
            kind, answered, error, result = self._receive()
            if (kind, answered) == (1, self._last_id):
                break
        if error is not None:
            raise MarionetteError(str(error["error"]), str(error["message"]))
        return result["value"] if isinstance(result, dict) and set(result) == {"value"} else result

    def script(self, body: str, *arguments: object) -> Any:
        """Run `body` as a JavaScript function in the browser's chrome context; `globalThis` lasts between scripts."""
        return self.command(
            "WebDriver:ExecuteScript", script=body, args=list(arguments), sandbox="keyfob", newSandbox=False
        )

    def screenshot(self, timeout: float) -> bytes:
        """PNG image of the browser window, dialogs within it included; waits `timeout` seconds at most."""
        self._connection.settimeout(timeout)
        return base64.b64decode(self.command("WebDriver:TakeScreenshot", full=True, hash=False))

    def _receive(self) -> Any:
        while b":" not in self._unread:
            if len(self._unread) > _LONGEST_LENGTH:
                kind = "broken packet"
                raise MarionetteError(kind, repr(self._unread[:_LONGEST_LENGTH]))
            self._read_more()
        digits, _, self._unread = self._unread.partition(b":")
        length = int(digits)
        while len(self._unread) < length:
            self._read_more()
        text, self._unread = self._unread[:length], self._unread[length:]
        return json.loads(text)

    def _read_more(self) -> None:
        part = self._connection.recv(1 << 16)
        if not part:
            reason = "the browser closed the Marionette connection"
            raise ConnectionError(reason)
        self._unread += part
