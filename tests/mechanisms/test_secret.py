"""Generic secrets, PBKDF2, HKDF and the derivations of section 6.43."""

from __future__ import annotations

import pytest

from keyfob import mechanisms
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKP, CKR, CKZ
from keyfob.spec.parameters import HkdfParams, KeyDerivationStringDataParams, Pkcs5Pbkd2Params
from tests.mechanisms.symmetric_vectors import begin, data, records, refused, secret_key, ulong

# The examples of section 6.43 all start from one of these.
BASE = secret_key(bytes.fromhex("01234567"), CKK.GENERIC_SECRET)
DATA = KeyDerivationStringDataParams(bytes.fromhex("89ABCDEF"))


def pbkdf2(
    password: bytes = b"password",
    salt: bytes = b"salt",
    *,
    iterations: int = 1,
    prf: int = CKP.PKCS5_PBKD2_HMAC_SHA1,
    source: int = CKZ.SALT_SPECIFIED,
    prf_data: bytes = b"",
) -> Pkcs5Pbkd2Params:
    return Pkcs5Pbkd2Params(source, salt, iterations, prf, prf_data, password)


def template(key_type: int, length: int | None = None) -> dict[int, bytes]:
    asked = {CKA.KEY_TYPE: ulong(key_type)}
    return asked if length is None else {**asked, CKA.VALUE_LEN: ulong(length)}


def test_pbkdf2_gives_rfc_6070s_answers() -> None:
    for record in records("KDF/rfc-6070-PBKDF2-SHA1.txt"):
        if int(record["ITERATIONS"]) > 100_000:
            continue
        password, salt = (record[name].encode().decode("unicode_escape").encode() for name in ("PASSWORD", "SALT"))
        made = begin(
            CKM.PKCS5_PBKD2,
            CKF.GENERATE,
            pbkdf2(password, salt, iterations=int(record["ITERATIONS"])),
            template(CKK.GENERIC_SECRET, int(record["LENGTH"])),
        )
        assert made[CKA.VALUE] == data(record, "DERIVED_KEY")[0]
        assert made[CKA.KEY_TYPE] == ulong(CKK.GENERIC_SECRET)


# Of "password" and "salt" with one iteration, by `openssl kdf -kdfopt digest:... PBKDF2` of OpenSSL 3.0.
PRFS = {
    CKP.PKCS5_PBKD2_HMAC_SHA224: "3c198cbdb9464b7857966bd05b7bc92bc1cc4e6e63155d4e490557fd85989497",
    CKP.PKCS5_PBKD2_HMAC_SHA256: "120fb6cffcf8b32c43e7225256c4f837a86548c92ccc35480805987cb70be17b",
    CKP.PKCS5_PBKD2_HMAC_SHA384: "c0e14f06e49e32d73f9f52ddf1d0c5c7191609233631dadd76a567db42b78676",
    CKP.PKCS5_PBKD2_HMAC_SHA512_224: "b34ab626276a61ce19d2ecb4c7e15f8198a2989abd74ade61cd6b117812ff423",
    CKP.PKCS5_PBKD2_HMAC_SHA512_256: "4b6a63117d3ec0032624616082c1c1912f56fa5f0c1f94574d515e20e5ddd74a",
    CKP.PKCS5_PBKD2_HMAC_SHA512: "867f70cf1ade02cff3752599a3a53dc4af34c7a669815ae5d513554e1c8cf252",
}


@pytest.mark.parametrize("prf", PRFS)
def test_pbkdf2_takes_the_hash_that_is_named(prf: int) -> None:
    made = begin(CKM.PKCS5_PBKD2, CKF.GENERATE, pbkdf2(prf=prf), template(CKK.AES, 32))
    assert made[CKA.VALUE].hex() == PRFS[prf]
    assert made[CKA.VALUE_LEN] == ulong(32)


def test_pbkdf2_makes_keys_as_nss_asks_for_them() -> None:
    """Section 3.13, step 1; of a DES3 key the parity is put right."""
    asked = {**template(CKK.AES, 32), CKA.ENCRYPT: b"\x01", CKA.UNWRAP: b"\x01"}
    assert len(begin(CKM.PKCS5_PBKD2, CKF.GENERATE, pbkdf2(), asked)[CKA.VALUE]) == 32
    made = begin(CKM.PKCS5_PBKD2, CKF.GENERATE, pbkdf2(), template(CKK.DES3))
    assert len(made[CKA.VALUE]) == 24
    assert all(byte.bit_count() % 2 for byte in made[CKA.VALUE])
    assert begin(CKM.PKCS5_PBKD2, CKF.GENERATE, pbkdf2(), template(CKK.DES3, 24)) == made


