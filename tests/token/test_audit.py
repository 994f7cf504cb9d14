"""The audit log: what is in it, what never is, and that it neither fails nor slows a call."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from keyfob import config
from keyfob.cli import audit as shown
from keyfob.spec.constants import CKA, CKK, CKM, CKO, CKR
from keyfob.token import audit
from tests.client import Template, ffi
from tests.conftest import CHEAP_PINS, PIN, SO_PIN, Fob

NEVER_RIGHT = b"a-wrong-pin-nobody-has"


def events(home: Path) -> list[dict[str, Any]]:
    text = (home / "keyfob-audit.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def names(home: Path) -> list[str]:
    return [each["event"] for each in events(home)]


def settings(home: Path, text: str = "") -> config.Config:
    (home / "config.toml").write_text(CHEAP_PINS + text)
    return config.load({"KEYFOB_HOME": str(home)})


def test_the_life_of_a_token_is_told(fob: Fob, home: Path) -> None:
    fob.client.ok("C_Logout", fob.session)
    wanted = ["token-created", "token-initialised", "login", "pin-set", "logout", "login", "logout"]
    assert names(home) == wanted
    last = events(home)[-1]
    assert last["role"] == "user"
    assert last["token"] == "test"
    assert last["slot"] == fob.slot
    assert last["serial"]
    assert last["pid"]


def test_wrong_pins_and_the_lock_are_told_without_the_pin(fob: Fob, home: Path) -> None:
    client = fob.client
    client.ok("C_Logout", fob.session)
    for _ in range(11):
        client.call("C_Login", fob.session, 1, NEVER_RIGHT, len(NEVER_RIGHT))
    failed = [each for each in events(home) if each["event"] == "login-failed"]
    assert [each["result"] for each in failed] == ["CKR_PIN_INCORRECT"] * 10 + ["CKR_PIN_LOCKED"]
    assert [each["failures"] for each in failed][:10] == list(range(1, 11))
    assert names(home).count("pin-locked") == 1
    text = (home / "keyfob-audit.jsonl").read_bytes()
    assert not any(pin in text for pin in (NEVER_RIGHT, PIN, SO_PIN))


def test_the_file_is_its_owners_alone(fob: Fob, home: Path) -> None:
    assert (home / "keyfob-audit.jsonl").stat().st_mode & 0o777 == 0o600


def test_nothing_is_written_where_it_is_off(home: Path) -> None:
    audit.write(settings(home, "[audit]\nenabled = false\n"), "login", {})
    assert not (home / "keyfob-audit.jsonl").exists()


def test_a_full_file_is_renamed_and_old_ones_go(home: Path) -> None:
    found = settings(home, "[audit]\nmax_kib = 1\nkeep = 2\n")
    for i in range(100):
        audit.write(found, "login", {"slot": i})
    kept = sorted(path.name for path in home.glob("keyfob-audit*"))
    assert kept[-2:] == ["keyfob-audit.jsonl.1", "keyfob-audit.jsonl.2"]
    slots = [shown.parsed(line)["slot"] for line in shown.lines(found.audit_file, 2, follow=False)]  # type: ignore[index]
    assert slots == list(range(slots[0], 100))


def test_a_file_that_another_process_renamed_a_moment_ago_is_no_trouble(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the rename and the next line there is no file of that name."""
    found = settings(home, "[audit]\nmax_kib = 1\nkeep = 2\n")
    fstat = os.fstat

    def renamed_first(descriptor: int) -> os.stat_result:
        os.replace(found.audit_file, found.audit_file + ".1")
        monkeypatch.setattr(os, "fstat", fstat)
        return fstat(descriptor)

    audit.write(found, "login", {"reason": "x" * 2000})
    (home / "keyfob-audit.jsonl.1").rename(home / "keyfob-audit.jsonl")
    monkeypatch.setattr(os, "fstat", renamed_first)
    audit.write(found, "login", {"slot": 2})
    assert not (home / "keyfob.log").exists()
    assert [path.name for path in home.glob("keyfob-audit*")] == ["keyfob-audit.jsonl.1"]
    audit.write(found, "login", {"slot": 3})
    events_kept = [shown.parsed(line) for line in shown.lines(found.audit_file, 2, follow=False)]
    assert [each["slot"] for each in events_kept[1:] if each is not None] == [2, 3]


def write_many(home: str, number: int) -> None:
    found = config.load({"KEYFOB_HOME": home})
    for i in range(200):
        audit.write(found, "login", {"slot": number * 1000 + i})


def test_no_line_of_several_processes_is_lost_or_mixed(home: Path) -> None:
    settings(home, "[audit]\nmax_kib = 8\nkeep = 1000\n")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(str(home), number)) for number in range(4)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    slots = [json.loads(line)["slot"] for path in home.glob("keyfob-audit*") for line in path.read_text().splitlines()]
    assert sorted(slots) == [number * 1000 + i for number in range(4) for i in range(200)]


