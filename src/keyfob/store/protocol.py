"""What every store offers. For type checkers only: at run time nothing imports this file, nor `typing` with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from keyfob.config import Config
    from keyfob.store.hardening import Hardening
    from keyfob.store.info import TokenInfo
    from keyfob.store.pepper import Pepper, PepperState
    from keyfob.store.record import Attributes

Row = tuple[Any, ...]


class Database(Protocol):
    """What the parts of a sealed store ask of a database that holds one token in the tables of schema.py.

    Statements are SQL that SQLite and PostgreSQL both understand, with `?` for values. Errors are PKCS11Error.
    `path` is where the token's file is, or would be: its key file lies beside. `counter` grows with each commit of our
    own and with each change of others that was noticed. `process` opened it, and no other may use it. `idle`: a fork is
    going on, and nobody uses the connection. `is_full`: it can only be read, because it has no room.
    """

    path: str
    process: int
    read_only: bool
    counter: int
    idle: bool
    is_full: bool

    def rows(self, sql: str, values: Row = ()) -> Iterable[Row]:
        """All rows, the many of a long answer one by one where that can be helped."""

    def row(self, sql: str, values: Row = ()) -> Row | None:
        """The only row, or None."""

    def number(self, sql: str, values: Row = ()) -> int:
        """The only row's only number; 0 where there is none."""

    def run(self, sql: str, values: Row = ()) -> int:
        """A statement without an answer; the number of rows it changed."""

    def run_each(self, sql: str, values: list[Row]) -> None:
        """The same statement with these values in turn."""

    def facts(self) -> Iterable[tuple[object, object, object, object]]:
        """The meta table: name (bytes, unless it is damaged), value, checksum, MAC."""

    @property
    def numbered(self) -> int:
        """The highest number that an object of this token ever had."""

    @numbered.setter
    def numbered(self, last: int) -> None: ...

    def take_numbers(self, count: int) -> int:
        """The first of so many numbers in a row that no object of this token ever had, within a transaction."""

    def problems(self) -> list[str]:
        """What is wrong with the database below the tables' contents, a line each."""

    def writing(self, *, durable: bool = True) -> AbstractContextManager[None]:
        """`with database.writing(): ...` is one durable transaction, or nothing when it raises; the only one of all.

        Where it need not be `durable` a power failure may undo it, and others before it that need not be, and nothing
        else may; the next durable one makes it so, too.
        """

    def call_when_changed(self, changed: Callable[[], None]) -> None:
        """Call this, within whatever call notices it, when the content is no longer what was read before."""

    def refresh(self) -> None:
        """Notice what others have committed so far."""

    @property
    def is_fresh(self) -> bool:
        """Whether what was read before still holds, as far as that can be told for almost nothing."""

    def checkpoint(self) -> None:
        """See that what was overwritten is gone everywhere; best effort."""

    def recover(self) -> None:
        """Before an attempt at a PIN: look whether one that `is_full` can be written by now."""

    def give_way(self) -> bool:
        """Free the room that is reserved for logins and destructions (reserve.py); whether there was any."""

    def keep_room(self) -> None:
        """Reserve it again; best effort."""

    def close(self) -> None:
        """Let go of it; after a fork: forget it."""

    def abandon(self) -> None:
        """In a forked child: forget it without touching what the parent uses."""


