"""The JSON report is what docs/keyfob-check.schema.json says, down to every argument of every call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from keyfob.nss.options import Options
from keyfob.nss.report import as_json
from keyfob.nss.runner import run, select_scenarios
from keyfob.nss.scenarios import scenarios
from tests.check.mutant import environment
from tests.check.peers import KEYFOB
from tests.check.reports import hostile_report

if TYPE_CHECKING:
    from tests.check.conftest import Build

SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "docs" / "keyfob-check.schema.json").read_text()
)
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
KNOWN = {"$schema", "title", "$defs", "$ref", "type", "required", "properties", "additionalProperties", "items"}
KNOWN |= {"enum", "const"}


def is_of(value: object, name: str) -> bool:
    return isinstance(value, TYPES[name]) and not (isinstance(value, bool) and name in ("integer", "number"))


def problems(value: Any, schema: dict[str, Any], place: str = "report") -> Iterator[str]:
    """What the value breaks of the schema: the keywords that ours uses, and no others."""
    assert schema.keys() <= KNOWN, f"the test does not know {schema.keys() - KNOWN}"
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    if "const" in schema and value != schema["const"]:
        yield f"{place} is {value!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place} is {value!r}"
    kinds = schema.get("type", [])
    if kinds and not any(is_of(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        yield f"{place} is {type(value).__name__}"
        return
    if isinstance(value, dict):
        yield from (f"{place} lacks {name}" for name in schema.get("required", ()) if name not in value)
        others = schema.get("additionalProperties", True)
        for name, item in value.items():
            if name in schema.get("properties", {}):
                yield from problems(item, schema["properties"][name], f"{place}.{name}")
            elif others is False:
                yield f"{place} has {name}"
            elif isinstance(others, dict):
                yield from problems(item, others, f"{place}.{name}")
    if isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            yield from problems(item, schema["items"], f"{place}[{i}]")


def written(report: Any) -> Any:
    return json.loads(as_json.text(report))


@pytest.mark.long
@pytest.mark.parametrize("fault", ["NOTHING", "CRASH", "HANG_AT_ONCE", "OVERRUN", "PRINT", "NO_POINTER"])
def test_reports_of_modules_with_faults_are_what_the_schema_says(build: Build, fault: str) -> None:
    chosen, wanted = select_scenarios(scenarios(), ("load", "slots", "login"), ())
    report = run(chosen, Options(build(fault), limit=1), wanted=wanted)
    assert list(problems(written(report), SCHEMA)) == []


@pytest.mark.long
def test_a_report_of_a_whole_token_is_what_the_schema_says(tmp_path: Path) -> None:
    prepared = KEYFOB[0].prepare(tmp_path)
    with environment(**prepared.variables):
        options = prepared.options()
        names = ("slots", "mechs", "login", "sign", "decrypt", "tls-server", "events", "sessions")
        chosen, _wanted = select_scenarios(scenarios(), names, ())
        report = run(chosen, options)
    document = written(report)
    assert list(problems(document, SCHEMA)) == []
    calls = [call for scenario in document["scenarios"] for call in scenario["calls"]]
    for key in ("thread", "process", "repeated", "blocks"):
        assert any(key in call for call in calls), f"no call has {key}: the test tells nothing of it"


def test_a_report_of_the_worst_names_is_what_the_schema_says() -> None:
    assert list(problems(written(hostile_report()), SCHEMA)) == [
        # Made by hand, its options are not all there.
        f"report.options lacks {name}"
        for name in ("slot", "token_label", "so_pin", "wrong_pins", "pinpad", "time_limit")
    ]


def test_the_schema_is_of_the_version_that_is_written() -> None:
    assert (SCHEMA["properties"]["schema"]["const"], SCHEMA["properties"]["version"]["const"]) == (
        as_json.SCHEMA,
        as_json.VERSION,
    )
