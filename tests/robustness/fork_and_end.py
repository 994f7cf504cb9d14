"""A host that forks and then ends first: `fork_and_end MODULE PIN`. Prints as JSON the labels that are there then.

The child starts the module anew and writes only after its parent has finalised it: SQLite in the child must know that
it is not alone, and the parent's last close must not take the write-ahead log away from it.
"""

from __future__ import annotations

import json
import os
import sys

from keyfob.spec.constants import CKA, CKO
from tests.client import Client, ffi


def enter(client: Client, pin: bytes) -> int:
    client.initialize()
    session = client.open(client.slots()[0])
    client.login(session, pin)
    return session


def write(client: Client, session: int, label: str) -> None:
    client.create(session, [(CKA.CLASS, CKO.DATA), (CKA.TOKEN, True), (CKA.LABEL, label)])


def main() -> None:
    client, pin = Client(sys.argv[1]), sys.argv[2].encode()
    session = enter(client, pin)
    write(client, session, "parent")
    ready, begun = os.pipe()
    go, ended = os.pipe()
    child = os.fork()
    if child == 0:
        session = enter(client, pin)
        os.write(begun, b"x")
        os.read(go, 1)
        write(client, session, "child")
        os._exit(0)
    os.read(ready, 1)
    client.ok("C_Finalize", ffi.NULL)
    os.write(ended, b"x")
    assert os.waitpid(child, 0)[1] == 0
    session = enter(client, pin)
    handles = client.find(session, [(CKA.CLASS, CKO.DATA)])
    print(json.dumps(sorted((client.get(session, handle, CKA.LABEL)[0] or b"").decode() for handle in handles)))
    client.ok("C_Finalize", ffi.NULL)


if __name__ == "__main__":
    main()
