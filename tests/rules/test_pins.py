"""PINs as NSS and people use them: S18 to S20, N6, P5, P29, and what sections 5.5 and 5.6 say of wrong ones."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from keyfob.spec.constants import CKA, CKF, CKG, CKM, CKO, CKR, CKS, CKU
from keyfob.token.login import delay_after
from tests.client import P256, READ_WRITE, RSA_2048, Client, Template, ffi
from tests.conftest import CHEAP_PINS, PIN, SO_PIN, Fob
from tests.rules.nss_calls import Nss, Slot, make_token, start

WRONG, NEW = b"not-the-pin", b"new-user-pin"
DATA, HASH = b"what is signed", bytes(32)
MOST_FAILURES = 10
USER_FLAGS = (CKF.USER_PIN_COUNT_LOW, CKF.USER_PIN_FINAL_TRY, CKF.USER_PIN_LOCKED)
SO_FLAGS = (CKF.SO_PIN_COUNT_LOW, CKF.SO_PIN_FINAL_TRY, CKF.SO_PIN_LOCKED)
ASKING: Template = [(CKA.TOKEN, True), (CKA.PRIVATE, True), (CKA.ALWAYS_AUTHENTICATE, True)]


def shown(slot: Slot, which: tuple[int, int, int]) -> tuple[bool, ...]:
    """(COUNT_LOW, FINAL_TRY, LOCKED)."""
    flags = slot.client.token_info(slot.id).flags
    return tuple(bool(flags & flag) for flag in which)


def login(slot: Slot, pin: bytes, user: int = CKU.USER, session: int = 0) -> int:
    return slot.client.call("C_Login", session or slot.session, user, pin, len(pin))


def configured(home: Path, module: Client, more: str) -> Slot:
    """NSS on a token `test` with PIN and SO_PIN, the configuration ending with `more`."""
    module.initialize()
    Fob(module)
    module.ok("C_Finalize", ffi.NULL)
    (home / "config.toml").write_text(more)
    return start(module).slot


# Setting PINs


@pytest.mark.rule("S20", "N6")
def test_a_changed_pin_counts_at_once(nss: Nss) -> None:
    """NSS's change of a PIN, on a read-write session beside its own, leaves the user logged in, the old PIN wrong."""
    slot = nss.slot
    assert slot.check_password(PIN) == CKR.OK
    assert slot.change_pin(PIN, NEW) == CKR.OK
    assert slot.is_logged_in()
    assert slot.check_password(PIN) == CKR.PIN_INCORRECT
    assert slot.check_password(NEW) == CKR.OK


@pytest.mark.rule("N6", "N7")
def test_pins_are_set_in_read_write_sessions(nss: Nss) -> None:
    """C_SetPIN works in read-write sessions, logged in or not; in others it and C_InitPIN say CKR_SESSION_READ_ONLY."""
    slot, client = nss.slot, nss.client
    assert client.call("C_SetPIN", slot.session, PIN, len(PIN), NEW, len(NEW)) == CKR.SESSION_READ_ONLY
    assert client.call("C_InitPIN", slot.session, NEW, len(NEW)) == CKR.SESSION_READ_ONLY
    assert slot.change_pin(PIN, NEW) == CKR.OK, "nobody is logged in"
    assert slot.check_password(NEW) == CKR.OK
    assert slot.change_pin(NEW, PIN) == CKR.OK
    assert slot.check_password(PIN) == CKR.OK


