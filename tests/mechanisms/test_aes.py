"""AES: plain modes, codes, derivation and keys, against NIST's known answers."""

from __future__ import annotations

import pytest

from keyfob import mechanisms
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from keyfob.spec.parameters import AesCbcEncryptDataParams, AesCtrParams, KeyDerivationStringDataParams
from tests.mechanisms.symmetric_vectors import begin, data, in_parts, records, refused, sample, secret_key, ulong

SIZES = (128, 192, 256)
KINDS = ("GFSbox", "KeySbox", "VarKey", "VarTxt", "MMT")
MODES = {"ECB": CKM.AES_ECB, "CBC": CKM.AES_CBC, "CFB128": CKM.AES_CFB128, "CFB8": CKM.AES_CFB8, "OFB": CKM.AES_OFB}
KEY = secret_key(bytes(range(32)))
IV = bytes(range(16))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_modes_give_the_known_answers(mode: str, size: int) -> None:
    folder = "CFB" if mode.startswith("CFB") else mode
    for kind in KINDS:
        for record in sample(records(f"ciphers/AES/{folder}/{mode}{kind}{size}.rsp"), 20):
            value, plaintext, ciphertext = data(record, "KEY", "PLAINTEXT", "CIPHERTEXT")
            key = secret_key(value)
            parameter = None if mode == "ECB" else bytes.fromhex(record["IV"])
            assert begin(MODES[mode], CKF.ENCRYPT, key, parameter).run(plaintext) == ciphertext
            assert begin(MODES[mode], CKF.DECRYPT, key, parameter).run(ciphertext) == plaintext
            assert in_parts(begin(MODES[mode], CKF.ENCRYPT, key, parameter), plaintext) == ciphertext
            assert in_parts(begin(MODES[mode], CKF.DECRYPT, key, parameter), ciphertext) == plaintext


@pytest.mark.parametrize("size", SIZES)
def test_counter_mode_gives_the_known_answers(size: int) -> None:
    for record in records(f"ciphers/AES/CTR/aes-{size}-ctr.txt"):
        value, block, plaintext, ciphertext = data(record, "KEY", "IV", "PLAINTEXT", "CIPHERTEXT")
        for bits in (32, 128):
            parameter = AesCtrParams(bits, block)
            assert begin(CKM.AES_CTR, CKF.ENCRYPT, secret_key(value), parameter).run(plaintext) == ciphertext
            assert in_parts(begin(CKM.AES_CTR, CKF.DECRYPT, secret_key(value), parameter), ciphertext) == plaintext


@pytest.mark.parametrize("flag", [CKF.ENCRYPT, CKF.DECRYPT])
def test_a_counter_that_overflows_is_refused(flag: int) -> None:
    """The standard's example: two counter bits starting at 1 are enough for three blocks."""
    parameter = AesCtrParams(2, bytes(15) + b"\x01")
    assert len(begin(CKM.AES_CTR, flag, KEY, parameter).run(bytes(48))) == 48
    with refused(CKR.DATA_LEN_RANGE):
        begin(CKM.AES_CTR, flag, KEY, parameter).run(bytes(49))
    parts = begin(CKM.AES_CTR, flag, KEY, parameter)
    parts.update(bytes(48))
    with refused(CKR.DATA_LEN_RANGE):
        parts.update(b"x")


def test_a_full_counter_overflows_too() -> None:
    parameter = AesCtrParams(128, b"\xff" * 16)
    assert len(begin(CKM.AES_CTR, CKF.ENCRYPT, KEY, parameter).run(bytes(16))) == 16
    with refused(CKR.DATA_LEN_RANGE):
        begin(CKM.AES_CTR, CKF.ENCRYPT, KEY, parameter).run(bytes(17))


@pytest.mark.parametrize("parameter", [AesCtrParams(0, IV), AesCtrParams(129, IV), AesCtrParams(32, IV[:8]), None, IV])
def test_a_wrong_counter_parameter_is_refused(parameter: object) -> None:
    with refused(CKR.MECHANISM_PARAM_INVALID):
        begin(CKM.AES_CTR, CKF.ENCRYPT, KEY, parameter)


