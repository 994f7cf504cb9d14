"""C_GetOperationState and C_SetOperationState (section 5.6).

Operations that share a session, as NSS's contexts do when it has run out of sessions (pk11wrap/pk11cxt.c), and what the
standard says about states beyond that.
"""

from __future__ import annotations

import hashlib
import hmac
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from tests.client import P256, READ_ONLY, RSA_2048, Client, Template, ffi
from tests.conftest import CHEAP_PINS, PIN, Fob
from tests.rules.nss_calls import start

AES_KEY = bytes(range(32))
IV = bytes(range(100, 116))
TEXT = bytes(i * 7 % 256 for i in range(1000))
INVALID = 0xFFFF_FFFF


class Context:
    """A PK11Context without a session of its own: saved after each call, restored before the next, never finalised.

    The key's handle always goes where the one for encryption belongs, as NSS has it.
    """

    def __init__(self, client: Client, session: int, verb: str, mechanism: Any, key: int = 0) -> None:
        self.client, self.session, self.verb, self.key = client, session, verb, key
        arguments = (mechanism,) if verb == "Digest" else (mechanism, key)
        client.ok(f"C_{verb}Init", session, *arguments)
        self.state = save(client, session)

    def update(self, part: bytes) -> bytes:
        """PK11_CipherOp, PK11_DigestOp."""
        self._restore()
        output = b""
        if self.verb in ("Encrypt", "Decrypt"):
            held, length = ffi.new("char[]", len(part) + 32), ffi.new("CK_ULONG *", len(part) + 32)
            self.client.ok(f"C_{self.verb}Update", self.session, part, len(part), held, length)
            output = bytes(ffi.buffer(held, length[0]))
        else:
            self.client.ok(f"C_{self.verb}Update", self.session, part, len(part))
        self.state = save(self.client, self.session, self.state)
        return output

    def final(self) -> bytes:
        """PK11_DigestFinal: there is nothing to save afterwards."""
        self._restore()
        held, length = ffi.new("char[]", 512), ffi.new("CK_ULONG *", 512)
        self.client.ok(f"C_{self.verb}Final", self.session, held, length)
        return bytes(ffi.buffer(held, length[0]))

    def verify(self, signature: bytes) -> int:
        self._restore()
        return self.client.call("C_VerifyFinal", self.session, signature, len(signature))

    def _restore(self) -> None:
        assert restore(self.client, self.session, self.state, self.key) == CKR.OK


def save(client: Client, session: int, buffer: bytes | None = None) -> bytes:
    """pk11_saveContextHelper: into the old buffer, or after asking for the size."""
    length = ffi.new("CK_ULONG *", 0 if buffer is None else len(buffer))
    if buffer is None:
        client.ok("C_GetOperationState", session, ffi.NULL, length)
    held = ffi.new("char[]", length[0])
    client.ok("C_GetOperationState", session, held, length)
    return bytes(ffi.buffer(held, length[0]))


def restore(client: Client, session: int, state: bytes, encryption: int = 0, authentication: int = 0) -> int:
    return client.call("C_SetOperationState", session, state, len(state), encryption, authentication)


def secret(fob: Fob, key_type: int, value: bytes, session: int | None = None) -> int:
    """A session key, as NSS imports it."""
    template: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, key_type), (CKA.VALUE, value)]
    return fob.client.create(session or fob.session, template)


def counter(bits: int, block: bytes) -> Any:
    return ffi.new("CK_AES_CTR_PARAMS *", (bits, block))


def limit_sessions(home: Path, count: int) -> None:
    (home / "config.toml").write_text(f'{CHEAP_PINS}\n[token."test"]\nmax_sessions = {count}\n')


