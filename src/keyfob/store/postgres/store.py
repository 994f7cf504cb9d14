"""A token in PostgreSQL that lives through restarts of the server.

A call that loses its connection is made again, from the beginning, on a new one: what was lost did not happen
(database.py). That goes on for `patience` seconds; after a server stayed away so long each call tries just once for a
while, so that a program with many calls is slowed once.
"""

from __future__ import annotations

import time

from keyfob.aside import ASIDE
from keyfob.store.postgres.connection import LostConnectionError
from keyfob.store.postgres.database import PAUSE, PostgresDatabase
from keyfob.store.sealed import SealedStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from keyfob.store.info import TokenInfo

LONGEST_PAUSE = 1.0  # seconds
AGAIN_AFTER = 5.0  # seconds without patience, once it was in vain


class PostgresStore(SealedStore):
    """See the Store protocol. Made by server.py."""

    __slots__ = ("_gave_up", "_remote")

    def __init__(self, database: PostgresDatabase, log: Callable[[str], None], witness: str | None = None) -> None:
        super().__init__(database, log, witness)
        self._remote = database
        self._gave_up = -AGAIN_AFTER

    @property
    def unlocked(self) -> bool:
        return bool(self.patiently(lambda: SealedStore.unlocked.fget(self)))  # type: ignore[attr-defined]

    def info(self) -> TokenInfo:
        found: TokenInfo = self.patiently(super().info)
        return found

    def patiently(self, call: Callable[[], Any]) -> Any:
        """Make a call of the store, again while its connection is lost."""
        began, pause = time.monotonic(), 0.0
        give_up = began if began < self._gave_up + AGAIN_AFTER else began + self._remote.patience
        while True:
            try:
                return call()
            except LostConnectionError as problem:
                now = time.monotonic()
                self._vault.tell(f"{problem.reason}: trying again")
                if now >= give_up:
                    self._gave_up = now
                    raise
            with ASIDE:
                time.sleep(min(pause, give_up - now))
            pause = min(max(2 * pause, PAUSE), LONGEST_PAUSE)


def _patient(name: str) -> Callable[..., Any]:
    method = getattr(SealedStore, name)

    def call(self: PostgresStore, *values: Any, **named: Any) -> Any:
        return self.patiently(lambda: method(self, *values, **named))

    call.__name__, call.__doc__ = name, method.__doc__
    return call


# Each is one transaction, or can be made twice without harm: what is done already is done again.
for _name in (
    "accept",
    "change_counter",
    "delete",
    "exists",
    "find",
    "find_some",
    "fingerprint",
    "get",
    "hardening",
    "insert",
    "login",
    "pepper_state",
    "pin_generation",
    "pin_mark",
    "raise_hardening",
    "reset",
    "set_label",
    "set_pepper",
    "set_pin",
    "set_setting",
    "unlock_with_key_file",
    "update",
    "verify",
    "verify_pin",
):
    setattr(PostgresStore, _name, _patient(_name))
