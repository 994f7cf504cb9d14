"""SE1 to SE15 as NSS calls: the default session, sessions of one operation, logins, logouts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR, CKS, CKU
from tests.client import READ_ONLY, READ_WRITE, RSA_2048, Client, RvError, Template, ffi
from tests.conftest import CHEAP_PINS, PIN, SO_PIN, Fob
from tests.rules.nss_calls import Nss, make_token, start

AES_KEY: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE, bytes(range(16)))]


@pytest.mark.rule("SE1")
def test_the_default_session_lives_as_long_as_nss(nss: Nss) -> None:
    """Keeps NSS's first session through logins, logouts, new PINs and the opening and closing of others."""
    slot, first = nss.slot, nss.slot.session
    slot.login(PIN)
    slot.generate_ec()
    slot.change_pin(PIN, b"new-user-pin")
    slot.logout()
    slot.login(b"new-user-pin")
    assert slot.session == first
    assert nss.client.state(first) == CKS.RO_USER_FUNCTIONS


@pytest.mark.rule("SE1", "P26")
def test_a_token_with_one_session_does_all_its_work_in_it(home: Path, module: Client) -> None:
    """With a limit of one session NSS opens it for reading and writing, and everything works in it."""
    module.initialize()
    Fob(module)
    module.ok("C_Finalize", ffi.NULL)
    (home / "config.toml").write_text(CHEAP_PINS + '[token."test"]\nmax_sessions = 1\n')
    slot = start(module).slot
    assert slot.one_session
    slot.login(PIN)
    public, private = slot.generate_ec()
    handle = ffi.new("CK_ULONG *")
    assert module.call("C_OpenSession", slot.id, READ_ONLY, ffi.NULL, ffi.NULL, handle) == CKR.SESSION_COUNT
    signature = slot.sign(private, module.mechanism(CKM.ECDSA), bytes(32), 64)
    assert module.verify(slot.session, public, module.mechanism(CKM.ECDSA), bytes(32), signature) == CKR.OK
    assert slot.change_pin(PIN, b"new-user-pin") == CKR.OK


@pytest.mark.rule("SE2", "P26")
def test_hundreds_of_sessions_at_once(nss: Nss) -> None:
    """Opens as many sessions side by side as CK_TOKEN_INFO promises (1024), each with an operation of its own."""
    promised = nss.client.token_info(nss.slot.id).ulMaxSessionCount
    assert promised >= 64
    opened = [nss.client.open(nss.slot.id, READ_ONLY) for _ in range(promised - 1)]
    for session in opened:
        nss.client.ok("C_DigestInit", session, nss.client.mechanism(CKM.SHA256))
    handle = ffi.new("CK_ULONG *")
    rv = nss.client.call("C_OpenSession", nss.slot.id, READ_ONLY, ffi.NULL, ffi.NULL, handle)
    assert rv == CKR.SESSION_COUNT
    for session in opened:
        assert nss.client.output("C_Digest", session, b"abc", 3) == hashlib.sha256(b"abc").digest()
        nss.client.ok("C_CloseSession", session)


@pytest.mark.rule("SE2")
def test_ten_thousand_sessions_one_after_the_other(nss: Nss) -> None:
    """Opens and closes any number of sessions one after the other; nothing of them stays behind."""
    nss.slot.login(PIN)
    for _ in range(10_000):
        nss.client.ok("C_CloseSession", nss.client.open(nss.slot.id, READ_ONLY))
    assert nss.client.token_info(nss.slot.id).ulSessionCount == 1
    assert nss.slot.is_logged_in()


@pytest.mark.rule("SE3", "SE8", "P29")
def test_work_on_the_default_session_in_the_middle_of_an_operation(nss: Nss) -> None:
    """Goes on with an operation while the default session searches, reads, asks for its state and for random bytes."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    public, private = slot.generate_rsa()
    mechanism, data = client.mechanism(CKM.SHA256_RSA_PKCS), bytes(1000)
    with slot.ro() as session:
        client.ok("C_SignInit", session, mechanism, private)
        client.ok("C_SignInit", slot.session, mechanism, private)
        for part in (data[:300], data[300:]):
            assert slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)], 1) == [private]
            assert slot.read(private, CKA.MODULUS)[0] == slot.read(public, CKA.MODULUS)[0]
            assert slot.is_logged_in()
            client.ok("C_GenerateRandom", slot.session, ffi.new("char[32]"), 32)
            client.ok("C_SignUpdate", session, part, len(part))
        signature = client.output("C_SignFinal", session)
        assert client.output("C_Sign", slot.session, data, len(data)) == signature
        assert client.verify(session, public, mechanism, data, signature) == CKR.OK


@pytest.mark.rule("SE3", "N8")
def test_nss_shares_its_session_when_there_is_no_other(nss: Nss) -> None:
    """Signs on the default session too, when every other session is taken."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    _, private = slot.generate_ec()
    for _ in range(client.token_info(slot.id).ulMaxSessionCount - 1):
        client.open(slot.id, READ_ONLY)
    assert len(slot.sign(private, client.mechanism(CKM.ECDSA), bytes(32), 64)) == 64


