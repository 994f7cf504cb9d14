"""C pointers to Python values and back; the one place that writes output lengths (section 5.2).

Every length that comes from the caller is bounded before memory is read, so that a count of -1 is an error code and
not a walk through the host's memory.
"""

from __future__ import annotations

from keyfob._abi import ffi, lib
from keyfob._held import hold
from keyfob.abi import arrays
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error, name_of
from keyfob.spec.parameters import LAYOUTS, PARAMETER_OF, GcmParams
from keyfob.token.nested import TEMPLATES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from keyfob.spec.parameters import Counts

    Data = Any  # a C pointer as cffi hands it over

MAX_DATA = 1 << 31
MAX_ATTRIBUTES = 1 << 14
MAX_VALUE = 1 << 26
MAX_PARAMETER = 1 << 20
OLD_GCM_SIZE = 40  # CK_GCM_PARAMS of v2.30 to v2.40: without ulIvBits

buffer = ffi.buffer
cast = ffi.cast
memmove = ffi.memmove
unpack = ffi.unpack

WORDS = ffi.typeof("CK_ULONG *")
BYTES = ffi.typeof("char *")


def take(pointer: Data, length: int) -> bytes:
    """Input data; NULL stands for no data when the length is 0."""
    if not length:
        return b""
    if not pointer:
        raise PKCS11Error(CKR.ARGUMENTS_BAD, f"a NULL pointer was given for {length} bytes")
    if length > MAX_DATA:
        raise PKCS11Error(CKR.ARGUMENTS_BAD, f"{length} bytes are more than a call can take")
    data: bytes = buffer(pointer, length)[:]
    return data


def take_or_none(pointer: Data, length: int) -> bytes | None:
    """A PIN: NULL means that the token shall ask for it itself (protected authentication path, P31)."""
    if not pointer and not length:
        return None
    if length > MAX_PARAMETER:
        raise PKCS11Error(CKR.PIN_LEN_RANGE, "the PIN's length is out of range")
    return hold(buffer(pointer, length)) if pointer and length else take(pointer, length)


def room(pointer: Data, length: Data) -> int | None:
    """The size of the caller's output buffer, None when it only asks for the size."""
    if not length:
        raise PKCS11Error(CKR.ARGUMENTS_BAD, "the pointer to the output's length is NULL")
    if not pointer:
        return None
    size: int = length[0]
    return size


def give(result: bytes | int, pointer: Data, length: Data) -> int:
    """Write an output, or (an int) the size it needs: CKR_OK to a query, CKR_BUFFER_TOO_SMALL to a short buffer."""
    if type(result) is int:
        length[0] = result
        return CKR.BUFFER_TOO_SMALL if pointer else CKR.OK
    size = len(result)  # type: ignore[arg-type]
    if size:
        memmove(pointer, result, size)
    length[0] = size
    return CKR.OK


def wanted(pointer: Data) -> None:
    """An output that must be there."""
    if not pointer:
        raise PKCS11Error(CKR.ARGUMENTS_BAD, "the pointer to the output is NULL")


def give_handle(handle: int, pointer: Data) -> int:
    pointer[0] = handle
    return CKR.OK


def words_of(pointer: Data, count: int) -> Data:
    """A CK_ATTRIBUTE array as an array of its machine words: type, address, length of the first, then of the second."""
    if not pointer and count:
        raise PKCS11Error(CKR.ARGUMENTS_BAD, f"a NULL template was given for {count} attributes")
    if count > MAX_ATTRIBUTES:
        raise PKCS11Error(CKR.ARGUMENTS_BAD, f"{count} attributes are more than a template can have")
    return cast(WORDS, pointer)


def template(pointer: Data, count: int) -> list[tuple[int, bytes]]:
    """An input template, in the caller's order."""
    if not count:
        return []
    words = unpack(words_of(pointer, count), 3 * count)
    result = []
    for i in range(0, 3 * count, 3):
        attribute, address, length = words[i], words[i + 1], words[i + 2]
        if not length:
            result.append((attribute, b""))
            continue
        if not address or length > MAX_VALUE:
            raise PKCS11Error(
                CKR.ATTRIBUTE_VALUE_INVALID,
                f"{name_of('CKA', attribute)} has {'no value' if not address else 'an impossible length'}",
            )
        if attribute in TEMPLATES:
            result.append((attribute, arrays.Reader().read(address, length)))
        else:
            result.append((attribute, unpack(cast(BYTES, address), length)))
    return result


