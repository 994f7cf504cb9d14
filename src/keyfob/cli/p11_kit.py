"""The registration with p11-kit: one file, which GnuTLS, GNOME and programs that load p11-kit-proxy read.

p11-kit reads the files of the machine (/etc/pkcs11/modules) and those of the user (~/.config/pkcs11/modules), the
latter not as root, and not where `user-config: none` stands in pkcs11.conf.
"""

from __future__ import annotations

import os
from pathlib import Path

from keyfob import files
from keyfob.cli.errors import Refusal
from keyfob.cli.profiles import config_folder

FILE = "keyfob.module"
SYSTEM = Path("/etc/pkcs11")
HEAD = "# Made by `keyfob install p11-kit`; `keyfob uninstall p11-kit` takes it away.\n"


def folder(*, system: bool) -> Path:
    return SYSTEM if system else config_folder() / "pkcs11"


def module_file(*, system: bool) -> Path:
    """The file of this user, or of the whole machine."""
    return folder(system=system) / "modules" / FILE


def settings(file: Path) -> dict[str, str] | None:
    """The `key: value` lines of one of p11-kit's files; None without the file."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    pairs = (line.partition(":") for line in lines if not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, _, value in pairs if key.strip()}


def registered(file: Path) -> str | None:
    """The library that the file names; None without a file."""
    found = settings(file)
    return None if found is None else found.get("module", "")


def ignored(*, system: bool) -> tuple[str, str]:
    """(why p11-kit takes no notice of a registration, what to do); empty where it does."""
    limits = settings(module_file(system=system)) or {}
    for key in ("enable-in", "disable-in"):
        if key in limits:
            return f"its file says {key}: {limits[key]}", f"take that line out of {module_file(system=system)}"
    if system:
        return "", ""
    if os.geteuid() == 0:
        return "it reads nothing of root's own", "keyfob install p11-kit --system"
    for place in (SYSTEM / "pkcs11.conf", config_folder() / "pkcs11" / "pkcs11.conf"):
        if (settings(place) or {}).get("user-config") == "none":
            return f"{place} says user-config: none", "change that to merge, or: sudo keyfob install p11-kit --system"
    return "", ""


def register(file: Path, library: Path) -> None:
    try:
        files.make_folder(str(file.parent), files.OF_ALL if os.geteuid() == 0 else files.OF_USER)
        files.replace(str(file.resolve()), f"{HEAD}module: {library}\n".encode(), files.PUBLIC)
    except OSError as problem:
        raise Refusal(f"{file} cannot be written: {problem.strerror}{_as_root(problem)}") from None


def remove(file: Path) -> bool:
    """Whether there was a file to take away."""
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    except OSError as problem:
        raise Refusal(f"{file} cannot be removed: {problem.strerror}{_as_root(problem)}") from None
    return True


def _as_root(problem: OSError) -> str:
    return " (try again as root)" if isinstance(problem, PermissionError) and os.geteuid() != 0 else ""
