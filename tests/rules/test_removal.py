"""Tokens that come and go, as NSS and its callers see them (sections 3.3 and 3.17 of the rules)."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR, CKS, CKU
from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore
from tests.client import P256, READ_ONLY, READ_WRITE, Client, ffi
from tests.conftest import PIN, SO_PIN, module_path

SLOT = 2
KEYFOB = str(Path(sys.executable).with_name("keyfob"))


class Stick:
    """A folder that can be pulled, with a token in it."""

    def __init__(self, folder: Path, client: Client) -> None:
        self.folder = folder
        self.client = client

    @property
    def away(self) -> Path:
        return self.folder.with_name("pulled")

    def pull(self) -> None:
        self.folder.rename(self.away)

    def put_back(self) -> None:
        self.away.rename(self.folder)

    def flags(self) -> int:
        info = ffi.new("CK_SLOT_INFO *")
        self.client.ok("C_GetSlotInfo", SLOT, info)
        return int(info.flags)

    def logged_in(self, flags: int = READ_WRITE) -> int:
        session = self.client.open(SLOT, flags)
        self.client.login(session, PIN)
        return session

    def info(self, session: int) -> int:
        return self.client.call("C_GetSessionInfo", session, ffi.new("CK_SESSION_INFO *"))


def keyfob(*arguments: str) -> str:
    return subprocess.run([KEYFOB, *arguments], check=True, capture_output=True, text=True).stdout


def make(folder: Path, label: str) -> None:
    folder.mkdir(exist_ok=True)
    pins = ("--pin", PIN.decode(), "--so-pin", SO_PIN.decode())
    keyfob("init", label, "--removable", str(folder), *pins)


@pytest.fixture
def stick(home: Path, tmp_path: Path) -> Iterator[Stick]:
    folder = tmp_path / "stick"
    make(folder, "travel")
    client = Client(str(module_path()))
    client.call("C_Finalize", ffi.NULL)
    client.initialize()
    yield Stick(folder, client)
    client.call("C_Finalize", ffi.NULL)


def some_key(client: Client, session: int, *, token: bool = True) -> tuple[int, int]:
    return client.generate_pair(
        session,
        CKM.EC_KEY_PAIR_GEN,
        [(CKA.EC_PARAMS, P256), (CKA.TOKEN, token)],
        [(CKA.TOKEN, token), (CKA.PRIVATE, True)],
    )


@pytest.mark.rule("S4", "S2")
def test_a_slot_tells_at_once_that_its_token_went_and_came(stick: Stick) -> None:
    """C_GetSlotInfo tells in one call that the token went or came; the slot itself stays in the list."""
    assert stick.flags() == CKF.REMOVABLE_DEVICE | CKF.TOKEN_PRESENT
    stick.pull()
    assert stick.flags() == CKF.REMOVABLE_DEVICE
    assert stick.client.slots() == [SLOT]
    count = ffi.new("CK_ULONG *")
    stick.client.ok("C_GetSlotList", 1, ffi.NULL, count)
    assert count[0] == 0
    stick.put_back()
    assert stick.flags() == CKF.REMOVABLE_DEVICE | CKF.TOKEN_PRESENT
    stick.client.ok("C_GetSlotList", 1, ffi.NULL, count)
    assert count[0] == 1


@pytest.mark.rule("S1", "S2", "S3")
def test_an_empty_slot_is_listed_and_described(stick: Stick) -> None:
    """An empty removable slot stays in both calls of the list, and describes itself, even when it is unregistered."""
    count, held, info = ffi.new("CK_ULONG *"), ffi.new("CK_ULONG[4]"), ffi.new("CK_SLOT_INFO *")
    stick.pull()
    for _ in range(2):
        stick.client.ok("C_GetSlotList", 0, ffi.NULL, count)
        assert count[0] == 1
        count[0] = 4
        stick.client.ok("C_GetSlotList", 0, held, count)
        assert list(held[0 : count[0]]) == [SLOT]
        stick.client.ok("C_GetSlotInfo", SLOT, info)
        assert bytes(ffi.buffer(info.slotDescription)) == f"keyfob slot {SLOT}".encode().ljust(64)
        for file in stick.folder.parent.glob("home/tokens/slot-*.removable"):
            file.unlink()


@pytest.mark.rule("S4")
@pytest.mark.parametrize(
    "name", ["C_GetTokenInfo", "C_GetMechanismList", "C_GetMechanismInfo", "C_OpenSession", "C_InitToken"]
)
def test_calls_on_an_empty_slot_say_that_no_token_is_there(stick: Stick, name: str) -> None:
    """Without its token a removable slot answers CKR_TOKEN_NOT_PRESENT, and C_CloseAllSessions is harmless."""
    arguments = {
        "C_GetTokenInfo": (ffi.new("CK_TOKEN_INFO *"),),
        "C_GetMechanismList": (ffi.NULL, ffi.new("CK_ULONG *")),
        "C_GetMechanismInfo": (CKM.RSA_PKCS, ffi.new("CK_MECHANISM_INFO *")),
        "C_OpenSession": (READ_ONLY, ffi.NULL, ffi.NULL, ffi.new("CK_ULONG *")),
        "C_InitToken": (SO_PIN, len(SO_PIN), b"new".ljust(32)),
    }[name]
    stick.pull()
    assert stick.client.call(name, SLOT, *arguments) == CKR.TOKEN_NOT_PRESENT
    stick.client.ok("C_CloseAllSessions", SLOT)
    stick.put_back()
    if name != "C_InitToken":
        assert stick.client.call(name, SLOT, *arguments) == CKR.OK


@pytest.mark.rule("SE9", "SE10")
@pytest.mark.parametrize("asked", [True, False], ids=["slot asked", "slot not asked"])
def test_sessions_of_a_removed_token_are_dead_for_ever(stick: Stick, asked: bool) -> None:
    """Every session of a removed token answers CKR_SESSION_HANDLE_INVALID from then on, also when the token is back."""
    sessions = [stick.logged_in(), stick.client.open(SLOT, READ_ONLY)]
    stick.pull()
    if asked:
        assert stick.flags() == CKF.REMOVABLE_DEVICE
    for session in sessions:
        assert stick.info(session) == CKR.SESSION_HANDLE_INVALID
    stick.put_back()
    if asked:
        assert stick.flags() == CKF.REMOVABLE_DEVICE | CKF.TOKEN_PRESENT
    for session in sessions:
        assert stick.info(session) == CKR.SESSION_HANDLE_INVALID
        assert stick.client.call("C_CloseSession", session) == CKR.SESSION_HANDLE_INVALID
    fresh = stick.client.open(SLOT)
    assert fresh not in sessions


@pytest.mark.rule("SE10")
@pytest.mark.parametrize("way", ["eject", "other folder"])
def test_a_swap_that_nobody_saw_ends_the_sessions_too(stick: Stick, tmp_path: Path, way: str) -> None:
    """A token that was taken out and put back between two calls is a new one: old sessions stay invalid."""
    session = stick.logged_in()
    if way == "eject":
        keyfob("eject", "travel")
        keyfob("insert", str(SLOT))
    else:
        (tmp_path / "other").mkdir()
        (stick.folder / "token.keyfob").rename(tmp_path / "other" / "token.keyfob")
        stick.pull()
        (tmp_path / "other").rename(stick.folder)
    assert stick.info(session) == CKR.SESSION_HANDLE_INVALID
    assert stick.client.state(stick.client.open(SLOT)) == CKS.RW_PUBLIC_SESSION


@pytest.mark.rule("SE10", "P25")
def test_object_handles_of_an_earlier_insertion_never_mean_anything_again(stick: Stick) -> None:
    """Handles of objects are new after an insertion, and the old ones stay invalid; the objects are all there."""
    session = stick.logged_in()
    _, private = some_key(stick.client, session)
    stick.pull()
    assert stick.flags() == CKF.REMOVABLE_DEVICE
    stick.put_back()
    session = stick.logged_in()
    assert stick.client.get(session, private, CKA.CLASS) == [None]
    found = stick.client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY)])
    assert len(found) == 1
    assert found != [private]
    hash_ = b"\x5a" * 32
    assert len(stick.client.sign(session, found[0], stick.client.mechanism(CKM.ECDSA), hash_)) == 64


@pytest.mark.rule("SE9")
def test_a_removal_ends_the_login_and_session_objects(stick: Stick) -> None:
    """With the token go its login, its session objects and the operations under way."""
    session = stick.logged_in()
    _, private = some_key(stick.client, session, token=False)
    stick.client.ok("C_SignInit", session, stick.client.mechanism(CKM.ECDSA), private)
    stick.pull()
    length = ffi.new("CK_ULONG *", 64)
    rv = stick.client.call("C_Sign", session, b"\x01" * 32, 32, ffi.new("char[]", 64), length)
    assert rv == CKR.SESSION_HANDLE_INVALID
    stick.put_back()
    session = stick.client.open(SLOT)
    assert stick.client.state(session) == CKS.RW_PUBLIC_SESSION
    assert stick.client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY)]) == []
    stick.client.login(session, PIN)


@pytest.mark.rule("SE9")
def test_a_removal_in_the_middle_of_a_call_is_told(stick: Stick, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that fails because the token goes while it runs answers CKR_DEVICE_REMOVED."""
    session = stick.logged_in()

    def pulled(*_: object, **__: object) -> list[int]:
        stick.pull()
        raise PKCS11Error(CKR.DEVICE_ERROR, "disk I/O error")

    monkeypatch.setattr(SqliteStore, "insert", pulled)
    array, count, _kept = stick.client.template([(CKA.CLASS, CKO.DATA), (CKA.TOKEN, True), (CKA.VALUE, b"x")])
    rv = stick.client.call("C_CreateObject", session, array, count, ffi.new("CK_ULONG *"))
    assert rv == CKR.DEVICE_REMOVED
    assert stick.info(session) == CKR.SESSION_HANDLE_INVALID