class Store(Protocol):
    """One token. Roles are "user" and "so"; private objects are those with CKA_PRIVATE true.

    A call that changes something is done when it returns, and when it raises nothing has changed. Any thread may call.
    """

    @property
    def read_only(self) -> bool:
        """Whether every change is refused with CKR_TOKEN_WRITE_PROTECTED."""

    @property
    def unlocked(self) -> bool:
        """Whether somebody is logged in. Another process that initialises the token anew logs everybody out."""

    def info(self) -> TokenInfo:
        """What is known of the token without PIN."""

    def login(self, role: str, pin: bytes) -> None:
        """Open what is sealed. CKR_PIN_INCORRECT, CKR_PIN_LOCKED, CKR_USER_PIN_NOT_INITIALIZED.

        The SO sees no private objects. Until a token without general access has a user PIN the empty SO PIN is right,
        too (P6): where the SO has another one it opens nothing, and is good for setting the user PIN alone.
        """

    def verify_pin(self, role: str, pin: bytes) -> None:
        """As `login`, counting wrong PINs too, but who is logged in stays as it is."""

    def unlock_with_key_file(self) -> None:
        """Open a token without PIN; CKR_USER_NOT_LOGGED_IN if it is none, CKR_DEVICE_ERROR without its key."""

    def logout(self) -> None:
        """Forget the keys."""

    def set_pin(self, role: str, new_pin: bytes) -> None:
        """Set the PIN of a role and its count of failures to 0; CKR_USER_NOT_LOGGED_IN, CKR_PIN_LEN_RANGE.

        Needs a login of either role, or a token of general access that is open. With the first user PIN the empty SO
        PIN stops working. An SO who has a PIN keeps it; one who has none gets one from somebody who is logged in. Who
        logged in with the empty SO PIN beside another one cannot set that: CKR_USER_NOT_LOGGED_IN.

        On a token of general access the first user PIN takes the place of the key file, for all processes; where that
        had opened it for the caller, the caller is logged in as the user now.
        """

    def raise_hardening(self, role: str, pin: bytes, least: Hardening) -> bool:
        """After a login with this PIN: harden it as `least` says where it is hardened less; whether that was done.

        A PIN that was made without the token's present pepper gets that, too.
        """

    def hardening(self, role: str) -> Hardening | None:
        """What guessing this role's PIN costs; None without such a PIN."""

    def pin_generation(self, role: str) -> bytes:
        """Another one than before when the PIN of this role may be another one; tells nothing of the PIN."""

    def pin_mark(self, role: str, pin: bytes) -> bytes:
        """By what a wrong PIN is known again while `pin_generation` stays the same; takes as long as a login.

        Guessing the PIN that it stands for is as hard as guessing the token's.
        """

    def configure(self, config: Config) -> None:
        """Take notice of what the configuration says of this token: where its pepper is."""

    def pepper_state(self) -> PepperState | None:
        """What the PINs are made with beside themselves; None where that is nothing."""

    def set_pepper(self, location: str | None, pins: Mapping[str, bytes]) -> None:
        """Make PINs with the pepper in this file (secret_file.py), or with none, from now on; one transaction.

        `pins`, by role, are made anew with it: CKR_PIN_INCORRECT, which counts. Those that were made with a pepper
        must be among them (CKR_ARGUMENTS_BAD); others get it at their next login. Needs a login of either role, or an
        open token of general access; CKR_DEVICE_ERROR when a pepper cannot be read.
        """

    def reset(self, label: str, so_pin: bytes) -> None:
        """C_InitToken on a token: CKR_PIN_INCORRECT, or every object, setting and the user PIN are gone for good.

        The pepper stays.
        """

    def set_label(self, label: str) -> None:
        """At most 32 bytes. Needs a login."""

    def set_setting(self, key: str, value: str) -> None:
        """Keep a setting, see TokenInfo.settings. Needs a login."""

    def insert(self, objects: Sequence[Attributes], *, replacing: Sequence[int] = ()) -> list[int]:
        """Add objects, remove others, all or none; the new numbers, which are never used twice."""

    def update(self, object_id: int, attributes: Attributes, *, instead_of: Attributes | None = None) -> bool:
        """Give an object these attributes and no others; CKR_OBJECT_HANDLE_INVALID.

        `instead_of`: only if it has exactly those now; False where somebody has changed them.
        """

    def delete(self, object_ids: Sequence[int]) -> None:
        """Remove objects, all or none; CKR_OBJECT_HANDLE_INVALID."""

    def get(self, object_id: int) -> Attributes | None:
        """An object's attributes, not to be changed; None: no such object, or hidden. CKR_DEVICE_ERROR: damaged."""

    def find(self, template: Sequence[tuple[int, bytes]]) -> list[int]:
        """The numbers of all visible objects with exactly these values; damaged ones are left out and logged."""

    def find_some(
        self, template: Sequence[tuple[int, bytes]], after: int = 0, most: int = 64
    ) -> tuple[list[int], int | None]:
        """As `find`, in parts: `most` numbers above `after` or somewhat more, and where to go on; None at the end.

        Objects that are made or removed between two parts may or may not be in the later one.
        """

    def exists(self, template: Sequence[tuple[int, bytes]]) -> bool:
        """Whether `find` would find any; it looks no further than the first."""

    def change_counter(self) -> int:
        """Another number than before whenever any process has changed the token."""

    def verify(self) -> list[str]:
        """Check everything; a line for each thing that is wrong. More thorough after login."""

    def remarks(self) -> list[str]:
        """What was made, renamed or removed without a login and counts since the next one, with the moment of that.

        After login only; until `accept`.
        """

    def complaints(self) -> list[str]:
        """What was found wrong with the token so far, by whatever was read of it since it was opened."""

    def accept(self) -> None:
        """Take the objects that are there for those that shall be, after somebody has looked at what `verify` said.

        Needs the user's login, or an open token of general access. What is damaged stays so; what was put back to an
        older version, or is gone, is no longer complained of.
        """

    def copy_to(self, target: Database) -> None:
        """Write all of the token, sealed as it is, into the empty tables of another database. Needs no PIN."""

    def fingerprint(self) -> tuple[int, bytes]:
        """The number of objects, and a digest of all that is stored: the same for a copy. Needs no PIN."""

    def close(self) -> None:
        """Forget the keys and let go of the file."""

    def abandon(self) -> None:
        """In a forked child: forget all without touching what the parent uses."""


