"""Session objects and token objects: where each may be made, who sees it, and when it ends."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from keyfob.spec.constants import CKA, CKK, CKM, CKO, CKR
from tests.client import READ_ONLY, RSA_2048, Client, RvError, Template, but
from tests.conftest import PIN
from tests.rules import nss_templates as templates
from tests.rules.nss_calls import Nss, Slot, start
from tests.rules.software_keys import ec_key, rsa_key

SECRET = bytes(range(16))
AES: Template = templates.session_key(CKK.AES, CKA.ENCRYPT, SECRET)
TOKEN = (CKA.TOKEN, True)


def encrypts(client: Client, session: int, key: int) -> None:
    """The key's AES is that of other software."""
    client.ok("C_EncryptInit", session, client.mechanism(CKM.AES_ECB), key)
    encryptor = Cipher(algorithms.AES(SECRET), modes.ECB()).encryptor()
    assert client.output("C_Encrypt", session, SECRET, 16) == encryptor.update(SECRET)


@pytest.mark.rule("O4", "N8")
@pytest.mark.parametrize("login", [False, True])
@pytest.mark.parametrize(
    ("key_type", "usage", "size"),
    [
        (CKK.AES, CKA.ENCRYPT, 16),
        (CKK.AES, CKA.UNWRAP, 32),
        (CKK.DES3, CKA.WRAP, 24),
        (CKK.GENERIC_SECRET, CKA.SIGN, 48),
        (CKK.GENERIC_SECRET, CKA.DERIVE, 1),
    ],
)
def test_session_keys_of_raw_data(nss: Nss, key_type: int, usage: int, size: int, *, login: bool) -> None:
    """Makes session keys of raw data in a read-only session, before the login or after it; their value can be read."""
    slot = nss.slot
    if login:
        slot.login(PIN)
    value = bytes(range(1, 2 * size, 2))
    if key_type == CKK.DES3:
        value = bytes(byte ^ (byte.bit_count() + 1) % 2 for byte in value)  # odd parity
    with slot.ro() as session:
        key = nss.client.create(session, templates.session_key(key_type, usage, value))
        assert slot.read(key, CKA.VALUE, CKA.TOKEN) == [value, b"\x00"]
        assert slot.ulong(key, CKA.KEY_TYPE) == key_type
        if key_type != CKK.DES3:
            assert slot.ulong(key, CKA.VALUE_LEN) == size
        assert slot.boolean(key, usage)


@pytest.mark.rule("N19", "O4")
def test_a_session_object_serves_all_sessions(nss: Nss) -> None:
    """Makes a key in one session, uses it in a second, finds it in a third and destroys it from a fourth."""
    slot, client = nss.slot, nss.client
    sessions = [client.open(slot.id, READ_ONLY) for _ in range(4)]
    key = client.create(sessions[0], [*AES, (CKA.LABEL, "shared")])
    encrypts(client, sessions[1], key)
    assert client.find(sessions[2], [(CKA.LABEL, "shared")]) == [key]
    assert client.get(sessions[2], key, CKA.LABEL) == [b"shared"]
    assert client.set(sessions[3], key, [(CKA.LABEL, "renamed")]) == CKR.OK
    client.ok("C_DestroyObject", sessions[3], key)
    assert client.find(sessions[0], [(CKA.LABEL, "renamed")]) == []
    rv = client.call("C_EncryptInit", sessions[0], client.mechanism(CKM.AES_ECB), key)
    assert rv == CKR.KEY_HANDLE_INVALID


@pytest.mark.rule("N19", "SE6")
def test_a_session_object_ends_with_the_session_that_made_it(nss: Nss) -> None:
    """Ends session objects with the session that made them and no other; their handles are never given out again."""
    slot, client = nss.slot, nss.client
    handles = set()
    keeper = client.open(slot.id, READ_ONLY)
    kept = client.create(keeper, AES)
    for _ in range(20):
        with slot.ro() as session:
            key = client.create(session, AES)
            assert key not in handles
            handles.add(key)
            encrypts(client, keeper, key)
        assert slot.read(key, CKA.CLASS) == [None]
    encrypts(client, slot.session, kept)
    assert kept not in handles


@pytest.mark.rule("SE12", "N19", "P25")
def test_session_keys_at_login_and_logout(nss: Nss) -> None:
    """Keeps public session keys over login and logout, so that NSS's handles stay good; private ones end at logout."""
    slot, client = nss.slot, nss.client
    early = client.create(slot.session, AES)
    slot.login(PIN)
    encrypts(client, slot.session, early)
    public = client.create(slot.session, [*AES, (CKA.PRIVATE, False)])
    private = client.create(slot.session, [*AES, (CKA.PRIVATE, True)])
    slot.logout()
    for key in (early, public):
        encrypts(client, slot.session, key)
    assert slot.read(private, CKA.CLASS) == [None]
    slot.login(PIN)
    assert slot.read(private, CKA.CLASS) == [None], "a private session object does not come back"


