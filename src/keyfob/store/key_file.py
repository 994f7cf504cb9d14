"""The key of a token without PIN: 32 random bytes in a file of its own, 0600, that open the token instead.

With the first PIN the token stops opening to the key (vault.py), and the file goes, if it is this token's alone.
"""

from __future__ import annotations

import os

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import meta, publish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.store.meta import Meta
    from keyfob.store.protocol import Database
    from keyfob.store.seal import Keys

SIZE = 32
SUFFIX = ".key"


def obtain(path: str) -> bytes:
    """The key in this file, made anew if there is none; a file that is there is never overwritten."""
    if not os.path.exists(path):
        try:
            publish.publish(os.urandom(SIZE), path)
        except FileExistsError:
            return read(path)  # another process was faster
        except OSError as problem:
            raise publish.answer(problem, path) from None
    return read(path)


def read(path: str) -> bytes:
    """CKR_DEVICE_ERROR when there is no readable key of the right length."""
    try:
        with open(path, "rb") as file:
            key = file.read(SIZE + 1)
    except OSError as problem:
        raise PKCS11Error(CKR.DEVICE_ERROR, f"the key file {path} cannot be read: {problem.strerror}") from None
    if len(key) != SIZE:
        raise PKCS11Error(CKR.DEVICE_ERROR, f"the key file {path} does not hold {SIZE} bytes")
    return key


def beside(token: str) -> str:
    """The file that belongs to this token and to no other."""
    return os.path.splitext(os.path.abspath(token))[0] + SUFFIX


def drop(database: Database, facts: Meta, keys: Keys, tell: Callable[[str], None]) -> None:
    """Delete the key file that no longer opens the token, if that has not been done, and forget its name; OSError."""
    if not facts.is_known_empty("file_wrapping") or facts.is_known_empty("key_file"):
        return
    written = facts.text("key_file")
    if not remove(written, database.path):
        tell(f"{written} no longer opens this token; other tokens may use it, so it is left alone")
    with database.writing():
        meta.write(database, {"key_file": b""}, keys)


def remove(written: str, token: str) -> bool:
    """Delete the token's own key file for good, if it is still there; OSError. False: another token may use it."""
    path = resolve(written, token)
    if path != beside(token):
        return False
    try:
        os.unlink(path)
    except FileNotFoundError:
        return True
    publish.sync_folder(os.path.dirname(path))
    return True


def resolve(written: str, token: str) -> str:
    """From what the token says to a path: a bare name counts from the token's folder."""
    return os.path.join(os.path.dirname(os.path.abspath(token)), written)


def name_for(path: str, token: str) -> str:
    """What the token shall say: a bare name if both are in one folder, so that the folder can move."""
    folder, name = os.path.split(os.path.abspath(path))
    return name if folder == os.path.dirname(os.path.abspath(token)) else os.path.join(folder, name)
