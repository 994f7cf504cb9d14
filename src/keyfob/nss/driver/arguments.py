"""Arguments of C_* functions: each knows its C values, its text for the record and, after the call, what came out.

An argument may take two of a function's parameters (a pointer and its length). `shown` gives JSON-ready dicts:
{"name", "text"}, with "attributes" [{"type", "value", "length"}] for templates and "mechanism"/"parameter" for
mechanisms (docs/check.md).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_ulong
from typing import Any

from keyfob.nss.driver import structs, values
from keyfob.nss.driver.mechanism import Mechanism
from keyfob.nss.driver.values import Template, Value, attribute_name, class_of, encoded, hidden, value_text

Shown = dict[str, Any]
GUARD = 16
"""Bytes behind every output buffer that no module may touch."""
MOST_BYTES, MOST_NUMBERS = 1 << 26, 1 << 16
"""No buffer is larger, whatever size a module asks for: some ask for anything."""
_CANARY = 0xA5


class Argument:
    """One value, given to C as it is."""

    takes = 1

    def __init__(self, value: int | None, text: str = "") -> None:
        self.value = value
        self._text = text

    def c_values(self) -> tuple[Any, ...]:
        return (self.value,)

    def shown(self, names: Sequence[str]) -> list[Shown]:
        text = self._text or ("NULL" if self.value is None else str(self.value))
        return [{"name": names[0], "text": text}]

    def result(self) -> Any:
        """What came out; None for what only goes in."""
        return None

    def result_shown(self, names: Sequence[str]) -> list[Shown]:
        return []

    def overrun(self) -> bool:
        """Whether the module wrote behind the buffer."""
        return False


class Named(Argument):
    """A number with a name: a user type, flags, a mechanism type."""


class Data(Argument):
    """Bytes in, with their length: None is NULL and 0. A `secret` is shown by its length."""

    takes = 2

    def __init__(self, data: bytes | None, *, secret: bool = False, length: int | None = None) -> None:
        super().__init__(None)
        self.data = data
        self.secret = secret
        self.length = (0 if data is None else len(data)) if length is None else length
        self.held = None if data is None else ctypes.create_string_buffer(data, max(len(data), 1))

    def c_values(self) -> tuple[Any, ...]:
        return (self.held, self.length)

    def shown(self, names: Sequence[str]) -> list[Shown]:
        return [{"name": names[0], "text": self._data_text()}, {"name": names[1], "text": str(self.length)}]

    def _data_text(self) -> str:
        if self.data is None:
            return "NULL"
        return hidden(len(self.data)) if self.secret else values.bytes_text(self.data)


class Bare(Data):
    """Bytes in without a length: C_InitToken's label."""

    takes = 1

    def c_values(self) -> tuple[Any, ...]:
        return (self.held,)

    def shown(self, names: Sequence[str]) -> list[Shown]:
        return [{"name": names[0], "text": "NULL" if self.data is None else values.bytes_text(self.data)}]


class InTemplate(Argument):
    """Attributes in; None is NULL and 0."""

    takes = 2

    def __init__(self, template: Template | None) -> None:
        super().__init__(None)
        self.template = template
        self.array: Any = None
        self._kept: list[Any] = []
        if template is not None:
            self.array = (structs.Attribute * max(len(template), 1))()
            for slot, (attribute, value) in zip(self.array, template, strict=False):
                data = encoded(value)
                held = ctypes.create_string_buffer(data, max(len(data), 1))
                self._kept.append(held)
                slot.type, slot.pValue, slot.ulValueLen = attribute, ctypes.addressof(held), len(data)

    def c_values(self) -> tuple[Any, ...]:
        return (self.array, len(self.template or ()))

    def shown(self, names: Sequence[str]) -> list[Shown]:
        if self.template is None:
            return [{"name": names[0], "text": "NULL"}, {"name": names[1], "text": "0"}]
        shown = {
            "name": names[0],
            "text": values.template_text(self.template),
            "attributes": attributes_shown(self.template, class_of(self.template)),
        }
        return [shown, {"name": names[1], "text": str(len(self.template))}]


def attributes_shown(template: Sequence[tuple[int, Value | None]], object_class: int | None) -> list[Shown]:
    rows: list[Shown] = []
    for attribute, value in template:
        data = None if value is None else encoded(value)
        rows.append(
            {
                "type": attribute_name(attribute),
                "value": None if data is None else value_text(attribute, data, object_class),
                "length": None if data is None else len(data),
            }
        )
    return rows


