"""The standard's structs and function pointers as ctypes sees them, for LP64 machines.

Text fields are arrays of bytes, not of C characters: ctypes would end those at their first NUL, which is just what a
checker wants to see.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_ubyte, c_ulong, c_void_p
from typing import Any, ClassVar

from keyfob.spec.functions import FUNCTIONS

UNAVAILABLE = 0xFFFFFFFFFFFFFFFF
"""CK_UNAVAILABLE_INFORMATION: the length of an attribute that has no value."""


class Version(ctypes.Structure):
    """CK_VERSION."""

    _fields_: ClassVar = [("major", c_ubyte), ("minor", c_ubyte)]


class Info(ctypes.Structure):
    """CK_INFO."""

    _fields_: ClassVar = [
        ("cryptokiVersion", Version),
        ("manufacturerID", c_ubyte * 32),
        ("flags", c_ulong),
        ("libraryDescription", c_ubyte * 32),
        ("libraryVersion", Version),
    ]


class SlotInfo(ctypes.Structure):
    """CK_SLOT_INFO."""

    _fields_: ClassVar = [
        ("slotDescription", c_ubyte * 64),
        ("manufacturerID", c_ubyte * 32),
        ("flags", c_ulong),
        ("hardwareVersion", Version),
        ("firmwareVersion", Version),
    ]


class TokenInfo(ctypes.Structure):
    """CK_TOKEN_INFO."""

    _fields_: ClassVar = [
        ("label", c_ubyte * 32),
        ("manufacturerID", c_ubyte * 32),
        ("model", c_ubyte * 16),
        ("serialNumber", c_ubyte * 16),
        ("flags", c_ulong),
        ("ulMaxSessionCount", c_ulong),
        ("ulSessionCount", c_ulong),
        ("ulMaxRwSessionCount", c_ulong),
        ("ulRwSessionCount", c_ulong),
        ("ulMaxPinLen", c_ulong),
        ("ulMinPinLen", c_ulong),
        ("ulTotalPublicMemory", c_ulong),
        ("ulFreePublicMemory", c_ulong),
        ("ulTotalPrivateMemory", c_ulong),
        ("ulFreePrivateMemory", c_ulong),
        ("hardwareVersion", Version),
        ("firmwareVersion", Version),
        ("utcTime", c_ubyte * 16),
    ]


class SessionInfo(ctypes.Structure):
    """CK_SESSION_INFO."""

    _fields_: ClassVar = [("slotID", c_ulong), ("state", c_ulong), ("flags", c_ulong), ("ulDeviceError", c_ulong)]


class MechanismInfo(ctypes.Structure):
    """CK_MECHANISM_INFO."""

    _fields_: ClassVar = [("ulMinKeySize", c_ulong), ("ulMaxKeySize", c_ulong), ("flags", c_ulong)]


class Attribute(ctypes.Structure):
    """CK_ATTRIBUTE."""

    _fields_: ClassVar = [("type", c_ulong), ("pValue", c_void_p), ("ulValueLen", c_ulong)]


class MechanismStruct(ctypes.Structure):
    """CK_MECHANISM."""

    _fields_: ClassVar = [("mechanism", c_ulong), ("pParameter", c_void_p), ("ulParameterLen", c_ulong)]


class Interface(ctypes.Structure):
    """CK_INTERFACE."""

    _fields_: ClassVar = [("pInterfaceName", c_void_p), ("pFunctionList", c_void_p), ("flags", c_ulong)]


class NssInitializeArgs(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS as NSS has it: LibraryParameters stands where the standard has pReserved (rule G2)."""

    _fields_: ClassVar = [
        ("CreateMutex", c_void_p),
        ("DestroyMutex", c_void_p),
        ("LockMutex", c_void_p),
        ("UnlockMutex", c_void_p),
        ("flags", c_ulong),
        ("LibraryParameters", c_void_p),
        ("pReserved", c_void_p),
    ]


def text(field: Any) -> bytes:
    """The bytes of a text field, with whatever pads it."""
    return bytes(field)


def copied(struct: ctypes.Structure) -> Any:
    """A struct of one's own, which the next call does not overwrite."""
    return type(struct).from_buffer_copy(struct)


def _ctype(name: str) -> Any:
    if name.endswith("_PTR") or name == "CK_NOTIFY":
        return c_void_p
    return c_ubyte if name == "CK_BBOOL" else c_ulong


PROTOTYPES: dict[str, Any] = {
    name: ctypes.CFUNCTYPE(c_ulong, *(_ctype(kind) for _argument, kind in arguments))
    for name, (_since, arguments) in FUNCTIONS.items()
}
"""The type of each C_* function; calls through them release the GIL."""

NAMES_2: tuple[str, ...] = tuple(name for name, (since, _) in FUNCTIONS.items() if since == "2.40")
NAMES_3_0: tuple[str, ...] = NAMES_2 + tuple(name for name, (since, _) in FUNCTIONS.items() if since == "3.0")
NAMES_3_2: tuple[str, ...] = NAMES_3_0 + tuple(name for name, (since, _) in FUNCTIONS.items() if since == "3.2")


def names_of_list(major: int, minor: int) -> tuple[str, ...]:
    """The functions, in order, of a list that says it has this version: it may end after them."""
    if major < 3:
        return NAMES_2
    return NAMES_3_0 if (major, minor) < (3, 2) else NAMES_3_2


def pointers_of_list(address: int) -> tuple[tuple[int, int], dict[str, int]]:
    """((major, minor), {C_*: address, 0 for NULL}) of the CK_FUNCTION_LIST at `address`; no byte behind it is read."""
    version = Version.from_address(address)
    names = names_of_list(version.major, version.minor)
    # The struct is packed by nature: a CK_VERSION, padding up to the alignment of a pointer, the pointers.
    start = address + ctypes.sizeof(c_void_p)
    pointers = (c_void_p * len(names)).from_address(start)
    return (version.major, version.minor), {name: pointers[i] or 0 for i, name in enumerate(names)}


AttributePointer = POINTER(Attribute)
