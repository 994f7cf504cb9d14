"""A token in a database, whichever that is: in a file (sqlite.py) or on a server (postgres/).

The parts: schema.py has the tables, meta.py the facts about the token, ledger.py who vouches, opening.py has logins
and vault.py PINs, seal.py and handover.py the cryptography, rekey.py new master keys, rows.py one object, search.py
finding, checkup.py the whole token at once.

Every call is thread-safe and, if it changes anything, one durable transaction: it is done when it returns, and when it
raises nothing has changed. A process that inherits a store by fork gets CKR_CRYPTOKI_NOT_INITIALIZED from it.
"""

from __future__ import annotations

import os
from _thread import RLock

from keyfob.settled import SETTLED
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import adoption, fork, meta, rows
from keyfob.store.info import check_label
from keyfob.store.integrity import NUMBERS
from keyfob.store.recent import Recent
from keyfob.store.record import Record
from keyfob.store.reserve import using
from keyfob.store.rows import DamagedError
from keyfob.store.search import Finder
from keyfob.store.vault import Vault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from keyfob.config import Config
    from keyfob.store.hardening import Hardening
    from keyfob.store.info import TokenInfo
    from keyfob.store.pepper import PepperState
    from keyfob.store.protocol import Database, Row
    from keyfob.store.record import Attributes

FIRST, PART = 8, 256  # objects: how far a search looks at first, and when it goes on
MOST_LOOKED_THROUGH = 100  # objects; below 10 ms, beside the hundred that a PIN costs


