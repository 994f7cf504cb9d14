"""CK_MECHANISM with its parameter: raw bytes, a params class of spec/parameters, or nothing."""

from __future__ import annotations

import ctypes
from ctypes import c_ubyte, c_ulong, c_void_p
from typing import Any

from keyfob.nss.driver import structs
from keyfob.nss.driver.values import HASHES_AND_MASKS, bytes_text, hidden, mechanism_name, number_text
from keyfob.spec.parameters import LAYOUTS, Counts, Ecdh1DeriveParams, EddsaParams

LENGTH_FIRST = (Ecdh1DeriveParams, EddsaParams)
"""In these structs a length stands before its pointer; LAYOUTS names the fields, not their order."""

_STRUCTS: dict[type, type[ctypes.Structure]] = {}
UNSET = 0x5A5A5A5A5A5A5A58
"""What stands in a field that nobody has set: no address of a process, no handle and no length."""


class Mechanism:
    """A mechanism and its parameter; it keeps alive what C sees as long as it lives.

    Empty bytes become NULL with length 0, as NSS passes OAEP's pSourceData. `unset`: the fields that do not count are
    as a C program leaves them that never sets them (NSS and HKDF's salt).
    """

    __slots__ = ("_kept", "kind", "parameter", "struct")

    def __init__(self, kind: int, parameter: Any = b"", *, unset: bool = False) -> None:
        self.kind = kind
        self.parameter = parameter
        self._kept: list[Any] = []
        self.struct = structs.MechanismStruct(mechanism=kind, pParameter=None, ulParameterLen=0)
        if isinstance(parameter, bytes):
            if parameter:
                held: Any = ctypes.create_string_buffer(parameter, len(parameter))
                self._keep(held, len(parameter))
        elif parameter is not None:
            held = _encoded(parameter, self._kept, unset=unset)
            self._keep(held, ctypes.sizeof(held))

    def _keep(self, held: Any, length: int) -> None:
        self._kept.append(held)
        self.struct.pParameter = ctypes.addressof(held)
        self.struct.ulParameterLen = length

    def parameter_text(self) -> str:
        """`hashAlg=CKM_SHA256, mgf=CKG_MGF1_SHA256, sLen=32`, hex for bytes, empty without a parameter."""
        if isinstance(self.parameter, bytes):
            return self.parameter.hex()
        return "" if self.parameter is None else _text(self.parameter)

    def text(self) -> str:
        parameter = self.parameter_text()
        return mechanism_name(self.kind) + (f"{{{parameter}}}" if parameter else "")


def _struct_of(layout: type, value: Any) -> type[ctypes.Structure]:
    """The C struct of a params class; inline arrays take the length of their value, which the standard fixes."""
    known = _STRUCTS.get(layout)
    if known is None:
        fields: list[tuple[str, Any]] = []
        for kind, name, c_names, _when in LAYOUTS[layout][1]:
            if kind == "ulong":
                fields.append((c_names[0], c_ulong))
            elif kind == "bool":
                fields.append((c_names[0], c_ubyte))
            elif kind == "array":
                fields.append((c_names[0], c_ubyte * len(getattr(value, name))))
            else:  # "bytes"
                pair = [(c_names[0], c_void_p), (c_names[1], c_ulong)]
                fields += reversed(pair) if layout in LENGTH_FIRST else pair
        known = type(LAYOUTS[layout][0], (ctypes.Structure,), {"_fields_": fields})
        _STRUCTS[layout] = known
    return known


def _encoded(value: Any, kept: list[Any], *, unset: bool) -> ctypes.Structure:
    struct = _struct_of(type(value), value)()
    for kind, name, c_names, _when in LAYOUTS[type(value)][1]:
        item = getattr(value, name)
        if kind in ("ulong", "bool"):
            setattr(struct, c_names[0], int(item))
        elif kind == "array":
            getattr(struct, c_names[0])[:] = item
        else:  # "bytes"
            held: Any = ctypes.create_string_buffer(item, len(item)) if item else None
            kept.append(held)
            setattr(struct, c_names[0], ctypes.addressof(held) if held is not None else None)
            setattr(struct, c_names[1], len(item or b""))
    if unset:
        for name in never_set(type(value), struct):
            setattr(struct, name, UNSET)
    return struct


def never_set(layout: type, struct: ctypes.Structure) -> list[str]:
    """The fields, lengths with their pointers, that do not count here, whatever is in them (spec/parameters.py)."""
    return [
        name
        for _kind, _name, c_names, when in LAYOUTS[layout][1]
        for name in c_names
        if when is not None and not when[1] and not _all_hold(struct, when)
    ]


def _all_hold(struct: ctypes.Structure, when: Counts) -> bool:
    conditions = when[0] if when is not None else ()
    return conditions is not None and all(
        (getattr(struct, name) == value) is equal for name, value, equal in conditions
    )


def _text(value: Any) -> str:
    parts = []
    for kind, name, c_names, _when in LAYOUTS[type(value)][1]:
        item = getattr(value, name)
        if name in ("password", "prf_data"):
            shown = hidden(len(item or b""))
        elif kind == "ulong":
            shown = number_text(HASHES_AND_MASKS.get(c_names[0]), item)
        elif kind == "bool":
            shown = "TRUE" if item else "FALSE"
        else:
            shown = bytes_text(item) if item else "NULL"
        parts.append(f"{c_names[0]}={shown}")
    return ", ".join(parts)
