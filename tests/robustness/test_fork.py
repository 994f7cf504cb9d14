"""Hosts that fork while threads use the module: children that start anew work, parents go on, nothing is lost (P39)."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyfob.spec.constants import CKA, CKM
from tests.client import RSA_2048, Client, ffi
from tests.conftest import PIN
from tests.robustness.conftest import Programs
from tests.robustness.hosts import answer_of, python_child, run

pytestmark = pytest.mark.usefixtures("place")


@pytest.mark.rule("P39")
@pytest.mark.parametrize("forks", [20, pytest.param(150, marks=pytest.mark.long)])
def test_children_of_a_c_host_with_two_signing_threads_work(programs: Programs, key: Path, forks: int) -> None:
    """Children of a fork initialise anew and sign while the parent goes on; no lock, number or nonce is shared."""
    done = run(programs("fork"), PIN.decode(), str(forks), timeout=60 + 4 * forks)
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert [line for line in lines if line.startswith(("failed", "stopped"))] == []
    signatures = [line for line in lines if line.startswith("signature")]
    drawn = [line for line in lines if line.startswith("random")]
    assert len(set(signatures)) == forks
    assert len(set(drawn)) == 2 * forks
    assert len({line[: len("signature ") + 64] for line in signatures}) == forks, "a nonce came twice"
    assert len(lines) == 3 * forks + 1


@pytest.mark.rule("P39")
@pytest.mark.parametrize("forks", [10, pytest.param(100, marks=pytest.mark.long)])
def test_children_of_a_python_host_work_and_their_writes_stay(home: Path, key: Path, forks: int) -> None:
    """Keeps what forked children of a Python host write, and the parent goes on."""
    seen = answer_of(python_child("fork_at_work", PIN.decode(), str(forks), KEYFOB_HOME=str(home)))
    assert seen["statuses"] == [0] * forks
    assert seen["problems"] == []
    assert (seen["hanging"], seen["idle"]) == (0, 0)
    assert sorted(seen["labels"]) == sorted(seen["written"])
    assert len(set(seen["random"])) == 2 * forks
    assert len({signature[:64] for signature in seen["signatures"]}) == forks, "a nonce came twice"


def test_what_a_child_writes_after_its_parent_has_ended_stays(home: Path, key: Path) -> None:
    assert answer_of(python_child("fork_and_end", PIN.decode(), KEYFOB_HOME=str(home))) == ["child", "parent"]


@pytest.mark.rule("P39")
def test_a_fork_waits_for_calls_but_not_for_those_that_wait_themselves(home: Path, key: Path) -> None:
    """A child finds no lock held by a thread that it does not have; a wait for an event holds up no fork."""
    assert answer_of(python_child("fork_inside", PIN.decode(), KEYFOB_HOME=str(home))) == {"child": 0}


def test_children_of_a_server_that_give_up_their_rights_have_all_that_they_need(home: Path, key: Path) -> None:
    """Apache and its like start as root, fork, and sign as somebody who may not even read Python's library."""
    answer = answer_of(python_child("fork_and_drop", PIN.decode(), "0", KEYFOB_HOME=str(home)))
    assert answer == {"status": 0, "failed": {}}


def test_a_key_that_root_has_read_signs_after_root_has_given_up_its_rights(
    home: Path, token: Path, client: Client
) -> None:
    """What a private key needs is imported when a process of root's first reads it: stunnel forks only later."""
    client.initialize()
    session = client.open(client.slots()[0])
    client.login(session, PIN)
    client.generate_pair(session, CKM.RSA_PKCS_KEY_PAIR_GEN, RSA_2048, [(CKA.TOKEN, True)])
    client.ok("C_Finalize", ffi.NULL)
    assert answer_of(python_child("drop_late", PIN.decode(), KEYFOB_HOME=str(home))) == 256


def test_the_log_says_why_nothing_can_be_imported(home: Path, key: Path) -> None:
    """Where it was not foreseen: who is not root gives up nothing, and programs that do not fork are not prepared."""
    answer = answer_of(python_child("fork_and_drop", PIN.decode(), "1000", KEYFOB_HOME=str(home)))
    assert answer["status"] == 0
    assert answer["failed"]["RSA"] == "C_GenerateKeyPair: CKR_GENERAL_ERROR"
    said = "error C_GenerateKeyPair: keyfob.mechanisms.rsa cannot be imported: has this process another user"
    assert said in (home / "keyfob.log").read_text()
