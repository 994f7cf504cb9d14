"""How much work one statement may be: in proportion to the size of the token's file.

The pages of a damaged or prepared file can lead to the same pages again and again. SQLite notices circles, and b-trees
that are too deep; but 14 pages each of which leads to the next one a hundred times are neither, and have more rows than
anybody can go through. So SQLite's virtual machine counts its steps, and a statement that takes many more than a whole
file of this size has use for is ended: the token is damaged. Steps that are one long loop inside of SQLite are not
counted, and none of our statements has such a step: no count(*) of a whole table, which is one.

Rows that are read one by one, with other statements in between, are counted as rows.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import apsw

OPENING = 100_000  # steps; for reading the schema, which takes some hundred
EVERY = 100_000  # steps between two looks, about a millisecond
PER_BYTE = 10  # steps; the most costly statement on a whole file, PRAGMA integrity_check, takes about 0.15
PER_ROW = 10_000  # steps more, where a statement is run for many rows
LEAST, MOST = 2_000_000, 2_000_000_000  # steps; a hole in a file makes it as large as one likes
EXCEEDED = "its pages lead to the same rows again and again"
SMALLEST = 6  # bytes that a row takes in a page at least


def limit_opening(connection: apsw.Connection) -> None:
    """Nothing that comes before the tables are known has much to do."""
    connection.set_progress_handler(_stop, OPENING)


def _stop() -> bool:
    return True


class Budget:
    """Of a database's statements. `path`: of the file; None for a database in memory, which nobody else has prepared.

    `spent`: steps since a statement began; whoever begins one sets it to 0.
    """

    __slots__ = ("_largest", "_path", "spent")

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._largest = 0
        self.spent = 0

    def begin(self, rows: int) -> None:
        """A statement that is run for so many rows that are given."""
        self.spent = -PER_ROW * rows

    def limit(self, connection: apsw.Connection) -> None:
        if self._path is not None:
            self._size()
            connection.set_progress_handler(self._spend, EVERY)

    def _spend(self) -> bool:
        """Whether the statement is to end."""
        self.spent += EVERY
        return self.spent > LEAST and self.spent > min(PER_BYTE * self._size(), MOST)

    def has(self, rows: int) -> bool:
        """Whether a table can have so many rows, or two of them together."""
        return self._path is None or rows * SMALLEST <= 2 * self._size()

    def _size(self) -> int:
        """The largest that the file was so far, with what waits in the log: somebody may just have removed it."""
        now = 0
        for ending in ("", "-wal"):
            try:
                now += os.stat(f"{self._path}{ending}").st_size
            except OSError:
                continue
        self._largest = max(self._largest, now)
        return self._largest
