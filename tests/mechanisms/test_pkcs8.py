"""PrivateKeyInfo: the library's serialization as the other side, real files, and what is refused."""

from __future__ import annotations

from base64 import b64decode
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from keyfob.mechanisms import der, pkcs8, rsa_keys
from keyfob.mechanisms.curves import ED448, ED25519, WEIERSTRASS, X448, X25519
from keyfob.spec.constants import CKA, CKK, CKM, CKO, CKR
from tests.mechanisms.asymmetric_vectors import KEYS, generated, private_key, rv_of, ulong, vector_file

if TYPE_CHECKING:
    from keyfob.mechanisms.base import Attributes

NSS_CURVE25519 = bytes.fromhex("06092b06010401da470f01")
CURVE_KEYS: dict[str, tuple[int, int, bytes]] = {
    **{curve.name: (CKM.EC_KEY_PAIR_GEN, CKK.EC, curve.params) for curve in WEIERSTRASS},
    "Ed25519": (CKM.EC_EDWARDS_KEY_PAIR_GEN, CKK.EC_EDWARDS, ED25519.params),
    "Ed448": (CKM.EC_EDWARDS_KEY_PAIR_GEN, CKK.EC_EDWARDS, ED448.params),
    "X25519": (CKM.EC_MONTGOMERY_KEY_PAIR_GEN, CKK.EC_MONTGOMERY, X25519.params),
    "X448": (CKM.EC_MONTGOMERY_KEY_PAIR_GEN, CKK.EC_MONTGOMERY, X448.params),
}


@cache
def key(name: str) -> Any:
    if name == "RSA":
        return generated(CKM.RSA_PKCS_KEY_PAIR_GEN, CKK.RSA, {CKA.MODULUS_BITS: ulong(2048)})[1]
    mechanism, key_type, params = CURVE_KEYS[name]
    return generated(mechanism, key_type, {CKA.EC_PARAMS: params})[1]


NAMES = ["RSA", *CURVE_KEYS]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_what_the_library_writes(name: str) -> None:
    info = pkcs8.private_key_info(key(name).attributes)
    loaded = load_der_private_key(info, None)
    assert info == loaded.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name: str) -> None:
    """Components, CKA_KEY_TYPE and CKA_PUBLIC_KEY_INFO come back; completing them again changes nothing."""
    original = key(name).attributes
    attributes = pkcs8.attributes_from_private_key_info(pkcs8.private_key_info(original))
    assert {a: bytes(v) for a, v in attributes.items()} == {a: v for a, v in original.items() if a != CKA.CLASS}
    key_type = int.from_bytes(attributes[CKA.KEY_TYPE], "little")
    again = KEYS[CKO.PRIVATE_KEY, key_type].complete(attributes)
    assert all(attributes[a] == value for a, value in again.items())
    assert not any(isinstance(value, rsa_keys.CheckedExponent) for value in again.values())


def test_curve25519_as_nss_has_it_round_trips() -> None:
    private = generated(CKM.EC_KEY_PAIR_GEN, CKK.EC, {CKA.EC_PARAMS: NSS_CURVE25519})[1]
    attributes = pkcs8.attributes_from_private_key_info(pkcs8.private_key_info(private.attributes))
    assert attributes[CKA.EC_PARAMS] == NSS_CURVE25519
    assert attributes[CKA.KEY_TYPE] == ulong(CKK.EC)
    assert attributes[CKA.VALUE] == private.attributes[CKA.VALUE]


def test_other_names_of_25519_are_written_as_rfc_8410_does() -> None:
    private = generated(CKM.EC_MONTGOMERY_KEY_PAIR_GEN, CKK.EC_MONTGOMERY, {CKA.EC_PARAMS: NSS_CURVE25519})[1]
    attributes = pkcs8.attributes_from_private_key_info(pkcs8.private_key_info(private.attributes))
    assert attributes[CKA.EC_PARAMS] == X25519.params


@pytest.mark.parametrize(
    ("name", "key_type"),
    [
        ("PKCS8/unenc-rsa-pkcs8.pem", CKK.RSA),
        ("PKCS8/ec-consistent-curve.pem", CKK.EC),
        ("PKCS8/ec_private_key.pem", CKK.EC),
        ("PKCS8/ecc_private_with_rfc5915_ext.pem", CKK.EC),
        ("Ed25519/ed25519-pkcs8.pem", CKK.EC_EDWARDS),
        ("Ed448/ed448-pkcs8.pem", CKK.EC_EDWARDS),
        ("X25519/x25519-pkcs8.pem", CKK.EC_MONTGOMERY),
        ("X448/x448-pkcs8.pem", CKK.EC_MONTGOMERY),
    ],
)
def test_files_of_other_programs(name: str, key_type: int) -> None:
    info = pem_content(name)
    attributes = pkcs8.attributes_from_private_key_info(info)
    assert attributes[CKA.KEY_TYPE] == ulong(key_type)
    ours = load_der_private_key(pkcs8.private_key_info(attributes), None)
    theirs = load_der_private_key(info, None)
    for loaded in (ours, theirs):
        assert loaded.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) == pkcs8.private_key_info(
            attributes
        )


def pem_content(name: str) -> bytes:
    lines = vector_file(name).read_text().splitlines()
    start = lines.index("-----BEGIN PRIVATE KEY-----")
    return b64decode("".join(lines[start + 1 : lines.index("-----END PRIVATE KEY-----")]))