# Every kind of operation whose state can be saved: the verb, the mechanism, its parameter, the key.
CIPHERS = {
    "AES-ECB": (CKM.AES_ECB, b"", CKK.AES, AES_KEY),
    "AES-CBC": (CKM.AES_CBC, IV, CKK.AES, AES_KEY),
    "AES-CBC-PAD": (CKM.AES_CBC_PAD, IV, CKK.AES, AES_KEY[:16]),
    "DES3-CBC": (CKM.DES3_CBC, IV[:8], CKK.DES3, AES_KEY[:24]),
    "DES3-CBC-PAD": (CKM.DES3_CBC_PAD, IV[:8], CKK.DES3, AES_KEY[:24]),
    "AES-CTR": (CKM.AES_CTR, None, CKK.AES, AES_KEY),
}
MACS = {
    "HMAC": (CKM.SHA256_HMAC, CKK.GENERIC_SECRET),
    "AES-CMAC": (CKM.AES_CMAC, CKK.AES),
    "AES-MAC": (CKM.AES_MAC, CKK.AES),
}
DIGESTS = {"SHA-1": (CKM.SHA_1, "sha1"), "SHA-256": (CKM.SHA256, "sha256"), "SHA3-384": (CKM.SHA3_384, "sha3_384")}


def cipher_mechanism(client: Client, name: str) -> Any:
    mechanism, parameter, _, _ = CIPHERS[name]
    return client.mechanism(mechanism, counter(128, bytes(15) + b"\xfe") if parameter is None else parameter)


def in_one_go(fob: Fob, verb: str, mechanism: Any, key: int, data: bytes) -> bytes:
    fob.client.ok(f"C_{verb}Init", fob.session, mechanism, *([] if verb == "Digest" else [key]))
    return fob.client.output(f"C_{verb}", fob.session, data, len(data))


PARTS = st.lists(st.binary(max_size=50), max_size=8)
HERE = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.rule("SE5")
@pytest.mark.parametrize("name", CIPHERS)
@given(parts=PARTS)
@HERE
def test_a_cipher_restored_before_each_part_gives_what_an_uninterrupted_one_gives(
    fob: Fob, name: str, parts: list[bytes]
) -> None:
    """Encryption and decryption in ECB, CBC (padded too) and CTR go on from a saved state as if never interrupted."""
    data = b"".join(parts)
    if "PAD" not in name and name != "AES-CTR":
        parts = [*parts, bytes(-len(data) % 16)]
        data = b"".join(parts)
    key = secret(fob, CIPHERS[name][2], CIPHERS[name][3])
    expected = in_one_go(fob, "Encrypt", cipher_mechanism(fob.client, name), key, data)
    one = Context(fob.client, fob.session, "Encrypt", cipher_mechanism(fob.client, name), key)
    sealed = b"".join(one.update(part) for part in parts) + one.final()
    assert sealed == expected
    back = Context(fob.client, fob.session, "Decrypt", cipher_mechanism(fob.client, name), key)
    pieces = [sealed[i : i + 7] for i in range(0, len(sealed), 7)]
    if sealed:
        assert b"".join(back.update(piece) for piece in pieces) + back.final() == data


@pytest.mark.rule("SE5")
@pytest.mark.parametrize("name", MACS)
@given(parts=PARTS)
@HERE
def test_a_mac_restored_before_each_part_gives_what_an_uninterrupted_one_gives(
    fob: Fob, name: str, parts: list[bytes]
) -> None:
    """HMAC, CMAC and CBC-MAC go on from a saved state; the key may come as NSS gives it, as one for encryption."""
    mechanism, key_type = MACS[name]
    key = secret(fob, key_type, AES_KEY)
    expected = in_one_go(fob, "Sign", fob.client.mechanism(mechanism), key, b"".join(parts))
    one = Context(fob.client, fob.session, "Sign", fob.client.mechanism(mechanism), key)
    for part in parts:
        one.update(part)
    assert one.final() == expected
    for code, answer in ((expected, CKR.OK), (bytes(len(expected)), CKR.SIGNATURE_INVALID)):
        check = Context(fob.client, fob.session, "Verify", fob.client.mechanism(mechanism), key)
        for part in parts:
            check.update(part)
        assert check.verify(code) == answer


@pytest.mark.rule("SE5")
@pytest.mark.parametrize("name", DIGESTS)
@given(parts=PARTS)
@HERE
def test_a_digest_restored_before_each_part_gives_what_an_uninterrupted_one_gives(
    fob: Fob, name: str, parts: list[bytes]
) -> None:
    """Digests go on from a saved state."""
    mechanism, python_name = DIGESTS[name]
    one = Context(fob.client, fob.session, "Digest", fob.client.mechanism(mechanism))
    for part in parts:
        one.update(part)
    assert one.final() == hashlib.new(python_name, b"".join(parts)).digest()


