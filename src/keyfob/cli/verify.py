"""`keyfob verify`: whether a token is as it was left."""

from __future__ import annotations

import click

from keyfob.cli import tables, tokens
from keyfob.cli.errors import Refusal
from keyfob.cli.pins import Secret, pin_option

EPILOG = """\b
Examples:
  keyfob verify work                     finds accidents: a damaged file
  keyfob verify work --pin-file pin.txt  finds attacks, too: a changed file"""


@click.command(epilog=EPILOG)
@click.argument("label")
@pin_option
@click.option("--login", is_flag=True, help="Ask for the PIN.")
def verify(label: str, pin: Secret, login: bool) -> None:
    """Check every object of the token LABEL against its checksum and, with the PIN, against its MAC."""
    with tokens.opened(label, pin, ask=login) as session:
        store = session.token.store
        problems = store.verify() if store is not None else []
        unlocked = store is not None and store.unlocked
    for problem in problems:
        click.echo(tables.printable(problem))
    if problems:
        raise Refusal(f"{label!r} has {len(problems)} problem{'s' * (len(problems) != 1)}; work on a copy of its file")
    held = "checksums and MACs" if unlocked else "checksums (the PIN would check against tampering, too)"
    click.echo(f"{label!r} is as it was left: all {held} hold.")
