"""S1 to S20 as NSS calls: slots, token information, mechanisms, the first PIN, a new PIN, a reset."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from keyfob.spec.constants import CKA, CKF, CKM, CKO, CKR, CKU
from tests.client import READ_ONLY, READ_WRITE, Client, RvError, ffi
from tests.conftest import CHEAP_PINS, PIN, SO_PIN, Fob
from tests.rules.nss_calls import Nss, make_token, start

ALL_MECHANISMS = sorted({value for name, value in vars(CKM).items() if name[0] != "_"})
# CKM_SHA*_RSA_PKCS and CKM_ECDSA_SHA*, which NSS asks for without a look at the list.
COMBINED = (0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x1042, 0x1043, 0x1044, 0x1045, 0x1046)


def settings(home: Path, text: str) -> None:
    (home / "config.toml").write_text(CHEAP_PINS + text)


def token_with_pins(module: Client) -> Nss:
    """NSS started on the token `test`, for tests that write config.toml first."""
    module.initialize()
    Fob(module)
    module.ok("C_Finalize", ffi.NULL)
    return start(module)


# Lists of slots


@pytest.mark.rule("S1")
@pytest.mark.parametrize("present", [0, 1])
def test_the_two_calls_for_slots_agree(nss: Nss, present: int) -> None:
    """Lists the same slots in both calls, and says how many there are when the buffer is too short."""
    count = ffi.new("CK_ULONG *")
    nss.client.ok("C_GetSlotList", present, ffi.NULL, count)
    assert count[0] == len(nss.slots) == 1
    held = ffi.new("CK_ULONG[4]")
    count[0] = 4
    nss.client.ok("C_GetSlotList", present, held, count)
    assert list(held[0 : count[0]]) == list(nss.slots)
    count[0] = 0
    assert nss.client.call("C_GetSlotList", present, held, count) == CKR.BUFFER_TOO_SMALL
    assert count[0] == 1


@pytest.mark.rule("S2", "P36")
def test_the_list_of_slots_grows_and_never_shrinks(nss: Nss) -> None:
    """A token that is made meanwhile gets a slot of its own at the next listing; no slot is ever taken away."""
    (first,) = nss.slots
    assert nss.update_slot_list() == []
    make_token("second")
    (second,) = nss.update_slot_list()
    assert list(nss.slots) == [first, second]
    assert nss.named("second").id == second
    assert nss.named("test").session
    nss.end()
    assert list(start(nss.client).slots) == [first, second]


@pytest.mark.rule("S2", "S5")
@pytest.mark.parametrize("file_is", ["moved away", "deleted by the program", "damaged"])
def test_a_slot_stays_in_every_later_list(home: Path, nss: Nss, file_is: str) -> None:
    """Lists a permanent slot again and again, whatever has become of its token's file, its token present."""
    make_token("second")
    (second,) = nss.update_slot_list()
    listed = list(nss.slots)
    file = home / "tokens" / f"slot-{second}.keyfob"
    if file_is == "moved away":
        file.rename(home / "away")
    elif file_is == "damaged":
        file.write_bytes(b"no token")
        nss.end()
        nss = start(nss.client)
    else:
        command = [sys.executable, "-m", "keyfob.cli", "delete", "second", "--token", "--yes"]
        subprocess.run(command, check=True)
    count, held = ffi.new("CK_ULONG *"), ffi.new("CK_ULONG[8]")
    for present in (0, 1, 0, 1):
        nss.client.ok("C_GetSlotList", present, ffi.NULL, count)
        assert count[0] == len(listed)
        count[0] = 8
        nss.client.ok("C_GetSlotList", present, held, count)
        assert list(held[0 : count[0]]) == listed
        assert nss.update_slot_list() == []
        for slot in nss.slots.values():
            slot.slot_info()
            assert slot.slot_flags & CKF.TOKEN_PRESENT


@pytest.mark.rule("P36")
def test_a_slot_keeps_its_id_when_another_token_is_gone(home: Path, nss: Nss) -> None:
    """A token is in the slot with the same ID and description in every run, whatever other tokens come and go."""
    make_token("second")
    (second,) = nss.update_slot_list()
    description = bytes(ffi.buffer(nss.slots[second].slot_info().slotDescription))
    nss.end()
    (home / "tokens" / "slot-1.keyfob").rename(home / "away")
    nss = start(nss.client)
    assert list(nss.slots) == [second]
    assert nss.named("second").id == second
    assert bytes(ffi.buffer(nss.slots[second].slot_info().slotDescription)) == description
    nss.end()
    (home / "away").rename(home / "tokens" / "slot-1.keyfob")
    assert list(start(nss.client).slots) == [1, second]