@pytest.mark.rule("SE4")
def test_two_streams_on_two_sessions_do_not_mix(nss: Nss) -> None:
    """Runs multi-part operations on different sessions side by side, each with its own data."""
    client = nss.client
    streams = [(client.open(nss.slot.id, READ_ONLY), hashlib.sha256()) for _ in range(8)]
    for session, _ in streams:
        client.ok("C_DigestInit", session, client.mechanism(CKM.SHA256))
    for step in range(20):
        for place, (session, wanted) in enumerate(streams):
            part = bytes([place, step]) * (place + step)
            client.ok("C_DigestUpdate", session, part, len(part))
            wanted.update(part)
    assert [client.output("C_DigestFinal", session) for session, _ in streams] == [it.digest() for _, it in streams]


@pytest.mark.rule("SE6")
def test_closing_a_session_in_the_middle_of_its_operation(nss: Nss) -> None:
    """Ends the operation and the session objects of a closed session, and nothing of the others."""
    client = nss.client
    closed, kept = (client.open(nss.slot.id, READ_ONLY) for _ in range(2))
    key, other = client.create(closed, AES_KEY), client.create(kept, AES_KEY)
    mechanism = client.mechanism(CKM.AES_ECB)
    client.ok("C_EncryptInit", closed, mechanism, key)
    client.ok("C_EncryptInit", kept, mechanism, other)
    client.ok("C_CloseSession", closed)
    assert client.call("C_CloseSession", closed) == CKR.SESSION_HANDLE_INVALID
    assert client.call("C_EncryptInit", nss.slot.session, mechanism, key) == CKR.KEY_HANDLE_INVALID
    assert len(client.output("C_Encrypt", kept, bytes(32), 32)) == 32


@pytest.mark.rule("SE6", "P23")
def test_a_search_that_was_given_up(nss: Nss) -> None:
    """Drops a search with its session: one that NSS gives up without C_FindObjectsFinal blocks no other."""
    client = nss.client
    array, count, _kept = client.template([])
    with nss.slot.ro() as session:
        client.ok("C_FindObjectsInit", session, array, count)
        assert client.call("C_FindObjectsInit", session, array, count) == CKR.OPERATION_ACTIVE
    with nss.slot.ro() as session:
        client.ok("C_FindObjectsInit", session, array, count)


@pytest.mark.rule("SE7")
def test_all_sessions_are_closed_on_a_slot_that_has_none(fresh: Nss) -> None:
    """Answers CKR_OK to C_CloseAllSessions with sessions, without any, and on an uninitialised token."""
    for _ in range(3):
        fresh.client.ok("C_CloseAllSessions", fresh.slot.id)
    assert fresh.client.token_info(fresh.slot.id).ulSessionCount == 0
    assert fresh.client.call("C_CloseAllSessions", 999) == CKR.SLOT_ID_INVALID


@pytest.mark.rule("SE7", "SE12")
def test_closing_all_sessions_logs_out(nss: Nss) -> None:
    """Forgets the login with the token's last session, and only with the last."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    with slot.ro():
        pass
    assert slot.is_logged_in()
    client.ok("C_CloseAllSessions", slot.id)
    assert client.call("C_CloseSession", slot.session) == CKR.SESSION_HANDLE_INVALID
    assert client.state(client.open(slot.id, READ_ONLY)) == CKS.RO_PUBLIC_SESSION


@pytest.mark.rule("SE8", "P5", "P29")
def test_asking_for_the_state_between_the_login_of_an_operation_and_its_end(nss: Nss) -> None:
    """Keeps a context-specific login while other sessions are asked for their state, as NSS does in between."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    with slot.rw() as session:
        private_template: Template = [(CKA.TOKEN, True), (CKA.ALWAYS_AUTHENTICATE, True)]
        public, private = client.generate_pair(session, CKM.RSA_PKCS_KEY_PAIR_GEN, RSA_2048, private_template)
        del public
    mechanism, signature, length = client.mechanism(CKM.RSA_PKCS), ffi.new("char[256]"), ffi.new("CK_ULONG *", 256)
    with slot.ro() as session:
        client.ok("C_SignInit", session, mechanism, private)
        assert slot.boolean(private, CKA.ALWAYS_AUTHENTICATE)
        client.ok("C_Login", session, CKU.CONTEXT_SPECIFIC, PIN, len(PIN))
        for _ in range(100):
            assert slot.is_logged_in()
            assert client.state(session) == CKS.RO_USER_FUNCTIONS
        client.ok("C_Sign", session, b"digest", 6, signature, length)


