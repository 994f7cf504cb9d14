"""Another process on a token, told by test_sharing.py line by line what to do; each line is answered in JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from keyfob.spec.constants import CKA, CKM, CKO
from keyfob.spec.errors import name_of
from tests.client import P256, Client, RvError, Template, ffi

DIGEST = bytes(32)


def main(module: str) -> None:
    client = Client(module)
    client.initialize()
    session = client.open(client.slots()[0])

    def make(name: str) -> int:
        template: Template = [(CKA.TOKEN, True), (CKA.ID, name), (CKA.LABEL, name)]
        pair = client.generate_pair(session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256), *template], template)
        return pair[1]

    def find(name: str) -> list[int]:
        return client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.ID, name)])

    def sign(handle: str) -> str:
        client.sign(session, int(handle), client.mechanism(CKM.ECDSA), DIGEST)
        return "CKR_OK"

    def read(handle: str) -> str:
        attribute = ffi.new("CK_ATTRIBUTE *")
        attribute.type = CKA.CLASS
        return name_of("CKR", client.call("C_GetAttributeValue", session, int(handle), attribute, 1))

    commands: dict[str, Callable[..., Any]] = {
        "login": lambda pin: client.login(session, pin.encode()),
        "logout": lambda: name_of("CKR", client.call("C_Logout", session)),
        "state": lambda: client.state(session),
        "make": make,
        "find": find,
        "find-data": lambda name: client.find(session, [(CKA.CLASS, CKO.DATA), (CKA.LABEL, name)]),
        "sign": sign,
        "read": read,
        "destroy": lambda handle: name_of("CKR", client.call("C_DestroyObject", session, int(handle))),
    }
    for line in sys.stdin:
        command, *words = line.split()
        try:
            answer = commands[command](*words)
        except RvError as problem:
            answer = name_of("CKR", problem.rv)
        print(json.dumps(answer), flush=True)
    client.call("C_Finalize", ffi.NULL)


if __name__ == "__main__":
    main(sys.argv[1])
