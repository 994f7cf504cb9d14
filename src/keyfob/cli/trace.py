"""`keyfob trace`: what a program asks of its module."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from keyfob.cli import files
from keyfob.cli.errors import Refusal
from keyfob.cli.module import library_path

EPILOG = """\b
Examples:
  keyfob trace certutil -K -d sql:/home/me/.pki/nssdb
  keyfob trace --show pkcs11-tool --module "$(keyfob module-path)" -L
  keyfob trace --module /usr/lib/softhsm/libsofthsm2.so --output calls.jsonl -- p11tool --list-all

PINs, keys and plain texts are never written down: their lengths are."""


@click.command(
    epilog=EPILOG,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    "--module",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The module to watch; without it keyfob's own.",
)
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("keyfob-trace.jsonl"),
    show_default=True,
    help="Where the calls go, one JSON object to a line.",
)
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The calls as a page too, with a picture of them.",
)
@click.option("--show", is_flag=True, help="Show each call on standard error as well.")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] PROGRAM [ARGUMENT]...")
def trace(module: Path | None, output: Path, html: Path | None, show: bool, program: tuple[str, ...]) -> None:
    """Run a program and write down every call that it makes of a PKCS #11 module."""
    from keyfob import __version__
    from keyfob.nss.driver.record import call_text
    from keyfob.nss.report import trace_page
    from keyfob.nss.tracer import run

    watched = (module or library_path()).resolve()
    seen = 0
    kept: list[dict[str, Any]] = []
    with os.fdopen(files.opened(str(output)), "w", encoding="utf-8") as file:

        def take(call: dict[str, Any]) -> None:
            nonlocal seen
            seen += 1
            file.write(json.dumps(call) + "\n")
            if html:
                kept.append(call)
            if show:
                click.echo(call_text(call["function"], call["arguments"], call["rv"]), err=True)

        try:
            code = run.run(program, watched, take)
        except OSError as problem:
            raise Refusal(f"{program[0]}: {problem.strerror}") from None
    if html:
        page = trace_page.render(kept, program=program, module=str(watched), made_by=f"keyfob {__version__}")
        files.write(str(html), page.encode(), mode=files.SECRET, force=True)
    if seen:
        click.echo(f"{seen} calls of {watched.name} in {output}", err=True)
    else:
        click.echo(
            f"The program made no call of {watched}. Is that the module which it loads (--module)?"
            " Programs that are statically linked or run with other rights cannot be watched.",
            err=True,
        )
    sys.exit(code)
