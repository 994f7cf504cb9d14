"""C_CopyObject as a TLS server of NSS uses it, and C_CreateObject's other ways of having a key twice."""

from __future__ import annotations

import threading

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from keyfob.spec.constants import CKA, CKM, CKO, CKR
from tests.client import READ_ONLY, Client, Template, but, ffi
from tests.conftest import PIN
from tests.rules import nss_templates as templates
from tests.rules.nss_calls import Nss, Slot
from tests.rules.software_keys import der_signature, ec_key, rsa_key

HASH = bytes(range(32))
PUBLIC_PART = (CKA.CLASS, CKA.KEY_TYPE, CKA.ID, CKA.MODULUS, CKA.PUBLIC_EXPONENT, CKA.SENSITIVE, CKA.PRIVATE)


@pytest.fixture
def slot(nss: Nss) -> Slot:
    """Of a token whose user is logged in."""
    nss.slot.login(PIN)
    return nss.slot


def copy(client: Client, session: int, handle: int, template: Template | None) -> int:
    """C_CopyObject; None: NULL and 0, as SECKEY_CopyPrivateKey calls it."""
    made = ffi.new("CK_ULONG *")
    array, count, _kept = client.template(template or [])
    client.ok("C_CopyObject", session, handle, ffi.NULL if template is None else array, count, made)
    return int(made[0])


