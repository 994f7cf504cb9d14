"""Many processes on one token of any module, as experiments: each answers with what was found, and judges nothing.

    python -m tests.robustness.sharing write MODULE LABEL PIN PAIRS NAME   make key pairs, sign with each
    python -m tests.robustness.sharing read MODULE LABEL PIN COUNT         find keys until so many are there, sign
    python -m tests.robustness.sharing check MODULE LABEL PIN              look at all private keys

are the processes (each prints one line of JSON and ends with 0, or says on standard error which call failed); `share`
and `start_all` run many of them at once. The environment tells the module where its tokens are; what softoken takes
as its parameters in C_Initialize is in MODULE_PARAMETERS.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keyfob.spec.constants import CKA, CKF, CKM, CKO, CKR
from tests.client import P256, READ_WRITE, Client, Template, ffi

REPOSITORY = Path(__file__).resolve().parents[2]
DIGEST = bytes(range(32))
PATIENCE = 600.0  # seconds for all processes together


class FunctionListClient(Client):
    """A client of modules that have no C_GetInterface, too."""

    def __init__(self, path: str) -> None:
        self.library = ffi.dlopen(path)
        functions = ffi.new("CK_FUNCTION_LIST **")
        rv = self.library.C_GetFunctionList(functions)
        if rv != CKR.OK:
            raise SystemExit(f"C_GetFunctionList: 0x{rv:x}")
        self.functions = functions[0]

    def initialize(self, flags: int = CKF.OS_LOCKING_OK) -> None:
        parameters = os.environ.get("MODULE_PARAMETERS")
        arguments = ffi.new("CK_C_INITIALIZE_ARGS[2]")  # softoken looks for a NULL behind the structure
        arguments[0].flags = flags
        text = ffi.new("char[]", (parameters or "").encode())
        if parameters is not None:
            arguments[0].pReserved = text
        self.ok("C_Initialize", arguments)


def slot_of(client: Client, label: str) -> int:
    padded = label.encode().ljust(32)
    for slot in client.slots():
        if bytes(ffi.buffer(client.token_info(slot).label)) == padded:
            return slot
    raise SystemExit(f"no token {label}")


def opened(module: str, label: str, pin: str) -> tuple[Client, int]:
    """A session of the user."""
    client = FunctionListClient(module)
    client.initialize()
    session = client.open(slot_of(client, label), READ_WRITE)
    client.login(session, pin.encode())
    return client, session


def signature(client: Client, session: int, key: int) -> bytes:
    return client.sign(session, key, client.mechanism(CKM.ECDSA), DIGEST)


def private_keys(client: Client, session: int, key_id: bytes | None = None) -> list[int]:
    template: Template = [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.TOKEN, True)]
    return client.find(session, template if key_id is None else [*template, (CKA.ID, key_id)], at_once=500)


def write(module: str, label: str, pin: str, pairs: str, name: str) -> dict[str, Any]:
    """P-256 pairs on the token, with the IDs NAME-0, NAME-1 ...; each is found again and signs at once."""
    client, session = opened(module, label, pin)
    ids = []
    for number in range(int(pairs)):
        key_id = f"{name}-{number}".encode()
        both: Template = [(CKA.TOKEN, True), (CKA.ID, key_id), (CKA.LABEL, key_id)]
        public: Template = [*both, (CKA.EC_PARAMS, P256), (CKA.VERIFY, True)]
        private: Template = [*both, (CKA.PRIVATE, True), (CKA.SENSITIVE, True), (CKA.SIGN, True)]
        _, key = client.generate_pair(session, CKM.EC_KEY_PAIR_GEN, public, private)
        if private_keys(client, session, key_id) != [key]:
            raise SystemExit(f"{key_id.decode()} is not found where it was made")
        signature(client, session, key)
        ids.append(key_id.decode())
    client.ok("C_Finalize", ffi.NULL)
    return {"made": ids}


def read(module: str, label: str, pin: str, count: str) -> dict[str, Any]:
    """Beside the writers: nothing that was seen may be gone, and what is found signs."""
    client, session = opened(module, label, pin)
    seen: set[int] = set()
    searches, signed, deadline = 0, 0, time.monotonic() + PATIENCE
    while len(seen) < int(count) and time.monotonic() < deadline:
        found = set(private_keys(client, session))
        if seen - found:
            raise SystemExit(f"{len(seen - found)} keys vanished")
        for key in sorted(found - seen)[:5]:
            signature(client, session, key)
            signed += 1
        seen, searches = found, searches + 1
    client.ok("C_Finalize", ffi.NULL)
    return {"found": len(seen), "searches": searches, "signed": signed}


def check(module: str, label: str, pin: str) -> dict[str, Any]:
    """A fresh process: the IDs of all private keys, each of which signs and has its public key, and those that fail."""
    client, session = opened(module, label, pin)
    ids, broken = [], []
    for key in private_keys(client, session):
        key_id = (client.get(session, key, CKA.ID)[0] or b"").decode()
        publics = client.find(session, [(CKA.CLASS, CKO.PUBLIC_KEY), (CKA.ID, key_id.encode())])
        try:
            made = signature(client, session, key)
            fits = [client.verify(session, public, client.mechanism(CKM.ECDSA), DIGEST, made) for public in publics]
        except Exception as problem:
            broken.append(f"{key_id}: {problem}")
            continue
        ids.append(key_id)
        if fits != [CKR.OK]:
            broken.append(f"{key_id}: {len(publics)} public keys, {fits}")
    client.ok("C_Finalize", ffi.NULL)
    return {"ids": ids, "broken": broken}


def process(*arguments: object, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """One process of this file."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.robustness.sharing", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome_of(child: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    """(its answer, "") or ({}, what went wrong)."""
    try:
        answer, complaint = child.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return {}, "it hangs"
    if child.returncode:
        lines = complaint.strip().splitlines()
        return {}, f"ended with {child.returncode}: {lines[-1] if lines else 'silently'}"
    return json.loads(answer), ""


def share(
    module: str | Path, label: str, pin: str, *, writers: int, pairs: int, readers: int, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Writers and readers at once, then a fresh process that looks at everything.

    "made": acknowledged pairs, "lost": those of them that are gone, "broken": keys that do not sign or fit, "failures":
    processes that met an error.
    """
    began = time.monotonic()
    children = [
        process("write", module, label, pin, pairs, f"w{number}", environment=environment) for number in range(writers)
    ]
    watching = [process("read", module, label, pin, writers * pairs, environment=environment) for _ in range(readers)]
    outcomes = [outcome_of(child) for child in children]
    failures = [f"writer: {problem}" for _, problem in outcomes if problem]
    if failures:  # the readers would wait for what never comes
        for child in watching:
            child.kill()
    seen = [outcome_of(child) for child in watching]
    failures += [f"reader: {problem}" for _, problem in seen if problem and not failures]
    took = time.monotonic() - began
    made = {key_id for answer, _ in outcomes for key_id in answer.get("made", ())}
    checked, problem = outcome_of(process("check", module, label, pin, environment=environment))
    if problem:
        failures.append(f"afterwards: {problem}")
    there = checked.get("ids", [])
    return {
        "made": len(made),
        "lost": sorted(made - set(there)),
        "broken": checked.get("broken", []),
        "there": len(there),
        "searches": sum(answer.get("searches", 0) for answer, _ in seen),
        "failures": failures,
        "seconds": round(took, 1),
    }


def start_all(
    program: Path, module: str | Path, *, count: int, at_once: int, environment: Mapping[str, str]
) -> dict[str, Any]:
    """So many starts of start.c's program (hosts.compile_host makes it) in waves; "failures": what went wrong."""
    failures: list[str] = []
    began = time.monotonic()
    for first in range(0, count, at_once):
        wave = [
            subprocess.Popen(
                [str(program), str(module)],
                env={**os.environ, **environment},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(min(at_once, count - first))
        ]
        for child in wave:
            _, complaint = child.communicate(timeout=PATIENCE)
            if child.returncode:
                failures.append(f"ended with {child.returncode}: {complaint.strip()}")
    return {"starts": count, "failures": failures, "seconds": round(time.monotonic() - began, 1)}


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {"write": write, "read": read, "check": check}

if __name__ == "__main__":
    print(json.dumps(COMMANDS[sys.argv[1]](*sys.argv[2:])))
