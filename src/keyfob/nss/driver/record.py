"""The record of calls: every call of the module, before and after, as JSON-ready dicts.

A call goes to the sink twice, so that a crash leaves the name of the call in which it happened:
`{"t": "begin", "number", "function", "arguments", ...}`, then `{"t": "end", "number", "rv", "out", "us", ...}`
(docs/check.md has the schema of the two merged).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from keyfob.spec.constants import CKR
from keyfob.spec.errors import name_of

Sink = Callable[[dict[str, Any]], None]
NO_ANSWER = "did not return"
MOST_FAILURES = 20
"""Failing calls of a quiet stretch that are recorded one by one."""


class Call:
    """One call: its number in the scenario, its function, what it answered. `rv` None: it has not come back."""

    __slots__ = ("arguments", "function", "number", "out", "rv", "us")

    def __init__(self, number: int, function: str, arguments: list[dict[str, Any]]) -> None:
        self.number = number
        self.function = function
        self.arguments = arguments
        self.rv: int | None = None
        self.out: list[dict[str, Any]] = []
        self.us = 0

    def text(self) -> str:
        """The call on one line, as reports show it."""
        return call_text(self.function, self.arguments, self.rv)


def call_text(function: str, arguments: list[dict[str, Any]], rv: int | None) -> str:
    """`C_Login(hSession=1, userType=CKU_USER, pPin=(8 secret bytes), ulPinLen=8) -> CKR_OK`."""
    shown = ", ".join(f"{argument['name']}={argument['text']}" for argument in arguments if argument["text"] != "out")
    answer = NO_ANSWER if rv is None else name_of("CKR", rv)
    return f"{function}({shown}) -> {answer}"


class Recorder:
    """Numbers calls, times them, and gives them to the sink with the step of the scenario that they belong to."""

    def __init__(self, sink: Sink, *, process: int = 0, first: int = 1) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._next = first
        self._started = time.perf_counter_ns()
        self._threads: dict[int, int] = {}
        self._process = process
        self.step = ""
        self._quiet: dict[str, list[int]] | None = None  # function: [calls, total us, failures]

    def send(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._sink(message)

    def forked(self, process: int) -> Recorder:
        """The recorder of a forked process: its numbers start far from this one's."""
        twin = Recorder(self._sink, process=process, first=process * 1_000_000)
        twin._started = self._started
        twin.step = self.step
        return twin

    @property
    def last(self) -> int:
        """The number of the last call."""
        return self._next - 1

    def begin(self, function: str, arguments: list[dict[str, Any]], *, blocks: bool) -> Call:
        with self._lock:
            call = Call(self._next, function, arguments)
            self._next += 1
            if self._quiet is None:
                self._sink(self._begin_message(call, blocks=blocks))
        return call

    def _begin_message(self, call: Call, *, blocks: bool) -> dict[str, Any]:
        thread = self._threads.setdefault(threading.get_ident(), len(self._threads))
        message: dict[str, Any] = {
            "t": "begin",
            "number": call.number,
            "function": call.function,
            "start": (time.perf_counter_ns() - self._started) // 1000,
            "step": self.step,
            "arguments": call.arguments,
        }
        if thread:
            message["thread"] = thread
        if self._process:
            message["process"] = self._process
        if blocks:
            message["blocks"] = True
        return message

    def end(self, call: Call, note: str = "") -> None:
        with self._lock:
            if self._quiet is not None:
                row = self._quiet.setdefault(call.function, [0, 0, 0])
                row[0] += 1
                row[1] += call.us
                failed = call.rv != CKR.OK or bool(note)
                row[2] += failed
                if not failed or row[2] > MOST_FAILURES:
                    return
                self._sink(self._begin_message(call, blocks=False))
            message: dict[str, Any] = {
                "t": "end",
                "number": call.number,
                "rv": call.rv,
                "rv_name": None if call.rv is None else name_of("CKR", call.rv),
                "us": call.us,
                "out": call.out,
            }
            if note:
                message["note"] = note
            self._sink(message)

    @contextmanager
    def quietly(self, what: str) -> Iterator[None]:
        """Within, calls that answer CKR_OK are only counted: for loops of thousands."""
        with self._lock:
            self._sink({"t": "quiet", "step": what, "on": True})
            self._quiet = {}
        try:
            yield
        finally:
            with self._lock:
                counted = self._quiet or {}
                self._quiet = None
                for function, (calls, us, failures) in counted.items():
                    number = self._next
                    self._next += 1
                    self._sink(
                        {
                            "t": "call",
                            "number": number,
                            "function": function,
                            "start": (time.perf_counter_ns() - self._started) // 1000 - us,
                            "step": what,
                            "arguments": [],
                            "rv": CKR.OK if not failures else None,
                            "rv_name": "CKR_OK" if not failures else f"{failures} of {calls} failed",
                            "us": us,
                            "out": [],
                            "repeated": calls,
                        }
                    )
                self._sink({"t": "quiet", "step": what, "on": False})