@pytest.mark.parametrize("mechanism", [CKM.AES_CBC, CKM.AES_CBC_PAD, CKM.AES_OFB, CKM.AES_CFB128])
@pytest.mark.parametrize("parameter", [None, b"", IV[:15], IV + b"x"])
def test_a_wrong_initialization_vector_is_refused(mechanism: int, parameter: bytes | None) -> None:
    for flag in (CKF.ENCRYPT, CKF.DECRYPT):
        with refused(CKR.MECHANISM_PARAM_INVALID):
            begin(mechanism, flag, KEY, parameter)


def test_ecb_takes_no_parameter() -> None:
    begin(CKM.AES_ECB, CKF.ENCRYPT, KEY, b"")
    with refused(CKR.MECHANISM_PARAM_INVALID):
        begin(CKM.AES_ECB, CKF.ENCRYPT, KEY, IV)


@pytest.mark.parametrize(("mechanism", "parameter"), [(CKM.AES_ECB, None), (CKM.AES_CBC, IV)])
def test_data_that_fills_no_block_is_refused(mechanism: int, parameter: bytes | None) -> None:
    for flag, code in ((CKF.ENCRYPT, CKR.DATA_LEN_RANGE), (CKF.DECRYPT, CKR.ENCRYPTED_DATA_LEN_RANGE)):
        with refused(code):
            begin(mechanism, flag, KEY, parameter).run(bytes(17))
        parts = begin(mechanism, flag, KEY, parameter)
        assert parts.update(bytes(17)) != b""
        with refused(code):
            parts.final()


def test_decryption_in_many_parts_without_final_gives_everything_so_far() -> None:
    """NSS decrypts S/MIME so: C_DecryptInit, hundreds of C_DecryptUpdate, no C_DecryptFinal."""
    plaintext = bytes(range(256)) * 16
    ciphertext = begin(CKM.AES_CBC, CKF.ENCRYPT, KEY, IV).run(plaintext)
    operation = begin(CKM.AES_CBC, CKF.DECRYPT, KEY, IV)
    output = b"".join(operation.update(ciphertext[i : i + 16]) for i in range(0, len(ciphertext), 16))
    assert output == plaintext


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 31, 32, 100])
@pytest.mark.parametrize("part", [1, 5, 16, 48])
def test_padding_is_added_and_removed_at_any_length(length: int, part: int) -> None:
    plaintext = bytes(range(length))
    ciphertext = begin(CKM.AES_CBC_PAD, CKF.ENCRYPT, KEY, IV).run(plaintext)
    encrypt = begin(CKM.AES_CBC_PAD, CKF.ENCRYPT, KEY, IV)
    assert encrypt.exact
    assert len(ciphertext) == encrypt.size(length) == length + 16 - length % 16
    assert in_parts(encrypt, plaintext, part) == ciphertext
    assert begin(CKM.AES_CBC_PAD, CKF.DECRYPT, KEY, IV).run(ciphertext) == plaintext
    assert in_parts(begin(CKM.AES_CBC_PAD, CKF.DECRYPT, KEY, IV), ciphertext, part) == plaintext
    padded = plaintext + bytes((16 - length % 16,)) * (16 - length % 16)
    assert begin(CKM.AES_CBC, CKF.DECRYPT, KEY, IV).run(ciphertext) == padded


def test_the_last_block_is_kept_back_until_the_padding_is_checked() -> None:
    ciphertext = begin(CKM.AES_CBC_PAD, CKF.ENCRYPT, KEY, IV).run(bytes(40))
    operation = begin(CKM.AES_CBC_PAD, CKF.DECRYPT, KEY, IV)
    assert operation.update_size(48) == 32
    assert operation.update(ciphertext) == bytes(32)
    assert operation.update_size(0) == 0
    assert operation.final() == bytes(8)


