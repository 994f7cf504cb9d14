"""Table 1.1 as states of real tokens, and the login that they ask for: S12 to S15, SE11 to SE15, P11, P30."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from keyfob.spec.constants import CKA, CKF, CKM, CKO, CKR, CKS, CKU
from tests.client import READ_ONLY, READ_WRITE, Client, ffi
from tests.conftest import PIN, SO_PIN
from tests.rules.nss_calls import Nss, Slot, make_token, start

TABLE = CKF.LOGIN_REQUIRED | CKF.USER_PIN_INITIALIZED
GENERAL_ACCESS, UNINITIALISED = 0, CKF.LOGIN_REQUIRED
EMPTY_PIN, INITIALISED = CKF.USER_PIN_INITIALIZED, TABLE
HASH = bytes(32)
OTHER_PROCESS = """
import sys
from tests.client import Client
client = Client(sys.argv[1])
client.initialize()
for line in sys.stdin:
    name, *pins = line.split()
    if name == "flags":
        print(client.token_info(int(pins[0])).flags & 0xC, flush=True)
    elif name == "set-pin":
        session = client.open(int(pins[0]))
        old, new = pins[1].strip("'").encode(), pins[2].encode()
        print(client.call("C_SetPIN", session, old, len(old), new, len(new)), flush=True)
    elif name == "first-pin":
        session = client.open(int(pins[0]))
        client.login(session, b"", 0)
        print(client.call("C_InitPIN", session, pins[1].encode(), len(pins[1])), flush=True)
    elif name == "close":
        client.ok("C_CloseAllSessions", int(pins[0]))
        print(0, flush=True)
"""


class Other:
    """Another process with the module, for what must be seen across processes."""

    def __init__(self, slot_id: int) -> None:
        from tests.conftest import module_path

        self._slot = slot_id
        self._process = subprocess.Popen(
            [sys.executable, "-c", OTHER_PROCESS, str(module_path())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def ask(self, command: str, *more: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(command, self._slot, *more, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate(timeout=30)


def flags(slot: Slot) -> int:
    return int(slot.client.token_info(slot.id).flags) & TABLE


def open_token(module: Client, option: str, label: str = "test") -> Slot:
    """NSS on a token of general access, in a slot that is its only one."""
    make_token(label, option, "--so-pin", SO_PIN.decode())
    return start(module).slot


def check_works_without_login(slot: Slot) -> int:
    """Makes a key, finds it as NSS does for "user" certificates, signs with it; gives its handle."""
    public, private = slot.generate_ec()
    assert slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)]) == [private]
    signature = slot.sign(private, slot.client.mechanism(CKM.ECDSA), HASH, 64)
    assert slot.client.verify(slot.session, public, slot.client.mechanism(CKM.ECDSA), HASH, signature) == CKR.OK
    return private


def check_needs_login(slot: Slot, key: int, pin: bytes) -> None:
    """Nothing private is there before the login, and everything after it."""
    assert slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)]) == []
    assert slot.client.call("C_SignInit", slot.session, slot.client.mechanism(CKM.ECDSA), key) != CKR.OK
    slot.client.login(slot.session, pin)
    assert slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)]) == [key]
    assert len(slot.sign(key, slot.client.mechanism(CKM.ECDSA), HASH, 64)) == 64


# Table 1.1


@pytest.mark.rule("S12", "P30")
def test_general_access_needs_no_login(module: Client) -> None:
    """A token made with `--no-pin` shows neither flag, and finds, makes and uses private keys without any login."""
    slot = open_token(module, "--no-pin")
    assert flags(slot) == GENERAL_ACCESS
    check_works_without_login(slot)
    assert slot.client.call("C_Login", slot.session, CKU.USER, PIN, len(PIN)) == CKR.USER_PIN_NOT_INITIALIZED
    assert slot.change_pin(b"", PIN) == CKR.USER_PIN_NOT_INITIALIZED
    assert flags(slot) == GENERAL_ACCESS


@pytest.mark.rule("S12", "S15")
def test_the_so_gives_a_token_of_general_access_a_pin(module: Client) -> None:
    """The SO's C_InitPIN on a token of general access takes the key file's place: from then on a login is required."""
    slot = open_token(module, "--no-pin")
    key = check_works_without_login(slot)
    slot.init_pin(PIN, SO_PIN)
    assert flags(slot) == INITIALISED
    slot.logout()
    check_needs_login(slot, key, PIN)


@pytest.mark.rule("S13", "S19", "N7", "P6")
def test_an_uninitialised_token_gets_its_first_pin_from_nss(fresh: Nss) -> None:
    """Shows LOGIN_REQUIRED alone; NSS's SO login with an empty PIN beside its session, then C_InitPIN, sets the PIN."""
    slot = fresh.slot
    assert flags(slot) == UNINITIALISED
    other = Other(slot.id)
    assert other.ask("flags") == UNINITIALISED
    assert slot.client.call("C_Login", slot.session, CKU.USER, PIN, len(PIN)) == CKR.USER_PIN_NOT_INITIALIZED
    slot.init_pin(PIN)
    assert slot.flags & TABLE == INITIALISED
    assert slot.is_logged_in()
    slot.generate_ec()
    with slot.rw() as session:
        assert slot.client.call("C_Login", session, CKU.SO, b"", 0) == CKR.USER_ANOTHER_ALREADY_LOGGED_IN
        slot.logout()
        assert slot.client.call("C_Login", session, CKU.SO, b"", 0) == CKR.PIN_INCORRECT
    other.end()


