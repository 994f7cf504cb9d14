"""PrivateKeyInfo (PKCS #8, RFC 5958), to and from attributes: how private keys travel wrapped (PKCS #11 v3.2, 6.7).

RSA keys as RSAPrivateKey (RFC 8017, A.1.2), CKK_EC keys as ECPrivateKey with a named curve (RFC 5915), Edwards and
Montgomery keys as CurvePrivateKey (RFC 8410). Read and written here, not with the library's serialization: that would
cost the module 2 ms when it starts to be used, and cannot carry Curve25519 as NSS's CKK_EC has it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from keyfob.mechanisms import der
from keyfob.mechanisms.curve_keys import CurvePrivateKey, EcPrivateKey, EdwardsPrivateKey, MontgomeryPrivateKey
from keyfob.mechanisms.curves import EC_PUBLIC_KEY, ED448, ED25519, X448, X25519, Curve, curve_of, octets
from keyfob.mechanisms.rsa_keys import RSA_ENCRYPTION, CheckedExponent, RsaPrivateKey, number
from keyfob.spec.constants import CKA, CKK, CKR
from keyfob.spec.errors import PKCS11Error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyfob.mechanisms.base import Attributes

RSA_COMPONENTS = (
    CKA.MODULUS,
    CKA.PUBLIC_EXPONENT,
    CKA.PRIVATE_EXPONENT,
    CKA.PRIME_1,
    CKA.PRIME_2,
    CKA.EXPONENT_1,
    CKA.EXPONENT_2,
    CKA.COEFFICIENT,
)
RSA_OID = der.object_identifier("1.2.840.113549.1.1.1")
# By algorithm OID (RFC 8410).
RAW_CURVES: dict[bytes, tuple[type[CurvePrivateKey], Curve]] = {
    ED25519.params: (EdwardsPrivateKey, ED25519),
    ED448.params: (EdwardsPrivateKey, ED448),
    X25519.params: (MontgomeryPrivateKey, X25519),
    X448.params: (MontgomeryPrivateKey, X448),
}


def private_key_info(attributes: Mapping[int, bytes]) -> bytes:
    """DER of the PrivateKeyInfo of a private key object; CKR_KEY_NOT_WRAPPABLE for types that have none here."""
    key_type = int.from_bytes(attributes[CKA.KEY_TYPE], sys.byteorder)
    if key_type == CKK.RSA:
        components = (number(attributes, attribute) for attribute in RSA_COMPONENTS)
        algorithm = RSA_ENCRYPTION
        key = der.element(der.SEQUENCE, der.integer(0), *(der.integer(component) for component in components))
    elif key_type == CKK.EC:
        ec_key = EcPrivateKey(attributes)
        point = ec_key.public_value() or b""
        algorithm = der.element(der.SEQUENCE, EC_PUBLIC_KEY, attributes[CKA.EC_PARAMS])
        key = der.element(
            der.SEQUENCE,
            der.integer(1),
            der.element(der.OCTET_STRING, attributes[CKA.VALUE]),
            der.element(der.CONTEXT_1, der.bit_string(point)),
        )
    elif key_type in (CKK.EC_EDWARDS, CKK.EC_MONTGOMERY):
        algorithm = der.element(der.SEQUENCE, curve_of(key_type, attributes[CKA.EC_PARAMS]).params)
        key = der.element(der.OCTET_STRING, attributes[CKA.VALUE])
    else:
        raise PKCS11Error(CKR.KEY_NOT_WRAPPABLE, "private keys of this type have no PrivateKeyInfo here")
    return der.element(der.SEQUENCE, der.integer(0), algorithm, der.element(der.OCTET_STRING, key))


def attributes_from_private_key_info(info: bytes) -> Attributes:
    """CKA_KEY_TYPE, the key's components and CKA_PUBLIC_KEY_INFO; CKR_WRAPPED_KEY_INVALID when anything is wrong.

    The key is fully checked. What decrypts to a PrivateKeyInfo may end in padding that the wrapping mechanism could not
    take off (AES key wrap with zeros), but nothing else may follow.
    """
    try:
        return _attributes(info)
    except ValueError as error:
        raise PKCS11Error(CKR.WRAPPED_KEY_INVALID, f"not a PrivateKeyInfo: {error}") from None
    except PKCS11Error as error:
        raise PKCS11Error(CKR.WRAPPED_KEY_INVALID, error.reason) from None


def _attributes(info: bytes) -> Attributes:
    outer = der.Reader(info)
    reader = outer.enter(der.SEQUENCE)
    if info[outer.position :].strip(b"\0"):
        raise ValueError("bytes are left over at its end")
    # Version 1 of RFC 5958 adds the public key; RFC 5208's attributes may come before it. Neither tells us anything.
    if reader.read_integer() not in (0, 1):
        raise ValueError("its version is unknown")
    algorithm = reader.enter(der.SEQUENCE)
    key = reader.read(der.OCTET_STRING)
    oid = algorithm.read_whole(der.OBJECT_IDENTIFIER)
    if oid == EC_PUBLIC_KEY:
        return _ec_attributes(key, algorithm)
    if algorithm.next_tag() not in (None, der.NULL):
        raise ValueError("its algorithm has parameters")
    if oid == RSA_OID:
        return _rsa_attributes(key)
    if oid in RAW_CURVES:
        key_class, curve = RAW_CURVES[oid]
        return _completed(key_class, {CKA.EC_PARAMS: curve.params, CKA.VALUE: octets(key)})
    raise ValueError("its algorithm is not supported")


def _rsa_attributes(key: bytes) -> Attributes:
    outer = der.Reader(key)
    reader = outer.enter(der.SEQUENCE)
    outer.finish()
    if reader.read_integer() != 0:
        raise ValueError("it holds an RSA key of more than two primes")
    attributes = {}
    for attribute in RSA_COMPONENTS:
        component = reader.read_integer()
        attributes[attribute] = component.to_bytes((component.bit_length() + 7) // 8, "big")
    reader.finish()
    attributes.update(RsaPrivateKey.complete(attributes))
    attributes[CKA.PRIVATE_EXPONENT] = CheckedExponent(attributes[CKA.PRIVATE_EXPONENT])
    attributes[CKA.KEY_TYPE] = CKK.RSA.to_bytes(8, sys.byteorder)
    return attributes


def _ec_attributes(key: bytes, algorithm: der.Reader) -> Attributes:
    tag = algorithm.next_tag()
    params = algorithm.read_whole(tag) if tag is not None else b""
    outer = der.Reader(key)
    reader = outer.enter(der.SEQUENCE)
    outer.finish()
    if reader.read_integer() != 1:
        raise ValueError("its ECPrivateKey has an unknown version")
    attributes = {CKA.VALUE: reader.read(der.OCTET_STRING)}
    if reader.next_tag() == der.CONTEXT_0:
        inner = reader.read(der.CONTEXT_0)
        if params and inner != params:
            raise ValueError("it names two curves")
        params = inner
    attributes[CKA.EC_PARAMS] = params
    if reader.next_tag() == der.CONTEXT_1:
        attributes[CKA.EC_POINT] = reader.enter(der.CONTEXT_1).read_bit_string()
    reader.finish()
    return _completed(EcPrivateKey, attributes)


def _completed(key_class: type[CurvePrivateKey], attributes: Attributes) -> Attributes:
    return {
        **attributes,
        **key_class.complete(attributes),
        CKA.KEY_TYPE: key_class.key_type.to_bytes(8, sys.byteorder),
    }
