"""Room that a full disk still has for a login and a destruction: a file of 256 KiB that is given up for them.

A login is counted, and a destruction is a write: on a disk without room neither could be, and a token that had filled
its own disk would be closed for good. So where tokens are used there is a file whose only content is its room: one for
all tokens of a machine, in the folder of the witnesses, if that is on their file system, or else beside them. A call
that may use it is made again once the file is gone. After that the write-ahead log is emptied, and the file is made
again in the room that this has freed.
"""

from __future__ import annotations

import os

from keyfob import files
from keyfob.settled import SETTLED
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from keyfob.store.protocol import Database

    Answer = TypeVar("Answer")

SIZE = 256 * 1024  # 32 KiB for the index of the write-ahead log, and some fifty pages in that
NAME, BESIDE = ".room", ".keyfob-room"


class Reserve:
    """Of the file system that a token is on. `witness`: the folder of the witnesses; None: nothing is reserved."""

    __slots__ = ("_path",)

    def __init__(self, token: str, witness: str | None) -> None:
        self._path = "" if witness is None else _place(token, witness)

    def keep(self) -> None:
        """Make the file where it is missing and there is room; best effort."""
        if not self._path:
            return
        try:
            if os.stat(self._path).st_size >= SIZE:
                return
        except OSError:  # it is not there
            self._make()
            return
        self.release()  # whoever made it was killed
        self._make()

    def _make(self) -> None:
        try:
            descriptor = files.keep(self._path)
        except OSError:  # a folder that cannot be written, or is not believed
            return
        try:
            files.reserve(descriptor, SIZE)
        except OSError:
            self.release()
        finally:
            os.close(descriptor)

    def release(self) -> bool:
        """Give up the room; whether there was any."""
        if not self._path:
            return False
        try:
            os.unlink(self._path)
        except OSError:
            return False
        return True


def _place(token: str, witness: str) -> str:
    folder, above = os.path.dirname(os.path.abspath(token)), os.path.abspath(witness)
    while not os.path.exists(above):  # there are no witnesses yet
        above = os.path.dirname(above)
    try:
        is_beside = os.stat(above).st_dev != os.stat(folder).st_dev
    except OSError:
        is_beside = False
    return os.path.join(folder, BESIDE) if is_beside else os.path.join(witness, NAME)


def using(database: Database, call: Callable[[], Answer]) -> Answer:
    """Make a call that changes the token, once more in the reserved room where there was none.

    It is one transaction, so that nothing has happened where it fails.
    """
    try:
        return call()
    except PKCS11Error as problem:
        if problem.rv != CKR.DEVICE_MEMORY or not database.give_way():
            raise
    try:
        return call()
    finally:
        with SETTLED:
            database.checkpoint()
            database.keep_room()
