"""A host on a disk that fails: `failing_disk MODULE LIBRARY CALLS ERRORS MODES`, with a token in KEYFOB_HOME.

Runs with LIBRARY (faults.c) in LD_PRELOAD. Each of CALLS (names below, between commas) is made again and again, each
time on a fresh copy of the token: first untouched, to count its system calls, then with each of them failing
with each of ERRORS (numbers) in each of MODES. Then the state of the token is read

    killed    from a copy of the files at the moment of the answer, as a process leaves them that is killed there
    cut       from what was synced by then: what is there after a power failure
    after     from the files after C_Finalize, with the disk working again

and must be the new one everywhere where CKR_OK was answered, and the old one everywhere where it was not; but for
CKR_FUNCTION_FAILED, which says that a killed process may leave either. Prints as JSON how many trials there were of
each kind, and a line for each that is wrong.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from keyfob.spec.constants import CKA, CKM, CKO, CKR, CKU
from keyfob.spec.errors import PKCS11Error, name_of
from keyfob.store import SqliteStore
from keyfob.token.token import DEFAULT_LABEL
from tests.client import P256, Client, Template, ffi
from tests.conftest import PIN, SO_PIN

NEW_PIN, NEW_SO_PIN, WRONG_PIN = b"another-user-pin", b"another-so-pin", b"no-pin-at-all"
ONCE, FOREVER, SHORT = range(3)
KNOWN = 2  # objects of the token, one pair
PAIR: Template = [(CKA.EC_PARAMS, P256), (CKA.TOKEN, True)]
State = dict[str, Any]
NO_TOKEN: State = {"wrong": 0}


class Disk:
    """See faults.c."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)

    def watch(self, folder: Path, durable: Path) -> None:
        self._library.faults_watch(str(folder).encode(), str(durable).encode())

    def arm(self, nth: int, error: int, mode: int) -> None:
        self._library.faults_arm(nth, error, mode)

    def disarm(self) -> int:
        count: int = self._library.faults_disarm()
        return count


class Trial:
    """One call on one copy of the token."""

    def __init__(self, client: Client, home: Path, template: Path, *, empty: bool) -> None:
        self.client = client
        self.home = home
        for folder, source in ((home, template), (home.with_name("cut"), template)):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(source, folder)
            if empty:
                (folder / "tokens" / "slot-1.keyfob").unlink()
        client.initialize()
        self.slot = client.slots()[0]
        if empty:
            return
        self.session = client.open(self.slot)
        client.login(self.session, PIN)
        self.keys = client.find(self.session, [(CKA.CLASS, CKO.PRIVATE_KEY)])

    def end(self) -> None:
        self.client.ok("C_Finalize", ffi.NULL)


def create(trial: Trial) -> int:
    template: Template = [(CKA.CLASS, CKO.DATA), (CKA.TOKEN, True), (CKA.PRIVATE, True), (CKA.VALUE, bytes(9000))]
    array, count, _kept = trial.client.template(template)
    return trial.client.call("C_CreateObject", trial.session, array, count, ffi.new("CK_ULONG *"))


def generate(trial: Trial) -> int:
    public, public_count, _kept = trial.client.template(PAIR)
    private, private_count, _kept_too = trial.client.template([(CKA.TOKEN, True)])
    handles = ffi.new("CK_ULONG[2]")
    mechanism = trial.client.mechanism(CKM.EC_KEY_PAIR_GEN)
    where = (public, public_count, private, private_count, handles, handles + 1)
    return trial.client.call("C_GenerateKeyPair", trial.session, mechanism, *where)


def destroy(trial: Trial) -> int:
    return trial.client.call("C_DestroyObject", trial.session, trial.keys[0])


def change(trial: Trial) -> int:
    return trial.client.set(trial.session, trial.keys[0], [(CKA.LABEL, b"changed"), (CKA.ID, b"changed")])


def copy(trial: Trial) -> int:
    array, count, _kept = trial.client.template([(CKA.LABEL, b"copy")])
    where = (trial.session, trial.keys[0], array, count, ffi.new("CK_ULONG *"))
    return trial.client.call("C_CopyObject", *where)


def set_pin(trial: Trial) -> int:
    return trial.client.call("C_SetPIN", trial.session, PIN, len(PIN), NEW_PIN, len(NEW_PIN))


def log_in_so(trial: Trial) -> None:
    trial.client.ok("C_Logout", trial.session)
    trial.client.login(trial.session, SO_PIN, CKU.SO)


def init_pin(trial: Trial) -> int:
    return trial.client.call("C_InitPIN", trial.session, NEW_PIN, len(NEW_PIN))


def close_sessions(trial: Trial) -> None:
    trial.client.ok("C_CloseAllSessions", trial.slot)


def init_token(trial: Trial) -> int:
    return trial.client.call("C_InitToken", trial.slot, SO_PIN, len(SO_PIN), b"new".ljust(32))


def make_token(trial: Trial) -> int:
    """Where there is none."""
    return init_token(trial)


def log_in_without_pin(trial: Trial) -> None:
    trial.session = trial.client.open(trial.slot)
    trial.client.login(trial.session, b"", CKU.SO)


def first_pin(trial: Trial) -> int:
    """As NSS sets it where there is no token; a token without PIN is as good as none to it."""
    return init_pin(trial)


def log_out(trial: Trial) -> None:
    trial.client.ok("C_Logout", trial.session)