class OutTemplate(Argument):
    """C_GetAttributeValue's template: attributes with the room for their values, None for a NULL pointer.

    The result is a list of (CKA_*, length or None where the module says -1, bytes or None).
    """

    takes = 2

    def __init__(self, wanted: Sequence[tuple[int, int | None]], object_class: int | None) -> None:
        super().__init__(None)
        self.wanted = [(attribute, _capped(room, MOST_BYTES)) for attribute, room in wanted]
        self.object_class = object_class
        self.array = (structs.Attribute * max(len(wanted), 1))()
        self._held: list[Any] = []
        for slot, (attribute, room) in zip(self.array, self.wanted, strict=False):
            held = None if room is None else _guarded(room)
            self._held.append(held)
            slot.type, slot.ulValueLen = attribute, room or 0
            slot.pValue = None if held is None else ctypes.addressof(held)

    def c_values(self) -> tuple[Any, ...]:
        return (self.array, len(self.wanted))

    def shown(self, names: Sequence[str]) -> list[Shown]:
        parts = [attribute_name(attribute) + ("?" if room is None else f"[{room}]") for attribute, room in self.wanted]
        rows = [{"type": attribute_name(a), "value": None, "length": room} for a, room in self.wanted]
        text = "{" + ", ".join(parts) + "}"
        return [
            {"name": names[0], "text": text, "attributes": rows},
            {"name": names[1], "text": str(len(self.wanted))},
        ]

    def result(self) -> list[tuple[int, int | None, bytes | None]]:
        rows: list[tuple[int, int | None, bytes | None]] = []
        for slot, (attribute, room), held in zip(self.array, self.wanted, self._held, strict=False):
            length = None if slot.ulValueLen == structs.UNAVAILABLE else int(slot.ulValueLen)
            fits = held is not None and length is not None and length <= (room or 0)
            rows.append((attribute, length, bytes(held[:length]) if fits and held is not None else None))
        return rows

    def result_shown(self, names: Sequence[str]) -> list[Shown]:
        rows = []
        for attribute, length, value in self.result():
            if value is not None:
                text = value_text(attribute, value, self.object_class)
            else:
                text = "-1" if length is None else f"{length} bytes"
            rows.append({"type": attribute_name(attribute), "value": text, "length": length})
        text = "{" + ", ".join(f"{row['type']}={row['value']}" for row in rows) + "}"
        return [{"name": names[0], "text": text, "attributes": rows}]

    def overrun(self) -> bool:
        rooms = (room for _attribute, room in self.wanted)
        return any(_touched(held, room or 0) for held, room in zip(self._held, rooms, strict=True))


class InMechanism(Argument):
    """CK_MECHANISM in; None is NULL."""

    def __init__(self, mechanism: Mechanism | None) -> None:
        super().__init__(None)
        self.mechanism = mechanism

    def c_values(self) -> tuple[Any, ...]:
        return (None if self.mechanism is None else byref(self.mechanism.struct),)

    def shown(self, names: Sequence[str]) -> list[Shown]:
        if self.mechanism is None:
            return [{"name": names[0], "text": "NULL"}]
        return [
            {
                "name": names[0],
                "text": self.mechanism.text(),
                "mechanism": values.mechanism_name(self.mechanism.kind),
                "parameter": self.mechanism.parameter_text(),
            }
        ]


class OutNumber(Argument):
    """A CK_ULONG out. It holds a stale number before, as NSS's may."""

    def __init__(self, stale: int = 0) -> None:
        super().__init__(None)
        self.number = c_ulong(stale)

    def c_values(self) -> tuple[Any, ...]:
        return (byref(self.number),)

    def shown(self, names: Sequence[str]) -> list[Shown]:
        return [{"name": names[0], "text": "out"}]

    def result(self) -> int:
        return int(self.number.value)

    def result_shown(self, names: Sequence[str]) -> list[Shown]:
        return [{"name": names[0], "text": str(self.number.value)}]


class OutStruct(Argument):
    """A struct out, shown field by field."""

    def __init__(self, kind: type[ctypes.Structure], fields: dict[str, dict[int, str] | str]) -> None:
        super().__init__(None)
        self.struct = kind()
        self._fields = fields

    def c_values(self) -> tuple[Any, ...]:
        return (byref(self.struct),)

    def shown(self, names: Sequence[str]) -> list[Shown]:
        return [{"name": names[0], "text": "out"}]

    def result(self) -> Any:
        return structs.copied(self.struct)

    def result_shown(self, names: Sequence[str]) -> list[Shown]:
        shown = struct_fields(self.struct, self._fields)
        text = ", ".join(f"{name}={value}" for name, value in shown.items())
        return [{"name": names[0], "text": f"{{{text}}}", "fields": shown}]


