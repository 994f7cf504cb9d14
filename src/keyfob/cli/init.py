"""`keyfob init`: make a token."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from keyfob.cli import pepper_setting, tokens
from keyfob.cli.errors import Refusal
from keyfob.cli.pins import Secret, pin_option, secret_option
from keyfob.spec.constants import CKU
from keyfob.token import kinds
from keyfob.token.login import check_pin

if TYPE_CHECKING:
    from collections.abc import Generator

    from keyfob.token.library import Library

KINDS = (kinds.MULTIPURPOSE, kinds.SIGNING, kinds.SIGNING_DECRYPTION, kinds.KEY_DISTRIBUTION)
EPILOG = """\b
Examples:
  keyfob init work
  keyfob init work --pin-file pin.txt --so-pin-file so-pin.txt
  keyfob init mail --kind signing-decryption
  keyfob init kiosk --empty-pin --so-pin-file so-pin.txt
  keyfob init travel --removable /media/me/STICK
  keyfob init work --pepper /media/me/STICK/pepper

The user PIN opens the token. The SO PIN sets a new user PIN when that one is lost or locked: write it down and keep it
elsewhere. Without both, nobody gets at the keys again."""


@click.command(epilog=EPILOG)
@click.argument("label")
@click.option(
    "--kind",
    metavar="KIND",
    type=click.Choice(KINDS),
    default=kinds.MULTIPURPOSE,
    help=f"What the token is for: {', '.join(KINDS)}. Without it {kinds.MULTIPURPOSE}: it offers everything.",
)
@click.option(
    "--no-pin", is_flag=True, help="General access: every program of this user may use the keys, without a PIN."
)
@click.option(
    "--empty-pin",
    is_flag=True,
    help="As --no-pin, until any program changes the empty user PIN into a real one, which is then needed.",
)
@click.option(
    "--removable",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="Keep the token in this folder, a USB stick's: where the folder is gone the token is removed from its slot.",
)
@click.option(
    "--pepper",
    metavar="FILE",
    default="",
    help="A file that the PINs need beside themselves, or credential:NAME; see `keyfob pin pepper`.",
)
@pin_option
@secret_option("so-pin", "SO PIN")
def init(
    label: str,
    kind: str,
    no_pin: bool,
    empty_pin: bool,
    removable: str | None,
    pepper: str,
    pin: Secret,
    so_pin: Secret,
) -> None:
    """Make a new token called LABEL, with a user PIN and an SO PIN.

    A PIN that is not given is asked for.
    """
    if no_pin and empty_pin:
        raise click.UsageError("--no-pin and --empty-pin contradict each other")
    is_open = no_pin or empty_pin
    if is_open and pin.given:
        raise click.UsageError(f"{'--no-pin' if no_pin else '--empty-pin'} and --pin contradict each other")
    with tokens.library() as library:
        library.check_label(label, 0)
        least = library.config.min_pin
        user = b"" if is_open else check_pin(pin.read(new=True), least)
        so = b"" if is_open and not so_pin.given else check_pin(so_pin.read(new=True), least)
        with nobody_else(library), named(library, label, pepper):
            library.check_label(label, 0)
            slot_id = library.next_slot() if removable is None else register(library, removable)
            if is_open:
                make_open_token(library, slot_id, label, kind, so, pepper, empty_pin=empty_pin)
            else:
                make_token(library, slot_id, label, kind, user, so, pepper)
    state = ", no PIN" if no_pin else ", empty PIN" if empty_pin else ""
    place = "" if removable is None else f", in {removable}"
    click.echo(f"Made the token {label!r} in slot {slot_id} ({kind}{state}{place}).")


def named(library: Library, label: str, pepper: str) -> contextlib.AbstractContextManager[None]:
    """The configuration says where the pepper is, if one is given here."""
    return pepper_setting.named(library.config, label, pepper) if pepper else contextlib.nullcontext()


def register(library: Library, folder: str) -> int:
    """The removable slot of this folder, made where there is none; refused where the folder has a token already."""
    slot_id = next((each.slot_id for each in library.removables() if each.registration.folder == folder), None)
    if slot_id is None:
        slot_id = library.next_slot(to_be_removable=True)
        library.registration(slot_id).write(folder, ejected=False)
        library.rescan()
    if library.token(slot_id).store is not None:
        raise Refusal(f"there is a token in {folder} already; it is in slot {slot_id}")
    return slot_id


@contextlib.contextmanager
def nobody_else(library: Library) -> Generator[None]:
    """While another `keyfob init` of this home makes a token wait for it; then take up what it made."""
    with library.shelf.alone():
        library.rescan()
        yield


def make_token(library: Library, slot_id: int, label: str, kind: str, user: bytes, so: bytes, pepper: str) -> None:
    """A token with both PINs; where the second cannot be set none is left behind."""
    library.make_store(slot_id, label, so, kind, pepper=pepper).close()
    try:
        library.rescan()
        token = library.token(slot_id)
        session = token.open_session(tokens.READ_WRITE)
        token.login(session, CKU.SO, so)
        token.init_pin(session, user)
    except BaseException:
        library.delete(slot_id)
        raise


def make_open_token(
    library: Library, slot_id: int, label: str, kind: str, so: bytes, pepper: str, *, empty_pin: bool
) -> None:
    """A token of general access (S12, S14): the key beside it, for its owner alone to read, opens it."""
    library.make_store(slot_id, label, so, kind, general_access=True, empty_pin=empty_pin, pepper=pepper).close()
