"""`keyfob eject` and `keyfob insert`: take a token out of its removable slot and put it back, for testers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keyfob.cli import tokens
from keyfob.cli.errors import Refusal

if TYPE_CHECKING:
    from keyfob.token.library import Library
    from keyfob.token.removable import RemovableToken

EPILOG = """\b
Examples:
  keyfob init travel --removable /media/me/STICK
  keyfob eject travel
  keyfob insert 2                      an ejected token has no label to read: by its slot

Every running program sees the token go and come, as if somebody pulled the stick."""


@click.command(epilog=EPILOG)
@click.argument("label", metavar="LABEL|SLOT")
def eject(label: str) -> None:
    """Take the token out of its removable slot, without touching its folder."""
    with tokens.library() as library:
        token = removable(library, label)
        if token.registration.ejected:
            click.echo(f"Slot {token.slot_id} is ejected already.")
            return
        token.registration.write(token.registration.folder, ejected=True)
        click.echo(f"Ejected slot {token.slot_id}.")


@click.command(epilog=EPILOG)
@click.argument("label", metavar="LABEL|SLOT")
def insert(label: str) -> None:
    """Put an ejected token back."""
    with tokens.library() as library:
        token = removable(library, label)
        if not token.registration.ejected:
            where = "" if not token.absent else f"; its folder {token.registration.folder} is not there"
            click.echo(f"Slot {token.slot_id} is not ejected{where}.")
            return
        token.registration.write(token.registration.folder, ejected=False)
        token.look()
        if token.absent:
            raise Refusal(f"slot {token.slot_id} is not ejected any more; its folder is not there")
        click.echo(f"Inserted slot {token.slot_id}.")


def removable(library: Library, name: str) -> RemovableToken:
    """The removable slot whose token has this label, or of this number."""
    every = library.removables()
    number = int(name) if name.isascii() and name.isdigit() else None
    found = [each for each in every if each.store is not None and tokens.label_of(each) == name]
    found = found or [each for each in every if each.slot_id == number]
    if found:
        return found[0]
    if number in library.tokens or any(tokens.label_of(each) == name for each in tokens.stored(library)):
        raise Refusal(f"the token {name!r} is not removable: `keyfob init LABEL --removable FOLDER` makes one that is")
    slots = ", ".join(str(each.slot_id) for each in every)
    absent = f"; an ejected one is found by its slot ({slots})" if slots else ""
    raise Refusal(f"no removable slot has a token called {name!r}{absent}")
