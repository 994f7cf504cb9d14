"""Many processes on one token through the built library: no error, nothing lost, and each sees what the others do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyfob.spec.constants import CKA, CKO, CKS
from tests.client import Client, ffi
from tests.conftest import PIN, module_path
from tests.robustness.conftest import Programs
from tests.robustness.hosts import environment
from tests.robustness.sharing import share, start_all

LABEL = "test"
pytestmark = pytest.mark.usefixtures("place")


@pytest.mark.parametrize(("writers", "pairs", "readers"), [(3, 5, 1), pytest.param(8, 200, 2, marks=pytest.mark.long)])
def test_processes_that_make_key_pairs_at_once_lose_none(
    home: Path, token: Path, writers: int, pairs: int, readers: int
) -> None:
    outcome = share(
        module_path(),
        LABEL,
        PIN.decode(),
        writers=writers,
        pairs=pairs,
        readers=readers,
        environment={"KEYFOB_HOME": str(home)},
    )
    assert outcome["failures"] == []
    assert outcome["lost"] == []
    assert outcome["broken"] == []
    assert (outcome["made"], outcome["there"]) == (writers * pairs, writers * pairs)


@pytest.mark.parametrize(("count", "at_once"), [(8, 8), pytest.param(400, 64, marks=pytest.mark.long)])
def test_none_of_many_starts_at_once_fails(
    programs: Programs, home: Path, token: Path, count: int, at_once: int
) -> None:
    program, where = programs("start"), {"KEYFOB_HOME": str(home)}
    outcome = start_all(program, module_path(), count=count, at_once=at_once, environment=where)
    assert outcome["failures"] == []


class Other:
    """Another process on the token: each line is a call on Client, its answer a line of JSON."""

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.robustness.other", str(module_path())],
            env=environment(PYTHONPATH=str(module_path().parents[1]), KEYFOB_HOME=str(home)),
            cwd=Path(__file__).resolve().parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *words: str | int) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(*words, file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture
def others(home: Path, token: Path) -> Iterator[list[Other]]:
    """Two processes with a session each; nobody is logged in."""
    started = [Other(home) for _ in range(2)]
    yield started
    for other in started:
        other.close()


def test_an_object_made_in_one_process_is_found_by_another_on_its_next_search(others: list[Other]) -> None:
    one, two = others
    one.ask("login", PIN.decode())
    two.ask("login", PIN.decode())
    for number in range(20):
        assert two.ask("find", f"key {number}".replace(" ", "-")) == []
        handle = one.ask("make", f"key-{number}")
        assert two.ask("find", f"key-{number}") == [handle]
        assert two.ask("sign", handle) == "CKR_OK"


def test_an_object_destroyed_in_one_process_is_invalid_in_all(others: list[Other]) -> None:
    one, two = others
    for other in others:
        other.ask("login", PIN.decode())
    for number in range(20):
        handle = one.ask("make", f"key-{number}")
        assert two.ask("sign", handle) == "CKR_OK"
        assert one.ask("destroy", handle) == "CKR_OK"
        for other in others:
            assert other.ask("read", handle) == "CKR_OBJECT_HANDLE_INVALID"
            assert other.ask("destroy", handle) == "CKR_OBJECT_HANDLE_INVALID"
            assert other.ask("sign", handle) == "CKR_KEY_HANDLE_INVALID"
            assert other.ask("find", f"key-{number}") == []


def test_logins_are_per_process(others: list[Other]) -> None:
    one, two = others
    one.ask("login", PIN.decode())
    handle = one.ask("make", "mine")
    assert one.ask("state") == CKS.RW_USER_FUNCTIONS
    assert two.ask("state") == CKS.RW_PUBLIC_SESSION
    assert two.ask("find", "mine") == []
    assert two.ask("read", handle) == "CKR_OBJECT_HANDLE_INVALID"
    two.ask("login", PIN.decode())
    assert one.ask("logout") == "CKR_OK"
    assert one.ask("read", handle) == "CKR_OBJECT_HANDLE_INVALID"
    assert two.ask("state") == CKS.RW_USER_FUNCTIONS
    assert two.ask("sign", handle) == "CKR_OK"


def test_a_long_search_leaves_out_what_another_process_destroys_meanwhile(
    home: Path, client: Client, others: list[Other]
) -> None:
    """The rest of a long answer is made as it is asked for; handles that are gone by then are not told."""
    client.initialize()
    session = client.open(client.slots()[0])
    client.login(session, PIN)
    made = [
        client.create(session, [(CKA.CLASS, CKO.DATA), (CKA.TOKEN, True), (CKA.PRIVATE, False), (CKA.LABEL, f"d{i}")])
        for i in range(300)
    ]
    array, count, _kept = client.template([(CKA.CLASS, CKO.DATA)])
    client.ok("C_FindObjectsInit", session, array, count)
    others[0].ask("login", PIN.decode())
    for i in range(100, 120):
        [handle] = others[0].ask("find-data", f"d{i}")  # each process has its own numbers for handles
        assert others[0].ask("destroy", handle) == "CKR_OK"
    handles, number = ffi.new("CK_ULONG[]", 7), ffi.new("CK_ULONG *")
    found: list[int] = []
    while True:
        client.ok("C_FindObjects", session, handles, 7, number)
        found.extend(handles[0 : number[0]])
        if number[0] < 7:
            break
    client.ok("C_FindObjectsFinal", session)
    assert found == made[:100] + made[120:]
