"""Nothing that fails after a change was committed makes its call fail: what is answered is what happened.

Each call is made once to count its commits, and once more with everything failing that comes after the last of them:
imports, files, and questions to the store. That is how the next line that somebody writes there is met, whatever it is.
"""

from __future__ import annotations

import builtins
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keyfob import files
from keyfob.spec.constants import CKA, CKF, CKM, CKO, CKR, CKU
from keyfob.spec.errors import PKCS11Error, name_of
from keyfob.store.database import SqliteDatabase
from keyfob.token.token import Token
from tests.client import P256, Client, Template, ffi
from tests.conftest import PIN, SO_PIN, Fob

OF_FILES = (
    *("open", "pread", "stat", "lstat", "unlink", "rename", "replace", "link", "mkdir", "listdir"),
    *("fsync", "ftruncate"),
)
Call = Callable[[Client, Fob], int]
NEW_PIN = b"another-pin"
KEY: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, 0x1F), (CKA.TOKEN, True), (CKA.LABEL, b"key")]
LONG_KEY: Template = [*KEY, (CKA.VALUE, bytes(range(32))), (CKA.EXTRACTABLE, True), (CKA.SENSITIVE, False)]
DATA: Template = [(CKA.CLASS, CKO.DATA), (CKA.TOKEN, True), (CKA.LABEL, b"data"), (CKA.VALUE, b"value")]


class Faults:
    """Armed after commit number `last` of a call; what fails then is counted."""

    def __init__(self) -> None:
        self.commits = 0
        self.last = -1
        self.armed = False
        self.met: list[str] = []

    def committed(self) -> None:
        self.commits += 1
        self.armed = self.commits == self.last

    def failing(self, what: str, real: Callable[..., Any], problem: Callable[[], Exception]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if self.armed:
                self.met.append(what)
                raise problem()
            return real(*arguments, **named)

        return call

    def walk(self, call: Callable[[], int], last: int) -> int:
        self.commits, self.last, self.armed = 0, last, last == 0
        try:
            return call()
        finally:
            self.armed = False


class Connection:
    """SQLite's, which tells when it has committed: before anybody has done anything else."""

    def __init__(self, real: Any, faults: Faults) -> None:
        self._real = real
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, sql: str, *values: Any) -> Any:
        found = self._real.execute(sql, *values)
        if sql == "COMMIT":
            self._faults.committed()
        return found


def no_descriptor() -> OSError:
    return OSError(errno.EMFILE, "Too many open files")


def no_answer() -> PKCS11Error:
    return PKCS11Error(CKR.DEVICE_ERROR, "the disk does not answer")


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    found = Faults()
    for name in OF_FILES:
        monkeypatch.setattr(os, name, found.failing(f"os.{name}", getattr(os, name), no_descriptor))
    for name in ("write", "write_at", "reserve"):
        monkeypatch.setattr(files, name, found.failing(f"files.{name}", getattr(files, name), no_descriptor))
    for name in ("open", "__import__"):
        monkeypatch.setattr(builtins, name, found.failing(name, getattr(builtins, name), no_descriptor))
    connection: Any = vars(SqliteDatabase)["connection"]
    asked = found.failing("the database", connection.fget, no_answer)
    monkeypatch.setattr(SqliteDatabase, "connection", property(lambda database: Connection(asked(database), found)))
    yield found
    found.armed = False


def create(template: Template) -> Call:
    def call(client: Client, fob: Fob) -> int:
        array, count, _kept = client.template(template)
        return client.call("C_CreateObject", fob.session, array, count, ffi.new("CK_ULONG *"))

    return call


def generate_key(client: Client, fob: Fob) -> int:
    array, count, _kept = client.template([*KEY[2:], (CKA.VALUE_LEN, 32)])
    mechanism = client.mechanism(CKM.AES_KEY_GEN)
    return client.call("C_GenerateKey", fob.session, mechanism, array, count, ffi.new("CK_ULONG *"))


