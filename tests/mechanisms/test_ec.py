"""Weierstrass curves: ECDSA known answers of NIST (CAVP), parameters, points, and what is refused."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyfob.mechanisms import der, ec
from keyfob.mechanisms.curves import CURVES, WEIERSTRASS, Curve
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKR
from keyfob.spec.errors import PKCS11Error
from tests.mechanisms.asymmetric_vectors import (
    CURVE_BY_NAME,
    NIST_CURVES,
    ROWS,
    Record,
    ec_pair,
    ec_private,
    ec_public,
    generated,
    hexed,
    operation,
    point,
    private_key,
    public_key,
    records,
    rv_of,
    sample,
)

if TYPE_CHECKING:
    from collections.abc import Callable


P256 = CURVE_BY_NAME["secp256r1"]
MECHANISMS = {
    "SHA-1": CKM.ECDSA_SHA1,
    "SHA-224": CKM.ECDSA_SHA224,
    "SHA-256": CKM.ECDSA_SHA256,
    "SHA-384": CKM.ECDSA_SHA384,
    "SHA-512": CKM.ECDSA_SHA512,
}


def hash_of(name: str, message: bytes) -> bytes:
    return hashlib.new(name.replace("-", ""), message).digest()


def nist_cases(name: str) -> list[tuple[Curve, str, Record]]:
    """(curve, hash, record) of a CAVP file, on the curves that we have."""
    cases = []
    for section, record in records(f"ECDSA/{name}"):
        curve, _, digest = section.partition(",")
        if curve in NIST_CURVES:
            cases.append((NIST_CURVES[curve], digest, record))
    return cases


def signature_of(curve: Curve, record: Record) -> bytes:
    return b"".join(int(record[name], 16).to_bytes(curve.value_size, "big") for name in ("R", "S"))


@pytest.mark.parametrize("name", ["FIPS_186-3/SigGen.txt", "SECP256K1/SigGen.txt"])
def test_nist_signatures_verify(name: str) -> None:
    """60 of each of the files; over the message, in parts, and over the hash."""
    for curve, digest, record in sample(nist_cases(name), 60):
        key = ec_public(curve, record["Qx"], record["Qy"])
        message, signature = hexed(record["Msg"]), signature_of(curve, record)
        operation(MECHANISMS[digest], CKF.VERIFY)(key, None).verify(message, signature)
        operation(CKM.ECDSA, CKF.VERIFY)(key, None).verify(hash_of(digest, message), signature)
        parts = operation(MECHANISMS[digest], CKF.VERIFY)(key, None)
        parts.update(message[:50])
        parts.update(message[50:])
        parts.final(signature)


def test_nist_private_keys_make_the_public_ones() -> None:
    """40 of SigGen's; and what they sign verifies with the public key of the file."""
    for curve, digest, record in sample(nist_cases("FIPS_186-3/SigGen.txt"), 40):
        private = ec_private(curve, record["d"])
        assert private.public_value() == point(curve, record["Qx"], record["Qy"])
        message = hexed(record["Msg"])
        signature = operation(MECHANISMS[digest], CKF.SIGN)(private, None).sign(message)
        assert len(signature) == 2 * curve.value_size
        key = ec_public(curve, record["Qx"], record["Qy"])
        operation(MECHANISMS[digest], CKF.VERIFY)(key, None).verify(message, signature)


def outcome(call: Callable[..., None], *arguments: Any) -> int:
    """The CKR_* that a call ends with."""
    try:
        call(*arguments)
    except PKCS11Error as error:
        return error.rv
    return CKR.OK


def verify_record(curve: Curve, digest: str, record: Record) -> None:
    key = ec_public(curve, record["Qx"], record["Qy"])
    operation(MECHANISMS[digest], CKF.VERIFY)(key, None).verify(hexed(record["Msg"]), signature_of(curve, record))


def test_nist_verification_of_good_and_bad_signatures() -> None:
    """80 of SigVer's."""
    cases = sample(nist_cases("FIPS_186-3/SigVer.rsp"), 80)
    good = [case for case in cases if case[2]["Result"].startswith("P")]
    bad = [case for case in cases if not case[2]["Result"].startswith("P")]
    assert len(good) > 15
    assert len(bad) > 15
    assert {outcome(verify_record, *case) for case in good} == {CKR.OK}
    assert {outcome(verify_record, *case) for case in bad} <= {CKR.SIGNATURE_INVALID, CKR.ATTRIBUTE_VALUE_INVALID}


