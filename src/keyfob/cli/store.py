"""`keyfob store`: tokens in a PostgreSQL database, and on their way there or back."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import click

from keyfob import config, files
from keyfob.cli import tables, tokens
from keyfob.cli.errors import Refusal
from keyfob.store import open_shelf
from keyfob.token import audit

if TYPE_CHECKING:
    from keyfob.config import Config
    from keyfob.store import Store
    from keyfob.store.protocol import Shelf

FILES = "files"
COPY_EPILOG = """\b
FROM and TO are each one of
  files               the folder of this user's tokens
  /some/folder        another folder of token files
  postgresql://...    a database that `keyfob store init` has prepared

Examples:
  keyfob store copy files postgresql://db.example/keyfob
  keyfob store copy postgresql://db.example/keyfob /srv/keyfob/tokens work

No PIN is needed: tokens are copied sealed as they are, with their PINs and with what is damaged in them, which is told
(exit code 1). Go on with one of the two. Where both are used
they grow apart, and this machine says that an older copy was put back."""


@click.group()
def store() -> None:
    """Keep tokens in a PostgreSQL database that several hosts share (docs/postgresql.md)."""


@store.command()
@click.argument("url", required=False)
@click.option("--role", metavar="ROLE", help="Let this role of the server make tokens in the database, too.")
def init(url: str | None, role: str | None) -> None:
    """Prepare the database of URL, or of KEYFOB_STORE, for tokens. It does no harm to say it again."""
    settings = config.present()
    url = url or settings.store
    if not url:
        raise Refusal("name the database: keyfob store init postgresql://HOST/DATABASE, or set KEYFOB_STORE")
    shelf = _shelf(url, settings)
    from keyfob.store.postgres.server import Server

    if not isinstance(shelf, Server):
        raise Refusal("a folder needs no preparation; name a database: postgresql://HOST/DATABASE")
    new = shelf.initialise(role)
    click.echo(tables.printable(f"{shelf.shown} is ready for tokens." if new else f"{shelf.shown} was ready already."))
    if role is not None:
        click.echo(tables.printable(f"The role {role!r} may make tokens there."))
    if not settings.store:
        click.echo("Programs use it where KEYFOB_STORE is set to its URL, or [store] url in config.toml.")


@store.command(epilog=COPY_EPILOG)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.argument("labels", metavar="[LABEL]...", nargs=-1)
def copy(source: str, target: str, labels: tuple[str, ...]) -> None:
    """Copy tokens, all or those called LABEL, from one store to another."""
    settings = config.present()
    origin, destination = _shelf(source, settings), _shelf(target, settings)
    with ExitStack() as opened:
        there = _opened(origin, opened)
        wanted = {slot_id: one for slot_id, one in there.items() if not labels or one.info().label in labels}
        missing = set(labels) - {one.info().label for one in wanted.values()}
        if missing or not wanted:
            names = ", ".join(repr(label) for label in sorted(missing))
            raise Refusal(f"there is no token {names}" if missing else "there is no token to copy")
        opened.enter_context(destination.alone())
        present = _opened(destination, opened)
        damaged: list[str] = []
        for one in wanted.values():
            _refuse_twin(one, present)
        for slot_id, one in wanted.items():
            damage = list(dict.fromkeys([*one.verify(), *one.complaints()]))
            number = slot_id if slot_id not in present else max((*present, *wanted)) + 1
            destination.build(number, one.copy_to)
            present[number] = copied = opened.enter_context(_Opened(destination, number)).store
            count, label = _compared(one, copied), one.info().label
            audit.write(settings, "token-copied", {"slot": number, "token": label})
            click.echo(
                tables.printable(f"Copied {label!r} to slot {number}: {count:,} object{'s' * (count != 1)}, compared.")
            )
            if one.info().general_access:
                old, new = origin.key_file(slot_id), destination.key_file(number)
                if old != new:
                    click.echo(tables.printable(f"A key file opens it: copy {old} to {new}."))
            if damage:
                damaged.append(tokens.complaint(label, damage))
    if damaged:
        raise Refusal(tables.printable(f"copied as it is, damage too: {'; '.join(damaged)}"))


def _shelf(place: str, settings: Config) -> Shelf:
    if "://" in place:
        return open_shelf(place, settings.tokens, settings.witness, patience=settings.patience)
    folder = settings.tokens if place == FILES else os.path.abspath(place)
    if place != FILES and not os.path.isdir(folder):
        raise Refusal(f"{place} is neither a folder, nor a URL that begins with postgresql://, nor the word {FILES}")
    files.make_folder(folder)
    return open_shelf("", folder, settings.witness, own=place == FILES)


class _Opened:
    """A token that is closed again at the end of `with`."""

    def __init__(self, shelf: Shelf, slot_id: int) -> None:
        self.store = shelf.open(slot_id, lambda text: click.echo(tables.printable(f"slot {slot_id}: {text}"), err=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()


def _opened(shelf: Shelf, stack: ExitStack) -> dict[int, Store]:
    """Every token of a shelf by its slot's ID."""
    slots = shelf.slots(lambda text: click.echo(tables.printable(text), err=True))
    return {slot_id: stack.enter_context(_Opened(shelf, slot_id)).store for slot_id in slots}


def _refuse_twin(one: Store, present: dict[int, Store]) -> None:
    mine = one.info()
    for slot_id, other in present.items():
        theirs = other.info()
        if theirs.serial == mine.serial:
            raise Refusal(f"{mine.label!r} is there already, in slot {slot_id}: delete one of the two first")
        if theirs.label == mine.label:
            raise Refusal(f"there is another token {mine.label!r}, in slot {slot_id}: nothing was copied")


def _compared(one: Store, copied: Store) -> int:
    """The number of objects, after the copy was found to be what its original is, byte for byte."""
    count, digest = copied.fingerprint()
    if (count, digest) != one.fingerprint():
        raise Refusal("the copy is not what the original is, which was changed meanwhile: delete the copy")
    return count
