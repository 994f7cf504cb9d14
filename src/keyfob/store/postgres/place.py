"""Where a PostgreSQL server is: the URL of the configuration, and what is added to it.

Everything that libpq understands may stand in it: several hosts, service files, certificates
(postgresql.org/docs/current/libpq-connect.html). What the URL does not say is chosen here for the sake of programs that
must not hang, and of a network that nobody should trust.
"""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import ProgrammingError

from keyfob import environment
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SECONDS_TO_CONNECT = 5
# A server that does not answer at all is given up after some eleven seconds, also where nothing closes the connection.
DEFAULTS: dict[str, Any] = {
    "application_name": "keyfob",
    "connect_timeout": SECONDS_TO_CONNECT,
    "keepalives_count": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "tcp_user_timeout": 10_000,
}
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def complete(url: str) -> str:
    """The connection string for this URL; CKR_ARGUMENTS_BAD where it is none. It may hold a password.

    Whoever reaches the server over a network and says nothing of TLS gets `sslmode=verify-full` with the system's
    authorities: the objects are sealed anyway, but not which ones there are, nor certificates, nor the database's
    password.
    """
    given = parameters(url)
    defaults = {name: value for name, value in DEFAULTS.items() if name not in given}
    if is_remote(given) and not {"sslmode", "service"} & given.keys() and not environment.get("PGSSLMODE"):
        defaults["sslmode"] = "verify-full"
        if "sslrootcert" not in given and not environment.get("PGSSLROOTCERT"):
            defaults["sslrootcert"] = "system"
    return make_conninfo(url, **defaults)


def parameters(url: str) -> dict[str, Any]:
    try:
        return dict(conninfo_to_dict(url))
    except ProgrammingError:  # whose text may quote the URL, with a password
        raise PKCS11Error(CKR.ARGUMENTS_BAD, "the URL of the store is not one that PostgreSQL understands") from None


def is_remote(given: dict[str, Any]) -> bool:
    """Whether any of the hosts is reached over a network."""
    hosts = str(given.get("hostaddr") or given.get("host") or environment.get("PGHOST")).split(",")
    return any(host and not host.startswith(("/", "@")) and host not in LOOPBACK for host in hosts)


def shown(url: str) -> str:
    """What may be shown of the URL: host and database, nothing that lets anybody in."""
    given = parameters(url)
    host, database = given.get("host") or given.get("hostaddr"), given.get("dbname")
    if given.get("service"):
        return f"the PostgreSQL service {given['service']}"
    return f"PostgreSQL{f' on {host}' if host else ''}{f', database {database}' if database else ''}"