@pytest.mark.rule("SE4", "SE5")
@pytest.mark.parametrize("sessions", [1, 2, 5])
def test_many_operations_share_the_last_session(home: Path, module: Client, sessions: int) -> None:
    """With 1, 2 or more sessions to have, any number of operations goes on side by side, saved and restored."""
    limit_sessions(home, sessions)
    module.initialize()
    if sessions > 1:
        Fob(module)
        module.ok("C_Finalize", ffi.NULL)
        slot = start(module).slot
    else:
        module.ok("C_Finalize", ffi.NULL)
        slot = start(module).slot
        slot.init_pin(PIN)
    slot.login(PIN)
    taken = [slot.session]
    handle = ffi.new("CK_ULONG *")
    while (rv := module.call("C_OpenSession", slot.id, READ_ONLY, ffi.NULL, ffi.NULL, handle)) == CKR.OK:
        taken.append(int(handle[0]))
    assert rv == CKR.SESSION_COUNT
    last = taken[-1]
    if sessions > 1:
        assert len(taken) == sessions
    aes = module.create(last, [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE, AES_KEY)])
    mac = module.create(last, [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.GENERIC_SECRET), (CKA.VALUE, AES_KEY)])
    contexts = [
        Context(module, last, "Digest", module.mechanism(CKM.SHA256)),
        Context(module, last, "Digest", module.mechanism(CKM.SHA_1)),
        Context(module, last, "Sign", module.mechanism(CKM.SHA256_HMAC), mac),
        Context(module, last, "Encrypt", module.mechanism(CKM.AES_CBC_PAD, IV), aes),
        Context(module, last, "Encrypt", module.mechanism(CKM.AES_CBC_PAD, bytes(16)), aes),
    ]
    outputs = [b""] * len(contexts)
    for begin in range(0, len(TEXT), 37):
        for i, context in enumerate(contexts):
            outputs[i] += context.update(TEXT[begin : begin + 37])
    for i, context in enumerate(contexts):
        outputs[i] += context.final()
    assert outputs[0] == hashlib.sha256(TEXT).digest()
    assert outputs[1] == hashlib.sha1(TEXT).digest()
    assert outputs[2] == hmac.digest(AES_KEY, TEXT, "sha256")
    for output, iv in ((outputs[3], IV), (outputs[4], bytes(16))):
        module.ok("C_DecryptInit", last, module.mechanism(CKM.AES_CBC_PAD, iv), aes)
        assert module.output("C_Decrypt", last, output, len(output)) == TEXT


@pytest.mark.rule("SE5")
@pytest.mark.parametrize("kind", [CKM.SHA256_RSA_PKCS, CKM.ECDSA_SHA256])
def test_a_signature_in_parts_is_saved_and_restored(fob: Fob, kind: int) -> None:
    """Signing and verifying with hashing go on from a saved state too."""
    client, session = fob.client, fob.session
    if kind == CKM.ECDSA_SHA256:
        public, private = client.generate_pair(session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)], [])
    else:
        public, private = client.generate_pair(session, CKM.RSA_PKCS_KEY_PAIR_GEN, RSA_2048, [])
    signing = Context(client, session, "Sign", client.mechanism(kind), private)
    checking = Context(client, session, "Verify", client.mechanism(kind), public)
    for part in (TEXT[:300], TEXT[300:]):
        signing.update(part)
        checking.update(part)
    signature = signing.final()
    assert checking.verify(signature) == CKR.OK
    assert client.verify(session, public, client.mechanism(kind), TEXT, signature) == CKR.OK


