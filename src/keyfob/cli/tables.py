"""Tables for people: a drawn one on a terminal, plain columns elsewhere, so that scripts and pipes get whole lines."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence


def printable(text: str) -> str:
    """Labels come from any program: what could steer a terminal is shown as `?`."""
    return "".join(character if character.isprintable() else "?" for character in text)


def show(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below their heads."""
    clean = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(heads, clean)
        return
    widths = [max(len(row[i]) for row in (heads, *clean)) for i in range(len(heads))]
    for row in (heads, *clean):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _draw(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box  # 100 ms of imports that only a terminal needs
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def show_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