@pytest.mark.rule("S3", "P36", "P40")
def test_every_slot_describes_itself(nss: Nss) -> None:
    """Describes each slot by its number, blank padded, each differently; an unknown slot is CKR_SLOT_ID_INVALID."""
    make_token("second")
    nss.update_slot_list()
    descriptions = [bytes(ffi.buffer(slot.slot_info().slotDescription)) for slot in nss.slots.values()]
    assert descriptions == [f"keyfob slot {slot_id}".encode().ljust(64) for slot_id in nss.slots]
    info = ffi.new("CK_SLOT_INFO *")
    assert nss.client.call("C_GetSlotInfo", 999, info) == CKR.SLOT_ID_INVALID


@pytest.mark.rule("S6", "P10")
def test_no_slot_is_disabled(fresh: Nss) -> None:
    """Has a token in every permanent slot, an uninitialised one at first, and opens a session on it."""
    assert not fresh.disabled
    for slot in fresh.slots.values():
        assert slot.slot_flags & CKF.TOKEN_PRESENT or slot.slot_flags & CKF.REMOVABLE_DEVICE
        assert slot.session
        assert slot.find([(CKA.CLASS, CKO.CERTIFICATE)]) == []


@pytest.mark.rule("S5")
def test_no_token_vanishes_from_a_permanent_slot(home: Path, nss: Nss) -> None:
    """Keeps CKF_TOKEN_PRESENT in a slot that is not removable, even when somebody takes the token's file away."""
    before = nss.slot.slot_flags
    (file,) = (home / "tokens").glob("slot-*.keyfob")
    file.rename(home / "away")
    nss.update_slot_list()
    nss.slot.slot_info()
    gone = not nss.slot.slot_flags & CKF.TOKEN_PRESENT
    assert gone == bool(before & CKF.REMOVABLE_DEVICE)
    assert nss.slot.slot_flags & CKF.REMOVABLE_DEVICE == before & CKF.REMOVABLE_DEVICE


@pytest.mark.rule("S5")
def test_a_permanent_slot_says_that_its_token_is_there_however_often_it_is_asked(nss: Nss) -> None:
    """Keeps CKF_TOKEN_PRESENT through sessions, logins and searches, in each of the calls that NSS makes meanwhile."""
    slot = nss.slot
    for _ in range(10):
        slot.login(PIN)
        assert slot.find([]) != []
        for _ in range(5):
            slot.slot_info()
            assert slot.slot_flags & CKF.TOKEN_PRESENT
        slot.logout()
        nss.update_slot_list()
    assert slot.slot_flags & CKF.TOKEN_PRESENT


# Information


@pytest.mark.rule("S7", "P35")
def test_it_does_not_claim_to_be_hardware(nss: Nss) -> None:
    """Leaves CKF_HW_SLOT clear, so NSS's small cache stays out of the way: of 25 certificates all are found."""
    assert not nss.slot.slot_flags & CKF.HW_SLOT
    slot = nss.slot
    for number in range(25):
        slot.create(
            [
                (CKA.TOKEN, True),
                (CKA.CLASS, CKO.CERTIFICATE),
                (CKA.CERTIFICATE_TYPE, 0),
                (CKA.ID, bytes([number]) * 20),
                (CKA.LABEL, f"number {number}"),
                (CKA.VALUE, b"0\x03\x02\x01" + bytes([number])),
                (CKA.ISSUER, b"0\x00"),
                (CKA.SUBJECT, b"0\x00"),
                (CKA.SERIAL_NUMBER, b"\x02\x01" + bytes([number])),
            ]
        )
    assert len(slot.find([(CKA.TOKEN, True), (CKA.CLASS, CKO.CERTIFICATE)])) == 25
    for number in range(25):
        serial = (CKA.SERIAL_NUMBER, b"\x02\x01" + bytes([number]))
        found = slot.find([(CKA.TOKEN, True), (CKA.CLASS, CKO.CERTIFICATE), (CKA.ISSUER, b"0\x00"), serial], 1)
        assert slot.read(found[0], CKA.LABEL) == [f"number {number}".encode()]