@pytest.mark.rule("SE5")
@pytest.mark.parametrize("verb", ["Encrypt", "Sign", "Digest"])
def test_one_state_is_the_start_of_several_operations(fob: Fob, verb: str) -> None:
    """Whoever restores a state goes on from it alone: neither the first operation nor another restored one moves it."""
    client, session = fob.client, fob.session
    key, mechanism = 0, client.mechanism(CKM.SHA256)
    if verb == "Encrypt":
        key, mechanism = secret(fob, CKK.AES, AES_KEY), client.mechanism(CKM.AES_CBC, IV)
    elif verb == "Sign":
        key, mechanism = secret(fob, CKK.GENERIC_SECRET, AES_KEY), client.mechanism(CKM.SHA256_HMAC)

    def take(where: int, part: bytes) -> bytes:
        if verb != "Encrypt":
            client.ok(f"C_{verb}Update", where, part, len(part))
            return b""
        held, length = ffi.new("char[]", len(part)), ffi.new("CK_ULONG *", len(part))
        client.ok("C_EncryptUpdate", where, part, len(part), held, length)
        return bytes(ffi.buffer(held, length[0]))

    client.ok(f"C_{verb}Init", session, mechanism, *([] if verb == "Digest" else [key]))
    begun = take(session, TEXT[:32])
    state = save(client, session)
    sessions = [session, client.open(fob.slot), client.open(fob.slot)]
    assert {restore(client, each, state, key) for each in sessions[1:]} == {CKR.OK}
    parts = [bytes([number]) * 32 for number in range(3)]
    outputs = [begun + take(each, part) for each, part in zip(sessions, parts, strict=True)]
    outputs = [output + client.output(f"C_{verb}Final", each) for each, output in zip(sessions, outputs, strict=True)]
    assert restore(client, sessions[2], state, key) == CKR.OK, "once more, when all of them have ended"
    outputs.append(begun + take(sessions[2], bytes(32)) + client.output(f"C_{verb}Final", sessions[2]))
    wanted = [in_one_go(fob, verb, mechanism, key, TEXT[:32] + part) for part in (*parts, bytes(32))]
    assert outputs == wanted


@pytest.mark.rule("SE5")
def test_init_takes_the_place_of_a_saved_operation_only(fob: Fob) -> None:
    """A new C_*Init replaces an operation whose state was saved since its last step; else CKR_OPERATION_ACTIVE."""
    client, session = fob.client, fob.session
    sha = client.mechanism(CKM.SHA256)
    client.ok("C_DigestInit", session, sha)
    assert client.call("C_DigestInit", session, sha) == CKR.OPERATION_ACTIVE
    save(client, session)
    client.ok("C_DigestInit", session, sha)
    assert client.call("C_DigestInit", session, sha) == CKR.OPERATION_ACTIVE, "the new one is not saved"
    save(client, session)
    client.ok("C_DigestUpdate", session, b"a", 1)
    assert client.call("C_DigestInit", session, sha) == CKR.OPERATION_ACTIVE, "it moved on"
    length = ffi.new("CK_ULONG *")
    client.ok("C_GetOperationState", session, ffi.NULL, length)
    assert client.call("C_DigestInit", session, sha) == CKR.OPERATION_ACTIVE, "asking for the size saves nothing"


@pytest.mark.rule("SE5")
def test_the_example_of_the_standard(fob: Fob) -> None:
    """A saved state stays where it was while the operation goes on, and is good in another session too."""
    client, session = fob.client, fob.session
    client.ok("C_DigestInit", session, client.mechanism(CKM.SHA_1))
    client.ok("C_DigestUpdate", session, b"\x01\x03\x05\x07", 4)
    state = save(client, session)
    client.ok("C_DigestUpdate", session, b"\x02\x04\x08", 3)
    assert restore(client, session, state) == CKR.OK
    client.ok("C_DigestUpdate", session, b"\x10\x0f\x0e\x0d\x0c", 5)
    digest = client.output("C_DigestFinal", session)
    assert digest == hashlib.sha1(bytes.fromhex("01030507100f0e0d0c")).digest()
    other = client.open(fob.slot)
    assert restore(client, other, state) == CKR.OK, "in another session, and a second time"
    assert client.output("C_DigestFinal", other) == hashlib.sha1(b"\x01\x03\x05\x07").digest()


