"""Message authentication codes as PKCS #11 operations, whatever computes them (HMAC, CMAC, CBC-MAC).

A family gives an engine, which starts a context for a key, and says how the length of the code follows from the
mechanism's parameter: `whole`, `half` (CKM_AES_MAC, CKM_DES3_MAC) or `chosen` (CKM_*_GENERAL).
"""

from __future__ import annotations

from _operator import _compare_digest
from collections.abc import Callable
from functools import partial
from typing import Protocol

from keyfob.mechanisms.base import Key, Mechanism, twin
from keyfob.mechanisms.secret_key import no_parameter, number
from keyfob.spec.constants import CKF, CKR
from keyfob.spec.errors import PKCS11Error


class MacContext(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def finalize(self) -> bytes: ...
    def copy(self) -> MacContext: ...


class MacEngine(Protocol):
    """`size`: the length of the full code in bytes."""

    @property
    def size(self) -> int: ...
    def start(self, key: Key) -> MacContext: ...


LengthOf = Callable[[int, object], int]

# In constant time. hmac.compare_digest is this very function; importing hmac would load the system's libcrypto.
same_bytes = _compare_digest


def whole(size: int, parameter: object) -> int:
    no_parameter(parameter)
    return size


def half(size: int, parameter: object) -> int:
    no_parameter(parameter)
    return size // 2


def chosen(size: int, parameter: object) -> int:
    """CK_MAC_GENERAL_PARAMS: a CK_ULONG, the length of the code in bytes."""
    if not isinstance(parameter, bytes) or len(parameter) != 8 or not 1 <= number(parameter) <= size:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, f"the parameter must be a length from 1 to {size}")
    return number(parameter)


class MacSign:
    """Signer."""

    __slots__ = ("_context", "output_size")

    def __init__(self, engine: MacEngine, length_of: LengthOf, key: Key, parameter: object) -> None:
        self.output_size = length_of(engine.size, parameter)
        self._context = engine.start(key)

    def sign(self, data: bytes) -> bytes:
        self._context.update(data)
        return self._context.finalize()[: self.output_size]

    def update(self, part: bytes) -> None:
        self._context.update(part)

    def final(self) -> bytes:
        return self._context.finalize()[: self.output_size]

    def copy(self) -> MacSign:
        return twin(self, _context=self._context.copy())


class MacVerify:
    """Verifier; compares in constant time."""

    __slots__ = ("_sign",)

    def __init__(self, engine: MacEngine, length_of: LengthOf, key: Key, parameter: object) -> None:
        self._sign = MacSign(engine, length_of, key, parameter)

    def verify(self, data: bytes, signature: bytes) -> None:
        self._sign.update(data)
        self.final(signature)

    def update(self, part: bytes) -> None:
        self._sign.update(part)

    def final(self, signature: bytes) -> None:
        if len(signature) != self._sign.output_size:
            raise PKCS11Error(CKR.SIGNATURE_LEN_RANGE, f"the code must have {self._sign.output_size} bytes")
        if not same_bytes(self._sign.final(), signature):
            raise PKCS11Error(CKR.SIGNATURE_INVALID, "the code is not that of the data")

    def copy(self) -> MacVerify:
        return twin(self, _sign=self._sign.copy())


def mac_row(
    mechanism: int, engine: MacEngine, length_of: LengthOf, key_types: tuple[int, ...], sizes: tuple[int, int]
) -> Mechanism:
    """The row of a code: C_Sign and C_Verify."""
    return Mechanism(
        mechanism,
        {CKF.SIGN: partial(MacSign, engine, length_of), CKF.VERIFY: partial(MacVerify, engine, length_of)},
        key_types=key_types,
        sizes=sizes,
    )
