"""`keyfob backup`: a whole token in one encrypted file."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from keyfob import __version__, files
from keyfob.cli import objects, tables, tokens
from keyfob.cli.errors import Refusal
from keyfob.cli.files import place
from keyfob.cli.key import working
from keyfob.cli.pins import Secret, pin_option, secret_option
from keyfob.spec.constants import CKA
from keyfob.spec.errors import name_of
from keyfob.store.meta import USER_PIN
from keyfob.store.pepper import FILE_SETTING, SETTING
from keyfob.store.publish import give_name, sync_folder
from keyfob.token import audit
from keyfob.token.object import number

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from keyfob.store import Attributes, Store, TokenInfo

SHORTEST = 8  # characters of a passphrase
# Settings that say how PINs are made: a backup has none, and the new token's are its own.
OF_PINS = (USER_PIN, SETTING, FILE_SETTING)
EPILOG = """\b
Examples:
  keyfob backup work work.backup
  keyfob backup work work.backup --dry-run
  keyfob backup work work.backup --passphrase-file pass.txt --pin-file pin.txt

The file holds every key, those too that no program ever gets out of the token: keep it, and its passphrase, as you
would keep the token. `keyfob restore` makes a token of it again."""


@click.command(epilog=EPILOG)
@click.argument("label")
@click.argument("file")
@click.option("--force", is_flag=True, help="Write over FILE where it exists.")
@click.option("--dry-run", is_flag=True, help="Read and check the whole token and tell what would be backed up.")
@click.option("--skip-damaged", is_flag=True, help="Back up what can be read of a damaged token (exit code 1).")
@secret_option("passphrase", "passphrase of the backup")
@pin_option
def backup(
    label: str, file: str, force: bool, dry_run: bool, skip_damaged: bool, passphrase: Secret, pin: Secret
) -> None:
    """Write everything that is on the token LABEL to FILE, encrypted under a passphrase.

    FILE gets its name when it was read again and compared with the token.
    """
    path = Path(place(file, force=force))
    with tokens.opened(label, pin) as session:
        stored = session.token.store
        if stored is None or not session.token.sees_private:
            raise Refusal(f"{label!r} cannot be backed up: it is not open")
        problems = stored.verify()
        if problems and not skip_damaged:
            raise Refusal(
                f"{label!r} is damaged: {'; '.join(problems)}. With --skip-damaged the rest of it is backed up"
            )
        if dry_run:
            found = Counter(number(attributes[CKA.CLASS]) for attributes in _read(stored, stored.find(())))
            click.echo(f"Would back up {label!r} to {file}: {summary(found)}.")
            return
        secret = checked(passphrase.read(new=True))
        with working("Backing up"), _new_file(path, force=force) as (part, opened):
            numbers, counts = _write(opened, stored, secret)
            _compare(str(part), stored, numbers, secret)
        size = path.stat().st_size
        audit.event(session.token, "backup", objects=len(numbers))
    click.echo(f"Backed up {label!r} to {file}: {summary(counts)}; {size:,} bytes, read again and compared.")
    if problems:
        raise Refusal(f"not all of {label!r} could be read: {'; '.join(problems)}")


def checked(secret: bytes) -> bytes:
    """A passphrase that a new backup may have."""
    if len(secret.decode(errors="replace")) < SHORTEST:
        raise Refusal(
            f"the passphrase is too short: at least {SHORTEST} characters, since whoever has the file can"
            " try as many as he likes"
        )
    return secret


def _write(opened: IO[bytes], stored: Store, secret: bytes) -> tuple[list[int], Counter[int]]:
    from keyfob.cli.backup_file import Writer  # cryptography: 10 ms

    numbers = stored.find(())
    counts: Counter[int] = Counter()
    writer = Writer(opened, secret, facts(stored.info(), len(numbers)))
    for attributes in _read(stored, numbers):
        writer.add(attributes)
        counts[number(attributes[CKA.CLASS])] += 1
    writer.finish()
    opened.flush()
    os.fsync(opened.fileno())
    return numbers, counts


def _read(stored: Store, numbers: Iterable[int]) -> Generator[Attributes]:
    for each in numbers:
        attributes = stored.get(each)
        if attributes is None:
            raise _changed()
        yield attributes


def _changed() -> Refusal:
    return Refusal("the token was changed while it was backed up; there is no new backup, please try again")


def _compare(path: str, stored: Store, numbers: list[int], secret: bytes) -> None:
    """The file, read from the disk, against the token as it is now."""
    from keyfob.cli.backup_file import Backup

    with Backup(path, secret) as written:
        for kept, there in zip_longest(written.objects(), _read(stored, numbers)):
            if kept != there:
                raise _changed()
        if stored.find(()) != numbers or written.facts["token"] != facts(stored.info(), len(numbers))["token"]:
            raise _changed()


def facts(info: TokenInfo, count: int) -> dict[str, Any]:
    """What the file tells of the token beside its objects."""
    return {
        "token": {
            "label": info.label,
            "serial": info.serial,
            "kind": info.kind,
            "created": info.created,
            "general_access": info.general_access,
            "settings": {name: value for name, value in info.settings.items() if name not in OF_PINS},
        },
        "objects": count,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "keyfob": __version__,
    }


def summary(counts: Counter[int]) -> str:
    """`3 objects (1 certificate, 1 private-key, 1 public-key)`."""
    total = counts.total()
    text = f"{total:,} object{'s' * (total != 1)}"
    ordered = sorted(counts, key=lambda kind: (objects.ORDER.get(kind, len(objects.ORDER)), kind))
    parts = [f"{counts[kind]:,} {class_name(kind)}" for kind in ordered if counts[kind]]
    return tables.printable(f"{text} ({', '.join(parts)})" if parts else text)


def class_name(kind: int) -> str:
    return objects.NAMES.get(kind) or name_of("CKO", kind).removeprefix("CKO_").lower().replace("_", "-")


@contextlib.contextmanager
def _new_file(path: Path, *, force: bool) -> Generator[tuple[Path, IO[bytes]]]:
    """A file for its owner's eyes, under another name until all is well with it."""
    part = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.part")
    try:
        with os.fdopen(files.new(str(part)), "wb") as opened:
            yield part, opened
        if force:
            part.replace(path)
        else:
            give_name(str(part), str(path))
        sync_folder(str(path.absolute().parent))
    except FileExistsError:
        raise Refusal(f"{path} is there already: another program made it meanwhile") from None
    except OSError as problem:
        raise Refusal(f"{path} cannot be written: {problem.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
