"""Secrets from a file, the command line or the terminal; never shown, asked for once."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import click

from keyfob.cli.errors import Refusal

Decorated = Callable[..., Any]
LONGEST_LINE = 4096


class Secret:
    """Where a PIN or passphrase comes from. `what` names it for people, `option` on the command line."""

    __slots__ = ("_file", "_read", "_value", "option", "what")

    def __init__(self, what: str, option: str, value: str | None, file: str | None) -> None:
        if value is not None and file is not None:
            raise click.UsageError(f"give {option} or {option}-file, not both")
        self.what = what
        self.option = option
        self._value = value
        self._file = file
        self._read: bytes | None = None

    @property
    def given(self) -> bool:
        """Whether it was given without asking."""
        return self._value is not None or self._file is not None

    def read(self, *, new: bool = False) -> bytes:
        """The secret as UTF-8; asked for on a terminal where it was not given, twice when it is a `new` one."""
        if self._read is None:
            self._read = self._obtain(new=new)
        return self._read

    def _obtain(self, *, new: bool) -> bytes:
        if self._value is not None:
            return self._value.encode()
        if self._file is not None:
            return first_line(self._file, self.what)
        if not on_terminal():
            raise Refusal(
                f"no {self.what} was given and there is no terminal to ask on: use {self.option}-file FILE"
                f" or {self.option}"
            )
        text: str = click.prompt(
            self.what[0].upper() + self.what[1:], hide_input=True, confirmation_prompt=new, err=True
        )
        return text.encode()


def on_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin is not None and sys.stdin.isatty()


def first_line(path: str, what: str) -> bytes:
    """The first line of a file (`-`: standard input), without its line end."""
    with click.open_file(path, "rb") as file:
        line: bytes = file.readline(LONGEST_LINE)
    line = line.removesuffix(b"\n").removesuffix(b"\r")
    if not line:
        raise Refusal(f"the first line of {path} should be the {what}, and it is empty")
    return line


def secret_option(name: str, what: str) -> Callable[[Decorated], Decorated]:
    """`--NAME` and `--NAME-file` for one secret; the command gets them as one Secret in the argument `name`."""
    key = name.replace("-", "_")

    def decorate(function: Decorated) -> Decorated:
        @functools.wraps(function)
        def with_secret(*args: Any, **kwargs: Any) -> Any:
            kwargs[key] = Secret(what, f"--{name}", kwargs.pop(key), kwargs.pop(f"{key}_file"))
            return function(*args, **kwargs)

        with_file = click.option(
            f"--{name}-file",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False, allow_dash=True),
            help=f"Read the {what} from the first line of FILE (-: standard input).",
        )(with_secret)
        return click.option(
            f"--{name}", metavar="TEXT", help=f"The {what}. Others see it in the list of processes: prefer the file."
        )(with_file)

    return decorate


pin_option = secret_option("pin", "user PIN")
