"""A new master key: the facts of a token that gets one, and the objects that it must vouch for from then on."""

from __future__ import annotations

from keyfob.store import meta, pepper, rows
from keyfob.store.counters import ROLES
from keyfob.store.meta import GUARDED, NUMBER, ROSTER, TOTAL, WRAPPING_OF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.store.hardening import Hardening
    from keyfob.store.meta import Meta
    from keyfob.store.pepper import Pepper
    from keyfob.store.protocol import Database
    from keyfob.store.roster import Roster
    from keyfob.store.seal import Keys

EMPTY_ROSTER = bytes(TOTAL)  # the sum of none


def fresh_facts(keys: Keys, epoch: int, label: bytes, adopted: int) -> dict[str, bytes]:
    """The facts of a token that has just been initialised, as far as they do not depend on the case."""
    return {
        "adopted": NUMBER.pack(adopted),
        "epoch": NUMBER.pack(epoch),
        "file_wrapping": b"",
        "key_file": b"",
        "key_id": meta.key_id(keys),
        "label": label,
        "settings": meta.encode_settings({}),
        "so_key": b"",
        "so_wrapping": b"",
        "user_wrapping": b"",
    }


def so_facts(keys: Keys, pin: bytes, hardening: Hardening, used: Pepper | None = None) -> dict[str, bytes]:
    """The SO's way into a token without user PIN; takes as long as a PIN does.

    Under the empty SO PIN the master key is open to every reader of the file, so nothing is ever sealed to that one.
    """
    from keyfob.store import handover, seal

    wrapping = seal.wrap(keys.master, "so", pin, hardening, used)
    return {WRAPPING_OF["so"]: wrapping, "so_key": handover.public_key(keys.master) if pin else b""}


def start_anew(database: Database, facts: Meta, keys: Keys, label: bytes) -> tuple[bytes, dict[str, bytes]]:
    """C_InitToken on a token, within the caller's transaction: the roster's sum, and the facts but for the SO's."""
    for table in ("object", "lookup", "unindexed", "roster", "pending", "notice"):
        database.run(f"DELETE FROM {table}")  # noqa: S608 - our own names
    for role in ROLES:
        facts.counters.succeed(role)
    kept = ("created", "hardening", "kind", "max_failures", "serial")
    fresh = fresh_facts(keys, facts.number("epoch") + 1, label, facts.counters.version)
    fresh["settings"] = meta.encode_settings(pepper.kept(facts.settings))
    to_be_deleted = {"key_file": facts.value("key_file")}
    return EMPTY_ROSTER, {name: facts.value(name) for name in kept} | fresh | to_be_deleted


def replace_key(
    database: Database, facts: Meta, old: Keys | None, new: Keys, tell: Callable[[str], None], roster: Roster
) -> tuple[bytes, dict[str, bytes]]:
    """The first real PIN, within the caller's transaction: the roster's sum, and the facts to write.

    `old`: of a token under the empty SO PIN; None beside an SO PIN that was not given.
    """
    if old is not None:
        values = _replace_open_key(database, facts, old, new)
    else:
        values = _replace_unknown_key(database, facts, new, tell)
    return roster.build(new), values


def _replace_open_key(database: Database, facts: Meta, old: Keys, new: Keys) -> dict[str, bytes]:
    """The old master key was open to every reader of the file; nothing opens to the empty PIN any more."""
    rows.seal_anew(database, old, new, facts.adopted)
    return _kept(facts) | {"key_id": meta.key_id(new), WRAPPING_OF["so"]: b""}


def _replace_unknown_key(database: Database, facts: Meta, new: Keys, tell: Callable[[str], None]) -> dict[str, bytes]:
    """What handover.py is for; there are no private objects yet.

    Whether the SO wrote the public ones cannot be checked without the old master key, so all of them count as written
    without login: they are adopted, but for what they claim about themselves (rows.CLAIMS) and for trust objects, which
    nobody vouches for.
    """
    from keyfob.store import adoption, handover

    database.run("UPDATE object SET mac = NULL WHERE mac IS NOT NULL")
    adoption.adopt(database, new, facts, tell, None)
    sealed = handover.seal(bytes(new.master), facts.first_pin_key)
    return _kept(facts) | {
        "adopted": NUMBER.pack(facts.counters.version),
        "key_id": meta.key_id(new),
        WRAPPING_OF["so"]: facts.value(WRAPPING_OF["so"]) + sealed,
    }


def _kept(facts: Meta) -> dict[str, bytes]:
    """The facts that a new master key must vouch for, too."""
    return {name: facts.value(name) for name in GUARDED if name != ROSTER}