@pytest.mark.parametrize("last", [b"\x00" * 16, b"\x11" * 16, b"\x02" * 14 + b"\x03\x02", b"\x10" * 15 + b"\x11"])
def test_wrong_padding_is_refused(last: bytes) -> None:
    ciphertext = begin(CKM.AES_CBC, CKF.ENCRYPT, KEY, IV).run(bytes(16) + last)
    with refused(CKR.ENCRYPTED_DATA_INVALID):
        begin(CKM.AES_CBC_PAD, CKF.DECRYPT, KEY, IV).run(ciphertext)


@pytest.mark.parametrize("length", [0, 15, 17])
def test_padded_ciphertext_of_wrong_length_is_refused(length: int) -> None:
    with refused(CKR.ENCRYPTED_DATA_LEN_RANGE):
        begin(CKM.AES_CBC_PAD, CKF.DECRYPT, KEY, IV).run(bytes(length))


@pytest.mark.parametrize("size", SIZES)
def test_cmac_gives_the_known_answers_whole_and_truncated(size: int) -> None:
    for record in records(f"CMAC/nist-800-38b-aes{size}.txt"):
        value, message, code = data(record, "KEY", "MESSAGE", "OUTPUT")
        key = secret_key(value)
        assert begin(CKM.AES_CMAC, CKF.SIGN, key, None).sign(message) == code
        begin(CKM.AES_CMAC, CKF.VERIFY, key, None).verify(message, code)
        general = begin(CKM.AES_CMAC_GENERAL, CKF.SIGN, key, ulong(9))
        general.update(message[:5])
        general.update(message[5:])
        assert general.output_size == 9
        assert general.final() == code[:9]


def test_cbc_mac_is_the_last_block_of_cbc_over_zero_padding() -> None:
    message = bytes(range(40))
    block = begin(CKM.AES_CBC, CKF.ENCRYPT, KEY, bytes(16)).run(message + bytes(8))[-16:]
    assert begin(CKM.AES_MAC, CKF.SIGN, KEY, None).sign(message) == block[:8]
    operation = begin(CKM.AES_MAC_GENERAL, CKF.SIGN, KEY, ulong(16))
    for i in range(0, 40, 3):
        operation.update(message[i : i + 3])
    assert operation.final() == block
    assert begin(CKM.AES_MAC_GENERAL, CKF.SIGN, KEY, ulong(16)).sign(b"") == (
        begin(CKM.AES_ECB, CKF.ENCRYPT, KEY, None).run(bytes(16))
    )


@pytest.mark.parametrize("size", [128, 256])
def test_xts_gives_the_known_answers(size: int) -> None:
    found = records(f"ciphers/AES/XTS/tweak-128hexstr/XTSGenAES{size}.rsp")
    whole_bytes = [record for record in found if int(record["DATAUNITLEN"]) % 8 == 0]
    for record in sample(whole_bytes, 60):
        value, tweak, plaintext, ciphertext = data(record, "KEY", "I", "PT", "CT")
        key = secret_key(value, CKK.AES_XTS)
        assert begin(CKM.AES_XTS, CKF.ENCRYPT, key, tweak).run(plaintext) == ciphertext
        assert in_parts(begin(CKM.AES_XTS, CKF.DECRYPT, key, tweak), ciphertext) == plaintext
    for flag, code in ((CKF.ENCRYPT, CKR.DATA_LEN_RANGE), (CKF.DECRYPT, CKR.ENCRYPTED_DATA_LEN_RANGE)):
        with refused(code):
            begin(CKM.AES_XTS, flag, key, bytes(16)).run(bytes(15))


def test_an_xts_key_of_equal_halves_is_refused() -> None:
    made = mechanisms.key_class(CKO.SECRET_KEY, CKK.AES_XTS)
    assert made.complete({CKA.VALUE: bytes(range(32))})[CKA.VALUE_LEN] == ulong(32)
    with refused(CKR.ATTRIBUTE_VALUE_INVALID):
        made.complete({CKA.VALUE: bytes(range(16)) * 2})


