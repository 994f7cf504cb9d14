"""The one place that talks to SQLite: one connection to one token's file, its statements and transactions.

Through apsw, which carries its own SQLite into whatever host loads us. A connection is used by the process that opened
it and by nobody else: what a fork does to it is in fork.py.
"""

from __future__ import annotations

import os
import time
from itertools import chain, islice

import apsw

from keyfob import descriptors
from keyfob.settled import SETTLED
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import schema
from keyfob.store.budget import EXCEEDED, Budget
from keyfob.store.connecting import answer, connect, connect_immutable, is_full, reconnect_immutable
from keyfob.store.reserve import Reserve
from keyfob.store.watch import FileStatus, Unknown
from keyfob.store.writing import Writing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from keyfob.store.protocol import Row
    from keyfob.store.watch import Watcher

FEW = 300  # rows; above what a part of a search asks for
# What SQLite makes beside a database, and takes up where it is there already.
SIDES = ("-wal", "-shm", "-journal")
FILES = ("-shm", "-wal", "")  # what a connection keeps open; reading begins with a lock on the first
MOST_FACTS = 100  # rows of the meta table; there are 17
FACTS = f"SELECT CAST(name AS BLOB), value, checksum, mac FROM meta LIMIT {MOST_FACTS + 1}"  # noqa: S608 - a constant
TRUSTED = 0.1  # seconds for which what is in memory is taken for current without a look at the descriptors

# Connections that were at work at a fork: kept for ever in the child, because dropping one would close it, and the
# files (device, inode) that the child cannot use, because SQLite takes the locks of the parent for its own.
_inherited: list[apsw.Connection] = []
_unusable: set[tuple[int, int]] = set()