def test_pbkdf2_refuses_what_it_cannot_make() -> None:
    for asked, code in (
        ({}, CKR.TEMPLATE_INCOMPLETE),
        (template(CKK.AES), CKR.TEMPLATE_INCOMPLETE),
        (template(CKK.AES, 20), CKR.ATTRIBUTE_VALUE_INVALID),
        (template(CKK.DES3, 32), CKR.ATTRIBUTE_VALUE_INVALID),
        (template(CKK.RSA, 32), CKR.TEMPLATE_INCONSISTENT),
    ):
        with refused(code):
            begin(CKM.PKCS5_PBKD2, CKF.GENERATE, pbkdf2(), asked)


@pytest.mark.parametrize(
    "parameter",
    [pbkdf2(iterations=0), pbkdf2(iterations=2**32), pbkdf2(prf=99), pbkdf2(source=2), pbkdf2(prf_data=b"x"), None],
)
def test_a_wrong_pbkdf2_parameter_is_refused(parameter: object) -> None:
    with refused(CKR.MECHANISM_PARAM_INVALID):
        begin(CKM.PKCS5_PBKD2, CKF.GENERATE, parameter, template(CKK.AES, 16))


def hkdf(
    salt: bytes | None,
    info: bytes = b"",
    *,
    extract: bool = True,
    expand: bool = True,
    prf: int = CKM.SHA256,
    salt_type: int | None = None,
) -> HkdfParams:
    default = CKF.HKDF_SALT_NULL if salt is None else CKF.HKDF_SALT_DATA
    return HkdfParams(extract, expand, prf, default if salt_type is None else salt_type, salt or b"", 0, info)


@pytest.mark.parametrize(
    ("path", "prf"),
    [
        ("rfc-5869-HKDF-SHA1", CKM.SHA_1),
        ("rfc-5869-HKDF-SHA256", CKM.SHA256),
        ("hkdf-generated", CKM.SHA256),
    ],
)
def test_hkdf_gives_the_known_answers(path: str, prf: int) -> None:
    for record in records(f"KDF/{path}.txt"):
        secret, salt, info, output = data(record, "IKM", "SALT", "INFO", "OKM")
        key = secret_key(secret, CKK.HKDF)
        for parameter in (hkdf(salt, info, prf=prf), *([hkdf(None, info, prf=prf)] if not salt else ())):
            assert begin(CKM.HKDF_DERIVE, CKF.DERIVE, key, parameter, int(record["L"])) == output
            assert begin(CKM.HKDF_DATA, CKF.DERIVE, key, parameter, int(record["L"])) == output
        by_hmac = hkdf(salt, info, prf={CKM.SHA_1: CKM.SHA_1_HMAC, CKM.SHA256: CKM.SHA256_HMAC}[prf])  # as Java does
        assert begin(CKM.HKDF_DERIVE, CKF.DERIVE, key, by_hmac, int(record["L"])) == output
        if "PRK" in record:
            (extracted,) = data(record, "PRK")
            only_extract = hkdf(salt, b"ignored", expand=False, prf=prf)
            assert begin(CKM.HKDF_DERIVE, CKF.DERIVE, key, only_extract, None) == extracted
            assert begin(CKM.HKDF_DERIVE, CKF.DERIVE, key, only_extract, len(extracted)) == extracted
            only_expand = hkdf(b"ignored", info, extract=False, prf=prf)
            base = secret_key(extracted, CKK.GENERIC_SECRET)
            assert begin(CKM.HKDF_DERIVE, CKF.DERIVE, base, only_expand, int(record["L"])) == output


@pytest.mark.parametrize(
    "parameter",
    [
        hkdf(b"s", extract=False, expand=False),
        hkdf(b"s", prf=CKM.AES_ECB),
        hkdf(b"s", salt_type=3),
        hkdf(b"s", salt_type=0),
        None,
    ],
)
def test_a_wrong_hkdf_parameter_is_refused(parameter: object) -> None:
    with refused(CKR.MECHANISM_PARAM_INVALID):
        begin(CKM.HKDF_DERIVE, CKF.DERIVE, BASE, parameter, 16)


def test_hkdf_refuses_lengths_it_cannot_give() -> None:
    for length in (0, 255 * 32 + 1):
        with refused(CKR.KEY_SIZE_RANGE):
            begin(CKM.HKDF_DERIVE, CKF.DERIVE, BASE, hkdf(b"s"), length)
    with refused(CKR.KEY_SIZE_RANGE):
        begin(CKM.HKDF_DERIVE, CKF.DERIVE, BASE, hkdf(b"s", expand=False), 16)
    with refused(CKR.TEMPLATE_INCOMPLETE):
        begin(CKM.HKDF_DERIVE, CKF.DERIVE, BASE, hkdf(b"s"), None)


