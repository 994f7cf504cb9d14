"""RSA keys: making them, completing them, and refusing what is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyfob.mechanisms import rsa_keys
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKR
from tests.mechanisms.asymmetric_vectors import (
    generated,
    operation,
    private_key,
    public_key,
    rsa_pair,
    rv_of,
    ulong,
)

if TYPE_CHECKING:
    from keyfob.mechanisms.base import Attributes

COMPONENTS = (
    CKA.MODULUS,
    CKA.PUBLIC_EXPONENT,
    CKA.PRIVATE_EXPONENT,
    CKA.PRIME_1,
    CKA.PRIME_2,
    CKA.EXPONENT_1,
    CKA.EXPONENT_2,
    CKA.COEFFICIENT,
)


def test_generated_pair_is_complete_and_works() -> None:
    """N9, N10, P22: all eight components, the public ones on the private key too; CKA_PUBLIC_KEY_INFO on both."""
    public, private = rsa_pair()
    for attribute in COMPONENTS:
        assert private.attributes[attribute][0] != 0
        assert type(private.attributes[attribute]) is bytes
    assert private.attributes[CKA.PUBLIC_EXPONENT] == b"\1\0\1"
    assert public.attributes[CKA.MODULUS] == private.attributes[CKA.MODULUS]
    assert public.attributes[CKA.MODULUS_BITS] == ulong(2048)
    info = public.native.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert public.attributes[CKA.PUBLIC_KEY_INFO] == private.attributes[CKA.PUBLIC_KEY_INFO] == info
    assert public.public_value() == private.public_value() == private.attributes[CKA.MODULUS]


@pytest.mark.parametrize("exponent", [3, 17, 65537, 2**33 + 1])
def test_generation_with_other_public_exponents(exponent: int) -> None:
    """certutil -y offers 3, 17 and 65537."""
    template = {CKA.MODULUS_BITS: ulong(1024), CKA.PUBLIC_EXPONENT: exponent.to_bytes(6, "big")}
    public, private = generated(CKM.RSA_PKCS_KEY_PAIR_GEN, CKK.RSA, template)
    assert int.from_bytes(public.attributes[CKA.PUBLIC_EXPONENT], "big") == exponent
    private_key(CKK.RSA, {a: bytes(private.attributes[a]) for a in COMPONENTS})
    signature = operation(CKM.SHA256_RSA_PKCS, CKF.SIGN)(private, None).sign(b"message")
    operation(CKM.SHA256_RSA_PKCS, CKF.VERIFY)(public, None).verify(b"message", signature)


@pytest.mark.parametrize(
    ("template", "rv"),
    [
        ({}, CKR.TEMPLATE_INCOMPLETE),
        ({CKA.MODULUS_BITS: b"\0\4\0\0"}, CKR.ATTRIBUTE_VALUE_INVALID),
        ({CKA.MODULUS_BITS: ulong(1023)}, CKR.KEY_SIZE_RANGE),
        ({CKA.MODULUS_BITS: ulong(16385)}, CKR.KEY_SIZE_RANGE),
        ({CKA.MODULUS_BITS: ulong(1024), CKA.PUBLIC_EXPONENT: b"\1"}, CKR.TEMPLATE_INCONSISTENT),
        ({CKA.MODULUS_BITS: ulong(1024), CKA.PUBLIC_EXPONENT: b"\4"}, CKR.TEMPLATE_INCONSISTENT),
        ({CKA.MODULUS_BITS: ulong(1024), CKA.PUBLIC_EXPONENT: b""}, CKR.TEMPLATE_INCONSISTENT),
        ({CKA.MODULUS_BITS: ulong(1024), CKA.PUBLIC_EXPONENT: b"\1" * 9}, CKR.TEMPLATE_INCONSISTENT),
    ],
)
def test_generation_refuses_bad_templates(template: Attributes, rv: int) -> None:
    assert rv_of(operation(CKM.RSA_PKCS_KEY_PAIR_GEN, CKF.GENERATE_KEY_PAIR), None, template, {}) == rv


def components(bits: int = 1024) -> Attributes:
    return {a: bytes(rsa_pair(bits)[1].attributes[a]) for a in COMPONENTS}


@pytest.mark.parametrize(
    "kept",
    [
        COMPONENTS[:3],
        COMPONENTS[:5],
        COMPONENTS[:4],
        (*COMPONENTS[:3], CKA.PRIME_2),
        COMPONENTS,
        (*COMPONENTS[:3], CKA.COEFFICIENT),
    ],
)
def test_missing_components_are_derived(kept: tuple[int, ...]) -> None:
    full = components()
    key = private_key(CKK.RSA, {a: b"\0\0" + full[a] for a in kept})
    primes = {key.attributes[CKA.PRIME_1], key.attributes[CKA.PRIME_2]}
    assert primes == {full[CKA.PRIME_1], full[CKA.PRIME_2]}
    assert all(key.attributes[a][0] for a in COMPONENTS)
    signature = operation(CKM.SHA256_RSA_PKCS, CKF.SIGN)(key, None).sign(b"message")
    operation(CKM.SHA256_RSA_PKCS, CKF.VERIFY)(rsa_pair(1024)[0], None).verify(b"message", signature)
    assert operation(CKM.RSA_X_509, CKF.SIGN)(key, None).sign(b"x")


@pytest.mark.parametrize("changed", COMPONENTS)
def test_a_changed_component_is_refused(changed: int) -> None:
    attributes = components()
    value = bytearray(attributes[changed])
    value[-1] ^= 2
    attributes[changed] = bytes(value)
    assert rv_of(private_key, CKK.RSA, attributes) in (CKR.TEMPLATE_INCONSISTENT, CKR.ATTRIBUTE_VALUE_INVALID)


def test_composite_primes_are_refused() -> None:
    """p and q that fit together in every equation, but p is no prime."""
    p, q, e = 3 * 5 * 7 * 11 * (2**521 - 1), 2**607 - 1, 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    attributes = {
        CKA.MODULUS: rsa_keys.unsigned(p * q),
        CKA.PUBLIC_EXPONENT: rsa_keys.unsigned(e),
        CKA.PRIVATE_EXPONENT: rsa_keys.unsigned(d),
        CKA.PRIME_1: rsa_keys.unsigned(p),
        CKA.PRIME_2: rsa_keys.unsigned(q),
    }
    assert rv_of(private_key, CKK.RSA, attributes) == CKR.TEMPLATE_INCONSISTENT


def test_a_prime_modulus_is_refused() -> None:
    n = 2**521 - 1
    d = pow(65537, -1, n - 1)
    attributes = {
        CKA.MODULUS: rsa_keys.unsigned(n),
        CKA.PUBLIC_EXPONENT: b"\1\0\1",
        CKA.PRIVATE_EXPONENT: rsa_keys.unsigned(d),
    }
    assert rv_of(private_key, CKK.RSA, attributes) == CKR.TEMPLATE_INCONSISTENT


@pytest.mark.parametrize("missing", [CKA.MODULUS, CKA.PUBLIC_EXPONENT, CKA.PRIVATE_EXPONENT])
def test_a_private_key_without_its_numbers_is_incomplete(missing: int) -> None:
    attributes = {a: v for a, v in components().items() if a != missing}
    assert rv_of(private_key, CKK.RSA, attributes) == CKR.TEMPLATE_INCOMPLETE


@pytest.mark.parametrize(
    ("modulus", "exponent", "rv"),
    [
        (b"", b"\3", CKR.TEMPLATE_INCOMPLETE),
        (b"\xc1" + b"\xa7" * 63, b"", CKR.TEMPLATE_INCOMPLETE),
        (b"\x41" + b"\xa7" * 63, b"\3", CKR.KEY_SIZE_RANGE),
        (b"\1" + b"\xa7" * 2048, b"\3", CKR.KEY_SIZE_RANGE),
        (b"\xc1" + b"\xa6" * 63, b"\3", CKR.ATTRIBUTE_VALUE_INVALID),
        (b"\xc1" + b"\xa7" * 63, b"\1", CKR.ATTRIBUTE_VALUE_INVALID),
        (b"\xc1" + b"\xa7" * 63, b"\4", CKR.ATTRIBUTE_VALUE_INVALID),
        (b"\xc1" + b"\xa7" * 63, b"\xff" * 64, CKR.ATTRIBUTE_VALUE_INVALID),
        (b"\xc1" + b"\xa7" * 511, b"\1" * 9, CKR.ATTRIBUTE_VALUE_INVALID),
    ],
)
def test_bad_public_keys_are_refused(modulus: bytes, exponent: bytes, rv: int) -> None:
    assert rv_of(public_key, CKK.RSA, {CKA.MODULUS: modulus, CKA.PUBLIC_EXPONENT: exponent}) == rv


def test_odd_sizes_of_moduli_count_their_bits() -> None:
    public = public_key(CKK.RSA, {CKA.MODULUS: b"\0\1" + b"\xa7" * 128, CKA.PUBLIC_EXPONENT: b"\0\3"})
    assert public.attributes[CKA.MODULUS_BITS] == ulong(1025)
    assert (public.size, public.bits) == (129, 1025)
    assert public.attributes[CKA.PUBLIC_EXPONENT] == b"\3"


def test_no_secret_is_in_errors() -> None:
    attributes = components()
    attributes[CKA.PRIME_1] = attributes[CKA.PRIME_2]
    with pytest.raises(Exception) as caught:  # noqa: PT011
        private_key(CKK.RSA, attributes)
    text = repr(caught.value) + repr(caught.value.__cause__)
    for attribute in COMPONENTS[2:]:
        assert str(int.from_bytes(attributes[attribute], "big"))[:20] not in text
        assert attributes[attribute].hex()[:20] not in text
