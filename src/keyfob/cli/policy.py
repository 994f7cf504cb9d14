"""The registration by an enterprise policy: policies.json of Firefox and Thunderbird, for every user and profile.

    {"policies": {"SecurityDevices": {"Add": {"keyfob": "/path/libkeyfob.so"}}}}

The file may hold policies of others; they stay as they are, in their order, and indented as they were. Firefox writes
the module into each profile that it starts with, where it stays when the policy is gone; only `"Delete": ["keyfob"]`
takes it out again at the next start.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from keyfob import files
from keyfob.cli.errors import Refusal
from keyfob.cli.nss_database import NAME
from keyfob.cli.profiles import FIREFOX, THUNDERBIRD

FILES = {
    FIREFOX: Path("/etc/firefox/policies/policies.json"),
    THUNDERBIRD: Path("/etc/thunderbird/policies/policies.json"),
}
DEVICES, ADD, DELETE = "SecurityDevices", "Add", "Delete"
INDENT = re.compile(r'^\{\n([ \t]+)"')


def read(file: Path) -> dict[str, Any]:
    """The file's content, {} where there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        raise Refusal(f"{file} cannot be read, so it was not touched: {problem}") from None
    policies = found.get("policies", {}) if isinstance(found, dict) else None
    if not isinstance(policies, dict) or not isinstance(policies.get(DEVICES, {}), dict):
        raise Refusal(f"{file} is no policy file, so it was not touched")
    lists = policies.get(DEVICES, {})
    if not isinstance(lists.get(ADD, {}), dict | str) or not isinstance(lists.get(DELETE, []), list | str):
        raise Refusal(f"{DEVICES} in {file} is not as Mozilla describes it, so the file was not touched")
    content: dict[str, Any] = found
    return content


def devices(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content.get("policies", {}).get(DEVICES, {})
    return found


def is_old_form(found: dict[str, Any]) -> bool:
    """Before Firefox 114 the names of modules stood in SecurityDevices itself."""
    return any(isinstance(value, str) for value in found.values())


def registered(file: Path) -> str | None:
    """The library that the file names for keyfob."""
    found = devices(read(file))
    value = found.get(NAME) if is_old_form(found) else found.get(ADD, {}).get(NAME)
    return value if isinstance(value, str) else None


def deleting(file: Path) -> bool:
    """Whether the file has profiles drop the module."""
    return NAME in devices(read(file)).get(DELETE, [])


def register(file: Path, library: Path) -> None:
    """Add keyfob, in the form that the file uses already."""
    content = read(file)
    found = content.setdefault("policies", {}).setdefault(DEVICES, {})
    if is_old_form(found):
        found[NAME] = str(library)
    else:
        found.setdefault(ADD, {})[NAME] = str(library)
        _drop(found, DELETE, NAME)
    _write(file, content)


def remove(file: Path, *, from_profiles: bool = False) -> bool:
    """Take keyfob out, and what then is empty; whether anything changed.

    `from_profiles`: leave the order that has every profile drop the module.
    """
    content = read(file)
    before = json.dumps(content)
    found = devices(content)
    if is_old_form(found):
        found.pop(NAME, None)
        if from_profiles:
            raise Refusal(f"{file} has the form of before Firefox 114, which cannot say that a module is to be dropped")
    else:
        _drop(found, ADD, NAME)
        if from_profiles:
            found = content.setdefault("policies", {}).setdefault(DEVICES, {})
            if NAME not in found.setdefault(DELETE, []):
                found[DELETE].append(NAME)
        else:
            _drop(found, DELETE, NAME)
    if json.dumps(content) == before:
        return False
    if not found:
        del content["policies"][DEVICES]
    if content == {"policies": {}}:
        try:
            file.unlink()
        except OSError as problem:
            raise Refusal(f"{file} cannot be removed: {problem.strerror}{_as_root(problem)}") from None
    else:
        _write(file, content)
    return True


def _drop(found: dict[str, Any], key: str, name: str) -> None:
    """Take a name out of Add or Delete, and that out where it is empty then."""
    names = found.get(key, {})
    if name not in names:
        return
    if isinstance(names, dict):
        del names[name]
    else:
        names.remove(name)
    if not names:
        del found[key]


def _write(file: Path, content: dict[str, Any]) -> None:
    file = file.resolve()
    try:
        files.make_folder(str(file.parent), files.OF_ALL if os.geteuid() == 0 else files.OF_USER)
        old = file.read_text(encoding="utf-8") if file.exists() else "{\n}\n"
        mode = file.stat().st_mode & 0o777 if file.exists() else files.PUBLIC
        hit = INDENT.match(old)
        text = json.dumps(content, indent=hit[1] if hit else 2, ensure_ascii=False)
        files.replace(str(file), (text + ("\n" if old.endswith("\n") else "")).encode(), mode)
    except OSError as problem:
        raise Refusal(f"{file} cannot be written: {problem.strerror}{_as_root(problem)}") from None


def _as_root(problem: OSError) -> str:
    return " (try again as root)" if isinstance(problem, PermissionError) and os.geteuid() != 0 else ""
