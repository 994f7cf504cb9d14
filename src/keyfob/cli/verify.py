"""`keyfob verify`: whether a token is as it was left."""

from __future__ import annotations

import click

from keyfob.cli import tables, tokens
from keyfob.cli.errors import Refusal
from keyfob.cli.pins import Secret, pin_option
from keyfob.token import audit

EPILOG = """\b
Examples:
  keyfob verify work                     finds accidents: a damaged file
  keyfob verify work --pin-file pin.txt  finds attacks, too: a changed file
  keyfob verify work --login --accept    takes what is there for what shall be there"""


@click.command(epilog=EPILOG)
@click.argument("label")
@pin_option
@click.option("--login", is_flag=True, help="Ask for the PIN.")
@click.option("--accept", is_flag=True, help="From now on the objects that are there are the ones that shall be.")
def verify(label: str, pin: Secret, login: bool, accept: bool) -> None:
    """Check that the token LABEL is as it was left.

    Every object is checked against its checksum and, with the PIN, against its MAC and the list of all objects. With
    the PIN it is also told what came or went without one and counts, until that is accepted.
    """
    problems, remarks, unlocked = _problems(label, pin, login=login, accept=accept)
    for remark in remarks:
        click.echo(f"note: {tables.printable(remark)}")
    for problem in problems:
        click.echo(tables.printable(problem))
    if problems:
        raise Refusal(f"{label!r} has {len(problems)} problem{'s' * (len(problems) != 1)}; work on a copy of its file")
    held = "checksums and MACs" if unlocked else "checksums (the PIN would check against tampering, too)"
    click.echo(f"{label!r} is as it was left: all {held} hold.")


def _problems(label: str, pin: Secret, *, login: bool, accept: bool) -> tuple[list[str], list[str], bool]:
    """(what is wrong, what else there is to say, whether MACs were checked)."""
    with tokens.library() as library:
        slot_id = tokens.damaged_slot(library, label)
        if slot_id is not None:
            store = library.open_store(slot_id)
            try:
                return store.verify(), [], False
            finally:
                store.close()
    with tokens.opened(label, pin, ask=login or accept) as session:
        stored = session.token.store
        if stored is None:
            return [], [], False
        if accept:
            stored.accept()
            audit.event(session.token, "accepted")
        return stored.verify(), stored.remarks(), stored.unlocked