@pytest.mark.rule("S8", "S13")
def test_token_information_is_that_of_the_moment(fresh: Nss) -> None:
    """Tells in C_GetTokenInfo what holds now: the PIN that was just set, the sessions that are open."""
    slot, client = fresh.slot, fresh.client
    assert not client.token_info(slot.id).flags & CKF.USER_PIN_INITIALIZED
    slot.init_pin(PIN)
    assert client.token_info(slot.id).flags & CKF.USER_PIN_INITIALIZED
    before = client.token_info(slot.id).ulSessionCount
    with slot.ro(), slot.rw():
        info = client.token_info(slot.id)
        assert (info.ulSessionCount, info.ulRwSessionCount) == (before + 2, 1)
    assert client.token_info(slot.id).ulSessionCount == before


@pytest.mark.rule("S8")
def test_token_information_costs_next_to_nothing(nss: Nss) -> None:
    """Gives the same C_GetTokenInfo each time while nothing changes, and reads no file for it, however often."""
    first = bytes(ffi.buffer(nss.client.token_info(nss.slot.id)))
    before = bytes_read()
    answers = {bytes(ffi.buffer(nss.client.token_info(nss.slot.id))) for _ in range(1000)}
    assert bytes_read() - before < 1000, "that is what looking at the counter itself reads"
    assert answers == {first}