class SealedStore:
    """See the Store protocol for what each method does and raises.

    `witness`: the folder in which this machine remembers how far its tokens had come (witness.py); None for none.
    """

    __slots__ = ("__weakref__", "_database", "_finder", "_lock", "_recalls", "_recent", "_vault")

    def __init__(self, database: Database, log: Callable[[str], None], witness: str | None = None) -> None:
        self._lock = RLock()
        self._database = database
        self._recent = Recent()
        self._finder = Finder(database)
        self._recalls = False  # whether a search met in memory what it met last: then it need not fetch it next time
        self._vault = Vault(database, self._lock, log, self._forget_objects, witness)
        database.call_when_changed(self._forget_what_was_read)
        fork.remember(self)
        self._vault.look_back()

    # The token

    @property
    def read_only(self) -> bool:
        return self._database.read_only

    @property
    def unlocked(self) -> bool:
        with self._lock:
            self._database.refresh()
            self._vault.facts()
            return self._vault.role is not None

    def info(self) -> TokenInfo:
        with self._lock:
            self._database.refresh()
            return self._vault.info()

    def login(self, role: str, pin: bytes) -> None:
        self._vault.login(role, pin)
        if role == "user":
            with SETTLED:
                self._look_through()

    def verify_pin(self, role: str, pin: bytes) -> None:
        self._vault.verify(role, pin)

    def unlock_with_key_file(self) -> None:
        self._vault.unlock_with_key_file()

    def logout(self) -> None:
        with self._lock:
            self._vault.forget_keys()

    def set_pin(self, role: str, new_pin: bytes) -> None:
        self._vault.set_pin(role, new_pin)

    def raise_hardening(self, role: str, pin: bytes, least: Hardening) -> bool:
        return self._vault.raise_hardening(role, pin, least)

    def hardening(self, role: str) -> Hardening | None:
        with self._lock:
            return self._vault.hardening(role)

    def pin_generation(self, role: str) -> bytes:
        with self._lock:
            self._database.refresh()
            return self._vault.pin_generation(role)

    def pin_mark(self, role: str, pin: bytes) -> bytes:
        return self._vault.pin_mark(role, pin)

    def configure(self, config: Config) -> None:
        self._vault.configure(config)

    def pepper_state(self) -> PepperState | None:
        with self._lock:
            self._database.refresh()
            return self._vault.pepper_state()

    def set_pepper(self, location: str | None, pins: Mapping[str, bytes]) -> None:
        self._vault.set_pepper(location, pins)

    def reset(self, label: str, so_pin: bytes) -> None:
        check_label(label)
        self._vault.reset(label.encode(), so_pin)

    def set_label(self, label: str) -> None:
        check_label(label)
        with self._lock:
            self._vault.write_facts(lambda _: {"label": label.encode()})

    def set_setting(self, key: str, value: str) -> None:
        with self._lock:
            self._vault.write_facts(lambda facts: {"settings": meta.encode_settings(facts.settings | {key: value})})

    # Objects

    def insert(self, objects: Sequence[Attributes], *, replacing: Sequence[int] = ()) -> list[int]:
        with self._lock:
            try:
                with self._database.writing():
                    self._remove(replacing)
                    numbers = self._new_numbers(len(objects))
                    for object_id, attributes in zip(numbers, objects, strict=True):
                        self._write(object_id, attributes, old=set())
                    self._vault.settle_write()
            except BaseException:
                self._vault.forget_facts()
                raise
            for object_id in replacing:
                self._recent.drop(object_id)
            self._vault.note()
            return numbers

    def _new_numbers(self, count: int) -> list[int]:
        """Whoever writes the file can say that more were given: an object that no handle finds would be lost."""
        first = self._database.take_numbers(count)
        if not 0 < first <= NUMBERS - count:
            reason = f"the token says that its objects are numbered up to {first - 1}: it is damaged (keyfob verify)"
            raise PKCS11Error(CKR.DEVICE_ERROR, reason)
        return list(range(first, first + count))

    def update(self, object_id: int, attributes: Attributes, *, instead_of: Attributes | None = None) -> bool:
        with self._lock:
            try:
                with self._database.writing():
                    row = self._visible_row(object_id)
                    if instead_of is not None and not self._holds(row, instead_of):
                        return False
                    if self._vault.keys is None:
                        if self._holds(row, attributes):
                            return True
                        adoption.keep_changed(self._database, row, attributes)
                    self._write(object_id, attributes, self._look_ups_of(row))
                    self._vault.settle_write()
            except BaseException:
                self._vault.forget_facts()
                raise
            self._recent.drop(object_id)
            self._vault.note()
            return True

    def delete(self, object_ids: Sequence[int]) -> None:
        """Also on a full disk: it makes room."""
        with self._lock:
            using(self._database, lambda: self._delete(object_ids))

    def _delete(self, object_ids: Sequence[int]) -> None:
        with self._lock:
            try:
                with self._database.writing():
                    self._remove(object_ids)
                    self._vault.settle_write()
            except BaseException:
                self._vault.forget_facts()
                raise
            for object_id in object_ids:
                self._recent.drop(object_id)
            self._vault.note()

    def get(self, object_id: int) -> Attributes | None:
        if self._database.is_fresh:
            found = self._recent.young.get(object_id)
            if found.__class__ is dict:
                return found
        with self._lock:
            self._database.refresh()
            found = self._recent.get(object_id)
            if found is None:
                row = rows.select(self._database, object_id)
                if row is None:
                    return None
                try:
                    found = self._checked(row)
                except DamagedError as problem:
                    text = f"object {object_id}: {problem}"
                    self._vault.tell(text)
                    raise PKCS11Error(CKR.DEVICE_ERROR, text) from None
            if isinstance(found, Record):
                found = found.attributes()
                self._recent.put(object_id, found)
            return found

    def find(self, template: Sequence[tuple[int, bytes]]) -> list[int]:
        with self._lock:
            found, after = self._find_some(template, 0, FIRST)
            while after is not None:
                more, after = self._find_some(template, after, PART)
                found += more
            return found

    def find_some(
        self, template: Sequence[tuple[int, bytes]], after: int = 0, most: int = 64
    ) -> tuple[list[int], int | None]:
        with self._lock:
            return self._find_some(template, after, most)

    def exists(self, template: Sequence[tuple[int, bytes]]) -> bool:
        with self._lock:
            return bool(self._find_some(template, 0, 1)[0])

    def change_counter(self) -> int:
        if not self._database.is_fresh:
            with self._lock:
                self._database.refresh()
        return self._database.counter

    def verify(self) -> list[str]:
        from keyfob.store.checkup import problems

        with self._lock:
            return problems(self._database, self._vault)

    def remarks(self) -> list[str]:
        with self._lock:
            self._database.refresh()
            return self._vault.remarks()

    def complaints(self) -> list[str]:
        with self._lock:
            return list(self._vault.complaints)

    def accept(self) -> None:
        with self._lock:
            self._vault.accept()
            self._forget_objects()

    def copy_to(self, target: Database) -> None:
        """Write all of the token, sealed as it is, into the empty tables of another database, within a transaction.

        Needs no PIN. Nobody writes to this one meanwhile.
        """
        from keyfob.store.copying import copy

        with self._lock:
            self._database.refresh()
            if self._database.read_only:
                copy(self._database, target)
                return
            with self._database.writing():
                copy(self._database, target)

    def fingerprint(self) -> tuple[int, bytes]:
        from keyfob.store.copying import fingerprint

        with self._lock:
            self._database.refresh()
            return fingerprint(self._database)

    # The end

    def close(self) -> None:
        """Forget the keys and close the file; calls after that answer CKR_CRYPTOKI_NOT_INITIALIZED."""
        if self._database.process != os.getpid():
            self.abandon()
            return
        with self._lock:
            self.logout()
            self._database.close()

    def abandon(self) -> None:
        """In a forked child: forget everything, touch nothing that the parent uses. Happens by itself (fork.py)."""
        self._lock = self._vault.lock = RLock()  # another thread of the parent may have held the old one
        self._vault.forget_keys()
        self._database.abandon()

    def pause(self, limit: float) -> None:
        """Before a fork: wait, so many seconds at most, until no other thread uses the store, and keep them waiting."""
        self._database.idle = self._lock.acquire(timeout=limit)

    def resume(self) -> None:
        """In the parent, after `pause` and the fork."""
        if self._database.idle:
            self._database.idle = False
            self._lock.release()

    def _look_through(self) -> None:
        """After login, where it costs next to nothing: name in the log whatever is wrong with a store of few objects.

        What a search meets is checked in any case; this also notices what no search meets any more, because the row
        that it would be found by is damaged. Of a larger store each login looks through a part that is drawn by lot;
        `verify` looks at everything.
        """
        with self._lock:
            if (
                len(list(self._database.rows("SELECT 1 FROM object LIMIT ?", (MOST_LOOKED_THROUGH + 1,))))
                > MOST_LOOKED_THROUGH
            ):
                from keyfob.store.checkup import block_problems

                problems = block_problems(self._database, self._vault, self._vault.roster.drawn_by_lot())
            else:
                from keyfob.store.checkup import problems as all_problems

                problems = all_problems(self._database, self._vault, now=True)
            for problem in problems:
                self._vault.tell(problem)

    # Within the lock

    def _find_some(self, template: Sequence[tuple[int, bytes]], after: int, most: int) -> tuple[list[int], int | None]:
        self._database.refresh()
        self._vault.facts()
        keys = self._vault.keys if self._vault.sees_private else None
        if after == 0:
            return self._finder.find_some(template, keys, self._attributes_of, 0, most, by_number=self._recalls)
        # A search that meets many objects does not push others out of the memory of recent ones.
        return self._finder.find_some(template, keys, self._attributes_in_passing, after, most, by_number=False)

    def _attributes_of(self, row: Row) -> Attributes | Record | None:
        """What a search compares; None for what is hidden or, after a line in the log, damaged."""
        object_id = row[0]
        found = self._recent.get(object_id)
        if found is not None:
            self._recalls = True
            return found
        self._recalls = False
        whole = row if len(row) > 1 else rows.select(self._database, object_id)
        found = self._read(whole) if whole is not None else None
        if found is not None:
            self._recent.put(object_id, found)
        return found

    def _attributes_in_passing(self, row: Row) -> Attributes | Record | None:
        """As `_attributes_of`, for one of many."""
        return self._recent.get(row[0]) or self._read(row)

    def _read(self, row: Row) -> Record | None:
        try:
            return self._checked(row)
        except DamagedError as problem:
            self._vault.tell(f"object {row[0]}: {problem}")
            return None

    def _forget_objects(self) -> None:
        self._recent.clear()
        self._finder.forget()

    def _forget_what_was_read(self) -> None:
        self._forget_objects()
        self._vault.forget_facts()

    def _checked(self, row: Row) -> Record | None:
        """The record of a row; None for a private one while they are hidden; DamagedError."""
        facts = self._vault.facts()
        if row[2] and not self._vault.sees_private:
            rows.check_sum(row)
            return None
        keys = self._vault.keys
        record = rows.check(row, keys, facts.adopted)
        if keys is not None and facts.has_roster:
            adoption.check(self._database, row, keys, facts.counters.version, self._vault.roster)
        return record

    def _visible_row(self, object_id: int) -> Row:
        row = rows.select(self._database, object_id)
        self._vault.facts()
        if row is None or (row[2] and not self._vault.sees_private):
            raise PKCS11Error(CKR.OBJECT_HANDLE_INVALID, f"there is no object {object_id}")
        return row

    def _holds(self, row: Row, attributes: Attributes) -> bool:
        """Whether the object has these attributes; one that is damaged has none."""
        try:
            return rows.read(row, self._vault.keys, self._vault.facts().adopted) == attributes
        except DamagedError:
            return False

    def _look_ups_of(self, row: Row) -> rows.LookUps | None:
        """Under what the object is found now; None when it is too damaged to tell."""
        keys = self._vault.keys
        try:
            return rows.look_ups_of(rows.read(row, keys, self._vault.facts().adopted), keys)
        except DamagedError:
            return None

    def _write(self, object_id: int, attributes: Attributes, old: rows.LookUps | None) -> None:
        facts = self._vault.facts()
        if rows.is_private(attributes) and not self._vault.sees_private:
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "private objects need the user's login")
        self._finder.forget()
        keys = self._vault.keys
        version = facts.counters.next_version()
        rows.write(self._database, object_id, version, attributes, keys)
        if keys is not None:
            self._vault.roster.note(object_id, version, int(rows.is_private(attributes)))
            if old != set():
                adoption.forget(self._database, object_id)
        rows.index(self._database, object_id, old, rows.look_ups_of(attributes, keys))

    def _remove(self, object_ids: Sequence[int]) -> None:
        for object_id in object_ids:
            row = self._visible_row(object_id)
            rows.index(self._database, object_id, self._look_ups_of(row), set())
            if self._vault.keys is not None:
                self._vault.roster.strike(object_id)
                adoption.forget(self._database, object_id)
            else:
                adoption.keep_removed(self._database, row)
            self._database.run("DELETE FROM object WHERE id = ?", (object_id,))
