"""Making a call again while its connection is lost.

What was lost did not happen (database.py), so the call is made from its beginning, on a new connection. That goes on
for some seconds; after a server stayed away so long each call tries just once for a while, so that a program with many
calls is slowed once.
"""

from __future__ import annotations

import time

from keyfob.aside import ASIDE
from keyfob.store.postgres.connection import LostConnectionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Answer = TypeVar("Answer")

PAUSE, LONGEST_PAUSE = 0.1, 1.0  # seconds between attempts
AGAIN_AFTER = 5.0  # seconds without patience, once it was in vain


class Again:
    """`again(call, tell)`: what `call` answers, LostConnectionError after `patience` seconds in vain.

    `tell` gets a line for each attempt that was lost.
    """

    __slots__ = ("_gave_up", "_patience")

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._gave_up = -AGAIN_AFTER

    def __call__(self, call: Callable[[], Answer], tell: Callable[[str], None]) -> Answer:
        began, pause = time.monotonic(), 0.0
        give_up = began if began < self._gave_up + AGAIN_AFTER else began + self._patience
        while True:
            try:
                return call()
            except LostConnectionError as problem:
                now = time.monotonic()
                if now >= give_up:
                    self._gave_up = now
                    raise
                tell(f"{problem.reason}: trying again")
            with ASIDE:
                time.sleep(min(pause, give_up - now))
            pause = min(max(2 * pause, PAUSE), LONGEST_PAUSE)
