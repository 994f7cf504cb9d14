"""`keyfob delete`: objects, or a whole token."""

from __future__ import annotations

import click

from keyfob.cli import objects, tokens
from keyfob.cli.errors import Refusal
from keyfob.cli.pins import Secret, on_terminal, pin_option
from keyfob.functions.objects import C_DestroyObject
from keyfob.token import audit

EPILOG = """\b
Examples:
  keyfob delete work mail                      the key pair and certificate called "mail"
  keyfob delete work mail --class certificate  its certificate only
  keyfob delete work --token                   the token with all its keys"""


@click.command(epilog=EPILOG)
@click.argument("label")
@click.argument("name", required=False)
@click.option("--token", "whole", is_flag=True, help="Delete the whole token.")
@click.option("--class", "class_name", type=click.Choice(list(objects.CLASSES)), help="Only objects of this class.")
@click.option("--yes", is_flag=True, help="Do not ask whether it is meant.")
@pin_option
def delete(label: str, name: str | None, whole: bool, class_name: str | None, yes: bool, pin: Secret) -> None:
    """Delete objects of the token LABEL, called NAME or with this ID, or the whole token.

    What is deleted cannot be brought back.
    """
    if whole:
        if name is not None or class_name is not None:
            raise click.UsageError("--token deletes everything: give no NAME and no --class with it")
        _delete_token(label, yes=yes)
    elif name is None:
        raise click.UsageError("give the NAME of what to delete, or --token for the whole token")
    else:
        _delete_objects(label, name, class_name, pin, yes=yes)


def _delete_objects(label: str, name: str, class_name: str | None, pin: Secret, *, yes: bool) -> None:
    with tokens.opened(label, pin, writing=True) as session:
        hits = objects.named(session, name, objects.CLASSES[class_name] if class_name else None)
        what = ", ".join(f"{objects.class_name(hit)} {objects.label_of(hit)!r}" for hit in hits)
        confirm(f"Delete {what} from {label!r} for good?", yes=yes)
        for hit in hits:
            C_DestroyObject(session, hit.handle)
    click.echo(f"Deleted {what}.")


def _delete_token(label: str, *, yes: bool) -> None:
    with tokens.library() as library:
        slot_id = tokens.damaged_slot(library, label)
        if slot_id is None:
            slot_id = tokens.find(library, label).slot_id
        confirm(f"Delete the token {label!r} (slot {slot_id}) with everything on it for good?", yes=yes)
        library.delete(slot_id)
    audit.write(library.config, "token-deleted", {"slot": slot_id, "token": label})
    click.echo(f"Deleted the token {label!r}.")


def confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not on_terminal():
        raise Refusal("nothing was deleted: there is no terminal to ask on; say that it is meant with --yes")
    if not click.confirm(question, err=True):
        raise Refusal("nothing was deleted")
