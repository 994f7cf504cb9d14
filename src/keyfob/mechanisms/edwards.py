"""Edwards and Montgomery curves: EdDSA with Ed25519 and Ed448, key pairs for X25519 and X448 (PKCS #11 v3.2, 6.3).

ECDH with Montgomery keys is the CKM_ECDH1_DERIVE row of ec.py.
"""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import InvalidSignature

from keyfob.mechanisms.base import Key, Mechanism, Parts, twin
from keyfob.mechanisms.curve_keys import (
    EdwardsPrivateKey,
    EdwardsPublicKey,
    MontgomeryPrivateKey,
    MontgomeryPublicKey,
    pair_generator,
)
from keyfob.spec.constants import CKF, CKK, CKM, CKO, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.spec.parameters import EddsaParams


def check_parameter(parameter: Any) -> None:
    """Only pure EdDSA is here: no parameter, or one that asks for neither a prehash nor a context.

    With it the standard would mean Ed25519ctx of an empty context on Ed25519, which RFC 8032 (8.5) advises against;
    programs that fill the structure with nothing mean the pure scheme.
    """
    if parameter and not (isinstance(parameter, EddsaParams) and not parameter.prehash and not parameter.context_data):
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "EdDSA takes neither a prehash nor a context")


class EddsaSign:
    """CKM_EDDSA. EdDSA reads its message twice, so that parts are kept until the end."""

    __slots__ = ("native", "output_size", "parts")

    def __init__(self, key: EdwardsPrivateKey, parameter: Any) -> None:
        check_parameter(parameter)
        self.output_size = 2 * key.curve.point_size
        self.native = key.native
        self.parts = Parts()

    def sign(self, data: bytes) -> bytes:
        return bytes(self.native.sign(data))

    @property
    def held(self) -> int:
        return self.parts.held

    def copy(self) -> EddsaSign:
        return twin(self, parts=self.parts.copy())

    def update(self, part: bytes) -> None:
        self.parts.add(part)

    def final(self) -> bytes:
        return self.sign(self.parts.joined())


class EddsaVerify:
    """CKM_EDDSA."""

    __slots__ = ("native", "parts", "size")

    def __init__(self, key: EdwardsPublicKey, parameter: Any) -> None:
        check_parameter(parameter)
        self.size = 2 * key.curve.point_size
        self.native = key.native
        self.parts = Parts()

    def verify(self, data: bytes, signature: bytes) -> None:
        if len(signature) != self.size:
            raise PKCS11Error(CKR.SIGNATURE_LEN_RANGE, f"an EdDSA signature of this curve has {self.size} bytes")
        try:
            self.native.verify(signature, data)
        except InvalidSignature:
            raise PKCS11Error(CKR.SIGNATURE_INVALID, "the EdDSA signature is not valid") from None

    @property
    def held(self) -> int:
        return self.parts.held

    def copy(self) -> EddsaVerify:
        return twin(self, parts=self.parts.copy())

    def update(self, part: bytes) -> None:
        self.parts.add(part)

    def final(self, signature: bytes) -> None:
        self.verify(self.parts.joined(), signature)


SIZES = (255, 448)
EC_FLAGS = CKF.EC_F_P | CKF.EC_OID | CKF.EC_CURVENAME | CKF.EC_COMPRESS

MECHANISMS = (
    Mechanism(
        CKM.EC_EDWARDS_KEY_PAIR_GEN,
        {CKF.GENERATE_KEY_PAIR: pair_generator(CKK.EC_EDWARDS)},
        makes=CKK.EC_EDWARDS,
        sizes=SIZES,
        extra_flags=EC_FLAGS,
    ),
    Mechanism(
        CKM.EDDSA,
        {CKF.SIGN: EddsaSign, CKF.VERIFY: EddsaVerify},
        key_types=(CKK.EC_EDWARDS,),
        sizes=SIZES,
        extra_flags=EC_FLAGS,
    ),
    Mechanism(
        CKM.EC_MONTGOMERY_KEY_PAIR_GEN,
        {CKF.GENERATE_KEY_PAIR: pair_generator(CKK.EC_MONTGOMERY)},
        makes=CKK.EC_MONTGOMERY,
        sizes=SIZES,
        extra_flags=EC_FLAGS,
    ),
)

KEYS: dict[tuple[int, int], type[Key]] = {
    (CKO.PRIVATE_KEY, CKK.EC_EDWARDS): EdwardsPrivateKey,
    (CKO.PUBLIC_KEY, CKK.EC_EDWARDS): EdwardsPublicKey,
    (CKO.PRIVATE_KEY, CKK.EC_MONTGOMERY): MontgomeryPrivateKey,
    (CKO.PUBLIC_KEY, CKK.EC_MONTGOMERY): MontgomeryPublicKey,
}
