"""The protected authentication path: a pinentry program asks for the PIN, the client never sees it (P31)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR, CKS, CKU
from tests.client import P256, READ_WRITE, Client, Template, ffi
from tests.conftest import CHEAP_PINS, PIN, SO_PIN, Fob, module_path
from tests.rules.nss_calls import Slot, start
from tests.rules.pinentry import Fake, fake

TEXT = PIN.decode()
NEW = "new%user\n pin \u00e4"


def configure(home: Path, program: object, label: str = "test", timeout: int = 20) -> None:
    settings = f'[pinentry]\nprogram = "{program}"\ntimeout = {timeout}\n[token."{label}"]\nprotected_path = true\n'
    (home / "config.toml").write_text('[log]\nlevel = "debug"\n' + CHEAP_PINS + settings)


@pytest.fixture
def protected(home: Path, module: Client) -> Callable[..., tuple[Slot, Fake]]:
    """`protected(*answers)`: NSS on a token with PINs and a protected path, and the program that gives the answers."""

    def make(*answers: str, options: str = "", timeout: int = 20) -> tuple[Slot, Fake]:
        module.initialize()
        Fob(module)
        module.ok("C_Finalize", ffi.NULL)
        made = fake(home, *answers, options=options)
        configure(home, made.program, timeout=timeout)
        return start(module).slot, made

    return make


Protected = Callable[..., tuple[Slot, Fake]]


def ask(slot: Slot, user: int = CKU.USER, session: int = 0) -> int:
    """C_Login without a PIN."""
    return slot.client.call("C_Login", session or slot.session, user, ffi.NULL, 0)


def ended(process: int) -> bool:
    """Whether there is no such process any more, not even one that waits to be collected."""
    return not Path(f"/proc/{process}").exists()


@pytest.mark.rule("P31", "SE11")
def test_the_token_asks_for_its_pin(protected: Protected) -> None:
    """Shows CKF_PROTECTED_AUTHENTICATION_PATH; C_Login without a PIN has the pinentry program ask for it."""
    slot, program = protected(TEXT)
    assert slot.flags & CKF.PROTECTED_AUTHENTICATION_PATH
    assert ask(slot) == CKR.OK
    assert slot.is_logged_in()
    assert program.arguments("SETDESC") == ['The PIN of the token "test"']
    assert program.arguments("SETERROR") == []
    assert ask(slot) == CKR.USER_ALREADY_LOGGED_IN
    assert len(program.processes) == 1
    assert ended(program.processes[0])


@pytest.mark.rule("P31")
@pytest.mark.parametrize(
    ("answer", "rv"), [(TEXT, CKR.OK), ("wrong", CKR.USER_NOT_LOGGED_IN), ("", CKR.USER_NOT_LOGGED_IN)]
)
def test_a_careful_key_that_unwraps_has_the_token_ask(protected: Protected, answer: str, rv: int) -> None:
    """Asks in its own dialog for the PIN of a key that asks each time, where the use is one call: C_UnwrapKey."""
    slot, program = protected(TEXT, answer)
    client, session = slot.client, slot.client.open(slot.id)
    assert ask(slot) == CKR.OK
    private: Template = [(CKA.ALWAYS_AUTHENTICATE, True), (CKA.PRIVATE, True), (CKA.UNWRAP, True)]
    public: Template = [(CKA.MODULUS_BITS, 1024), (CKA.PUBLIC_EXPONENT, b"\1\0\1"), (CKA.ENCRYPT, True)]
    encrypting, unwrapping = client.generate_pair(session, CKM.RSA_PKCS_KEY_PAIR_GEN, public, private)
    mechanism = client.mechanism(CKM.RSA_PKCS)
    client.ok("C_EncryptInit", session, mechanism, encrypting)
    blob = client.output("C_Encrypt", session, bytes(32), 32)
    asked: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE_LEN, 32)]
    array, count, kept = client.template(asked)
    handle = ffi.new("CK_ULONG *")
    assert client.call("C_UnwrapKey", session, mechanism, unwrapping, blob, len(blob), array, count, handle) == rv
    assert len(program.processes) == 2
    del kept


@pytest.mark.rule("P31")
def test_a_pin_of_the_client_is_still_taken(protected: Protected) -> None:
    """A client that gives a PIN all the same is not sent to the dialog."""
    slot, program = protected()
    slot.login(PIN)
    assert slot.is_logged_in()
    assert program.told == []


def test_without_a_protected_path_a_client_must_give_the_pin(home: Path, module: Client) -> None:
    module.initialize()
    fob = Fob(module)
    module.ok("C_Logout", fob.session)
    assert not module.token_info(fob.slot).flags & CKF.PROTECTED_AUTHENTICATION_PATH
    assert module.call("C_Login", fob.session, CKU.USER, ffi.NULL, 0) == CKR.ARGUMENTS_BAD


@pytest.mark.rule("P31")
def test_the_dialog_tells_how_many_tries_are_left(protected: Protected) -> None:
    """A wrong PIN answers CKR_PIN_INCORRECT, so NSS asks again; the next dialog then says how many tries are left."""
    slot, program = protected("wrong", "wrong", "", TEXT)
    assert ask(slot) == CKR.PIN_INCORRECT
    assert ask(slot) == CKR.PIN_INCORRECT
    assert ask(slot) == CKR.PIN_INCORRECT  # nothing entered: not counted
    assert ask(slot) == CKR.OK
    assert program.arguments("SETERROR") == [
        "The last PIN was wrong. 9 tries are left.",
        "The last PIN was wrong. 8 tries are left.",
        "The last PIN was wrong. 8 tries are left.",
    ]


@pytest.mark.rule("P31")
@pytest.mark.parametrize(
    ("answer", "rv"),
    [("cancel", CKR.FUNCTION_CANCELED), ("error", CKR.FUNCTION_FAILED), ("die", CKR.FUNCTION_FAILED)],
)
def test_a_dialog_without_an_answer(protected: Protected, answer: str, rv: int) -> None:
    """Cancelling answers CKR_FUNCTION_CANCELED, which NSS does not try again; no attempt at the PIN is counted."""
    slot, program = protected(answer, TEXT)
    assert ask(slot) == rv
    assert not slot.client.token_info(slot.id).flags & CKF.USER_PIN_COUNT_LOW
    assert ended(program.processes[0])
    assert ask(slot) == CKR.OK


@pytest.mark.parametrize("program", ["/no/such/pinentry", "no-such-pinentry", "/dev/null"])
def test_a_missing_program_is_named_in_the_log(home: Path, module: Client, program: str) -> None:
    module.initialize()
    Fob(module)
    module.ok("C_Finalize", ffi.NULL)
    configure(home, program)
    slot = start(module).slot
    assert ask(slot) == CKR.FUNCTION_FAILED
    lines = (home / "keyfob.log").read_text().splitlines()
    assert any(
        "error C_Login" in line and f"{program}, which asks for PINs, cannot be started" in line for line in lines
    )
    slot.login(PIN)


def test_comments_status_lines_and_parts_are_understood(protected: Protected) -> None:
    slot, _ = protected("noise")
    assert ask(slot) == CKR.OK


@pytest.mark.parametrize("options", ["", "old"])
@pytest.mark.rule("P31", "S20")
def test_both_pins_of_a_change_are_asked_for(protected: Protected, options: str) -> None:
    """C_SetPIN without PINs asks for the old one, and for the new one twice; any character may be in it."""
    answers = [TEXT, "123", "123", NEW, NEW] if options else [TEXT, "123", NEW]
    slot, program = protected(*answers, options=options)
    with slot.rw() as session:
        assert slot.client.call("C_SetPIN", session, ffi.NULL, 0, ffi.NULL, 0) == CKR.OK
    assert program.arguments("SETERROR") == ["A PIN has 4 to 255 bytes."]
    assert program.arguments("SETDESC")[-1] == 'A new PIN for the token "test"'
    assert slot.check_password(NEW.encode()) == CKR.OK


def test_two_different_new_pins_change_nothing(protected: Protected) -> None:
    slot, _ = protected(TEXT, "first-new", "second-new", options="old")
    with slot.rw() as session:
        assert slot.client.call("C_SetPIN", session, ffi.NULL, 0, ffi.NULL, 0) == CKR.FUNCTION_CANCELED
    assert slot.check_password(PIN) == CKR.OK


@pytest.mark.rule("P31", "S13", "P6")
def test_nss_sets_the_first_pin_on_a_protected_path(home: Path, module: Client) -> None:
    """NSS's first PIN on a new token: the SO login without a PIN asks nobody, C_InitPIN asks for the new PIN."""
    program = fake(home, TEXT, TEXT)
    configure(home, program.program, label="keyfob")
    slot = start(module).slot
    assert slot.flags & CKF.PROTECTED_AUTHENTICATION_PATH
    with slot.rw() as session:
        assert ask(slot, CKU.SO, session) == CKR.OK
        assert slot.client.call("C_InitPIN", session, ffi.NULL, 0) == CKR.OK
        slot.client.ok("C_Logout", session)
    slot.init_token()
    assert ask(slot) == CKR.OK
    assert slot.is_logged_in()
    assert len(program.processes) == 2


