"""What keys on elliptic curves have in common, whatever the curve's shape; ec.py and edwards.py name the classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from keyfob.mechanisms.base import Attributes, Key
from keyfob.mechanisms.curves import CURVES, Curve, curve_of, normal_params
from keyfob.spec.constants import CKA, CKK, CKR
from keyfob.spec.errors import PKCS11Error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def required(attributes: Mapping[int, bytes], attribute: int, name: str) -> bytes:
    """The value of an attribute that a key cannot do without."""
    value = attributes.get(attribute)
    if not value:
        raise PKCS11Error(CKR.TEMPLATE_INCOMPLETE, f"{name} is missing")
    return value


class CurveKey(Key):
    """`curve` comes from CKA_EC_PARAMS and `key_type`, the CKK_* of the class."""

    __slots__ = ("curve",)

    key_type: ClassVar[int]

    def __init__(self, attributes: Mapping[int, bytes]) -> None:
        self.attributes = attributes
        self.native_cache = None
        self.curve: Curve = curve_of(self.key_type, attributes[CKA.EC_PARAMS])

    @classmethod
    def same(cls, attribute: int, value: bytes, attributes: Mapping[int, bytes]) -> bool:
        curve = curve_of(cls.key_type, attributes[CKA.EC_PARAMS])
        if attribute == CKA.EC_POINT:
            return _same_point(curve, value, curve.read_point(attributes[CKA.EC_POINT]))
        if attribute == CKA.EC_PARAMS:
            return CURVES[cls.key_type].get(value) is curve
        try:
            return attribute == CKA.VALUE and curve.normal_value(value) == attributes[CKA.VALUE]
        except ValueError:
            return False


class CurvePrivateKey(CurveKey):
    """CKA_EC_PARAMS and CKA_VALUE, and beyond the standard CKA_EC_POINT.

    NSS gives the point (P33), and OpenSSL's pkcs11-provider reads it from the private key and nowhere else.
    """

    __slots__ = ()

    @classmethod
    def complete(cls, attributes: Attributes) -> Attributes:
        params = required(attributes, CKA.EC_PARAMS, "CKA_EC_PARAMS")
        curve = curve_of(cls.key_type, params)
        try:
            value = curve.normal_value(required(attributes, CKA.VALUE, "CKA_VALUE"))
            point = curve.point_of(curve.load_private(value).public_key())
        except ValueError:
            raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, "CKA_VALUE is not a private key of this curve") from None
        given = attributes.get(CKA.EC_POINT)
        if given and not _same_point(curve, given, point):
            raise PKCS11Error(CKR.TEMPLATE_INCONSISTENT, "CKA_EC_POINT is not the point of CKA_VALUE")
        return {
            CKA.EC_PARAMS: normal_params(params, curve),
            CKA.VALUE: value,
            CKA.EC_POINT: curve.write_point(point),
            CKA.PUBLIC_KEY_INFO: curve.public_key_info(point),
        }

    def computed(self, attribute: int) -> bytes | None:
        """CKA_EC_POINT of keys that were stored without it."""
        return self.curve.write_point(self.public_value()) if attribute == CKA.EC_POINT else None

    @property
    def native(self) -> Any:
        """The library's private key, loaded once. Not checked again: `complete` did, and our store is authenticated."""
        native = self.native_cache
        if native is None:
            native = self.native_cache = self.curve.load_private(self.attributes[CKA.VALUE])
        return native

    def public_value(self) -> bytes:
        """The point, raw: what NSS hashes for CKA_ID (O10). CKA_PUBLIC_KEY_INFO ends with it."""
        info = self.attributes.get(CKA.PUBLIC_KEY_INFO)
        return info[-self.curve.point_size :] if info else self.curve.point_of(self.native.public_key())

    def agree(self, peer: bytes) -> bytes:
        """The shared secret of ECDH with the peer's point, raw or DER (P13)."""
        try:
            return self.curve.agree(self.native, peer)
        except ValueError:
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the peer's point is not a point of this curve") from None


class CurvePublicKey(CurveKey):
    """CKA_EC_PARAMS and CKA_EC_POINT."""

    __slots__ = ()

    @classmethod
    def complete(cls, attributes: Attributes) -> Attributes:
        params = required(attributes, CKA.EC_PARAMS, "CKA_EC_PARAMS")
        curve = curve_of(cls.key_type, params)
        given = required(attributes, CKA.EC_POINT, "CKA_EC_POINT")
        try:
            point = curve.read_point(given)
            curve.load_public(point)
        except ValueError:
            raise PKCS11Error(CKR.ATTRIBUTE_VALUE_INVALID, "CKA_EC_POINT is not a point of this curve") from None
        return {
            CKA.EC_PARAMS: normal_params(params, curve),
            CKA.EC_POINT: curve.keep_point(given, point),
            CKA.PUBLIC_KEY_INFO: curve.public_key_info(point),
        }

    @property
    def native(self) -> Any:
        """The library's public key, loaded once."""
        native = self.native_cache
        if native is None:
            native = self.native_cache = self.curve.load_public(self.public_value())
        return native

    def public_value(self) -> bytes:
        """The point, raw: what NSS hashes for CKA_ID (O10)."""
        return self.curve.read_point(self.attributes[CKA.EC_POINT])


def _same_point(curve: Curve, data: bytes, point: bytes) -> bool:
    try:
        return curve.read_point(data) == point
    except ValueError:
        return False


def pair_generator(key_type: int) -> Callable[[Any, Attributes, Attributes], tuple[Attributes, Attributes]]:
    """The `generate_pair` of a row: a new pair on the curve that the public template's CKA_EC_PARAMS names."""

    def generate_pair(
        parameter: Any,
        public_template: Attributes,
        private_template: Attributes,
    ) -> tuple[Attributes, Attributes]:
        if parameter:
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "key pair generation takes no parameter")
        params = required(public_template, CKA.EC_PARAMS, "CKA_EC_PARAMS")
        curve = curve_of(key_type, params)
        params = normal_params(params, curve)
        value, point = curve.generate()
        public = {CKA.EC_PARAMS: params, CKA.EC_POINT: curve.write_point(point)}
        return public, {CKA.EC_PARAMS: params, CKA.VALUE: value}

    return generate_pair


class EcPrivateKey(CurvePrivateKey):
    """CKK_EC: a Weierstrass curve, or Curve25519 as NSS makes it."""

    __slots__ = ()

    key_type = CKK.EC


class EcPublicKey(CurvePublicKey):
    """CKK_EC: a Weierstrass curve, or Curve25519 as NSS makes it."""

    __slots__ = ()

    key_type = CKK.EC


class EdwardsPrivateKey(CurvePrivateKey):
    """CKK_EC_EDWARDS: Ed25519, Ed448."""

    __slots__ = ()

    key_type = CKK.EC_EDWARDS


class EdwardsPublicKey(CurvePublicKey):
    """CKK_EC_EDWARDS: Ed25519, Ed448."""

    __slots__ = ()

    key_type = CKK.EC_EDWARDS


class MontgomeryPrivateKey(CurvePrivateKey):
    """CKK_EC_MONTGOMERY: X25519, X448."""

    __slots__ = ()

    key_type = CKK.EC_MONTGOMERY


class MontgomeryPublicKey(CurvePublicKey):
    """CKK_EC_MONTGOMERY: X25519, X448."""

    __slots__ = ()

    key_type = CKK.EC_MONTGOMERY
