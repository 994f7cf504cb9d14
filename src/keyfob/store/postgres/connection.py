"""Connections to a PostgreSQL server as this store wants them, and the server's errors as PKCS11Error."""

# ruff: noqa: E402 - versions are looked at before anything else is imported
from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from keyfob import dependencies

dependencies.check("psycopg")

import psycopg
from psycopg import errors

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

if TYPE_CHECKING:
    from keyfob.store.protocol import Row

LOCK_TIMEOUT = 10.0  # seconds to wait for another writer
STATEMENT_TIMEOUT = 15.0
LONGEST_WAIT = 20.0  # for the answer of a server that was stopped
IDLE_TIMEOUT = 30.0  # after which the server takes the lock from a writer that it hears nothing of

SESSION = f"""
SET search_path TO {{schema}};
SET lock_timeout = {int(LOCK_TIMEOUT * 1000)};
SET statement_timeout = {int(STATEMENT_TIMEOUT * 1000)};
SET idle_in_transaction_session_timeout = {int(IDLE_TIMEOUT * 1000)};
SET default_transaction_isolation = 'read committed';
SET client_min_messages = error;
SELECT current_setting('transaction_read_only'), current_setting('synchronous_commit')
"""

# (SQLSTATE or its class, what a caller of PKCS #11 is told), the first that fits; CKR_DEVICE_ERROR otherwise.
ANSWERS = (
    ("53100", CKR.DEVICE_MEMORY),
    ("53200", CKR.HOST_MEMORY),
    ("25006", CKR.TOKEN_WRITE_PROTECTED),
    ("42501", CKR.TOKEN_WRITE_PROTECTED),
    ("55P03", CKR.FUNCTION_FAILED),
    ("57014", CKR.FUNCTION_FAILED),
    ("22003", CKR.ATTRIBUTE_VALUE_INVALID),
)
# The server is going, coming, or full: another attempt may succeed. Serialization failures are those of databases that
# speak PostgreSQL's protocol and know no other isolation.
PASSING = ("08", "57P0", "53300", "40001", "40P01", "25P03", "25P04")

# What psycopg has to say of lost connections is said by us: without a handler Python prints it on standard error.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


class LostConnectionError(PKCS11Error):
    """The server went away, and what was asked of it did not happen. Not CKR_DEVICE_ERROR, which tells damage."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """One that waits for no answer longer than LONGEST_WAIT: a server may be stopped, and not gone."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        return super().wait(gen, interval, LONGEST_WAIT if timeout is None else timeout)


def connect(conninfo: str) -> Connection:
    """A connection in autocommit mode; LostConnectionError."""
    try:
        return Connection.connect(conninfo, autocommit=True)
    except psycopg.Error as problem:
        raise answer(problem) from None


def set_up(connection: Connection, schema: str) -> bool:
    """Make the connection one to the token in this schema; whether it can only be read: of a replica, for this role."""
    try:
        found = last_row(connection, SESSION.format(schema=schema))
        assert found is not None
        only_reading, commits = found
        if commits == "off":  # somebody's choice for other data: what a call has answered must be on the disk
            connection.execute("SET synchronous_commit = on")
    except psycopg.Error as problem:
        connection.close()
        raise answer(problem) from None
    return bool(only_reading == "on")


def answer(problem: psycopg.Error) -> PKCS11Error:
    """What to say for an error. Its first line names tables and hosts, never values or passwords."""
    state = problem.sqlstate or ""
    text = problem.diag.message_primary or (str(problem).splitlines() or [type(problem).__name__])[0]
    text = f"PostgreSQL: {text}"
    if not state and isinstance(problem, (errors.OperationalError, errors.InterfaceError)):
        return LostConnectionError(CKR.FUNCTION_FAILED, text)
    if state.startswith(PASSING):
        return LostConnectionError(CKR.FUNCTION_FAILED, text)
    rv = next((rv for beginning, rv in ANSWERS if state.startswith(beginning)), CKR.DEVICE_ERROR)
    return PKCS11Error(rv, text)


def last_row(connection: Connection, statements: str) -> Row | None:
    """Several statements in one message; the only row of the last one."""
    cursor = connection.execute(statements.encode())
    while cursor.nextset():
        pass
    return cursor.fetchone()
