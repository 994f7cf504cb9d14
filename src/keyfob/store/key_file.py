"""The key of a token without PIN: 32 random bytes in a file of its own, 0600, that open the token instead.

The file lies beside the token's and is called like it, `slot-N.key`. What the token itself says (the row `key_file`) is
only whether there is one to delete: whoever can write a token's file could make it name any path.

With the first PIN the token stops opening to the key (vault.py), and the file goes.
"""

from __future__ import annotations

import os

from keyfob import files
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import publish, secret_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.store.meta import Meta
    from keyfob.store.protocol import Database

SIZE = 32
SUFFIX = ".key"


def obtain(path: str) -> bytes:
    """The key in this file, made anew if there is none; a file that is there is never overwritten."""
    if not os.path.lexists(path):
        try:
            publish.publish(os.urandom(SIZE), path)
        except FileExistsError:
            return read(path)  # another process was faster
        except OSError as problem:
            raise publish.answer(problem, path) from None
    return read(path)


def unlocking(token: str, tell: Callable[[str], None]) -> bytes:
    """The key of this token, whose file is closed to others if it is not."""
    path = beside(token)
    files.close_to_others(path, tell)
    return read(path)


def read(path: str) -> bytes:
    """CKR_DEVICE_ERROR when there is no readable key of the right length."""
    try:
        key = secret_file.read_own(path, SIZE)
    except PKCS11Error as problem:
        raise PKCS11Error(problem.rv, f"the key file {problem.reason}") from None
    if len(key) != SIZE:
        raise PKCS11Error(CKR.DEVICE_ERROR, f"the key file {path} does not hold {SIZE} bytes")
    return key


def beside(token: str) -> str:
    """The file that belongs to this token and to no other."""
    return os.path.splitext(os.path.abspath(token))[0] + SUFFIX


def name_beside(token: str) -> str:
    """What the token says: that there is such a file. Older versions take it for the file's name."""
    return os.path.basename(beside(token))


def drop(database: Database, facts: Meta, forget: Callable[[], None]) -> None:
    """Delete the key file that no longer opens the token, if that has not been done, and `forget` it; OSError."""
    if not facts.is_known_empty("file_wrapping") or facts.is_known_empty("key_file"):
        return
    remove(database.path)
    forget()


def remove(token: str) -> None:
    """Delete the token's key file for good, if it is still there; OSError."""
    path = beside(token)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    publish.sync_folder(os.path.dirname(path))