@pytest.mark.rule("S9", "SE9")
@pytest.mark.parametrize("times", [1, 3])
def test_a_token_that_came_back_serves_whoever_logs_in_again(stick: Stick, times: int) -> None:
    """After each insertion the token tells its flags, opens sessions, has forgotten its login and takes a new one."""
    some_key(stick.client, stick.logged_in())
    for _ in range(times):
        stick.pull()
        assert stick.flags() == CKF.REMOVABLE_DEVICE
        stick.put_back()
        assert stick.flags() == CKF.REMOVABLE_DEVICE | CKF.TOKEN_PRESENT
        expected = CKF.TOKEN_INITIALIZED | CKF.LOGIN_REQUIRED | CKF.USER_PIN_INITIALIZED
        assert stick.client.token_info(SLOT).flags & expected == expected
        session = stick.client.open(SLOT)
        assert stick.client.state(session) == CKS.RW_PUBLIC_SESSION
        stick.client.login(session, PIN)
        [key] = stick.client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY)])
        assert len(stick.client.sign(session, key, stick.client.mechanism(CKM.ECDSA), bytes(32))) == 64


@pytest.mark.rule("S9", "SE10")
def test_another_token_in_the_slot_is_seen_as_another(stick: Stick, tmp_path: Path) -> None:
    """After a swap C_GetTokenInfo tells of the token that is in the slot now: label, serial number, flags."""
    before = stick.client.token_info(SLOT)
    serial = bytes(ffi.buffer(before.serialNumber))
    stick.pull()
    stick.folder.mkdir()
    info = stick.client.token_info(SLOT)
    assert info.flags & (CKF.TOKEN_INITIALIZED | CKF.USER_PIN_INITIALIZED) == 0
    stick.client.ok("C_InitToken", SLOT, SO_PIN, len(SO_PIN), b"second".ljust(32))
    info = stick.client.token_info(SLOT)
    assert bytes(ffi.buffer(info.label)).rstrip() == b"second"
    assert bytes(ffi.buffer(info.serialNumber)) != serial
    assert info.flags & CKF.TOKEN_INITIALIZED
    stick.folder.rename(tmp_path / "second")
    stick.put_back()
    info = stick.client.token_info(SLOT)
    assert bytes(ffi.buffer(info.serialNumber)) == serial
    assert info.flags & CKF.USER_PIN_INITIALIZED


