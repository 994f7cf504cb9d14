"""`keyfob audit`: what happened on the tokens of this user."""

from __future__ import annotations

import json
import os
import time
from typing import IO, TYPE_CHECKING, Any

import click

from keyfob import config
from keyfob.cli import tables
from keyfob.cli.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

EPILOG = """\b
Examples:
  keyfob audit
  keyfob audit work --follow
  keyfob audit --json | jq 'select(.event == "login-failed")'"""

START = '{"time": '
PAUSE = 0.5  # seconds between looks at a file that is followed
SHOWN_FIRST = ("time", "event", "slot", "token")
NOT_SHOWN = ("serial", "pid", "program", "uid")


@click.command(epilog=EPILOG)
@click.argument("label", required=False)
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines as they are, for programs.")
def audit(label: str | None, follow: bool, as_json: bool) -> None:
    """Show the audit log: logins, failures, lockouts, PINs, keys made, destroyed and exported; of the token LABEL only.

    The oldest comes first. What was rotated away long ago is not there any more.
    """
    settings = config.present()
    if not settings.audit:
        raise Refusal(f"the audit log is off: [audit] enabled in {settings.file}")
    for line in lines(settings.audit_file, settings.audit_keep, follow=follow):
        entry = parsed(line)
        if entry is None or (label is not None and entry.get("token") != label):
            continue
        click.echo(json.dumps(entry) if as_json else tables.printable(readable(entry)))


def parsed(line: str) -> dict[str, Any] | None:
    """An event; a line that was cut short by a full disk is passed over, also where the next one was put behind it."""
    found = line.rfind(START)
    if found < 0:
        return None
    try:
        entry = json.loads(line[found:])
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def readable(entry: dict[str, Any]) -> str:
    who = f"slot {entry.get('slot', '?')}" + (f" {entry['token']!r}" if "token" in entry else "")
    rest = [f"{k}={v}" for k, v in entry.items() if k not in (*SHOWN_FIRST, *NOT_SHOWN) and v != ""]
    by = f"by {entry.get('program', '?')} [{entry.get('pid', '?')}]"
    return "  ".join((str(entry.get("time", "?")), str(entry.get("event", "?")), who, *rest, by))


def lines(path: str, keep: int, *, follow: bool) -> Iterator[str]:
    """Of the rotated files, oldest first, then of the present one."""
    for number in range(keep, 0, -1):
        try:
            with open(f"{path}.{number}", encoding="utf-8", errors="replace") as file:
                yield from file
        except FileNotFoundError:
            continue
    present = _opened(path, follow=follow)
    while present is not None:
        with present:
            yield from present
            if not follow:
                return
            while not _replaced(path, present):
                yield from _whole_lines(present)
                time.sleep(PAUSE)
            yield from present  # what came to it before the new one began
        present = _opened(path, follow=follow)


def _whole_lines(file: IO[str]) -> Iterator[str]:
    while True:
        place = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(place)
            return
        yield line


def _opened(path: str, *, follow: bool) -> IO[str] | None:
    while True:
        try:
            return open(path, encoding="utf-8", errors="replace")
        except FileNotFoundError:
            if not follow:
                return None
            time.sleep(PAUSE)


def _replaced(path: str, file: IO[str]) -> bool:
    try:
        return not os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
