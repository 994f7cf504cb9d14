"""Triple DES against NIST's known answers; parity; P15 for its wrapping keys."""

from __future__ import annotations

import pytest

from keyfob import mechanisms
from keyfob.mechanisms.des3 import ODD_PARITY
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from keyfob.spec.parameters import DesCbcEncryptDataParams, KeyDerivationStringDataParams
from tests.mechanisms.symmetric_vectors import (
    Record,
    begin,
    data,
    in_parts,
    records,
    refused,
    sample,
    secret_key,
    ulong,
)

KINDS = ("MMT1", "MMT2", "MMT3", "invperm", "permop", "subtab", "varkey", "vartext")
KEY = secret_key(bytes.fromhex("0123456789ABCDEF23456789ABCDEF01456789ABCDEF0123"), CKK.DES3)
IV = bytes(range(8))


def key_value(record: Record) -> bytes:
    return data(record, "KEYS")[0] * 3 if "KEYS" in record else b"".join(data(record, "KEY1", "KEY2", "KEY3"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("mode", "mechanism"), [("ECB", CKM.DES3_ECB), ("CBC", CKM.DES3_CBC)])
def test_modes_give_the_known_answers(mode: str, mechanism: int, kind: str) -> None:
    for record in sample(records(f"ciphers/3DES/{mode}/T{mode}{kind}.rsp"), 20):
        plaintext, ciphertext = data(record, "PLAINTEXT", "CIPHERTEXT")
        parameter = None if mode == "ECB" else bytes.fromhex(record["IV"])
        value = key_value(record)
        keys = [secret_key(value, CKK.DES3), secret_key(value, CKK.GENERIC_SECRET)]
        if value[:8] == value[16:]:
            keys.append(secret_key(value[:16], CKK.DES2))
        for key in keys:
            assert begin(mechanism, CKF.ENCRYPT, key, parameter).run(plaintext) == ciphertext
            assert in_parts(begin(mechanism, CKF.DECRYPT, key, parameter), ciphertext) == plaintext


@pytest.mark.parametrize("length", [0, 7, 8, 100])
def test_padding_is_added_and_removed(length: int) -> None:
    plaintext = bytes(range(length))
    encrypt = begin(CKM.DES3_CBC_PAD, CKF.ENCRYPT, KEY, IV)
    ciphertext = encrypt.run(plaintext)
    assert len(ciphertext) == encrypt.size(length) == length + 8 - length % 8
    assert in_parts(begin(CKM.DES3_CBC_PAD, CKF.ENCRYPT, KEY, IV), plaintext) == ciphertext
    assert in_parts(begin(CKM.DES3_CBC_PAD, CKF.DECRYPT, KEY, IV), ciphertext) == plaintext
    padding = bytes((8 - length % 8,)) * (8 - length % 8)
    assert begin(CKM.DES3_CBC, CKF.DECRYPT, KEY, IV).run(ciphertext) == plaintext + padding


def test_wrong_padding_and_wrong_lengths_are_refused() -> None:
    with refused(CKR.ENCRYPTED_DATA_INVALID):
        begin(CKM.DES3_CBC_PAD, CKF.DECRYPT, KEY, IV).run(begin(CKM.DES3_CBC, CKF.ENCRYPT, KEY, IV).run(b"\x09" * 8))
    with refused(CKR.ENCRYPTED_DATA_LEN_RANGE):
        begin(CKM.DES3_CBC_PAD, CKF.DECRYPT, KEY, IV).run(bytes(9))
    with refused(CKR.DATA_LEN_RANGE):
        begin(CKM.DES3_ECB, CKF.ENCRYPT, KEY, None).run(bytes(9))
    with refused(CKR.MECHANISM_PARAM_INVALID):
        begin(CKM.DES3_CBC, CKF.ENCRYPT, KEY, bytes(16))


@pytest.mark.parametrize("key_type", [CKK.DES3, CKK.GENERIC_SECRET])
def test_a_private_key_is_wrapped_and_unwrapped(key_type: int) -> None:
    """Section 3.13 of NSS.md: PKCS #12 with 3DES; under PBES2 NSS's wrapping key is a generic secret (P15)."""
    assert key_type in mechanisms.lookup(CKM.DES3_CBC_PAD).key_types
    key = secret_key(KEY.attributes[CKA.VALUE], key_type)
    wrapped = begin(CKM.DES3_CBC_PAD, CKF.WRAP, key, IV).wrap(b"k" * 1217)
    assert begin(CKM.DES3_CBC_PAD, CKF.UNWRAP, KEY, IV).unwrap(wrapped) == b"k" * 1217
    with refused(CKR.UNWRAPPING_KEY_SIZE_RANGE):
        begin(CKM.DES3_CBC_PAD, CKF.UNWRAP, secret_key(bytes(32), CKK.GENERIC_SECRET), IV)


def test_cmac_gives_the_known_answers() -> None:
    for record in records("CMAC/nist-800-38b-3des.txt"):
        message, code = data(record, "MESSAGE", "OUTPUT")
        key = secret_key(key_value(record), CKK.DES3)
        assert begin(CKM.DES3_CMAC, CKF.SIGN, key, None).sign(message) == code
        assert begin(CKM.DES3_CMAC_GENERAL, CKF.SIGN, key, ulong(3)).sign(message) == code[:3]
        begin(CKM.DES3_CMAC, CKF.VERIFY, key, None).verify(message, code)


def test_cbc_mac_is_half_the_last_block_of_cbc() -> None:
    message = bytes(range(20))
    block = begin(CKM.DES3_CBC, CKF.ENCRYPT, KEY, bytes(8)).run(message + bytes(4))[-8:]
    assert begin(CKM.DES3_MAC, CKF.SIGN, KEY, None).sign(message) == block[:4]
    assert begin(CKM.DES3_MAC_GENERAL, CKF.SIGN, KEY, ulong(8)).sign(message) == block


def test_derivation_by_encryption() -> None:
    plaintext = bytes(range(32))
    in_ecb, in_cbc = KeyDerivationStringDataParams(plaintext), DesCbcEncryptDataParams(IV, plaintext)
    by_ecb = begin(CKM.DES3_ECB, CKF.ENCRYPT, KEY, None).run(plaintext)
    by_cbc = begin(CKM.DES3_CBC, CKF.ENCRYPT, KEY, IV).run(plaintext)
    assert begin(CKM.DES3_ECB_ENCRYPT_DATA, CKF.DERIVE, KEY, in_ecb, 24) == by_ecb[:24]
    assert begin(CKM.DES3_CBC_ENCRYPT_DATA, CKF.DERIVE, KEY, in_cbc, None) == by_cbc


def test_the_parity_table_makes_every_byte_odd_and_changes_its_lowest_bit_only() -> None:
    assert all(byte.bit_count() % 2 == 1 for byte in ODD_PARITY)
    assert all(new >> 1 == old >> 1 for old, new in enumerate(ODD_PARITY))


@pytest.mark.parametrize(
    ("mechanism", "key_type", "length"), [(CKM.DES3_KEY_GEN, CKK.DES3, 24), (CKM.DES2_KEY_GEN, CKK.DES2, 16)]
)
def test_generated_keys_have_odd_parity(mechanism: int, key_type: int, length: int) -> None:
    made = begin(mechanism, CKF.GENERATE, None, {})
    assert len(made[CKA.VALUE]) == length
    assert all(byte.bit_count() % 2 == 1 for byte in made[CKA.VALUE])
    assert made[CKA.KEY_TYPE] == ulong(key_type)
    assert CKA.VALUE_LEN not in made
    assert len(begin(mechanism, CKF.GENERATE, None, {CKA.VALUE_LEN: ulong(length)})[CKA.VALUE]) == length
    with refused(CKR.ATTRIBUTE_VALUE_INVALID):
        begin(mechanism, CKF.GENERATE, None, {CKA.VALUE_LEN: ulong(8)})


def test_a_created_key_has_its_parity_put_right() -> None:
    """Section 3.13, step 2: NSS creates DES3 keys from a password, whose parity is random."""
    made = mechanisms.key_class(CKO.SECRET_KEY, CKK.DES3)
    assert made.complete({CKA.VALUE: bytes(24)}) == {CKA.VALUE: b"\x01" * 24}
    with refused(CKR.ATTRIBUTE_VALUE_INVALID):
        made.complete({CKA.VALUE: bytes(16)})


def test_check_value_is_of_an_encrypted_zero_block() -> None:
    """NIST's TECBvarkey: 8001010101010101 encrypts zeros to 95A8D72813DAA94D."""
    for value, key_type in ((3, CKK.DES3), (2, CKK.DES2)):
        key = secret_key(bytes.fromhex("8001010101010101") * value, key_type)
        assert mechanisms.check_value(key.attributes) == bytes.fromhex("95A8D7")
