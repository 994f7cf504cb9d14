"""ECDH: known answers of NIST (CAVP) and RFC 7027, every KDF, what is refused; Curve25519 as NSS makes it."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from keyfob.mechanisms import der
from keyfob.mechanisms.curves import X25519
from keyfob.spec.constants import CKA, CKD, CKF, CKK, CKM, CKR
from keyfob.spec.parameters import Ecdh1DeriveParams
from tests.mechanisms.asymmetric_vectors import (
    CURVE_BY_NAME,
    NIST_CURVES,
    ec_pair,
    ec_private,
    generated,
    hexed,
    operation,
    point,
    records,
    rv_of,
    sample,
)

P256 = CURVE_BY_NAME["secp256r1"]
# certutil -q curve25519
NSS_CURVE25519 = bytes.fromhex("06092b06010401da470f01")


def derive(key: Any, kdf: int, shared: bytes, peer: bytes, length: int | None) -> bytes:
    value: bytes = operation(CKM.ECDH1_DERIVE, CKF.DERIVE)(key, Ecdh1DeriveParams(kdf, shared, peer), length)
    return value


KAS_SETS = {
    "EA": NIST_CURVES["P-192"],
    "EB": NIST_CURVES["P-224"],
    "EC": NIST_CURVES["P-256"],
    "ED": NIST_CURVES["P-384"],
    "EE": NIST_CURVES["P-521"],
}


@pytest.mark.parametrize("role", ["init", "resp"])
def test_nist_shared_secrets(role: str) -> None:
    """60 of each file: CKD_NULL with the peer's point raw and DER (P13)."""
    name = f"ECDH/KASValidityTest_ECCStaticUnified_NOKC_ZZOnly_{role}.fax"
    cases = [(section, case) for section, case in records(name) if "Z" in case and case["Result"].startswith("P")]
    assert len(cases) >= 60
    for section, case in sample(cases, 60):
        curve = KAS_SETS[section[:2]]
        key = ec_private(curve, case["dsIUT"])
        peer = point(curve, case["QsCAVSx"], case["QsCAVSy"])
        for given in (peer, der.element(der.OCTET_STRING, peer)):
            secret = derive(key, CKD.NULL, b"", given, None)
            assert secret == hexed(case["Z"])


CONCAT_KDFS = {
    "SHA224": CKD.SHA224_KDF_SP800,
    "SHA256": CKD.SHA256_KDF_SP800,
    "SHA384": CKD.SHA384_KDF_SP800,
    "SHA512": CKD.SHA512_KDF_SP800,
}


def test_nist_concatenation_kdf() -> None:
    """60 good ones of the file, over all its curves and hashes."""
    name = "ECDH/KASValidityTest_ECCStaticUnified_KDFConcat_NOKC_init.fax"
    cases = [(section, case) for section, case in records(name) if case.get("Result", "").startswith("P")]
    assert len(cases) >= 60
    for section, case in sample(cases, 60):
        curve = KAS_SETS[section[:2]]
        digest = section.split("-")[1].strip()
        key = ec_private(curve, case["dsIUT"])
        peer = point(curve, case["QsCAVSx"], case["QsCAVSy"])
        expected = hexed(case["DKM"])
        assert derive(key, CONCAT_KDFS[digest], hexed(case["OI"]), peer, len(expected)) == expected


def test_brainpool_shared_secrets_of_rfc_7027() -> None:
    cases = [case for _, case in records("ECDH/brainpool.txt") if "curve" in case]
    assert len(cases) == 3
    for case in cases:
        curve = CURVE_BY_NAME[case["curve"]]
        secret = derive(ec_private(curve, case["dA"]), CKD.NULL, b"", point(curve, case["x_qB"], case["y_qB"]), None)
        assert secret == hexed(case["x_Z"])


X963_KDFS = {
    CKD.SHA1_KDF: "sha1",
    CKD.SHA224_KDF: "sha224",
    CKD.SHA256_KDF: "sha256",
    CKD.SHA384_KDF: "sha384",
    CKD.SHA512_KDF: "sha512",
    CKD.SHA3_224_KDF: "sha3_224",
    CKD.SHA3_256_KDF: "sha3_256",
    CKD.SHA3_384_KDF: "sha3_384",
    CKD.SHA3_512_KDF: "sha3_512",
}
SP800_KDFS = {
    CKD.SHA1_KDF_SP800: "sha1",
    CKD.SHA224_KDF_SP800: "sha224",
    CKD.SHA256_KDF_SP800: "sha256",
    CKD.SHA384_KDF_SP800: "sha384",
    CKD.SHA512_KDF_SP800: "sha512",
    CKD.SHA3_224_KDF_SP800: "sha3_224",
    CKD.SHA3_256_KDF_SP800: "sha3_256",
    CKD.SHA3_384_KDF_SP800: "sha3_384",
    CKD.SHA3_512_KDF_SP800: "sha3_512",
}


