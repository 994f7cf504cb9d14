"""Tokens that come and go: a file in a folder that may vanish, as a USB stick's does (S4, S9, SE9, SE10).

A removable slot is a line of text in the tokens' folder, `slot-N.removable`: the folder where its token is. While that
folder is there the slot holds a token; `token.keyfob` is its file, and a folder without one holds an uninitialised
token.
A second line, `ejected`, is a tester's: the token is out whatever the folder does (`keyfob eject`).

What is in the slot has an identity (the folder, the file, the registration, as the file system numbers them). When it
is another one than at the last look the old token is gone for good: its sessions and handles stay invalid also when the
same token comes back. There is no thread that watches: every call that concerns the slot looks, which costs three calls
of stat. What no look can tell is a folder that went and came back with all its numbers between two calls.
"""

from __future__ import annotations

import os

from keyfob import files, log
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.token.session import REMOVABLE
from keyfob.token.token import Token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.config import Config
    from keyfob.store import Store

SUFFIX = ".removable"
TOKEN_FILE = "token.keyfob"  # noqa: S105 - a file's name
EJECTED = "ejected"

Number = tuple[int, ...]


class Registration:
    """The file `slot-N.removable`: `folder` is where the token is, `ejected` that a tester took it out."""

    __slots__ = ("_read_as", "ejected", "folder", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.folder = ""
        self.ejected = False
        self._read_as: Number | None = None

    def read(self) -> Number | None:
        """Take up what the file says; its number in the file system, None when there is no registration any more."""
        try:
            status = os.stat(self.path)
            number = (status.st_ino, status.st_mtime_ns)
            if number != self._read_as:
                lines = files.read_believed(self.path).decode().splitlines()
                self.folder = lines[0] if lines else ""
                self.ejected = EJECTED in lines[1:]
                self._read_as = number
        except (OSError, UnicodeDecodeError):
            return None
        return number

    @property
    def token_path(self) -> str:
        return os.path.join(self.folder, TOKEN_FILE)

    def write(self, folder: str, *, ejected: bool) -> None:
        """Replace the file in one step; a new file has a new number, so that every process notices."""
        new = f"{self.path}.{os.getpid()}.new"
        with os.fdopen(files.new(new), "wb") as file:
            file.write((f"{folder}\n{EJECTED}\n" if ejected else f"{folder}\n").encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.path)


class Insertion:
    """What is in the slot at a moment. `token` is None while the folder has no token file."""

    __slots__ = ("place", "token")

    def __init__(self, place: Number, token: Number | None) -> None:
        self.place = place
        self.token = token

    def same_as(self, earlier: Insertion) -> bool:
        return self.place == earlier.place and self.token == earlier.token

    def continues(self, earlier: Insertion) -> bool:
        """Whether it is what was there earlier; a token file that was made since does not make it another."""
        return self.place == earlier.place and earlier.token in (None, self.token)


class RemovableToken(Token):
    """The token of a removable slot. `inserted` is None while there is none."""

    __slots__ = ("_insertions", "_open", "inserted", "moved", "registration")

    removable = True
    registry = REMOVABLE

    def __init__(
        self,
        slot_id: int,
        make_store: Callable[[str, bytes], Store],
        config: Config,
        registration: Registration,
        open_store: Callable[[RemovableToken], None],
    ) -> None:
        self._insertions = 0
        self._open = open_store
        self.registration = registration
        self.inserted: Insertion | None = None
        self.moved = False  # an insertion or removal that C_WaitForSlotEvent has not told yet
        super().__init__(slot_id, make_store, config)

    def settle(self) -> None:
        """The first look: what is there from the start is no event."""
        self.look()
        self.moved = False

    @property
    def absent(self) -> bool:
        return self.inserted is None

    def identity(self, name: str) -> str:
        """Another one with each insertion, so that old object handles never mean anything again (SE10)."""
        return f"{name}, insertion {self._insertions}"

    def check_usable(self) -> None:
        if self.inserted is None:
            raise PKCS11Error(CKR.TOKEN_NOT_PRESENT, f"there is no token in slot {self.slot_id}")
        super().check_usable()

    def _present(self) -> Insertion | None:
        registered = self.registration.read()
        if registered is None or self.registration.ejected:
            return None
        try:
            folder = os.stat(self.registration.folder)
        except OSError:
            return None
        try:
            file = os.stat(self.registration.token_path)
        except OSError:
            token = None
        else:
            token = (file.st_dev, file.st_ino)
        return Insertion((*registered, folder.st_dev, folder.st_ino), token)

    def look(self) -> None:
        """Notice what happened to the slot since the last look."""
        present, known = self._present(), self.inserted
        if present is None and known is None:
            return
        if present is not None and known is not None and present.same_as(known):
            return
        with self.lock:
            known = self.inserted
            if known is not None and (present is None or not present.continues(known)):
                self._take_out()
            if present is not None:
                self._put_in(present)

    def _put_in(self, present: Insertion) -> None:
        if self.inserted is None:
            self.moved = True
            self._insertions += 1
            self.attach(None)
            log.line("info", f"slot {self.slot_id}: a token was inserted")
        self.inserted = present
        if present.token is not None and self.store is None:
            self._open(self)

    def _take_out(self) -> None:
        """The token is gone: what it had open is closed, without its file's help."""
        self.moved = True
        self.inserted = None
        self.close_all_sessions()
        store = self.store
        self.attach(None)
        if store is not None:
            try:
                store.close()
            except PKCS11Error as problem:
                log.line("info", f"slot {self.slot_id}: {problem}")
        log.line("info", f"slot {self.slot_id}: the token was removed")

    def initialise(self, pin: bytes | None, label: str) -> None:
        self.check_usable()
        super().initialise(pin, label)
        self.look()
