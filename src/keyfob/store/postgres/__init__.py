"""Tokens in PostgreSQL: a fleet of hosts shares them, sealed as they are in a file (docs/postgresql.md).

A token is a schema of its own, `keyfob_slot_N`, with the tables that a file has, N being the slot's ID. What is sealed,
guarded and counted is the same, done by the same rooms; the server sees neither keys nor PINs. Here is only what
PostgreSQL does differently:

    place.py       the URL: defaults, TLS, what of it may be shown
    tables.py      the tables, and the way from each schema to the next
    connection.py  connections, and errors as PKCS11Error
    database.py    one connection to one token: statements, transactions
    again.py       making a call again while its connection is lost
    store.py       a sealed store that lives through restarts of the server
    server.py      the shelf: which tokens there are, making and removing them

Imported only where the configuration names a server: psycopg takes longer to load than all of keyfob.
"""
