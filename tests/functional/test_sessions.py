"""Slots, sessions, logins, PINs through the C ABI: sections 5.4 to 5.6, and how NSS uses them."""

from __future__ import annotations

import threading

import pytest

from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR, CKS, CKU
from tests.client import P256, READ_ONLY, READ_WRITE, Client, RvError, ffi
from tests.conftest import PIN, SO_PIN, Fob


def flags(client: Client, slot: int) -> int:
    return int(client.token_info(slot).flags)


@pytest.mark.rule("S10", "S13", "P10")
def test_no_token_yet_shows_one_uninitialised_token(client: Client) -> None:
    """Shows one uninitialised token called "keyfob" where none was made; it can be opened and searched."""
    (slot,) = client.slots()
    assert bytes(ffi.buffer(client.token_info(slot).label)) == b"keyfob".ljust(32)
    assert flags(client, slot) & (CKF.LOGIN_REQUIRED | CKF.TOKEN_INITIALIZED | CKF.USER_PIN_INITIALIZED) == (
        CKF.LOGIN_REQUIRED
    )
    session = client.open(slot, READ_ONLY)
    assert client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY)]) == []
    assert client.call("C_Login", session, CKU.USER, PIN, len(PIN)) == CKR.USER_PIN_NOT_INITIALIZED


def test_init_token_then_init_pin(fob: Fob) -> None:
    info = fob.client.token_info(fob.slot)
    assert bytes(ffi.buffer(info.label)) == b"test".ljust(32)
    wanted = CKF.LOGIN_REQUIRED | CKF.TOKEN_INITIALIZED | CKF.USER_PIN_INITIALIZED | CKF.RNG
    assert info.flags & wanted == wanted


@pytest.mark.rule("S13", "S19", "P6", "N1")
def test_nss_sets_the_first_pin_beside_its_read_only_session(client: Client) -> None:
    """Takes the SO without a PIN beside a read-only session until the first user PIN is set, and not afterwards."""
    (slot,) = client.slots()
    default = client.open(slot, READ_ONLY)
    session = client.open(slot, READ_WRITE)
    client.ok("C_Login", session, CKU.SO, b"", 0)
    client.ok("C_InitPIN", session, PIN, len(PIN))
    client.ok("C_Logout", session)
    client.ok("C_CloseSession", session)
    assert flags(client, slot) & CKF.USER_PIN_INITIALIZED
    client.login(default, PIN)
    assert client.state(default) == CKS.RO_USER_FUNCTIONS
    client.ok("C_Logout", default)
    session = client.open(slot, READ_WRITE)
    assert client.call("C_Login", session, CKU.SO, b"", 0) == CKR.PIN_INCORRECT


@pytest.mark.rule("SE11", "SE12", "SE14", "P11")
def test_one_login_for_all_sessions(fob: Fob) -> None:
    """Has one login for all sessions, whichever logs in or out."""
    fob.client.ok("C_Logout", fob.session)
    before = fob.client.open(fob.slot, READ_ONLY)
    fob.client.login(before, PIN)
    after = fob.client.open(fob.slot, READ_WRITE)
    states = [fob.client.state(session) for session in (fob.session, before, after)]
    assert states == [CKS.RW_USER_FUNCTIONS, CKS.RO_USER_FUNCTIONS, CKS.RW_USER_FUNCTIONS]
    assert fob.client.call("C_Login", after, CKU.USER, PIN, len(PIN)) == CKR.USER_ALREADY_LOGGED_IN
    fob.client.ok("C_Logout", before)
    assert fob.client.state(after) == CKS.RW_PUBLIC_SESSION
    assert fob.client.call("C_Logout", before) == CKR.USER_NOT_LOGGED_IN  # SE14