def test_a_file_that_cannot_be_written_fails_no_login(fob: Fob, home: Path) -> None:
    (home / "keyfob-audit.jsonl").unlink()
    (home / "keyfob-audit.jsonl").mkdir()
    fob.client.ok("C_Logout", fob.session)
    fob.client.login(fob.session, PIN)
    log = (home / "keyfob.log").read_text()
    assert log.count("the audit log cannot be written") == 1


def test_a_line_that_was_cut_short_is_passed_over() -> None:
    assert shown.parsed('{"time": "2026", "ev{"time": "2027", "event": "login"}\n') == {
        "time": "2027",
        "event": "login",
    }
    assert shown.parsed('{"time": "2026", "ev') is None


def test_labels_cannot_forge_lines(home: Path) -> None:
    found = settings(home)
    audit.write(found, "login", {"token": 'x"}\n{"time": "now", "event": "forged"}\x1b[2J'})
    lines = (home / "keyfob-audit.jsonl").read_text().splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["event"] == "login"


AES: Template = [
    *((CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.TOKEN, True), (CKA.LABEL, "disk")),
    *((CKA.VALUE, bytes(range(16))), (CKA.ID, b"\1\xff")),
    *((CKA.SENSITIVE, False), (CKA.EXTRACTABLE, True), (CKA.WRAP, False)),
]


def of_keys(home: Path) -> list[dict[str, Any]]:
    return [each for each in events(home) if each["event"].startswith("key-")]


def test_the_life_of_a_key_is_told(fob: Fob, home: Path) -> None:
    client, session = fob.client, fob.session
    made = client.create(session, AES)
    client.get(session, made, CKA.LABEL)
    assert client.get(session, made, CKA.VALUE) == [bytes(range(16))]
    assert client.set(session, made, [(CKA.WRAP, True)]) == CKR.OK
    client.output("C_WrapKey", session, client.mechanism(CKM.AES_KEY_WRAP), made, made)
    client.ok("C_DestroyObject", session, made)
    found = of_keys(home)
    told = list(dict.fromkeys(each["event"] for each in found))
    assert told == ["key-created", "key-read", "key-changed", "key-exported", "key-destroyed"]
    created = found[0]
    assert (created["class"], created["key_type"], created["label"], created["id"]) == (
        *("CKO_SECRET_KEY", "CKK_AES", "disk", "01ff"),
    )
    assert created["generated"] is False
    assert next(each for each in found if each["event"] == "key-changed")["changed"] == "CKA_WRAP"
    assert bytes(range(16)).hex() not in (home / "keyfob-audit.jsonl").read_text()


def test_session_keys_and_signatures_are_no_events(fob: Fob, home: Path) -> None:
    client, session = fob.client, fob.session
    token_key = client.create(session, [*AES[:3], (CKA.VALUE, bytes(16)), (CKA.SIGN, True)])
    before = names(home)
    client.create(session, [(kind, False if kind == CKA.TOKEN else value) for kind, value in AES])
    client.sign(session, token_key, client.mechanism(CKM.AES_CMAC), b"data")
    assert names(home) == before


def test_a_late_answer_to_a_wrong_pin_holds_up_no_other_session(fob: Fob, home: Path) -> None:
    """By order of ending: the finds begin when the wrong PIN is counted, and end before its answer comes."""
    client = fob.client
    client.ok("C_Logout", fob.session)
    client.ok("C_Finalize", ffi.NULL)
    (home / "config.toml").write_text(CHEAP_PINS.replace("delay = false", "delay = true"))
    client.initialize()
    session, other = client.open(fob.slot), client.open(fob.slot)

    def wrong() -> None:
        client.call("C_Login", session, 1, NEVER_RIGHT, len(NEVER_RIGHT))
        ended.append("login")

    ended: list[str] = []
    for _ in range(4):
        wrong()
    ended.clear()
    late = threading.Thread(target=wrong)  # its answer comes after a second
    late.start()
    while names(home).count("login-failed") < 5:
        time.sleep(0.001)
    client.find(other, [(CKA.CLASS, CKO.PUBLIC_KEY)])
    client.token_info(fob.slot)
    client.login(other, PIN)
    ended.append("others")
    late.join()
    assert ended == ["others", "login"]


def test_the_command_shows_it_in_words_and_for_programs(fob: Fob, home: Path) -> None:
    fob.client.ok("C_Logout", fob.session)
    shown_text = CliRunner().invoke(shown.audit, ["test"]).output
    assert "login  slot 1 'test'  role=user" in shown_text
    as_json = CliRunner().invoke(shown.audit, ["--json"]).output
    assert [json.loads(line)["event"] for line in as_json.splitlines()] == names(home)
    assert CliRunner().invoke(shown.audit, ["another"]).output == ""
