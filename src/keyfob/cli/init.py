"""`keyfob init`: make a token."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from keyfob.cli import tokens
from keyfob.cli.errors import Refusal
from keyfob.cli.pins import Secret, pin_option, secret_option
from keyfob.spec.constants import CKF, CKU
from keyfob.token import kinds
from keyfob.token.token import check_pin

if TYPE_CHECKING:
    from keyfob.token.library import Library

KINDS = (kinds.MULTIPURPOSE, kinds.SIGNING, kinds.SIGNING_DECRYPTION, kinds.KEY_DISTRIBUTION)
EPILOG = """\b
Examples:
  keyfob init work
  keyfob init work --pin-file pin.txt --so-pin-file so-pin.txt
  keyfob init mail --kind signing-decryption

The user PIN opens the token. The SO PIN sets a new user PIN when that one is lost or locked: write it down and keep it
elsewhere. Without both, nobody gets at the keys again."""


@click.command(epilog=EPILOG)
@click.argument("label")
@pin_option
@secret_option("so-pin", "SO PIN")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default=kinds.MULTIPURPOSE,
    show_default=True,
    help="What the token offers: everything, or only the functions of one of NSS's other kinds of tokens.",
)
@click.option(
    "--no-pin", is_flag=True, help="General access: every program of this user may use the keys without a PIN."
)
def init(label: str, pin: Secret, so_pin: Secret, kind: str, no_pin: bool) -> None:
    """Make a new token called LABEL, with a user PIN and an SO PIN.

    A PIN that is not given is asked for.
    """
    if no_pin and pin.given:
        raise click.UsageError("--no-pin and --pin contradict each other")
    with tokens.library() as library:
        library.check_label(label, 0)
        so = _new_pin(so_pin)
        user = None if no_pin else _new_pin(pin)
        slot = library.next_slot()
        _make(library, slot, label, kind, so, user)
    click.echo(f"Made the token {label!r} in slot {slot} ({kind}{', no PIN' if no_pin else ''}).")
