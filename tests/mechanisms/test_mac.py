"""HMAC against the RFCs' known answers; what all codes have in common."""

from __future__ import annotations

import pytest

from keyfob import mechanisms
from keyfob.mechanisms.hashes import HASHES
from keyfob.mechanisms.hmac import FAMILY
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from tests.mechanisms.symmetric_vectors import begin, data, records, refused, secret_key, ulong

KEY = secret_key(b"k" * 32, CKK.GENERIC_SECRET)
RFC = {
    CKM.MD5_HMAC: ("rfc-2202-md5", CKK.MD5_HMAC),
    CKM.SHA_1_HMAC: ("rfc-2202-sha1", CKK.SHA_1_HMAC),
    CKM.SHA224_HMAC: ("rfc-4231-sha224", CKK.SHA224_HMAC),
    CKM.SHA256_HMAC: ("rfc-4231-sha256", CKK.SHA256_HMAC),
    CKM.SHA384_HMAC: ("rfc-4231-sha384", CKK.SHA384_HMAC),
    CKM.SHA512_HMAC: ("rfc-4231-sha512", CKK.SHA512_HMAC),
}


@pytest.mark.parametrize("mechanism", RFC)
def test_hmac_gives_the_known_answers(mechanism: int) -> None:
    name, key_type = RFC[mechanism]
    for record in records(f"HMAC/{name}.txt", "LEN"):
        value, message, code = data(record, "KEY", "MSG", "MD")
        for key in (secret_key(value, CKK.GENERIC_SECRET), secret_key(value, key_type)):
            operation = begin(mechanism, CKF.SIGN, key, None)
            assert operation.output_size == len(code)
            assert operation.sign(message) == code
            begin(mechanism, CKF.VERIFY, key, None).verify(message, code)
        in_parts = begin(mechanism, CKF.SIGN, key, None)
        for byte in message:
            in_parts.update(bytes((byte,)))
        assert in_parts.final() == code


@pytest.mark.parametrize("row", FAMILY)
@pytest.mark.parametrize("key_length", [1, 64, 200])
def test_hmac_is_rfc_2104_over_every_hash(row: tuple[int, int, int, int | None, int], key_length: int) -> None:
    digest, full, general, _, key_type = row
    value, message = bytes(range(key_length)), b"message"
    hash_function = HASHES[digest]
    padded = (value if len(value) <= hash_function.block_size else hash_function.digest(value)).ljust(
        hash_function.block_size, b"\0"
    )
    inner = hash_function.digest(bytes(byte ^ 0x36 for byte in padded) + message)
    expected = hash_function.digest(bytes(byte ^ 0x5C for byte in padded) + inner)
    key = secret_key(value, key_type)
    assert begin(full, CKF.SIGN, key, None).sign(message) == expected
    assert begin(general, CKF.SIGN, key, ulong(5)).sign(message) == expected[:5]
    assert mechanisms.lookup(full).key_types == (CKK.GENERIC_SECRET, key_type)


def test_one_key_makes_many_codes() -> None:
    """The keyed context is kept with the key: it must not remember messages, nor mix hashes up."""
    first = begin(CKM.SHA256_HMAC, CKF.SIGN, KEY, None).sign(b"one")
    begin(CKM.SHA384_HMAC, CKF.SIGN, KEY, None).sign(b"one")
    assert begin(CKM.SHA256_HMAC, CKF.SIGN, KEY, None).sign(b"two") != first
    assert begin(CKM.SHA256_HMAC, CKF.SIGN, KEY, None).sign(b"one") == first


def test_a_wrong_code_is_refused() -> None:
    code = begin(CKM.SHA256_HMAC, CKF.SIGN, KEY, None).sign(b"data")
    for position in (0, 31):
        wrong = bytearray(code)
        wrong[position] ^= 1
        with refused(CKR.SIGNATURE_INVALID):
            begin(CKM.SHA256_HMAC, CKF.VERIFY, KEY, None).verify(b"data", bytes(wrong))
    in_parts = begin(CKM.SHA256_HMAC, CKF.VERIFY, KEY, None)
    in_parts.update(b"date")
    with refused(CKR.SIGNATURE_INVALID):
        in_parts.final(code)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_code_of_wrong_length_is_refused(length: int) -> None:
    with refused(CKR.SIGNATURE_LEN_RANGE):
        begin(CKM.SHA256_HMAC, CKF.VERIFY, KEY, None).verify(b"data", bytes(length))


def test_a_truncated_code_verifies_at_its_own_length_only() -> None:
    code = begin(CKM.SHA256_HMAC, CKF.SIGN, KEY, None).sign(b"data")
    begin(CKM.SHA256_HMAC_GENERAL, CKF.VERIFY, KEY, ulong(10)).verify(b"data", code[:10])
    with refused(CKR.SIGNATURE_LEN_RANGE):
        begin(CKM.SHA256_HMAC_GENERAL, CKF.VERIFY, KEY, ulong(10)).verify(b"data", code)


@pytest.mark.parametrize("parameter", [ulong(0), ulong(33), None, b"", b"\x10", ulong(2**63)])
def test_a_wrong_length_parameter_is_refused(parameter: bytes | None) -> None:
    for flag in (CKF.SIGN, CKF.VERIFY):
        with refused(CKR.MECHANISM_PARAM_INVALID):
            begin(CKM.SHA256_HMAC_GENERAL, flag, KEY, parameter)
        with refused(CKR.MECHANISM_PARAM_INVALID):
            begin(CKM.SHA256_HMAC, flag, KEY, ulong(32))


@pytest.mark.parametrize("row", FAMILY[1:])
def test_hmac_keys_are_generated(row: tuple[int, int, int, int | None, int]) -> None:
    key_gen, key_type = row[3], row[4]
    assert key_gen is not None
    made = begin(key_gen, CKF.GENERATE, None, {CKA.VALUE_LEN: ulong(20)})
    assert len(made[CKA.VALUE]) == 20
    assert made[CKA.KEY_TYPE] == ulong(key_type)
    assert mechanisms.lookup(key_gen).makes == key_type
    assert mechanisms.key_class(CKO.SECRET_KEY, key_type).complete({CKA.VALUE: b"12"})[CKA.VALUE_LEN] == ulong(2)
    with refused(CKR.TEMPLATE_INCOMPLETE):
        begin(key_gen, CKF.GENERATE, None, {})
