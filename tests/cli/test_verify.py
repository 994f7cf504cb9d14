"""`keyfob verify`: what was tampered with is named, and accepted when somebody says so."""

from __future__ import annotations

import json
import os
from pathlib import Path

import apsw
import pytest

from tests.cli.conftest import Run


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