@pytest.mark.rule("S18")
def test_a_token_is_initialised_anew_by_nss(nss: Nss) -> None:
    """C_InitToken with NSS's sessions closed empties the token and keeps its name; an open session forbids it."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    slot.generate_ec()
    rv = client.call("C_InitToken", slot.id, SO_PIN, len(SO_PIN), b"test".ljust(32))
    assert rv == CKR.SESSION_EXISTS
    assert slot.reset_token(WRONG) == CKR.PIN_INCORRECT
    assert len(slot.find([(CKA.CLASS, CKO.PUBLIC_KEY)])) == 1
    assert slot.reset_token(SO_PIN) == CKR.OK
    assert slot.name == "test"
    assert slot.find([(CKA.CLASS, CKO.PUBLIC_KEY)]) == []
    slot.init_pin(NEW, SO_PIN)
    assert slot.is_logged_in()


@pytest.mark.rule("S19", "S20")
def test_the_length_policy_holds_for_new_pins(home: Path, module: Client) -> None:
    """`[pin] min_length` is told as ulMinPinLen; shorter new PINs answer CKR_PIN_LEN_RANGE, set ones go on working."""
    slot = configured(home, module, CHEAP_PINS + "min_length = 12\n")
    client = slot.client
    info = client.token_info(slot.id)
    assert (info.ulMinPinLen, info.ulMaxPinLen) == (12, 255)
    assert slot.check_password(PIN) == CKR.OK
    for wrong in (b"elevenbytes", b"x" * 256, b""):
        assert slot.change_pin(PIN, wrong) == CKR.PIN_LEN_RANGE
    assert slot.change_pin(PIN, b"twelve bytes") == CKR.OK
    client.ok("C_CloseAllSessions", slot.id)
    session = client.open(slot.id, READ_WRITE)
    client.login(session, SO_PIN, CKU.SO)
    assert client.call("C_InitPIN", session, b"elevenbytes", 11) == CKR.PIN_LEN_RANGE
    assert client.call("C_SetPIN", session, SO_PIN, len(SO_PIN), b"elevenbytes", 11) == CKR.PIN_LEN_RANGE
    client.ok("C_InitPIN", session, b"x" * 255, 255)
    assert shown(slot, SO_FLAGS) == shown(slot, USER_FLAGS) == (False, False, False)


def test_the_length_policy_holds_for_the_so_pin_of_a_new_token(home: Path, module: Client) -> None:
    (home / "config.toml").write_text(CHEAP_PINS + "min_length = 12\n")
    module.initialize()
    assert module.call("C_InitToken", 1, b"elevenbytes", 11, b"new".ljust(32)) == CKR.PIN_LEN_RANGE
    module.ok("C_InitToken", 1, b"twelve bytes", 12, b"new".ljust(32))


# Wrong PINs


@pytest.mark.rule("S15")
def test_wrong_pins_are_counted_told_and_lock(nss: Nss) -> None:
    """Wrong PINs show COUNT_LOW, then FINAL_TRY, then LOCKED, across restarts, until the SO sets a new PIN."""
    slot, client = nss.slot, nss.client
    assert shown(slot, USER_FLAGS) == (False, False, False)
    for failures in range(1, MOST_FAILURES):
        assert login(slot, WRONG) == CKR.PIN_INCORRECT
        assert shown(slot, USER_FLAGS) == (True, failures == MOST_FAILURES - 1, False)
    nss.end()
    slot = start(client).slot
    assert shown(slot, USER_FLAGS) == (True, True, False)
    assert login(slot, WRONG) == CKR.PIN_INCORRECT
    assert shown(slot, USER_FLAGS) == (False, False, True)
    assert login(slot, PIN) == CKR.PIN_LOCKED
    assert slot.change_pin(PIN, NEW) == CKR.PIN_LOCKED
    assert shown(slot, SO_FLAGS) == (False, False, False)
    client.ok("C_CloseAllSessions", slot.id)
    slot.session = client.open(slot.id, READ_WRITE)
    client.login(slot.session, SO_PIN, CKU.SO)
    client.ok("C_InitPIN", slot.session, NEW, len(NEW))
    client.ok("C_Logout", slot.session)
    assert shown(slot, USER_FLAGS) == (False, False, False)
    assert login(slot, NEW) == CKR.OK


@pytest.mark.rule("S18")
def test_wrong_so_pins_are_counted_in_logins_and_in_c_inittoken(nss: Nss) -> None:
    """C_InitToken counts wrong SO PINs as C_Login does; a locked SO PIN leaves the token and its user as they are."""
    slot, client = nss.slot, nss.client
    client.ok("C_CloseAllSessions", slot.id)
    slot.session = client.open(slot.id, READ_WRITE)
    for failures in range(1, MOST_FAILURES // 2 + 1):
        assert login(slot, WRONG, CKU.SO) == CKR.PIN_INCORRECT
        assert shown(slot, SO_FLAGS) == (True, False, False), failures
    for failures in range(MOST_FAILURES // 2 + 1, MOST_FAILURES):
        assert slot.reset_token(WRONG) == CKR.PIN_INCORRECT
        assert shown(slot, SO_FLAGS) == (True, failures == MOST_FAILURES - 1, False)
    assert slot.reset_token(WRONG) == CKR.PIN_INCORRECT
    assert shown(slot, SO_FLAGS) == (False, False, True)
    assert slot.reset_token(SO_PIN) == CKR.PIN_LOCKED
    assert shown(slot, USER_FLAGS) == (False, False, False)
    assert login(slot, PIN) == CKR.OK


@pytest.mark.rule("S20")
def test_the_right_pin_forgives_wrong_ones(nss: Nss) -> None:
    """A right PIN sets the count of wrong ones back, whichever call it is given to."""
    slot = nss.slot
    assert login(slot, WRONG) == CKR.PIN_INCORRECT
    assert slot.change_pin(PIN, NEW) == CKR.OK
    assert shown(slot, USER_FLAGS) == (False, False, False)
    assert slot.change_pin(PIN, NEW) == CKR.PIN_INCORRECT
    assert shown(slot, USER_FLAGS) == (True, False, False)
    assert login(slot, NEW) == CKR.OK
    assert shown(slot, USER_FLAGS) == (False, False, False)


def test_delays_double_from_the_third_wrong_pin_to_five_seconds() -> None:
    seconds = [delay_after(failures) for failures in range(12)]
    assert seconds == [0, 0, 0, 0.25, 0.5, 1, 2, 4, 5, 5, 5, 5]


@pytest.mark.rule("SE8")
def test_a_late_answer_holds_nobody_up(home: Path, module: Client) -> None:
    """From the third wrong PIN in a row the answer comes later and later; other sessions meanwhile do all they like."""
    slot = configured(home, module, CHEAP_PINS.replace("delay = false\n", ""))
    client = slot.client
    answers: list[tuple[int, float]] = []

    def guess() -> None:
        began = time.monotonic()
        answers.append((login(slot, WRONG), time.monotonic() - began))

    for _ in range(4):
        guess()
    assert [rv for rv, _ in answers] == [CKR.PIN_INCORRECT] * 4
    assert answers[2][1] > 0.25
    assert answers[3][1] > 0.5
    guesser = threading.Thread(target=guess)
    guesser.start()
    while not shown(slot, USER_FLAGS)[0] or client.token_info(slot.id).flags & CKF.USER_PIN_LOCKED:
        time.sleep(0.01)
    time.sleep(0.2)  # by now the wrong PIN is counted and the answer waits
    other = client.open(slot.id, READ_WRITE)
    assert login(slot, PIN, session=other) == CKR.OK
    assert client.state(slot.session) == CKS.RO_USER_FUNCTIONS
    client.ok("C_Logout", other)
    assert len(answers) == 4, "the late answer must still be under way"
    guesser.join()
    assert answers[4][0] == CKR.PIN_INCORRECT
    assert answers[4][1] > 1


@pytest.mark.rule("G3")
def test_c_finalize_does_not_wait_for_a_late_answer(home: Path, module: Client) -> None:
    """C_Finalize ends at once while a wrong PIN's answer is being held back; that call ends with it."""
    slot = configured(home, module, CHEAP_PINS.replace("delay = false\n", ""))
    for _ in range(5):
        assert login(slot, WRONG) == CKR.PIN_INCORRECT
    answers: list[int] = []
    guesser = threading.Thread(target=lambda: answers.append(login(slot, WRONG)))
    guesser.start()
    time.sleep(0.4)
    slot.client.ok("C_Finalize", ffi.NULL)
    guesser.join()
    assert answers == [CKR.CRYPTOKI_NOT_INITIALIZED], "who waits for the answer hears CKR_PIN_INCORRECT"