@pytest.mark.rule("S4", "S13")
def test_a_fresh_stick_is_initialised_in_its_slot(stick: Stick) -> None:
    """A folder without a token is an uninitialised token, which NSS gives its first PIN; its sessions live on."""
    stick.pull()
    stick.folder.mkdir()
    reading = stick.client.open(SLOT, READ_ONLY)
    session = stick.client.open(SLOT)
    stick.client.ok("C_Login", session, CKU.SO, b"", 0)
    stick.client.ok("C_InitPIN", session, PIN, len(PIN))
    stick.client.ok("C_Logout", session)
    assert stick.info(reading) == CKR.OK
    assert (stick.folder / "token.keyfob").exists()
    stick.client.login(reading, PIN)


@pytest.mark.rule("S4", "S2")
def test_a_stick_that_is_registered_later_gives_a_new_slot(stick: Stick, tmp_path: Path) -> None:
    """A removable slot that is registered while a program runs is in its next list, after the slots of before."""
    make(tmp_path / "second", "later")
    assert stick.client.slots() == [SLOT, SLOT + 1]


@pytest.mark.rule("SE9")
def test_another_process_is_not_disturbed_by_the_removal_here(stick: Stick) -> None:
    """Each process notices a removal for itself, and a program that starts later finds all that was stored."""
    session = stick.logged_in()
    some_key(stick.client, session)
    stick.pull()
    assert stick.info(session) == CKR.SESSION_HANDLE_INVALID
    stick.put_back()
    listed = keyfob("list", "travel", "--pin", PIN.decode())
    assert "private" in listed


