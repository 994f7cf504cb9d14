"""Edwards and Montgomery curves: RFC 8032 and RFC 7748 known answers, encodings of parameters and points, refusals."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyfob.mechanisms import der
from keyfob.mechanisms.curves import ED448, ED25519, X448, X25519, Curve
from keyfob.spec.constants import CKA, CKD, CKF, CKK, CKM, CKR
from keyfob.spec.parameters import Ecdh1DeriveParams, EddsaParams
from tests.mechanisms.asymmetric_vectors import (
    ROWS,
    generated,
    operation,
    private_key,
    public_key,
    records,
    rv_of,
    sample,
    vector_file,
)

GENERATORS = {CKK.EC_EDWARDS: CKM.EC_EDWARDS_KEY_PAIR_GEN, CKK.EC_MONTGOMERY: CKM.EC_MONTGOMERY_KEY_PAIR_GEN}
ALL = [(CKK.EC_EDWARDS, ED25519), (CKK.EC_EDWARDS, ED448), (CKK.EC_MONTGOMERY, X25519), (CKK.EC_MONTGOMERY, X448)]


@cache
def pair(key_type: int, curve: Curve) -> tuple[Any, Any]:
    return generated(GENERATORS[key_type], key_type, {CKA.EC_PARAMS: curve.params})


def edwards_keys(curve: Curve, secret: str, public: str) -> tuple[Any, Any]:
    return (
        public_key(CKK.EC_EDWARDS, {CKA.EC_PARAMS: curve.params, CKA.EC_POINT: bytes.fromhex(public)}),
        private_key(CKK.EC_EDWARDS, {CKA.EC_PARAMS: curve.params, CKA.VALUE: bytes.fromhex(secret)}),
    )


def check_eddsa(public: Any, private: Any, message: bytes, signature: bytes) -> None:
    assert private.public_value() == public.public_value()
    assert operation(CKM.EDDSA, CKF.SIGN)(private, None).sign(message) == signature
    operation(CKM.EDDSA, CKF.VERIFY)(public, None).verify(message, signature)
    half = len(message) // 2
    signer, verifier = operation(CKM.EDDSA, CKF.SIGN)(private, None), operation(CKM.EDDSA, CKF.VERIFY)(public, None)
    for part in (message[:half], message[half:]):
        signer.update(part)
        verifier.update(part)
    assert signer.final() == signature
    verifier.final(signature)


def test_ed25519_vectors() -> None:
    """128 of the 1024 of Bernstein's file, to which RFC 8032 refers."""
    lines = vector_file("Ed25519/sign.input").read_text().splitlines()
    assert len(lines) == 1024
    for line in sample(lines, 128):
        secret, public, message, signed = line.split(":")[:4]
        keys = edwards_keys(ED25519, secret[:64], public)
        check_eddsa(*keys, bytes.fromhex(message), bytes.fromhex(signed)[:64])


def test_ed448_vectors_of_rfc_8032() -> None:
    """All without context; those with one are refused below."""
    cases = [case for _, case in records("Ed448/rfc8032.txt") if "SECRET" in case and "CONTEXT" not in case]
    assert len(cases) >= 8
    for case in cases:
        keys = edwards_keys(ED448, case["SECRET"], case["PUBLIC"])
        check_eddsa(*keys, bytes.fromhex(case["MESSAGE"]), bytes.fromhex(case["SIGNATURE"]))


@pytest.mark.parametrize(("name", "curve"), [("X25519", X25519), ("X448", X448)])
def test_shared_secrets_of_rfc_7748(name: str, curve: Curve) -> None:
    """Through the one CKM_ECDH1_DERIVE row, the peer raw and as DER."""
    cases = [case for _, case in records(f"{name}/rfc7748.txt") if "OUTPUT_U" in case]
    assert len(cases) == 3
    for case in cases:
        value = bytes.fromhex(case["INPUT_SCALAR"])
        key = private_key(CKK.EC_MONTGOMERY, {CKA.EC_PARAMS: curve.params, CKA.VALUE: value})
        peer = bytes.fromhex(case["INPUT_U"])
        for given in (peer, der.element(der.OCTET_STRING, peer)):
            parameter = Ecdh1DeriveParams(CKD.NULL, b"", given)
            secret = operation(CKM.ECDH1_DERIVE, CKF.DERIVE)(key, parameter, None)
            assert secret == bytes.fromhex(case["OUTPUT_U"])


