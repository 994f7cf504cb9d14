"""What somebody does who can write to a token's tables and has no PIN: with SQL, on a file or on PostgreSQL.

Checksums he makes fit, and look-ups; MACs he cannot make, only put back.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import apsw

from keyfob.store.integrity import (
    META_CHECKSUM,
    OBJECT_CHECKSUM,
    PUBLIC_INDEX,
    look_ups,
    tag_of_meta,
    tag_of_object,
)
from keyfob.store.meta import COUNTERS
from keyfob.store.record import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keyfob.store import Attributes

FAILED_USER = 16  # where that count is in the row `counters`
KEPT = ("object", "version", "private", "record", "checksum", "mac")


class Forger:
    """`run(sql, values)`: a statement, with `?` for values, and its rows."""

    def __init__(self, run: Callable[[str, tuple[Any, ...]], list[tuple[Any, ...]]]) -> None:
        self.run = run

    def one(self, sql: str, *values: Any) -> Any:
        [row] = self.run(sql, values)
        return row[0] if len(row) == 1 else row

    def do(self, sql: str, *values: Any) -> None:
        self.run(sql, values)

    # Facts

    def put_fact(self, name: str, value: bytes) -> None:
        checksum = tag_of_meta(META_CHECKSUM, name, value)
        self.do("UPDATE meta SET value = ?, checksum = ? WHERE name = ?", value, checksum, name)

    def fact(self, name: str) -> bytes:
        return bytes(self.one("SELECT value FROM meta WHERE name = ?", name))

    def counters(self) -> bytes:
        return self.fact(COUNTERS)

    def strike_wrong_pins(self) -> None:
        value = bytearray(self.counters())
        struct.pack_into("<II", value, FAILED_USER, 0, 0)
        self.put_fact(COUNTERS, bytes(value))

    def next_version(self) -> int:
        value = bytearray(self.counters())
        (version,) = struct.unpack_from("<Q", value)
        struct.pack_into("<Q", value, 0, version + 1)
        self.put_fact(COUNTERS, bytes(value))
        return int(version) + 1

    # Objects

    def attributes(self, number: int) -> Attributes:
        """Of a public one."""
        return decode(bytes(self.one("SELECT record FROM object WHERE id = ?", number)))

    def replace(self, number: int, attributes: Attributes) -> None:
        """A public object by one without a MAC, as a program writes it without a login."""
        old = look_ups(PUBLIC_INDEX, self.attributes(number))
        version, record = self.next_version(), encode(attributes)
        checksum = tag_of_object(OBJECT_CHECKSUM, number, version, 0, record)
        statement = "UPDATE object SET version = ?, record = ?, checksum = ?, mac = NULL WHERE id = ?"
        self.do(statement, version, record, checksum, number)
        new = look_ups(PUBLIC_INDEX, attributes)
        for digest, _ in old - new:
            self.do("DELETE FROM lookup WHERE digest = ? AND object = ?", digest, number)
        for digest, mark in new - old:
            self.do("INSERT INTO lookup (digest, object, class) VALUES (?, ?, ?)", digest, number, mark)

    def keep(self, number: int) -> None:
        """Put the row where a program without a login puts one that it changes or removes."""
        columns = ", ".join(KEPT[1:])
        self.do(f"INSERT INTO pending SELECT id, {columns} FROM object WHERE id = ?", number)

    def remove(self, number: int) -> None:
        self.do("DELETE FROM object WHERE id = ?", number)
        self.do("DELETE FROM lookup WHERE object = ?", number)


def in_file(path: Path, change: Callable[[Forger], None]) -> None:
    """Let somebody change a token's file."""
    connection = apsw.Connection(str(path))
    change(Forger(lambda sql, values: connection.execute(sql, values).fetchall()))
    connection.close()


def in_server(url: str, slot_id: int, change: Callable[[Forger], None]) -> None:
    """Let somebody change a token's tables in PostgreSQL."""
    import psycopg

    from keyfob.store.postgres import tables

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SET search_path TO {tables.name(slot_id)}".encode())

        def run(sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
            cursor = connection.execute(sql.replace("?", "%s").encode(), values)
            return cursor.fetchall() if cursor.description else []

        change(Forger(run))
        connection.execute(b"UPDATE state SET generation = generation + 1")
