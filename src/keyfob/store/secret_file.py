"""Files with a secret of somebody else's making in them: a pepper, a PIN. They are read when needed and never written.

A location is a path, or `credential:NAME`: the file NAME in $CREDENTIALS_DIRECTORY, where systemd puts a service's
credentials (systemd.exec, "CREDENTIALS") and a container may put its own.
"""

from __future__ import annotations

import os
from stat import S_ISREG

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import permissions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CREDENTIAL = "credential:"


def path_of(location: str, credentials: str) -> str:
    """The file at a location; `credentials`: what $CREDENTIALS_DIRECTORY says. CKR_DEVICE_ERROR where it is needed."""
    if not location.startswith(CREDENTIAL):
        return location
    name = location.removeprefix(CREDENTIAL)
    if not name or "/" in name or name in (".", ".."):
        raise PKCS11Error(CKR.DEVICE_ERROR, f"{location}: a credential's name is that of a file, without a folder")
    if not credentials:
        raise PKCS11Error(CKR.DEVICE_ERROR, f"{location} is not there: $CREDENTIALS_DIRECTORY is not set")
    return os.path.join(credentials, name)


def written(location: str) -> str:
    """As a token shall remember it: from whatever folder a program is started."""
    return location if location.startswith(CREDENTIAL) else os.path.abspath(location)


def read(location: str, credentials: str, most: int, tell: Callable[[str], None]) -> bytes:
    """What is in it, `most` + 1 bytes at most; CKR_DEVICE_ERROR, with the file and the reason.

    One that others can read is closed to them as a key file is, but for credentials: who gets those is the system's
    matter, which says so with access lists that look like lax modes.
    """
    path = path_of(location, credentials)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO in its place holds nobody up
        try:
            if not S_ISREG(os.fstat(descriptor).st_mode):
                raise PKCS11Error(CKR.DEVICE_ERROR, f"{path} is no file")
            content = os.read(descriptor, most + 1)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise PKCS11Error(CKR.DEVICE_ERROR, f"{path} cannot be read: {problem.strerror}") from None
    if not credentials or not path.startswith(os.path.join(credentials, "")):
        permissions.tighten(path, tell)
    return content
