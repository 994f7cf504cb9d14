"""What every family of mechanisms is made of: rows, keys and operations.

A family is one file with three things: `MECHANISMS`, the rows; `KEYS`, the key classes by (CKO_*, CKK_*); and the
operation classes that the rows name (what those offer is in protocols.py). The flags of C_GetMechanismInfo are
derived from the operations that a row really has. An operation is built by the token for one C_*Init call and dies
with it:

    flag                                   operation built as            used through
    CKF_SIGN, CKF_SIGN_RECOVER             cls(key, parameter)           Signer
    CKF_VERIFY                             cls(key, parameter)           Verifier
    CKF_VERIFY_RECOVER                     cls(key, parameter)           VerifyRecoverer
    CKF_ENCRYPT, CKF_DECRYPT               cls(key, parameter)           Cipher
    CKF_DIGEST                             cls(parameter)                Digester
    CKF_WRAP, CKF_UNWRAP                   cls(key, parameter)           Wrapper, Unwrapper
    CKF_DERIVE                             derive(key, parameter, length: int | None) -> bytes
    CKF_GENERATE                           generate(parameter, template) -> attributes
    CKF_GENERATE_KEY_PAIR                  generate_pair(parameter, public, private) -> (attributes, attributes)

An operation whose state can be saved (C_GetOperationState) has copy(): an independent one that stands where this one
stands. One without it answers CKR_STATE_UNSAVEABLE. One that keeps what it is given (`Parts`) says how much it `held`.

`parameter` is what the caller's CK_MECHANISM held: None, the raw bytes (an IV), or an object of spec.parameters.
Attributes are a dict from CKA_* to the value's bytes as C sees them (CK_ULONG: 8 bytes in host order, CK_BBOOL: 1
byte). Whatever is wrong is said with PKCS11Error and the standard's code; the constructor checks everything it can,
so that C_*Init fails rather than the call that follows.
"""

from __future__ import annotations

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    Made = TypeVar("Made")

Attributes = dict[int, bytes]

MOST_KEPT = 1 << 26  # bytes; in one part more is possible: that is the caller's own memory


class Key:
    """A key as mechanisms see it. Subclasses add what their family needs and may hold the secret elsewhere.

    `attributes` is the object's own dict, read-only here. `native` caches the library's key object.
    """

    __slots__ = ("attributes", "native_cache")

    def __init__(self, attributes: Mapping[int, bytes]) -> None:
        self.attributes = attributes
        self.native_cache: Any = None

    @classmethod
    def complete(cls, attributes: Attributes) -> Attributes:
        """Attributes that follow from those given (C_CreateObject, C_UnwrapKey, C_DeriveKey); raises when inconsistent.

        Returns only what is to be added or replaced (e.g. CKA_MODULUS_BITS, a normalised CKA_EC_POINT, CKA_VALUE_LEN).
        """
        return {}

    @classmethod
    def same(cls, attribute: int, value: bytes, attributes: Mapping[int, bytes]) -> bool:
        """Whether `value` says what the key's attributes do in another form (a point raw for DER, a curve's name)."""
        return False

    def computed(self, attribute: int) -> bytes | None:
        """An attribute that the object has and does not hold, since it follows from the others; None: it has none."""
        return None

    def public_value(self) -> bytes | None:
        """What CKA_ID's default is the SHA-1 of (O10, N15): modulus or uncompressed point; None for secret keys."""
        return None


class SinglePart:
    """Base of operations that take their data in one call: C_*Update is not theirs.

    `reusable`: it holds no state of a call, so one serves all uses of its key that give no parameter.
    """

    reusable = False

    def copy(self) -> SinglePart:
        """Itself: between C_*Init and the one call that ends it nothing changes."""
        return self

    def update(self, part: bytes) -> Any:
        raise PKCS11Error(CKR.FUNCTION_NOT_SUPPORTED, "this mechanism works on single-part data only")

    def update_size(self, length: int) -> int:
        raise PKCS11Error(CKR.FUNCTION_NOT_SUPPORTED, "this mechanism works on single-part data only")

    def final(self, *signature: bytes) -> Any:
        raise PKCS11Error(CKR.FUNCTION_NOT_SUPPORTED, "this mechanism works on single-part data only")

    def final_size(self) -> int:
        raise PKCS11Error(CKR.FUNCTION_NOT_SUPPORTED, "this mechanism works on single-part data only")


class Parts:
    """What a mechanism must have as a whole before it gives anything, kept until then; `held`: how many bytes."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept = bytearray()

    @property
    def held(self) -> int:
        return len(self._kept)

    def add(self, part: bytes) -> None:
        if len(self._kept) + len(part) > MOST_KEPT:
            raise PKCS11Error(CKR.DEVICE_MEMORY, f"this mechanism takes at most {MOST_KEPT} bytes in parts")
        self._kept += part

    def joined(self) -> bytes:
        return bytes(self._kept)

    def copy(self) -> Parts:
        other = Parts()
        other._kept[:] = self._kept
        return other


def twin(operation: Made, **own: Any) -> Made:
    """An operation with the same values but those that the two must not share: what copy() gives."""
    other = object.__new__(type(operation))
    for part in type(operation).__mro__:
        for name in getattr(part, "__slots__", ()):
            setattr(other, name, own[name] if name in own else getattr(operation, name))
    return other


class Mechanism:
    """A row: the mechanism, its operations by CKF_* flag, its key sizes in the standard's unit (bits or bytes).

    `key_types` are the CKK_* it takes (empty: no key); `makes` the CKK_* that generation gives, where it is fixed.
    `extra_flags` are CKF_EC_* and the like, which describe and promise no operation.
    """

    __slots__ = ("extra_flags", "key_types", "makes", "max_key_size", "min_key_size", "operations", "type")

    def __init__(
        self,
        type: int,  # noqa: A002 - the standard's word
        operations: Mapping[int, Callable[..., Any]],
        *,
        key_types: tuple[int, ...] = (),
        makes: int | None = None,
        sizes: tuple[int, int] = (0, 0),
        extra_flags: int = 0,
    ) -> None:
        self.type = type
        self.operations = operations
        self.key_types = key_types
        self.makes = makes
        self.min_key_size, self.max_key_size = sizes
        self.extra_flags = extra_flags

    @property
    def flags(self) -> int:
        """CKF_* for C_GetMechanismInfo."""
        result = self.extra_flags
        for flag in self.operations:
            result |= flag
        return result
