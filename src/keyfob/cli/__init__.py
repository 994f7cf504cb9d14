"""The command-line tool `keyfob`: one file per noun, each loaded when its command is used.

It works in this process, through functions/ and token/, and has no more rights than any other program with the PIN.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import click

from keyfob import __version__
from keyfob.cli.errors import Refusal, explained, unexpected
from keyfob.spec.errors import PKCS11Error

if TYPE_CHECKING:
    from collections.abc import Sequence

# Command: the file under cli/ that holds it, and its function there.
COMMANDS = {
    "init": ("init", "init"),
    "list": ("listing", "list_"),
    "key": ("key", "key"),
    "cert": ("cert", "cert"),
    "import": ("transfer", "import_"),
    "export": ("transfer", "export"),
    "backup": ("backup", "backup"),
    "restore": ("restore", "restore"),
    "migrate": ("migrate", "migrate"),
    "store": ("store", "store"),
    "pin": ("pin", "pin"),
    "delete": ("delete", "delete"),
    "verify": ("verify", "verify"),
    "eject": ("eject", "eject"),
    "insert": ("eject", "insert"),
    "install": ("install", "install"),
    "uninstall": ("install", "uninstall"),
    "status": ("status", "status"),
    "doctor": ("doctor", "doctor"),
    "check": ("check", "check"),
    "trace": ("trace", "trace"),
    "audit": ("audit", "audit"),
    "module-path": ("module", "module_path"),
}

EPILOG = """\b
A first token, with a key, for Firefox or any other program on NSS:
  keyfob init work
  keyfob key generate work --type ec:p256 --name me
  keyfob install firefox
  keyfob doctor

Tokens are kept below ~/.local/share/keyfob, or below $KEYFOB_HOME where that is set. PINs are asked for on the
terminal; scripts give them with --pin-file."""


class Commands(click.Group):
    """A group that imports a command's file when the command is used, and puts errors in plain words."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        found: click.Command = getattr(importlib.import_module(f"keyfob.cli.{place[0]}"), place[1])
        return found

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except PKCS11Error as problem:
            raise Refusal(explained(problem)) from None
        except OSError as problem:
            raise Refusal(
                f"{problem.filename or 'the system'}: {problem.strerror or 'input or output failed'}"
            ) from None
        except Exception as problem:
            # A fault of keyfob itself. Its text may hold anything, so only its kind and place are shown.
            raise Refusal(unexpected(problem)) from None


@click.command(
    cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, message="keyfob %(version)s")
def keyfob() -> None:
    """Make and look after keyfob's tokens: PKCS #11 keys for Firefox, Thunderbird and every other program on NSS."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: exit code 0, 1 with a sentence on standard error, or 2 for wrong usage."""
    keyfob.main(args=list(arguments) if arguments is not None else sys.argv[1:], prog_name="keyfob")
