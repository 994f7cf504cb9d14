"""RSA keys (RFC 8017, section 3): what makes a foreign key acceptable, what follows from what was given, new pairs."""

from __future__ import annotations

import os
import sys
from math import gcd, lcm
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import rsa

from keyfob.mechanisms import der
from keyfob.mechanisms.base import Attributes, Key
from keyfob.spec.constants import CKA, CKR
from keyfob.spec.errors import PKCS11Error

if TYPE_CHECKING:
    from collections.abc import Mapping

# Bits of the modulus. Below 512 the library loads no private key, above 16384 it verifies nothing.
MIN_BITS, MAX_BITS = 512, 16384
# Making smaller keys is beneath the library.
MIN_GENERATED_BITS = 1024
# The library verifies with longer public exponents only up to this size of modulus.
LONG_EXPONENT_MAX_BITS, EXPONENT_BITS = 3072, 64
DEFAULT_EXPONENT = 65537

RSA_ENCRYPTION = der.element(der.SEQUENCE, der.object_identifier("1.2.840.113549.1.1.1"), der.element(der.NULL))
DERIVED = (CKA.PRIME_1, CKA.PRIME_2, CKA.EXPONENT_1, CKA.EXPONENT_2, CKA.COEFFICIENT)


class CheckedExponent(bytes):
    """A private exponent that belongs to components made or checked here: `complete` need not test the primes again.

    Callers of the module cannot make one (their attributes are plain bytes), and `complete` ends its life.
    """

    __slots__ = ()


def unsigned(value: int) -> bytes:
    """A big integer as Cryptoki has it: big-endian, no leading zero byte."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def number(attributes: Mapping[int, bytes], attribute: int) -> int:
    """A big integer attribute; 0 where it is missing or empty."""
    return int.from_bytes(attributes.get(attribute, b""), "big")


def public_key_info(modulus: int, exponent: int) -> bytes:
    """SubjectPublicKeyInfo in DER (RFC 3279, 2.3.1)."""
    key = der.element(der.SEQUENCE, der.integer(modulus), der.integer(exponent))
    return der.element(der.SEQUENCE, RSA_ENCRYPTION, der.bit_string(key))


def checked_public(attributes: Mapping[int, bytes]) -> tuple[int, int]:
    """Modulus and public exponent, within what the operations can use."""
    modulus, exponent = number(attributes, CKA.MODULUS), number(attributes, CKA.PUBLIC_EXPONENT)
    if not modulus or not exponent:
        raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, "an RSA key needs CKA_MODULUS and CKA_PUBLIC_EXPONENT")
    bits = modulus.bit_length()
    if not MIN_BITS <= bits <= MAX_BITS:
        raise PKCS11Error(CKR.KEY_SIZE_RANGE, f"an RSA modulus has {MIN_BITS} to {MAX_BITS} bits")
    if not modulus & 1:
        raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, "an RSA modulus is odd")
    if exponent < 3 or not exponent & 1 or exponent >= modulus:
        raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, "a public exponent is odd, at least 3, less than the modulus")
    if exponent.bit_length() > EXPONENT_BITS and bits > LONG_EXPONENT_MAX_BITS:
        raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, "the public exponent is too long for a modulus of this size")
    return modulus, exponent


class RsaKey(Key):
    """`size` is k, the length of the modulus in bytes; `bits` its length in bits."""

    __slots__ = ()

    @property
    def size(self) -> int:
        return len(self.attributes[CKA.MODULUS])

    @property
    def bits(self) -> int:
        modulus = self.attributes[CKA.MODULUS]
        return 8 * len(modulus) - 8 + modulus[0].bit_length()

    def public_value(self) -> bytes:
        """The modulus, unsigned: what NSS hashes for CKA_ID (O10)."""
        return self.attributes[CKA.MODULUS]


class RsaPublicKey(RsaKey):
    """CKA_MODULUS and CKA_PUBLIC_EXPONENT."""

    __slots__ = ()

    @classmethod
    def complete(cls, attributes: Attributes) -> Attributes:
        modulus, exponent = checked_public(attributes)
        return {
            CKA.MODULUS: unsigned(modulus),
            CKA.PUBLIC_EXPONENT: unsigned(exponent),
            CKA.MODULUS_BITS: modulus.bit_length().to_bytes(8, sys.byteorder),
            CKA.PUBLIC_KEY_INFO: public_key_info(modulus, exponent),
        }

    @property
    def native(self) -> Any:
        """The library's public key, loaded once."""
        native = self.native_cache
        if native is None:
            numbers = rsa.RSAPublicNumbers(
                number(self.attributes, CKA.PUBLIC_EXPONENT), number(self.attributes, CKA.MODULUS)
            )
            native = self.native_cache = numbers.public_key()
        return native


