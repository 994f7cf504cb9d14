"""A host that meets tokens in any state: `damaged_token MODULE PIN SO-PIN`.

Prints as JSON what each slot answers, by its ID:

    info        CK_RV of C_GetSlotInfo
    token       CK_RV of C_GetTokenInfo
    flags       those of CK_TOKEN_INFO
    initialise  CK_RV of C_InitToken, tried only with INITIALISE in the environment
    open        CK_RV of C_OpenSession, read-write if that goes
    login       CK_RV of C_Login
    objects     class and CKA_ID of each object -> its label, or the CK_RV of reading it
    sign        CK_RV of signing with the first private key and verifying; -1: there are no two keys
    refused     CK_RV of what of the two before did not even begin
    create      CK_RV of creating an object on the token, and of removing it again
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from keyfob.spec.constants import CKA, CKM, CKO, CKR, CKU
from tests.client import READ_ONLY, READ_WRITE, Client, RvError, Template, ffi


def classes(client: Client, session: int) -> dict[str, Any]:
    """Every object by class and ID."""
    found: dict[str, Any] = {}
    for handle in client.find(session, [(CKA.TOKEN, True)]):
        array = ffi.new("CK_ATTRIBUTE[3]")
        held = [ffi.new("char[4096]") for _ in range(3)]
        for i, attribute in enumerate((CKA.CLASS, CKA.ID, CKA.LABEL)):
            array[i].type, array[i].pValue, array[i].ulValueLen = attribute, held[i], 4096
        rv = client.call("C_GetAttributeValue", session, handle, array, 3)
        if rv not in (CKR.OK, CKR.ATTRIBUTE_TYPE_INVALID):
            found[f"unreadable {handle}"] = rv
            continue
        object_class = int.from_bytes(ffi.buffer(held[0], array[0].ulValueLen)[:], "little")
        if object_class == CKO.PROFILE:
            continue
        missing = array[1].ulValueLen > 4096
        name = b"" if missing else ffi.buffer(held[1], array[1].ulValueLen)[:]
        label = ffi.buffer(held[2], array[2].ulValueLen)[:]
        found[f"{object_class} {name.decode()}"] = label.decode()
    return found


def sign(client: Client, session: int) -> int:
    for private in client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY)]):
        mechanism = client.mechanism(CKM.ECDSA)
        rv = client.call("C_SignInit", session, mechanism, private)
        if rv != CKR.OK:
            return rv
        signature = client.output("C_Sign", session, bytes(32), 32)
        for public in client.find(session, [(CKA.CLASS, CKO.PUBLIC_KEY)]):
            return client.verify(session, public, mechanism, bytes(32), signature)
    return -1


def look(client: Client, slot: int, pin: bytes, so_pin: bytes | None = None) -> dict[str, Any]:
    """What a slot answers; with `so_pin` C_InitToken is tried first."""
    seen: dict[str, Any] = {"info": client.call("C_GetSlotInfo", slot, ffi.new("CK_SLOT_INFO *"))}
    info, handle = ffi.new("CK_TOKEN_INFO *"), ffi.new("CK_ULONG *")
    seen["token"] = client.call("C_GetTokenInfo", slot, info)
    seen["flags"] = info.flags
    if so_pin is not None:
        seen["initialise"] = client.call("C_InitToken", slot, so_pin, len(so_pin), b"new".ljust(32))
    for flags in (READ_WRITE, READ_ONLY):
        seen["open"] = client.call("C_OpenSession", slot, flags, ffi.NULL, ffi.NULL, handle)
        if seen["open"] == CKR.OK:
            break
    else:
        return seen
    session = handle[0]
    seen["login"] = client.call("C_Login", session, CKU.USER, pin, len(pin))
    try:
        seen["objects"] = classes(client, session)
        seen["sign"] = sign(client, session)
    except RvError as problem:
        seen["refused"] = problem.rv
    value = bytes(int(os.environ.get("SIZE", "10")))
    template: Template = [(CKA.CLASS, CKO.DATA), (CKA.TOKEN, True), (CKA.LABEL, "more"), (CKA.VALUE, value)]
    array, count, _kept = client.template(template)
    seen["create"] = client.call("C_CreateObject", session, array, count, handle)
    if seen["create"] == CKR.OK:
        seen["create"] = client.call("C_DestroyObject", session, handle[0])
    return seen


def look_at_all(client: Client, pin: bytes, so_pin: bytes, *, initialise: bool) -> dict[str, Any]:
    """Every slot by its ID, between C_Initialize and C_Finalize."""
    client.ok("C_Initialize", ffi.NULL)
    seen = {str(slot): look(client, slot, pin, so_pin if initialise else None) for slot in client.slots()}
    client.ok("C_Finalize", ffi.NULL)
    return seen


def main() -> None:
    module, pin, so_pin = sys.argv[1], sys.argv[2].encode(), sys.argv[3].encode()
    seen = look_at_all(Client(module), pin, so_pin, initialise="INITIALISE" in os.environ)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
