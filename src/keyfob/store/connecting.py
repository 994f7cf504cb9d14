"""Connections to SQLite as this store wants them, and SQLite's errors as PKCS11Error."""

from __future__ import annotations

import os

import apsw

from keyfob import descriptors
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import budget, schema
from keyfob.store.patience import Patience
from keyfob.store.watch import FileStatus, SharedHeader, Unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.store.watch import Watcher

    Connected = tuple[apsw.Connection, Watcher, bool]  # the last: whether it refuses to be written

# (kind of SQLite's error, what a caller of PKCS #11 is told), the first that fits.
ANSWERS: tuple[tuple[type[Exception], int], ...] = (
    (apsw.FullError, CKR.DEVICE_MEMORY),
    (apsw.ReadOnlyError, CKR.TOKEN_WRITE_PROTECTED),
    (apsw.NoMemError, CKR.HOST_MEMORY),
    (apsw.BusyError, CKR.FUNCTION_FAILED),
    (apsw.Error, CKR.DEVICE_ERROR),
)
# An I/O error that means a full disk: SQLite reserves the WAL index in advance.
FULL = apsw.SQLITE_IOERR_SHMSIZE
WAL_HEADER = 32  # bytes; a WAL file that is not longer holds no commit
ROOM = 64 * 1024  # bytes; where less is free SQLite may not even be able to make its files


def answer(problem: Exception, path: str) -> PKCS11Error:
    """What to say for an error of SQLite's. Its texts name tables and files, never values."""
    name = os.path.basename(path)
    if isinstance(problem, (UnicodeDecodeError, OverflowError)):  # damage turned a BLOB into TEXT
        return PKCS11Error(CKR.DEVICE_ERROR, f"{name}: damaged: a value has the wrong type")
    extended = getattr(problem, "extendedresult", None)
    if extended == FULL:
        return PKCS11Error(CKR.DEVICE_MEMORY, f"{name}: no space left on the device")
    if extended == apsw.SQLITE_READONLY_DBMOVED:
        return PKCS11Error(CKR.DEVICE_ERROR, f"{name}: the file was moved or deleted while it was open")
    if isinstance(problem, apsw.InterruptError):
        return PKCS11Error(CKR.DEVICE_ERROR, f"{name}: damaged: {budget.EXCEEDED}")
    rv = next((rv for kind, rv in ANSWERS if isinstance(problem, kind)), CKR.DEVICE_ERROR)
    return PKCS11Error(rv, f"{name}: {problem}")


# The last one: no temporary files where the environment says that they should be.
SETTINGS = (
    *("synchronous = FULL", "secure_delete = ON", "cell_size_check = ON", "journal_size_limit = 4194304"),
    "temp_store = MEMORY",
)


def is_full(problem: apsw.Error, path: str) -> bool:
    """Whether a token that cannot be opened to be written has no room to, and is not one that nobody may write."""
    if isinstance(problem, apsw.FullError) or getattr(problem, "extendedresult", None) == FULL:
        return True
    folder = os.path.dirname(os.path.abspath(path))
    if not isinstance(problem, apsw.CantOpenError) or not os.access(folder, os.W_OK) or not os.access(path, os.W_OK):
        return False
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize < ROOM or room.f_favail == 0


def configure(connection: apsw.Connection) -> Patience:
    """Durable commits, no leftovers, and nothing in a prepared file that runs by itself; who waits for its locks."""
    budget.limit_opening(connection)
    patience = Patience()
    connection.set_busy_handler(patience)
    # No checkpoint by chance: not in a child that inherited the connection, nor on a store that we are about to refuse.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)
    # One plan per statement, whatever is bound: SQLite with STAT4 would compile joins anew for each value, 4 us.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    for setting in SETTINGS:
        connection.execute(f"PRAGMA {setting}").fetchall()
    return patience


def recognise(connection: apsw.Connection, path: str) -> None:
    """Refuse what is not ours or is newer, before anything is written."""
    application = connection.execute("PRAGMA application_id").fetchall()[0][0]
    if application != schema.APPLICATION_ID:
        raise PKCS11Error(CKR.TOKEN_NOT_RECOGNIZED, f"{path} is not a keyfob token")
    version = connection.execute("PRAGMA user_version").fetchall()[0][0]
    if not isinstance(version, int) or not 1 <= version <= schema.VERSION:
        text = f"{path} has schema {version}, this keyfob knows up to {schema.VERSION}: use a newer keyfob"
        raise PKCS11Error(CKR.TOKEN_NOT_RECOGNIZED, text)


def _refuse_journal(path: str) -> None:
    """A token never has a rollback journal: it is made as one that has a write-ahead log.

    Whoever prepares a journal has SQLite write into the token what stands there, and some versions of SQLite also
    delete the file that it names as the journal of several databases: any file of the user's.
    """
    journal = path + "-journal"
    if size(journal) > 0:
        text = f"{path} has a rollback journal, which no token has: look who has put {os.path.basename(journal)} there"
        raise PKCS11Error(CKR.DEVICE_ERROR, text)


def _opened(path: str, flags: int, *, immutable: bool = False) -> apsw.Connection:
    """By the name that SQLite would make of the path, and by no other if somebody puts a link there meanwhile.

    Files that SQLite opens by another name are not keyfob's, and not guarded (descriptors.py).
    """
    name = os.path.realpath(path)
    descriptors.name(name)
    if immutable:
        quoted = name.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        name, flags = f"file:{quoted}?immutable=1", flags | apsw.SQLITE_OPEN_URI
    return apsw.Connection(name, flags=flags | apsw.SQLITE_OPEN_NOFOLLOW)


def connect(path: str, *, read_only: bool) -> Connected:
    """Also where only SQLite's own files beside it can be written."""
    _refuse_journal(path)
    connection = _opened(path, apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE)
    try:
        patience = configure(connection)
        recognise(connection, path)
        refuses_writing = connection.readonly("main")
        if not refuses_writing:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        try:
            patience.watcher = SharedHeader(path)
        except (OSError, ValueError):
            patience.watcher = Unknown()
    except BaseException:
        connection.close(True)
        raise
    return connection, patience.watcher, refuses_writing


def connect_immutable(path: str, reason: apsw.Error) -> Connected:
    """Where SQLite can make no -shm (a folder that cannot be written, a full disk): read the file alone.

    Right only as long as nobody writes to it; FileStatus notices, and the connection is opened again.
    """
    if not os.access(path, os.R_OK, effective_ids=True):  # asked without opening it: see watch.py on descriptors
        raise PKCS11Error(CKR.DEVICE_ERROR, f"{path} cannot be read: no permission") from None
    wal = path + "-wal"
    if size(wal) > WAL_HEADER:
        text = f"{path}: its last changes wait in {os.path.basename(wal)}; make its folder writable once ({reason})"
        raise PKCS11Error(CKR.DEVICE_ERROR, text) from None
    watcher = FileStatus(path)
    return reconnect_immutable(path), watcher, True


def reconnect_immutable(path: str) -> apsw.Connection:
    connection = _opened(path, apsw.SQLITE_OPEN_READONLY, immutable=True)
    configure(connection)
    recognise(connection, path)
    return connection


def size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