@pytest.mark.rule("S13", "S19", "P6")
def test_nss_sets_the_first_pin_of_a_token_whose_so_has_a_pin(nss: Nss) -> None:
    """Erased with an SO PIN, the token takes NSS's empty one until it has a user PIN; the SO's own goes on working."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    slot.generate_ec()
    assert slot.reset_token(SO_PIN) == CKR.OK
    assert flags(slot) == UNINITIALISED
    with slot.rw() as session:  # beside the read-only one, as NSS has it
        assert client.call("C_Login", session, CKU.SO, b"not-it", 6) == CKR.PIN_INCORRECT
        assert client.token_info(slot.id).flags & CKF.SO_PIN_COUNT_LOW
        client.login(session, b"", CKU.SO)
        assert client.state(session) == CKS.RW_SO_FUNCTIONS
        assert client.token_info(slot.id).flags & CKF.SO_PIN_COUNT_LOW
        client.ok("C_Logout", session)
    slot.init_pin(PIN)
    assert flags(slot) == INITIALISED
    assert slot.is_logged_in()
    _, key = slot.generate_ec()
    slot.logout()
    with slot.rw() as session:
        assert client.call("C_Login", session, CKU.SO, b"", 0) == CKR.PIN_INCORRECT
        assert client.call("C_Login", session, CKU.SO, SO_PIN, len(SO_PIN)) == CKR.SESSION_READ_ONLY_EXISTS
    client.ok("C_CloseAllSessions", slot.id)
    slot.session = client.open(slot.id, READ_WRITE)
    for pin in (b"unblocked-1", b"unblocked-2"):
        client.login(slot.session, SO_PIN, CKU.SO)
        client.ok("C_InitPIN", slot.session, pin, len(pin))
        client.ok("C_Logout", slot.session)
        check_needs_login(slot, key, pin)
        client.ok("C_Logout", slot.session)
    assert not client.token_info(slot.id).flags & CKF.SO_PIN_COUNT_LOW


@pytest.mark.rule("S13", "P6")
def test_the_empty_so_pin_sets_nothing_but_the_first_pin(nss: Nss) -> None:
    """Beside a real SO PIN the empty one neither changes that PIN, nor erases the token, nor sees a private object."""
    slot, client = nss.slot, nss.client
    assert slot.reset_token(SO_PIN) == CKR.OK
    label = b"usurped".ljust(32)
    with slot.rw() as session:
        client.login(session, b"", CKU.SO)
        for old in (b"", SO_PIN):
            assert client.call("C_SetPIN", session, old, len(old), b"usurped", 7) != CKR.OK
        attributes, count, _kept = client.template([(CKA.CLASS, CKO.DATA), (CKA.PRIVATE, True), (CKA.TOKEN, True)])
        rv = client.call("C_CreateObject", session, attributes, count, ffi.new("CK_ULONG *"))
        assert rv == CKR.USER_NOT_LOGGED_IN
    client.ok("C_CloseAllSessions", slot.id)
    assert client.call("C_InitToken", slot.id, b"", 0, label) == CKR.PIN_INCORRECT
    client.ok("C_InitToken", slot.id, SO_PIN, len(SO_PIN), b"test".ljust(32))


@pytest.mark.rule("S13", "P6")
def test_of_two_programs_that_set_the_first_pin_one_does(nss: Nss) -> None:
    """Who logged in with the empty SO PIN is logged out as soon as another process has set the user PIN."""
    slot, client = nss.slot, nss.client
    assert slot.reset_token(SO_PIN) == CKR.OK
    other = Other(slot.id)
    assert other.ask("flags") == UNINITIALISED
    with slot.rw() as session:
        client.login(session, b"", CKU.SO)
        assert other.ask("first-pin", PIN.decode()) == CKR.OK
        assert client.state(session) == CKS.RW_PUBLIC_SESSION
        assert client.call("C_InitPIN", session, b"hijacked", 8) == CKR.USER_NOT_LOGGED_IN
    slot.login(PIN)
    other.end()


@pytest.mark.rule("S13")
def test_another_process_sees_the_first_pin(nss: Nss) -> None:
    """C_GetTokenInfo of every process shows both flags as soon as one has set the first PIN."""
    client, slot = nss.client, nss.slot
    client.ok("C_CloseAllSessions", slot.id)
    client.ok("C_InitToken", slot.id, SO_PIN, len(SO_PIN), b"test".ljust(32))
    other = Other(slot.id)
    assert (flags(slot), other.ask("flags")) == (UNINITIALISED, UNINITIALISED)
    session = client.open(slot.id)
    client.login(session, SO_PIN, CKU.SO)
    client.ok("C_InitPIN", session, PIN, len(PIN))
    assert (flags(slot), other.ask("flags")) == (INITIALISED, INITIALISED)
    other.end()


@pytest.mark.rule("S14")
def test_an_empty_pin_is_changed_into_a_real_one(home: Path, module: Client) -> None:
    """A token made with `--empty-pin` is open to all until C_SetPIN("", PIN); then LOGIN_REQUIRED, and no key file."""
    slot = open_token(module, "--empty-pin")
    assert flags(slot) == EMPTY_PIN
    key = check_works_without_login(slot)
    assert (home / "tokens" / "slot-1.key").exists()
    assert slot.change_pin(b"wrong", PIN) == CKR.PIN_INCORRECT
    assert slot.change_pin(b"", b"123") == CKR.PIN_LEN_RANGE
    assert flags(slot) == EMPTY_PIN
    assert slot.change_pin(b"", PIN) == CKR.OK
    assert slot.flags & TABLE == INITIALISED
    assert [path.name for path in (home / "tokens").iterdir() if path.suffix == ".key"] == []
    check_needs_login(slot, key, PIN)
    assert slot.change_pin(b"", b"another-pin") == CKR.PIN_INCORRECT


@pytest.mark.rule("S14", "P11")
def test_another_process_loses_its_access_with_the_first_pin(home: Path, module: Client) -> None:
    """When one process sets the first PIN, all others lose their access at once, also in the middle of an operation."""
    slot = open_token(module, "--empty-pin")
    key = check_works_without_login(slot)
    slot.client.ok("C_SignInit", slot.session, slot.client.mechanism(CKM.ECDSA), key)
    other = Other(slot.id)
    assert other.ask("flags") == EMPTY_PIN
    assert other.ask("set-pin", "''", PIN.decode()) == CKR.OK
    assert flags(slot) == INITIALISED
    length = ffi.new("CK_ULONG *", 64)
    assert slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)]) == []
    rv = slot.client.call("C_Sign", slot.session, HASH, 32, ffi.new("char[64]"), length)
    assert rv == CKR.OPERATION_NOT_INITIALIZED
    check_needs_login(slot, key, PIN)
    other.end()


@pytest.mark.rule("S14")
def test_the_empty_pin_logs_in(module: Client) -> None:
    """While the PIN is empty C_Login takes the empty PIN (or none) and no other; that login outlives the first PIN."""
    slot = open_token(module, "--empty-pin")
    client = slot.client
    for _ in range(12):  # nothing to guess: not counted
        assert client.call("C_Login", slot.session, CKU.USER, PIN, len(PIN)) == CKR.PIN_INCORRECT
    client.login(slot.session, b"")
    assert client.state(slot.session) == CKS.RO_USER_FUNCTIONS
    assert slot.logout() == CKR.OK
    key = check_works_without_login(slot)
    client.ok("C_Login", slot.session, CKU.USER, ffi.NULL, 0)
    assert slot.change_pin(b"", PIN) == CKR.OK
    assert slot.is_logged_in()
    assert slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)]) == [key]
    slot.logout()
    check_needs_login(slot, key, PIN)


@pytest.mark.rule("S14", "S15")
def test_the_so_sets_the_pin_of_a_token_with_an_empty_one(module: Client) -> None:
    """The SO sees no private objects of a token of general access, and sets its PIN; the SO PIN stays what it was."""
    slot = open_token(module, "--empty-pin")
    client, key = slot.client, check_works_without_login(slot)
    client.ok("C_CloseAllSessions", slot.id)
    session = client.open(slot.id, READ_WRITE)
    client.login(session, SO_PIN, CKU.SO)
    assert client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY)]) == []
    client.ok("C_Logout", session)
    assert client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY)]) == [key]
    client.login(session, SO_PIN, CKU.SO)
    client.ok("C_InitPIN", session, PIN, len(PIN))
    client.ok("C_Logout", session)
    assert flags(slot) == INITIALISED
    slot.session = session
    check_needs_login(slot, key, PIN)
    client.ok("C_Logout", session)
    client.login(session, SO_PIN, CKU.SO)


@pytest.mark.rule("S15", "P30")
def test_an_initialised_token_asks_for_its_pin(nss: Nss) -> None:
    """Shows both flags; private keys are there after C_Login only, which every session notices."""
    slot = nss.slot
    assert flags(slot) == INITIALISED
    slot.login(PIN)
    _, key = slot.generate_ec()
    slot.logout()
    check_needs_login(slot, key, PIN)


@pytest.mark.rule("S15")
def test_initialising_any_token_anew_makes_it_wait_for_its_pin(home: Path, module: Client) -> None:
    """C_InitToken with the SO PIN on a token of general access leaves an uninitialised one without key file."""
    slot = open_token(module, "--empty-pin")
    check_works_without_login(slot)
    assert slot.reset_token(b"not-the-so-pin") == CKR.PIN_INCORRECT
    assert flags(slot) == EMPTY_PIN
    assert slot.reset_token(SO_PIN) == CKR.OK
    assert flags(slot) == UNINITIALISED
    assert not (home / "tokens" / "slot-1.key").exists()
    slot.init_pin(PIN, SO_PIN)
    assert flags(slot) == INITIALISED
    assert slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)]) == []


# Logins


@pytest.mark.rule("SE11", "P11")
def test_a_login_counts_for_every_session(nss: Nss) -> None:
    """A login on NSS's read-only session counts at once for every session, also for those opened later."""
    slot, client = nss.slot, nss.client
    before = client.open(slot.id, READ_WRITE)
    slot.login(PIN)
    after = client.open(slot.id, READ_ONLY)
    states = [client.state(session) for session in (slot.session, before, after)]
    assert states == [CKS.RO_USER_FUNCTIONS, CKS.RW_USER_FUNCTIONS, CKS.RO_USER_FUNCTIONS]
    assert client.call("C_Login", before, CKU.USER, PIN, len(PIN)) == CKR.USER_ALREADY_LOGGED_IN
    client.ok("C_Logout", after)
    states = [client.state(session) for session in (slot.session, before, after)]
    assert states == [CKS.RO_PUBLIC_SESSION, CKS.RW_PUBLIC_SESSION, CKS.RO_PUBLIC_SESSION]


