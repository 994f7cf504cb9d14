"""`keyfob restore`: a token from the file that `keyfob backup` made."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keyfob import files
from keyfob.cli import tables, tokens, twins
from keyfob.cli.backup import OF_PINS, summary
from keyfob.cli.errors import Refusal
from keyfob.cli.init import named, nobody_else
from keyfob.cli.key import working
from keyfob.cli.pins import Secret, pin_option, secret_option
from keyfob.spec.constants import CKA
from keyfob.store import SqliteStore, calibration, key_file
from keyfob.store.database import SIDES
from keyfob.store.folder import Folder
from keyfob.store.pepper import Pepper, Peppers
from keyfob.store.publish import give_name, publish, sync_folder
from keyfob.token import audit, kinds, templates
from keyfob.token.login import check_pin
from keyfob.token.object import number
from keyfob.token.pin_file import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Generator

    from keyfob.cli.backup_file import Backup
    from keyfob.store import Shelf, Store
    from keyfob.token.library import Library

AT_ONCE = 500  # objects of one transaction
PREFIX = ".restore-"
EPILOG = """\b
Examples:
  keyfob restore work.backup --dry-run
  keyfob restore work.backup
  keyfob restore work.backup --label work-2 --pin-file pin.txt --so-pin-file so-pin.txt
  keyfob restore work.backup --into work
  keyfob restore work.backup --pepper /media/me/STICK/pepper

