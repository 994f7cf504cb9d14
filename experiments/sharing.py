"""Many processes on one token: writers beside readers, many starts at once, forks while threads sign."""

from __future__ import annotations

import collections
from pathlib import Path

from .outcome import Experiment, Outcome, objects
from .subjects import HANG, PIN, Run, Subject, ended

WRITERS, READERS = 8, 2
PATIENCE = 600
"""Seconds for all writers."""


def writers(template: Subject, folder: Path, trials: int) -> Outcome:
    """`trials` pairs, and as many keys, from each writer."""
    subject = template.copy(folder / "token")
    readers = [subject.start("read", PIN) for _ in range(READERS)]
    started = [subject.start("populate", PIN, f"writer-{number}", str(trials)) for number in range(WRITERS)]
    done = [ended(process, PATIENCE) for process in started]
    broken = 0
    reads = 0
    for process in readers:
        broken += process.poll() is not None
        process.kill()
        output, _ = process.communicate()
        reads += output.count("read ")
    failed = [run for run in done if run.end != "ended" or run.word("failed") is not None]
    made = {line.split()[1] for run in done for line in run.lines if line.startswith("made ")}
    seen = subject.run("look", PIN, limit=PATIENCE)
    there = objects(seen)
    private = {each.name for each in there if each.kind == 3 and each.values["sign"][1] == "0"}
    verified = {each.name for each in there if each.values.get("verify") == ("", "0")}
    secret = {each.name for each in there if each.kind == 4 and each.values["encrypt"][1] == "0"}
    public = {each.name for each in there if each.kind == 2}
    lost = len(made - verified - secret)
    half = len(private ^ public)
    errors = len(failed) + broken
    figures: dict[str, int | float | str] = {
        "acknowledged": len(made),
        "lost": lost,
        "half": half,
        "processes with errors": errors,
        "reads beside": reads,
    }
    details = sorted({run.rv("-") for run in failed})
    if seen.rv("login") != "CKR_OK" or seen.end != "ended":
        figures["token afterwards:"] = seen.rv("login")
    return Outcome(WRITERS * trials, lost + half + errors, figures, details)


def starts(template: Subject, folder: Path, trials: int) -> Outcome:
    subject = template.copy(folder / "token")
    started = [subject.start("look", PIN) for _ in range(trials)]
    done = [ended(process, HANG) for process in started]
    whole = subject.run("look", PIN).lines
    failed = [run for run in done if run.end != "ended" or run.lines != whole]
    figures: dict[str, int | float | str] = {"starts": trials, "failed": len(failed)}
    return Outcome(trials, len(failed), figures, sorted({run.rv("login") for run in failed}))


def forks(template: Subject, folder: Path, trials: int) -> Outcome:
    """Ten forks to a host, so that a child that hangs costs one of few."""
    hung = failed = shared = children = 0
    reasons: collections.Counter[str] = collections.Counter()
    for number in range((trials + 9) // 10):
        subject = template.copy(folder / str(number))
        run = subject.run("forks", PIN, str(min(10, trials - number * 10)), limit=300)
        hung += run.end == "hung"
        failed += run.end == "crashed"
        drawn: dict[str, set[str]] = {}
        for line in run.lines:
            first, *words = line.split()
            if first == "r":
                drawn.setdefault(words[1], set()).add(words[0])
            elif first == "child":
                children += 1
                hung += words[1] == "14"
                failed += words[1] != "14" and words != ["0", "0"]
        reasons.update(Run([line], "ended").rv("-") for line in run.lines if line.startswith("failed "))
        shared += sum(len(processes) > 1 for processes in drawn.values())
    figures: dict[str, int | float | str] = {
        "forks": children,
        "hung": hung,
        "failed": failed,
        "nonces in two processes": shared,
    }
    return Outcome(children, hung + failed + shared, figures, [f"{reason} {n}" for reason, n in reasons.items()])


def experiments() -> list[Experiment]:
    return [
        Experiment(
            "sharing",
            f"{WRITERS} processes write, {READERS} read and sign",
            "Each writer generates pairs and creates keys and is told of each; then a fresh process looks for all of "
            "them. Half: one key of a pair.",
            writers,
            full=200,
            quick=5,
            peers=200,
        ),
        Experiment(
            "starts",
            "Processes that start at once",
            "Each initialises, logs in, reads everything and signs. keyfob's PIN takes the 64 MiB of every token.",
            starts,
            full=400,
            quick=20,
            peers=400,
            cheap=False,
        ),
        Experiment(
            "fork",
            "Forks while two threads sign",
            "The child uses the module as it finds it (C_Initialize where it is asked for), logs in and signs. r of "
            "each ECDSA signature is compared between all processes: the same r twice gives away the key. A "
            "child hangs that takes 8 s.",
            forks,
            full=150,
            quick=10,
            peers=20,
        ),
    ]