@pytest.mark.rule("SE11", "P11")
@pytest.mark.parametrize("flags", [READ_ONLY, READ_WRITE])
def test_one_login_counts_for_sessions_before_and_after(nss: Nss, flags: int) -> None:
    """Counts NSS's login on its read-only session for every session, older and newer ones."""
    slot, client = nss.slot, nss.client
    before = client.open(slot.id, flags)
    slot.login(PIN)
    after = client.open(slot.id, flags)
    wanted = CKS.RW_USER_FUNCTIONS if flags & CKF.RW_SESSION else CKS.RO_USER_FUNCTIONS
    assert [client.state(session) for session in (before, after)] == [wanted, wanted]


def make_private_key(nss: Nss) -> int:
    nss.slot.login(PIN)
    return nss.slot.generate_ec()[1]


@pytest.mark.rule("SE12", "SE15", "P11")
def test_after_the_logout_private_keys_are_gone_for_all_sessions(nss: Nss) -> None:
    """Makes every session public with one C_Logout: private keys are neither found, read nor used."""
    private = make_private_key(nss)
    other = nss.client.open(nss.slot.id, READ_WRITE)
    assert nss.slot.logout() == CKR.OK
    assert nss.client.state(nss.slot.session) == CKS.RO_PUBLIC_SESSION
    assert nss.client.state(other) == CKS.RW_PUBLIC_SESSION
    assert nss.slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)]) == []
    assert nss.slot.ulong(private, CKA.KEY_TYPE) is None
    assert nss.client.call("C_SignInit", other, nss.client.mechanism(CKM.ECDSA), private) != CKR.OK
    assert len(nss.slot.find([(CKA.CLASS, CKO.PUBLIC_KEY)])) == 1
    with pytest.raises(RvError) as refused:
        nss.client.create(other, [(CKA.CLASS, CKO.DATA), (CKA.PRIVATE, True)])
    assert refused.value.rv == CKR.USER_NOT_LOGGED_IN


@pytest.mark.rule("SE12", "SE15")
def test_a_logout_ends_the_operations_that_use_private_keys(nss: Nss) -> None:
    """Stops an operation with a private key that was begun before the logout."""
    private = make_private_key(nss)
    session = nss.client.open(nss.slot.id, READ_ONLY)
    nss.client.ok("C_SignInit", session, nss.client.mechanism(CKM.ECDSA), private)
    nss.slot.logout()
    signature, length = ffi.new("char[64]"), ffi.new("CK_ULONG *", 64)
    assert nss.client.call("C_Sign", session, bytes(32), 32, signature, length) == CKR.OPERATION_NOT_INITIALIZED


@pytest.mark.rule("SE13", "P25")
def test_a_key_keeps_its_handle_through_logout_and_login(nss: Nss) -> None:
    """Knows a private key by the handle it had before, so that "ask each time" can log out and in between."""
    private = make_private_key(nss)
    for _ in range(3):
        nss.slot.logout()
        nss.slot.login(PIN)
        assert len(nss.slot.sign(private, nss.client.mechanism(CKM.ECDSA), bytes(32), 64)) == 64


@pytest.mark.rule("SE14")
def test_a_logout_without_a_login_does_no_harm(nss: Nss) -> None:
    """Answers CKR_USER_NOT_LOGGED_IN to a needless C_Logout, ends nothing by it, and takes the PIN right afterwards."""
    client = nss.client
    other = client.open(nss.slot.id, READ_ONLY)
    for session in (nss.slot.session, other):
        client.ok("C_DigestInit", session, client.mechanism(CKM.SHA256))
    assert nss.slot.logout() == CKR.USER_NOT_LOGGED_IN
    for session in (nss.slot.session, other):
        assert client.output("C_Digest", session, b"abc", 3) == hashlib.sha256(b"abc").digest()
    assert nss.slot.check_password(PIN) == CKR.OK
    assert nss.slot.check_password(PIN) == CKR.OK
    assert nss.slot.is_logged_in()


@pytest.mark.rule("SE15")
def test_logging_out_of_one_token_leaves_the_others(nss: Nss) -> None:
    """Keeps the login of each token to itself: logging out of one leaves the others logged in."""
    client = nss.client
    make_token("open")
    nss.update_slot_list()
    nss.named("test").login(PIN)
    assert client.call("C_Logout", nss.named("open").session) == CKR.USER_NOT_LOGGED_IN
    assert nss.named("test").is_logged_in()
    make_token("other", "--pin", PIN.decode(), "--so-pin", SO_PIN.decode())
    nss.update_slot_list()
    nss.named("other").login(PIN)
    assert nss.named("test").logout() == CKR.OK
    assert (nss.named("test").is_logged_in(), nss.named("other").is_logged_in()) == (False, True)
