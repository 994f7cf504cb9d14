"""A whole token from one database into another, row by row as they are: sealed, guarded, counted, and good for both."""

from __future__ import annotations

from _blake2 import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyfob.store.protocol import Database, Row

META = ("name", "value", "checksum", "mac")
# Columns of the other tables; a table's rows are in the order of the first two.
COLUMNS = {
    "object": ("id", "version", "private", "record", "checksum", "mac"),
    "lookup": ("digest", "object", "class"),
    "unindexed": ("object",),
    "roster": ("block", "versions", "tag"),
    "pending": ("object", "version", "private", "record", "checksum", "mac"),
    "notice": ("number", "content", "mac"),
}
AT_ONCE = 500  # rows that are held in memory


def copy(source: Database, target: Database) -> None:
    """Within a transaction of the target's. What is damaged is copied as it is, and noticed there as it is here."""
    _insert(target, "meta", META, _facts(source))
    for table, columns in COLUMNS.items():
        some: list[Row] = []
        for row in _rows(source, table):
            some.append(row)
            if len(some) == AT_ONCE:
                _insert(target, table, columns, some)
                some = []
        _insert(target, table, columns, some)
    target.numbered = source.numbered


def fingerprint(database: Database) -> tuple[int, bytes]:
    """The number of objects, and a digest of every row."""
    hasher = blake2b(digest_size=32, person=b"keyfob copy")
    for fact in _facts(database):
        hasher.update(repr(fact).encode())
    for table in COLUMNS:
        for row in _rows(database, table):
            hasher.update(repr(row).encode())
    hasher.update(repr(database.numbered).encode())
    return database.number("SELECT count(id) FROM object"), hasher.digest()


def _facts(database: Database) -> list[Row]:
    """The meta table, but for rows whose names are damaged."""
    return sorted((name.decode(errors="replace"), *rest) for name, *rest in database.facts() if isinstance(name, bytes))


def _rows(database: Database, table: str) -> Iterable[Row]:
    columns = COLUMNS[table]
    order = ", ".join(columns[:2])
    return database.rows(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {order}")  # noqa: S608 - our own names


def _insert(target: Database, table: str, columns: tuple[str, ...], values: list[Row]) -> None:
    if values:
        places = ", ".join("?" * len(columns))
        target.run_each(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", values)  # noqa: S608 - as above
