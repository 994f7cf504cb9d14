"""The place of the store goes wrong under a running process: full, read-only, closed, gone; the clock goes back."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .outcome import Experiment, Outcome, objects
from .subjects import HANG, PIN, Refused, Run, Subject, compiled, ended

DISK = "3m"
WITHOUT_POWERS = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all")
"""Root obeys modes like anybody."""


@contextmanager
def mounted(folder: Path, *words: str) -> Iterator[None]:
    """Something mounted at `folder`; needs root."""
    if os.geteuid() != 0:
        raise Refused("needs root")
    done = subprocess.run(["mount", *words, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def _outcome(run: Run, after: Run, wanted: set[str], *, must_work: bool = False) -> Outcome:
    """`wanted` are the names that must be there when the place is well again. `must_work`: creating and signing do."""
    there = {each.name for each in objects(after)}
    failed = must_work and (run.word("created") != "0" or run.word("sign") != "0")
    lost = len(wanted - there) if after.rv("login") == "CKR_OK" else len(wanted)
    crashed = run.end != "ended" or after.end != "ended"
    figures: dict[str, int | float | str] = {
        "C_CreateObject": run.rv("created"),
        "C_Sign": run.rv("sign"),
        "lost": lost,
    }
    if crashed:
        figures["the host"] = run.end if run.end != "ended" else after.end
    if after.rv("login") != "CKR_OK":
        figures["C_Login afterwards"] = after.rv("login")
    return Outcome(1, lost + crashed + failed, figures)


def _acknowledged(run: Run) -> set[str]:
    """What was created, with what the template holds."""
    names = {"kept-key-0", "kept-pair-0"}
    for line, following in zip(run.lines, run.lines[1:], strict=False):
        if line.startswith("try create ") and following == "done":
            names.add(line.split()[-1])
    return names | ({"after"} if run.word("created") == "0" else set())


def full_disk(template: Subject, folder: Path, trials: int) -> Outcome:
    place = folder / "disk"
    place.mkdir(parents=True)
    with mounted(place, "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs"):
        subject = template.copy(place / "token")
        (place / "filler").write_bytes(bytes(1_500_000))
        run = ended(subject.start("fill", PIN), HANG, "go\n")
        (place / "filler").unlink()
        after = subject.run("look", PIN)
        found = _outcome(run, after, _acknowledged(run))
        found.figures["acknowledged"] = len(_acknowledged(run))
        return found


def _while_running(subject: Subject, change: Callable[[], object], mend: Callable[[], object]) -> tuple[Run, Run]:
    """`use` of the host, with a change before its calls that is undone before the look afterwards."""
    with subject.start("use", PIN) as process:
        assert process.stdout is not None
        first = process.stdout.readline().strip()
        assert process.stdin is not None
        try:
            if first == "ready":
                change()
                process.stdin.write("go\n")
            process.stdin.close()
            output = process.stdout.read()
            process.wait()
        finally:
            mend()
    end = "ended" if process.returncode >= 0 else "hung" if process.returncode == -14 else "crashed"
    return Run([first, *output.splitlines()], end), subject.run("look", PIN)


def read_only(template: Subject, folder: Path, trials: int) -> Outcome:
    subject = template.copy(folder / "token")
    place = subject.folder
    with mounted(place, "--bind", str(place)):
        remount = ["mount", "-o", "remount,bind,ro", str(place)]
        subprocess.run(remount, check=True)
        run = ended(subject.start("use", PIN), HANG, "go\n")
    return _outcome(run, subject.run("look", PIN), _acknowledged(run))


def permissions(template: Subject, folder: Path, trials: int) -> Outcome:
    from dataclasses import replace

    subject = replace(template.copy(folder / "token"), prefix=WITHOUT_POWERS if os.geteuid() == 0 else ())
    places = sorted({path.parent for path in subject.files()} | set(subject.files()))
    modes = {path: path.stat().st_mode for path in places}

    def close() -> None:
        for path in reversed(places):
            path.chmod(0)

    def reopen() -> None:
        for path in places:
            path.chmod(modes[path])

    run, after = _while_running(subject, close, reopen)
    return _outcome(run, after, _acknowledged(run))


def removed(template: Subject, folder: Path, trials: int) -> Outcome:
    """The folder goes away under the process and comes back afterwards."""
    subject = template.copy(folder / "token")
    aside = folder / "aside"

    def come_back() -> None:
        shutil.rmtree(subject.folder, ignore_errors=True)
        aside.rename(subject.folder)

    run, after = _while_running(subject, lambda: subject.folder.rename(aside), come_back)
    return _outcome(run, after, _acknowledged(run))


def clock(template: Subject, folder: Path, trials: int) -> Outcome:
    """Ten years back, between two processes and for all of the second."""
    from dataclasses import replace

    subject = template.copy(folder / "token")
    subject.run("populate", PIN, "before", "1").demand()
    earlier = replace(subject, variables={"LD_PRELOAD": str(compiled("clock.c", "-shared", "-fPIC"))})
    run = ended(earlier.start("use", PIN), HANG, "go\n")
    after = subject.run("look", PIN)
    return _outcome(run, after, _acknowledged(run) | {"before-key-0", "before-pair-0"}, must_work=True)


def experiments() -> list[Experiment]:
    return [
        Experiment(
            "full-disk",
            "A full disk",
            f"Keys are created on a file system of {DISK.upper()}B (tmpfs) until a call fails; then it gets "
            "room again. "
            "Lost: what was acknowledged and is not there.",
            full_disk,
        ),
        Experiment(
            "read-only",
            "A read-only store",
            "The folder is bound read-only; a process logs in, creates, signs.",
            read_only,
        ),
        Experiment(
            "permissions",
            "Permissions lost while running",
            "All files and folders of the store get mode 0 after the login; the process is bound to modes.",
            permissions,
        ),
        Experiment(
            "removed",
            "The store's folder removed while running",
            "The folder is moved away after the login and comes back when the process has ended.",
            removed,
        ),
        Experiment(
            "clock",
            "The clock goes back ten years",
            "time, gettimeofday and clock_gettime answer so; all must go on.",
            clock,
        ),
    ]
