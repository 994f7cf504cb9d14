"""From the lines of libkeyfob-trace.so to calls with names, in the form that reports show (docs/check.md, "calls")."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from keyfob.nss.driver import values
from keyfob.spec.constants import CKA, CKO
from keyfob.spec.errors import name_of
from keyfob.spec.functions import FUNCTIONS

Shown = dict[str, Any]

# Arguments whose numbers have names; flags by the function or struct that they belong to.
PREFIXES = {"userType": "CKU", "state": "CKS", "type": "CKM"}
FLAGS = {
    "C_OpenSession": values.SESSION_FLAGS,
    "C_GetSessionInfo": values.SESSION_FLAGS,
    "C_GetSlotInfo": values.SLOT_FLAGS,
    "C_GetTokenInfo": values.TOKEN_FLAGS,
    "C_GetMechanismInfo": values.MECHANISM_FLAGS,
    "C_SessionCancel": values.MECHANISM_FLAGS,
    "C_Initialize": values.INITIALIZE_FLAGS,
}
LISTS = {"pMechanismList": "CKM"}
# The tracer shows a value only where it is no secret: to the texts it is a value of public data.
OPEN_CLASS = CKO.DATA


def lines(text: Iterator[str]) -> Iterator[Shown]:
    """Calls, numbered and in the order in which they ended. A line that was cut off is left out."""
    first = 0
    number = 0
    for line in text:
        try:
            raw = json.loads(line)
        except ValueError:
            continue
        number += 1
        first = first or raw["time"]
        yield call(raw, number, raw["time"] - first)


def call(raw: Shown, number: int, start: int) -> Shown:
    """One call; `start` and `us` in microseconds, `start` since the trace began."""
    function = raw["call"]
    names = [name for name, _kind in FUNCTIONS.get(function, ("", ()))[1]]
    given = {**dict.fromkeys(names), **raw["in"]}
    shown = [argument(function, name, value, given=name in raw["in"]) for name, value in given.items()]
    return {
        "number": number,
        "function": function,
        "start": start,
        "us": raw["us"],
        "process": raw["process"],
        "thread": raw["thread"],
        "arguments": shown,
        "rv": raw["rv"],
        "rv_name": name_of("CKR", raw["rv"]),
        "out": results(function, raw["out"]),
    }


def argument(function: str, name: str, value: Any, *, given: bool) -> Shown:
    """An argument that the tracer does not write down before the call only takes something out."""
    if not given or value == {}:
        return {"name": name, "text": "out"}
    return shown(function, name, value)


def results(function: str, out: Shown) -> list[Shown]:
    texts = {}
    rows = []
    for name, value in out.items():
        row = shown(function, name, value)
        if is_field(function, name):
            texts[name] = row["text"]
        else:
            rows.append(row)
    if texts:
        text = "{" + ", ".join(f"{name}={value}" for name, value in texts.items()) + "}"
        rows.append({"name": "pInfo", "text": text, "fields": texts})
    return rows


def is_field(function: str, name: str) -> bool:
    """Whether it is a field of the struct that the function fills."""
    return function in INFOS and name not in {argument for argument, _ in FUNCTIONS[function][1]}


INFOS = ("C_GetInfo", "C_GetSlotInfo", "C_GetTokenInfo", "C_GetSessionInfo", "C_GetMechanismInfo")


def shown(function: str, name: str, value: Any) -> Shown:
    if value is None:
        return {"name": name, "text": "NULL"}
    if isinstance(value, dict) and "mechanism" in value:
        return mechanism(name, value)
    if isinstance(value, list) and (name.endswith("Template")):
        return template(name, value)
    return {"name": name, "text": text(function, name, value)}


def text(function: str, name: str, value: Any) -> str:
    kind = TEXTS[type(value)]
    return kind(function, name, value)


def number_text(function: str, name: str, value: int) -> str:
    if name == "flags" and function in FLAGS:
        return values.flags_text(value, FLAGS[function])
    return values.number_text(PREFIXES.get(name), value)


def string_text(function: str, name: str, value: str) -> str:
    """Bytes came one by one, as the characters of the same number."""
    return values.bytes_text(value.encode("latin-1").rstrip(b" ")) if value.strip() else "blank"


def list_text(function: str, name: str, value: list[int]) -> str:
    return "[" + ", ".join(values.number_text(LISTS.get(name), number) for number in value) + "]"


def dict_text(function: str, name: str, value: Shown) -> str:
    if value.get("hidden"):
        return values.hidden(value["length"])
    if "hex" in value:
        return data_text(value)
    fields = (
        f"{field}={'NULL' if item is None else field_text(function, field, item)}" for field, item in value.items()
    )
    return "{" + ", ".join(fields) + "}"


def data_text(value: Shown) -> str:
    data = bytes.fromhex(value["hex"])
    whole = value["length"]
    if whole <= len(data):
        return values.bytes_text(data)
    return f"{data.hex()}... ({whole} bytes)"


def field_text(function: str, name: str, value: Any) -> str:
    """A field of a mechanism's parameter, or of another struct that goes in."""
    prefix = values.HASHES_AND_MASKS.get(name)
    if prefix is not None and isinstance(value, int):
        return values.number_text(prefix, value)
    return "set" if value == {} else text(function, name, value)


def mechanism(name: str, value: Shown) -> Shown:
    kind = values.mechanism_name(value["mechanism"])
    parts = [
        field_text("", struct, parameter)
        if "hex" in parameter or "hidden" in parameter
        else dict_text("", struct, parameter)
        for struct, parameter in value.items()
        if struct != "mechanism"
    ]
    parameter = parts[0] if parts else None
    return {
        "name": name,
        "text": kind if parameter is None else f"{kind} {parameter}",
        "mechanism": kind,
        "parameter": parameter,
    }


def template(name: str, value: list[list[Any]]) -> Shown:
    """As the driver shows templates: asked for without a buffer `?`, with one `[length]`, no value `-1`."""
    rows = []
    parts = []
    for attribute, length, given in value:
        kind = values.attribute_name(attribute)
        row: Shown = {"type": kind, "value": None, "length": None if length < 0 else length}
        if given == "buffer":
            parts.append(f"{kind}[{length}]")
        elif given is None:
            parts.append(f"{kind}?" if length == 0 else f"{kind}={'-1' if length < 0 else f'{length} bytes'}")
        else:
            row["value"] = values.hidden(length) if given == "hidden" else attribute_text(attribute, given, length)
            parts.append(f"{kind}={row['value']}")
        rows.append(row)
    return {"name": name, "text": "{" + ", ".join(parts) + "}", "attributes": rows}


def attribute_text(attribute: int, given: str, length: int) -> str:
    value = bytes.fromhex(given)
    if len(value) < length:
        return f"{value[: values.LONGEST].hex()}... ({length} bytes)"
    if attribute == CKA.VALUE:
        return values.value_text(attribute, value, OPEN_CLASS)
    return values.value_text(attribute, value)


TEXTS: dict[type, Callable[[str, str, Any], str]] = {
    int: number_text,
    str: string_text,
    list: list_text,
    dict: dict_text,
}
