"""The elliptic curves: how CKA_EC_PARAMS names each, and how its keys and points look as bytes.

Three shapes: Weierstrass (ECDSA and ECDH; CKK_EC), Edwards (EdDSA; CKK_EC_EDWARDS) and Montgomery (X25519, X448;
CKK_EC_MONTGOMERY, and CKK_EC for NSS, section 3.12 of NSS.md). All have a cofactor that their own arithmetic clears or
that is one, so that cofactor ECDH is plain ECDH here.

CKA_EC_POINT (P33). On a Weierstrass curve the standard wants a DER OCTET STRING of the uncompressed point, and so do
NSS (which guesses on raw ones) and OpenSC. For Edwards and Montgomery keys version 3.0 said DER too, but its errata and
3.1 on say the raw bytes of RFC 8032 / 7748. Raw is what we give: NSS takes those of Ed25519 and X25519 as they are when
it makes a public key from a private one, and it searches for the raw value; pkcs11-tool reads both (but 0.23 can export
Ed25519 keys in DER only). Every form is accepted on the way in, and a public key of these curves that came with DER
keeps it: GnuTLS 3.7 reads nothing else, also of what it wrote itself.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, x448, x25519

from keyfob.mechanisms import der
from keyfob.spec.constants import CKK, CKR
from keyfob.spec.errors import PKCS11Error

EC_PUBLIC_KEY = der.object_identifier("1.2.840.10045.2.1")


class Curve:
    """`params` is the curve's OID in DER; `point_size` and `value_size` are bytes of a point and of a private value."""

    __slots__ = ("bits", "name", "params", "point_size", "value_size")

    def __init__(self, name: str, oid: str, bits: int, point_size: int, value_size: int) -> None:
        self.name = name
        self.params = der.object_identifier(oid)
        self.bits = bits
        self.point_size = point_size
        self.value_size = value_size

    def generate(self) -> tuple[bytes, bytes]:
        """A new key: (private value, point)."""
        raise NotImplementedError

    def load_private(self, value: bytes) -> Any:
        """The library's key; ValueError when the value is not one of this curve."""
        raise NotImplementedError

    def load_public(self, point: bytes) -> Any:
        """The library's key; ValueError when the point is not on this curve."""
        raise NotImplementedError

    def point_of(self, native: Any) -> bytes:
        """The point of the library's public key."""
        return bytes(native.public_bytes_raw())

    def normal_value(self, value: bytes) -> bytes:
        """CKA_VALUE in the form that we keep; ValueError when it cannot be one."""
        if len(value) != self.value_size:
            raise ValueError("the private value has the wrong length")
        return value

    def read_point(self, data: bytes) -> bytes:
        """The point from any of its forms: raw or DER OCTET STRING (P13, P33). ValueError when it is neither."""
        if len(data) == self.point_size:
            return data
        point = octets(data)
        if len(point) != self.point_size:
            raise ValueError("the point has the wrong length")
        return point

    def write_point(self, point: bytes) -> bytes:
        """The point as CKA_EC_POINT holds it."""
        return point

    def keep_point(self, given: bytes, point: bytes) -> bytes:
        """CKA_EC_POINT of a public key that came with `given`, which is this point in one of its forms."""
        return self.write_point(point)

    def public_key_info(self, point: bytes) -> bytes:
        """SubjectPublicKeyInfo in DER (RFC 8410)."""
        return der.element(der.SEQUENCE, der.element(der.SEQUENCE, self.params), der.bit_string(point))

    def agree(self, native: Any, peer: bytes) -> bytes:
        """The shared secret with a peer's point (any form); ValueError when that is not a usable point."""
        return bytes(native.exchange(self.load_public(self.read_point(peer))))


def octets(data: bytes) -> bytes:
    """The content of a DER OCTET STRING; ValueError when it is none."""
    reader = der.Reader(data)
    content = reader.read(der.OCTET_STRING)
    reader.finish()
    return content