# Keys that ask each time


def asking_keys(slot: Slot) -> dict[str, tuple[int, int]]:
    with slot.rw() as session:
        rsa = slot.client.generate_pair(session, CKM.RSA_PKCS_KEY_PAIR_GEN, [*RSA_2048, (CKA.TOKEN, True)], ASKING)
        ec = slot.client.generate_pair(session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256), (CKA.TOKEN, True)], ASKING)
    return {"rsa": rsa, "ec": ec}


def pss(client: Client, mechanism: int) -> Any:
    return client.mechanism(mechanism, ffi.new("CK_RSA_PKCS_PSS_PARAMS *", (CKM.SHA256, CKG.MGF1_SHA256, 32)))


@pytest.mark.rule("P5", "P29")
def test_each_signature_asks_for_the_pin(nss: Nss) -> None:
    """A key with CKA_ALWAYS_AUTHENTICATE signs once per CKU_CONTEXT_SPECIFIC login, whatever other sessions do."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    public, private = asking_keys(slot)["ec"]
    held, length = ffi.new("char[64]"), ffi.new("CK_ULONG *", 64)
    mechanism = client.mechanism(CKM.ECDSA)
    with slot.ro() as session:
        assert login(slot, PIN, CKU.CONTEXT_SPECIFIC, session) == CKR.OPERATION_NOT_INITIALIZED
        client.ok("C_SignInit", session, mechanism, private)
        assert login(slot, PIN, CKU.CONTEXT_SPECIFIC) == CKR.OPERATION_NOT_INITIALIZED  # another session's
        assert login(slot, WRONG, CKU.CONTEXT_SPECIFIC, session) == CKR.PIN_INCORRECT
        assert shown(slot, USER_FLAGS) == (True, False, False)
        assert client.state(session) == CKS.RO_USER_FUNCTIONS
        assert slot.boolean(private, CKA.ALWAYS_AUTHENTICATE)
        assert slot.find([(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.ALWAYS_AUTHENTICATE, True)], 5)
        client.ok("C_Login", session, CKU.CONTEXT_SPECIFIC, PIN, len(PIN))
        assert shown(slot, USER_FLAGS) == (False, False, False)
        assert slot.is_logged_in()
        client.ok("C_Sign", session, HASH, 32, held, length)
        assert client.verify(slot.session, public, mechanism, HASH, bytes(ffi.buffer(held, 64))) == CKR.OK
        client.ok("C_SignInit", session, mechanism, private)  # the PIN counted once
        assert client.call("C_Sign", session, HASH, 32, held, length) == CKR.USER_NOT_LOGGED_IN
        assert client.call("C_Sign", session, HASH, 32, held, length) == CKR.OPERATION_NOT_INITIALIZED


@pytest.mark.rule("P5")
def test_signing_in_parts_asks_once(nss: Nss) -> None:
    """C_SignUpdate before the CKU_CONTEXT_SPECIFIC login fails; after it all parts of the one operation go through."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    public, private = asking_keys(slot)["rsa"]
    mechanism = client.mechanism(CKM.SHA256_RSA_PKCS)
    with slot.ro() as session:
        client.ok("C_SignInit", session, mechanism, private)
        assert client.call("C_SignUpdate", session, DATA, len(DATA)) == CKR.USER_NOT_LOGGED_IN
        client.ok("C_SignInit", session, mechanism, private)
        client.ok("C_Login", session, CKU.CONTEXT_SPECIFIC, PIN, len(PIN))
        for part in (DATA[:5], DATA[5:]):
            client.ok("C_SignUpdate", session, part, len(part))
        signature = client.output("C_SignFinal", session)
    assert client.verify(slot.session, public, mechanism, DATA, signature) == CKR.OK


