"""kill -9 at random moments: what was acknowledged must be there, and nothing that is half done."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from .outcome import Experiment, Outcome, Seen, count, in_parallel, objects
from .subjects import HANG, PIN, SO_PIN, Refused, Run, Subject

LOOPS = {
    "create": "C_CreateObject",
    "modify": "C_SetAttributeValue",
    "copy": "C_CopyObject",
    "destroy": "C_CreateObject, C_DestroyObject",
    "pair": "C_GenerateKeyPair",
    "login": "C_Login, C_Logout",
    "pin": "C_SetPIN",
    "init": "C_InitToken, C_InitPIN, C_CreateObject",
}
PRIVATE, PUBLIC, SECRET = 3, 2, 4
CALLS_IN_A_PERIOD = 12
LEAST_PERIOD = 0.02
"""Seconds: a quick module is not always killed at once."""
NOT_SET = "CKR_USER_PIN_NOT_INITIALIZED"


@dataclass
class Expected:
    """What must be there: names of keys with the labels that each may have, names of pairs, the PINs that may fit."""

    keys: dict[str, set[str]] = field(default_factory=lambda: {"kept-key-0": {"kept-key-0"}})
    pairs: set[str] = field(default_factory=lambda: {"kept-pair-0"})
    pins: list[str] = field(default_factory=lambda: [PIN])
    maybe: set[str] = field(default_factory=set)
    """Names that may be there or not: the call was not acknowledged."""
    may_be_erased: bool = False
    must_be_erased: bool = False
    pin_set: bool = True

    def acknowledged(self, words: list[str]) -> None:
        kind, *names = words
        if kind in ("create", "copy"):
            self.keys[names[0]] = {names[0]}
        elif kind == "modify":
            self.keys[names[0]] = {names[1]}
        elif kind == "destroy":
            del self.keys[names[0]]
        elif kind == "pair":
            self.pairs.add(names[0])
        elif kind == "pin":
            self.pins = [names[0]]
        elif kind == "init":
            self.keys, self.pairs, self.pin_set, self.must_be_erased = {}, set(), False, True
        elif kind == "first-pin":
            self.pin_set = True

    def pending(self, words: list[str]) -> None:
        kind, *names = words
        if kind in ("create", "copy", "pair"):
            self.maybe.add(names[0])
        elif kind == "modify":
            self.keys[names[0]].add(names[1])
        elif kind == "destroy":
            del self.keys[names[0]]
            self.maybe.add(names[0])
        elif kind == "pin":
            self.pins.append(names[0])
        elif kind == "init":
            self.may_be_erased = True
        elif kind == "first-pin":
            self.pin_set = True  # or not: see `faults`
            self.must_be_erased = True


def expected(lines: list[str]) -> Expected:
    """What follows from a host's announcements and acknowledgements."""
    found, tried = Expected(), None
    for line in lines:
        if line.startswith("try "):
            tried = line.split()[1:]
        elif line == "done" and tried is not None:
            found.acknowledged(tried)
            tried = None
    if tried is not None:
        found.pending(tried)
    return found


def faults(lines: list[str], run: Run) -> set[str]:
    """Of "lost", "half", "junk", "does not open": what is wrong with a token after a kill."""
    wanted = expected(lines)
    opens = run.end == "ended" and "end" in run.lines
    logged_in = run.word("login") == "0" or run.word("login-other") == "0"
    there = objects(run)
    if not opens:
        return {"does not open"}
    erased = not there and run.rv("login") != "CKR_OK"
    if erased and (wanted.may_be_erased or not wanted.pin_set):
        return set()
    if erased and wanted.must_be_erased and not wanted.keys:
        return set()  # killed in C_InitPIN
    if not logged_in:
        return {"does not open"} if wanted.pin_set else set() if not there else {"junk"}
    return _of_objects(wanted, there)


def _of_objects(wanted: Expected, there: list[Seen]) -> set[str]:
    found = set()
    keys = {each.name: each for each in there if each.kind == SECRET}
    private = {each.name for each in there if each.kind == PRIVATE and each.values["sign"][1] == "0"}
    public = {each.name for each in there if each.kind == PUBLIC}
    verified = {each.name for each in there if each.values.get("verify") == ("", "0")}
    for name, labels in wanted.keys.items():
        if name not in keys or keys[name].label not in labels or keys[name].values["encrypt"][1] != "0":
            found.add("lost")
    if not wanted.pairs <= verified:
        found.add("lost")
    if private ^ public:
        found.add("half")
    if (keys.keys() | private | public) - wanted.keys.keys() - wanted.pairs - wanted.maybe:
        found.add("junk")
    if len({(each.kind, each.name) for each in there}) != len(there):
        found.add("junk")
    return found


def period(subject: Subject, loop: str) -> float:
    """Seconds that a dozen acknowledged calls take."""
    process = subject.start("loop", loop, PIN, "" if subject.name == "softoken" else SO_PIN)
    assert process.stdout is not None
    began = 0.0
    done = 0
    last = ""
    for line in process.stdout:
        last = line.rstrip("\n")
        if last == "ready":
            began, done = time.monotonic(), 0
        done += last == "done"
        if began and done == CALLS_IN_A_PERIOD:
            break
    taken = time.monotonic() - began
    process.kill()
    process.communicate()
    if done < CALLS_IN_A_PERIOD:
        raise Refused(Run([last], "crashed").rv("-"))
    return max(taken, LEAST_PERIOD)


def killed(subject: Subject, loop: str, delay: float) -> list[str]:
    """What a host said until it was killed `delay` seconds after its loop began."""
    process = subject.start("loop", loop, PIN, "" if subject.name == "softoken" else SO_PIN)
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if lines[-1] == "ready":
            break
    time.sleep(delay)
    process.kill()
    lines += [line.rstrip("\n") for line in process.stdout if line.endswith("\n")]
    process.communicate()
    return lines


def run_loop(loop: str, template: Subject, folder: Path, trials: int) -> Outcome:
    longest = period(template.copy(folder / "period"), loop)
    draw = random.Random(loop)
    delays = [draw.uniform(0, longest) for _ in range(trials)]

    def trial(number: int) -> tuple[set[str], bool]:
        subject = template.copy(folder / str(number))
        lines = killed(subject, loop, delays[number])
        pins = expected(lines).pins
        found = faults(lines, subject.run("look", pins[0], pins[1] if len(pins) > 1 else "-", limit=HANG))
        return found, bool(lines) and lines[-1].startswith("try ")

    found = in_parallel(trial, trials)
    counts = count(fault for faults_of_one, _ in found for fault in faults_of_one)
    bad = sum(bool(faults_of_one) for faults_of_one, _ in found)
    figures: dict[str, int | float | str] = {"kills": trials, "inside a call": sum(inside for _, inside in found)}
    for fault in ("lost", "half", "junk", "does not open"):
        if counts.get(fault):
            figures[fault] = counts[fault]
    figures["with a defect"] = bad
    return Outcome(trials, bad, figures, [f"killed within {longest:.3f} s"])


def experiments() -> list[Experiment]:
    return [
        Experiment(
            f"kill-{loop}",
            f"kill -9 in {calls}",
            "A host calls without end and acknowledges each call on a pipe; it is killed at a random moment within a "
            "dozen calls, and a fresh process opens the token: acknowledged things missing (lost), one key of a pair "
            "(half), things nobody made (junk), a token that does not open or log in with the acknowledged PIN.",
            lambda template, folder, trials, loop=loop: run_loop(loop, template, folder, trials),  # type: ignore[misc]
            full=300,
            quick=20,
            peers=50,
        )
        for loop, calls in LOOPS.items()
    ]