class RsaPrivateKey(RsaKey):
    """All eight components (N9): what a caller leaves out is derived."""

    __slots__ = ()

    @classmethod
    def complete(cls, attributes: Attributes) -> Attributes:
        modulus, exponent = checked_public(attributes)
        private = number(attributes, CKA.PRIVATE_EXPONENT)
        if not private:
            raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, "an RSA private key needs CKA_PRIVATE_EXPONENT")
        if isinstance(attributes[CKA.PRIVATE_EXPONENT], CheckedExponent):
            result = {attribute: unsigned(number(attributes, attribute)) for attribute in DERIVED}
        else:
            result = _derived_and_checked(attributes, modulus, exponent, private)
        result[CKA.MODULUS] = unsigned(modulus)
        result[CKA.PUBLIC_EXPONENT] = unsigned(exponent)
        result[CKA.PRIVATE_EXPONENT] = unsigned(private)
        result[CKA.PUBLIC_KEY_INFO] = public_key_info(modulus, exponent)
        return result

    @property
    def native(self) -> Any:
        """The library's private key, loaded once. Not checked again: `complete` did, and our store is authenticated."""
        native = self.native_cache
        if native is None:
            native = self.native_cache = _load(self.attributes, check=False)
        return native


def _derived_and_checked(attributes: Mapping[int, bytes], modulus: int, exponent: int, private: int) -> Attributes:
    """The primes and CRT components of a key that came from outside, after a full check of everything given."""
    if private >= modulus:
        raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, "a private exponent is less than the modulus")
    inconsistent = PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "the components are not those of one RSA key")
    p, q = number(attributes, CKA.PRIME_1), number(attributes, CKA.PRIME_2)
    if p and not q:
        q = modulus // p
    elif q and not p:
        p = modulus // q
    elif not p:
        p, q = recovered_primes(modulus, exponent, private)
    if p * q != modulus or min(p, q) < 3 or gcd(p, q) != 1:
        raise inconsistent
    values = (p, q, private % (p - 1), private % (q - 1), pow(q, -1, p))
    for attribute, value in zip(DERIVED, values, strict=True):
        if attributes.get(attribute) and number(attributes, attribute) != value:
            raise inconsistent
    result = {attribute: unsigned(value) for attribute, value in zip(DERIVED, values, strict=True)}
    try:
        _load({**attributes, **result}, check=True)
    except ValueError:
        raise inconsistent from None
    return result


def _load(attributes: Mapping[int, bytes], *, check: bool) -> rsa.RSAPrivateKey:
    """The library's key; with `check` it tests the components, the primes too (40 ms for 2048 bits), for ValueError."""
    numbers = rsa.RSAPrivateNumbers(
        p=number(attributes, CKA.PRIME_1),
        q=number(attributes, CKA.PRIME_2),
        d=number(attributes, CKA.PRIVATE_EXPONENT),
        dmp1=number(attributes, CKA.EXPONENT_1),
        dmq1=number(attributes, CKA.EXPONENT_2),
        iqmp=number(attributes, CKA.COEFFICIENT),
        public_numbers=rsa.RSAPublicNumbers(number(attributes, CKA.PUBLIC_EXPONENT), number(attributes, CKA.MODULUS)),
    )
    return numbers.private_key(unsafe_skip_rsa_key_validation=not check)