def generate_pair(client: Client, fob: Fob) -> int:
    public, public_count, _kept = client.template([(CKA.EC_PARAMS, P256), (CKA.TOKEN, True)])
    private, private_count, _kept_too = client.template([(CKA.TOKEN, True)])
    handles = ffi.new("CK_ULONG[2]")
    mechanism = client.mechanism(CKM.EC_KEY_PAIR_GEN)
    where = (public, public_count, private, private_count, handles, handles + 1)
    return client.call("C_GenerateKeyPair", fob.session, mechanism, *where)


def destroy(client: Client, fob: Fob) -> int:
    return client.call("C_DestroyObject", fob.session, client.find(fob.session, LONG_KEY[:4])[0])


def change(client: Client, fob: Fob) -> int:
    key = client.find(fob.session, [(CKA.LABEL, b"to change")])[0]
    sensitive = client.get(fob.session, key, CKA.ENCRYPT)[0] == b"\x01"
    return client.set(fob.session, key, [(CKA.ENCRYPT, not sensitive), (CKA.WRAP, not sensitive)])


def copy(client: Client, fob: Fob) -> int:
    array, count, _kept = client.template([(CKA.LABEL, b"copy")])
    key = client.find(fob.session, LONG_KEY[:4])[0]
    return client.call("C_CopyObject", fob.session, key, array, count, ffi.new("CK_ULONG *"))


def unwrap(client: Client, fob: Fob) -> int:
    key = client.find(fob.session, LONG_KEY[:4])[0]
    mechanism = client.mechanism(CKM.AES_KEY_WRAP_KWP)
    wrapped, length = ffi.new("char[64]"), ffi.new("CK_ULONG *", 64)
    client.ok("C_WrapKey", fob.session, mechanism, key, key, wrapped, length)
    array, count, _kept = client.template(KEY)
    where = (key, wrapped, length[0], array, count, ffi.new("CK_ULONG *"))
    return client.call("C_UnwrapKey", fob.session, mechanism, *where)


def derive(client: Client, fob: Fob) -> int:
    array, count, _kept = client.template([*KEY[:1], *KEY[2:]])
    key = client.find(fob.session, [(CKA.LABEL, b"to derive")])[0]
    mechanism = client.mechanism(CKM.CONCATENATE_BASE_AND_KEY, key.to_bytes(8, "little"))
    return client.call("C_DeriveKey", fob.session, mechanism, key, array, count, ffi.new("CK_ULONG *"))


def login(client: Client, fob: Fob) -> int:
    client.call("C_Logout", fob.session)
    return client.call("C_Login", fob.session, CKU.USER, PIN, len(PIN))


def wrong_login(client: Client, fob: Fob) -> int:
    client.call("C_Logout", fob.session)
    rv = client.call("C_Login", fob.session, CKU.USER, b"wrong-pin", 9)
    return CKR.OK if rv == CKR.PIN_INCORRECT else rv


def set_pin(client: Client, fob: Fob) -> int:
    return client.call("C_SetPIN", fob.session, PIN, len(PIN), PIN, len(PIN))


def init_pin(client: Client, fob: Fob) -> int:
    client.call("C_Logout", fob.session)
    client.login(fob.session, SO_PIN, CKU.SO)
    return client.call("C_InitPIN", fob.session, NEW_PIN, len(NEW_PIN))


def init_token(client: Client, fob: Fob) -> int:
    client.call("C_CloseAllSessions", fob.slot)
    return client.call("C_InitToken", fob.slot, SO_PIN, len(SO_PIN), b"test".ljust(32))


CALLS: tuple[tuple[str, Call], ...] = (
    ("C_CreateObject", create(LONG_KEY)),
    ("C_CreateObject of data", create(DATA)),
    ("C_GenerateKey", generate_key),
    ("C_GenerateKeyPair", generate_pair),
    ("C_DestroyObject", destroy),
    ("C_SetAttributeValue", change),
    ("C_CopyObject", copy),
    ("C_UnwrapKey", unwrap),
    ("C_DeriveKey", derive),
    ("C_Login", login),
    ("C_Login with a wrong PIN", wrong_login),
    ("C_SetPIN", set_pin),
    ("C_InitPIN", init_pin),
    ("C_InitToken", init_token),
)