@pytest.mark.rule("P31", "S18")
def test_the_so_pin_is_asked_for_too(home: Path, module: Client) -> None:
    """C_InitToken and the SO's C_Login without a PIN ask for the SO PIN; a new token's SO PIN is asked for twice."""
    so_pin = SO_PIN.decode()
    program = fake(home, so_pin, "wrong", so_pin, so_pin, TEXT)
    configure(home, program.program)
    (home / "config.toml").write_text((home / "config.toml").read_text() + '[token."keyfob"]\nprotected_path = true\n')
    module.initialize()
    label = b"test".ljust(32)
    assert module.call("C_InitToken", 1, ffi.NULL, 0, label) == CKR.OK
    assert module.call("C_InitToken", 1, ffi.NULL, 0, label) == CKR.PIN_INCORRECT
    assert module.call("C_InitToken", 1, ffi.NULL, 0, label) == CKR.OK
    session = module.open(1, READ_WRITE)
    assert module.call("C_Login", session, CKU.SO, ffi.NULL, 0) == CKR.OK
    assert module.call("C_InitPIN", session, ffi.NULL, 0) == CKR.OK
    module.ok("C_Logout", session)
    module.login(session, PIN)
    assert len(program.arguments("SETREPEAT")) == 2
    assert [text for text in program.arguments("SETDESC") if "SO" in text] == [
        "A new SO PIN for the new token in slot 1",
        *['The SO PIN of the token "test"'] * 3,
    ]


