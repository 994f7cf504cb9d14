"""A Python host with databases of its own in the same SQLite: `own_databases MODULE PIN FOLDER`. Prints JSON.

A transaction is under way in two of them before the module is loaded: a database that is nothing to keyfob, and the
very file of the token. Both are opened once more after that, the token by keyfob.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import apsw

from tests.client import Client, ffi

LOCK = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"


def is_locked(path: str) -> bool:
    """Whether this process has a lock on the file, as another one sees it."""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", LOCK, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "BlockingIOError" in done.stderr, done.stderr
    return done.returncode != 0


def numbers_of(path: str) -> list[int]:
    status = os.stat(path)
    found = [int(name) for name in os.listdir("/proc/self/fd")]
    return [number for number in found if is_open(number) and os.path.samestat(os.fstat(number), status)]


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def beyond_the_limit(connection: apsw.Connection) -> str:
    """What SQLite calls it when a file has become as large as it may be."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, most))
    try:
        connection.execute("INSERT INTO own VALUES (3)")
    except apsw.Error as problem:
        return type(problem).__name__
    return ""


def main() -> None:
    module, pin, folder = sys.argv[1], sys.argv[2].encode(), sys.argv[3]
    own, token = f"{folder}/own.db", f"{os.environ['KEYFOB_HOME']}/tokens/slot-1.keyfob"
    writer = apsw.Connection(own)
    writer.execute("CREATE TABLE own (value)")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO own VALUES (1)")
    reader = apsw.Connection(token)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM object").fetchall()
    files = (own, token, token + "-shm")
    before = [is_locked(path) for path in files]

    client = Client(module)
    client.initialize()
    session = client.open(client.slots()[0])
    client.login(session, pin)
    second = apsw.Connection(own)
    seen = second.execute("SELECT count(*) FROM own").fetchall()
    after = [is_locked(path) for path in files]
    numbers = numbers_of(own)
    writer.execute("COMMIT")

    # A file of the host's may have a second name, which nothing that stands beside a token may.
    second.execute("PRAGMA journal_mode = WAL").fetchall()
    second.execute("INSERT INTO own VALUES (2)")
    os.link(f"{own}-wal", f"{folder}/second-name")
    found = apsw.Connection(own).execute("SELECT value FROM own ORDER BY value").fetchall()
    client.ok("C_Finalize", ffi.NULL)
    problem = beyond_the_limit(second)
    answer = {"before": before, "after": after, "seen": seen, "numbers": numbers, "found": found, "problem": problem}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
