"""`keyfob verify`: whether a token is as it was left."""

from __future__ import annotations

import click

from keyfob.cli import tables, tokens
from keyfob.cli.errors import Refusal
from keyfob.cli.pins import Secret, pin_option
from keyfob.store import SqliteStore

EPILOG = """\b
Examples:
  keyfob verify work                     finds accidents: a damaged file
  keyfob verify work --pin-file pin.txt  finds attacks, too: a changed file"""


@click.command(epilog=EPILOG)
@click.argument("label")
@pin_option
@click.option("--login", is_flag=True, help="Ask for the PIN.")
def verify(label: str, pin: Secret, login: bool) -> None:
    """Check that the token LABEL is as it was left.

    Every object is checked against its checksum and, with the PIN, against its MAC.
    """
    problems, unlocked = _problems(label, pin, login=login)
    for problem in problems:
        click.echo(tables.printable(problem))
    if problems:
        raise Refusal(f"{label!r} has {len(problems)} problem{'s' * (len(problems) != 1)}; work on a copy of its file")
    held = "checksums and MACs" if unlocked else "checksums (the PIN would check against tampering, too)"
    click.echo(f"{label!r} is as it was left: all {held} hold.")


def _problems(label: str, pin: Secret, *, login: bool) -> tuple[list[str], bool]:
    """(what is wrong, whether MACs were checked)."""
    with tokens.library() as library:
        slot_id = tokens.damaged_slot(library, label)
        path = library.path_of(slot_id) if slot_id is not None else None
    if path is not None:
        store = SqliteStore.open(path)
        try:
            return store.verify(), False
        finally:
            store.close()
    with tokens.opened(label, pin, ask=login) as session:
        stored = session.token.store
        return ([], False) if stored is None else (stored.verify(), stored.unlocked)
