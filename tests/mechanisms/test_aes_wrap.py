"""AES key wrap against NIST's known answers, and wrapping by the modes that encrypt (P15)."""

from __future__ import annotations

import pytest

from keyfob import mechanisms
from keyfob.spec.constants import CKF, CKK, CKM, CKR
from tests.mechanisms.symmetric_vectors import begin, data, records, refused, sample, secret_key

SIZES = (128, 192, 256)
KEY = secret_key(bytes(range(32)))
IV = bytes(range(16))
KW_VALUE = bytes.fromhex("A6A6A6A6A6A6A6A6")
KWP_VALUE = bytes.fromhex("A65959A6")
KINDS = {"KW": (CKM.AES_KEY_WRAP, KW_VALUE), "KWP": (CKM.AES_KEY_WRAP_KWP, KWP_VALUE)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_wrapping_gives_the_known_answers(kind: str, size: int) -> None:
    mechanism, initial_value = KINDS[kind]
    for record in sample(records(f"keywrap/kwtestvectors/{kind}_AE_{size}.txt"), 40):
        value, plain, wrapped = data(record, "K", "P", "C")
        key = secret_key(value)
        for parameter in (None, b"", initial_value):
            operation = begin(mechanism, CKF.ENCRYPT, key, parameter)
            assert operation.size(len(plain)) == len(wrapped)
            assert operation.run(plain) == wrapped
        assert begin(mechanism, CKF.WRAP, key, None).wrap(plain) == wrapped


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_unwrapping_gives_the_known_answers_and_refuses_the_forged_ones(kind: str, size: int) -> None:
    mechanism, initial_value = KINDS[kind]
    forged = 0
    for record in sample(records(f"keywrap/kwtestvectors/{kind}_AD_{size}.txt"), 40):
        value, wrapped = data(record, "K", "C")
        key = secret_key(value)
        if "FAIL" in record:
            forged += 1
            with refused(CKR.ENCRYPTED_DATA_INVALID):
                begin(mechanism, CKF.DECRYPT, key, initial_value).run(wrapped)
            with refused(CKR.WRAPPED_KEY_INVALID):
                begin(mechanism, CKF.UNWRAP, key, None).unwrap(wrapped)
        else:
            (plain,) = data(record, "P")
            assert begin(mechanism, CKF.DECRYPT, key, None).run(wrapped) == plain
            assert begin(mechanism, CKF.UNWRAP, key, initial_value).unwrap(wrapped) == plain
    assert forged


def test_rfc_5649_examples() -> None:
    for record in records("keywrap/kwp_botan.txt"):
        value, plain, wrapped = data(record, "KEY", "INPUT", "OUTPUT")
        key = secret_key(value)
        assert begin(CKM.AES_KEY_WRAP_KWP, CKF.ENCRYPT, key, None).run(plain) == wrapped
        assert begin(CKM.AES_KEY_WRAP_KWP, CKF.DECRYPT, key, None).run(wrapped) == plain


@pytest.mark.parametrize("mechanism", [CKM.AES_KEY_WRAP, CKM.AES_KEY_WRAP_KWP, CKM.AES_KEY_WRAP_PKCS7])
def test_an_initial_value_of_ones_own_must_be_known_to_unwrap(mechanism: int) -> None:
    own = b"\x01" * (4 if mechanism == CKM.AES_KEY_WRAP_KWP else 8)
    wrapped = begin(mechanism, CKF.ENCRYPT, KEY, own).run(bytes(24))
    assert begin(mechanism, CKF.DECRYPT, KEY, own).run(wrapped) == bytes(24)
    with refused(CKR.ENCRYPTED_DATA_INVALID):
        begin(mechanism, CKF.DECRYPT, KEY, None).run(wrapped)
    with refused(CKR.MECHANISM_PARAM_INVALID):
        begin(mechanism, CKF.ENCRYPT, KEY, b"\x01" * 5)


def test_key_wrap_encrypts_whole_semiblocks_only() -> None:
    for length in (0, 8, 17):
        with refused(CKR.DATA_LEN_RANGE):
            begin(CKM.AES_KEY_WRAP, CKF.ENCRYPT, KEY, None).run(bytes(length))
        with refused(CKR.ENCRYPTED_DATA_LEN_RANGE):
            begin(CKM.AES_KEY_WRAP, CKF.DECRYPT, KEY, None).run(bytes(length))


def test_key_wrap_fills_a_key_up_with_zeros() -> None:
    """Section 6.16: a secret key whose length is no multiple of 8 is zero padded when wrapped."""
    wrapper = begin(CKM.AES_KEY_WRAP, CKF.WRAP, KEY, None)
    wrapped = wrapper.wrap(b"k" * 21)
    assert len(wrapped) == wrapper.size(21) == 32
    unwrapper = begin(CKM.AES_KEY_WRAP, CKF.UNWRAP, KEY, None)
    assert unwrapper.unwrap(wrapped) == b"k" * 21 + bytes(3)
    assert unwrapper.unwrap(wrapped, 21) == b"k" * 21
    with refused(CKR.KEY_SIZE_RANGE):
        begin(CKM.AES_KEY_WRAP, CKF.WRAP, KEY, None).wrap(b"k" * 8)
    with refused(CKR.WRAPPED_KEY_LEN_RANGE):
        begin(CKM.AES_KEY_WRAP, CKF.UNWRAP, KEY, None).unwrap(wrapped[:-1])


@pytest.mark.parametrize("length", [8, 9, 15, 16, 17, 1218])
def test_key_wrap_with_pkcs7_padding_is_key_wrap_of_padded_data(length: int) -> None:
    plain = bytes(i % 256 for i in range(length))
    missing = 8 - length % 8
    expected = begin(CKM.AES_KEY_WRAP, CKF.ENCRYPT, KEY, None).run(plain + bytes((missing,)) * missing)
    for mechanism in (CKM.AES_KEY_WRAP_PKCS7, CKM.AES_KEY_WRAP_PAD, CKM.NSS_AES_KEY_WRAP_PAD):
        operation = begin(mechanism, CKF.ENCRYPT, KEY, None)
        assert operation.run(plain) == expected
        assert operation.size(length) == len(expected)
        assert begin(mechanism, CKF.UNWRAP, KEY, None).unwrap(expected) == plain


@pytest.mark.parametrize("last", [b"\x00" * 8, b"\x09" * 8, b"\x01\x02" * 4 + b"", b"\x03" * 6 + b"\x02\x03"])
def test_wrong_padding_inside_key_wrap_is_refused(last: bytes) -> None:
    wrapped = begin(CKM.AES_KEY_WRAP, CKF.ENCRYPT, KEY, None).run(bytes(16) + last)
    with refused(CKR.ENCRYPTED_DATA_INVALID):
        begin(CKM.AES_KEY_WRAP_PKCS7, CKF.DECRYPT, KEY, None).run(wrapped)


@pytest.mark.parametrize(
    ("length", "padded"),
    [(0, bytes(16)), (8, bytes(16)), (17, bytes(16)), (2**32 - 1, bytes(16)), (15, bytes(15) + b"\x01")],
)
def test_a_wrong_length_or_padding_inside_kwp_is_refused(length: int, padded: bytes) -> None:
    """Forged with the right key: KW's initial value is chosen to be KWP's, with a length that is not true."""
    first = KWP_VALUE + length.to_bytes(4, "big")
    wrapped = begin(CKM.AES_KEY_WRAP, CKF.ENCRYPT, KEY, first).run(padded)
    for parameter in (None, KWP_VALUE):
        with refused(CKR.ENCRYPTED_DATA_INVALID):
            begin(CKM.AES_KEY_WRAP_KWP, CKF.DECRYPT, KEY, parameter).run(wrapped)


def test_key_wrap_works_in_one_part_only() -> None:
    for mechanism in (CKM.AES_KEY_WRAP, CKM.AES_KEY_WRAP_PKCS7, CKM.AES_KEY_WRAP_KWP):
        with refused(CKR.FUNCTION_NOT_SUPPORTED):
            begin(mechanism, CKF.ENCRYPT, KEY, None).update(bytes(16))


@pytest.mark.parametrize(("mechanism", "parameter"), [(CKM.AES_ECB, None), (CKM.AES_CBC, IV)])
def test_modes_without_padding_fill_a_key_up_with_zeros(mechanism: int, parameter: bytes | None) -> None:
    wrapper = begin(mechanism, CKF.WRAP, KEY, parameter)
    wrapped = wrapper.wrap(b"k" * 20)
    assert len(wrapped) == wrapper.size(20) == 32
    unwrapper = begin(mechanism, CKF.UNWRAP, KEY, parameter)
    assert unwrapper.unwrap(wrapped) == b"k" * 20 + bytes(12)
    assert begin(mechanism, CKF.UNWRAP, KEY, parameter).unwrap(wrapped, 20) == b"k" * 20


@pytest.mark.parametrize(("mechanism", "parameter"), [(CKM.AES_ECB, None), (CKM.AES_CBC, IV), (CKM.AES_KEY_WRAP, None)])
def test_unwrapping_cuts_off_the_zeros_that_filled_a_key_up_and_no_part_of_the_key(
    mechanism: int, parameter: bytes | None
) -> None:
    """Cut to one byte a key would tell that byte, by trying."""
    wrapped = begin(mechanism, CKF.WRAP, KEY, parameter).wrap(b"k" * 32)
    whole = begin(mechanism, CKF.WRAP, KEY, parameter).wrap(b"k" * 16 + bytes(16))
    for length in (1, 14, 31):
        assert begin(mechanism, CKF.UNWRAP, KEY, parameter).unwrap(wrapped, length) == b"k" * 32
    assert begin(mechanism, CKF.UNWRAP, KEY, parameter).unwrap(whole, 16) == b"k" * 16 + bytes(16)


@pytest.mark.parametrize("length", [16, 24, 32])
@pytest.mark.parametrize("mechanism", [CKM.AES_CBC_PAD, CKM.AES_KEY_WRAP_KWP])
def test_a_generic_secret_of_an_aes_length_wraps_as_an_aes_key(mechanism: int, length: int) -> None:
    """P15: NSS's pk12util exports with a wrapping key of type CKK_GENERIC_SECRET."""
    assert CKK.GENERIC_SECRET in mechanisms.lookup(mechanism).key_types
    value = bytes(range(length))
    parameter = IV if mechanism == CKM.AES_CBC_PAD else None
    wrapped = begin(mechanism, CKF.WRAP, secret_key(value, CKK.GENERIC_SECRET), parameter).wrap(b"k" * 1217)
    assert begin(mechanism, CKF.UNWRAP, secret_key(value), parameter).unwrap(wrapped) == b"k" * 1217


def test_a_generic_secret_of_another_length_is_refused_as_a_wrapping_key() -> None:
    key = secret_key(bytes(20), CKK.GENERIC_SECRET)
    for flag, code in (
        (CKF.ENCRYPT, CKR.KEY_SIZE_RANGE),
        (CKF.WRAP, CKR.WRAPPING_KEY_SIZE_RANGE),
        (CKF.UNWRAP, CKR.UNWRAPPING_KEY_SIZE_RANGE),
    ):
        with refused(code):
            begin(CKM.AES_CBC_PAD, flag, key, IV)
        with refused(code):
            begin(CKM.AES_KEY_WRAP, flag, key, None)


def test_a_wrapped_key_of_wrong_padding_or_length_is_refused() -> None:
    with refused(CKR.WRAPPED_KEY_INVALID):
        begin(CKM.AES_CBC_PAD, CKF.UNWRAP, KEY, IV).unwrap(begin(CKM.AES_CBC, CKF.ENCRYPT, KEY, IV).run(bytes(16)))
    with refused(CKR.WRAPPED_KEY_LEN_RANGE):
        begin(CKM.AES_CBC_PAD, CKF.UNWRAP, KEY, IV).unwrap(bytes(15))