def event(client: Client, flags: int = 0) -> tuple[int, int]:
    slot = ffi.new("CK_ULONG *", 77)
    rv = client.call("C_WaitForSlotEvent", flags, slot, ffi.NULL)
    return rv, int(slot[0])


@pytest.mark.rule("P28", "S4")
def test_an_event_is_told_once(stick: Stick) -> None:
    """C_WaitForSlotEvent without blocking names a slot once for each change, and says CKR_NO_EVENT otherwise."""
    assert event(stick.client, CKF.DONT_BLOCK)[0] == CKR.NO_EVENT
    stick.pull()
    assert event(stick.client, CKF.DONT_BLOCK) == (CKR.OK, SLOT)
    assert event(stick.client, CKF.DONT_BLOCK)[0] == CKR.NO_EVENT
    stick.put_back()
    assert event(stick.client, CKF.DONT_BLOCK) == (CKR.OK, SLOT)
    assert event(stick.client, CKF.DONT_BLOCK)[0] == CKR.NO_EVENT


class Waiter(threading.Thread):
    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client
        self.answer: tuple[int, int] | None = None

    def run(self) -> None:
        self.answer = event(self.client)

    def ends(self) -> tuple[int, int]:
        self.join(20)
        assert self.answer is not None
        return self.answer


@pytest.mark.rule("P28", "S4")
def test_a_call_that_waits_is_woken_by_a_change(stick: Stick) -> None:
    """C_WaitForSlotEvent waits until a token goes or comes, while other calls go on."""
    waiter = Waiter(stick.client)
    waiter.start()
    time.sleep(0.1)
    assert waiter.answer is None
    session = stick.logged_in()
    some_key(stick.client, session)
    stick.pull()
    assert waiter.ends() == (CKR.OK, SLOT)


@pytest.mark.rule("P28")
def test_finalize_wakes_whoever_waits_for_an_event(stick: Stick) -> None:
    """C_Finalize from another thread ends a wait with CKR_CRYPTOKI_NOT_INITIALIZED; C_Initialize then works at once."""
    waiters = [Waiter(stick.client) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    time.sleep(0.1)
    stick.client.ok("C_Finalize", ffi.NULL)
    stick.client.initialize()
    assert [waiter.ends()[0] for waiter in waiters] == [CKR.CRYPTOKI_NOT_INITIALIZED] * 3
    assert stick.flags() & CKF.TOKEN_PRESENT


@pytest.mark.rule("SE9", "SE10")
def test_threads_that_work_while_the_token_comes_and_goes_get_honest_codes(stick: Stick) -> None:
    """Threads that sign see a removal as an invalid session or a removed device, nothing else, and nothing hangs."""
    some_key(stick.client, stick.logged_in())
    seen: set[int] = set()
    stop = threading.Event()

    def work() -> None:
        client = stick.client
        while not stop.is_set():
            handle = ffi.new("CK_ULONG *")
            rv = client.call("C_OpenSession", SLOT, READ_ONLY, ffi.NULL, ffi.NULL, handle)
            if rv == CKR.OK:
                session = handle[0]
                rv = client.call("C_Login", session, CKU.USER, PIN, len(PIN))
                for _ in range(20):
                    template, count, _kept = client.template([(CKA.CLASS, CKO.PRIVATE_KEY)])
                    rv = client.call("C_FindObjectsInit", session, template, count)
                    if rv != CKR.OK:
                        break
                    number = ffi.new("CK_ULONG *")
                    rv = client.call("C_FindObjects", session, handle, 1, number)
                    client.call("C_FindObjectsFinal", session)
                    if rv == CKR.OK and number[0]:
                        rv = client.call("C_SignInit", session, client.mechanism(CKM.ECDSA), handle[0])
                        length = ffi.new("CK_ULONG *", 64)
                        if rv == CKR.OK:
                            rv = client.call("C_Sign", session, b"\x01" * 32, 32, ffi.new("char[]", 64), length)
                    seen.add(rv)
            seen.add(rv)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        time.sleep(0.05)
        stick.pull()
        time.sleep(0.05)
        stick.put_back()
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    gone = {CKR.SESSION_HANDLE_INVALID, CKR.DEVICE_REMOVED, CKR.TOKEN_NOT_PRESENT, CKR.KEY_HANDLE_INVALID}
    others = {CKR.USER_ALREADY_LOGGED_IN, CKR.OPERATION_NOT_INITIALIZED, CKR.USER_NOT_LOGGED_IN}
    assert CKR.OK in seen
    assert seen <= {CKR.OK, *gone, *others}, seen
    stick.client.ok("C_CloseAllSessions", SLOT)
    session = stick.logged_in()
    assert len(stick.client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.KEY_TYPE, CKK.EC)])) == 1