@pytest.mark.parametrize(
    "name",
    [
        "PKCS8/ec-inconsistent-curve.pem",
        "PKCS8/ec-inconsistent-curve2.pem",
        "PKCS8/ec-invalid-private-scalar.pem",
        "PKCS8/ec-invalid-version.pem",
        "PKCS8/unenc-dsa-pkcs8.pem",
        "PKCS8/rsa_pss_2048.pem",
        "PKCS8/private.pem",  # explicit curve parameters
    ],
)
def test_bad_files_of_other_programs_are_refused(name: str) -> None:
    assert rv_of(pkcs8.attributes_from_private_key_info, pem_content(name)) == CKR.WRAPPED_KEY_INVALID


@pytest.mark.parametrize("name", ["RSA", "secp256r1", "Ed25519"])
def test_damage_is_refused(name: str) -> None:
    """Every cut, and a flipped bit in each byte of what goes before the key."""
    info = pkcs8.private_key_info(key(name).attributes)
    step = 37 if name == "RSA" else 1
    for length in range(0, len(info), step):
        assert rv_of(pkcs8.attributes_from_private_key_info, info[:length]) == CKR.WRAPPED_KEY_INVALID
    for position in range(16):
        changed = bytearray(info)
        changed[position] ^= 0x40
        assert rv_of(pkcs8.attributes_from_private_key_info, bytes(changed)) == CKR.WRAPPED_KEY_INVALID
    assert rv_of(pkcs8.attributes_from_private_key_info, info + b"\1") == CKR.WRAPPED_KEY_INVALID
    assert pkcs8.attributes_from_private_key_info(info + bytes(7))
    assert rv_of(pkcs8.attributes_from_private_key_info, b"") == CKR.WRAPPED_KEY_INVALID


def test_wrong_components_are_refused() -> None:
    rsa = dict(key("RSA").attributes)
    rsa[CKA.EXPONENT_1] = rsa[CKA.EXPONENT_2]
    assert rv_of(pkcs8.attributes_from_private_key_info, pkcs8.private_key_info(rsa)) == CKR.WRAPPED_KEY_INVALID
    ec = dict(key("secp256r1").attributes)
    ec[CKA.VALUE] = b"\7" * 32
    assert rv_of(pkcs8.attributes_from_private_key_info, pkcs8.private_key_info(ec)) == CKR.WRAPPED_KEY_INVALID


def test_algorithm_parameters_out_of_place_are_refused() -> None:
    for name, oid in (("RSA", pkcs8.RSA_OID), ("Ed25519", ED25519.params)):
        reader = der.Reader(der.Reader(pkcs8.private_key_info(key(name).attributes)).read(der.SEQUENCE))
        version, _, private = reader.read_whole(2), reader.read(der.SEQUENCE), reader.read_whole(der.OCTET_STRING)
        for parameters, good in ((b"", True), (der.element(der.NULL), True), (ED448.params, False)):
            algorithm = der.element(der.SEQUENCE, oid, parameters)
            info = der.element(der.SEQUENCE, version, algorithm, private)
            if good:
                assert pkcs8.attributes_from_private_key_info(info)
            else:
                assert rv_of(pkcs8.attributes_from_private_key_info, info) == CKR.WRAPPED_KEY_INVALID


def test_rfc_5958_extras_are_tolerated() -> None:
    """Attributes and the public key after the private one (version 1)."""
    info = pkcs8.private_key_info(key("Ed25519").attributes)
    content = der.Reader(info).read(der.SEQUENCE)
    extended = der.element(
        der.SEQUENCE, b"\2\1\1" + content[3:], der.element(der.CONTEXT_0), der.element(0x81, b"\0" + bytes(32))
    )
    assert pkcs8.attributes_from_private_key_info(extended)[CKA.VALUE] == key("Ed25519").attributes[CKA.VALUE]


def test_a_key_of_another_type_is_not_wrappable() -> None:
    attributes: Attributes = {CKA.KEY_TYPE: ulong(CKK.DSA), CKA.VALUE: b"\1"}
    assert rv_of(pkcs8.private_key_info, attributes) == CKR.KEY_NOT_WRAPPABLE


def test_an_imported_key_is_not_checked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The primes were tested when the PrivateKeyInfo was read: completing the object does not test them again."""
    attributes = pkcs8.attributes_from_private_key_info(pkcs8.private_key_info(key("RSA").attributes))

    def fail(*_arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(rsa_keys, "_derived_and_checked", fail)
    assert private_key(CKK.RSA, attributes).attributes[CKA.MODULUS] == key("RSA").attributes[CKA.MODULUS]
    plain = {a: bytes(v) for a, v in attributes.items()}
    with pytest.raises(AssertionError):
        private_key(CKK.RSA, plain)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 255, 256, 2**64 - 1])
def test_der_integers(number: int) -> None:
    assert der.Reader(der.integer(number)).read_integer() == number


@pytest.mark.parametrize(
    "bad", ["0200", "020180", "02020001", "028101ff", "0280", "02", "0205ff", "03020180", "0282000101"]
)
def test_bad_der_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        der.Reader(bytes.fromhex(bad)).read_integer()


@pytest.mark.parametrize("length", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_der_lengths(length: int) -> None:
    content = b"x" * length
    reader = der.Reader(der.element(der.OCTET_STRING, content))
    assert reader.read(der.OCTET_STRING) == content
    reader.finish()


def test_dotted_oids() -> None:
    assert der.object_identifier("1.2.840.10045.3.1.7") == bytes.fromhex("06082a8648ce3d030107")
    assert der.object_identifier("1.3.6.1.4.1.11591.15.1") == NSS_CURVE25519