class SqliteDatabase:
    """One connection, with what it knows about changes by others.

    `changed` is called (within whatever call notices it) when the content is no longer what was read before. `counter`
    grows with each such change and with each commit of our own. `idle`: a fork is going on, and nobody uses the
    connection. `identity`: device and inode of the file.

    A host may close SQLite's descriptors behind our back, and with them its locks (descriptors.py). Then the connection
    is good for nothing, and a new one takes its place before anything is asked of it.
    """

    __slots__ = (
        "_budget",
        "_changed",
        "_connection",
        "_cursor",
        "_is_lost",
        "_looked_at",
        "_seen",
        "_version",
        "counter",
        "identity",
        "idle",
        "is_durable",
        "is_full",
        "kept",
        "path",
        "process",
        "read_only",
        "reserve",
        "watcher",
    )

    def __init__(self, connection: apsw.Connection, path: str, *, read_only: bool, watcher: Watcher) -> None:
        self._connection: apsw.Connection | None = connection
        self._cursor: apsw.Cursor | None = None  # one that has done its work: a new one takes 0.5 us
        self.path = path
        self.process = os.getpid()
        self.idle = False
        self.identity = (0, 0)
        self.read_only = read_only
        self.watcher = watcher
        self.counter = 1
        self._seen: bytes | None = None
        self._version = connection.data_version()
        self._changed: Callable[[], None] = _nothing
        self.kept = descriptors.NOBODYS
        self.reserve = Reserve(path, None)
        self.is_full = False
        self.is_durable = True
        self._looked_at = 0.0
        self._is_lost = False
        self._budget = Budget(None)

    @classmethod
    def in_memory(cls, path: str) -> SqliteDatabase:
        """An empty database without a file, to build the image of the token in that shall be at `path`."""
        return cls(apsw.Connection(":memory:"), path, read_only=False, watcher=Unknown())

    @classmethod
    def open(cls, path: str, *, read_only: bool, reserve: Reserve | None = None) -> SqliteDatabase:
        """An existing token of our schema or an older one, which is migrated."""
        reserve = reserve or Reserve(path, None)
        try:
            status = os.stat(path)
        except FileNotFoundError:
            raise PKCS11Error(CKR.TOKEN_NOT_PRESENT, f"there is no token at {path}") from None
        except OSError as problem:
            raise PKCS11Error(CKR.DEVICE_ERROR, f"{path} cannot be read: {problem.strerror}") from None
        if (status.st_dev, status.st_ino) in _unusable:
            raise PKCS11Error(CKR.DEVICE_ERROR, f"{path} was at work when this process was forked")
        database = cls._open_somehow(path, read_only=read_only, reserve=reserve)
        database.identity = (status.st_dev, status.st_ino)
        database.reserve = reserve
        database.kept = descriptors.keep([path + ending for ending in FILES])
        if not database.read_only:
            reserve.keep()
        return database

    @classmethod
    def _open_somehow(cls, path: str, *, read_only: bool, reserve: Reserve) -> SqliteDatabase:
        full = False
        try:
            try:
                found = connect(path, read_only=read_only)
            except apsw.Error as problem:
                full = is_full(problem, path)
                if full and reserve.release():
                    return cls._open_somehow(path, read_only=read_only, reserve=reserve)
                if not full and not isinstance(problem, (apsw.ReadOnlyError, apsw.CantOpenError)):
                    raise
                found = connect_immutable(path, problem)
        except (apsw.Error, UnicodeDecodeError) as problem:
            raise answer(problem, path) from None
        connection, watcher, refuses_writing = found
        try:
            database = cls(connection, path, read_only=refuses_writing, watcher=watcher)
            database.is_full = full
            database._budget = Budget(path)
            database._budget.limit(connection)
            database._accept_schema()
        except BaseException:
            connection.close(True)
            raise
        return database

    def _accept_schema(self) -> None:
        found = self.number("PRAGMA user_version")
        if found < schema.VERSION:
            if self.read_only:
                text = f"{self.path} has an older schema and cannot be rewritten"
                raise PKCS11Error(CKR.TOKEN_WRITE_PROTECTED, text)
            schema.migrate(self, found)
        wrong = schema.differences(self)
        if wrong:
            raise PKCS11Error(CKR.DEVICE_ERROR, f"{self.path}: {wrong[0]}")

    # Statements

    @property
    def connection(self) -> apsw.Connection:
        """The connection, for the process that opened it; a new one where the host has closed its descriptors."""
        connection = self._connection
        if (connection is None and not self._is_lost) or self.process != os.getpid():
            raise PKCS11Error(CKR.CRYPTOKI_NOT_INITIALIZED, "the store is closed, or another process opened it")
        if connection is None or not self.kept.is_first_ours():
            return self._replace_lost()
        return connection

    def check_descriptors(self) -> None:
        """Before anything is written, and now and then: look at them all."""
        if not self.kept.are_ours():
            self._replace_lost()

    def _replace_lost(self) -> apsw.Connection:
        """Nothing is lost with a connection but its locks: what was committed is in the files, and the rest is not.

        Closing it touches no descriptor that is not SQLite's own any more (abi/descriptors.c).
        """
        name, connection = os.path.basename(self.path), self._connection
        if connection is not None and connection.in_transaction:
            raise PKCS11Error(CKR.DEVICE_ERROR, f"{name}: the program has closed descriptors that are not its own")
        self._connection = self._cursor = None
        self._is_lost = True
        if connection is not None:
            with SETTLED:
                connection.close(True)
        fresh = type(self).open(self.path, read_only=self.read_only, reserve=self.reserve)
        if fresh.identity != self.identity:
            fresh.close()
            raise PKCS11Error(CKR.DEVICE_ERROR, f"{name}: the file was moved or deleted while it was open")
        self._is_lost = False
        return self._go_on_with(fresh)

    def _go_on_with(self, fresh: SqliteDatabase) -> apsw.Connection:
        found = fresh.connection
        self._budget = fresh._budget
        self._connection, self._cursor, self.kept, self.watcher = found, None, fresh.kept, fresh.watcher
        self.read_only, self.is_full = fresh.read_only, fresh.is_full
        self._version, self._seen = found.data_version(), None
        self.counter += 1
        self._changed()
        return found

    def recover(self) -> None:
        """Where the disk was full when this was opened: perhaps it is not any more."""
        if not self.is_full or self._connection is None:
            return
        fresh = type(self).open(self.path, read_only=False, reserve=self.reserve)
        if fresh.is_full or fresh.identity != self.identity:
            fresh.close()
            return
        self._connection.close(True)
        self._go_on_with(fresh)

    def rows(self, sql: str, values: tuple[Any, ...] = ()) -> Iterable[Row]:
        """A few rows at once, which takes 1 us less; the rest row by row, so that they need not fit into memory."""
        connection = self.connection
        cursor, self._cursor = self._cursor or connection.cursor(), None
        self._budget.spent = 0
        try:
            found = list(islice(cursor.execute(sql, values), FEW))
        except (apsw.Error, UnicodeDecodeError, OverflowError) as problem:
            if not (connection.in_transaction or self.kept.are_ours()):
                self._replace_lost()
                return self.rows(sql, values)
            raise answer(problem, self.path) from None
        if len(found) == FEW:
            return chain(found, self._rest(cursor))
        self._cursor = cursor
        return found

    def _rest(self, cursor: apsw.Cursor) -> Iterator[Row]:
        count = FEW
        try:
            for row in cursor:
                count += 1
                if not count % FEW and not self._budget.has(count):
                    raise PKCS11Error(CKR.DEVICE_ERROR, f"{os.path.basename(self.path)}: damaged: {EXCEEDED}")
                yield row
        except (apsw.Error, UnicodeDecodeError, OverflowError) as problem:
            raise answer(problem, self.path) from None

    def row(self, sql: str, values: tuple[Any, ...] = ()) -> Row | None:
        """The only row, or None."""
        return next(iter(self.rows(sql, values)), None)

    def number(self, sql: str, values: tuple[Any, ...] = ()) -> int:
        """The only row's only number; 0 where there is none."""
        row = self.row(sql, values)
        return row[0] if row is not None and isinstance(row[0], int) else 0

    def run(self, sql: str, values: tuple[Any, ...] = ()) -> int:
        """A statement without an answer; the number of rows it changed."""
        try:
            connection = self.connection
            self._budget.spent = 0
            connection.execute(sql, values).fetchall()
            return connection.changes()
        except (apsw.Error, OverflowError) as problem:
            raise answer(problem, self.path) from None

    def run_each(self, sql: str, values: list[tuple[Any, ...]]) -> None:
        self._budget.begin(len(values))
        try:
            self.connection.executemany(sql, values).fetchall()
        except (apsw.Error, OverflowError) as problem:
            raise answer(problem, self.path) from None

    def facts(self) -> Iterable[tuple[object, object, object, object]]:
        """The meta table. As BLOB, because damage can turn a name into NULL or a number."""
        found = list(self.rows(FACTS))
        if len(found) > MOST_FACTS:
            raise PKCS11Error(CKR.DEVICE_ERROR, f"{os.path.basename(self.path)}: damaged: meta has too many rows")
        return found

    @property
    def numbered(self) -> int:
        """The highest number that an object of this token ever had."""
        last = self.number("SELECT seq FROM sqlite_sequence WHERE name = 'object'")
        return max(last, self.number("SELECT max(id) FROM object"))

    @numbered.setter
    def numbered(self, last: int) -> None:
        self.run("DELETE FROM sqlite_sequence WHERE name = 'object'")
        self.run("INSERT INTO sqlite_sequence (name, seq) VALUES ('object', ?)", (last,))

    def take_numbers(self, count: int) -> int:
        """As AUTOINCREMENT would, which takes them when they are inserted: sealing needs them beforehand."""
        return self.numbered + 1

    def problems(self) -> list[str]:
        """SQLite's own opinion of the file, where its schema is not ours, and whether numbers could be used twice."""
        found: list[str] = []
        for check in (schema.integrity, schema.differences, schema.numbering):
            try:
                found += check(self)
            except PKCS11Error as problem:
                found.append(problem.reason)
        return found

    # Transactions and changes

    def writing(self, *, durable: bool = True) -> Writing:
        """See the Database protocol."""
        return Writing(self, durable=durable)

    def call_when_changed(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def refresh(self) -> None:
        """Notice what other processes have committed so far."""
        if self.is_fresh:
            return
        self.check_descriptors()
        header = self.watcher.read()
        if isinstance(self.watcher, FileStatus):
            self._reopen_immutable(header)
            return
        self.number("SELECT 1 FROM meta LIMIT 1")  # only a read brings data_version up to date
        self.notice()
        self._seen = header

    @property
    def is_fresh(self) -> bool:
        """Whether nobody has committed since `refresh`; needs no lock, touches no file.

        Where the host closed our descriptors others may have gone on with another WAL index: that is seen a moment
        later, because looking at descriptors lets go of the GIL, which the fastest calls must not.
        """
        header = self.watcher.read()
        if header is None or header != self._seen:
            return False
        now = time.monotonic()
        if now - self._looked_at > TRUSTED:
            if not self.kept.are_ours():
                return False
            self._looked_at = now
        return True

    def notice(self) -> None:
        """Within or right after a transaction: compare the version it saw with the last one."""
        version = self.connection.data_version()
        if version != self._version:
            self._version = version
            self.counter += 1
            self._changed()

    def _reopen_immutable(self, header: bytes | None) -> None:
        if header is None:
            raise PKCS11Error(CKR.DEVICE_ERROR, f"{self.path} is gone")
        if self._seen is not None:
            self.connection.close(True)
            self._connection = self._cursor = None
            try:
                self._connection = reconnect_immutable(self.path)
                self._budget.limit(self._connection)
            except apsw.Error as problem:
                raise answer(problem, self.path) from None
            self.counter += 1
            self._changed()
        self._seen = header

    def committed(self) -> None:
        """After a commit of our own: it is no news to us, but where that cannot be asked. Nothing is opened for it."""
        self.counter += 1
        with SETTLED:
            if self._connection is not None:
                self._version = self._connection.data_version()

    def checkpoint(self) -> None:
        """Empty the WAL, so that what secure_delete overwrote in the database is gone there too; best effort."""
        with SETTLED:
            try:
                self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except apsw.Error:
                return

    def image(self) -> bytes:
        """The whole database as the bytes of a file."""
        return self.connection.serialize("main")

    def give_way(self) -> bool:
        return self.reserve.release()

    def keep_room(self) -> None:
        self.reserve.keep()

    # The end

    def close(self) -> None:
        """Close; the last one out leaves a single file. After a fork: forget."""
        connection, self._is_lost = self._connection, False
        if connection is None:
            return
        if self.process != os.getpid():
            self.abandon()
            return
        is_whole = self.kept.are_ours()
        self._connection = self._cursor = None
        self.kept = descriptors.NOBODYS
        self.watcher = Unknown()  # lets go of the mapping
        if not is_whole:
            connection.close(True)
            return
        try:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
            connection.close(True)
        except apsw.Error as problem:
            raise answer(problem, self.path) from None
        if not self.read_only:
            self.reserve.keep()

    def abandon(self) -> None:
        """In a forked child: let go of the connection, without touching anything that the parent uses (fork.py)."""
        connection, self._connection = self._connection, None
        self._cursor, self._is_lost, self.kept = None, False, descriptors.NOBODYS
        self.watcher = Unknown()
        if connection is None:
            return
        if self.idle:
            connection.close(True)
        else:
            _inherited.append(connection)
            _unusable.add(self.identity)


def _nothing() -> None:
    """Nobody wants to know."""