def test_two_operations_at_once_are_one_state(fob: Fob) -> None:
    client, session = fob.client, fob.session
    key = secret(fob, CKK.AES, AES_KEY)
    mac = secret(fob, CKK.GENERIC_SECRET, AES_KEY)
    client.ok("C_EncryptInit", session, client.mechanism(CKM.AES_CBC, IV), key)
    client.ok("C_SignInit", session, client.mechanism(CKM.SHA256_HMAC), mac)
    held, length = ffi.new("char[64]"), ffi.new("CK_ULONG *", 64)
    client.ok("C_SignEncryptUpdate", session, TEXT, 20, held, length)
    first = bytes(ffi.buffer(held, length[0]))
    state = save(client, session)
    other = client.open(fob.slot)
    assert restore(client, other, state, key) == CKR.KEY_NEEDED
    assert restore(client, other, state, mac, key) == CKR.KEY_CHANGED
    assert restore(client, other, state, key, mac) == CKR.OK
    length[0] = 64
    client.ok("C_SignEncryptUpdate", other, TEXT[20:], 28, held, length)
    sealed = first + bytes(ffi.buffer(held, length[0])) + client.output("C_EncryptFinal", other)
    assert client.output("C_SignFinal", other) == hmac.digest(AES_KEY, TEXT[:48], "sha256")
    assert sealed == in_one_go(
        fob_in(fob, client.open(fob.slot)), "Encrypt", client.mechanism(CKM.AES_CBC, IV), key, TEXT[:48]
    )


def fob_in(fob: Fob, session: int) -> Fob:
    """The same token in another session."""
    other = object.__new__(Fob)
    other.client, other.slot, other.session = fob.client, fob.slot, session
    return other


def test_restoring_cancels_what_the_session_does(fob: Fob) -> None:
    client, session = fob.client, fob.session
    client.ok("C_DigestInit", session, client.mechanism(CKM.SHA256))
    state = save(client, session)
    key = secret(fob, CKK.AES, AES_KEY)
    client.ok("C_EncryptInit", session, client.mechanism(CKM.AES_ECB), key)
    client.ok("C_FindObjectsInit", session, ffi.NULL, 0)
    assert restore(client, session, state) == CKR.OK
    held, count = ffi.new("CK_ULONG[4]"), ffi.new("CK_ULONG *")
    assert client.call("C_FindObjects", session, held, 4, count) == CKR.OPERATION_NOT_INITIALIZED
    assert (
        client.call("C_EncryptUpdate", session, TEXT, 16, ffi.new("char[16]"), count) == CKR.OPERATION_NOT_INITIALIZED
    )
    assert client.output("C_DigestFinal", session) == hashlib.sha256().digest()


def test_keys_of_states(fob: Fob) -> None:
    client, session = fob.client, fob.session
    one, other = secret(fob, CKK.AES, AES_KEY), secret(fob, CKK.AES, AES_KEY)
    client.ok("C_EncryptInit", session, client.mechanism(CKM.AES_CBC, IV), one)
    state = save(client, session)
    assert restore(client, session, state) == CKR.KEY_NEEDED
    assert restore(client, session, state, other) == CKR.KEY_CHANGED
    assert restore(client, session, state, INVALID) == CKR.KEY_CHANGED
    assert restore(client, session, state, one, other) == CKR.KEY_NOT_NEEDED
    assert restore(client, session, state, one) == CKR.OK
    client.ok("C_DigestInit", session, client.mechanism(CKM.SHA256))
    digest = save(client, session)
    assert restore(client, session, digest, one) == CKR.KEY_NOT_NEEDED
    assert not client.token_info(fob.slot).flags & CKF.RESTORE_KEY_NOT_NEEDED


def test_states_hold_neither_key_nor_data(fob: Fob) -> None:
    client, session = fob.client, fob.session
    key = secret(fob, CKK.AES, AES_KEY)
    client.ok("C_EncryptInit", session, client.mechanism(CKM.AES_CBC, IV), key)
    held, length = ffi.new("char[64]"), ffi.new("CK_ULONG *", 64)
    client.ok("C_EncryptUpdate", session, b"a secret of mine", 10, held, length)
    state = save(client, session)
    for start_ in range(0, 32, 4):
        assert AES_KEY[start_ : start_ + 4] not in state
    assert b"secret" not in state
    assert state != save(client, session)