def bytes_read() -> int:
    """How much this process has read from anywhere so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.rule("S10", "P17")
def test_the_label_is_the_name_by_which_nss_finds_it(module: Client) -> None:
    """Gives the label blank padded, without NULs, the same after a restart; a token without one is called "keyfob"."""
    fresh = start(module)
    assert fresh.named("keyfob").id == fresh.slot.id
    fresh.end()
    nss = token_with_pins(module)
    assert nss.named("test").id == nss.slot.id
    assert bytes(ffi.buffer(nss.client.token_info(nss.slot.id).label)) == b"test".ljust(32)


@pytest.mark.rule("S10", "P17")
@pytest.mark.parametrize("label", [b"a:b", b"", b"new\nline", b"\xff\xfe", b"second"])
def test_labels_that_nss_cannot_use_are_refused(nss: Nss, label: bytes) -> None:
    """Refuses labels with a colon or control characters, empty ones and those of another token."""
    make_token("second")
    nss.update_slot_list()
    slot = nss.named("test")
    nss.client.ok("C_CloseAllSessions", slot.id)
    rv = nss.client.call("C_InitToken", slot.id, SO_PIN, len(SO_PIN), label.ljust(32))
    assert rv == CKR.ARGUMENTS_BAD


@pytest.mark.rule("S11")
def test_a_token_that_can_be_written_does_not_claim_the_contrary(module: Client) -> None:
    """Leaves CKF_WRITE_PROTECTED clear where read-write sessions open: with PIN, without one, and uninitialised."""
    fresh = start(module)
    assert not fresh.slot.flags & CKF.WRITE_PROTECTED
    fresh.end()
    nss = token_with_pins(module)
    make_token("open")
    nss.update_slot_list()
    for slot in nss.slots.values():
        assert not slot.flags & CKF.WRITE_PROTECTED
        with slot.rw() as session:
            assert session != slot.session


@pytest.mark.rule("S11")
def test_a_write_protected_token_opens_for_reading_only(home: Path, module: Client) -> None:
    """A token that config.toml protects says so, is read as ever and answers CKR_TOKEN_WRITE_PROTECTED to writers."""
    nss = token_with_pins(module)
    nss.slot.login(PIN)
    _, private = nss.slot.generate_ec()
    nss.end()
    settings(home, '[token."test"]\nwrite_protected = true\nmax_sessions = 1000\n')
    nss = start(module)
    assert nss.slot.flags & CKF.WRITE_PROTECTED
    handle = ffi.new("CK_ULONG *")
    for _ in range(2):
        rv = module.call("C_OpenSession", nss.slot.id, READ_WRITE, ffi.NULL, ffi.NULL, handle)
        assert rv == CKR.TOKEN_WRITE_PROTECTED
        nss.slot.login(PIN)
    with pytest.raises(RvError):
        nss.slot.generate_ec()
    assert len(nss.slot.sign(private, nss.client.mechanism(CKM.ECDSA), bytes(32), 64)) == 64


@pytest.mark.rule("S11")
def test_a_write_protected_token_with_one_session_is_opened_for_reading(home: Path, module: Client) -> None:
    """With write protection the one session that a token may allow is a read-only one."""
    token_with_pins(module).end()
    settings(home, '[token."test"]\nwrite_protected = true\nmax_sessions = 1\n')
    nss = start(module)
    assert not nss.slot.one_session
    nss.slot.login(PIN)
    assert nss.slot.is_logged_in()


# Mechanisms


@pytest.mark.rule("S16")
def test_the_list_of_mechanisms_is_stable_and_has_information(nss: Nss) -> None:
    """Lists the same mechanisms each time, none twice, and knows each of them."""
    listed = nss.slot.mechanisms
    assert len(listed) == len(set(listed)) > 50
    assert nss.slot.read_mechanisms() == listed
    nss.slot.login(PIN)
    assert nss.slot.read_mechanisms() == listed, "whoever is logged in"
    assert all(nss.slot.mechanism_flags(mechanism) for mechanism in listed)
    assert [mechanism for mechanism in ALL_MECHANISMS if nss.slot.mechanism_flags(mechanism)] == sorted(listed)


@pytest.mark.rule("S16", "P10")
def test_an_uninitialised_token_has_its_mechanisms(fresh: Nss) -> None:
    """Lists its mechanisms before the token is initialised too, with the flags that they will have."""
    assert CKM.RSA_PKCS_KEY_PAIR_GEN in fresh.slot.mechanisms
    before = {mechanism: fresh.slot.mechanism_flags(mechanism) for mechanism in fresh.slot.mechanisms}
    assert all(before.values())
    fresh.slot.init_pin(PIN)
    assert {mechanism: fresh.slot.mechanism_flags(mechanism) for mechanism in fresh.slot.mechanisms} == before


@pytest.mark.rule("S17")
def test_unlisted_mechanisms_are_invalid(nss: Nss) -> None:
    """Answers CKR_MECHANISM_INVALID for every mechanism that it does not list."""
    info = ffi.new("CK_MECHANISM_INFO *")
    unlisted = [*(set(ALL_MECHANISMS) - set(nss.slot.mechanisms)), 0xDEADBEEF]
    answers = {nss.client.call("C_GetMechanismInfo", nss.slot.id, mechanism, info) for mechanism in unlisted}
    assert answers == {CKR.MECHANISM_INVALID}


@pytest.mark.rule("S17")
def test_mechanisms_that_nss_asks_for_unseen_have_true_flags(nss: Nss) -> None:
    """Claims CKF_SIGN for the mechanisms that hash and sign just where C_SignInit takes them."""
    nss.slot.login(PIN)
    keys = {CKM.RSA_PKCS: nss.slot.generate_rsa()[1], CKM.ECDSA: nss.slot.generate_ec()[1]}
    for mechanism in (CKM.RSA_PKCS, CKM.ECDSA, CKM.SHA_1, *COMBINED):
        key = keys[CKM.ECDSA if mechanism >= CKM.ECDSA else CKM.RSA_PKCS]
        parameter = b""
        if mechanism in (0x43, 0x44, 0x45):  # PSS: hash, MGF, length of the salt
            number = mechanism - 0x43
            words = ((0x250, 0x260, 0x270)[number], (2, 3, 4)[number], (32, 48, 64)[number])
            parameter = b"".join(word.to_bytes(8, "little") for word in words)
        with nss.slot.ro() as session:
            rv = nss.client.call("C_SignInit", session, nss.client.mechanism(mechanism, parameter), key)
        assert (rv == CKR.OK) == bool(nss.slot.mechanism_flags(mechanism) & CKF.SIGN)


@pytest.mark.rule("S17")
@pytest.mark.parametrize("mechanism", ALL_MECHANISMS, ids=hex)
def test_digest_flags_are_true(nss: Nss, mechanism: int) -> None:
    """Claims CKF_DIGEST for just the mechanisms with which C_DigestInit works."""
    with nss.slot.ro() as session:
        rv = nss.client.call("C_DigestInit", session, nss.client.mechanism(mechanism))
    assert (rv == CKR.OK) == bool(nss.slot.mechanism_flags(mechanism) & CKF.DIGEST)


# PINs


@pytest.mark.rule("S15", "SE11", "P11")
def test_the_user_is_asked_once(nss: Nss) -> None:
    """Knows after one login on NSS's session that the user is there; a second login is CKR_USER_ALREADY_LOGGED_IN."""
    slot, client = nss.slot, nss.client
    wanted = CKF.LOGIN_REQUIRED | CKF.USER_PIN_INITIALIZED
    assert slot.flags & wanted == wanted
    assert not slot.is_logged_in()
    for wrong in (b"wrong", b"", PIN + b"1", PIN[:-1]):
        with pytest.raises(RvError) as refused:
            slot.login(wrong)
        assert refused.value.rv == CKR.PIN_INCORRECT
        assert not slot.is_logged_in()
    slot.login(PIN)
    assert slot.is_logged_in()
    assert client.call("C_Login", slot.session, CKU.USER, PIN, len(PIN)) == CKR.USER_ALREADY_LOGGED_IN


