"""Files with a secret in them: a pepper, a PIN, the key of a token without PIN. Read when needed, all in one way.

Each is a regular file of the user's or root's (of anybody's, where root asks) that nobody else can write; a FIFO in its
place holds nobody up. Peppers and PINs are of somebody else's making, and never written or changed.

A location is a path, or `credential:NAME`: the file NAME in $CREDENTIALS_DIRECTORY, where systemd puts a service's
credentials (systemd.exec, "CREDENTIALS") and a container may put its own.
"""

from __future__ import annotations

import os
from stat import S_IMODE

from keyfob import files
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

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

    One that others can read is said to be so, but for credentials: who gets those is the system's matter, which says so
    with access lists that look like lax modes.
    """
    path = path_of(location, credentials)
    content, mode = _read(path, most, follow=True)
    is_credential = bool(credentials) and path.startswith(os.path.join(credentials, ""))
    if mode & files.OTHERS and not is_credential:
        tell(f"{path} is open to other users of this machine (mode {mode:04o}): chmod 600 would close it to them")
    return content


def read_own(path: str, most: int) -> bytes:
    """The same of a file that keyfob makes itself, beside a token: no symbolic link leads to that."""
    return _read(path, most, follow=False)[0]


def _read(path: str, most: int, *, follow: bool) -> tuple[bytes, int]:
    try:
        content, status = files.read(path, most, follow=follow)
    except OSError as problem:
        raise PKCS11Error(CKR.DEVICE_ERROR, f"{path} cannot be read: {problem.strerror}") from None
    stranger = "" if files.is_master() else files.stranger(status)
    if reason := stranger or files.writers(status):
        raise PKCS11Error(CKR.DEVICE_ERROR, f"{path} is not believed: it {reason}")
    return content, S_IMODE(status.st_mode)
