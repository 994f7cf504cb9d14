"""Many processes on one token, and what a fork may do."""

from __future__ import annotations

from pathlib import Path

from keyfob.spec.constants import CKA
from keyfob.store import SqliteStore
from tests.store.samples import USER_PIN, certificate, make, output_of, private_key, start_program

WRITERS, EACH = 4, 50

WRITER = """
import sys
from keyfob.store import SqliteStore
from tests.store.samples import USER_PIN, certificate, private_key
path, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = SqliteStore.open(path)
store.login("user", USER_PIN)
for i in range(first, first + count):
    print(*store.insert([private_key(i), certificate(i)]))
store.close()
"""

READER = """
import sys
from keyfob.spec.constants import CKA
from keyfob.store import SqliteStore
from tests.store.samples import USER_PIN
store = SqliteStore.open(sys.argv[1])
store.login("user", USER_PIN)
seen, counter = 0, 0
while seen < int(sys.argv[2]):
    numbers = store.find([(CKA.SENSITIVE, b"\\1")])
    assert len(numbers) >= seen, "an object vanished"
    seen = len(numbers)
    for number in numbers[-3:]:
        label = store.get(number)[CKA.LABEL]
        assert number in store.find([(CKA.LABEL, label)])
    assert store.change_counter() >= counter
    counter = store.change_counter()
store.close()
print(seen)
"""


def test_writers_and_readers_at_once_lose_nothing(path: Path) -> None:
    store = make(path)
    writers = [start_program(WRITER, path, 1000 * (i + 1), EACH) for i in range(WRITERS)]
    reader = start_program(READER, path, WRITERS * EACH)
    numbers: dict[int, int] = {}
    for i, writer in enumerate(writers):
        with writer:
            assert writer.stdout is not None
            lines = writer.stdout.read().decode().splitlines()
        assert writer.returncode == 0
        numbers |= {int(line.split()[0]): 1000 * (i + 1) + j for j, line in enumerate(lines)}
    with reader:
        assert reader.stdout is not None
        assert int(reader.stdout.read()) == WRITERS * EACH
    assert reader.returncode == 0
    assert len(numbers) == WRITERS * EACH
    store.login("user", USER_PIN)
    for number, i in numbers.items():
        assert store.get(number) == private_key(i)
        assert store.find([(CKA.ID, private_key(i)[CKA.ID])]) == [number, number + 1]
    assert store.verify() == []
    store.close()


def test_what_another_connection_does_is_seen_at_once(path: Path) -> None:
    store, other = make(path), SqliteStore.open(path)
    counter = store.change_counter()
    assert store.change_counter() == counter
    [number] = other.insert([certificate(1)])
    assert store.change_counter() != counter
    assert store.get(number) == certificate(1)
    for i in range(2, 50):
        other.update(number, certificate(i))
        assert store.get(number) == certificate(i)
        assert store.find([(CKA.LABEL, b"certificate %d" % i)]) == [number]
    other.login("user", USER_PIN)
    other.set_label("renamed")
    assert store.info().label == "renamed"
    other.delete([number])
    assert store.get(number) is None
    other.close()
    store.close()


def test_what_another_process_does_is_seen_at_once(path: Path) -> None:
    store = make(path)
    [number] = store.insert([certificate(1)])
    assert store.get(number) == certificate(1)
    counter = store.change_counter()
    output_of(
        """
import sys
from keyfob.store import SqliteStore
from tests.store.samples import certificate
SqliteStore.open(sys.argv[1]).update(int(sys.argv[2]), certificate(2))
""",
        path,
        number,
    )
    assert store.get(number) == certificate(2)
    assert store.change_counter() != counter
    store.close()


def test_a_change_between_own_changes_is_seen(path: Path) -> None:
    """The store's own commits must not hide another's."""
    store, other = make(path), SqliteStore.open(path)
    [number] = store.insert([certificate(1)])
    for i in range(2, 30):
        assert store.get(number) == certificate(i - 1)
        other.update(number, certificate(i))
        store.insert([certificate(1000 + i)])
        assert store.get(number) == certificate(i)
    store.close()
    other.close()