def rsa_signature(slot: Slot, key: int) -> None:
    """Sign as the server's handshake does, and verify."""
    signature = slot.sign(key, slot.client.mechanism(CKM.SHA256_RSA_PKCS), HASH, 256)
    rsa_key().public_key().verify(signature, HASH, padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.rule("O14", "P2")
def test_a_tls_server_copies_its_key_and_the_copy(slot: Slot) -> None:
    """Copies a token key with {TOKEN = false} and the copy with NULL, both on NSS's read-only default session."""
    key = slot.create(templates.rsa_private_key(rsa_key()))
    first = copy(slot.client, slot.session, key, templates.SESSION_COPY)
    second = copy(slot.client, slot.session, first, None)
    assert len({key, first, second}) == 3
    assert [slot.boolean(handle, CKA.TOKEN) for handle in (key, first, second)] == [True, False, False]
    shown = slot.read(key, *PUBLIC_PART)
    assert slot.read(first, *PUBLIC_PART) == slot.read(second, *PUBLIC_PART) == shown
    for handle in (key, first, second):
        assert slot.read(handle, CKA.PRIVATE_EXPONENT) == [None]
        rsa_signature(slot, handle)


@pytest.mark.rule("O14")
def test_the_end_of_a_copy_is_not_the_end_of_the_original(slot: Slot) -> None:
    """Destroying a copy leaves the original and other copies; destroying the original leaves the copies."""
    client = slot.client
    key = slot.create(templates.rsa_private_key(rsa_key()))
    first = copy(client, slot.session, key, templates.SESSION_COPY)
    second = copy(client, slot.session, first, None)
    client.ok("C_DestroyObject", slot.session, second)
    assert slot.read(second, CKA.CLASS) == [None]
    rsa_signature(slot, first)
    rsa_signature(slot, key)
    third = copy(client, slot.session, key, templates.SESSION_COPY)
    client.ok("C_DestroyObject", slot.session, first)
    assert slot.destroy(key) == CKR.OK
    rsa_signature(slot, third)
    rv = client.call("C_SignInit", slot.session, client.mechanism(CKM.RSA_PKCS), key)
    assert rv == CKR.KEY_HANDLE_INVALID


@pytest.mark.rule("O14")
def test_a_copy_ends_with_its_session_or_the_login(slot: Slot) -> None:
    """Copies of {TOKEN = false} go with the session that made them, and at logout; the key on the token stays."""
    client = slot.client
    key = slot.create(templates.rsa_private_key(rsa_key()))
    with slot.ro() as session:
        brief = copy(client, session, key, templates.SESSION_COPY)
        rsa_signature(slot, brief)
        of_generated = copy(client, session, slot.generate_ec()[1], templates.SESSION_COPY)
        assert slot.read(of_generated, CKA.TOKEN) == [b"\0"]
    assert slot.read(brief, CKA.CLASS) == slot.read(of_generated, CKA.CLASS) == [None]
    private = copy(client, slot.session, key, templates.SESSION_COPY)
    slot.logout()
    slot.login(PIN)
    assert slot.read(private, CKA.CLASS) == [None]
    rsa_signature(slot, key)


@pytest.mark.rule("O14", "N5")
def test_a_temporary_key_becomes_permanent(slot: Slot) -> None:
    """Copies a session key with {TOKEN = true} in a read-write session, and refuses it in a read-only one."""
    client = slot.client
    template = but(templates.ec_private_key(ec_key()), (CKA.TOKEN, False))
    temporary = client.create(slot.session, template)
    array, count, _kept = client.template(templates.TOKEN_COPY)
    made = ffi.new("CK_ULONG *")
    rv = client.call("C_CopyObject", slot.session, temporary, array, count, made)
    assert rv == CKR.SESSION_READ_ONLY
    with slot.rw() as session:
        kept = copy(client, session, temporary, templates.TOKEN_COPY)
    client.ok("C_DestroyObject", slot.session, temporary)
    signature = slot.sign(kept, client.mechanism(CKM.ECDSA), HASH, 64)
    ec_key().public_key().verify(der_signature(signature), HASH, ec.ECDSA(Prehashed(hashes.SHA256())))
    assert slot.find([(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.TOKEN, True)]) == [kept]


@pytest.mark.rule("P2")
def test_a_template_that_is_null_but_counted_is_refused(slot: Slot) -> None:
    """Takes NULL for a template only with the count 0: CKR_ARGUMENTS_BAD otherwise."""
    client = slot.client
    key = slot.create(templates.ec_private_key(ec_key()))
    made = ffi.new("CK_ULONG *")
    assert client.call("C_CopyObject", slot.session, key, ffi.NULL, 1, made) == CKR.ARGUMENTS_BAD
    assert client.call("C_FindObjectsInit", slot.session, ffi.NULL, 1) == CKR.ARGUMENTS_BAD
    assert slot.find([]) != []


@pytest.mark.rule("P2", "O19", "P23")
def test_a_search_without_a_template_finds_all(slot: Slot) -> None:
    """Searches with NULL and 0 for everything that the login lets be seen."""
    client = slot.client
    key = slot.create(templates.ec_private_key(ec_key()))
    public = slot.create(templates.ec_public_key(ec_key()))
    handles, number = ffi.new("CK_ULONG[16]"), ffi.new("CK_ULONG *")

    def everything() -> set[int]:
        client.ok("C_FindObjectsInit", slot.session, ffi.NULL, 0)
        client.ok("C_FindObjects", slot.session, handles, 16, number)
        client.ok("C_FindObjectsFinal", slot.session)
        return {handle for handle in handles[0 : number[0]] if slot.ulong(handle, CKA.CLASS) != CKO.PROFILE}

    assert everything() == {key, public}
    slot.logout()
    assert everything() == {public}


@pytest.mark.rule("O14", "SE3")
def test_eight_threads_of_a_server_sign_with_copies(slot: Slot) -> None:
    """Signs 200 times in each of eight threads, each with a copy and sessions of its own; every signature is good."""
    client = slot.client
    key = slot.create(templates.ec_private_key(ec_key()))
    public = ec_key().public_key()
    problems: list[BaseException] = []

    def serve(number: int) -> None:
        try:
            own = copy(client, slot.session, key, templates.SESSION_COPY)
            length = ffi.new("CK_ULONG *")
            held = ffi.new("char[64]")
            for i in range(200):
                session = client.open(slot.id, READ_ONLY)
                text = b"%d %d" % (number, i)
                client.ok("C_SignInit", session, client.mechanism(CKM.ECDSA_SHA256), own)
                length[0] = 64
                client.ok("C_Sign", session, text, len(text), held, length)
                client.ok("C_CloseSession", session)
                public.verify(der_signature(bytes(ffi.buffer(held))), text, ec.ECDSA(hashes.SHA256()))
            client.ok("C_DestroyObject", slot.session, own)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=serve, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert problems == []
    assert slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)]) == [key], "the copies are gone, the key is not"


@pytest.mark.rule("O14")
def test_what_says_no_to_copies_is_not_copied(slot: Slot) -> None:
    """Refuses to copy a key of COPYABLE = false, which NSS tolerates: CKR_ACTION_PROHIBITED."""
    client = slot.client
    key = slot.create([*templates.ec_private_key(ec_key()), (CKA.COPYABLE, False)])
    array, count, _kept = client.template(templates.SESSION_COPY)
    rv = client.call("C_CopyObject", slot.session, key, array, count, ffi.new("CK_ULONG *"))
    assert rv == CKR.ACTION_PROHIBITED
    assert client.call("C_CopyObject", slot.session, 0, array, count, ffi.new("CK_ULONG *")) == (
        CKR.OBJECT_HANDLE_INVALID
    )
