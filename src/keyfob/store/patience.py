"""Waiting for a lock that another process has: as long as others get on, however many they are.

SQLite's own waiting has one limit for all of it, which hundreds of processes that start at once exceed without anything
being wrong. Every commit changes the header of the WAL index (watch.py). So where that stays the same for long whoever
has the lock was stopped, and the call fails; as long as it changes the turn comes.

The pauses differ, so that nobody is always second, and grow, so that those who wait do not take the processors from the
one who works.
"""

from __future__ import annotations

import os
import time

from keyfob.store.watch import Unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.store.watch import Watcher

LONGEST_WAIT = 20.0  # seconds in which no other process gets on
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.02  # seconds


class Patience:
    """A connection's busy handler. `watcher`: of the same database."""

    __slots__ = ("_header", "_since", "watcher")

    def __init__(self) -> None:
        self.watcher: Watcher = Unknown()
        self._header: bytes | None = None
        self._since = 0.0

    def __call__(self, looks: int) -> bool:
        """Whether to look again, after a pause; `looks` so far for this lock."""
        now, header = time.monotonic(), self.watcher.read()
        if looks == 0 or header != self._header:
            self._header, self._since = header, now
        elif now - self._since > LONGEST_WAIT:
            return False
        time.sleep(min(SHORTEST_PAUSE * (looks + 1), LONGEST_PAUSE) * (0.5 + os.urandom(1)[0] / 255))
        return True
