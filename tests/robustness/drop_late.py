"""A server of root's that reads its RSA key and gives up its rights: `drop_late MODULE PIN`. Prints JSON.

stunnel does so before it forks. As in fork_and_drop.py, what finds modules is taken away in place of the rights.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module

from keyfob.spec.constants import CKA, CKM, CKO
from tests.client import Client
from tests.robustness.fork_and_drop import Nowhere, enter


def main() -> None:
    client, pin = Client(sys.argv[1]), sys.argv[2].encode()
    import_module("keyfob.spec.names")  # for what this client says
    setattr(os, "geteuid", lambda: 0)  # noqa: B010 - mypy lets nobody assign to a function
    (key,) = client.find(enter(client, pin), [(CKA.CLASS, CKO.PRIVATE_KEY)])
    session = client.open(client.slots()[0])
    client.get(session, key, CKA.KEY_TYPE)
    setattr(os, "geteuid", lambda: 65534)  # noqa: B010
    sys.meta_path[:] = [Nowhere()]
    signed = client.sign(session, key, client.mechanism(CKM.SHA256_RSA_PKCS), b"after that")
    sys.stdout.write(json.dumps(len(signed)))


if __name__ == "__main__":
    main()
