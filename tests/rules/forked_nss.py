"""A host of NSS that forks, as Firefox and selfserv do: `python -m tests.rules.forked_nss MODULE PIN`.

The parent logs in, begins a signature, and forks. The child does what SECMOD_RestartModules does (pk11wrap/pk11util.c):
it probes with C_GetSlotList, and starts the module anew if that fails. Prints as JSON what each of the two saw.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from keyfob.spec.constants import CKA, CKM, CKO
from keyfob.spec.errors import name_of
from tests.client import Client, ffi
from tests.rules.nss_calls import Nss, Slot, start
from tests.rules.software_keys import der_signature, ec_public

TEXT = b"signed by parent and child"


def verified(slot: Slot, signature: bytes) -> bool:
    (public,) = slot.find([(CKA.CLASS, CKO.PUBLIC_KEY)])
    ec_public(slot, public).verify(der_signature(signature), TEXT, ec.ECDSA(hashes.SHA256()))
    return True


def sign(slot: Slot) -> bool:
    (private,) = slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)])
    return verified(slot, slot.sign(private, slot.client.mechanism(CKM.ECDSA_SHA256), TEXT, 64))


def in_child(client: Client, old: Nss, pin: bytes) -> dict[str, Any]:
    """What a child sees before it starts the module anew, and after."""
    count, handle = ffi.new("CK_ULONG *"), ffi.new("CK_ULONG *")
    seen: dict[str, Any] = {
        "probe": name_of("CKR", client.call("C_GetSlotList", 0, ffi.NULL, count)),
        "session": name_of("CKR", client.call("C_OpenSession", old.slot.id, 4, ffi.NULL, ffi.NULL, handle)),
        "finalize": name_of("CKR", client.call("C_Finalize", ffi.NULL)),
    }
    nss = start(client)
    seen["logged in"] = nss.slot.is_logged_in()
    seen["private keys"] = len(nss.slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)]))
    nss.slot.login(pin)
    seen["signs"] = sign(nss.slot)
    nss.end()
    return seen


def main() -> None:
    client, pin = Client(sys.argv[1]), sys.argv[2].encode()
    nss = start(client)
    slot = nss.slot
    slot.login(pin)
    (private,) = slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)])
    session = client.open(slot.id)
    client.ok("C_SignInit", session, client.mechanism(CKM.ECDSA_SHA256), private)
    client.ok("C_SignUpdate", session, TEXT[:5], 5)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, json.dumps(in_child(client, nss, pin)).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as answer:
        seen = json.loads(answer.read())
    status = os.waitpid(child, 0)[1]
    client.ok("C_SignUpdate", session, TEXT[5:], len(TEXT) - 5)
    finished = verified(slot, client.output("C_SignFinal", session))
    parent = {"status": status, "finishes": finished, "logged in": slot.is_logged_in(), "signs": sign(slot)}
    nss.end()
    print(json.dumps({"child": seen, "parent": parent}))


if __name__ == "__main__":
    main()
