"""Errors in plain words: what is wrong, and what to do."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import IO, Any

import click

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error, name_of

# What a person can do about a code, where the code alone tells.
SENTENCES = {
    CKR.PIN_LOCKED: "the PIN is locked after too many wrong ones",
    CKR.USER_NOT_LOGGED_IN: "this needs the user PIN: give --pin-file FILE or --pin PIN",
    CKR.TOKEN_WRITE_PROTECTED: "the token can only be read: its file or the file's folder is write-protected",
    CKR.MECHANISM_INVALID: "a token of this kind does not offer that",
    CKR.DEVICE_MEMORY: "there is no room left on the disk; nothing was changed",
    CKR.KEY_UNEXTRACTABLE: "the key was made to stay on the token",
}


class Refusal(click.ClickException):
    """The command cannot do what was asked; the message says why and what to do. Exit code 1."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"keyfob: {self.format_message()}", file=file, err=file is None)


def explained(problem: PKCS11Error) -> str:
    """A sentence for an error of the token; reasons never hold secrets (spec/errors.py)."""
    sentence = SENTENCES.get(problem.rv)
    if sentence is None:
        return f"{problem.reason} ({name_of('CKR', problem.rv)})" if problem.reason else name_of("CKR", problem.rv)
    return f"{sentence} ({problem.reason})" if problem.reason else sentence


def unexpected(problem: BaseException) -> str:
    """Where a fault of keyfob itself came from, without its text, which could hold anything."""
    frames = traceback.extract_tb(problem.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
    return f"this is a fault of keyfob itself: {type(problem).__name__} at {place}; please report it"