@pytest.mark.parametrize("curve", [X25519, X448], ids=lambda curve: curve.name)
def test_both_sides_derive_the_same_key(curve: Curve) -> None:
    public, private = pair(CKK.EC_MONTGOMERY, curve)
    other_public, other_private = generated(
        CKM.EC_MONTGOMERY_KEY_PAIR_GEN, CKK.EC_MONTGOMERY, {CKA.EC_PARAMS: curve.params}
    )
    derive = operation(CKM.ECDH1_DERIVE, CKF.DERIVE)
    mine = derive(private, Ecdh1DeriveParams(CKD.SHA256_KDF, b"shared", other_public.public_value()), 48)
    theirs = derive(other_private, Ecdh1DeriveParams(CKD.SHA256_KDF, b"shared", public.public_value()), 48)
    assert mine == theirs


def test_peers_of_small_order_and_wrong_length_are_refused() -> None:
    _, private = pair(CKK.EC_MONTGOMERY, X25519)
    derive = operation(CKM.ECDH1_DERIVE, CKF.DERIVE)
    for peer in (bytes(32), b"\1" + bytes(31), b"", bytes(31), bytes(33), bytes(56)):
        assert rv_of(derive, private, Ecdh1DeriveParams(CKD.NULL, b"", peer), 32) == CKR.MECHANISM_PARAM_INVALID


@pytest.mark.parametrize(("key_type", "curve"), ALL, ids=lambda value: getattr(value, "name", ""))
def test_generated_pair_is_raw(key_type: int, curve: Curve) -> None:
    """CKA_EC_POINT as errata of v3.0, v3.1 and v3.2 say, and NSS needs it; CKA_PUBLIC_KEY_INFO on both keys."""
    public, private = pair(key_type, curve)
    assert len(public.attributes[CKA.EC_POINT]) == curve.point_size
    assert len(private.attributes[CKA.VALUE]) == curve.value_size
    assert public.public_value() == private.public_value() == public.attributes[CKA.EC_POINT]
    info = public.native.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert public.attributes[CKA.PUBLIC_KEY_INFO] == private.attributes[CKA.PUBLIC_KEY_INFO] == info


@pytest.mark.parametrize(
    ("key_type", "params", "curve", "kept"),
    [
        (CKK.EC_EDWARDS, "06032b6570", ED25519, "06032b6570"),
        (CKK.EC_EDWARDS, "06032b6571", ED448, "06032b6571"),
        (CKK.EC_EDWARDS, "130c656477617264733235353139", ED25519, "06032b6570"),
        (CKK.EC_EDWARDS, "06092b06010401da470f01", ED25519, "06092b06010401da470f01"),
        (CKK.EC_MONTGOMERY, "06032b656e", X25519, "06032b656e"),
        (CKK.EC_MONTGOMERY, "06032b656f", X448, "06032b656f"),
        (CKK.EC_MONTGOMERY, "130a63757276653235353139", X25519, "06032b656e"),
        # pkcs11-tool 0.23 counts a letter too many.
        (CKK.EC_MONTGOMERY, "130b63757276653235353139", X25519, "06032b656e"),
        (CKK.EC_MONTGOMERY, "06092b06010401da470f01", X25519, "06092b06010401da470f01"),
        (CKK.EC_MONTGOMERY, "060a2b060104019755010501", X25519, "060a2b060104019755010501"),
    ],
)
def test_curves_have_many_names(key_type: int, params: str, curve: Curve, kept: str) -> None:
    public, private = generated(GENERATORS[key_type], key_type, {CKA.EC_PARAMS: bytes.fromhex(params)})
    assert public.curve is private.curve is curve
    assert public.attributes[CKA.EC_PARAMS] == private.attributes[CKA.EC_PARAMS] == bytes.fromhex(kept)


@pytest.mark.parametrize(
    ("key_type", "params", "rv"),
    [
        (CKK.EC_EDWARDS, "06032b656e", CKR.CURVE_NOT_SUPPORTED),
        (CKK.EC_MONTGOMERY, "06032b6570", CKR.CURVE_NOT_SUPPORTED),
        (CKK.EC_MONTGOMERY, "06082a8648ce3d030107", CKR.CURVE_NOT_SUPPORTED),
        (CKK.EC_EDWARDS, "0500", CKR.DOMAIN_PARAMS_INVALID),
        (CKK.EC_EDWARDS, "", CKR.TEMPLATE_INCOMPLETE),
    ],
)
def test_curves_of_another_shape_are_refused(key_type: int, params: str, rv: int) -> None:
    template = {CKA.EC_PARAMS: bytes.fromhex(params)}
    assert rv_of(operation(GENERATORS[key_type], CKF.GENERATE_KEY_PAIR), None, template, {}) == rv
    assert rv_of(private_key, key_type, {**template, CKA.VALUE: bytes(32)}) == rv