@pytest.mark.rule("SE12", "SE15")
def test_a_logout_hides_private_keys_until_the_next_login(nss: Nss) -> None:
    """C_Logout ends operations with private keys and hides these; NSS's handles work again after the next login."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    _, key = slot.generate_ec()
    mechanism = client.mechanism(CKM.ECDSA)
    with slot.ro() as session:
        client.ok("C_SignInit", session, mechanism, key)
        assert slot.logout() == CKR.OK
        length = ffi.new("CK_ULONG *", 64)
        rv = client.call("C_Sign", session, HASH, 32, ffi.new("char[64]"), length)
        assert rv == CKR.OPERATION_NOT_INITIALIZED
    assert slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)]) == []
    assert client.call("C_SignInit", slot.session, mechanism, key) == CKR.KEY_HANDLE_INVALID
    slot.login(PIN)
    assert len(slot.sign(key, mechanism, HASH, 64)) == 64


@pytest.mark.rule("SE13", "SE14")
def test_nss_checks_a_pin_by_logging_out_and_in(nss: Nss) -> None:
    """C_Logout when nobody is logged in is harmless (CKR_USER_NOT_LOGGED_IN); NSS's check of a PIN then logs in."""
    slot = nss.slot
    assert slot.logout() == CKR.USER_NOT_LOGGED_IN
    assert slot.check_password(b"not-the-pin") == CKR.PIN_INCORRECT
    for _ in range(2):
        assert slot.check_password(PIN) == CKR.OK
        assert slot.is_logged_in()
    assert slot.check_password(b"not-the-pin") == CKR.PIN_INCORRECT
    assert not slot.is_logged_in()
