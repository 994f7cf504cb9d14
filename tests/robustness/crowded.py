"""A token that fills its own disk: `crowded MODULE PIN`, with KEYFOB_HOME on a small file system of its own.

Makes objects until there is no room, takes what is left by a file, and then logs in, gives a wrong PIN, and destroys
what was made. Prints as JSON what the calls answered.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from keyfob.spec.constants import CKA, CKF, CKO, CKR, CKU
from tests.client import Client, Template, ffi
from tests.robustness.full_disk import create

MOST = 2000
DATA: Template = [(CKA.CLASS, CKO.DATA)]


def take_the_rest(home: Path) -> None:
    with (home / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(512)):
                pass
        except OSError:
            return


def main(module: str, pin_text: str) -> None:
    home, pin = Path(os.environ["KEYFOB_HOME"]), pin_text.encode()
    client = Client(module)
    client.initialize()
    slot = client.slots()[0]
    session = client.open(slot)
    client.login(session, pin)
    handle = ffi.new("CK_ULONG *")
    seen: dict[str, Any] = {"made": 0}
    while create(client, session, f"object {seen['made']}", handle) == CKR.OK and seen["made"] < MOST:
        seen["made"] += 1
    take_the_rest(home)
    seen["refused"] = create(client, session, "no room", handle)
    client.ok("C_Logout", session)
    seen["login"] = client.call("C_Login", session, CKU.USER, pin, len(pin))
    client.call("C_Logout", session)
    seen["wrong"] = client.call("C_Login", session, CKU.USER, b"wrong-pin", 9)
    seen["counted"] = bool(client.token_info(slot).flags & CKF.USER_PIN_COUNT_LOW)
    seen["again"] = client.call("C_Login", session, CKU.USER, pin, len(pin))
    objects = client.find(session, DATA)
    seen["destroyed"] = sum(client.call("C_DestroyObject", session, each) == CKR.OK for each in objects)
    seen["left"] = len(client.find(session, DATA))
    seen["finalize"] = client.call("C_Finalize", ffi.NULL)
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
