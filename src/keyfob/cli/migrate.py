"""`keyfob migrate`: the keys and certificates of SoftHSM, an NSS database or any PKCS #11 module, onto a token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keyfob.cli import tables, tokens
from keyfob.cli.backup import class_name
from keyfob.cli.errors import Refusal
from keyfob.cli.key import working
from keyfob.cli.nss_database import Database
from keyfob.cli.pins import Secret, pin_option, secret_option
from keyfob.spec.constants import CKA

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.cli.migration import Arrival, Source

LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")
SOFTHSM = ("softhsm/libsofthsm2.so", "pkcs11/libsofthsm2.so", "libsofthsm2.so")
SOFTOKEN = ("nss/libsoftokn3.so", "libsoftokn3.so", "firefox/libsoftokn3.so")
DATABASE_SLOT = 2
"""Of softoken's two slots the one with the database; the other has its mechanisms."""

EPILOG = """\b
Examples:
  keyfob migrate softhsm --to work
  keyfob migrate softhsm --conf ~/softhsm2.conf --from-label old --to work --dry-run
  keyfob migrate nssdb ~/.mozilla/firefox/abcd.default --to work
  keyfob migrate p11 /usr/lib/opensc-pkcs11.so --from-label card --to work

The source is only read. What is on the token already is left as it is, so a migration can be repeated."""


@click.group(epilog=EPILOG)
def migrate() -> None:
    """Move keys and certificates from other tokens."""


def _common(function: Callable[..., Any]) -> Callable[..., Any]:
    """What all three take."""
    function = pin_option(function)
    function = secret_option("from-pin", "PIN of the source")(function)
    function = click.option("--dry-run", is_flag=True, help="Try everything, write nothing.")(function)
    to = click.option("--to", "label", metavar="LABEL", required=True, help="The token that gets the objects.")
    return to(function)


@migrate.command()
@click.option("--module", type=click.Path(exists=True, dir_okay=False), help="libsofthsm2.so, where it is not found.")
@click.option("--conf", type=click.Path(exists=True, dir_okay=False, resolve_path=True), help="As SOFTHSM2_CONF.")
@click.option("--from-label", metavar="LABEL", help="The token to read, where there are several.")
@_common
def softhsm(
    module: str | None,
    conf: str | None,
    from_label: str | None,
    label: str,
    dry_run: bool,
    from_pin: Secret,
    pin: Secret,
) -> None:
    """Move a token of SoftHSM 2."""
    job = {"module": module or _found(SOFTHSM, "SoftHSM"), "parameters": None, "slot": None, "token": from_label}

    def fill_in(source: Source, secret: bytes) -> None:
        from keyfob.cli import softhsm_files

        softhsm_files.fill_in(source, softhsm_files.folder_of_tokens(conf), secret)

    environment = {"SOFTHSM2_CONF": conf} if conf else {}
    _migrate(job, environment, label, from_pin, pin, dry_run=dry_run, fill_in=fill_in)


@migrate.command()
@click.argument("folder")
@click.option("--module", type=click.Path(exists=True, dir_okay=False), help="libsoftokn3.so, where it is not found.")
@_common
def nssdb(folder: str, module: str | None, label: str, dry_run: bool, from_pin: Secret, pin: Secret) -> None:
    """Move keys, certificates and trust of the NSS database in FOLDER: a profile of Firefox, or ~/.pki/nssdb."""
    database = Database(folder)
    database.require(create=False)
    place = str(database.folder.absolute())
    if "'" in place:
        raise Refusal(f"{place}: NSS takes no folder with an apostrophe in its name")
    parameters = f"configdir='sql:{place}' certPrefix='' keyPrefix='' secmod='' flags=readOnly,noModDB"
    job = {
        "module": module or _found(SOFTOKEN, "NSS's softoken"),
        "parameters": parameters,
        "slot": DATABASE_SLOT,
        "token": None,
    }
    _migrate(job, {}, label, from_pin, pin, dry_run=dry_run)


@migrate.command()
@click.argument("module", type=click.Path(exists=True, dir_okay=False))
@click.option("--slot", type=int, help="The slot's ID, where there are several tokens.")
@click.option("--from-label", metavar="LABEL", help="The token to read, where there are several.")
@_common
def p11(
    module: str, slot: int | None, from_label: str | None, label: str, dry_run: bool, from_pin: Secret, pin: Secret
) -> None:
    """Move a token of the PKCS #11 library MODULE."""
    job = {"module": module, "parameters": None, "slot": slot, "token": from_label}
    _migrate(job, {}, label, from_pin, pin, dry_run=dry_run)


def _found(names: tuple[str, ...], what: str) -> str:
    for folder in LIBRARIES:
        for name in names:
            if (path := Path(folder, name)).exists():
                return str(path)
    raise Refusal(f"{what} is not found below {', '.join(LIBRARIES)}: name its library with --module")


def _migrate(
    job: dict[str, Any],
    environment: dict[str, str],
    label: str,
    from_pin: Secret,
    pin: Secret,
    *,
    dry_run: bool,
    fill_in: Callable[[Source, bytes], None] | None = None,
) -> None:
    """`fill_in` gets the source with its PIN, and may add what the module does not tell."""
    from keyfob.cli import migration  # X.509 and the key formats: 60 ms

    with tokens.opened(label, pin, writing=True) as session:
        if not session.token.sees_private:
            raise Refusal(f"{label!r} is not open")
        with working("Reading"):
            given = from_pin.read().hex() if from_pin.given else None
            source = migration.read({**job, "pin": given}, environment)
        if source.needs_pin:
            from_pin.what = f"PIN of {source.label!r}"
            source = migration.read({**job, "pin": from_pin.read().hex()}, environment)
        if fill_in is not None and any(one.why for one in source.arrivals):
            fill_in(source, from_pin.read())
        with working("Checking"):
            migration.prepare(source, session)
            if not dry_run:
                migration.keep(source, session)
    _report(source, label, dry_run=dry_run, dropped=migration.dropped(source))


def _report(source: Source, label: str, *, dry_run: bool, dropped: str) -> None:
    rows = [_row(one, dry_run=dry_run) for one in source.arrivals]
    if rows:
        tables.show(("CLASS", "NAME", "ID", "RESULT"), sorted(rows))
    left = [one for one in source.arrivals if one.result == "could not be moved"]
    moved = sum(one.result == "moved" for one in source.arrivals)
    there = len(rows) - moved - len(left)
    verb = "Would move" if dry_run else "Moved"
    click.echo(
        tables.printable(
            f"{verb} {moved:,} object{'s' * (moved != 1)} from {source.label!r} to {label!r};"
            f" {there:,} {'was' if there == 1 else 'were'} there already."
        )
    )
    if dropped:
        click.echo(f"Attributes left behind, and of how many objects: {dropped}.")
    if left:
        raise Refusal(f"{len(left):,} object{'s' * (len(left) != 1)} could not be moved")


def _row(one: Arrival, *, dry_run: bool) -> tuple[str, str, str, str]:
    result = "would be moved" if dry_run and one.result == "moved" else one.result
    return (
        class_name(one.object_class),
        one.given.get(CKA.LABEL, b"").decode(errors="replace").rstrip("\0"),
        one.given.get(CKA.ID, b"").hex(),
        f"{result}: {one.reason}" if one.reason else result,
    )
