"""A Python host with os.fork: `fork_at_work MODULE PIN FORKS`.

Two threads sign and one writes to the token while the main thread forks; every child starts anew, logs in, signs, and
writes to the token too. Prints JSON: the statuses of the children, their and the parent's random bytes and signatures,
what was acknowledged as written, and the labels that are there in the end.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time

from cffi import cparser

from keyfob.spec.constants import CKA, CKM, CKO, CKR
from tests.client import Client, ffi

DIGEST = bytes(32)
LIMIT = 20
BURST, PAUSE = 20, 0.002  # calls, seconds: see fork.c


class Host:
    def __init__(self, module: str, pin: bytes) -> None:
        self.client = Client(module)
        self.pin = pin
        self.finished = False
        self.problems: list[str] = []
        self.written: list[str] = []
        self.signatures = 0

    def enter(self) -> int:
        self.client.initialize()
        session = self.client.open(self.client.slots()[0])
        self.client.login(session, self.pin)
        return session

    def session(self) -> int:
        return self.client.open(self.client.slots()[0])

    def sign(self, session: int) -> bytes:
        (key,) = self.client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY)])
        return self.client.sign(session, key, self.client.mechanism(CKM.ECDSA), DIGEST)

    def write(self, session: int, label: str) -> None:
        self.client.create(session, [(CKA.CLASS, CKO.DATA), (CKA.TOKEN, True), (CKA.LABEL, label)])

    def random(self, session: int) -> bytes:
        drawn = ffi.new("char[16]")
        self.client.ok("C_GenerateRandom", session, drawn, 16)
        return bytes(ffi.buffer(drawn))

    def goes_on(self, before: int) -> bool:
        """Whether the threads have signed since then, or do so within LIMIT."""
        end = time.monotonic() + LIMIT
        while self.signatures == before and time.monotonic() < end:
            time.sleep(0.001)
        return self.signatures > before

    def keep_signing(self, session: int) -> None:
        try:
            while not self.finished:
                self.sign(session)
                self.signatures += 1
                if self.signatures % BURST == 0:
                    time.sleep(PAUSE)
        except BaseException as problem:
            self.problems.append(f"a thread that signs: {problem}")

    def keep_writing(self, session: int) -> None:
        number = 0
        try:
            while not self.finished:
                number += 1
                self.write(session, f"parent {number}")
                self.written.append(f"parent {number}")
                if number % BURST == 0:
                    time.sleep(PAUSE)
        except BaseException as problem:
            self.problems.append(f"the thread that writes: {problem}")

    def in_child(self, number: int, pipe: int) -> None:
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        assert self.client.call("C_GetInfo", ffi.new("CK_INFO *")) == CKR.CRYPTOKI_NOT_INITIALIZED
        session = self.enter()
        signatures = [self.sign(session).hex() for _ in range(20)]
        self.write(session, f"child {number}")
        seen = {"written": f"child {number}", "signature": signatures[-1], "random": self.random(session).hex()}
        os.write(pipe, json.dumps(seen).encode() + b"\n")


def renew_locks_of_cffi() -> None:
    """In a child: the client's own locks, which another thread may have held at the fork."""
    ffi._lock = threading.Lock()
    cparser.lock = threading.Lock()


os.register_at_fork(after_in_child=renew_locks_of_cffi)


def main() -> None:
    module, pin, forks = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])
    host = Host(module, pin)
    session = host.enter()
    workers = [threading.Thread(target=host.keep_signing, args=(host.session(),)) for _ in range(2)]
    workers.append(threading.Thread(target=host.keep_writing, args=(host.session(),)))
    for worker in workers:
        worker.start()
    while not ((host.signatures > 10 and host.written) or host.problems):
        time.sleep(0.01)
    reader, writer = os.pipe()
    statuses, drawn, idle = [], [], 0
    for number in range(forks):
        before = host.signatures
        child = os.fork()
        if child == 0:
            try:
                host.in_child(number, writer)
                os._exit(0)
            except BaseException as problem:
                os.write(2, f"child {number}: {type(problem).__name__}: {problem}\n".encode())
                os._exit(1)
        statuses.append(os.waitpid(child, 0)[1])
        drawn.append(host.random(session).hex())
        idle += not host.goes_on(before)
    host.finished = True
    for worker in workers:
        worker.join(30)
    alive = sum(worker.is_alive() for worker in workers)
    host.client.ok("C_Finalize", ffi.NULL)
    os.close(writer)
    with os.fdopen(reader) as lines:
        children = [json.loads(line) for line in lines]
    session = host.enter()
    handles = host.client.find(session, [(CKA.CLASS, CKO.DATA)])
    labels = [(host.client.get(session, handle, CKA.LABEL)[0] or b"").decode() for handle in handles]
    answer = {
        "statuses": statuses,
        "problems": host.problems,
        "hanging": alive,
        "idle": idle,
        "written": host.written + [child["written"] for child in children],
        "labels": labels,
        "random": drawn + [child["random"] for child in children],
        "signatures": [child["signature"] for child in children],
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