@pytest.mark.rule("P5")
def test_each_decryption_asks_for_the_pin(nss: Nss) -> None:
    """C_Decrypt with such a key needs a CKU_CONTEXT_SPECIFIC login of its own; a wrong PIN first does no harm."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    public, private = asking_keys(slot)["rsa"]
    mechanism = client.mechanism(CKM.RSA_PKCS)
    client.ok("C_EncryptInit", slot.session, mechanism, public)
    encrypted = client.output("C_Encrypt", slot.session, DATA, len(DATA))
    with slot.ro() as session:
        held, length = ffi.new("char[256]"), ffi.new("CK_ULONG *", 256)
        client.ok("C_DecryptInit", session, mechanism, private)
        rv = client.call("C_Decrypt", session, encrypted, len(encrypted), held, length)
        assert rv == CKR.USER_NOT_LOGGED_IN
        client.ok("C_DecryptInit", session, mechanism, private)
        assert login(slot, WRONG, CKU.CONTEXT_SPECIFIC, session) == CKR.PIN_INCORRECT
        client.ok("C_Login", session, CKU.CONTEXT_SPECIFIC, PIN, len(PIN))
        client.ok("C_Decrypt", session, encrypted, len(encrypted), held, length)
        assert bytes(ffi.buffer(held, length[0])) == DATA


@pytest.mark.rule("P5")
def test_wrong_pins_for_operations_lock_the_pin(nss: Nss) -> None:
    """Wrong PINs of CKU_CONTEXT_SPECIFIC logins count like all others, and the tenth locks the PIN."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    _, private = asking_keys(slot)["ec"]
    with slot.ro() as session:
        client.ok("C_SignInit", session, client.mechanism(CKM.ECDSA), private)
        for _ in range(MOST_FAILURES):
            assert login(slot, WRONG, CKU.CONTEXT_SPECIFIC, session) == CKR.PIN_INCORRECT
        assert login(slot, PIN, CKU.CONTEXT_SPECIFIC, session) == CKR.PIN_LOCKED
        rv = client.call("C_Sign", session, HASH, 32, ffi.new("char[64]"), ffi.new("CK_ULONG *", 64))
        assert rv == CKR.USER_NOT_LOGGED_IN


