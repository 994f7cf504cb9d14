"""The roster: which objects there are, and in which version. What a MAC over each row alone cannot tell.

A row that is put back to an older version still has its MAC of then, and a row that is gone has none to fail. So the
version of every object that carries a MAC stands in the roster, 128 object numbers to a block. Each block has a keyed
tag, and a sum over all blocks is part of a guarded row of the meta table: a change of one object rewrites one block and
one sum, whatever the size of the store, and a login adds up one number for every 128 objects.

What is added up, modulo 2**256, is not the tags, which stand in the file: of those somebody could look for a mixture of
older blocks that has the right sum (a generalised birthday; 2**33 steps where there are enough of them). It is a number
for each tag that a second secret function gives, and neither these nor their sum ever stand anywhere in clear: the sum
is masked by a third one, with another mask for each state (state.py). To somebody without the keys every other mixture
of blocks has a sum that is still undetermined, so each try is right with a chance of 2**-256, plus that of telling
keyed BLAKE2b from chance: the argument for XOR MACs and their additive kin (Bellare, Guerin, Rogaway 1995; for sums
that are kept up to date, Bellare, Goldreich, Goldwasser 1994), whose weakness, sums in clear, it leaves out.

The same row binds the other guarded rows of the meta table by their MACs, so that none of them can be put back alone.

What happens without a login cannot change the roster, which needs a key: see adoption.py.
"""

from __future__ import annotations

import os
from _blake2 import blake2b

from keyfob.store.meta import SPOILT
from keyfob.store.rows import DamagedError, has_fitting_mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyfob.store.protocol import Database, Row
    from keyfob.store.seal import Keys

PER_BLOCK = 128
ENTRY = 8  # bytes: twice the version, plus 1 for a private object; 0 where there is no object
TAG = 32
MODULUS = 1 << (8 * TAG)
MOST_BLOCKS = 2048  # remembered: 2 MiB
EMPTY = bytes(PER_BLOCK * ENTRY)
# An entry of a block that was damaged, for a number that had an object without a fitting MAC by then, or none: nobody
# knows what it was, so nothing without a MAC is believed to be it.
UNKNOWN = (1 << 8 * ENTRY) - 1