def test_wrong_pins_are_counted_and_lock(fob: Fob) -> None:
    fob.client.ok("C_Logout", fob.session)
    for _ in range(9):
        assert fob.client.call("C_Login", fob.session, CKU.USER, b"wrong", 5) == CKR.PIN_INCORRECT
    assert flags(fob.client, fob.slot) & CKF.USER_PIN_FINAL_TRY
    fob.client.call("C_Login", fob.session, CKU.USER, b"wrong", 5)
    assert flags(fob.client, fob.slot) & CKF.USER_PIN_LOCKED
    assert fob.client.call("C_Login", fob.session, CKU.USER, PIN, len(PIN)) == CKR.PIN_LOCKED
    fob.client.login(fob.session, SO_PIN, CKU.SO)
    fob.client.ok("C_InitPIN", fob.session, b"new-pin", 7)
    fob.client.ok("C_Logout", fob.session)
    fob.client.login(fob.session, b"new-pin")


def test_counter_survives_a_restart(fob: Fob) -> None:
    fob.client.ok("C_Logout", fob.session)
    fob.client.call("C_Login", fob.session, CKU.USER, b"wrong", 5)
    fob.client.ok("C_Finalize", ffi.NULL)
    fob.client.initialize()
    assert flags(fob.client, fob.slot) & CKF.USER_PIN_COUNT_LOW
    session = fob.client.open(fob.slot)
    fob.client.login(session, PIN)
    assert not flags(fob.client, fob.slot) & CKF.USER_PIN_COUNT_LOW


@pytest.mark.rule("S20", "N6")
def test_set_pin_while_logged_in_in_another_session(fob: Fob) -> None:
    """Refuses C_SetPIN in read-only sessions, with a wrong old PIN, with a short new one; a new PIN holds at once."""
    default = fob.client.open(fob.slot, READ_ONLY)
    changed = fob.client.open(fob.slot, READ_WRITE)
    assert fob.client.call("C_SetPIN", default, PIN, len(PIN), b"new-pin", 7) == CKR.SESSION_READ_ONLY
    assert fob.client.call("C_SetPIN", changed, b"wrong", 5, b"new-pin", 7) == CKR.PIN_INCORRECT
    assert fob.client.call("C_SetPIN", changed, PIN, len(PIN), b"new", 3) == CKR.PIN_LEN_RANGE
    fob.client.ok("C_SetPIN", changed, PIN, len(PIN), b"new-pin", 7)
    assert fob.client.state(default) == CKS.RO_USER_FUNCTIONS
    fob.client.ok("C_Logout", default)
    assert fob.client.call("C_Login", default, CKU.USER, PIN, len(PIN)) == CKR.PIN_INCORRECT
    fob.client.login(default, b"new-pin")


def test_so_keeps_away_from_read_only_sessions_once_a_pin_is_set(fob: Fob) -> None:
    fob.client.ok("C_Logout", fob.session)
    fob.client.open(fob.slot, READ_ONLY)
    call = fob.client.call("C_Login", fob.session, CKU.SO, SO_PIN, len(SO_PIN))
    assert call == CKR.SESSION_READ_ONLY_EXISTS


def test_so_sees_no_private_objects(fob: Fob) -> None:
    fob.client.generate_pair(
        fob.session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256), (CKA.TOKEN, True)], [(CKA.TOKEN, True)]
    )
    fob.client.ok("C_Logout", fob.session)
    fob.client.login(fob.session, SO_PIN, CKU.SO)
    assert fob.client.state(fob.session) == CKS.RW_SO_FUNCTIONS
    assert fob.client.find(fob.session, [(CKA.CLASS, CKO.PRIVATE_KEY)]) == []
    assert fob.client.call("C_Login", fob.session, CKU.USER, PIN, len(PIN)) == CKR.USER_ANOTHER_ALREADY_LOGGED_IN
    handle = ffi.new("CK_ULONG *")
    call = fob.client.call("C_OpenSession", fob.slot, READ_ONLY, ffi.NULL, ffi.NULL, handle)
    assert call == CKR.SESSION_READ_WRITE_SO_EXISTS


