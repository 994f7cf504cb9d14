"""`keyfob pin pepper`: the file that PINs need beside themselves, so that a stolen token cannot be guessed at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keyfob.cli import pepper_setting, tables, tokens
from keyfob.cli.errors import Refusal
from keyfob.cli.pins import Secret, pin_option, secret_option
from keyfob.spec.constants import CKR, CKU
from keyfob.spec.errors import PKCS11Error
from keyfob.token import audit

if TYPE_CHECKING:
    from keyfob.store import Store
    from keyfob.token.token import Token

NAMES = {"user": "user PIN", "so": "SO PIN"}
EPILOG = """\b
Examples:
  head -c 32 /dev/urandom > pepper
  keyfob pin pepper work --set /media/me/STICK/pepper
  keyfob pin pepper work --set credential:pepper --so-pin-file so-pin.txt
  keyfob pin pepper work --remove
  keyfob pin pepper work

A pepper is a file of 16 to 4096 bytes that is not kept where the token is. Keep a copy of it with the SO PIN: without
it nobody gets at the keys again. The present pepper must still be there when another one takes its place."""


@click.command(epilog=EPILOG)
@click.argument("label")
@click.option(
    "--set",
    "location",
    metavar="FILE",
    help="Make the PINs with this file from now on; credential:NAME is the file NAME in $CREDENTIALS_DIRECTORY.",
)
@click.option("--remove", is_flag=True, help="Make the PINs without a pepper.")
@pin_option
@secret_option("so-pin", "SO PIN")
def pepper(label: str, location: str | None, remove: bool, pin: Secret, so_pin: Secret) -> None:
    """Tell, set, replace or remove the pepper of the token LABEL: a file that its PINs need beside themselves."""
    if location is not None and remove:
        raise click.UsageError("--set and --remove contradict each other")
    with tokens.library() as library:
        token = tokens.find(library, label)
        store = token.store
        assert store is not None  # tokens.find
        if location is None and not remove:
            click.echo(_present(store, label))
            return
        tokens.refuse_read_only(token)
        pins = _pins(token, store, pin, so_pin)
        try:
            with pepper_setting.named(library.config, label, location):
                store.set_pepper(location, pins)
        except PKCS11Error as problem:
            if problem.rv in (CKR.PIN_INCORRECT, CKR.PIN_LOCKED):
                raise Refusal(tokens.login_refused(token, problem, CKU.SO)) from None
            raise
        audit.event(token, "pepper-removed" if remove else "pepper-set", roles=",".join(pins))
        _say_what_was_done(token, store, label)


def _present(store: Store, label: str) -> str:
    state = store.pepper_state()
    if state is None:
        return f"{label!r} has no pepper."
    if state.problem:
        raise Refusal(f"the pepper of {label!r} is of no use: {state.problem}")
    needing = " and ".join(NAMES[role] for role in state.roles) or "no PIN yet"
    return tables.printable(f"{label!r} has the pepper {state.location}; it is needed by: {needing}.")


def _pins(token: Token, store: Store, pin: Secret, so_pin: Secret) -> dict[str, bytes]:
    """Open the token; the PINs that come to the pepper now: the user's, and the SO's where it is given or must be."""
    info, state = token.info, store.pepper_state()
    assert info is not None  # only stored tokens are found
    session = token.open_session(tokens.READ_WRITE)
    has_user_pin = info.user_pin_set and not info.general_access
    pins: dict[str, bytes] = {}
    if has_user_pin:
        tokens.login(session, pin)
        pins["user"] = pin.read()
    elif not info.general_access:
        tokens.login(session, so_pin, user_type=CKU.SO)
    must = state is not None and "so" in state.roles
    if info.so_pin_set and (must or so_pin.given):
        pins["so"] = so_pin.read()
    return pins


def _say_what_was_done(token: Token, store: Store, label: str) -> None:
    state, info = store.pepper_state(), token.info
    assert info is not None  # it was there a moment ago
    if state is None:
        click.echo(f"The PINs of {label!r} are made without a pepper from now on.")
        return
    click.echo(tables.printable(f"The PINs of {label!r} are made with the pepper {state.location} from now on."))
    click.echo("Keep a copy of it with the SO PIN: without it nobody gets at the keys again.")
    if info.so_pin_set and "so" not in state.roles:
        click.echo(
            "The SO PIN gets it at the SO's next login. Until then that PIN can be guessed at on a copy of the token:"
            " to give it the pepper now, repeat this with --so-pin-file."
        )
    click.echo(tables.printable(f"{token.config.file} says where it is."))