def test_changes_through_ten_reopenings_are_seen(path: Path) -> None:
    """-shm is deleted and made anew each time; its mapping must follow."""
    make(path).close()
    for i in range(10):
        store, other = SqliteStore.open(path), SqliteStore.open(path)
        [number] = store.insert([certificate(i)])
        assert other.get(number) == certificate(i)
        other.update(number, certificate(i + 100))
        assert store.get(number) == certificate(i + 100)
        store.close()
        other.delete([number])
        other.close()
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert sum(str(link.readlink()).startswith(str(path)) for link in links) <= 2


def test_closing_one_store_leaves_the_locks_of_another(path: Path) -> None:
    """POSIX locks fall when any descriptor of the file is closed: the last closer must not think that it is alone."""
    store, other = make(path), SqliteStore.open(path)
    other.close()
    # If our lock were gone, this process's connection would delete the WAL under us.
    output_of(WRITER, path, 1000, 3)
    assert path.with_name(path.name + "-wal").exists()
    [number] = store.insert([certificate(1)])
    assert store.get(number) == certificate(1)
    assert store.verify() == []
    store.close()


FORKER = """
import os, sys
from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore
from tests.store.samples import USER_PIN, certificate, private_key
path, way = sys.argv[1], sys.argv[2]
store = SqliteStore.open(path)
store.login("user", USER_PIN)
numbers = store.insert([private_key(1), certificate(1)])
store.get(numbers[0])
if way == "unnoticed":
    import keyfob.store.fork
    keyfob.store.fork._stores.clear()
child = os.fork()
if child == 0:
    status = 0
    calls = [lambda: store.find([]), lambda: store.insert([certificate(2)]), lambda: store.login("user", b"1234")]
    if way != "unnoticed":  # what is in memory needs no connection
        calls += [store.info, lambda: store.get(numbers[0])]
    for call in calls:
        try:
            call()
            status = 1
        except PKCS11Error as problem:
            if problem.rv != 0x190:
                status = 2
    store.abandon()
    store.close()
    del store
    if way == "unnoticed":  # nobody waited for the connection to be idle: the file is not to be trusted here
        try:
            SqliteStore.open(path)
            status = 4
        except PKCS11Error as problem:
            status = status or (0 if problem.rv == 0x30 else 5)
        os._exit(status)
    own = SqliteStore.open(path)
    own.login("user", USER_PIN)
    if own.get(numbers[0]) != private_key(1):
        status = 3
    own.insert([certificate(3)])
    own.close()
    if way == "exit":
        sys.exit(status)
    os._exit(status)
for i in range(20):
    store.insert([certificate(100 + i)])
_, status = os.waitpid(child, 0)
assert store.get(numbers[0]) == private_key(1)
made = 22 if way == "unnoticed" else 23
assert len(store.find([])) == made, store.find([])
assert store.verify() == []
store.insert([certificate(500)])
store.close()
store = SqliteStore.open(path)
assert len(store.find([])) == made
store.login("user", USER_PIN)
assert len(store.find([])) == made + 1 and store.verify() == []
store.close()
print(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_cannot_use_the_store_and_does_not_harm_it(path: Path) -> None:
    for way in ("_exit", "exit", "unnoticed"):
        make(path).close()
        assert output_of(FORKER, path, way).strip() == "0", way
        path.unlink()


def test_many_starts_at_once_all_succeed(path: Path) -> None:
    store = make(path)
    store.insert([certificate(1)])
    store.close()
    program = """
import sys
from keyfob.store import SqliteStore
from tests.store.samples import USER_PIN
for _ in range(10):
    store = SqliteStore.open(sys.argv[1])
    store.login("user", USER_PIN)
    assert len(store.find([])) == 1
    store.close()
"""
    programs = [start_program(program, path) for _ in range(8)]
    for started in programs:
        with started:
            pass
    assert [started.returncode for started in programs] == [0] * len(programs)
    store = SqliteStore.open(path)
    assert store.info().failed_user == 0
    store.close()
