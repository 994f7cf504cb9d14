"""One connection to one token's tables: statements and transactions.

Writers of a token take turns: each transaction that writes begins by locking the token's row of `state`, and sees all
that was committed before. That is the order of SQLite's BEGIN IMMEDIATE, so nothing above notices a difference, and no
transaction ever fails because another one was faster.

A connection that is lost is no reason to lose a call. What was lost before COMMIT did not happen and can be done again
(again.py); what was lost during COMMIT may have happened, and a new connection is asked for whether it did.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import psycopg

from keyfob.aside import ASIDE
from keyfob.descriptors import NOBODYS, Held, Kept
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import schema
from keyfob.store.postgres import tables
from keyfob.store.postgres.again import PAUSE
from keyfob.store.postgres.connection import LOCK_TIMEOUT, LostConnectionError, answer, connect, last_row, set_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyfob.store.postgres.connection import Connection
    from keyfob.store.protocol import Row

# Connections of a parent, and those whose socket the host has closed, kept for good: what drops one would say good-bye
# to the server in the parent's name, or write to what has that number by now, and close it.
_inherited: list[object] = []
_translated: dict[str, str] = {}


class PostgresDatabase:
    """See the Database protocol. `path`: where the token's file would be, beside which its key file is.

    `patience`: seconds for which a commit whose outcome is unknown is asked for. `max_age`: seconds for which what was
    read may be taken for current without asking; 0: never.
    """

    __slots__ = (
        "_asked",
        "_changed",
        "_connection",
        "_conninfo",
        "_schema",
        "counter",
        "generation",
        "idle",
        "is_full",
        "kept",
        "max_age",
        "path",
        "patience",
        "process",
        "read_only",
        "writing_now",
    )

    def __init__(self, conninfo: str, slot_id: int, path: str, *, patience: float = 10.0, max_age: float = 0.0) -> None:
        self._conninfo = conninfo
        self._schema = tables.name(slot_id)
        self.path = path
        self.patience = patience
        self.max_age = max_age
        self.process = os.getpid()
        self.idle = False
        self.read_only = self.is_full = False
        self.counter = 1
        self.generation = 0
        self.writing_now = False
        self._asked = -1.0
        self._changed: Callable[[], None] = _nothing
        self._connection: Connection | None = None
        self.kept: Kept = NOBODYS  # its socket

    @classmethod
    def open(
        cls, conninfo: str, slot_id: int, path: str, *, patience: float = 10.0, max_age: float = 0.0
    ) -> PostgresDatabase:
        """A token that is there, of our schema or an older one, which is migrated."""
        database = cls(conninfo, slot_id, path, patience=patience, max_age=max_age)
        try:
            database._accept_schema(slot_id)
        except BaseException:
            database.close()
            raise
        return database

    def _accept_schema(self, slot_id: int) -> None:
        if self.row("SELECT to_regclass('state')") == (None,):
            raise PKCS11Error(CKR.TOKEN_NOT_PRESENT, f"the database has no token for slot {slot_id}")
        found = self.number("SELECT version FROM state")
        if not min(tables.MIGRATIONS, default=schema.VERSION) <= found <= schema.VERSION:
            text = f"slot {slot_id} has schema {found}, this keyfob knows up to {schema.VERSION}: use a newer keyfob"
            raise PKCS11Error(CKR.TOKEN_NOT_RECOGNIZED, text)
        for step in range(found, schema.VERSION):
            with self.writing():
                if self.number("SELECT version FROM state") == step:
                    for statement in tables.MIGRATIONS[step]:
                        self.run(statement)
                    self.run("UPDATE state SET version = ?", (step + 1,))

    # Statements

    @property
    def connection(self) -> Connection:
        """The connection, for the process that opened it; a new one where it was lost outside of a transaction."""
        if self.process != os.getpid():
            text = "the store is closed, or another process opened it"
            raise PKCS11Error(CKR.CRYPTOKI_NOT_INITIALIZED, text)
        connection = self._connection
        if connection is None and not self.writing_now:
            return self._connect()
        if connection is None or connection.closed or not self.kept.are_ours():
            self.let_go()
            if self.writing_now:
                raise LostConnectionError(CKR.FUNCTION_FAILED, "PostgreSQL: the connection was lost")
            return self._connect()
        return connection

    def _connect(self) -> Connection:
        connection = connect(self._conninfo)
        self.read_only = set_up(connection, self._schema)
        self._connection, self.kept = connection, Held(connection.pgconn.socket)
        self._asked = -1.0
        self.counter += 1
        self._changed()  # nothing that was read before is certain
        return connection

    def failed(self, problem: psycopg.Error) -> PKCS11Error:
        """What to say for an error of a statement; a connection that is of no more use is closed."""
        told = answer(problem)
        if isinstance(told, LostConnectionError):
            self.let_go()
        return told

    def let_go(self) -> None:
        """Close the connection, unless the host has its descriptor: then without a word to whatever that is now."""
        connection, self._connection = self._connection, None
        if connection is None or connection.closed:
            return
        if self.kept.are_ours():
            connection.close()
        else:
            _inherited.append(connection)

    def _execute(self, sql: str, values: Row) -> psycopg.Cursor[Any]:
        try:
            text = _translated[sql]
        except KeyError:
            text = _translated[sql] = sql.replace("?", "%s")
        try:
            return self.connection.execute(text, values, binary=True)
        except psycopg.Error as problem:
            raise self.failed(problem) from None

    def rows(self, sql: str, values: Row = ()) -> Iterator[Row]:
        return iter(self._execute(sql, values).fetchall())

    def row(self, sql: str, values: Row = ()) -> Row | None:
        return self._execute(sql, values).fetchone()

    def number(self, sql: str, values: Row = ()) -> int:
        row = self.row(sql, values)
        return row[0] if row is not None and isinstance(row[0], int) else 0

    def run(self, sql: str, values: Row = ()) -> int:
        return self._execute(sql, values).rowcount

    def run_each(self, sql: str, values: list[Row]) -> None:
        try:
            self.connection.cursor().executemany(sql.replace("?", "%s"), values)
        except psycopg.Error as problem:
            raise self.failed(problem) from None

    def facts(self) -> Iterator[tuple[object, object, object, object]]:
        return ((name.encode(), *rest) for name, *rest in self.rows("SELECT name, value, checksum, mac FROM meta"))

    @property
    def numbered(self) -> int:
        return self.number("SELECT numbered FROM state")

    @numbered.setter
    def numbered(self, last: int) -> None:
        self.run("UPDATE state SET numbered = ?", (last,))

    def take_numbers(self, count: int) -> int:
        last = self.number("UPDATE state SET numbered = numbered + ? RETURNING numbered", (count,))
        return last - count + 1

    def problems(self) -> list[str]:
        last, highest = self.numbered, self.number("SELECT max(id) FROM object")
        found = [f"state: {last} is below the object {highest}"] if last < highest else []
        found += schema.beyond(max(last, highest))
        states = self.number("SELECT count(*) FROM state")
        return found if states == 1 else [*found, f"state: {states} rows instead of one"]

    # Transactions and changes

    def writing(self, *, durable: bool = True) -> Writing:
        """See the Database protocol. All of it is durable: what is not is lost in a crash of the server, too."""
        return Writing(self)

    def call_when_changed(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def refresh(self) -> None:
        asked = time.monotonic()
        row = self.row("SELECT generation FROM state")
        if row is None:
            raise PKCS11Error(CKR.DEVICE_ERROR, "the token's row of `state` is missing")
        self._asked = asked
        self.notice(row[0])

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() < self._asked + self.max_age and self._connection is not None

    def notice(self, generation: int) -> None:
        """The token is at this generation: if that is another than the one that was known, others have written."""
        if generation != self.generation:
            self.generation = generation
            self.counter += 1
            self._changed()

    def committed(self, generation: int) -> None:
        """After a commit of our own: it is no news to us."""
        self.generation = generation
        self.counter += 1

    def checkpoint(self) -> None:
        """What was overwritten goes when the server vacuums: nobody here can hurry that."""

    def recover(self) -> None:
        """A server that is full says so at each write."""

    def give_way(self) -> bool:
        return False

    def keep_room(self) -> None:
        """The server's disk is its administrator's matter."""

    # The end

    def close(self) -> None:
        if self.process != os.getpid():
            self.abandon()
            return
        self.let_go()
        self.process = 0

    def abandon(self) -> None:
        """In a forked child: let go of the socket without a word, which the server would take for the parent's."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        _inherited.append(connection)
        if not self.kept.are_ours():
            return
        try:
            os.close(connection.pgconn.socket)
        except (psycopg.Error, OSError):
            return