def mechanism(pointer: Data) -> tuple[int, Any] | None:
    """(CKM_*, parameter): None, raw bytes or an object of spec.parameters; None for a NULL mechanism (v3.0: cancel)."""
    if not pointer:
        return None
    kind: int = pointer.mechanism
    parameter = pointer.pParameter
    length: int = pointer.ulParameterLen
    if not parameter or not length:
        if parameter or not length:
            return kind, None
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "a NULL mechanism parameter has a length")
    if length > MAX_PARAMETER:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the mechanism parameter's length is impossible")
    made = PARAMETER_OF.get(kind)
    if made is None:
        return kind, buffer(parameter, length)[:]
    if made is GcmParams and length == OLD_GCM_SIZE:
        return kind, _old_gcm(parameter)
    reader = _READERS.get(made)
    if reader is None:
        reader = _READERS[made] = _reader(made)
    return kind, reader(parameter, length)


_READERS: dict[type, Callable[[Data, int], Any]] = {}


def _reader(made: type) -> Callable[[Data, int], Any]:
    """What reads this parameter's struct, from its layout (spec/parameters.py).

    A field that does not count is as good as not there: real programs leave in it what the stack held (NSS, HKDF).
    """
    struct, fields = LAYOUTS[made]
    pointer_type = ffi.typeof(f"{struct} *")
    size = ffi.sizeof(struct)

    def field(held: Data, kind: str, names: tuple[str, ...], when: Counts) -> Any:
        if when is not None and not _counts(held, when[0]):
            if when[1] and getattr(held, names[1]):
                raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, f"{names[0]} of {struct} must be empty here")
            return b"" if kind == "bytes" else 0
        value = getattr(held, names[0])
        if kind == "bytes":
            length = getattr(held, names[1])
            if names[1] == "ulPasswordLen" and length > MAX_PARAMETER:
                length = _password_length(length)
            return _nested(value, length)
        if kind == "bool":
            return value != 0
        if kind == "array":
            return buffer(value)[:]
        return value

    def read(parameter: Data, length: int) -> Any:
        if length != size:
            raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, f"{struct} has {size} bytes, not {length}")
        held = cast(pointer_type, parameter)
        return made(*[field(held, kind, names, when) for kind, _, names, when in fields])

    return read


def _counts(held: Data, conditions: tuple[tuple[str, int, bool], ...] | None) -> bool:
    """Whether a field counts that does so only where all the conditions hold (None: it never does)."""
    return conditions is not None and all((getattr(held, name) == value) is equal for name, value, equal in conditions)


def _nested(pointer: Data, length: int) -> bytes:
    if not length:
        return b""
    if not pointer or length > MAX_PARAMETER:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "a field of the mechanism parameter has no data or too much")
    data: bytes = buffer(pointer, length)[:]
    return data


def _password_length(address: int) -> int:
    """CK_PKCS5_PBKD2_PARAMS, which NSS 3.87 sends, has a pointer to the length where ..._PARAMS2 has the length.

    The structs are alike otherwise, and no address of a Linux process is as small as a password is long.
    """
    word = ffi.new(WORDS)
    if not lib.keyfob_peek(address, word):
        raise PKCS11Error(
            CKR.MECHANISM_PARAM_INVALID, "the password's length is impossible, and no address of a length"
        )
    length: int = word[0]
    return length


def _old_gcm(parameter: Data) -> GcmParams:
    words = unpack(cast(WORDS, parameter), OLD_GCM_SIZE // 8)
    iv = _nested(cast(BYTES, words[0]), words[1])
    return GcmParams(iv, 8 * len(iv), _nested(cast(BYTES, words[2]), words[3]), words[4])


def padded(text: str, size: int) -> bytes:
    """A fixed text field: UTF-8, cut at a character, padded with blanks, never NUL (P40)."""
    data = text.encode()[:size]
    return data.decode(errors="ignore").encode().ljust(size, b" ")
