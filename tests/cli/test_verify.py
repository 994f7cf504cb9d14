"""`keyfob verify`: what was tampered with is named, and accepted when somebody says so."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from keyfob.spec.constants import CKA, CKO
from keyfob.store import SqliteStore
from tests.cli.conftest import Run
from tests.store.forging import in_file
from tests.store.samples import certificate, ulong


def token_file() -> Path:
    return Path(os.environ["KEYFOB_HOME"]) / "tokens" / "slot-1.keyfob"


def change_file(statement: str) -> None:
    """What somebody with write access to the file does."""
    connection = apsw.Connection(str(token_file()))
    connection.execute(statement).fetchall()
    connection.close()


def test_what_was_removed_from_the_file_is_complained_of_until_it_is_accepted(run: Run) -> None:
    run("init work --pin 1234 --so-pin 12345678")
    for name in ("mary", "paul"):
        run(f"key generate work --type ec:p256 --name {name} --pin 1234")
    change_file("DELETE FROM object WHERE id = 1; DELETE FROM lookup WHERE object = 1")
    assert "all checksums hold" in run("verify work").output.replace(
        "(the PIN would check against tampering, too) ", ""
    )
    for _ in range(2):
        assert "object 1: it is gone" in run("verify work --pin 1234", code=1).output
    assert "all checksums and MACs hold" in run("verify work --pin 1234 --accept").output
    run("verify work --pin 1234")


@pytest.mark.parametrize("arguments", ["list", "list work", "list work --pin 1234"])
def test_list_names_an_object_that_is_damaged_and_leads_to_verify(run: Run, arguments: str) -> None:
    run("init work --pin 1234 --so-pin 12345678")
    run("key generate work --type ec:p256 --name mary --pin 1234")
    change_file("UPDATE object SET record = zeroblob(length(record)) WHERE private = 0")
    said = run(arguments).output
    assert "keyfob: 'work' has a problem (object 1: the checksum does not fit): see keyfob verify work" in said
    found = json.loads(run(f"{arguments} --json").output)
    problems = found["problems"] if "work" in arguments else found["tokens"][0]["problems"]
    assert problems == ["object 1: the checksum does not fit"]


def test_a_copy_of_a_damaged_token_is_made_and_its_damage_named(run: Run, folder: Path) -> None:
    run("init work --pin 1234 --so-pin 12345678")
    run("init other --pin 1234 --so-pin 12345678")
    run("key generate work --type ec:p256 --name mary --pin 1234")
    for name in ("whole", "damaged"):
        (folder / name).mkdir(mode=0o700)
    run("store copy files whole")
    change_file("UPDATE object SET record = zeroblob(length(record)) WHERE private = 0")
    said = run("store copy files damaged", code=1)
    assert "Copied 'work' to slot 1: 2 objects, compared." in said.stdout
    assert "Copied 'other' to slot 2: 0 objects, compared." in said.stdout
    assert "'work' has a problem (object 1: the checksum does not fit): see keyfob verify work" in said.stderr
    assert "'other' has" not in said.stderr


def test_list_says_nothing_of_a_token_that_is_as_it_was_left(run: Run) -> None:
    run("init work --pin 1234 --so-pin 12345678")
    run("key generate work --type ec:p256 --name mary --pin 1234")
    for arguments in ("list", "list work", "list work --pin 1234"):
        assert "problem" not in run(arguments).output
        assert '"problems": []' in run(f"{arguments} --json").output


def test_the_doctor_names_an_object_that_is_damaged_and_leads_to_verify(run: Run) -> None:
    run("init work --pin 1234 --so-pin 12345678")
    run("key generate work --type ec:p256 --name mary --pin 1234")
    change_file("UPDATE object SET record = zeroblob(length(record))")
    said = run("doctor", code=1).output
    assert "it is not as it was left: object 1: the checksum does not fit; and 1 more" in said
    assert "-> keyfob verify work" in said


def without_login(change: Callable[[SqliteStore], object]) -> None:
    """What a program does that gives no PIN."""
    store = SqliteStore.open(token_file())
    change(store)
    store.close()


def test_verify_tells_what_came_or_went_without_a_login_until_it_is_accepted(run: Run) -> None:
    run("init work --pin 1234 --so-pin 12345678")
    run("key generate work --type ec:p256 --name mary --pin 1234")
    without_login(lambda store: store.delete(store.find([(CKA.CLASS, ulong(CKO.PUBLIC_KEY))])))
    without_login(lambda store: store.insert([certificate(1)]))
    assert "note" not in run("verify work").output
    for _ in range(2):
        said = run("verify work --pin 1234").output
        assert re.search(r"note: [-0-9]+ [:0-9]+Z: removed without a login: object 1 \(CKO_PUBLIC_KEY 'mary'\)", said)
        assert re.search(r"note: .*: made without a login: object 3 \(CKO_CERTIFICATE 'certificate 1'\)", said)
        assert "all checksums and MACs hold" in said
    assert "note" not in run("verify work --pin 1234 --accept").output
    log = (Path(os.environ["KEYFOB_HOME"]) / "keyfob.log").read_text()
    assert "removed without a login, and counts from now on: object 1\n" in log
    events = [json.loads(line) for line in run("audit --json").output.splitlines()]
    told = [event["reason"] for event in events if event["event"] == "store-warning"]
    assert "made without a login, and counts from now on: object 3" in told
    assert "mary" not in log  # objects' labels are the token's business


def test_an_older_copy_is_named_by_every_command_that_looks_until_it_is_accepted(run: Run) -> None:
    run("init work --pin 1234 --so-pin 12345678")
    run("list work --pin 1234")
    copy = token_file().read_bytes()
    run("key generate work --type ec:p256 --name mary --pin 1234")
    counters: list[bytes] = []
    in_file(token_file(), lambda forger: counters.append(forger.counters()))
    token_file().write_bytes(copy)
    in_file(token_file(), lambda forger: forger.put_fact("counters", counters[0]))
    said = "an older copy of the token was put back: 1 changes under a login"
    assert said in run("list").output
    assert said in run("verify work", code=1).output
    assert said in run("doctor", code=1).output
    assert said in run("list work --pin 1234").output
    for _ in range(2):
        assert said in run("verify work --pin 1234", code=1).output
    run("verify work --pin 1234 --accept")
    assert "as it was left" in run("verify work --pin 1234").output
    assert "older copy" not in run("list work --pin 1234").output