def wrong_pin(trial: Trial) -> int:
    """A wrong PIN that is answered counts; one that is not answered may count."""
    rv = trial.client.call("C_Login", trial.session, CKU.USER, WRONG_PIN, len(WRONG_PIN))
    return CKR.OK if rv == CKR.PIN_INCORRECT else rv


CALLS: dict[str, Callable[[Trial], int]] = {
    "create": create,
    "generate": generate,
    "destroy": destroy,
    "change": change,
    "copy": copy,
    "set_pin": set_pin,
    "init_pin": init_pin,
    "init_token": init_token,
    "wrong_pin": wrong_pin,
    "make_token": make_token,
    "first_pin": first_pin,
}


PREPARE: dict[str, Callable[[Trial], None]] = {
    "init_pin": log_in_so,
    "init_token": close_sessions,
    "wrong_pin": log_out,
    "first_pin": log_in_without_pin,
}
WITHOUT_TOKEN = ("make_token", "first_pin")


def state_of(home: Path) -> State:
    """What the files hold; they are copied, so that looking changes nothing."""
    folder = home.with_name("looked at")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path in (home / "tokens").iterdir():
        if path.name.startswith("slot-1.keyfob") and not path.name.endswith("-shm"):
            shutil.copy(path, folder)
    if not (folder / "slot-1.keyfob").exists():
        return NO_TOKEN
    store = SqliteStore.open(folder / "slot-1.keyfob")
    info = store.info()
    if info.label == DEFAULT_LABEL and not info.user_pin_set:
        store.close()
        return NO_TOKEN
    state: State = {"label": info.label, "epoch": info.epoch, "wrong": info.failed_user, "pin": "", "objects": []}
    for name, pin in (("old", PIN), ("new", NEW_PIN)):
        try:
            store.login("user", pin)
        except PKCS11Error:
            continue
        state["pin"] = name
        break
    for number in store.find([]):
        attributes = store.get(number) or {}
        record = repr(sorted((each, value) for each, value in attributes.items() if each != CKA.UNIQUE_ID))
        random = attributes.get(CKA.CLASS) != CKO.DATA.to_bytes(8, "little") and number > KNOWN  # a pair of each trial
        state["objects"].append(len(attributes) if random else sha256(record.encode()).hexdigest())
    state["problems"] = store.verify()
    store.close()
    return state


def states(trial: Trial, places: dict[str, Path]) -> dict[str, State]:
    trial.end()
    return {name: state_of(path) for name, path in {**places, "after": trial.home}.items()}


class Experiment:
    def __init__(self, client: Client, disk: Disk, home: Path) -> None:
        self.client = client
        self.disk = disk
        self.home = home
        self.template = home.with_name("template")
        shutil.copytree(home, self.template)
        self.counts: dict[str, int] = {}
        self.wrong: list[str] = []

    def run(self, name: str, errors: list[int], modes: list[int]) -> None:
        _, total, found = self.trial(name, 0, 0, ONCE)
        old, new = NO_TOKEN if name in WITHOUT_TOKEN else state_of(self.template), found["after"]
        for error in errors:
            for mode in modes:
                for nth in range(1, total + 1):
                    rv, _, found = self.trial(name, nth, error, mode)
                    self.judge(f"{name}: call {nth} of {total}, {os.strerror(error)}, mode {mode}", rv, found, old, new)

    def trial(self, name: str, nth: int, error: int, mode: int) -> tuple[int, int, dict[str, State]]:
        trial = Trial(self.client, self.home, self.template, empty=name in WITHOUT_TOKEN)
        if name in PREPARE:
            PREPARE[name](trial)
        cut, killed = self.home.with_name("cut"), self.home.with_name("killed")
        self.disk.watch(self.home, cut)
        self.disk.arm(nth, error, mode)
        rv = CALLS[name](trial)
        count = self.disk.disarm()
        self.disk.watch(Path("/nowhere"), Path("/nowhere"))
        shutil.rmtree(killed, ignore_errors=True)
        shutil.copytree(self.home, killed)
        trial.client.token_info(trial.slot)  # reads, with the disk working again
        return rv, count, states(trial, {"killed": killed, "cut": cut})

    def end(self) -> None:
        """The token as it was."""
        shutil.rmtree(self.home)
        self.template.rename(self.home)

    def judge(self, what: str, rv: int, found: dict[str, State], old: State, new: State) -> None:
        kind = {CKR.OK: "done", CKR.FUNCTION_FAILED: "not told"}.get(rv, "refused")
        self.counts[kind] = self.counts.get(kind, 0) + 1
        expected = [new] if rv == CKR.OK else [old, old | {"wrong": new["wrong"]}]
        for place, state in found.items():
            # Whether it happened cannot be told; a log is removed at the end, a token that was made is not.
            told = rv == CKR.FUNCTION_FAILED and (place == "killed" or old == NO_TOKEN)
            if state not in expected and not (told and state == new):
                differs = {key: value for key, value in state.items() if value != expected[0].get(key)}
                self.wrong.append(f"{what}: {name_of('CKR', rv)}, but {place} has {differs}")


def main() -> None:
    module, library, calls, errors, modes = sys.argv[1:]
    home = Path(os.environ["KEYFOB_HOME"])
    experiment = Experiment(Client(module), Disk(library), home)
    for name in calls.split(","):
        experiment.run(name, [int(e) for e in errors.split(",")], [int(m) for m in modes.split(",")])
    experiment.end()
    print(json.dumps({"counts": experiment.counts, "wrong": experiment.wrong}))


if __name__ == "__main__":
    main()
