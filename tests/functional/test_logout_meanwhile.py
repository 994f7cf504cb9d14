"""A logout in another thread, before any line of a call's own: nothing of what it ends goes on, or is kept.

Each call is made as often as it has lines, and another thread logs out before the first of them, the second, and so on.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

import pytest

import keyfob
from keyfob.spec.constants import CKA, CKK, CKM, CKO, CKR
from keyfob.token.session import FIND, SESSIONS
from tests.client import Client, Template, ffi
from tests.conftest import PIN, Fob

Call = Callable[[Client, int, int], int]
SOURCES = str(Path(keyfob.__file__).parent)
KEY: Template = [
    *((CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.GENERIC_SECRET), (CKA.PRIVATE, True), (CKA.VALUE, bytes(32))),
    *((CKA.SENSITIVE, True), (CKA.EXTRACTABLE, False), (CKA.SIGN, True)),
]
BLOCKED = 0.02  # seconds, where the call has the lock that a logout waits for
REFUSED = (
    *(CKR.USER_NOT_LOGGED_IN, CKR.KEY_HANDLE_INVALID, CKR.OPERATION_NOT_INITIALIZED),
    *(CKR.KEY_CHANGED, CKR.SAVED_STATE_INVALID),
)
CREATED: Template = [(CKA.CLASS, CKO.DATA), (CKA.PRIVATE, True), (CKA.VALUE, b"value")]


class Meanwhile:
    """Runs `other` in another thread before line number `when` of our sources; counts the lines."""

    def __init__(self, other: Callable[[], None], when: int) -> None:
        self.thread = threading.Thread(target=other)
        self.when = when
        self.lines = 0

    def __enter__(self) -> Self:
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        if not self.thread.ident:
            self.thread.start()
        self.thread.join()

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(SOURCES) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.lines += 1
            if self.lines == self.when:
                self.thread.start()
                self.thread.join(BLOCKED)
        return self._line


def sign_init(client: Client, session: int, key: int) -> int:
    return client.call("C_SignInit", session, client.mechanism(CKM.SHA256_HMAC), key)


def digest_key(client: Client, session: int, key: int) -> int:
    client.ok("C_DigestInit", session, client.mechanism(CKM.SHA256))
    return client.call("C_DigestKey", session, key)


def save(client: Client, session: int, key: int) -> int:
    rv = digest_key(client, session, key)
    length = ffi.new("CK_ULONG *", 64)
    return rv or client.call("C_GetOperationState", session, ffi.new("char[64]"), length)


def restore(client: Client, session: int, key: int) -> int:
    rv = sign_init(client, session, key)
    length, state = ffi.new("CK_ULONG *", 64), ffi.new("char[64]")
    if rv or (rv := client.call("C_GetOperationState", session, state, length)):
        return rv
    return client.call("C_SetOperationState", session, state, length[0], 0, key)


def search(client: Client, session: int, key: int) -> int:
    return client.call("C_FindObjectsInit", session, ffi.NULL, 0)


def create(client: Client, session: int, key: int) -> int:
    array, count, _kept = client.template(CREATED)
    return client.call("C_CreateObject", session, array, count, ffi.new("CK_ULONG *"))


CALLS = {call.__name__: call for call in (sign_init, digest_key, save, restore, search, create)}


def made(client: Client, fob: Fob, call: Call, when: int) -> int:
    """Whether a call, with a logout at that moment, has left nothing; the number of its lines."""
    session = fob.session
    if client.state(session) != 3:  # CKS_RW_USER_FUNCTIONS
        client.ok("C_Login", session, 1, PIN, len(PIN))
    key = client.find(session, [(CKA.LABEL, b"key")])[0]
    other = client.open(fob.slot)
    with Meanwhile(lambda: client.ok("C_Logout", session), when) as meanwhile:
        rv = call(client, other, key)
    assert rv in (CKR.OK, *REFUSED), hex(rv)
    ours = SESSIONS[other]
    assert not [each for kind, each in ours.operations.items() if kind != FIND and each.key is not None]
    handles, count = ffi.new("CK_ULONG[99]"), ffi.new("CK_ULONG *")
    if FIND in ours.operations:
        client.ok("C_FindObjects", other, handles, 99, count)
    assert key not in list(handles[0 : count[0]])
    objects = ours.token.objects
    assert not [found for found in objects.in_memory.values() if found.private]
    saved = [operation for state in objects.states._states.values() for operation in state.values()]
    assert not [operation for operation in saved if operation.key is not None]
    client.ok("C_CloseSession", other)
    return meanwhile.lines


@pytest.mark.parametrize("name", CALLS)
def test_a_logout_at_any_moment_ends_what_it_ends(client: Client, fob: Fob, name: str) -> None:
    client.create(fob.session, [*KEY, (CKA.TOKEN, True), (CKA.LABEL, b"key")])
    for _ in range(2):  # the first time modules are imported
        lines = made(client, fob, CALLS[name], 0)
    assert lines > 10
    for when in range(1, lines + 1):
        made(client, fob, CALLS[name], when)