class Roster:
    """Blocks that were read and fit their tags. Within the store's lock; `forget` whenever they may have changed."""

    __slots__ = ("_blocks", "_changes", "_database", "_tell", "is_whole")

    def __init__(self, database: Database, tell: Callable[[str], None]) -> None:
        self._database = database
        self._tell = tell
        self._blocks: dict[int, bytes | None] = {}  # None: it does not fit its tag
        self._changes: dict[int, int] = {}
        self.is_whole = True  # a block that is not there is one without objects

    def forget(self) -> None:
        self._blocks = {}
        self._changes = {}

    @property
    def is_changed(self) -> bool:
        """Whether there is something to settle."""
        return bool(self._changes)

    # Reading

    def check(self, row: Row, keys: Keys) -> None:
        """DamagedError when a row that has a MAC is not the one that was written last."""
        object_id, version, private = row[:3]
        entry = self.entry(object_id, keys)
        if entry == version << 1 | private or entry is None:
            return
        if entry in (0, UNKNOWN):
            raise DamagedError("it was removed and has been put back: it was tampered with")
        raise DamagedError("an older version was put back: it was tampered with")

    def has(self, row: Row, keys: Keys) -> bool:
        """Whether this row is the one that was written last under a login."""
        return has_fitting_mac(row, keys) and self.entry(row[0], keys) == row[1] << 1 | row[2]

    def check_new(self, object_id: int, keys: Keys) -> None:
        """DamagedError when an object without a MAC has the number of one that had one, or may have had one."""
        if self.entry(object_id, keys) != 0:
            raise DamagedError("it was replaced without a login: it was tampered with")

    def entry(self, object_id: int, keys: Keys) -> int | None:
        """What the roster has for an object; None where its block is damaged."""
        if self._changes and object_id in self._changes:
            return self._changes[object_id]
        number = object_id // PER_BLOCK
        block = self._blocks[number] if number in self._blocks else self._block(number, keys)
        if block is None:
            return None
        place = object_id % PER_BLOCK * ENTRY
        return int.from_bytes(block[place : place + ENTRY], "little")

    def members(self, block: int, keys: Keys) -> Iterator[int]:
        """The number of each object of a block; nothing where the block is damaged."""
        for object_id in range(block * PER_BLOCK, (block + 1) * PER_BLOCK):
            entry = self.entry(object_id, keys)
            if entry and entry != UNKNOWN:
                yield object_id

    def blocks(self) -> list[int]:
        """The numbers of all blocks."""
        return [number for (number,) in self._database.rows("SELECT block FROM roster ORDER BY block")]

    def drawn_by_lot(self) -> int:
        """The number of some block, found without a walk through all; 0 where there is none."""
        lot = int.from_bytes(os.urandom(4), "little") % (self._database.number("SELECT max(block) FROM roster") + 1)
        return self._database.number("SELECT block FROM roster WHERE block >= ? ORDER BY block LIMIT 1", (lot,))

    def damaged(self, keys: Keys) -> list[int]:
        """The blocks that do not fit their tags."""
        return [number for number in self.blocks() if self.entry(number * PER_BLOCK, keys) is None]

    def adds_up_to(self, total: bytes, keys: Keys) -> bool:
        """Whether all blocks are there, as they were written last."""
        self.is_whole = self._sum(keys) == total
        return self.is_whole

    def converted(self, total: bytes, keys: Keys) -> bytes:
        """The total for one of schema 4, which added up the tags themselves; SPOILT where that is not theirs."""
        in_clear = sum(int.from_bytes(tag, "little") for _, tag in self._tags())
        fits = (in_clear % MODULUS).to_bytes(TAG, "little") == total
        return self._sum(keys) if fits else SPOILT

    def _sum(self, keys: Keys) -> bytes:
        total = sum(_addend(keys, number, tag) for number, tag in self._tags())
        return (total % MODULUS).to_bytes(TAG, "little")

    def _tags(self) -> Iterator[tuple[int, bytes]]:
        return ((number, _bytes(tag)) for number, tag in self._database.rows("SELECT block, tag FROM roster"))

    def _block(self, number: int, keys: Keys) -> bytes | None:
        versions, tag = self._stored(number)
        fits = self._fits(versions, tag, number, keys)
        if not fits:
            self._tell(f"roster: block {number} is damaged: older versions of its objects would not be noticed")
        if len(self._blocks) >= MOST_BLOCKS:
            self._blocks = {}
        found = self._blocks[number] = versions if fits else None
        return found

    def _fits(self, versions: bytes, tag: bytes, number: int, keys: Keys) -> bool:
        if not tag:
            return versions == EMPTY and self.is_whole
        return len(versions) == len(EMPTY) and _tag(keys, number, versions) == tag

    def _stored(self, number: int) -> tuple[bytes, bytes]:
        row = self._database.row("SELECT versions, tag FROM roster WHERE block = ?", (number,))
        return (_bytes(row[0]), _bytes(row[1])) if row is not None else (EMPTY, b"")

    # Writing, within the caller's transaction

    def note(self, object_id: int, version: int, private: int) -> None:
        """An object was written with a MAC."""
        self._changes[object_id] = version << 1 | private

    def strike(self, object_id: int) -> None:
        """An object was removed."""
        self._changes[object_id] = 0

    def settle(self, total: bytes, keys: Keys) -> bytes:
        """Write the blocks of all objects noted and struck; the new total."""
        changed: dict[int, bytearray] = {}
        tags: dict[int, bytes] = {}
        for object_id, entry in self._changes.items():
            number, place = object_id // PER_BLOCK, object_id % PER_BLOCK * ENTRY
            if number not in changed:
                versions, tags[number] = self._stored(number)
                if not self._fits(versions, tags[number], number, keys):
                    versions = self._recovered(number, keys)
                changed[number] = bytearray(versions)
            changed[number][place : place + ENTRY] = entry.to_bytes(ENTRY, "little")
        for number, content in changed.items():
            versions = bytes(content)
            total = self._write(number, versions, tags[number], total, keys)
        self._changes = {}
        return total

    def build(self, keys: Keys) -> bytes:
        """All of it anew, from the rows whose MACs fit; the total."""
        self.forget()
        self._database.run("DELETE FROM roster")
        self._database.run("DELETE FROM pending")
        total = bytes(TAG)
        blocks = list(self._database.rows("SELECT DISTINCT id / ? FROM object", (PER_BLOCK,)))
        for (number,) in blocks:
            total = self._write(number, self._vouched_for(number, keys, 0), b"", total, keys)
        self.is_whole = True
        return total

    def _write(self, number: int, versions: bytes, old_tag: bytes, total: bytes, keys: Keys) -> bytes:
        """Write one block, or remove one without objects; the new total."""
        tag = b""
        if versions == EMPTY:
            self._database.run("DELETE FROM roster WHERE block = ?", (number,))
        else:
            tag = _tag(keys, number, versions)
            statement = """
                INSERT INTO roster (block, versions, tag) VALUES (?, ?, ?)
                ON CONFLICT (block) DO UPDATE SET versions = excluded.versions, tag = excluded.tag
            """
            self._database.run(statement, (number, versions, tag))
        self._blocks[number] = versions
        if total == SPOILT:
            return total
        new = int.from_bytes(total, "little") - _addend(keys, number, old_tag) + _addend(keys, number, tag)
        return (new % MODULUS).to_bytes(TAG, "little")

    def _recovered(self, number: int, keys: Keys) -> bytes:
        """A damaged block as its rows would have it. What it said of the others cannot be known."""
        given = min(max(self._database.numbered + 1 - number * PER_BLOCK, 0), PER_BLOCK)
        return self._vouched_for(number, keys, given)

    def _vouched_for(self, number: int, keys: Keys, unknown: int) -> bytes:
        """The entries of a block's rows whose MACs fit; of the first `unknown` numbers, those without are UNKNOWN."""
        versions = bytearray(EMPTY)
        versions[: unknown * ENTRY] = UNKNOWN.to_bytes(ENTRY, "little") * unknown
        statement = """
            SELECT id, version, private, record, checksum, mac FROM object WHERE id >= ? AND id < ? AND mac IS NOT NULL
        """
        for row in list(self._database.rows(statement, (number * PER_BLOCK, (number + 1) * PER_BLOCK))):
            if has_fitting_mac(row, keys):
                place = row[0] % PER_BLOCK * ENTRY
                versions[place : place + ENTRY] = (row[1] << 1 | row[2]).to_bytes(ENTRY, "little")
        return bytes(versions)


def _tag(keys: Keys, number: int, versions: bytes) -> bytes:
    salt = number.to_bytes(16, "little")
    return blake2b(versions, digest_size=TAG, person=b"keyfob roster", key=keys.roster, salt=salt).digest()


def _addend(keys: Keys, number: int, tag: bytes) -> int:
    """What a block adds to the sum: nothing where there is none."""
    if not tag:
        return 0
    salt = number.to_bytes(16, "little")
    digest = blake2b(tag, digest_size=TAG, person=b"keyfob addend", key=keys.roster, salt=salt).digest()
    return int.from_bytes(digest, "little")


def _bytes(value: object) -> bytes:
    """What should be a BLOB, and is not when the file is damaged."""
    return value if isinstance(value, bytes) else b""
