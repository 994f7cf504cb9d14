"""What a call gave: its CK_RV, what came out, and its place in the record."""

from __future__ import annotations

from typing import Generic, TypeVar

from keyfob.nss.driver.record import Call
from keyfob.spec.constants import CKR
from keyfob.spec.errors import name_of

T = TypeVar("T")


class CallFailed(Exception):  # noqa: N818 - what the module answered, not a fault of the program
    """A call whose CKR_OK the scenario needs did not give it."""

    def __init__(self, reply: Reply[object], wanted: str = "CKR_OK") -> None:
        super().__init__(f"{reply.call.function} answered {reply.name}")
        self.reply = reply
        self.wanted = wanted


class Reply(Generic[T]):
    """`rv`, `value` (what came out; only meaningful after CKR_OK) and `call`. `note` says what went wrong beside it."""

    __slots__ = ("call", "note", "rv", "value")

    def __init__(self, rv: int, value: T, call: Call, note: str = "") -> None:
        self.rv = rv
        self.value = value
        self.call = call
        self.note = note

    @property
    def name(self) -> str:
        """`CKR_PIN_INCORRECT`."""
        return name_of("CKR", self.rv)

    @property
    def is_ok(self) -> bool:
        return self.rv == CKR.OK

    def ok(self) -> T:
        """The value; CallFailed unless the call answered CKR_OK."""
        if self.rv != CKR.OK:
            raise CallFailed(self)  # type: ignore[arg-type]
        return self.value

    def among(self, *codes: int) -> bool:
        return self.rv in codes

    def must_be(self, *codes: int) -> T:
        """The value; CallFailed unless the call answered one of these."""
        if self.rv not in codes:
            raise CallFailed(self, " or ".join(name_of("CKR", code) for code in codes))  # type: ignore[arg-type]
        return self.value
