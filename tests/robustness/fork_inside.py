"""A host that forks while others are inside calls: `fork_inside MODULE PIN`. Prints JSON.

One thread waits for a slot event, which no fork may wait for. Another is in the middle of a call and has a lock that
nobody knows of, as libraries have when they use something for the first time: the child must not find it held.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

from keyfob.abi import gate
from keyfob.functions import state
from tests.client import Client, ffi

client = Client(sys.argv[1])
inside, held = threading.Event(), threading.Lock()
draw = os.urandom


def draw_slowly(size: int) -> bytes:
    with held:
        inside.set()
        time.sleep(0.3)
        return draw(size)


def wait_for_event() -> None:
    client.call("C_WaitForSlotEvent", 0, ffi.new("CK_ULONG *"), ffi.NULL)


def draw_at_random(session: int) -> None:
    client.ok("C_GenerateRandom", session, ffi.new("char[16]"), 16)


def main() -> None:
    gate.LIMIT_MS = 600_000  # a fork that waits for the event waits for ever
    client.initialize()
    session = client.open(client.slots()[0])
    client.login(session, sys.argv[2].encode())
    threads = [threading.Thread(target=wait_for_event), threading.Thread(target=draw_at_random, args=(session,))]
    threads[0].start()
    while not state.STATE.waiting:
        time.sleep(0.001)
    os.urandom = draw_slowly
    threads[1].start()
    inside.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if held.acquire(timeout=2) else 1)
    status = os.waitpid(child, 0)[1]
    os.urandom = draw
    draw_at_random(session)
    client.ok("C_Finalize", ffi.NULL)
    for thread in threads:
        thread.join()
    print(json.dumps({"child": status}))


if __name__ == "__main__":
    main()
