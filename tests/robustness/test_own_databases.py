"""A Python host that uses keyfob's SQLite for databases of its own: they are used as if keyfob were not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from keyfob.spec.constants import CKA
from tests.client import Client, ffi
from tests.conftest import PIN, Fob
from tests.robustness.hosts import answer_of, python_child
from tests.robustness.own_databases import numbers_of
from tests.robustness.test_descriptors import DATA, create, descriptors, labels


def test_databases_of_the_hosts_keep_their_locks_numbers_and_names(home: Path, token: Path, tmp_path: Path) -> None:
    answer = answer_of(python_child("own_databases", PIN.decode(), str(tmp_path), KEYFOB_HOME=str(home)))
    assert answer["before"] == answer["after"] == [True, True, True]
    assert answer["seen"] == [[0]]
    assert len(answer["numbers"]) == 2
    assert max(answer["numbers"]) < 100
    assert answer["found"] == [[1], [2]]
    assert answer["problem"] == "IOError"  # keyfob's would be full: FullError


@contextmanager
def no_number_free_below(last: int) -> Iterator[None]:
    taken: list[int] = []
    while not taken or taken[-1] < last:
        taken.append(os.open(os.devnull, os.O_RDONLY))
    if taken[-1] > last:
        os.close(taken.pop())
    try:
        yield
    finally:
        for number in taken:
            os.close(number)


def test_a_database_of_the_hosts_gets_no_number_that_keyfob_has_lost(
    home: Path, client: Client, fob: Fob, tmp_path: Path
) -> None:
    """keyfob would close it late, and take it for the one that it has lost until then."""
    path = str(tmp_path / "own.db")
    create(client, fob.session, "first")
    lost = descriptors(home)
    with no_number_free_below(lost[0] - 1):
        for number in lost:
            os.close(number)
        own = apsw.Connection(path)
        own.execute("CREATE TABLE own (value)")
        (number,) = numbers_of(path)
        assert number not in lost
        own.execute("BEGIN IMMEDIATE")
        create(client, fob.session, "second")
        assert numbers_of(path) == [number]
        own.execute("INSERT INTO own VALUES (1)")
        own.execute("COMMIT")
    assert len(client.find(fob.session, DATA)) == 2
    client.ok("C_Finalize", ffi.NULL)
    assert own.execute("SELECT value FROM own").fetchall() == [(1,)]
    own.close()
    assert labels(home) == [b"first", b"second"]


def test_a_token_is_guarded_by_whatever_path_it_is_reached(home: Path, client: Client, fob: Fob) -> None:
    """SQLite opens files by names without symbolic links, and the guard knows keyfob's by their names."""
    client.ok("C_Finalize", ffi.NULL)
    (home / "tokens").rename(home / "elsewhere")
    (home / "tokens").symlink_to(home / "elsewhere", target_is_directory=True)
    client.initialize()
    session = client.open(client.slots()[0])
    client.login(session, PIN)
    created = create(client, session, "one")
    found = [number for end in ("", "-wal", "-shm") for number in numbers_of(f"{home}/tokens/slot-1.keyfob{end}")]
    assert len(found) == 3
    assert min(found) >= 100
    for number in found:
        os.close(number)
    assert client.get(session, created, CKA.LABEL) == [b"one"]
