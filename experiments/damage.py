"""Damage to the stored files, by accident or by somebody who knows the format: noticed, harmless, wrong in silence."""

from __future__ import annotations

import random
import re
import sqlite3
from pathlib import Path
from typing import Any

from bench.modules import installed
from keyfob.spec.constants import CKA
from keyfob.store.integrity import META_CHECKSUM, OBJECT_CHECKSUM, tag_of_meta, tag_of_object
from keyfob.store.record import decode, encode

from .kills import period
from .outcome import Experiment, Outcome, count, in_parallel, objects
from .subjects import PIN, Refused, Run, Subject, prepare

PAGE = 4096
FLAGS = (CKA.VERIFY, CKA.MODIFIABLE, CKA.DESTROYABLE, CKA.COPYABLE, CKA.PRIVATE, CKA.ENCRYPT)
NOTICED, HARMLESS, WRONG, CRASHED, HUNG = "noticed", "harmless", "wrong in silence", "crashed", "hung"
NAMED = "named in the log, older values used"
WARNING = re.compile(r"^\S+ \[\d+\] (warning|error) ", re.MULTILINE)
KINDS = ("swap", "rollback", "removal", "roster", "master key", "flags", "old copy", "old PIN counter", "truncation")
"""What is done to keyfob's file besides flipped bytes, in turn: half of all trials."""
TRIES = 10
"""Wrong PINs that keyfob takes."""


class Known:
    """A token, older versions of its file, another token's: what an attacker may have."""

    def __init__(self, template: Subject, folder: Path) -> None:
        self.subject = template.copy(folder / "known")
        self.subject.run("populate", PIN, "more", "3").demand()
        self.older = [path.read_bytes() for path in self.subject.files()]
        if template.name == "keyfob":
            self.subject.run("rename", PIN, "more-key-0", "renamed").demand()
            [module] = [module for module in installed()[0] if module.name == template.name]
            self.foreign = prepare(module, folder / "other").files()[0].read_bytes()
        (self.subject.folder / "keyfob.log").unlink(missing_ok=True)
        self.whole = self.subject.run("look", PIN).demand()
        (self.subject.folder / "keyfob.log").unlink(missing_ok=True)
        self.sizes = [path.stat().st_size for path in self.subject.files()]


def verdict(untouched: Run, run: Run, log: str, *, may_be_old: bool = False) -> str:
    """What came of a damage: what was seen without it, and with it.

    `may_be_old`: what was put back fits together, so older values are no wrong ones if the log names them.
    """
    if run.end != "ended":
        return HUNG if run.end == "hung" else CRASHED
    before = {(each.kind, each.name): each for each in objects(untouched)}
    after = objects(run)
    old = False
    refused = "end" not in run.lines or any(
        run.word(word) not in (None, "0") for word in ("initialize", "open", "login")
    )
    said = refused or WARNING.search(log) is not None
    for each in after:
        whole = before.get((each.kind, each.name))
        failing = each.errors() - (whole.errors() if whole else set())
        said = said or bool(failing)
        changed = not failing and (whole is None or _differ(whole.values, each.values))
        if changed and not may_be_old:
            return WRONG
        old = old or changed
    same = len(after) == len(before) and run.lines == untouched.lines
    if same and not said:
        return HARMLESS
    return WRONG if not said else NAMED if old else NOTICED


def _differ(whole: dict[str, tuple[str, str]], values: dict[str, tuple[str, str]]) -> bool:
    return any(values[name] != value for name, value in whole.items() if name in values)


