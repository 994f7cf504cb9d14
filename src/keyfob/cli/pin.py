"""`keyfob pin`: change the PINs of a token, or set a new one when it is locked."""

from __future__ import annotations

import shlex

import click

from keyfob.cli import tokens
from keyfob.cli.errors import Refusal
from keyfob.cli.pepper import pepper
from keyfob.cli.pins import Secret, secret_option
from keyfob.functions.slots import C_InitPIN, C_SetPIN
from keyfob.spec.constants import CKU
from keyfob.token import audit
from keyfob.token.login import check_pin
from keyfob.token.session import Session

CHANGE_EPILOG = """\b
Examples:
  keyfob pin change work
  keyfob pin change work --so
  keyfob pin change work --pin-file old.txt --new-pin-file new.txt"""

UNBLOCK_EPILOG = """\b
Example:
  keyfob pin unblock work --so-pin-file so-pin.txt"""


@click.group()
def pin() -> None:
    """Change a PIN, unblock a locked one, or give PINs a pepper."""


pin.add_command(pepper)


@pin.command(epilog=CHANGE_EPILOG)
@click.argument("label")
@click.option(
    "--so", is_flag=True, help="Change the SO PIN; --pin is then the present one (where there is none, the user PIN)."
)
@secret_option("pin", "present PIN")
@secret_option("new-pin", "new PIN")
def change(label: str, so: bool, pin: Secret, new_pin: Secret) -> None:  # the option's name, not the group's
    """Change the user PIN (or, with --so, the SO PIN) of the token LABEL.

    The empty PIN of a token made with --empty-pin is not asked for.
    """
    with tokens.library() as library:
        token = tokens.find(library, label)
        tokens.refuse_read_only(token)
        info, least = token.info, token.config.min_pin
        has_empty_pin = not so and info is not None and info.empty_pin
        if info is not None and info.general_access and not so and not has_empty_pin:
            raise Refusal(
                f"{label!r} has no PIN; the SO PIN sets one, which then everybody needs:"
                f" keyfob pin unblock {shlex.quote(label)}"
            )
        session = token.open_session(tokens.READ_WRITE)
        if has_empty_pin:
            C_SetPIN(session, b"", check_pin(new_pin.read(new=True), least))
        elif so and token.info is not None and not token.info.so_pin_set:
            _first_so_pin(session, pin, new_pin)
        else:
            tokens.login(session, pin, user_type=CKU.SO if so else CKU.USER)
            C_SetPIN(session, pin.read(), check_pin(new_pin.read(new=True), least))
    click.echo(f"Changed the {'SO PIN' if so else 'PIN'} of {label!r}.")


def _first_so_pin(session: Session, pin: Secret, new_pin: Secret) -> None:
    """The user gives an SO to a token that has none: one without PINs, or one that NSS has initialised (P6)."""
    token = session.token
    if not token.general_access:
        tokens.login(session, pin)
    if token.store is not None:
        token.store.set_pin("so", check_pin(new_pin.read(new=True), token.config.min_pin))
        audit.event(token, "pin-set", role="so")


@pin.command(epilog=UNBLOCK_EPILOG)
@click.argument("label")
@secret_option("so-pin", "SO PIN")
@secret_option("new-pin", "new user PIN")
def unblock(label: str, so_pin: Secret, new_pin: Secret) -> None:
    """Set a new user PIN with the SO PIN: when the user PIN is locked, forgotten, or was never set.

    The keys stay as they are.
    """
    with tokens.library() as library:
        token = tokens.find(library, label)
        session = token.open_session(tokens.READ_WRITE)
        tokens.login(session, so_pin, user_type=CKU.SO)
        C_InitPIN(session, check_pin(new_pin.read(new=True), token.config.min_pin))
    click.echo(f"Set a new PIN for {label!r}.")