@pytest.mark.parametrize(
    ("mechanism", "expected"),
    [
        (CKM.CONCATENATE_BASE_AND_DATA, "0123456789ABCDEF"),
        (CKM.CONCATENATE_DATA_AND_BASE, "89ABCDEF01234567"),
        (CKM.XOR_BASE_AND_DATA, "88888888"),
    ],
)
def test_the_standards_examples_of_simple_derivation(mechanism: int, expected: str) -> None:
    whole = bytes.fromhex(expected)
    assert begin(mechanism, CKF.DERIVE, BASE, DATA, None) == whole
    assert begin(mechanism, CKF.DERIVE, BASE, DATA, 3) == whole[:3]
    with refused(CKR.KEY_SIZE_RANGE):
        begin(mechanism, CKF.DERIVE, BASE, DATA, len(whole) + 1)
    with refused(CKR.MECHANISM_PARAM_INVALID):
        begin(mechanism, CKF.DERIVE, BASE, b"raw", None)


def test_xor_is_as_long_as_the_shorter() -> None:
    longer = KeyDerivationStringDataParams(bytes(8))
    assert begin(CKM.XOR_BASE_AND_DATA, CKF.DERIVE, BASE, longer, None) == bytes.fromhex("01234567")


def test_the_standards_example_of_extraction() -> None:
    key = secret_key(bytes.fromhex("329F84A9"), CKK.GENERIC_SECRET)
    assert begin(CKM.EXTRACT_KEY_FROM_KEY, CKF.DERIVE, key, ulong(21), 2).hex() == "9526"
    assert begin(CKM.EXTRACT_KEY_FROM_KEY, CKF.DERIVE, key, ulong(0), 4).hex() == "329f84a9"
    assert begin(CKM.EXTRACT_KEY_FROM_KEY, CKF.DERIVE, key, ulong(31), 4).hex() == "994fc254"
    with refused(CKR.KEY_SIZE_RANGE):
        begin(CKM.EXTRACT_KEY_FROM_KEY, CKF.DERIVE, key, ulong(0), 5)
    with refused(CKR.TEMPLATE_INCOMPLETE):
        begin(CKM.EXTRACT_KEY_FROM_KEY, CKF.DERIVE, key, ulong(0), None)
    for wrong in (ulong(32), b"\x05", None):
        with refused(CKR.MECHANISM_PARAM_INVALID):
            begin(CKM.EXTRACT_KEY_FROM_KEY, CKF.DERIVE, key, wrong, 2)


@pytest.mark.parametrize(
    ("mechanism", "key_type"),
    [(CKM.GENERIC_SECRET_KEY_GEN, CKK.GENERIC_SECRET), (CKM.HKDF_KEY_GEN, CKK.HKDF)],
)
def test_secrets_are_generated(mechanism: int, key_type: int) -> None:
    made = begin(mechanism, CKF.GENERATE, None, {CKA.VALUE_LEN: ulong(33)})
    assert len(made[CKA.VALUE]) == 33
    assert made[CKA.KEY_TYPE] == ulong(key_type)
    with refused(CKR.TEMPLATE_INCOMPLETE):
        begin(mechanism, CKF.GENERATE, None, {})
    for length in (0, 65537, 2**64 - 1):
        with refused(CKR.ATTRIBUTE_VALUE_INVALID):
            begin(mechanism, CKF.GENERATE, None, {CKA.VALUE_LEN: ulong(length)})


def test_a_generic_secret_is_completed_and_has_a_check_value() -> None:
    made = mechanisms.key_class(CKO.SECRET_KEY, CKK.GENERIC_SECRET)
    assert made.complete({CKA.VALUE: b"abc"}) == {CKA.VALUE: b"abc", CKA.VALUE_LEN: ulong(3)}
    with refused(CKR.ATTRIBUTE_VALUE_INVALID):
        made.complete({CKA.VALUE: b""})
    key = secret_key(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", CKK.GENERIC_SECRET)
    assert mechanisms.check_value(key.attributes) == bytes.fromhex("84983e")
    assert mechanisms.check_value(secret_key(b"abc", CKK.GENERIC_SECRET).attributes) is None  # it would tell the value


def test_a_key_without_its_value_is_refused() -> None:
    key = mechanisms.load_key({CKA.CLASS: ulong(CKO.SECRET_KEY), CKA.KEY_TYPE: ulong(CKK.GENERIC_SECRET)})
    with refused(CKR.KEY_HANDLE_INVALID):
        begin(CKM.CONCATENATE_BASE_AND_DATA, CKF.DERIVE, key, DATA, None)