A backup holds no PIN, and needs no pepper: the new token gets new PINs, made with the pepper that is given, if any. It
gets all objects, or it is not made."""


@click.command(epilog=EPILOG)
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--label", metavar="LABEL", help="The new token's label; without it the one that it had.")
@click.option("--into", metavar="LABEL", help="Put the objects on this token, as far as it has not got them.")
@click.option("--no-pin", is_flag=True, help="General access: every program of this user may use the keys.")
@click.option("--dry-run", is_flag=True, help="Check the whole file and tell what would be done.")
@click.option(
    "--pepper",
    metavar="FILE",
    default="",
    help="A file that the new PINs need beside themselves, or credential:NAME; see `keyfob pin pepper`.",
)
@secret_option("passphrase", "passphrase of the backup")
@pin_option
@secret_option("so-pin", "SO PIN")
def restore(
    file: str,
    label: str | None,
    into: str | None,
    no_pin: bool,
    pepper: str,
    dry_run: bool,
    passphrase: Secret,
    pin: Secret,
    so_pin: Secret,
) -> None:
    """Make a token of the backup FILE, or put its objects on a token."""
    from keyfob.cli.backup_file import Backup

    if into is not None and (label is not None or no_pin or pepper or so_pin.given):
        raise click.UsageError("--into takes a token as it is: no --label, --no-pin, --pepper or --so-pin with it")
    if no_pin and pin.given:
        raise click.UsageError("--no-pin and --pin contradict each other")
    with Backup(file, passphrase.read()) as found:
        if into is not None:
            _merge(found, into, pin, dry_run=dry_run)
            return
        counts = _checked(found)
        wanted = label or str(found.facts["token"]["label"])
        with tokens.library() as library:
            _refuse_taken(library, wanted)
            location = pepper or library.config.token(wanted).pepper
            made_with = Peppers(library.config, _tell).new(location) if location else None
            if dry_run:
                click.echo(tables.printable(f"{file} is whole: {_of(found)}."))
                click.echo(f"It would become the token {wanted!r}: {summary(counts)}.")
                return
            least = library.config.min_pin
            user = b"" if no_pin else check_pin(pin.read(new=True), least)
            so = b"" if no_pin and not so_pin.given else check_pin(so_pin.read(new=True), least)
            with working("Restoring"), nobody_else(library), named(library, wanted, pepper):
                _refuse_taken(library, wanted)
                slot_id, kept = _make(library, found, wanted, user, so, made_with, no_pin=no_pin)
                audit.write(library.config, "restored", {"slot": slot_id, "token": wanted})
    click.echo(f"Made the token {wanted!r} in slot {slot_id}: {summary(counts)}.")
    if not kept:
        click.echo("It has a new serial number, since there is a token with the one that it had.")


def _tell(text: str) -> None:
    click.echo(f"keyfob: {tables.printable(text)}", err=True)


def _of(found: Backup) -> str:
    token = found.facts["token"]
    return f"the token {token['label']!r} ({token['kind']}, serial number {token['serial']}) of {found.facts['made']}"


def _checked(found: Backup) -> Counter[int]:
    """Read and check the whole file; how many objects there are of each class."""
    return Counter(number(attributes[CKA.CLASS]) for attributes in found.objects())


def _refuse_taken(library: Library, label: str) -> None:
    if any(tokens.label_of(token) == label for token in tokens.stored(library)):
        raise Refusal(f"there is a token {label!r} already: give another --label, or --into {shlex.quote(label)}")
    library.check_label(label, 0)


# Into a token


def _merge(found: Backup, into: str, pin: Secret, *, dry_run: bool) -> None:
    from keyfob.cli.backup_file import Chosen

    with tokens.opened(into, pin, writing=not dry_run) as session, working("Restoring"):
        token = session.token
        stored = token.store
        if stored is None or not token.sees_private:
            raise Refusal(f"{into!r} is not open")
        new: list[int] = []
        changes: dict[int, dict[int, bytes]] = {}
        arrived: Counter[int] = Counter()
        for place, attributes in enumerate(found.objects()):
            if not kinds.keeps(token, attributes):
                raise Refusal(f"the backup has secret keys, and a token of the kind {token.kind} keeps none")
            if twins.has_twin(stored, attributes):
                continue
            if stored.exists([(CKA.UNIQUE_ID, attributes.get(CKA.UNIQUE_ID, b""))]):
                changes[place] = {CKA.UNIQUE_ID: templates.unique_id()}  # the same object, changed since the backup
            new.append(place)
            arrived[number(attributes[CKA.CLASS])] += 1
        if new and not dry_run:
            stored.insert(Chosen(found, new, changes))
            audit.event(token, "restored", objects=len(new))
    there = found.count - len(new)
    click.echo(f"{'Would put' if dry_run else 'Put'} {summary(arrived)} on {into!r}; {there:,} were there already.")


# A new token


def _make(
    library: Library, found: Backup, label: str, user: bytes, so: bytes, pepper: Pepper | None, *, no_pin: bool
) -> tuple[int, bool]:
    """The new token's slot, and whether it kept its serial number. Built out of sight: there as a whole, or not at all.

    Two passes over the file, the second of which checks every piece again.
    """
    slot_id = library.next_slot()
    facts = found.facts["token"]
    present = {token.store.info().serial for token in tokens.stored(library) if token.store is not None}
    kept = facts["serial"] not in present
    serial = str(facts["serial"]) if kept else os.urandom(8).hex()
    target = Path(Folder(library.config.tokens).file(slot_id))
    with _out_of_sight(target.parent) as folder:
        path = folder / target.name
        key = path.with_suffix(".key")
        if no_pin and target.with_suffix(".key").exists():
            # Left by a token that is gone; `keyfob init` takes it, too.
            publish(key_file.read(str(target.with_suffix(".key"))), str(key))
        made = SqliteStore.create(
            path,
            label=label,
            serial=serial,
            kind=str(facts["kind"]),
            so_pin=so,
            hardening=calibration.chosen(library.config.hardening),
            general_access=no_pin,
            pepper=pepper,
        )
        made.configure(library.config)
        try:
            _open(made, user, so)
            _fill(made, found, facts["settings"])
        finally:
            made.close()
        if kept:
            # This machine may remember a token that had come further (store/witness.py); going back is what is wanted.
            for name in (serial, serial + SUFFIX):
                (Path(library.config.witness) / name).unlink(missing_ok=True)
        if isinstance(library.shelf, Folder):
            _publish(path, target, key if no_pin else None)
        else:
            _hand_over(path, library.shelf, slot_id, key if no_pin else None)
    library.rescan()
    return slot_id, kept


def _open(made: SqliteStore, user: bytes, so: bytes) -> None:
    if not user:
        made.unlock_with_key_file()
        return
    made.login("so", so)
    made.set_pin("user", user)
    made.logout()
    made.login("user", user)


def _fill(made: Store, found: Backup, settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        if name not in OF_PINS:
            made.set_setting(name, str(value))
    arriving = found.objects()
    while some := list(islice(arriving, AT_ONCE)):
        made.insert(some)


@contextlib.contextmanager
def _out_of_sight(parent: Path) -> Generator[Path]:
    """A folder that no library looks into, gone in the end; those of killed processes go now."""
    for left in parent.glob(f"{PREFIX}*"):
        if not _in_use(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = parent / f"{PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
    files.make_folder(str(folder))
    descriptor = files.folder(str(folder))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _in_use(folder: Path) -> bool:
    try:
        descriptor = files.folder(str(folder))
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _publish(path: Path, target: Path, key: Path | None) -> None:
    """Give the finished token its name, its key file first; never in place of another."""
    if any(path.with_name(path.name + end).exists() for end in SIDES):
        raise Refusal("the new token could not be written as one file; nothing was made")
    for end in SIDES:  # of a token that is gone
        target.with_name(target.name + end).unlink(missing_ok=True)
    _sync(path)
    if key is not None:
        _sync(key)
        with contextlib.suppress(FileExistsError):  # then it is the one that was taken
            give_name(str(key), str(target.with_suffix(".key")))
    give_name(str(path), str(target))
    sync_folder(str(target.parent))


def _hand_over(path: Path, shelf: Shelf, slot_id: int, key: Path | None) -> None:
    """Put the finished token on a shelf that is no folder, its key file first."""
    finished = SqliteStore.open(path)
    try:
        if key is not None:
            _sync(key)
            with contextlib.suppress(FileExistsError):
                give_name(str(key), shelf.key_file(slot_id))
        shelf.build(slot_id, finished.copy_to)
    finally:
        finished.close()


def _sync(path: Path) -> None:
    files.sync(str(path))
