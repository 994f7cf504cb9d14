"""Every place where the module can be registered, looked at in one way: for `status`, `doctor` and `uninstall`.

Profiles, p11-kit and policies are where they always are. Databases that were named with `install nss DIR`, and policy
files with `--file`, are remembered in `registrations.json` beside the link, so that the link stays as long as one of
them needs it.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from keyfob import files
from keyfob.cli import link, nss_database, p11_kit, policy, profiles
from keyfob.cli.errors import Refusal
from keyfob.cli.module import LIBRARY

DATABASES, POLICIES = "databases", "policies"


@dataclass(frozen=True, slots=True)
class Registration:
    """Where a library is registered that is keyfob's, or was. `target` comes after `keyfob install` and `uninstall`."""

    place: str
    name: str
    library: str
    target: str

    @property
    def current(self) -> bool:
        """Whether it leads to the module of this installation."""
        return link.is_ours(self.library) and Path(self.library).exists()

    @property
    def undo(self) -> str:
        return f"keyfob uninstall {self.target}"

    @property
    def redo(self) -> str:
        return f"keyfob install {self.target}"


def looks_like_keyfob(library: str) -> bool:
    return Path(library).name == LIBRARY or link.is_ours(library)


def every_profile() -> list[profiles.Profile]:
    return [
        *profiles.profiles(profiles.FIREFOX),
        *profiles.profiles(profiles.THUNDERBIRD),
        *profiles.chromium(),
    ]


def of_database(folder: Path, place: str, target: str) -> list[Registration]:
    return [
        Registration(place, name, library, target)
        for name, library in nss_database.Database(str(folder)).registrations().items()
        if looks_like_keyfob(library)
    ]


def everything() -> list[Registration]:
    """All registrations that keyfob knows of."""
    known = every_profile()
    found: list[Registration] = []
    for profile in known:
        found += of_database(profile.folder, profile.title, profile.command)
    folders = {profile.folder for profile in known}
    for name in remembered(DATABASES):
        if Path(name) not in folders:
            found += of_database(Path(name), name, f"nss {shlex.quote(name)}")
    for system in (False, True):
        file = p11_kit.module_file(system=system)
        library = p11_kit.registered(file)
        if library is not None:
            found.append(
                Registration(f"p11-kit ({file})", file.name, library, f"p11-kit{' --system' if system else ''}")
            )
    for program, file in policy.FILES.items():
        target = f"policy{' --thunderbird' if program == profiles.THUNDERBIRD else ''}"
        found += _of_policy(file, f"{program}'s policy ({file})", target)
    for name in remembered(POLICIES):
        found += _of_policy(Path(name), f"policy ({name})", f"policy --file {shlex.quote(name)}")
    return found


def _of_policy(file: Path, place: str, target: str) -> list[Registration]:
    try:
        library = policy.registered(file)
    except Refusal:  # damaged, or not for us to read
        return []
    return [] if library is None else [Registration(place, nss_database.NAME, library, target)]


def remove_link_if_unused() -> None:
    """The link goes with the last registration that uses it."""
    path = str(link.link_path())
    if not any(registration.library == path for registration in everything()):
        link.remove()


# What was named by its path


def remembered(kind: str) -> list[str]:
    """Paths of one kind, as they were given."""
    found = _memory().get(kind, [])
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def remember(kind: str, path: Path) -> None:
    names = remembered(kind)
    name = os.path.abspath(path)
    if name not in names:
        _keep(kind, [*names, name])


def forget(kind: str, path: Path) -> None:
    names = remembered(kind)
    name = os.path.abspath(path)
    if name in names:
        names.remove(name)
        _keep(kind, names)


def _file() -> Path:
    return link.data_folder() / "registrations.json"


def _memory() -> dict[str, object]:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(kind: str, names: list[str]) -> None:
    memory = _memory() | {kind: names}
    file = _file()
    if not any(memory.values()):
        file.unlink(missing_ok=True)
        return
    files.make_folder(str(file.parent))
    files.replace(str(file.resolve()), (json.dumps(memory, indent=2) + "\n").encode())