@pytest.mark.parametrize("kdf", [*X963_KDFS, *SP800_KDFS])
def test_every_kdf_is_its_formula(kdf: int) -> None:
    """Against the formulas of X9.63 and SP 800-56A written out with hashlib; 93 bytes as Thunderbird shares (P13)."""
    public, _ = ec_pair()
    _, mine = generated(CKM.EC_KEY_PAIR_GEN, CKK.EC, {CKA.EC_PARAMS: P256.params})
    peer = public.public_value()
    secret = derive(mine, CKD.NULL, b"", peer, None)
    name = X963_KDFS.get(kdf) or SP800_KDFS[kdf]
    for shared in (b"", b"\x30" * 93):
        expected = b""
        for number in range(1, 10):
            counter = number.to_bytes(4, "big")
            order = (secret, counter, shared) if kdf in X963_KDFS else (counter, secret, shared)
            expected += hashlib.new(name, b"".join(order)).digest()
        for length in (1, 16, 32, 100, 160):
            assert derive(mine, kdf, shared, peer, length) == expected[:length]
        assert derive(mine, kdf, shared, peer, None) == expected[: hashlib.new(name).digest_size]


def test_short_keys_are_the_end_of_the_secret() -> None:
    """CKD_NULL: "the truncation removes bytes from the leading end of the secret value"."""
    public, private = ec_pair()
    secret = derive(private, CKD.NULL, b"", public.public_value(), None)
    assert len(secret) == 32
    assert derive(private, CKD.NULL, b"", public.public_value(), 16) == secret[-16:]
    assert derive(private, CKD.NULL, b"", public.public_value(), 32) == secret
    assert rv_of(derive, private, CKD.NULL, b"", public.public_value(), 33) == CKR.KEY_SIZE_RANGE
    for length in (0, -1, 65537, 2**64 - 1):
        assert rv_of(derive, private, CKD.SHA256_KDF, b"", public.public_value(), length) == CKR.KEY_SIZE_RANGE


def test_cofactor_ecdh_is_ecdh_where_the_cofactor_is_one() -> None:
    public, private = ec_pair()
    parameter = Ecdh1DeriveParams(CKD.NULL, b"", public.public_value())
    cofactor = operation(CKM.ECDH1_COFACTOR_DERIVE, CKF.DERIVE)(private, parameter, None)
    assert cofactor == operation(CKM.ECDH1_DERIVE, CKF.DERIVE)(private, parameter, None)


def test_bad_ecdh_parameters_are_refused() -> None:
    public, private = ec_pair()
    peer = public.public_value()
    off = peer[:-1] + bytes([peer[-1] ^ 1])
    other = ec_pair("secp384r1")[0].public_value()
    for bad in (off, other, b"", b"\0", b"\4", peer[:-1], der.element(der.OCTET_STRING, off)):
        assert rv_of(derive, private, CKD.NULL, b"", bad, 16) == CKR.MECHANISM_PARAM_INVALID
    assert rv_of(derive, private, CKD.NULL, b"shared", peer, 16) == CKR.MECHANISM_PARAM_INVALID
    assert rv_of(derive, private, 99, b"", peer, 16) == CKR.MECHANISM_PARAM_INVALID
    function = operation(CKM.ECDH1_DERIVE, CKF.DERIVE)
    for parameter in (None, b"raw"):
        assert rv_of(function, private, parameter, 16) == CKR.MECHANISM_PARAM_INVALID


def test_a_public_key_cannot_derive() -> None:
    """NSS sets CKA_DERIVE on public EC keys (section 3.12), so that the token cannot tell by the flag."""
    public, _ = ec_pair()
    assert rv_of(derive, public, CKD.NULL, b"", public.public_value(), None) == CKR.KEY_TYPE_INCONSISTENT


# Curve25519 as NSS makes it: CKM_EC_KEY_PAIR_GEN, CKK_EC (section 3.12)


def test_certutil_curve25519_pair() -> None:
    public, private = generated(CKM.EC_KEY_PAIR_GEN, CKK.EC, {CKA.EC_PARAMS: NSS_CURVE25519})
    assert public.attributes[CKA.EC_PARAMS] == private.attributes[CKA.EC_PARAMS] == NSS_CURVE25519
    assert len(public.attributes[CKA.EC_POINT]) == len(private.attributes[CKA.VALUE]) == 32
    assert public.public_value() == private.public_value() == public.attributes[CKA.EC_POINT]
    other = X25519.generate()
    secret = derive(private, CKD.NULL, b"", other[1], None)
    assert secret == X25519.agree(X25519.load_private(other[0]), public.public_value())


def test_curve25519_keys_cannot_sign() -> None:
    public, private = generated(CKM.EC_KEY_PAIR_GEN, CKK.EC, {CKA.EC_PARAMS: NSS_CURVE25519})
    for mechanism in (CKM.ECDSA, CKM.ECDSA_SHA256):
        assert rv_of(operation(mechanism, CKF.SIGN), private, None) == CKR.KEY_TYPE_INCONSISTENT
        assert rv_of(operation(mechanism, CKF.VERIFY), public, None) == CKR.KEY_TYPE_INCONSISTENT
