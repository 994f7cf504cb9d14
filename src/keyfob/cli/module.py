"""`keyfob module-path`: where the module is that other programs load."""

from __future__ import annotations

from pathlib import Path

import click

import keyfob
from keyfob.cli.errors import Refusal

LIBRARY = "libkeyfob.so"


def library_path() -> Path:
    """The absolute path of libkeyfob.so, beside the package."""
    path = Path(keyfob.__file__).resolve().parent / LIBRARY
    if not path.is_file():
        raise Refusal(f"{path} is not there: keyfob was not built here (run `make build`, or `pip install .`)")
    return path


@click.command(name="module-path", epilog="\b\nExample:\n  pkcs11-tool --module $(keyfob module-path) --list-slots")
def module_path() -> None:
    """Print the path of the PKCS #11 module, for any program that asks for one."""
    click.echo(library_path())