@pytest.mark.rule("N5", "N8", "O1")
def test_what_is_written_in_which_session(nss: Nss) -> None:
    """Takes session objects of every class in a read-only session, and token objects in a read-write session only."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    data: Template = [TOKEN, (CKA.CLASS, CKO.DATA), (CKA.VALUE, b"text")]
    for template in (
        templates.rsa_private_key(rsa_key()),
        templates.ec_private_key(ec_key()),
        templates.rsa_public_key(rsa_key()),
        templates.ec_public_key(ec_key()),
        [*AES, TOKEN],
        data,
    ):
        with slot.ro() as session:
            brief = client.create(session, but(template, (CKA.TOKEN, False)))
            assert not slot.boolean(brief, CKA.TOKEN)
            with pytest.raises(RvError) as refusal:
                client.create(session, template)
            assert refusal.value.rv == CKR.SESSION_READ_ONLY
            handle = slot.create(template)
            for name, arguments in (
                ("C_DestroyObject", ()),
                ("C_SetAttributeValue", client.template([(CKA.LABEL, "x")])[:2]),
            ):
                assert client.call(name, session, handle, *arguments) == CKR.SESSION_READ_ONLY
            assert slot.boolean(handle, CKA.TOKEN)
    with slot.ro() as session, pytest.raises(RvError) as refusal:
        client.generate_pair(session, CKM.RSA_PKCS_KEY_PAIR_GEN, RSA_2048, [TOKEN])
    assert refusal.value.rv == CKR.SESSION_READ_ONLY


@pytest.mark.rule("O15", "N5")
def test_a_session_key_is_destroyed_in_its_own_session(nss: Nss) -> None:
    """Destroys session keys in a read-only session; a second time their handle is of nothing."""
    with nss.slot.ro() as session:
        key = nss.client.create(session, AES)
        nss.client.ok("C_DestroyObject", session, key)
        assert nss.client.call("C_DestroyObject", session, key) == CKR.OBJECT_HANDLE_INVALID


@pytest.mark.rule("O15", "P25")
def test_what_is_destroyed_is_gone_for_every_session_and_for_good(nss: Nss) -> None:
    """A destroyed token object is gone in all sessions at once, from the middle of a search, and after a restart."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    key = slot.create(templates.ec_private_key(ec_key()))
    other = client.open(slot.id, READ_ONLY)
    assert client.find(other, [(CKA.CLASS, CKO.PRIVATE_KEY)]) == [key]
    assert slot.destroy(key) == CKR.OK
    assert client.get(other, key, CKA.CLASS) == [None]
    assert client.call("C_SignInit", other, client.mechanism(CKM.ECDSA), key) == CKR.KEY_HANDLE_INVALID
    assert slot.destroy(key) == CKR.OBJECT_HANDLE_INVALID
    for token in (False, True):
        gone = slot.create([*AES, (CKA.TOKEN, token)]) if token else client.create(other, AES)
        client.ok("C_DestroyObject", client.open(slot.id), gone)
        after = slot.create([*AES, (CKA.TOKEN, token)]) if token else client.create(other, AES)
        assert after != gone
        assert client.get(other, gone, CKA.CLASS) == [None], "also when there is a newer object"
    nss.end()
    slot = start(client).slot
    slot.login(PIN)
    assert slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)]) == []


@pytest.mark.rule("O20", "P23", "P34")
def test_identical_objects_are_no_trouble(nss: Nss) -> None:
    """Keeps identical keys and public keys side by side; a search for one hit gives one of them, and each works."""
    slot = nss.slot
    slot.login(PIN)
    keys = [slot.create(templates.rsa_private_key(rsa_key())) for _ in range(2)]
    identity = templates.identity_of(rsa_key())
    assert slot.find(templates.of_id(identity, CKO.PRIVATE_KEY), 1) == keys[:1]
    assert slot.find(templates.of_id(identity, CKO.PRIVATE_KEY)) == keys
    for key in keys:
        signature = slot.sign(key, nss.client.mechanism(CKM.SHA256_RSA_PKCS), b"text", 256)
        rsa_key().public_key().verify(signature, b"text", padding.PKCS1v15(), hashes.SHA256())
    assert slot.destroy(keys[0]) == CKR.OK
    assert slot.find(templates.of_id(identity, CKO.PRIVATE_KEY), 1) == keys[1:]


@pytest.mark.rule("P10", "P37")
def test_nothing_is_written_to_a_token_that_is_none(fresh: Nss) -> None:
    """Makes session keys on a token that was never initialised, and refuses token objects there with a code."""
    slot: Slot = fresh.slot
    with slot.ro() as session:
        encrypts(fresh.client, session, fresh.client.create(session, AES))
    with pytest.raises(RvError) as refusal:
        slot.create([TOKEN, (CKA.CLASS, CKO.DATA), (CKA.VALUE, b"text")])
    assert refusal.value.rv == CKR.TOKEN_NOT_RECOGNIZED