@pytest.mark.rule("S18")
def test_init_token_needs_the_so_pin_and_no_sessions(fob: Fob) -> None:
    """Initialises a token only with the right SO PIN and without open sessions; old handles never mean new objects."""
    fob.client.create(fob.session, [(CKA.CLASS, CKO.DATA), (CKA.TOKEN, True), (CKA.LABEL, "kept")])
    label = b"again".ljust(32)
    assert fob.client.call("C_InitToken", fob.slot, SO_PIN, len(SO_PIN), label) == CKR.SESSION_EXISTS
    fob.client.ok("C_CloseAllSessions", fob.slot)
    assert fob.client.call("C_InitToken", fob.slot, b"wrong", 5, label) == CKR.PIN_INCORRECT
    session = fob.client.open(fob.slot)
    (kept,) = fob.client.find(session, [(CKA.LABEL, "kept")])
    fob.client.ok("C_CloseAllSessions", fob.slot)
    fob.client.ok("C_InitToken", fob.slot, SO_PIN, len(SO_PIN), label)
    session = fob.client.open(fob.slot)
    assert fob.client.find(session, [(CKA.LABEL, "kept")]) == []
    fob.client.create(session, [(CKA.CLASS, CKO.DATA), (CKA.TOKEN, True)])
    assert fob.client.get(session, kept, CKA.CLASS) == [None]  # P25: an old handle never means a new object


@pytest.mark.rule("S10", "P17")
@pytest.mark.parametrize("label", [b"a:b", b"", b"\xff\xfe", b"new\nline"])
def test_labels_that_nss_cannot_name_are_refused(client: Client, label: bytes) -> None:
    """Refuses to make a token with a label that NSS cannot name."""
    assert client.call("C_InitToken", 1, SO_PIN, len(SO_PIN), label.ljust(32)) == CKR.ARGUMENTS_BAD


def test_label_ends_at_a_nul(client: Client) -> None:
    """PyKCS11 passes the text as it is in C, and whatever lies behind it."""
    client.ok("C_InitToken", 1, SO_PIN, len(SO_PIN), b"short\0\xff\xfe:".ljust(32, b"\n"))
    information = ffi.new("CK_TOKEN_INFO *")
    client.ok("C_GetTokenInfo", 1, information)
    assert bytes(information.label) == b"short".ljust(32)
    assert client.call("C_InitToken", 1, SO_PIN, len(SO_PIN), ffi.NULL) == CKR.ARGUMENTS_BAD


@pytest.mark.rule("SE2", "SE10", "P37")
def test_session_handles_are_never_reused(fob: Fob) -> None:
    """Never gives out a session handle twice; closed ones and 0 are CKR_SESSION_HANDLE_INVALID."""
    seen = set()
    for _ in range(500):
        session = fob.client.open(fob.slot, READ_ONLY)
        assert session not in seen
        seen.add(session)
        fob.client.ok("C_CloseSession", session)
    assert fob.client.call("C_CloseSession", max(seen)) == CKR.SESSION_HANDLE_INVALID
    assert fob.client.call("C_CloseSession", 0) == CKR.SESSION_HANDLE_INVALID


@pytest.mark.rule("SE2", "P26")
def test_as_many_sessions_as_the_token_promises(fob: Fob) -> None:
    """Opens as many sessions as ulMaxSessionCount promises, and then says CKR_SESSION_COUNT."""
    promised = fob.client.token_info(fob.slot).ulMaxSessionCount
    handle = ffi.new("CK_ULONG *")
    for _ in range(promised - 1):
        fob.client.ok("C_OpenSession", fob.slot, READ_ONLY, ffi.NULL, ffi.NULL, handle)
    assert fob.client.call("C_OpenSession", fob.slot, READ_ONLY, ffi.NULL, ffi.NULL, handle) == CKR.SESSION_COUNT