@pytest.mark.rule("P31", "P5")
def test_a_key_that_asks_each_time_asks_on_the_protected_path(protected: Protected) -> None:
    """C_Login(CKU_CONTEXT_SPECIFIC) without a PIN asks for it, for each signature once more."""
    slot, program = protected(TEXT, "wrong", TEXT)
    client = slot.client
    assert ask(slot) == CKR.OK
    with slot.rw() as session:
        always = [(CKA.TOKEN, True), (CKA.ALWAYS_AUTHENTICATE, True)]
        _, key = client.generate_pair(session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)], always)
        client.ok("C_SignInit", session, client.mechanism(CKM.ECDSA), key)
        assert ask(slot, CKU.CONTEXT_SPECIFIC, session) == CKR.PIN_INCORRECT
        assert ask(slot, CKU.CONTEXT_SPECIFIC, session) == CKR.OK
        assert len(client.output("C_Sign", session, bytes(32), 32)) == 64
    assert len(program.processes) == 3


def in_thread(call: Callable[[], int]) -> tuple[threading.Thread, list[int]]:
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    return thread, answers


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@pytest.mark.rule("P31", "SE8")
def test_other_sessions_work_while_the_dialog_is_open(protected: Protected) -> None:
    """While the dialog is open other sessions read, search, and log in with a PIN of their own."""
    slot, program = protected("wait", TEXT, timeout=3)
    client = slot.client
    thread, answers = in_thread(lambda: ask(slot))
    until(lambda: any("waiting" in note for note in program.told))
    other = client.open(slot.id, READ_WRITE)
    assert client.state(other) == CKS.RW_PUBLIC_SESSION
    assert client.find(other, [(CKA.CLASS, CKO.CERTIFICATE)]) == []
    client.login(other, PIN)
    client.ok("C_Logout", other)
    assert not answers, "the dialog must still be open"
    thread.join()
    assert answers == [CKR.FUNCTION_CANCELED]
    assert ended(program.processes[0]), "a program that ignores SIGTERM is killed"
    assert ask(slot) == CKR.OK