def flip(known: Known, subject: Subject, draw: random.Random, number: int) -> None:
    """One bit of one byte: every page of every file has its turn."""
    pages = [(index, page) for index, size in enumerate(known.sizes) for page in range(0, size, PAGE)]
    index, page = pages[number % len(pages)]
    at = page + draw.randrange(min(PAGE, known.sizes[index] - page))
    path = subject.files()[index]
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def rows(content: bytes, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(":memory:")
    connection.deserialize(_without_log(content))
    found = connection.execute(sql, values).fetchall()
    connection.close()
    return found


def _without_log(content: bytes) -> bytes:
    """A database in memory has no write-ahead log: bytes 18 and 19 say so."""
    return content[:18] + b"\x01\x01" + content[20:]


def _put(connection: sqlite3.Connection, table: str, row: tuple[Any, ...]) -> None:
    connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def _object(connection: sqlite3.Connection, row: tuple[Any, ...], **changes: Any) -> None:
    """Write an object's row with a checksum that fits."""
    number, version, private, record, _, mac = row
    record = changes.get("record", record)
    checksum = tag_of_object(OBJECT_CHECKSUM, number, version, private, record)
    _put(connection, "object", (number, version, private, record, checksum, mac))


def tamper(known: Known, subject: Subject, kind: str, draw: random.Random) -> None:
    """What somebody does who can write to the file and knows its format, but no PIN."""
    path = subject.files()[0]
    if kind == "truncation":
        path.write_bytes(path.read_bytes()[: draw.randrange(known.sizes[0])])
        return
    if kind == "old copy":
        path.write_bytes(known.older[0])
        return
    connection = sqlite3.connect(path)
    every = connection.execute("SELECT * FROM object ORDER BY id").fetchall()
    if kind == "swap":
        one, other = draw.sample([row for row in every if row[2] == 1], 2)
        _object(connection, one, record=other[3])
        _object(connection, other, record=one[3])
    elif kind in ("rollback", "roster"):
        old = rows(known.older[0], "SELECT * FROM object")
        for row in old:
            if row not in every:
                _put(connection, "object", row)
                connection.execute("DELETE FROM lookup WHERE object = ?", (row[0],))
                for look_up in rows(known.older[0], "SELECT * FROM lookup WHERE object = ?", row[0]):
                    _put(connection, "lookup", look_up)
        if kind == "roster":
            for row in rows(known.older[0], "SELECT * FROM roster"):
                _put(connection, "roster", row)
    elif kind == "removal":
        number = draw.choice(every)[0]
        connection.execute("DELETE FROM object WHERE id = ?", (number,))
        connection.execute("DELETE FROM lookup WHERE object = ?", (number,))
    elif kind == "master key":
        [(value,)] = rows(known.foreign, "SELECT value FROM meta WHERE name = 'user_wrapping'")
        value = bytes(byte ^ 1 for byte in value[-20:]) if draw.random() < 0.5 else value
        checksum = tag_of_meta(META_CHECKSUM, "user_wrapping", value)
        connection.execute("UPDATE meta SET value = ?, checksum = ? WHERE name = 'user_wrapping'", (value, checksum))
    elif kind == "flags":
        row = draw.choice([row for row in every if row[2] == 0])
        attributes = decode(row[3])
        flag = draw.choice([flag for flag in FLAGS if flag in attributes])
        attributes[flag] = b"\x00" if attributes[flag] == b"\x01" else b"\x01"
        _object(connection, row, record=encode(attributes))
    connection.commit()
    connection.close()


def old_pin_counter(subject: Subject) -> str:
    """Wrong PINs, each after the file of before was put back: the right one must be refused in the end."""
    path = subject.files()[0]
    subject.run("guess", PIN, "not-this-one", "1")
    content = path.read_bytes()
    for _ in range(TRIES):
        path.write_bytes(content)
        subject.run("guess", "neither-this", "not-this-one", "1")
    path.write_bytes(content)
    return NOTICED if subject.run("look", PIN).rv("login") == "CKR_PIN_LOCKED" and subject.log() else WRONG


def run(template: Subject, folder: Path, trials: int) -> Outcome:
    known = Known(template, folder)
    keyfob = template.name == "keyfob"

    def trial(number: int) -> tuple[str, str]:
        draw = random.Random(number)
        subject = known.subject.copy(folder / str(number))
        kind = "flip" if not keyfob or number % 2 == 0 else KINDS[number // 2 % len(KINDS)]
        if kind == "old PIN counter":
            return kind, old_pin_counter(subject)
        if kind == "flip":
            flip(known, subject, draw, number // 2 if keyfob else number)
        else:
            tamper(known, subject, kind, draw)
        seen = subject.run("look", PIN)
        return kind, verdict(known.whole, seen, subject.log(), may_be_old=kind in ("old copy", "roster"))

    found = in_parallel(trial, trials)
    outcome = _outcome([what for _, what in found])
    by_kind = count(f"{kind}: {what}" for kind, what in found)
    outcome.details = [f"{name} {number}" for name, number in sorted(by_kind.items())]
    return outcome


def write_ahead_log(template: Subject, folder: Path, trials: int) -> Outcome:
    """What a killed process left in its write-ahead log: SQLite drops what follows a damage, without a word."""
    killed = template.copy(folder / "killed")
    period(killed, "modify")
    if not _logs(killed):
        raise Refused("no write-ahead log")
    (killed.folder / "keyfob.log").unlink(missing_ok=True)
    whole = killed.copy(folder / "whole").run("look", PIN).demand()

    def trial(number: int) -> str:
        draw = random.Random(number)
        subject = killed.copy(folder / str(number))
        [path] = _logs(subject)
        content = bytearray(path.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        return verdict(whole, subject.run("look", PIN), subject.log(), may_be_old=True)

    return _outcome(in_parallel(trial, trials))


def _logs(subject: Subject) -> list[Path]:
    return [path for path in subject.files() if path.name.endswith("-wal")]


def _outcome(found: list[str]) -> Outcome:
    totals = count(found)
    figures: dict[str, int | float | str] = {"changes": len(found)}
    figures |= {name: totals.get(name, 0) for name in (NOTICED, HARMLESS, WRONG)}
    figures |= {name: totals[name] for name in (NAMED, CRASHED, HUNG) if name in totals}
    return Outcome(len(found), sum(totals.get(each, 0) for each in (WRONG, CRASHED, HUNG)), figures)


def experiments() -> list[Experiment]:
    return [
        Experiment(
            "damage",
            "A changed byte; with keyfob also tampering",
            "A bit of a byte is flipped in a copy of the stored files (each page in turn), then a fresh process logs "
            "in and reads, encrypts, signs and verifies with everything. Noticed: a CK_RV, or a line in keyfob's log. "
            "Wrong in silence: another value, flag or key, or a missing object, without either. Half of keyfob's "
            "changes are those of an attacker who knows the format: " + ", ".join(KINDS) + ".",
            run,
            full=600,
            quick=40,
            peers=250,
        ),
        Experiment(
            "damage-log",
            "A changed byte in the log of a killed process",
            "As above, in the write-ahead log that a process leaves which is killed after a dozen changes. SQLite "
            "drops what follows the damage: keyfob's log must say so.",
            write_ahead_log,
            full=200,
            quick=10,
            peers=50,
        ),
    ]