def test_closing_the_last_session_logs_out(fob: Fob) -> None:
    fob.client.ok("C_CloseAllSessions", fob.slot)
    assert fob.client.state(fob.client.open(fob.slot)) == CKS.RW_PUBLIC_SESSION


@pytest.mark.rule("SE8", "P5", "P29")
def test_always_authenticate_asks_before_each_use(fob: Fob) -> None:
    """Asks for the PIN before each use of a key with CKA_ALWAYS_AUTHENTICATE, whatever other sessions do meanwhile."""
    _, private = fob.client.generate_pair(
        fob.session,
        CKM.EC_KEY_PAIR_GEN,
        [(CKA.EC_PARAMS, P256), (CKA.TOKEN, True)],
        [(CKA.TOKEN, True), (CKA.ALWAYS_AUTHENTICATE, True)],
    )
    session, default = fob.client.open(fob.slot, READ_ONLY), fob.client.open(fob.slot, READ_ONLY)
    mechanism = fob.client.mechanism(CKM.ECDSA)
    signature, length = ffi.new("char[64]"), ffi.new("CK_ULONG *", 64)
    fob.client.ok("C_SignInit", session, mechanism, private)
    assert fob.client.call("C_Sign", session, bytes(32), 32, signature, length) == CKR.USER_NOT_LOGGED_IN
    fob.client.ok("C_SignInit", session, mechanism, private)
    assert fob.client.get(default, private, CKA.ALWAYS_AUTHENTICATE) == [b"\x01"]
    fob.client.state(default)
    assert fob.client.call("C_Login", session, CKU.CONTEXT_SPECIFIC, b"wrong", 5) == CKR.PIN_INCORRECT
    fob.client.ok("C_Login", session, CKU.CONTEXT_SPECIFIC, PIN, len(PIN))
    fob.client.ok("C_Sign", session, bytes(32), 32, signature, length)
    assert fob.client.call("C_Login", session, CKU.CONTEXT_SPECIFIC, PIN, len(PIN)) == CKR.OPERATION_NOT_INITIALIZED


@pytest.mark.rule("P28")
def test_finalize_wakes_whoever_waits_for_a_slot_event(client: Client) -> None:
    """Wakes a blocked C_WaitForSlotEvent by C_Finalize; it answers CKR_CRYPTOKI_NOT_INITIALIZED."""
    slot = ffi.new("CK_ULONG *")
    assert client.call("C_WaitForSlotEvent", CKF.DONT_BLOCK, slot, ffi.NULL) == CKR.NO_EVENT
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(client.call("C_WaitForSlotEvent", 0, slot, ffi.NULL)))
    waiting.start()
    client.ok("C_Finalize", ffi.NULL)
    waiting.join(10)
    assert answers == [CKR.CRYPTOKI_NOT_INITIALIZED]


@pytest.mark.rule("SE3", "P29")
def test_reading_and_writing_sessions_side_by_side(fob: Fob) -> None:
    """Signs on one session while another searches and writes."""
    _, private = fob.client.generate_pair(
        fob.session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256), (CKA.TOKEN, True)], [(CKA.TOKEN, True)]
    )
    signing = fob.client.open(fob.slot, READ_ONLY)
    fob.client.ok("C_SignInit", signing, fob.client.mechanism(CKM.ECDSA), private)
    assert fob.client.find(fob.session, [(CKA.CLASS, CKO.PRIVATE_KEY)], 1) == [private]
    fob.client.create(fob.session, [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE, bytes(16))])
    assert len(fob.client.output("C_Sign", signing, bytes(32), 32)) == 64


@pytest.mark.rule("S2", "P36")
def test_slot_ids_are_stable(fob: Fob) -> None:
    """Keeps slot IDs from run to run."""
    slots = fob.client.slots()
    fob.client.ok("C_Finalize", ffi.NULL)
    fob.client.initialize()
    assert fob.client.slots() == slots
    with pytest.raises(RvError):
        fob.client.open(999)
