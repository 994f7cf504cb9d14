"""`keyfob install` and `keyfob uninstall`: register the module where other programs look for theirs."""

from __future__ import annotations

import click

from keyfob.cli import nss_database
from keyfob.cli.module import library_path

EPILOG = """\b
Examples:
  keyfob install nss ~/.mozilla/firefox/abcd1234.default-release
  keyfob install nss ~/.pki/nssdb --create       Chromium
  keyfob uninstall nss ~/.pki/nssdb

Firefox shows its profile folder under about:support. Close it first."""


@click.group()
def install() -> None:
    """Register the module with other programs."""


@install.command(name="nss", epilog=EPILOG)
@click.argument("directory", metavar="DIR")
@click.option("--create", is_flag=True, help="Make the database, with an empty password, where DIR has none.")
def install_nss(directory: str, create: bool) -> None:
    """Register the module in the NSS database of DIR: of Firefox, Thunderbird, Chromium or any program on NSS."""
    database = nss_database.Database(directory)
    path = library_path()
    database.require(create=create)
    known = database.registrations()
    same = [name for name, library in known.items() if library == str(path)]
    if same:
        click.echo(f"{database.folder} has the module already, as {same[0]!r}.")
        return
    database.refuse_while_in_use()
    if nss_database.NAME in known:  # an older build, somewhere else
        database.remove()
    database.add(path)
    click.echo(f"Registered {path} in {database.folder} as {nss_database.NAME!r}.")


@click.group()
def uninstall() -> None:
    """Undo `keyfob install`."""


@uninstall.command(name="nss")
@click.argument("directory", metavar="DIR")
def uninstall_nss(directory: str) -> None:
    """Take the module out of the NSS database of DIR. Tokens and keys stay."""
    database = nss_database.Database(directory)
    database.require(create=False)
    if nss_database.NAME not in database.registrations():
        click.echo(f"{database.folder} does not have the module: there is nothing to undo.")
        return
    database.refuse_while_in_use()
    database.remove()
    click.echo(f"Took {nss_database.NAME!r} out of {database.folder}.")