class WeierstrassCurve(Curve):
    """y^2 = x^3 + ax + b over a prime field. `order_size` is nLen: half of an ECDSA signature, in bytes."""

    __slots__ = ("native", "order", "order_size")

    def __init__(self, native: ec.EllipticCurve, oid: str) -> None:
        order = native.group_order
        size = (order.bit_length() + 7) // 8
        super().__init__(native.name, oid, native.key_size, 1 + 2 * ((native.key_size + 7) // 8), size)
        self.native = native
        self.order = order
        self.order_size = size

    def generate(self) -> tuple[bytes, bytes]:
        private = ec.generate_private_key(self.native)
        value = private.private_numbers().private_value.to_bytes(self.value_size, "big")
        return value, self.point_of(private.public_key())

    def load_private(self, value: bytes) -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(int.from_bytes(value, "big"), self.native)

    def load_public(self, point: bytes) -> ec.EllipticCurvePublicKey:
        return ec.EllipticCurvePublicKey.from_encoded_point(self.native, point)

    def point_of(self, native: Any) -> bytes:
        numbers = native.public_numbers()
        size = self.point_size // 2
        x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
        return b"".join((b"\x04", x, y))

    def normal_value(self, value: bytes) -> bytes:
        """A big integer, kept at the width that RFC 5915 and PKCS#8 want, so that nobody has to pad it."""
        number = int.from_bytes(value, "big")
        if not 0 < number < self.order:
            raise ValueError("the private value is not between zero and the order of the curve")
        return number.to_bytes(self.value_size, "big")

    def read_point(self, data: bytes) -> bytes:
        """Uncompressed; a compressed point is expanded, and thereby found to be on the curve."""
        if len(data) not in (self.point_size, self.point_size // 2 + 1):
            data = octets(data)
        if len(data) == self.point_size and data[0] == 0x04:
            return data
        if len(data) == self.point_size // 2 + 1 and data[0] in (0x02, 0x03):
            return self.point_of(self.load_public(data))
        raise ValueError("not a point in X9.62's uncompressed or compressed form")

    def write_point(self, point: bytes) -> bytes:
        return der.element(der.OCTET_STRING, point)

    def public_key_info(self, point: bytes) -> bytes:
        algorithm = der.element(der.SEQUENCE, EC_PUBLIC_KEY, self.params)
        return der.element(der.SEQUENCE, algorithm, der.bit_string(point))

    def agree(self, native: Any, peer: bytes) -> bytes:
        return bytes(native.exchange(ec.ECDH(), self.load_public(self.read_point(peer))))


class RawCurve(Curve):
    """A curve whose keys are plain strings of bytes: Edwards and Montgomery."""

    __slots__ = ("private_class", "public_class")

    def __init__(self, name: str, oid: str, bits: int, size: int, classes: tuple[Any, Any]) -> None:
        super().__init__(name, oid, bits, size, size)
        self.private_class, self.public_class = classes

    def generate(self) -> tuple[bytes, bytes]:
        private = self.private_class.generate()
        return private.private_bytes_raw(), private.public_key().public_bytes_raw()

    def load_private(self, value: bytes) -> Any:
        return self.private_class.from_private_bytes(value)

    def load_public(self, point: bytes) -> Any:
        return self.public_class.from_public_bytes(point)

    def keep_point(self, given: bytes, point: bytes) -> bytes:
        return given


ED25519 = RawCurve("edwards25519", "1.3.101.112", 255, 32, (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey))
ED448 = RawCurve("edwards448", "1.3.101.113", 448, 57, (ed448.Ed448PrivateKey, ed448.Ed448PublicKey))
X25519 = RawCurve("curve25519", "1.3.101.110", 255, 32, (x25519.X25519PrivateKey, x25519.X25519PublicKey))
X448 = RawCurve("curve448", "1.3.101.111", 448, 56, (x448.X448PrivateKey, x448.X448PublicKey))

WEIERSTRASS = (
    WeierstrassCurve(ec.SECP192R1(), "1.2.840.10045.3.1.1"),
    WeierstrassCurve(ec.SECP224R1(), "1.3.132.0.33"),
    WeierstrassCurve(ec.SECP256R1(), "1.2.840.10045.3.1.7"),
    WeierstrassCurve(ec.SECP256K1(), "1.3.132.0.10"),
    WeierstrassCurve(ec.SECP384R1(), "1.3.132.0.34"),
    WeierstrassCurve(ec.SECP521R1(), "1.3.132.0.35"),
    WeierstrassCurve(ec.BrainpoolP256R1(), "1.3.36.3.3.2.8.1.1.7"),
    WeierstrassCurve(ec.BrainpoolP384R1(), "1.3.36.3.3.2.8.1.1.11"),
    WeierstrassCurve(ec.BrainpoolP512R1(), "1.3.36.3.3.2.8.1.1.13"),
)

# Curve25519 to NSS (certutil -q curve25519), Ed25519 to GnuPG: the key type tells them apart.
CONTESTED_25519 = der.object_identifier("1.3.6.1.4.1.11591.15.1")
GNUPG_CURVE25519 = der.object_identifier("1.3.6.1.4.1.3029.1.5.1")
# pkcs11-tool up to 0.23 says 11 where the name has 10 letters.
OPENSC_CURVE25519 = b"\x13\x0bcurve25519"


def _name(name: str) -> bytes:
    return der.element(der.PRINTABLE_STRING, name.encode("ascii"))


# By key type: every CKA_EC_PARAMS that we know, with its curve.
CURVES: dict[int, dict[bytes, Curve]] = {
    CKK.EC: {
        **{curve.params: curve for curve in WEIERSTRASS},
        **{_name(curve.name): curve for curve in WEIERSTRASS},
        _name("prime192v1"): WEIERSTRASS[0],
        _name("prime256v1"): WEIERSTRASS[2],
        CONTESTED_25519: X25519,
    },
    CKK.EC_EDWARDS: {
        ED25519.params: ED25519,
        ED448.params: ED448,
        _name(ED25519.name): ED25519,
        _name(ED448.name): ED448,
        CONTESTED_25519: ED25519,
    },
    CKK.EC_MONTGOMERY: {
        X25519.params: X25519,
        X448.params: X448,
        _name(X25519.name): X25519,
        _name(X448.name): X448,
        OPENSC_CURVE25519: X25519,
        GNUPG_CURVE25519: X25519,
        CONTESTED_25519: X25519,
    },
}


def curve_of(key_type: int, params: bytes) -> Curve:
    """The curve that CKA_EC_PARAMS names for keys of this type."""
    curve = CURVES[key_type].get(params)
    if curve is not None:
        return curve
    if params[:1] in (b"\x06", b"\x13"):
        raise PKCS11Error(CKR.CURVE_NOT_SUPPORTED, "keys of this type are not supported on the curve of CKA_EC_PARAMS")
    raise PKCS11Error(CKR.DOMAIN_PARAMS_INVALID, "CKA_EC_PARAMS must be the OID or the name of a curve")


def normal_params(params: bytes, curve: Curve) -> bytes:
    """CKA_EC_PARAMS as we keep it: an OID as it was given, a name as the curve's OID.

    NSS computes with OIDs only, so that a key made by name (pkcs11-tool does so) serves it as well.
    """
    return params if params[0] == der.OBJECT_IDENTIFIER else curve.params