def struct_fields(struct: ctypes.Structure, named: dict[str, dict[int, str] | str]) -> dict[str, str]:
    """The fields of a struct as text; `named` holds the names of flags, or the prefix of a number's constants."""
    shown = {}
    for name, *_rest in struct._fields_:
        value = getattr(struct, name)
        names = named.get(name)
        if isinstance(value, structs.Version):
            shown[name] = f"{value.major}.{value.minor}"
        elif isinstance(value, int):
            if isinstance(names, dict):
                shown[name] = values.flags_text(value, names)
            else:
                shown[name] = values.number_text(names, value)
        else:
            raw = structs.text(value)
            shown[name] = values.bytes_text(raw.rstrip(b" ")) if raw.strip(b" ") else "blank"
    return shown


class OutBytes(Argument):
    """A buffer out with its length in and out. `room` None is a NULL buffer: a size query, whose result is the size."""

    takes = 2

    def __init__(self, room: int | None, *, secret: bool = False) -> None:
        super().__init__(None)
        self.room = room = _capped(room, MOST_BYTES)
        self.secret = secret
        self.held = None if room is None else _guarded(room)
        self.length = c_ulong(room or 0)

    def c_values(self) -> tuple[Any, ...]:
        return (self.held, byref(self.length))

    def shown(self, names: Sequence[str]) -> list[Shown]:
        return [
            {"name": names[0], "text": "NULL" if self.room is None else "out"},
            {"name": names[1], "text": str(self.room or 0)},
        ]

    def result(self) -> bytes | int:
        length = int(self.length.value)
        if self.held is None or length > (self.room or 0):
            return length
        return bytes(self.held[:length])

    def result_shown(self, names: Sequence[str]) -> list[Shown]:
        result = self.result()
        shown = [{"name": names[1], "text": str(self.length.value)}]
        if isinstance(result, bytes):
            text = hidden(len(result)) if self.secret else values.bytes_text(result)
            shown.insert(0, {"name": names[0], "text": text})
        return shown

    def overrun(self) -> bool:
        return _touched(self.held, self.room or 0)


class OutFixed(OutBytes):
    """A buffer out whose length is only an in-argument: C_GenerateRandom."""

    def c_values(self) -> tuple[Any, ...]:
        return (self.held, self.room or 0)

    def result_shown(self, names: Sequence[str]) -> list[Shown]:
        return [{"name": names[0], "text": f"{self.room} bytes"}]


class OutNumbers(Argument):
    """An array of numbers out with its count in and out: C_GetSlotList. `room` None asks for the count."""

    takes = 2

    def __init__(self, room: int | None, prefix: str | None = None) -> None:
        super().__init__(None)
        self.room = room = _capped(room, MOST_NUMBERS)
        self.prefix = prefix
        self.array = None if room is None else (c_ulong * (room + GUARD))(*([structs.UNAVAILABLE] * (room + GUARD)))
        self.count = c_ulong(room or 0)

    def c_values(self) -> tuple[Any, ...]:
        return (self.array, byref(self.count))

    def shown(self, names: Sequence[str]) -> list[Shown]:
        return [
            {"name": names[0], "text": "NULL" if self.room is None else "out"},
            {"name": names[1], "text": str(self.room or 0)},
        ]

    def result(self) -> list[int] | int:
        count = int(self.count.value)
        if self.array is None or count > (self.room or 0):
            return count
        return list(self.array[:count])

    def result_shown(self, names: Sequence[str]) -> list[Shown]:
        result = self.result()
        shown = [{"name": names[1], "text": str(self.count.value)}]
        if isinstance(result, list):
            text = "[" + ", ".join(values.number_text(self.prefix, number) for number in result) + "]"
            shown.insert(0, {"name": names[0], "text": text})
        return shown

    def overrun(self) -> bool:
        return self.array is not None and any(
            number != structs.UNAVAILABLE for number in self.array[self.room : (self.room or 0) + GUARD]
        )


class OutHandles(OutNumbers):
    """C_FindObjects: an array out, its room, and the count out."""

    takes = 3

    def c_values(self) -> tuple[Any, ...]:
        self.count = c_ulong(0)
        return (self.array, self.room or 0, byref(self.count))

    def shown(self, names: Sequence[str]) -> list[Shown]:
        return [{"name": names[0], "text": "out"}, {"name": names[1], "text": str(self.room)}]

    def result_shown(self, names: Sequence[str]) -> list[Shown]:
        return [
            {"name": names[0], "text": str(self.result()) if isinstance(self.result(), list) else "?"},
            {"name": names[2], "text": str(self.count.value)},
        ]


def _capped(room: int | None, most: int) -> int | None:
    return None if room is None else min(room, most)


def _guarded(room: int) -> Any:
    held = (ctypes.c_ubyte * (room + GUARD))()
    ctypes.memset(held, _CANARY, room + GUARD)
    return held


def _touched(held: Any, room: int) -> bool:
    return held is not None and any(byte != _CANARY for byte in held[room : room + GUARD])