@pytest.mark.rule("P5")
def test_hash_and_sign_mechanisms_are_not_advertised_beside_keys_that_ask(nss: Nss) -> None:
    """While the user sees a key that asks each time, mechanisms that hash and sign hide CKF_SIGN, but still sign."""
    slot, client = nss.slot, nss.client
    hashing = (CKM.SHA256_RSA_PKCS, CKM.SHA256_RSA_PKCS_PSS, CKM.SHA1_RSA_PKCS, CKM.ECDSA_SHA256)
    raw = (CKM.RSA_PKCS, CKM.RSA_PKCS_PSS, CKM.ECDSA, CKM.EDDSA, CKM.SHA256_HMAC)

    def signing() -> tuple[bool, ...]:
        assert set(slot.read_mechanisms()) >= {*hashing, *raw}  # all still verify
        assert all(slot.mechanism_flags(mechanism) & CKF.SIGN for mechanism in raw)
        assert all(slot.mechanism_flags(mechanism) & CKF.VERIFY for mechanism in hashing)
        return tuple(bool(slot.mechanism_flags(mechanism) & CKF.SIGN) for mechanism in hashing)

    everything, nothing = (True,) * 4, (False,) * 4
    slot.login(PIN)
    slot.generate_ec()
    assert signing() == everything
    public, private = asking_keys(slot)["ec"]
    assert signing() == nothing
    with slot.ro() as session:
        client.ok("C_SignInit", session, client.mechanism(CKM.ECDSA_SHA256), private)
        client.ok("C_Login", session, CKU.CONTEXT_SPECIFIC, PIN, len(PIN))
        signature = client.output("C_Sign", session, DATA, len(DATA))
    assert client.verify(slot.session, public, client.mechanism(CKM.ECDSA_SHA256), DATA, signature) == CKR.OK
    slot.logout()
    assert signing() == everything
    slot.login(PIN)
    assert signing() == nothing
    for key in slot.find([(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.ALWAYS_AUTHENTICATE, True)]):
        assert slot.destroy(key) == CKR.OK
    assert signing() == everything


