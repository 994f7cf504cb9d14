"""What a fork does to open stores.

A child inherits what SQLite believes about the locks of its process, and none of those locks. Had it the parent's
connection still open, a new connection to the same file would take the locks for granted: the parent's last close would
delete the write-ahead log that the child goes on writing to, and what was being written by another thread at the moment
of the fork would be under way in the child for ever (sqlite.org/howtocorrupt.html, 2.6).

So a fork waits until no other thread is inside SQLite, and the child closes what it has inherited before it does
anything else. Closing a connection that is idle touches no file: it does not checkpoint (connecting.py, `configure`),
and giving back locks that the child does not have takes none from the parent.
"""

from __future__ import annotations

import os
from _thread import RLock
from _weakref import ref

from keyfob.store import watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.store.sealed import SealedStore

LIMIT = 30.0  # seconds to wait for other threads; longer than a lock is waited for while nobody gets on (patience.py)

# Held while a database is opened or made, when no store has it yet. Forks take it first, and so take turns.
opening = RLock()
_stores: set[ref[SealedStore]] = set()


def remember(store: SealedStore) -> None:
    """See to this store at a fork, as long as it exists."""
    _stores.add(ref(store, _stores.discard))


def _remembered() -> list[SealedStore]:
    return [store for reference in list(_stores) if (store := reference()) is not None]


def _before() -> None:
    if opening.acquire(timeout=LIMIT):
        for store in _remembered():
            store.pause(LIMIT)


def _in_parent() -> None:
    for store in _remembered():
        store.resume()
    _reopen()


def _in_child() -> None:
    for store in _remembered():
        store.abandon()
    watch.forget_everything()
    _reopen()


def _reopen() -> None:
    global opening  # in a child another thread may have it, which is not there any more
    try:
        opening.release()
    except RuntimeError:  # it was not to be had in time
        opening = RLock()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
