"""A fresh process that looks at the first token and prints what it finds as JSON: `inspect_token MODULE PIN`.

data      name -> [label, value] of each data object
private   id -> label of each private key; public: of each public key
signing   ids of private keys whose signature the public half verifies
problems  what the store's own check finds
files     names in the tokens' folder afterwards
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from keyfob.spec.constants import CKA, CKM, CKO, CKR
from keyfob.store import SqliteStore
from tests.client import Client, ffi


def texts(client: Client, session: int, handle: int, *attributes: int) -> list[str]:
    return [(value or b"").decode() for value in client.get(session, handle, *attributes)]


def look(client: Client, pin: bytes) -> dict[str, object]:
    (slot,) = client.slots()
    session = client.open(slot)
    client.login(session, pin)
    data: dict[str, list[str]] = {}
    for handle in client.find(session, [(CKA.CLASS, CKO.DATA)]):
        name, *values = texts(client, session, handle, CKA.APPLICATION, CKA.LABEL, CKA.VALUE)
        assert name not in data, f"{name} is there twice"
        data[name] = values
    keys: dict[int, dict[str, int]] = {CKO.PUBLIC_KEY: {}, CKO.PRIVATE_KEY: {}}
    labels: dict[int, dict[str, str]] = {CKO.PUBLIC_KEY: {}, CKO.PRIVATE_KEY: {}}
    for kind, found in keys.items():
        for handle in client.find(session, [(CKA.CLASS, kind)]):
            name, label = texts(client, session, handle, CKA.ID, CKA.LABEL)
            assert name not in found, f"{name} is there twice"
            found[name], labels[kind][name] = handle, label
    signing = []
    mechanism = client.mechanism(CKM.ECDSA)
    for name, handle in keys[CKO.PRIVATE_KEY].items():
        signature = client.sign(session, handle, mechanism, bytes(32))
        public = keys[CKO.PUBLIC_KEY].get(name)
        if public is None or client.verify(session, public, mechanism, bytes(32), signature) == CKR.OK:
            signing.append(name)
    every = client.find(session, [(CKA.TOKEN, True)])
    profiles = client.find(session, [(CKA.CLASS, CKO.PROFILE)])
    assert len(every) == len(data) + sum(map(len, keys.values())) + len(profiles), "something else is there"
    return {
        "data": data,
        "private": labels[CKO.PRIVATE_KEY],
        "public": labels[CKO.PUBLIC_KEY],
        "signing": signing,
    }


def problems(path: Path, pin: bytes) -> list[str]:
    store = SqliteStore.open(path)
    try:
        store.login("user", pin)
        return store.verify()
    finally:
        store.close()


def main() -> None:
    module, pin = sys.argv[1], sys.argv[2].encode()
    client = Client(module)
    client.initialize()
    seen = look(client, pin)
    client.ok("C_Finalize", ffi.NULL)
    folder = Path(os.environ["KEYFOB_HOME"]) / "tokens"
    seen["problems"] = problems(folder / "slot-1.keyfob", pin)
    seen["files"] = sorted(path.name for path in folder.iterdir())
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