@pytest.mark.rule("P5", "S17")
def test_list_and_info_of_mechanisms_agree_on_a_token_that_only_signs(module: Client) -> None:
    """A mechanism with nothing left to offer leaves C_GetMechanismList too, and its info is CKR_MECHANISM_INVALID."""
    make_token("signer", "--kind", "signing", "--pin", PIN.decode(), "--so-pin", SO_PIN.decode())
    slot = start(module).slot
    slot.login(PIN)
    before = set(slot.read_mechanisms())
    asking_keys(slot)
    after = set(slot.read_mechanisms())
    assert before - after >= {CKM.SHA256_RSA_PKCS, CKM.SHA256_RSA_PKCS_PSS, CKM.ECDSA_SHA256}
    assert after >= {CKM.RSA_PKCS, CKM.RSA_PKCS_PSS, CKM.ECDSA}
    info = ffi.new("CK_MECHANISM_INFO *")
    assert all(module.call("C_GetMechanismInfo", slot.id, each, info) == CKR.OK for each in after)
    gone = {module.call("C_GetMechanismInfo", slot.id, each, info) for each in before - after}
    assert gone == {CKR.MECHANISM_INVALID}


@pytest.mark.rule("P5", "K9")
def test_the_signature_of_tls_1_3_as_nss_3_124_makes_it(nss: Nss) -> None:
    """NSS 3.124, which is not offered the hash-and-sign mechanism, hashes itself, gives the PIN, and signs."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    keys = asking_keys(slot)
    for combined, raw, kind, size in (
        (CKM.SHA256_RSA_PKCS_PSS, pss(client, CKM.RSA_PKCS_PSS), "rsa", 256),
        (CKM.ECDSA_SHA256, client.mechanism(CKM.ECDSA), "ec", 64),
    ):
        public, private = keys[kind]
        assert not slot.mechanism_flags(combined) & CKF.SIGN
        signature = slot.sign(private, raw, HASH, size, PIN)
        assert client.verify(slot.session, public, raw, HASH, signature) == CKR.OK


@pytest.mark.rule("P5", "S17")
def test_asking_for_mechanisms_is_cheap_beside_many_keys(nss: Nss) -> None:
    """Whether such a key is there is looked up in an index and remembered until the token changes."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    with slot.rw() as session:
        for i in range(300):
            client.create(
                session,
                [
                    (CKA.CLASS, CKO.SECRET_KEY),
                    (CKA.KEY_TYPE, 0x1F),
                    (CKA.TOKEN, True),
                    (CKA.PRIVATE, True),
                    (CKA.VALUE, i.to_bytes(16, "big")),
                ],
            )
    asking_keys(slot)
    assert not slot.mechanism_flags(CKM.ECDSA_SHA256) & CKF.SIGN
    searches = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal searches
        searches += event == "call" and "/store/" in frame.f_code.co_filename and "find" in frame.f_code.co_name

    sys.setprofile(count)  # the module runs in this interpreter
    try:
        for _ in range(100):
            assert not slot.mechanism_flags(CKM.ECDSA_SHA256) & CKF.SIGN
        assert searches == 0
        asking_keys(slot)
        assert not slot.mechanism_flags(CKM.ECDSA_SHA256) & CKF.SIGN
    finally:
        sys.setprofile(None)
    assert searches > 0, "the token changed"


@pytest.mark.rule("S12", "S14")
@pytest.mark.parametrize("option", ["--no-pin", "--empty-pin"])
def test_without_a_pin_such_a_key_takes_the_empty_one(module: Client, option: str) -> None:
    """On a token of general access the PIN that a key asks for is the empty one."""
    make_token("open", option)
    slot = start(module).slot
    _, private = asking_keys(slot)["ec"]
    with slot.ro() as session:
        module.ok("C_SignInit", session, module.mechanism(CKM.ECDSA), private)
        assert login(slot, PIN, CKU.CONTEXT_SPECIFIC, session) == CKR.PIN_INCORRECT
        assert login(slot, b"", CKU.CONTEXT_SPECIFIC, session) == CKR.OK
        assert len(module.output("C_Sign", session, HASH, 32)) == 64
