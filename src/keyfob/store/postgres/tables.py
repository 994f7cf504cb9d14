"""The tables of a token in PostgreSQL, and the way from each schema to the next.

The same as a file's (schema.py says what they hold), and two more:

    state    one row, which each transaction that writes locks first. version: of these tables, numbered as a file's
             schema. generation: grows with each such transaction. numbered: the highest number that an object ever had
    done     one row for each of the last transactions that wrote: its generation, and a number that its writer drew by
             lot. Who lost the connection while it committed looks here for whether it did

Beside the tokens' schemas stands `keyfob`, which marks a database as a store.
"""

from __future__ import annotations

from keyfob.store import schema

PREFIX = "keyfob_slot_"
MARK = "keyfob"
KEPT = 1000  # transactions in `done`

MARK_STATEMENTS = (
    f"CREATE SCHEMA {MARK}",
    f"CREATE TABLE {MARK}.store (version integer NOT NULL, made timestamptz NOT NULL DEFAULT now())",
    f"INSERT INTO {MARK}.store (version) VALUES ({schema.VERSION})",  # noqa: S608 - a constant
)

PENDING = """
    CREATE TABLE pending (object bigint PRIMARY KEY, version bigint, private smallint, record bytea, checksum bytea,
                          mac bytea)
"""
NOTICE = "CREATE TABLE notice (number bigint PRIMARY KEY, content bytea NOT NULL, mac bytea NOT NULL)"
TABLES = (
    "CREATE TABLE meta (name text PRIMARY KEY, value bytea NOT NULL, checksum bytea NOT NULL, mac bytea)",
    """
    CREATE TABLE object (id bigint PRIMARY KEY, version bigint NOT NULL, private smallint NOT NULL,
                         record bytea NOT NULL, checksum bytea NOT NULL, mac bytea)
    """,
    "CREATE INDEX object_without_mac ON object (version) WHERE mac IS NULL",
    # Records are sealed or short: what PostgreSQL compresses is not worth the time.
    "ALTER TABLE object ALTER COLUMN record SET STORAGE EXTERNAL",
    """
    CREATE TABLE lookup (digest bytea NOT NULL, object bigint NOT NULL, class bytea NOT NULL,
                         PRIMARY KEY (digest, object))
    """,
    "CREATE INDEX lookup_by_object ON lookup (object)",
    "CREATE TABLE unindexed (object bigint PRIMARY KEY)",
    "CREATE TABLE roster (block bigint PRIMARY KEY, versions bytea NOT NULL, tag bytea NOT NULL)",
    PENDING,
    NOTICE,
    "CREATE TABLE state (version integer NOT NULL, generation bigint NOT NULL, numbered bigint NOT NULL)",
    "CREATE TABLE done (generation bigint PRIMARY KEY, nonce bytea NOT NULL)",
    # The row that all writers update: room for it to stay on its page.
    "ALTER TABLE state SET (fillfactor = 10)",
    f"INSERT INTO state VALUES ({schema.VERSION}, 1, 0)",  # noqa: S608 - a constant
)

# MIGRATIONS[n]: the statements that make schema n + 1 of schema n. There is none before 4.
MIGRATIONS: dict[int, tuple[str, ...]] = {
    4: (
        "ALTER TABLE removed RENAME TO pending",
        """
        ALTER TABLE pending ADD COLUMN version bigint, ADD COLUMN private smallint, ADD COLUMN record bytea,
                            ADD COLUMN checksum bytea, ADD COLUMN mac bytea
        """,
        NOTICE,
        # Whoever may use the token's other tables may use the new one.
        """
        DO $$ DECLARE each record; BEGIN
            FOR each IN SELECT grantee, privilege_type FROM information_schema.role_table_grants
                        WHERE table_schema = current_schema() AND table_name = 'roster' LOOP
                EXECUTE 'GRANT ' || each.privilege_type || ' ON notice TO '
                     || CASE each.grantee WHEN 'PUBLIC' THEN 'PUBLIC' ELSE quote_ident(each.grantee) END;
            END LOOP;
        END $$
        """,
    )
}


def name(slot_id: int) -> str:
    """The PostgreSQL schema of a slot's token."""
    return f"{PREFIX}{slot_id}"