@pytest.mark.rule("S13", "S19", "N1", "N7", "P6")
def test_nss_sets_the_first_pin_of_a_token_that_nobody_made(fresh: Nss) -> None:
    """Lets NSS set the first PIN as certutil -N and Firefox do: an SO without PIN beside the read-only session."""
    slot = fresh.slot
    slot.init_pin(PIN)
    assert slot.flags & CKF.USER_PIN_INITIALIZED
    assert slot.is_logged_in()
    public, private = slot.generate_ec()
    assert slot.read(private, CKA.ID) == slot.read(public, CKA.ID)


@pytest.mark.rule("S13", "S19", "P6")
def test_a_second_first_pin_is_refused(fresh: Nss) -> None:
    """Once a user PIN is set the way without an SO PIN is closed."""
    fresh.slot.init_pin(PIN)
    fresh.slot.logout()
    with pytest.raises(RvError) as refused:
        fresh.slot.init_pin(b"other-pin")
    assert refused.value.rv == CKR.PIN_INCORRECT
    fresh.slot.login(PIN)


@pytest.mark.rule("S19")
def test_the_so_of_an_initialised_token_sets_the_first_pin(module: Client) -> None:
    """Takes the SO PIN that C_InitToken set as well when NSS sets the first user PIN."""
    nss = start(module)
    module.ok("C_CloseAllSessions", nss.slot.id)
    module.ok("C_InitToken", nss.slot.id, SO_PIN, len(SO_PIN), b"work".ljust(32))
    nss.slot.init_token()
    assert not nss.slot.flags & CKF.USER_PIN_INITIALIZED
    with pytest.raises(RvError):
        nss.slot.init_pin(PIN, b"wrong-so-pin")
    nss.slot.init_pin(PIN, SO_PIN)
    assert nss.slot.is_logged_in()


@pytest.mark.rule("S20", "N6", "SE14")
def test_nss_changes_the_pin(nss: Nss) -> None:
    """Changes the PIN on a session other than the one that logged in; the user stays, the old PIN is refused."""
    slot = nss.slot
    assert slot.check_password(PIN) == CKR.OK
    assert slot.change_pin(b"wrong", b"new-user-pin") == CKR.PIN_INCORRECT
    assert slot.change_pin(PIN, b"new-user-pin") == CKR.OK
    assert slot.is_logged_in()
    assert slot.check_password(PIN) == CKR.PIN_INCORRECT
    assert slot.check_password(b"new-user-pin") == CKR.OK


@pytest.mark.rule("S18")
def test_certutil_resets_a_token(nss: Nss) -> None:
    """Empties the token at C_InitToken with the right SO PIN, keeps its name, and forgets the user PIN."""
    slot = nss.slot
    slot.login(PIN)
    slot.generate_ec()
    assert slot.reset_token(b"wrong-so-pin") == CKR.PIN_INCORRECT
    slot.login(PIN)
    assert len(slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)])) == 1
    assert slot.reset_token(SO_PIN) == CKR.OK
    assert slot.name == "test"
    assert not slot.flags & CKF.USER_PIN_INITIALIZED
    slot.init_pin(b"other-pin", SO_PIN)
    assert slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)]) == []


@pytest.mark.rule("S18")
def test_no_reset_under_open_sessions(nss: Nss) -> None:
    """Refuses C_InitToken with CKR_SESSION_EXISTS while a session is open."""
    rv = nss.client.call("C_InitToken", nss.slot.id, SO_PIN, len(SO_PIN), b"test".ljust(32))
    assert rv == CKR.SESSION_EXISTS
    assert {nss.client.open(nss.slot.id, flags) > 0 for flags in (READ_ONLY, READ_WRITE)} == {True}
