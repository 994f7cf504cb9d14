"""Everything about a token at once: each row, checksum, MAC, look-up and fact, and what the database says of itself."""

from __future__ import annotations

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import adoption, rows
from keyfob.store.roster import PER_BLOCK
from keyfob.store.rows import DamagedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.store.protocol import Database, Row
    from keyfob.store.roster import Roster
    from keyfob.store.seal import Keys
    from keyfob.store.vault import Vault


def problems(database: Database, vault: Vault, *, now: bool = False) -> list[str]:
    """What is wrong with the token, one line each, empty if nothing is. MACs and private objects after login only.

    `now`: what speaks against it at this moment, and not what notices tell of earlier ones.
    """

    def below(database: Database) -> list[str]:
        return database.problems()

    def facts(database: Database) -> list[str]:
        database.refresh()
        return [f"meta {name}: {reason}" for name, reason in sorted(vault.facts().problems.items())]

    def whole(_: Database) -> list[str]:
        return vault.doubts() if now else [*vault.doubts(), *vault.complaints_of_notices()]

    def objects(database: Database) -> list[str]:
        return _objects(database, vault)

    def roster(database: Database) -> list[str]:
        return _roster(database, vault)

    found: list[str] = []
    for check in (below, facts, whole, objects, roster):
        try:
            found += check(database)
        except PKCS11Error as problem:
            if problem.rv != CKR.DEVICE_ERROR:
                raise
            found.append(problem.reason)
    return list(dict.fromkeys(found))


def block_problems(database: Database, vault: Vault, block: int) -> list[str]:
    """After login: what is wrong with the objects of one block of the roster, so that a login need not look at all."""
    keys = vault.keys
    if keys is None or not vault.facts().has_roster:
        return []
    first = block * PER_BLOCK
    numbers = list(database.rows("SELECT id FROM object WHERE id >= ? AND id < ?", (first, first + PER_BLOCK)))
    found = _each_object(database, vault, [number for (number,) in numbers], {})
    return found + _missing(database, vault.roster, block, keys)


def _objects(database: Database, vault: Vault) -> list[str]:
    expected: dict[int, int | None] = {}  # object -> number of its look-up rows; None: not known
    numbers = [number for (number,) in database.rows("SELECT id FROM object ORDER BY id")]
    found = _each_object(database, vault, numbers, expected)
    for object_id, count in database.rows("SELECT object, count(*) FROM lookup GROUP BY object"):
        if object_id not in expected:
            found.append(f"lookup: {count} rows for the object {object_id}, which is not there")
        elif (known := expected[object_id]) is not None and count > known:
            found.append(f"object {object_id}: {count - known} look-up rows too many")
    return found


def _each_object(database: Database, vault: Vault, numbers: list[int], expected: dict[int, int | None]) -> list[str]:
    found: list[str] = []
    for object_id in numbers:
        expected[object_id] = None
        try:
            row = rows.select(database, object_id)
        except PKCS11Error as problem:
            found.append(f"object {object_id}: {problem.reason}")
            continue
        if row is not None:
            found += _object(database, row, vault, expected)
    return found


def _object(database: Database, row: Row, vault: Vault, expected: dict[int, int | None]) -> list[str]:
    object_id, version, private = row[:3]
    facts, keys = vault.facts(), vault.keys
    try:
        rows.check_sum(row)
        if private and keys is None:
            return []
        attributes = rows.read(row, keys, facts.adopted)
        if keys is not None and facts.has_roster:
            adoption.check(database, row, keys, facts.counters.version, vault.roster)
    except DamagedError as problem:
        return [f"object {object_id}: {problem}"]
    found = []
    if version > facts.counters.version:
        found.append(f"object {object_id}: its version {version} is above the token's counter")
    look_ups = rows.look_ups_of(attributes, keys)
    places = ", ".join("?" * len(look_ups))
    statement = f"SELECT digest, class FROM lookup WHERE object = ? AND digest IN ({places})"  # noqa: S608 - places only
    missing = len(look_ups.difference(database.rows(statement, (object_id, *(digest for digest, _ in look_ups)))))
    expected[object_id] = len(look_ups) - missing
    if missing:
        found.append(f"object {object_id}: {missing} look-up rows are missing, so that searches miss it")
    return found


def _roster(database: Database, vault: Vault) -> list[str]:
    facts, keys, roster = vault.facts(), vault.keys, vault.roster
    if keys is None or not facts.has_roster:
        return []
    found = [f"roster: block {number} does not fit its tag" for number in roster.damaged(keys)]
    if not vault.is_whole():
        found.append("roster: parts of it were removed or put back to older ones: it was tampered with")
    for block in roster.blocks():
        found += _missing(database, roster, block, keys)
    return found


def _missing(database: Database, roster: Roster, block: int, keys: Keys) -> list[str]:
    """Objects of a block that are gone, although nobody removed them who was allowed to."""
    found = []
    for object_id in roster.members(block, keys):
        gone = database.row("SELECT 1 FROM object WHERE id = ?", (object_id,)) is None
        if gone and not adoption.may_be_gone(database, object_id, keys, roster):
            found.append(f"object {object_id}: it is gone, and was not removed through a token: it was tampered with")
    return found