@pytest.mark.rule("P31", "G3")
def test_c_finalize_closes_the_dialog(protected: Protected) -> None:
    """C_Finalize while a dialog is open ends the dialog and does not wait for an answer."""
    slot, program = protected("wait")
    thread, answers = in_thread(lambda: ask(slot))
    until(lambda: any("waiting" in note for note in program.told))
    slot.client.ok("C_Finalize", ffi.NULL)
    thread.join()
    assert answers == [CKR.CRYPTOKI_NOT_INITIALIZED], "a dialog that ran out of time is CKR_FUNCTION_CANCELED"
    assert ended(program.processes[0])


def test_the_program_gets_the_environment_and_no_descriptor(
    protected: Protected, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GPG_TTY", "/dev/some-terminal")
    monkeypatch.setenv("DISPLAY", ":7")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        slot, program = protected(TEXT)
        assert ask(slot) == CKR.OK
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
    [begun] = [note for note in program.told if "start" in note]
    assert begun["descriptors"] == [0, 1, 2]
    assert (begun["terminal"], begun["display"]) == ("/dev/some-terminal", ":7")
    assert begun["arguments"] == []
    assert begun["blocked"] == 0
    assert "ttyname=/dev/some-terminal" in program.arguments("OPTION")


def test_the_pin_is_in_no_log(protected: Protected, home: Path) -> None:
    secret = "correct horse battery"
    slot, _ = protected(secret, TEXT, secret)
    assert ask(slot) == CKR.PIN_INCORRECT
    with slot.rw() as session:
        assert slot.client.call("C_SetPIN", session, ffi.NULL, 0, ffi.NULL, 0) == CKR.OK
    text = (home / "keyfob.log").read_text()
    assert "the user PIN was changed" in text
    assert secret not in text
    assert TEXT not in text


HOST = """
import os, signal, sys, threading, time
from tests.client import Client, ffi
client = Client(sys.argv[1])
client.initialize()
session = client.open(client.slots()[0])
if sys.argv[2] == "ignores":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
elif sys.argv[2] == "collects":
    def collect(*_):
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
    signal.signal(signal.SIGCHLD, collect)
elif sys.argv[2] == "closed":
    os.close(0)
elif sys.argv[2] == "pipe":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
rv = client.call("C_Login", session, 1, ffi.NULL, 0)
print(rv, client.state(session))
"""


@pytest.mark.parametrize("host", ["ignores", "collects", "closed", "pipe"])
@pytest.mark.parametrize("answer", [TEXT, "die"])
def test_hosts_that_treat_signals_their_own_way(protected: Protected, host: str, answer: str) -> None:
    slot, program = protected(answer)
    slot.client.ok("C_Finalize", ffi.NULL)
    done = subprocess.run(
        [sys.executable, "-c", HOST, str(module_path()), host],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        timeout=30,
        text=True,
        check=True,
    )
    wanted = (CKR.OK, CKS.RW_USER_FUNCTIONS) if answer == TEXT else (CKR.FUNCTION_FAILED, CKS.RW_PUBLIC_SESSION)
    assert tuple(map(int, done.stdout.split())) == wanted
    assert ended(program.processes[0])