class Shelf(Protocol):
    """Where tokens are kept, one to a slot, under the slot's ID: a folder (folder.py), or a database server."""

    @property
    def shown(self) -> str:
        """The place in words that anybody may read."""

    def doubts(self) -> list[str]:
        """What an administrator should think about, in plain words; PKCS11Error where the place cannot be reached."""

    def slots(self, log: Callable[[str], None]) -> list[int]:
        """The IDs of all slots that have a token, ascending. PKCS11Error where that cannot be told now."""

    def open(self, slot_id: int, log: Callable[[str], None]) -> Store:
        """The token of a slot; CKR_TOKEN_NOT_PRESENT, CKR_TOKEN_NOT_RECOGNIZED, CKR_DEVICE_ERROR."""

    def create(
        self,
        slot_id: int,
        log: Callable[[str], None],
        *,
        label: str,
        serial: str,
        kind: str,
        so_pin: bytes,
        hardening: Hardening,
        general_access: bool = False,
        empty_pin: bool = False,
        pepper: Pepper | None = None,
    ) -> Store:
        """Make a token and open it; CKR_FUNCTION_FAILED where the slot has one already, which stays as it is.

        The empty SO PIN is accepted (P6). `general_access`: opened by a random key in a file (`key_file`) instead of a
        user PIN; it is made unless it is there already. `empty_pin`: its user PIN counts as set, see TokenInfo.
        `pepper`: what its PINs are made with.
        """

    def build(self, slot_id: int, fill: Callable[[Database], None]) -> None:
        """Make a token whose tables `fill` writes: there as a whole or not at all; CKR_FUNCTION_FAILED as `create`."""

    def delete(self, slot_id: int) -> None:
        """Remove the token of a slot and its key file, for good."""

    def key_file(self, slot_id: int) -> str:
        """Where this machine keeps the key of a token of general access."""

    def alone(self) -> AbstractContextManager[None]:
        """While one process is in there, the others that want to make a token wait."""
