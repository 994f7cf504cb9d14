"""The key of a token without PIN: 32 random bytes in a file of its own, 0600, that open the token instead."""

from __future__ import annotations

import os

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import publish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

SIZE = 32


def obtain(path: Path) -> bytes:
    """The key in this file, made anew if there is none; a file that is there is never overwritten."""
    if not path.exists():
        try:
            publish.publish(os.urandom(SIZE), path)
        except FileExistsError:
            return read(path)  # another process was faster
        except OSError as problem:
            raise publish.answer(problem, path) from None
    return read(path)


def read(path: Path) -> bytes:
    """CKR_DEVICE_ERROR when there is no readable key of the right length."""
    try:
        with path.open("rb") as file:
            key = file.read(SIZE + 1)
    except OSError as problem:
        raise PKCS11Error(CKR.DEVICE_ERROR, f"the key file {path} cannot be read: {problem.strerror}") from None
    if len(key) != SIZE:
        raise PKCS11Error(CKR.DEVICE_ERROR, f"the key file {path} does not hold {SIZE} bytes")
    return key


def resolve(written: str, token: Path) -> Path:
    """From what the token says to a path: a bare name counts from the token's folder."""
    return token.absolute().parent / written


def name_for(path: Path, token: Path) -> str:
    """What the token shall say: a bare name if both are in one folder, so that the folder can move."""
    absolute = path.absolute()
    return absolute.name if absolute.parent == token.absolute().parent else str(absolute)