def test_foreign_states_are_refused(fob: Fob) -> None:
    client, session = fob.client, fob.session
    client.ok("C_DigestInit", session, client.mechanism(CKM.SHA256))
    state = save(client, session)
    for wrong in (b"x", bytes(len(state)), state[:-1], state + b"\0", bytes((state[0] ^ 1,)) + state[1:]):
        assert restore(client, session, wrong) == CKR.SAVED_STATE_INVALID
    client.ok("C_DigestUpdate", session, b"still", 5)
    assert client.output("C_DigestFinal", session) == hashlib.sha256(b"still").digest(), "a failure cancels nothing"
    client.ok("C_Finalize", ffi.NULL)
    client.initialize()
    assert restore(client, client.open(fob.slot), state) == CKR.SAVED_STATE_INVALID, "C_Finalize ends all states"


def test_what_cannot_be_saved_says_so(fob: Fob) -> None:
    client, session = fob.client, fob.session
    length = ffi.new("CK_ULONG *")
    assert client.call("C_GetOperationState", session, ffi.NULL, length) == CKR.OPERATION_NOT_INITIALIZED
    client.ok("C_FindObjectsInit", session, ffi.NULL, 0)
    assert client.call("C_GetOperationState", session, ffi.NULL, length) == CKR.OPERATION_NOT_INITIALIZED
    key = secret(fob, CKK.AES, AES_KEY)
    client.ok("C_EncryptInit", session, client.mechanism(CKM.AES_OFB, IV), key)
    assert client.call("C_GetOperationState", session, ffi.NULL, length) == CKR.STATE_UNSAVEABLE
    held, size = ffi.new("char[64]"), ffi.new("CK_ULONG *", 64)
    client.ok("C_EncryptUpdate", session, TEXT, 16, held, size)
    small = ffi.new("CK_ULONG *", 4)
    client.ok("C_DigestInit", session, client.mechanism(CKM.SHA256))
    client.ok("C_EncryptFinal", session, held, size)
    assert client.call("C_GetOperationState", session, held, small) == CKR.BUFFER_TOO_SMALL
    assert small[0] == len(save(client, session))


@pytest.mark.parametrize("end", ["C_Logout", "C_DestroyObject", "C_CloseSession"])
def test_a_state_dies_with_its_key(fob: Fob, end: str) -> None:
    client = fob.client
    other = client.open(fob.slot)
    key = secret(fob, CKK.GENERIC_SECRET, AES_KEY, other)
    client.ok("C_SignInit", fob.session, client.mechanism(CKM.SHA256_HMAC), key)
    state = save(client, fob.session)
    assert restore(client, fob.session, state, 0, key) == CKR.OK
    arguments = {"C_Logout": (fob.session,), "C_DestroyObject": (fob.session, key), "C_CloseSession": (other,)}[end]
    client.ok(end, *arguments)
    assert restore(client, fob.session, state, 0, key) == CKR.SAVED_STATE_INVALID


def test_the_newest_states_are_kept(fob: Fob) -> None:
    client, session = fob.client, fob.session
    client.ok("C_DigestInit", session, client.mechanism(CKM.SHA256))
    first, second = save(client, session), save(client, session)
    for _ in range(4094):
        save(client, session)
    assert restore(client, session, first) == CKR.OK, "which makes it a new one"
    save(client, session)
    assert restore(client, session, first) == CKR.OK
    assert restore(client, session, second) == CKR.SAVED_STATE_INVALID


def test_threads_restore_one_state_at_the_same_time(fob: Fob) -> None:
    client = fob.client
    client.ok("C_DigestInit", fob.session, client.mechanism(CKM.SHA256))
    client.ok("C_DigestUpdate", fob.session, b"one", 3)
    state = save(client, fob.session)

    def work(session: int) -> set[int | bytes]:
        seen: set[int | bytes] = set()
        for _ in range(300):
            seen.add(restore(client, session, state))
            client.ok("C_DigestUpdate", session, b" two", 4)
            save(client, session)
            seen.add(client.output("C_DigestFinal", session))
        return seen

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, [client.open(fob.slot) for _ in range(4)]))
    assert results == [{CKR.OK, hashlib.sha256(b"one two").digest()}] * 4
