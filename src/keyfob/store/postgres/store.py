"""A token in PostgreSQL that lives through restarts of the server: its calls are made again (again.py)."""

from __future__ import annotations

from keyfob.store.postgres.again import Again
from keyfob.store.sealed import SealedStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from keyfob.store.info import TokenInfo
    from keyfob.store.postgres.database import PostgresDatabase


class PostgresStore(SealedStore):
    """See the Store protocol. Made by server.py."""

    __slots__ = ("_again",)

    def __init__(self, database: PostgresDatabase, log: Callable[[str], None], witness: str | None = None) -> None:
        super().__init__(database, log, witness)
        self._again = Again(database.patience)

    @property
    def unlocked(self) -> bool:
        return bool(self.patiently(lambda: SealedStore.unlocked.fget(self)))  # type: ignore[attr-defined]

    def info(self) -> TokenInfo:
        found: TokenInfo = self.patiently(super().info)
        return found

    def patiently(self, call: Callable[[], Any]) -> Any:
        """Make a call of the store, again while its connection is lost."""
        return self._again(call, self._vault.mention)


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
    "remarks",
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
