"""A write transaction of SQLite's: done and durable, or refused and undone.

A COMMIT that fails is not always undone by SQLite. It writes its frames to the write-ahead log, the last of them marked
as a commit, and then has the log synced. Where only that fails nobody sees the change, because the index of the log
does not know of it; but whoever opens the token after a crash builds a new index from the log, and finds a whole
commit. So what stands in the log behind the last frame of the index is cut off before the failure is answered. That is
safe while the lock of writers is held: nobody reads there (sqlite.org/walformat.html), and what another writer has
written in between is in the index by then. It needs no room on the disk.

Where even that fails the answer says that nobody can tell, as PostgreSQL's store does for a COMMIT without an answer.
The next commit writes over those frames, and the last program that closes the token removes the log.
"""

from __future__ import annotations

import os
from struct import Struct

import apsw

from keyfob import files
from keyfob.settled import SETTLED
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.store.database import SqliteDatabase

LOG_HEADER, FRAME_HEADER = 32, 24  # bytes in the write-ahead log
# Of the header of its index: the page size, in which 1 stands for 65,536, and the number of its frames.
INDEX = Struct("=14xHI")
DATABASE_SIZE = slice(4, 8)  # of a frame's header: 0 where it is no commit


class Writing:
    """BEGIN IMMEDIATE, then COMMIT, or ROLLBACK when the block raises."""

    __slots__ = ("_database", "_durable")

    def __init__(self, database: SqliteDatabase, *, durable: bool) -> None:
        self._database = database
        self._durable = durable

    def __enter__(self) -> None:
        database = self._database
        if database.read_only:
            raise PKCS11Error(CKR.TOKEN_WRITE_PROTECTED, f"{os.path.basename(database.path)} can only be read")
        database.check_descriptors()
        try:
            if self._durable != database.is_durable:
                self._set_durable(self._durable)
            database.run("BEGIN IMMEDIATE")
            database.notice()
        except BaseException:
            self._roll_back()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._commit()
        else:
            self._roll_back()

    def _commit(self) -> None:
        database = self._database
        try:
            database.run("COMMIT")
        except PKCS11Error as problem:
            self._roll_back()
            reason = _undo(database)
            if reason:
                text = f"{problem.reason}; whether the change was made cannot be told: {reason}"
                raise PKCS11Error(CKR.FUNCTION_FAILED, text) from None
            raise
        except BaseException:
            self._roll_back()
            raise
        database.committed()
        self._be_durable_again()

    def _roll_back(self) -> None:
        connection = self._database._connection  # noqa: SLF001 - also one that was lost
        try:
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
        except apsw.Error:  # SQLite has rolled back by itself on a full disk or an I/O error
            return
        finally:
            self._be_durable_again()

    def _be_durable_again(self) -> None:
        """As most are. Where that fails the next transaction that has to be does it first, or is refused."""
        if not self._durable:
            with SETTLED:
                self._set_durable(True)

    def _set_durable(self, durable: bool) -> None:
        database = self._database
        database.is_durable = False
        database.run(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        database.is_durable = durable


def _undo(database: SqliteDatabase) -> str:
    """Cut off what a COMMIT that failed may have left in the log; why that cannot be done, or nothing."""
    try:
        database.run("BEGIN IMMEDIATE")
    except PKCS11Error as problem:
        return problem.reason
    try:
        return _cut(database)
    finally:
        with SETTLED:
            database.run("ROLLBACK")


def _cut(database: SqliteDatabase) -> str:
    """Within a transaction that has written nothing."""
    log, header = database.path + "-wal", database.watcher.read()
    if not isinstance(header, bytes) or len(header) < INDEX.size:
        return "the index of the write-ahead log cannot be read"
    page, frames = INDEX.unpack_from(header)
    frame = FRAME_HEADER + (65536 if page == 1 else page)
    end = LOG_HEADER + frames * frame
    try:
        if os.stat(log).st_size > end and _holds_commit(log, end, frame):
            files.cut(log, end)
    except FileNotFoundError:  # somebody has removed it, and nothing is left to find in it
        return ""
    except OSError as problem:
        return f"{os.path.basename(log)}: {problem.strerror}"
    return ""


def _holds_commit(log: str, place: int, frame: int) -> bool:
    """Whether a frame from there on is marked as a commit: with the size of the database after it."""
    descriptor = files.reading(log)  # SQLite has no locks on this file that closing it could drop
    try:
        while len(found := os.pread(descriptor, FRAME_HEADER, place)) == FRAME_HEADER:
            if any(found[DATABASE_SIZE]):
                return True
            place += frame
        return False
    finally:
        os.close(descriptor)