@pytest.mark.parametrize(("name", "call"), CALLS, ids=[name for name, _ in CALLS])
def test_what_was_committed_is_answered(client: Client, fob: Fob, faults: Faults, name: str, call: Call) -> None:
    for label in (b"to change", b"to derive"):
        client.create(fob.session, [*LONG_KEY[:3], (CKA.LABEL, label), *LONG_KEY[4:], (CKA.DERIVE, True)])
    for _ in range(3):
        client.create(fob.session, LONG_KEY)
    assert faults.walk(lambda: call(client, fob), -1) == CKR.OK
    commits = faults.commits
    assert commits > 0
    assert faults.walk(lambda: call(client, fob), commits) == CKR.OK, faults.met
    assert faults.commits == commits


def audited(home: Path) -> str:
    return (home / "keyfob-audit.jsonl").read_text()


def test_an_event_without_a_free_descriptor_is_told_later(home: Path, client: Client, fob: Fob, faults: Faults) -> None:
    client.create(fob.session, [*KEY, (CKA.VALUE, bytes(32))])
    before = audited(home).count("key-created")
    create_key = create(LONG_KEY)
    assert faults.walk(lambda: create_key(client, fob), 1) == CKR.OK
    assert "os.open" in faults.met or "__import__" in faults.met
    client.create(fob.session, LONG_KEY)
    assert audited(home).count("key-created") >= before + 1


def test_an_error_is_told_by_its_number_where_no_descriptor_is_free(
    client: Client, fob: Fob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of codes are imported when the first is told."""
    real = builtins.__import__

    def without_names(name: str, *rest: Any, **named: Any) -> Any:
        if name == "keyfob.spec.names":
            raise no_descriptor()
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without_names)
    assert client.call("C_DestroyObject", fob.session, 12345) == CKR.OBJECT_HANDLE_INVALID
    assert name_of("CKR", CKR.OBJECT_HANDLE_INVALID) == "CKR_0x00000082"


@pytest.mark.parametrize("call", ["C_InitToken", "C_InitToken again", "C_InitPIN"])
def test_a_token_that_was_made_is_used_even_if_it_could_not_be_asked(
    client: Client, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The first question to a new token's store fails. C_InitPIN: NSS makes tokens so, after an empty SO PIN (P6)."""
    slot = client.slots()[0]
    label = b"test".ljust(32)
    if call == "C_InitToken again":
        client.ok("C_InitToken", slot, SO_PIN, len(SO_PIN), label)
    attach = Token.attach

    def attach_badly(self: Token, store: Any) -> None:
        if store is None:
            attach(self, store)
            return
        monkeypatch.setattr(Token, "attach", attach)
        with monkeypatch.context() as patch:
            patch.setattr(type(store), "info", refuse)
            attach(self, store)

    def refuse(_: object) -> None:
        raise no_answer()

    session = client.open(slot) if call == "C_InitPIN" else 0
    if session:
        client.ok("C_Login", session, CKU.SO, b"", 0)
    monkeypatch.setattr(Token, "attach", attach_badly)
    if session:
        assert client.call("C_InitPIN", session, PIN, len(PIN)) == CKR.OK
        client.call("C_CloseAllSessions", slot)
    else:
        assert client.call("C_InitToken", slot, SO_PIN, len(SO_PIN), label) == CKR.OK
    assert Token.attach is attach
    assert client.token_info(slot).flags & CKF.TOKEN_INITIALIZED
    session = client.open(slot)
    if call == "C_InitPIN":
        client.ok("C_Login", session, CKU.USER, PIN, len(PIN))
    else:
        client.ok("C_Login", session, CKU.SO, SO_PIN, len(SO_PIN))
