"""Where a token's pepper is, written into config.toml: in the token itself anybody could write it."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyfob import files
from keyfob.cli import tables
from keyfob.cli.errors import Refusal
from keyfob.store import secret_file

if TYPE_CHECKING:
    from keyfob.config import Config

# What json.dumps leaves as it is and TOML does not take; of halves of surrogates it takes no escapes either.
NOT_IN_TOML = re.compile("[\x7f\ud800-\udfff]")
HEADER = re.compile(r"^\s*\[")
ENTRY = re.compile(r"^\s*pepper\s*=")


@contextlib.contextmanager
def named(config: Config, label: str, location: str | None) -> Generator[None]:
    """While the PINs of the token come to another pepper both are named, and the new one alone after that.

    `location`: None for no pepper from now on. Where the block fails the file says again what it said. Refusal where it
    cannot be changed: then it is for people to change, and nothing else happens.
    """
    before = _text(config)
    present = _stated(before, label)
    wanted = [] if location is None else [secret_file.written(location)]
    known = config.token(label).peppers
    if not wanted or known[:1] == tuple(wanted):  # it may be written there in another way
        both, after = present, present[:1] if wanted else []
    else:
        both, after = wanted + [each for each in present if each not in wanted], wanted
    try:
        _put(config, before, label, both)
        yield
    except BaseException:
        if both != present:
            _write(config, before)
        raise
    _put(config, _text(config), label, after)


def _text(config: Config) -> str:
    try:
        return files.read_believed(config.file, follow=True).decode()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError):
        raise Refusal(f"{config.file} cannot be read, and a pepper must be named there: see keyfob doctor") from None


def _stated(text: str, label: str) -> list[str]:
    found = _entry(_parsed(text), label).get("pepper", [])
    return [str(each) for each in found] if isinstance(found, list) else [str(found)]


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def _entry(data: dict[str, Any], label: str) -> dict[str, Any]:
    entries = data.get("token", {})
    found = entries.get(label, {}) if isinstance(entries, dict) else {}
    return found if isinstance(found, dict) else {}


def _put(config: Config, text: str, label: str, locations: Sequence[str]) -> None:
    """Write the token's peppers into the text of the configuration and into the file, unless that is what they say."""
    if _stated(text, label) == list(locations):
        return
    line = f"pepper = {quoted(locations[0] if len(locations) == 1 else list(locations))}"
    changed = _changed(text, label, line if locations else "")
    if not _differs_by(_parsed(text), _parsed(changed), label, locations):
        advice = f"[token.{quoted(label)}]" + (f" with {line}" if locations else " without pepper")
        raise Refusal(tables.printable(f"{config.file} cannot be changed by keyfob; let it say: {advice}"))
    _write(config, changed)


def _write(config: Config, text: str) -> None:
    place = Path(config.file).resolve()
    try:
        files.make_folder(str(place.parent))
        mode = place.stat().st_mode & 0o777 if place.exists() else files.SECRET
        files.replace(str(place), text.encode(), mode)
    except OSError as problem:
        raise Refusal(f"{config.file}, where the pepper must be named, cannot be written: {problem.strerror}") from None
    config.by_label = config.again().by_label


def _changed(text: str, label: str, line: str) -> str:
    """`line` in the token's table: in the place of the present one, at its beginning, or in a new table at the end."""
    lines = text.removesuffix("\n").split("\n") if text else []  # splitlines() knows more line ends than TOML
    table: dict[str, Any] = {"token": {label: {}}}
    start = next((i for i, each in enumerate(lines) if HEADER.match(each) and _parsed(each.strip()) == table), None)
    if start is None:
        return "\n".join([*lines, *([""] if lines else []), f"[token.{quoted(label)}]", line, ""])
    end = next((i for i in range(start + 1, len(lines)) if HEADER.match(lines[i])), len(lines))
    rest = [each for each in lines[start + 1 : end] if not ENTRY.match(each)]
    return "\n".join([*lines[: start + 1], *([line] if line else []), *rest, *lines[end:], ""])


def quoted(value: str | list[str]) -> str:
    """As TOML has it, with every letter as it is."""
    return NOT_IN_TOML.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def _differs_by(before: dict[str, Any], after: dict[str, Any], label: str, locations: Sequence[str]) -> bool:
    """Whether nothing else became another than the token's peppers."""
    if not after or _entry(after, label).pop("pepper", [] if not locations else None) not in (
        list(locations),
        *locations[:1],
    ):
        return False
    _entry(before, label).pop("pepper", None)
    for data in (before, after):
        if not _entry(data, label) and isinstance(data.get("token"), dict):
            data["token"].pop(label, None)
            if not data["token"]:
                del data["token"]
    return before == after