@pytest.mark.parametrize(("key_type", "curve"), ALL, ids=lambda value: getattr(value, "name", ""))
def test_points_are_accepted_raw_and_der(key_type: int, curve: Curve) -> None:
    """A public key keeps the form that its program gave and will read; a private one has it raw, as NSS needs it."""
    public, private = pair(key_type, curve)
    raw = public.public_value()
    for given in (raw, der.element(der.OCTET_STRING, raw)):
        key = public_key(key_type, {CKA.EC_PARAMS: curve.params, CKA.EC_POINT: given})
        assert key.attributes[CKA.EC_POINT] == given
        assert key.public_value() == raw
        assert key.attributes[CKA.PUBLIC_KEY_INFO] == public.attributes[CKA.PUBLIC_KEY_INFO]
        attributes = {CKA.EC_PARAMS: curve.params, CKA.VALUE: private.attributes[CKA.VALUE], CKA.EC_POINT: given}
        assert private_key(key_type, attributes).attributes[CKA.EC_POINT] == raw
    for wrong in (raw[:-1], raw + b"\0", b"\3" + raw):
        attributes = {CKA.EC_PARAMS: curve.params, CKA.EC_POINT: wrong}
        assert rv_of(public_key, key_type, attributes) == CKR.ATTRIBUTE_VALUE_INVALID
    attributes = {CKA.EC_PARAMS: curve.params, CKA.VALUE: private.attributes[CKA.VALUE], CKA.EC_POINT: bytes(len(raw))}
    assert rv_of(private_key, key_type, attributes) == CKR.TEMPLATE_INCONSISTENT


@pytest.mark.parametrize(("key_type", "curve"), ALL, ids=lambda value: getattr(value, "name", ""))
def test_private_values_keep_their_leading_zeros(key_type: int, curve: Curve) -> None:
    value = b"\0" * 8 + b"\x55" * (curve.value_size - 8)
    key = private_key(key_type, {CKA.EC_PARAMS: curve.params, CKA.VALUE: value})
    assert key.attributes[CKA.VALUE] == value
    for wrong in (value[8:], value + b"\0"):
        attributes = {CKA.EC_PARAMS: curve.params, CKA.VALUE: wrong}
        assert rv_of(private_key, key_type, attributes) == CKR.ATTRIBUTE_VALUE_INVALID
    assert rv_of(private_key, key_type, {CKA.EC_PARAMS: curve.params}) == CKR.TEMPLATE_INCOMPLETE


@pytest.mark.parametrize("curve", [ED25519, ED448], ids=lambda curve: curve.name)
def test_eddsa_refuses_what_it_must(curve: Curve) -> None:
    public, private = pair(CKK.EC_EDWARDS, curve)
    sign, verify = operation(CKM.EDDSA, CKF.SIGN), operation(CKM.EDDSA, CKF.VERIFY)
    signature = sign(private, EddsaParams(prehash=False, context_data=b"")).sign(b"message")
    assert signature == sign(private, None).sign(b"message")
    assert len(signature) == sign(private, None).output_size == 2 * curve.point_size
    verify(public, EddsaParams(prehash=False, context_data=b"")).verify(b"message", signature)
    assert rv_of(verify(public, None).verify, b"massage", signature) == CKR.SIGNATURE_INVALID
    for wrong in (b"", signature[:-1], signature + b"\0"):
        assert rv_of(verify(public, None).verify, b"message", wrong) == CKR.SIGNATURE_LEN_RANGE
    for parameter in (
        EddsaParams(prehash=True, context_data=b""),
        EddsaParams(prehash=False, context_data=b"x"),
        b"raw",
    ):
        assert rv_of(sign, private, parameter) == CKR.MECHANISM_PARAM_INVALID
        assert rv_of(verify, public, parameter) == CKR.MECHANISM_PARAM_INVALID


def test_a_public_key_that_is_no_point_verifies_nothing() -> None:
    public = public_key(CKK.EC_EDWARDS, {CKA.EC_PARAMS: ED25519.params, CKA.EC_POINT: b"\2" * 32})
    assert rv_of(operation(CKM.EDDSA, CKF.VERIFY)(public, None).verify, b"", bytes(64)) == CKR.SIGNATURE_INVALID


def test_one_row_serves_both_key_types() -> None:
    assert ROWS[CKM.ECDH1_DERIVE].key_types == (CKK.EC, CKK.EC_MONTGOMERY)
    assert ROWS[CKM.EDDSA].key_types == (CKK.EC_EDWARDS,)
    assert (ROWS[CKM.EDDSA].min_key_size, ROWS[CKM.EDDSA].max_key_size) == (255, 448)