def test_derivation_by_encryption_takes_the_leading_bytes() -> None:
    plaintext = bytes(range(48))
    in_ecb = begin(CKM.AES_ECB, CKF.ENCRYPT, KEY, None).run(plaintext)
    in_cbc = begin(CKM.AES_CBC, CKF.ENCRYPT, KEY, IV).run(plaintext)
    by_ecb, by_cbc = KeyDerivationStringDataParams(plaintext), AesCbcEncryptDataParams(IV, plaintext)
    assert begin(CKM.AES_ECB_ENCRYPT_DATA, CKF.DERIVE, KEY, by_ecb, 20) == in_ecb[:20]
    assert begin(CKM.AES_CBC_ENCRYPT_DATA, CKF.DERIVE, KEY, by_cbc, None) == in_cbc
    with refused(CKR.DATA_LEN_RANGE):
        begin(CKM.AES_CBC_ENCRYPT_DATA, CKF.DERIVE, KEY, by_cbc, 49)
    for wrong in (KeyDerivationStringDataParams(b""), KeyDerivationStringDataParams(bytes(17)), None):
        with refused(CKR.MECHANISM_PARAM_INVALID):
            begin(CKM.AES_ECB_ENCRYPT_DATA, CKF.DERIVE, KEY, wrong, 16)


@pytest.mark.parametrize("length", [16, 24, 32])
def test_generated_keys_have_the_length_asked_for(length: int) -> None:
    made = begin(CKM.AES_KEY_GEN, CKF.GENERATE, None, {CKA.VALUE_LEN: ulong(length)})
    assert len(made[CKA.VALUE]) == length
    assert made[CKA.KEY_TYPE] == ulong(CKK.AES)
    assert made[CKA.VALUE_LEN] == ulong(length)
    assert made[CKA.VALUE] != begin(CKM.AES_KEY_GEN, CKF.GENERATE, None, {CKA.VALUE_LEN: ulong(length)})[CKA.VALUE]


def test_generation_refuses_what_contradicts_it() -> None:
    with refused(CKR.TEMPLATE_INCOMPLETE):
        begin(CKM.AES_KEY_GEN, CKF.GENERATE, None, {})
    with refused(CKR.ATTRIBUTE_VALUE_INVALID):
        begin(CKM.AES_KEY_GEN, CKF.GENERATE, None, {CKA.VALUE_LEN: ulong(20)})
    with refused(CKR.TEMPLATE_INCONSISTENT):
        begin(CKM.AES_KEY_GEN, CKF.GENERATE, None, {CKA.VALUE_LEN: ulong(16), CKA.KEY_TYPE: ulong(CKK.DES3)})
    with refused(CKR.MECHANISM_PARAM_INVALID):
        begin(CKM.AES_KEY_GEN, CKF.GENERATE, IV, {CKA.VALUE_LEN: ulong(16)})


def test_created_keys_are_completed() -> None:
    made = mechanisms.key_class(CKO.SECRET_KEY, CKK.AES)
    assert made.complete({CKA.VALUE: bytes(24)}) == {CKA.VALUE: bytes(24), CKA.VALUE_LEN: ulong(24)}
    with refused(CKR.ATTRIBUTE_VALUE_INVALID):
        made.complete({CKA.VALUE: bytes(20)})
    with refused(CKR.TEMPLATE_INCONSISTENT):
        made.complete({CKA.VALUE: bytes(24), CKA.VALUE_LEN: ulong(16)})
    with refused(CKR.TEMPLATE_INCOMPLETE):
        made.complete({})


def test_check_value_is_of_an_encrypted_zero_block() -> None:
    """FIPS 197's all-zero case, as in GFSbox: AES-128 of zeros under the zero key begins 66E94B."""
    assert mechanisms.check_value(secret_key(bytes(16)).attributes) == bytes.fromhex("66E94B")
