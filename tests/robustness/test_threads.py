"""Many threads of one host: each gets right answers, whatever the others do; an end ends nothing but itself."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from keyfob.spec.constants import CKA, CKM, CKO, CKR, CKU
from keyfob.spec.errors import name_of
from tests.client import READ_ONLY, READ_WRITE, Client, Template, ffi
from tests.conftest import PIN
from tests.robustness.conftest import Programs
from tests.robustness.hosts import run

DIGEST = bytes(32)
LIMIT = 60.0
# What a call may answer while another thread logs in and out or ends the module; anything else is a defect.
SANE = {
    CKR.OK,
    CKR.CRYPTOKI_NOT_INITIALIZED,
    CKR.CRYPTOKI_ALREADY_INITIALIZED,
    CKR.SESSION_HANDLE_INVALID,
    CKR.SESSION_CLOSED,
    CKR.USER_NOT_LOGGED_IN,
    CKR.USER_ALREADY_LOGGED_IN,
    CKR.KEY_HANDLE_INVALID,
    CKR.OBJECT_HANDLE_INVALID,
    CKR.OPERATION_NOT_INITIALIZED,
}


def together(*works: Callable[[], None]) -> None:
    """Run each in a thread of its own, all at once; the first failure is raised, and none may hang."""
    problems: list[BaseException] = []
    start = threading.Barrier(len(works))

    def guarded(work: Callable[[], None]) -> None:
        try:
            start.wait(LIMIT)
            work()
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if problems:
        raise problems[0]


@pytest.fixture
def opened(key: Path, client: Client) -> int:
    """A session of the user, in the slot of a token with one key pair."""
    client.initialize()
    session = client.open(client.slots()[0])
    client.login(session, PIN)
    return session


@pytest.mark.parametrize(("scenario", "rounds"), [("work", 3), ("finalize", 10)])
def test_posix_threads_of_a_c_host(programs: Programs, key: Path, scenario: str, rounds: int) -> None:
    done = run(programs("threads"), PIN.decode(), scenario, str(rounds), timeout=120)
    assert (done.stdout, done.stderr) == ("ended\n", "")


@pytest.mark.long
@pytest.mark.parametrize(("scenario", "rounds"), [("work", 40), ("finalize", 300)])
def test_posix_threads_of_a_c_host_for_long(programs: Programs, key: Path, scenario: str, rounds: int) -> None:
    test_posix_threads_of_a_c_host(programs, key, scenario, rounds)


@pytest.mark.rule("SE3")
def test_eight_threads_use_one_token(opened: int, client: Client) -> None:
    """Serves eight threads on sessions of their own at the same time."""
    (slot,) = client.slots()
    (public,) = client.find(opened, [(CKA.CLASS, CKO.PUBLIC_KEY)])
    handles: list[int] = []

    def work() -> None:
        session = client.open(slot, READ_WRITE if len(handles) % 2 else READ_ONLY)
        handles.append(session)
        (private,) = client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY)])
        for i in range(50):
            mechanism = client.mechanism(CKM.ECDSA)
            signature = client.sign(session, private, mechanism, DIGEST)
            assert client.verify(session, public, mechanism, DIGEST, signature) == CKR.OK
            if i % 10 == 0:
                assert client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.ID, b"pair")]) == [private]
                assert client.get(session, private, CKA.LABEL, CKA.CLASS) == [
                    b"pair",
                    CKO.PRIVATE_KEY.to_bytes(8, "little"),
                ]
                label = f"{session} {i}"
                made = client.create(session, [(CKA.CLASS, CKO.DATA), (CKA.LABEL, label), (CKA.PRIVATE, False)])
                assert client.find(session, [(CKA.LABEL, label)]) == [made]
                client.ok("C_DestroyObject", session, made)
                client.token_info(slot)
        client.ok("C_CloseSession", session)

    together(*[work] * 8)
    assert len(set(handles)) == 8


def test_threads_on_different_tokens_get_different_sessions_and_objects(home: Path, key: Path, client: Client) -> None:
    """Handles count through the whole process, whatever token they are of (SE10)."""
    for number in (2, 3):
        (home / "tokens" / f"slot-{number}.keyfob").write_bytes(key.read_bytes())
    client.initialize()
    seen: list[tuple[int, int]] = []

    def work(slot: int) -> Callable[[], None]:
        def opening() -> None:
            for _ in range(300):
                session = client.open(slot)
                made = client.create(session, [(CKA.CLASS, CKO.DATA), (CKA.PRIVATE, False)])
                seen.append((session, made))
                client.ok("C_CloseSession", session)

        return opening

    together(*[work(slot) for slot in client.slots() for _ in range(2)])
    assert len(seen) == len({session for session, _ in seen}) == len({made for _, made in seen}) == 1800


def test_logins_and_logouts_race_with_signing(opened: int, client: Client) -> None:
    (slot,) = client.slots()
    (private,) = client.find(opened, [(CKA.CLASS, CKO.PRIVATE_KEY)])
    finished = threading.Event()
    signed = [0]

    def come_and_go() -> None:
        session = client.open(slot)
        for _ in range(15):
            assert client.call("C_Login", session, CKU.USER, PIN, len(PIN)) in SANE
            assert client.call("C_Logout", session) in SANE
        client.call("C_Login", session, CKU.USER, PIN, len(PIN))

    def come_and_go_until_finished() -> None:
        try:
            come_and_go()
        finally:
            finished.set()

    def sign() -> None:
        session = client.open(slot)
        signature, length = ffi.new("char[64]"), ffi.new("CK_ULONG *")
        while not finished.is_set():
            rv = client.call("C_SignInit", session, client.mechanism(CKM.ECDSA), private)
            length[0] = 64
            if rv == CKR.OK:
                rv = client.call("C_Sign", session, DIGEST, 32, signature, length)
                signed[0] += rv == CKR.OK
            assert rv in SANE, name_of("CKR", rv)

    together(come_and_go_until_finished, come_and_go, sign, sign, sign)
    assert signed[0] > 0
    assert client.call("C_Login", opened, CKU.USER, PIN, len(PIN)) in (CKR.OK, CKR.USER_ALREADY_LOGGED_IN)
    client.sign(opened, private, client.mechanism(CKM.ECDSA), DIGEST)


def test_one_thread_ends_the_module_while_others_work(opened: int, client: Client) -> None:
    """What they get is a code; afterwards nothing is left of their sessions."""
    (slot,) = client.slots()
    finished = threading.Event()

    def end_and_begin() -> None:
        try:
            for _ in range(10):
                finished.wait(0.03)
                client.ok("C_Finalize", ffi.NULL)
                finished.wait(0.001)
                client.initialize()
        finally:
            finished.set()

    def work(seed: int) -> Callable[[], None]:
        draw = random.Random(seed)
        template: Template = [(CKA.CLASS, CKO.DATA), (CKA.LABEL, f"label {seed}")]

        def anything() -> None:
            handle, count, info = ffi.new("CK_ULONG *"), ffi.new("CK_ULONG *"), ffi.new("CK_TOKEN_INFO *")
            array, length, _kept = client.template(template)
            session = opened
            while not finished.is_set():
                calls = [
                    ("C_OpenSession", slot, READ_WRITE, ffi.NULL, ffi.NULL, handle),
                    ("C_GetTokenInfo", slot, info),
                    ("C_GetSlotList", 0, ffi.NULL, count),
                    ("C_CreateObject", session, array, length, handle),
                    ("C_FindObjectsInit", session, array, length),
                    ("C_FindObjects", session, handle, 1, count),
                    ("C_FindObjectsFinal", session),
                    ("C_CloseSession", session),
                    ("C_Login", session, CKU.USER, PIN, len(PIN)),
                ]
                name, *arguments = draw.choice(calls)
                assert isinstance(name, str)
                rv = client.call(name, *arguments)
                allowed = SANE | {CKR.OPERATION_ACTIVE, CKR.SESSION_COUNT}
                assert rv in allowed, f"{name}: {name_of('CKR', rv)}"
                if name == "C_OpenSession" and rv == CKR.OK:
                    session = handle[0]

        return anything

    together(end_and_begin, *[work(seed) for seed in range(6)])
    client.ok("C_Finalize", ffi.NULL)
    client.initialize()
    assert client.token_info(slot).ulSessionCount == 0
    session = client.open(slot)
    client.login(session, PIN)


@pytest.mark.rule("P28")
def test_a_wait_for_a_slot_event_ends_with_the_module(opened: int, client: Client) -> None:
    """Ends a wait for slot events with the module, from another thread."""
    slot = ffi.new("CK_ULONG *")
    ended: list[int] = []

    def wait() -> None:
        ended.append(client.call("C_WaitForSlotEvent", 0, slot, ffi.NULL))

    def end() -> None:
        threading.Event().wait(0.2)
        client.ok("C_Finalize", ffi.NULL)

    together(wait, wait, end)
    assert ended == [CKR.CRYPTOKI_NOT_INITIALIZED] * 2