class Writing:
    """A transaction that writes: the lock on `state`, then COMMIT, or ROLLBACK when the block raises."""

    __slots__ = ("_database",)

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    def __enter__(self) -> None:
        database = self._database
        connection = database.connection
        if database.read_only:
            raise PKCS11Error(CKR.TOKEN_WRITE_PROTECTED, "PostgreSQL: the server lets us read only")
        try:
            found = last_row(connection, "BEGIN; SELECT generation FROM state FOR UPDATE")
        except psycopg.Error as problem:
            told = database.failed(problem)
            self._roll_back()
            raise told from None
        database.writing_now = True
        try:
            if found is None:
                raise PKCS11Error(CKR.DEVICE_ERROR, "the token's row of `state` is missing")
            database.notice(found[0])
        except BaseException:
            self._roll_back()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._roll_back()
            return
        database = self._database
        generation, nonce = database.generation + 1, os.urandom(8)
        try:
            database.connection.execute(
                f"UPDATE state SET generation = {generation};"  # noqa: S608 - numbers of our own
                f"INSERT INTO done VALUES ({generation}, '\\x{nonce.hex()}');"
                f"DELETE FROM done WHERE generation <= {generation - tables.KEPT};"
                "COMMIT".encode()
            )
        except psycopg.Error as problem:
            told = database.failed(problem)
            self._roll_back()
            if not isinstance(told, LostConnectionError) or not self._happened(generation, nonce):
                raise told from None
        except BaseException:
            self._roll_back()
            raise
        database.writing_now = False
        database.committed(generation)

    def _happened(self, generation: int, nonce: bytes) -> bool:
        """Whether a transaction was committed whose COMMIT got no answer.

        The lock on `state` is had only after the server has ended that transaction, one way or the other.
        """
        database = self._database
        give_up = time.monotonic() + max(database.patience, LOCK_TIMEOUT)
        while True:
            try:
                connection = database.connection
                last_row(connection, "BEGIN; SELECT generation FROM state FOR UPDATE")
                found = database.row("SELECT nonce FROM done WHERE generation = ?", (generation,))
                connection.execute("ROLLBACK")
            except (psycopg.Error, PKCS11Error) as problem:
                why = database.failed(problem).reason if isinstance(problem, psycopg.Error) else problem.reason
                if time.monotonic() > give_up:
                    text = f"the connection was lost in a commit; whether that happened cannot be told: {why}"
                    raise PKCS11Error(CKR.FUNCTION_FAILED, text) from None
                self._roll_back()
                with ASIDE:
                    time.sleep(PAUSE)
            else:
                return found == (nonce,)

    def _roll_back(self) -> None:
        database = self._database
        database.writing_now = False
        connection = database._connection  # noqa: SLF001 - this class is the other half of it
        if connection is None or connection.closed or not database.kept.are_ours():
            database.let_go()
            return
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            database.let_go()


def _nothing() -> None:
    """Nobody wants to know."""