def test_nist_public_key_validation() -> None:
    """All of PKV's on our curves that fit into a point: those off the curve or out of range are refused."""
    seen = set()
    for curve, _, record in nist_cases("FIPS_186-3/PKV.rsp"):
        if max(int(record[name], 16) for name in ("Qx", "Qy")) < 1 << (8 * (curve.point_size // 2)):
            expected = CKR.OK if record["Result"].startswith("P") else CKR.ATTRIBUTE_VALUE_INVALID
            assert outcome(ec_public, curve, record["Qx"], record["Qy"]) == expected
            seen.add(expected)
    assert len(seen) == 2


def test_compressed_points_are_expanded() -> None:
    cases = [record for _, record in records("EC/compressed_points.txt") if "POINT" in record]
    used = 0
    for record in cases:
        curve = CURVE_BY_NAME.get(record["CURVE"].lower())
        if curve is not None and "X" in record:
            used += 1
            for given in (hexed(record["POINT"]), der.element(der.OCTET_STRING, hexed(record["POINT"]))):
                key = public_key(CKK.EC, {CKA.EC_PARAMS: curve.params, CKA.EC_POINT: given})
                assert key.public_value() == point(curve, record["X"], record["Y"])
    assert used >= 3


@pytest.mark.parametrize("curve", WEIERSTRASS, ids=lambda curve: curve.name)
def test_every_row_signs_what_it_verifies_on_every_curve(curve: Curve) -> None:
    public, private = ec_pair(curve.name)
    for row in ROWS.values():
        if row.key_types == (CKK.EC,) and CKF.SIGN in row.operations:
            signer = row.operations[CKF.SIGN](private, None)
            signature = signer.sign(b"the message")
            assert len(signature) == signer.output_size == 2 * curve.value_size
            row.operations[CKF.VERIFY](public, None).verify(b"the message", signature)
            verify = row.operations[CKF.VERIFY](public, None)
            assert rv_of(verify.verify, b"tHe message", signature) == CKR.SIGNATURE_INVALID


def test_ecdsa_takes_a_hash_of_any_length() -> None:
    """CKM_ECDSA truncates: the leftmost bits of a longer hash are what is signed."""
    public, private = ec_pair()
    for length in (1, 16, 20, 28, 31, 32, 36, 48, 64, 128):
        signature = operation(CKM.ECDSA, CKF.SIGN)(private, None).sign(b"h" * length)
        operation(CKM.ECDSA, CKF.VERIFY)(public, None).verify(b"h" * length, signature)
    signature = operation(CKM.ECDSA, CKF.SIGN)(private, None).sign(b"h" * 64)
    operation(CKM.ECDSA, CKF.VERIFY)(public, None).verify(b"h" * 32, signature)
    for length in (0, 129):
        assert rv_of(operation(CKM.ECDSA, CKF.SIGN)(private, None).sign, b"h" * length) == CKR.DATA_LEN_RANGE
        verify = operation(CKM.ECDSA, CKF.VERIFY)(public, None)
        assert rv_of(verify.verify, b"h" * length, signature) == CKR.DATA_LEN_RANGE


def test_ecdsa_is_single_part_and_hashing_is_not() -> None:
    public, private = ec_pair()
    assert rv_of(operation(CKM.ECDSA, CKF.SIGN)(private, None).update, b"x") == CKR.FUNCTION_NOT_SUPPORTED
    signer = operation(CKM.ECDSA_SHA256, CKF.SIGN)(private, None)
    signer.update(b"in ")
    signer.update(b"parts")
    operation(CKM.ECDSA_SHA256, CKF.VERIFY)(public, None).verify(b"in parts", signer.final())
    signature = operation(CKM.ECDSA_SHA256, CKF.SIGN)(private, None).final()
    operation(CKM.ECDSA_SHA256, CKF.VERIFY)(public, None).final(signature)
    operation(CKM.ECDSA_SHA256, CKF.VERIFY)(public, None).verify(b"", signature)


def test_a_parameter_is_refused() -> None:
    public, private = ec_pair()
    assert rv_of(operation(CKM.ECDSA, CKF.SIGN), private, b"x") == CKR.MECHANISM_PARAM_INVALID
    assert rv_of(operation(CKM.ECDSA_SHA1, CKF.VERIFY), public, b"x") == CKR.MECHANISM_PARAM_INVALID
    template = {CKA.EC_PARAMS: P256.params}
    generate = operation(CKM.EC_KEY_PAIR_GEN, CKF.GENERATE_KEY_PAIR)
    assert rv_of(generate, b"x", template, {}) == CKR.MECHANISM_PARAM_INVALID


@pytest.mark.parametrize("size", [24, 28, 32, 48, 64, 66])
def test_der_signatures_become_raw_ones(size: int) -> None:
    """Short numbers are padded, sign bytes dropped, long outer lengths read; to_der is the way back."""
    numbers = (
        1,
        0x7F,
        0x80,
        0xFF,
        1 << (8 * size - 8),
        (1 << (8 * size - 1)) - 1,
        1 << (8 * size - 1),
        (1 << 8 * size) - 1,
    )
    for r in numbers:
        for s in numbers:
            if size == 66 and max(r, s).bit_length() > 521:
                continue
            raw = r.to_bytes(size, "big") + s.to_bytes(size, "big")
            encoded = encode_dss_signature(r, s)
            assert ec.to_raw(encoded, size) == raw
            assert ec.to_der(raw, size) == encoded


def test_shorter_signatures_of_even_length_are_read() -> None:
    """Section 6.3.1: r and s may be given without their leading zeros, at one length for both."""
    assert ec.to_der(b"\1\2" + b"\3\4", 32) == encode_dss_signature(0x0102, 0x0304)
    assert ec.to_der(b"\1" * 62, 32) == encode_dss_signature(*[int.from_bytes(b"\1" * 31, "big")] * 2)
    public, private = ec_pair()
    verify = operation(CKM.ECDSA, CKF.VERIFY)(public, None)
    signature = operation(CKM.ECDSA, CKF.SIGN)(private, None).sign(b"h" * 32)
    for wrong in (b"", signature[:-1], signature + b"\0", b"\0" + signature[:32] + b"\0" + signature[32:]):
        assert rv_of(verify.verify, b"h" * 32, wrong) == CKR.SIGNATURE_LEN_RANGE
    for invalid in (bytes(64), b"\1\1", signature[:62], b"\xff" * 64):
        assert rv_of(verify.verify, b"h" * 32, invalid) == CKR.SIGNATURE_INVALID


# Keys and their encodings


def test_generated_pair_is_encoded_as_nss_reads_it() -> None:
    """P33: DER OCTET STRING of the uncompressed point; OID parameters; CKA_PUBLIC_KEY_INFO on both keys."""
    for curve in WEIERSTRASS:
        public, private = ec_pair(curve.name)
        raw = public.public_value()
        assert (raw[0], len(raw)) == (4, curve.point_size)
        assert public.attributes[CKA.EC_POINT] == der.element(der.OCTET_STRING, raw)
        assert private.public_value() == raw
        assert len(private.attributes[CKA.VALUE]) == curve.value_size
        assert private.attributes[CKA.EC_PARAMS] == public.attributes[CKA.EC_PARAMS] == curve.params
        assert private.attributes[CKA.EC_POINT] == public.attributes[CKA.EC_POINT]
        info = public.native.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert public.attributes[CKA.PUBLIC_KEY_INFO] == private.attributes[CKA.PUBLIC_KEY_INFO] == info


@pytest.mark.parametrize("name", ["secp256r1", "prime256v1", "secp384r1", "brainpoolP512r1"])
def test_curves_may_be_named(name: str) -> None:
    """PrintableString (v3.0); kept as OID, the only form that NSS reads."""
    params = bytes((0x13, len(name))) + name.encode()
    public, private = generated(CKM.EC_KEY_PAIR_GEN, CKK.EC, {CKA.EC_PARAMS: params})
    curve = CURVES[CKK.EC][params]
    assert public.attributes[CKA.EC_PARAMS] == private.attributes[CKA.EC_PARAMS] == curve.params
    assert curve.params[0] == 6


@pytest.mark.parametrize(
    ("params", "rv"),
    [
        (None, CKR.TEMPLATE_INCOMPLETE),
        (b"", CKR.TEMPLATE_INCOMPLETE),
        (bytes.fromhex("06052b8104000f"), CKR.CURVE_NOT_SUPPORTED),  # sect163r2
        (bytes.fromhex("06032b6570"), CKR.CURVE_NOT_SUPPORTED),  # Ed25519 is not CKK_EC's
        (b"\x13\x04none", CKR.CURVE_NOT_SUPPORTED),
        (bytes.fromhex("0500"), CKR.DOMAIN_PARAMS_INVALID),
        (bytes.fromhex("3003020101"), CKR.DOMAIN_PARAMS_INVALID),
        (P256.params + b"\0", CKR.CURVE_NOT_SUPPORTED),
    ],
)
def test_bad_parameters_are_refused(params: bytes | None, rv: int) -> None:
    template = {} if params is None else {CKA.EC_PARAMS: params}
    assert rv_of(operation(CKM.EC_KEY_PAIR_GEN, CKF.GENERATE_KEY_PAIR), None, template, {}) == rv
    public, private = ec_pair()
    assert rv_of(private_key, CKK.EC, {CKA.VALUE: private.attributes[CKA.VALUE], **template}) == rv
    assert rv_of(public_key, CKK.EC, {CKA.EC_POINT: public.attributes[CKA.EC_POINT], **template}) == rv


def test_public_points_are_accepted_raw_and_der() -> None:
    public, _ = ec_pair()
    raw = public.public_value()
    for given in (raw, der.element(der.OCTET_STRING, raw)):
        key = public_key(CKK.EC, {CKA.EC_PARAMS: P256.params, CKA.EC_POINT: given})
        assert key.attributes[CKA.EC_POINT] == der.element(der.OCTET_STRING, raw)
        assert key.public_value() == raw


def test_bad_points_are_refused() -> None:
    public, _ = ec_pair()
    raw = public.public_value()
    off = raw[:-1] + bytes([raw[-1] ^ 1])
    for given in (
        off,
        raw[:-1],
        raw + b"\0",
        b"\4",
        b"\0",
        b"\6" + raw[1:],
        bytes(65),
        der.element(der.OCTET_STRING, off),
    ):
        attributes = {CKA.EC_PARAMS: P256.params, CKA.EC_POINT: given}
        assert rv_of(public_key, CKK.EC, attributes) == CKR.ATTRIBUTE_VALUE_INVALID
    assert rv_of(public_key, CKK.EC, {CKA.EC_PARAMS: P256.params}) == CKR.TEMPLATE_INCOMPLETE


def test_private_key_with_nss_raw_point_is_accepted() -> None:
    """P33: NSS puts the raw point on private keys; it is checked, and kept in DER."""
    public, private = ec_pair()
    raw = public.public_value()
    value = private.attributes[CKA.VALUE]
    for given in (raw, der.element(der.OCTET_STRING, raw), b""):
        key = private_key(CKK.EC, {CKA.EC_PARAMS: P256.params, CKA.VALUE: value, CKA.EC_POINT: given})
        assert key.attributes[CKA.EC_POINT] == der.element(der.OCTET_STRING, raw)
    other = generated(CKM.EC_KEY_PAIR_GEN, CKK.EC, {CKA.EC_PARAMS: P256.params})[0].public_value()
    for wrong in (other, b"junk"):
        attributes = {CKA.EC_PARAMS: P256.params, CKA.VALUE: value, CKA.EC_POINT: wrong}
        assert rv_of(private_key, CKK.EC, attributes) == CKR.TEMPLATE_INCONSISTENT


def test_private_values_are_kept_at_full_width() -> None:
    for given in (b"\1", b"\0" * 40 + b"\1"):
        key = private_key(CKK.EC, {CKA.EC_PARAMS: P256.params, CKA.VALUE: given})
        assert key.attributes[CKA.VALUE] == b"\0" * 31 + b"\1"


def test_bad_private_values_are_refused() -> None:
    order = WEIERSTRASS[2].order
    for number in (0, order, order + 1, 2**256):
        attributes = {CKA.EC_PARAMS: P256.params, CKA.VALUE: number.to_bytes(33, "big")}
        assert rv_of(private_key, CKK.EC, attributes) == CKR.ATTRIBUTE_VALUE_INVALID
    assert rv_of(private_key, CKK.EC, {CKA.EC_PARAMS: P256.params}) == CKR.TEMPLATE_INCOMPLETE
    assert private_key(CKK.EC, {CKA.EC_PARAMS: P256.params, CKA.VALUE: (order - 1).to_bytes(32, "big")})
