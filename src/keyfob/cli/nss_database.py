"""An NSS database folder (cert9.db, key4.db, pkcs11.txt) and the modules registered in it (NSS.md, section 3.19).

Only NSS's own modutil writes; pkcs11.txt is read here to see what is registered.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

from keyfob import environment, files
from keyfob.cli.errors import Refusal

NAME = "keyfob"
TIME_LIMIT = 60  # seconds
PACKAGES = "libnss3-tools (Debian, Ubuntu), nss-tools (Fedora), nss (Arch)"
OLD_FILES = ("cert8.db", "secmod.db")
# Firefox's link to the process that has the profile open: `lock -> 192.0.2.7:+1234`.
LOCK_TARGET = re.compile(r".*:\+?(\d+)")


class Database:
    """`folder` as given, without the `sql:` that NSS's tools take before it."""

    __slots__ = ("folder",)

    def __init__(self, given: str) -> None:
        if given.startswith("dbm:"):
            raise Refusal(f"{given} is a database of the old kind (dbm), which NSS no longer reads")
        self.folder = Path(environment.expanded(given.removeprefix("sql:")))

    def require(self, *, create: bool) -> None:
        """The database is there; where not, it is made with an empty password, or refused."""
        if (self.folder / "cert9.db").is_file():
            return
        if any((self.folder / name).is_file() for name in OLD_FILES):
            raise Refusal(
                f"{self.folder} holds a database of the old kind (dbm), which NSS no longer reads: let the program that"
                " it belongs to convert it (Firefox does so when it starts), or name another folder"
            )
        if not create:
            raise Refusal(
                f"{self.folder} has no NSS database (no cert9.db): check the folder, or make one with --create"
            )
        files.make_folder(str(self.folder))
        self._run("certutil", "-N", "-d", f"sql:{self.folder}", "--empty-password")

    def registrations(self) -> dict[str, str]:
        """The library of each registered module by its name, from pkcs11.txt: blocks of `key=value` lines."""
        try:
            text = (self.folder / "pkcs11.txt").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return {}
        found = {}
        for block in re.split(r"\n\s*\n", text):
            values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            if "name" in values:
                found[values["name"].strip()] = values.get("library", "").strip()
        return found

    def require_change(self) -> None:
        """The list of modules can be changed: nobody has it open, and its files can be written.

        A running Firefox or Thunderbird would write its own list over ours when it ends.
        """
        if self._in_use():
            raise Refusal(f"{self.folder} is in use: close Firefox or Thunderbird, then try again")
        files = [self.folder / name for name in ("cert9.db", "key4.db", "pkcs11.txt")]
        for path in (self.folder, *(file for file in files if file.exists())):
            if not os.access(path, os.W_OK):
                raise Refusal(f"{path} is write-protected, so nothing was changed")

    def _in_use(self) -> bool:
        """Whether a program holds the lock of .parentlock; where there is none, whether the linked process lives."""
        try:
            descriptor = os.open(self.folder / ".parentlock", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return self._linked_process_lives()
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            return problem.errno in (errno.EACCES, errno.EAGAIN)
        finally:
            os.close(descriptor)
        return False

    def _linked_process_lives(self) -> bool:
        """On file systems without locks Firefox leaves a link to its process; that of a dead one is from a crash."""
        try:
            match = LOCK_TARGET.fullmatch(str((self.folder / "lock").readlink()))
        except OSError:
            return False
        return match is not None and Path(f"/proc/{match[1]}").exists()

    def add(self, library: Path) -> None:
        self._modutil("-add", NAME, "-libfile", str(library))

    def remove(self, name: str) -> None:
        self._modutil("-delete", name)

    def _modutil(self, *arguments: str) -> None:
        self._run("modutil", "-dbdir", f"sql:{self.folder}", *arguments, "-force")

    @staticmethod
    def _run(program: str, *arguments: str) -> None:
        path = shutil.which(program)
        if path is None:
            raise Refusal(f"{program} is not installed; it comes in the package {PACKAGES}")
        try:
            done = subprocess.run(
                [path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            raise Refusal(f"{program} did not end within {TIME_LIMIT} seconds") from None
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).decode(errors="replace").split())
            raise Refusal(f"{program} failed: {said or f'exit code {done.returncode}'}")