def recovered_primes(modulus: int, exponent: int, private: int) -> tuple[int, int]:
    """The primes from n, e and d (NIST SP 800-56B, appendix C.2): a square root of 1 that is not +-1 splits n.

    Each base finds one with probability 1/2 or more, so that 64 fail together only where n is no product of two primes.
    """
    inconsistent = PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "the exponents are not those of an RSA key with this modulus")
    odd = exponent * private - 1
    twos = (odd & -odd).bit_length() - 1
    odd >>= twos
    for _ in range(64):
        root = pow(int.from_bytes(os.urandom((modulus.bit_length() + 7) // 8), "big") % modulus, odd, modulus)
        for _ in range(twos):
            square = root * root % modulus
            if square == 1:
                break
            root = square
        else:
            raise inconsistent
        if root not in (1, modulus - 1):
            p = gcd(root - 1, modulus)
            return max(p, modulus // p), min(p, modulus // p)
    raise inconsistent


def generate_pair(
    parameter: Any,
    public_template: Attributes,
    private_template: Attributes,
) -> tuple[Attributes, Attributes]:
    """CKM_RSA_PKCS_KEY_PAIR_GEN: CKA_MODULUS_BITS and perhaps CKA_PUBLIC_EXPONENT of the public template."""
    if parameter:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "key pair generation takes no parameter")
    wanted = public_template.get(CKA.MODULUS_BITS)
    if wanted is None:
        raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, "CKA_MODULUS_BITS is missing")
    if len(wanted) != 8:
        raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, "CKA_MODULUS_BITS is a CK_ULONG")
    bits = int.from_bytes(wanted, sys.byteorder)
    if not MIN_GENERATED_BITS <= bits <= MAX_BITS:
        raise PKCS11Error(CKR.KEY_SIZE_RANGE, f"RSA keys are made with {MIN_GENERATED_BITS} to {MAX_BITS} bits")
    exponent = (
        number(public_template, CKA.PUBLIC_EXPONENT) if CKA.PUBLIC_EXPONENT in public_template else DEFAULT_EXPONENT
    )
    if exponent < 3 or not exponent & 1 or exponent.bit_length() > EXPONENT_BITS:
        raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "the public exponent must be odd, 3 or more, of at most 64 bits")
    numbers = _new_numbers(bits, exponent)
    public = {CKA.MODULUS: unsigned(numbers.public_numbers.n), CKA.PUBLIC_EXPONENT: unsigned(exponent)}
    return public, {
        **public,
        CKA.PRIVATE_EXPONENT: CheckedExponent(unsigned(numbers.d)),
        CKA.PRIME_1: unsigned(numbers.p),
        CKA.PRIME_2: unsigned(numbers.q),
        CKA.EXPONENT_1: unsigned(numbers.dmp1),
        CKA.EXPONENT_2: unsigned(numbers.dmq1),
        CKA.COEFFICIENT: unsigned(numbers.iqmp),
    }


def _new_numbers(bits: int, exponent: int) -> rsa.RSAPrivateNumbers:
    """A new key. The library makes keys for e = 3 and 65537; for others (certutil -y 17) its primes are used.

    They are taken only where e is prime to p-1 and q-1, as any generator would for that e.
    """
    if exponent in (3, DEFAULT_EXPONENT):
        return rsa.generate_private_key(exponent, bits).private_numbers()
    while True:
        made = rsa.generate_private_key(DEFAULT_EXPONENT, bits).private_numbers()
        order = lcm(made.p - 1, made.q - 1)
        if gcd(exponent, order) == 1:
            private = pow(exponent, -1, order)
            return rsa.RSAPrivateNumbers(
                p=made.p,
                q=made.q,
                d=private,
                dmp1=private % (made.p - 1),
                dmq1=private % (made.q - 1),
                iqmp=made.iqmp,
                public_numbers=rsa.RSAPublicNumbers(exponent, made.public_numbers.n),
            )
