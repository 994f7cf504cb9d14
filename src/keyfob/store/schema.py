"""The tables of a token, and the way from each schema to the next.

    meta     one row per fact about the token, by name (meta.py)
    object   one row per object. id: never used again. version: the token's counter of writes when the row was written.
             private: 1 where the record is sealed. checksum: of all that, against accidents. mac: the same under a key
             that only the PIN opens, against attackers; NULL where the row was written without login (public objects)
    lookup   from the digest of an attribute to the objects that have it. class: a mark that tells classes apart
    unindexed  objects whose look-ups an older schema wrote, without what is indexed now; sealed ones, so the next login
             that can read them adds it (rows.py) and empties the table

    roster   which version of each object was written last, see roster.py
    pending  objects that were changed or removed without a login, as the last login had left them (adoption.py)
    notice   what `keyfob verify` tells of later (notices.py)

    Schema 2: CKA_ALWAYS_AUTHENTICATE is indexed; the table unindexed.
    Schema 3: the row so_key of the meta table, empty and without a MAC until the SO's next login fills it.
    Schema 4: the tables roster and removed; the row roster of the meta table, empty and without a MAC until a login.
    Schema 5: pending in place of removed, which had the numbers alone; notice; the next login adds a state to the row
              roster, and what its sum is made of is secret from then on.

A new schema appends to MIGRATIONS the statements that lead there from the one before; each step and its new number are
one transaction, so an interrupted migration is no migration. A store of a newer schema than ours is refused untouched.
"""

from __future__ import annotations

from keyfob.store.integrity import META_CHECKSUM, NUMBERS, tag_of_meta

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.store.protocol import Database

APPLICATION_ID = 0x6B657966  # "keyf"; `file` and SQLite's own tools show it
VERSION = 5
MOST_MESSAGES = 20  # of SQLite's, about damaged pages

# Word for word what SQLite keeps of them: `differences` compares.
META = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL, checksum BLOB NOT NULL, mac BLOB) STRICT, WITHOUT ROWID
""".strip()
OBJECT = """
CREATE TABLE object (id INTEGER PRIMARY KEY AUTOINCREMENT, version INTEGER NOT NULL, private INTEGER NOT NULL,
                     record BLOB NOT NULL, checksum BLOB NOT NULL, mac BLOB) STRICT
""".strip()
WITHOUT_MAC = "CREATE INDEX object_without_mac ON object (version) WHERE mac IS NULL"
LOOKUP = """
CREATE TABLE lookup (digest BLOB NOT NULL, object INTEGER NOT NULL, class BLOB NOT NULL,
                     PRIMARY KEY (digest, object)) STRICT, WITHOUT ROWID
""".strip()
UNINDEXED = "CREATE TABLE unindexed (object INTEGER PRIMARY KEY) STRICT"
ROSTER = "CREATE TABLE roster (block INTEGER PRIMARY KEY, versions BLOB NOT NULL, tag BLOB NOT NULL) STRICT"
REMOVED = "CREATE TABLE removed (object INTEGER PRIMARY KEY) STRICT"  # of schema 4
PENDING = """
CREATE TABLE pending (object INTEGER PRIMARY KEY, version INTEGER, private INTEGER, record BLOB, checksum BLOB,
                      mac BLOB) STRICT
""".strip()
NOTICE = "CREATE TABLE notice (number INTEGER PRIMARY KEY, content BLOB NOT NULL, mac BLOB NOT NULL) STRICT"
TABLES = (META, OBJECT, WITHOUT_MAC, LOOKUP, UNINDEXED, ROSTER, PENDING, NOTICE)
# What schema 4 had in `removed` becomes rows that have a number alone.
FROM_REMOVED = ("INSERT INTO pending (object) SELECT object FROM removed", "DROP TABLE removed")


def _add_fact(name: str) -> str:
    """A row of the meta table that is empty and has no MAC."""
    checksum = tag_of_meta(META_CHECKSUM, name, b"").hex()
    return f"INSERT OR IGNORE INTO meta VALUES ('{name}', x'', x'{checksum}', NULL)"  # noqa: S608 - constants


# MIGRATIONS[n - 1]: the statements that make schema n + 1 of schema n.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (UNINDEXED, "INSERT INTO unindexed SELECT id FROM object WHERE private = 1"),
    (_add_fact("so_key"),),
    (ROSTER, REMOVED, _add_fact("roster")),
    (PENDING, NOTICE, *FROM_REMOVED),
)


def create_tables(database: Database) -> None:
    """Make an empty token in an empty database, within the caller's transaction."""
    for statement in TABLES:
        database.run(statement)
    database.run(f"PRAGMA application_id = {APPLICATION_ID}")
    database.run(f"PRAGMA user_version = {VERSION}")


def migrate(database: Database, found: int) -> None:
    """Take an older schema to ours, step by step."""
    for step in range(found, VERSION):
        with database.writing():
            if database.number("PRAGMA user_version") != step:
                continue  # another process was faster
            for statement in MIGRATIONS[step - 1]:
                database.run(statement)
            database.run(f"PRAGMA user_version = {step + 1}")


def differences(database: Database) -> list[str]:
    """Where the file's schema is not ours: a damaged definition, something slipped in."""
    statement = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
    found = {str(sql) for (sql,) in database.rows(statement)}
    missing = [f"schema: missing: {sql}" for sql in TABLES if sql not in found]
    return missing + [f"schema: not ours: {sql}" for sql in sorted(found - set(TABLES))]


def integrity(database: Database) -> list[str]:
    """What SQLite says of the file."""
    lines = [str(line) for (line,) in database.rows(f"PRAGMA integrity_check({MOST_MESSAGES})")]
    return [f"file: {line}" for line in lines if line != "ok"]


def numbering(database: Database) -> list[str]:
    """Whether numbers of objects could be used twice, or are none that an object can have."""
    last = database.number("SELECT seq FROM sqlite_sequence WHERE name = 'object'")
    highest = database.number("SELECT max(id) FROM object")
    found = [f"sqlite_sequence: {last} is below the object {highest}"] if last < highest else []
    return [*found, *beyond(max(last, highest))]


def beyond(number: int) -> list[str]:
    return [f"objects: {number} is no number of an object: nothing can be added"] if number >= NUMBERS - 1 else []
