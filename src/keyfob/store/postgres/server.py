"""A Shelf in a PostgreSQL database: each token is a schema, `keyfob_slot_N`."""

from __future__ import annotations

import psycopg
from psycopg import errors

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import create, key_file
from keyfob.store.folder import MAX_SLOT, Folder
from keyfob.store.postgres import place, tables
from keyfob.store.postgres.again import Again
from keyfob.store.postgres.connection import LostConnectionError, answer, connect
from keyfob.store.postgres.database import PostgresDatabase
from keyfob.store.postgres.store import PostgresStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from keyfob.store.hardening import Hardening
    from keyfob.store.pepper import Pepper
    from keyfob.store.postgres.connection import Connection
    from keyfob.store.protocol import Database, Store

TOKENS = f"""
SELECT nspname FROM pg_catalog.pg_namespace
WHERE starts_with(nspname, '{tables.PREFIX}') AND has_schema_privilege(oid, 'USAGE')
"""  # noqa: S608 - a constant
MARKED = f"SELECT to_regclass('{tables.MARK}.store') IS NOT NULL"
START_PATIENCE = 3.0  # seconds: a restart of the server; a program that starts is not to wait longer for its tokens
MAKING = 0x6B657966  # the advisory lock of who makes a token
THERE_ALREADY = (errors.DuplicateSchema, errors.UniqueViolation)


class Server:
    """`url` may hold a password. `folder`: where this machine would keep token files, and keeps key files.

    `patience` and `max_age`: see PostgresDatabase. `witness`: the folder of witness.py; None for none.
    """

    def __init__(
        self, url: str, folder: str, witness: str | None = None, *, patience: float = 10.0, max_age: float = 0.0
    ) -> None:
        self._conninfo = place.complete(url)
        self._parameters = place.parameters(url)
        self.shown = place.shown(url)
        self._files = Folder(folder)
        self._witness = witness
        self._patience = patience
        self._max_age = max_age
        self._again = Again(min(patience, START_PATIENCE))

    def slots(self, log: Callable[[str], None]) -> list[int]:
        return self._again(self._slots, log)

    def _slots(self) -> list[int]:
        with self._marked() as connection:
            try:
                names = [str(name).removeprefix(tables.PREFIX) for (name,) in connection.execute(TOKENS)]
            except psycopg.Error as problem:
                raise answer(problem) from None
        digits = (name for name in names if name.isascii() and name.isdigit() and not name.startswith("0"))
        return sorted(number for each in digits if (number := int(each)) < MAX_SLOT)

    def open(self, slot_id: int, log: Callable[[str], None]) -> Store:
        return self._again(lambda: PostgresStore(self._database(slot_id), log, self._witness), log)

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
        fill = create.filling(
            self._files.file(slot_id),
            label=label,
            serial=serial,
            kind=kind,
            so_pin=so_pin,
            hardening=hardening,
            general_access=general_access,
            empty_pin=empty_pin,
            pepper=pepper,
        )
        try:
            self.build(slot_id, fill)
        except LostConnectionError:  # perhaps in the commit
            made = self.open(slot_id, log)
            if made.info().serial == serial:
                return made
            made.close()
            raise
        return self.open(slot_id, log)

    def build(self, slot_id: int, fill: Callable[[Database], None]) -> None:
        database = PostgresDatabase(self._conninfo, slot_id, self._files.file(slot_id))
        with self._marked():
            pass
        try:
            connection = database.connection
            connection.execute("BEGIN")
            connection.execute(f"CREATE SCHEMA {tables.name(slot_id)}".encode())
            for statement in tables.TABLES:
                connection.execute(statement.encode())
            fill(database)
            connection.execute("COMMIT")
        except THERE_ALREADY:
            raise PKCS11Error(CKR.FUNCTION_FAILED, f"slot {slot_id} has a token already") from None
        except psycopg.Error as problem:
            raise answer(problem) from None
        finally:
            database.close()

    def delete(self, slot_id: int) -> None:
        with self._marked() as connection:
            try:
                connection.execute(f"DROP SCHEMA IF EXISTS {tables.name(slot_id)} CASCADE".encode())
            except psycopg.Error as problem:
                raise answer(problem) from None
        key_file.remove(self._files.file(slot_id))

    def key_file(self, slot_id: int) -> str:
        return self._files.key_file(slot_id)

    def alone(self) -> AbstractContextManager[None]:
        return _Alone(self._conninfo)

    def initialise(self, role: str | None = None) -> bool:
        """Mark the database as a store, and let another role of the server use it; whether it was none before."""
        connection = connect(self._conninfo)
        with connection:
            try:
                new = connection.execute(MARKED.encode()).fetchone() == (False,)
                if new:
                    connection.execute("; ".join(tables.MARK_STATEMENTS).encode())
                if role is not None:
                    database = connection.info.dbname
                    quoted, name = (psycopg.sql.Identifier(each).as_string(connection) for each in (role, database))
                    connection.execute(
                        f"GRANT CREATE ON DATABASE {name} TO {quoted};"
                        f"GRANT USAGE ON SCHEMA {tables.MARK} TO {quoted};"
                        f"GRANT SELECT ON {tables.MARK}.store TO {quoted}".encode()
                    )
            except psycopg.Error as problem:
                raise answer(problem) from None
        return new

    def doubts(self) -> list[str]:
        """What an administrator should think about, in plain words; PKCS11Error where the server does not answer."""
        question = """
            SELECT current_setting('fsync'), current_setting('full_page_writes'),
                   (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), inet_server_addr() IS NULL
        """
        with self._marked() as connection:
            try:
                found = connection.execute(question).fetchone()
            except psycopg.Error as problem:
                raise answer(problem) from None
        assert found is not None
        fsync, full_pages, encrypted, local = found
        doubts = []
        if "off" in (fsync, full_pages):
            doubts.append("the server runs with fsync or full_page_writes off: a power failure can lose tokens")
        if not (encrypted or local) and place.is_remote(self._parameters):
            doubts.append("the connection is not encrypted: certificates and the database's password can be read")
        return doubts

    def _database(self, slot_id: int) -> PostgresDatabase:
        path = self._files.file(slot_id)
        return PostgresDatabase.open(self._conninfo, slot_id, path, patience=self._patience, max_age=self._max_age)

    def _marked(self) -> Connection:
        """A connection, to be closed by `with`, to a database that is a store."""
        connection = connect(self._conninfo)
        try:
            if connection.execute(MARKED.encode()).fetchone() == (False,):
                text = f"{self.shown} holds no store of keyfob's yet: keyfob store init"
                raise PKCS11Error(CKR.DEVICE_ERROR, text)
        except psycopg.Error as problem:
            connection.close()
            raise answer(problem) from None
        except BaseException:
            connection.close()
            raise
        return connection


class _Alone:
    """While a process holds the advisory lock the others wait for it in `__enter__`."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo

    def __enter__(self) -> None:
        self._connection = connect(self._conninfo)
        try:
            self._connection.execute("SELECT pg_advisory_lock(%s)", (MAKING,))
        except psycopg.Error as problem:
            self._connection.close()
            raise answer(problem) from None

    def __exit__(self, *_: object) -> None:
        self._connection.close()
