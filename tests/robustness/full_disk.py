"""A host on a disk that gets full: `full_disk MODULE PIN HOW`, with a token with one key pair in KEYFOB_HOME.

HOW "space": a file named `filler` in KEYFOB_HOME takes up all but a little of a small file system, and goes away in the
end. HOW "limit": files may not grow beyond a limit (RLIMIT_FSIZE), which is lifted in the end.

Prints as JSON: what the creating call answered (created), how many objects were acknowledged before (acknowledged) and
found after it (found), what signing and logging in anew answered while the disk was full (sign, login), what the same
gave when there was room again (later), the problems that the store's own check finds (problems).
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from keyfob.spec.constants import CKA, CKM, CKO, CKR, CKU
from keyfob.store import SqliteStore
from tests.client import Client, Template, ffi

MOST = 2000
SIZE = 4000
LEFT = 300_000


def fill(home: Path) -> None:
    status = os.statvfs(home)
    with (home / "filler").open("wb") as file:
        file.write(bytes(max(status.f_bavail * status.f_frsize - LEFT, 0)))


def limit_growth(token: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (token.stat().st_size + LEFT, resource.RLIM_INFINITY))


def create(client: Client, session: int, name: str, handle: Any) -> int:
    template: Template = [(CKA.CLASS, CKO.DATA), (CKA.TOKEN, True), (CKA.LABEL, name), (CKA.VALUE, bytes(SIZE))]
    array, count, _kept = client.template(template)
    return client.call("C_CreateObject", session, array, count, handle)


def sign(client: Client, session: int) -> int:
    (private,) = client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY)])
    signature, length = ffi.new("char[64]"), ffi.new("CK_ULONG *", 64)
    rv = client.call("C_SignInit", session, client.mechanism(CKM.ECDSA), private)
    return rv or client.call("C_Sign", session, bytes(32), 32, signature, length)


def begin(client: Client, pin: bytes) -> tuple[int, int]:
    """The session and what C_Login answered."""
    client.initialize()
    session = client.open(client.slots()[0])
    return session, client.call("C_Login", session, CKU.USER, pin, len(pin))


def main() -> None:
    module, pin, how = sys.argv[1], sys.argv[2].encode(), sys.argv[3]
    home = Path(os.environ["KEYFOB_HOME"])
    token = home / "tokens" / "slot-1.keyfob"
    client = Client(module)
    session, rv = begin(client, pin)
    assert rv == CKR.OK
    if how == "space":
        fill(home)
    else:
        limit_growth(token)
    handle = ffi.new("CK_ULONG *")
    data = [(CKA.CLASS, CKO.DATA)]
    acknowledged = 0
    rv = CKR.OK
    while rv == CKR.OK and acknowledged < MOST:
        rv = create(client, session, f"object {acknowledged}", handle)
        acknowledged += rv == CKR.OK
    seen: dict[str, Any] = {"created": rv, "acknowledged": acknowledged}
    seen["again"] = create(client, session, "again", handle)
    acknowledged += seen["again"] == CKR.OK
    seen["found"] = len(client.find(session, data))
    seen["sign"] = sign(client, session)
    client.ok("C_Logout", session)
    seen["login"] = client.call("C_Login", session, CKU.USER, pin, len(pin))
    seen["public"] = len(client.find(session, [(CKA.CLASS, CKO.PUBLIC_KEY)]))
    seen["finalize"] = client.call("C_Finalize", ffi.NULL)
    if how == "space":
        (home / "filler").unlink()
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    session, seen["later"] = begin(client, pin)
    seen["kept"] = len(client.find(session, data))
    seen["signs"] = sign(client, session)
    seen["makes"] = create(client, session, "more", handle)
    client.ok("C_Finalize", ffi.NULL)
    store = SqliteStore.open(token)
    store.login("user", pin)
    seen["problems"] = store.verify()
    store.close()
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
