"""A host of a fleet, a process that makes and destroys objects until it is told to end, and says what was acknowledged.

    python -m tests.robustness.host MODULE PIN NAME

Each line that it prints is the call that has just answered CKR_OK: `made CKA_ID`, `destroyed CKA_ID`, `signed CKA_ID`,
or `failed CALL CKR`. It ends when its standard input does.
"""

from __future__ import annotations

import itertools
import select
import sys

from keyfob.spec.constants import CKA, CKM
from tests.client import P256, Client, RvError, Template, ffi

DIGEST = bytes(range(32))
KEPT = 5  # of so many pairs all but one are destroyed again
PAUSE = 0.002  # seconds after each pair, for the others of a busy machine: see fork.c


def main(module: str, pin: str, name: str) -> None:
    client = Client(module)
    client.initialize()
    session = client.open(client.slots()[0])
    client.login(session, pin.encode())
    print("ready", flush=True)
    for number in itertools.count():
        if select.select([sys.stdin], [], [], PAUSE)[0]:
            break
        try:
            work(client, session, f"{name}-{number}", keep=number % KEPT == 0)
        except RvError as problem:
            print("failed", problem, flush=True)
    client.ok("C_Finalize", ffi.NULL)


def work(client: Client, session: int, name: str, *, keep: bool) -> None:
    template: Template = [(CKA.TOKEN, True), (CKA.ID, name), (CKA.LABEL, name)]
    public, private = client.generate_pair(session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256), *template], template)
    print("made", name, flush=True)
    client.sign(session, private, client.mechanism(CKM.ECDSA), DIGEST)
    print("signed", name, flush=True)
    if not keep:
        for handle in (public, private):
            client.ok("C_DestroyObject", session, handle)
        print("destroyed", name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
