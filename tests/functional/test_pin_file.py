"""A PIN file: the token opens itself for programs that cannot ask for a PIN, and a wrong file never locks it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR, CKS, CKU
from tests.client import P256, READ_ONLY, Client, Template, ffi
from tests.conftest import CHEAP_PINS, PIN, SO_PIN, Fob, module_path

NEW_PIN = b"another pin"
# Another program: starts the module, opens a session; prints the flags, and how many private keys it sees.
PROGRAM = """
import sys
from keyfob.spec.constants import CKA, CKO
from tests.client import READ_ONLY, Client
client = Client(sys.argv[1])
client.initialize()
slot = client.slots()[0]
session = client.open(slot, READ_ONLY)
print(client.token_info(slot).flags, len(client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY)])))
"""


@pytest.fixture
def file(home: Path) -> Path:
    return home / "pin"


@pytest.fixture
def client(home: Path, file: Path) -> Iterator[Client]:
    """The module on a token `test` with a private key; config.toml names a PIN file, which is not there yet."""
    (home / "config.toml").write_text(CHEAP_PINS + '[token."test"]\npin_file = "pin"\n')
    loaded = Client(str(module_path()))
    loaded.call("C_Finalize", ffi.NULL)
    loaded.initialize()
    fob = Fob(loaded)
    usages = [(CKA.TOKEN, True), (CKA.PRIVATE, True), (CKA.SIGN, True)]
    loaded.generate_pair(fob.session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256), (CKA.TOKEN, True)], usages)
    restart(loaded)
    yield loaded
    loaded.call("C_Finalize", ffi.NULL)


def restart(client: Client) -> None:
    client.ok("C_Finalize", ffi.NULL)
    client.initialize()


def write(file: Path, content: bytes) -> None:
    """A new file in the place of the old one, as a secret that is mounted anew."""
    part = file.with_suffix(".part")
    part.write_bytes(content)
    part.chmod(0o600)
    part.replace(file)


def keys(client: Client, session: int) -> list[int]:
    return client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY)])


def flags(client: Client) -> int:
    found: int = client.token_info(client.slots()[0]).flags
    return found


def failures(client: Client) -> int:
    """Wrong PINs in a row."""
    from keyfob.store import SqliteStore

    store = SqliteStore.open(Path(os.environ["KEYFOB_HOME"]) / "tokens" / f"slot-{client.slots()[0]}.keyfob")
    try:
        return store.info().failed_user
    finally:
        store.close()


def log_of(home: Path) -> str:
    return (home / "keyfob.log").read_text()


def another_program() -> tuple[int, int]:
    command = [sys.executable, "-c", PROGRAM, str(module_path())]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    shown, seen = ran.stdout.split()
    return int(shown), int(seen)


# The right file


@pytest.mark.parametrize("content", [PIN, PIN + b"\n", PIN + b"\r\nmore", PIN + b"\n\n"])
def test_the_file_opens_the_token_and_nobody_is_asked(client: Client, file: Path, content: bytes) -> None:
    """No CKF_LOGIN_REQUIRED, as with an empty PIN (S14), and private keys sign in the first session."""
    write(file, content)
    assert flags(client) & (CKF.LOGIN_REQUIRED | CKF.USER_PIN_INITIALIZED) == CKF.USER_PIN_INITIALIZED
    session = client.open(client.slots()[0], READ_ONLY)
    (key,) = keys(client, session)
    assert len(client.sign(session, key, client.mechanism(CKM.ECDSA), bytes(32))) == 64


def test_the_first_session_opens_it_too(client: Client, file: Path) -> None:
    """Of a program that never looks at the flags; and it makes private keys."""
    write(file, PIN)
    session = client.open(client.slots()[0])
    assert len(keys(client, session)) == 1
    kind: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.GENERIC_SECRET), (CKA.VALUE, b"x" * 16)]
    client.create(session, [*kind, (CKA.TOKEN, True), (CKA.PRIVATE, True)])


def test_another_program_is_let_in_too(client: Client, file: Path) -> None:
    write(file, PIN)
    shown, seen = another_program()
    assert not shown & CKF.LOGIN_REQUIRED
    assert seen == 1


@pytest.mark.parametrize("pin", [None, b"", PIN])
def test_who_logs_in_all_the_same_is_let_in(client: Client, file: Path, pin: bytes | None) -> None:
    """With no PIN, the empty one, or the PIN; after the logout the keys are still there."""
    write(file, PIN)
    session = client.open(client.slots()[0])
    argument = ffi.NULL if pin is None else ffi.new("unsigned char[]", pin)
    client.ok("C_Login", session, CKU.USER, argument, len(pin or b""))
    assert client.state(session) == CKS.RW_USER_FUNCTIONS
    assert len(keys(client, session)) == 1
    client.ok("C_Logout", session)
    assert client.state(session) == CKS.RW_PUBLIC_SESSION
    assert len(keys(client, session)) == 1


def test_a_wrong_pin_of_a_program_is_wrong_and_counts(client: Client, file: Path) -> None:
    write(file, PIN)
    session = client.open(client.slots()[0])
    assert client.call("C_Login", session, CKU.USER, b"wrong", 5) == CKR.PIN_INCORRECT
    assert failures(client) == 1
    assert len(keys(client, session)) == 1


def test_the_pin_is_changed_with_the_pin_and_not_without(client: Client, file: Path, home: Path) -> None:
    """NSS takes the token's PIN for the empty one and may give that as the old one: no attempt is counted."""
    write(file, PIN)
    session = client.open(client.slots()[0])
    assert client.call("C_SetPIN", session, b"", 0, NEW_PIN, len(NEW_PIN)) == CKR.PIN_INCORRECT
    assert client.call("C_SetPIN", session, ffi.NULL, 0, NEW_PIN, len(NEW_PIN)) == CKR.PIN_INCORRECT
    assert failures(client) == 0
    client.ok("C_SetPIN", session, PIN, len(PIN), NEW_PIN, len(NEW_PIN))
    assert len(keys(client, session)) == 1  # what is open stays open
    restart(client)
    assert flags(client) & CKF.LOGIN_REQUIRED  # the file has the old one
    write(file, NEW_PIN)
    assert not flags(client) & CKF.LOGIN_REQUIRED


def test_the_so_is_shown_no_private_keys(client: Client, file: Path) -> None:
    write(file, PIN)
    session = client.open(client.slots()[0])
    assert len(keys(client, session)) == 1
    client.login(session, SO_PIN, CKU.SO)
    assert keys(client, session) == []
    client.ok("C_Logout", session)
    again = client.open(client.slots()[0])
    assert len(keys(client, again)) == len(keys(client, session)) == 1


def test_a_key_that_asks_each_time_takes_no_pin(client: Client, file: Path) -> None:
    """CKU_CONTEXT_SPECIFIC with none; a wrong one is still wrong."""
    write(file, PIN)
    session = client.open(client.slots()[0])
    usages = [(CKA.PRIVATE, True), (CKA.SIGN, True), (CKA.ALWAYS_AUTHENTICATE, True), (CKA.TOKEN, True)]
    _, key = client.generate_pair(session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)], usages)
    client.ok("C_SignInit", session, client.mechanism(CKM.ECDSA), key)
    assert client.call("C_Login", session, CKU.CONTEXT_SPECIFIC, b"wrong", 5) == CKR.PIN_INCORRECT
    client.ok("C_Login", session, CKU.CONTEXT_SPECIFIC, b"", 0)
    assert len(client.output("C_Sign", session, bytes(32), 32)) == 64


def test_a_token_that_is_initialised_by_another_program_is_closed(client: Client, file: Path, home: Path) -> None:
    from keyfob.store import SqliteStore

    write(file, PIN)
    session = client.open(client.slots()[0])
    assert len(keys(client, session)) == 1
    other = SqliteStore.open(home / "tokens" / "slot-1.keyfob")
    other.reset("test", SO_PIN)
    other.close()
    assert keys(client, session) == []
    assert flags(client) & CKF.LOGIN_REQUIRED


def test_a_credential_opens_the_token(client: Client, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config.toml").write_text(CHEAP_PINS + '[token."test"]\npin_file = "credential:pin"\n')
    (home / "credentials").mkdir()
    write(home / "credentials" / "pin", PIN)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(home / "credentials"))
    restart(client)
    assert not flags(client) & CKF.LOGIN_REQUIRED
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    restart(client)
    assert flags(client) & CKF.LOGIN_REQUIRED
    assert "$CREDENTIALS_DIRECTORY is not set" in log_of(home)


# No file, a wrong file


@pytest.mark.parametrize("content", [None, b"", b"\nPIN", b"x" * 300])
def test_without_a_pin_in_the_file_the_token_asks_as_ever(
    client: Client, file: Path, home: Path, content: bytes | None
) -> None:
    if content is not None:
        write(file, content)
    for _ in range(3):
        assert flags(client) & CKF.LOGIN_REQUIRED
    session = client.open(client.slots()[0])
    assert keys(client, session) == []
    assert failures(client) == 0
    assert log_of(home).count("the PIN file does not open the token") == 1
    client.login(session, PIN)
    assert len(keys(client, session)) == 1


def test_a_wrong_file_costs_one_attempt_however_often_programs_start(client: Client, file: Path, home: Path) -> None:
    """Also as a new file with the old content, as systemd makes one with each start; the token asks as ever."""
    for _ in range(2):
        write(file, b"wrong pin")
        for _ in range(2):
            session = client.open(client.slots()[0])
            assert keys(client, session) == []
            assert flags(client) & CKF.LOGIN_REQUIRED
        restart(client)
    assert another_program()[1] == 0
    assert failures(client) == 1
    assert f"the PIN in {file} is wrong" in log_of(home)
    client.login(client.open(client.slots()[0]), PIN)
    assert failures(client) == 0


def test_another_wrong_file_costs_another_attempt_and_the_last_ones_are_left_for_people(
    client: Client, file: Path
) -> None:
    for number in range(12):
        write(file, b"wrong pin %d" % number)
        assert flags(client) & CKF.LOGIN_REQUIRED
    assert failures(client) == 7
    assert not flags(client) & CKF.USER_PIN_LOCKED
    client.login(client.open(client.slots()[0]), PIN)


def test_a_file_that_is_put_right_opens_the_token_at_once(client: Client, file: Path) -> None:
    write(file, b"wrong pin")
    assert flags(client) & CKF.LOGIN_REQUIRED
    write(file, PIN)
    session = client.open(client.slots()[0])
    assert len(keys(client, session)) == 1
    assert failures(client) == 0


def test_a_pin_that_is_changed_to_the_files_opens_the_token(client: Client, file: Path) -> None:
    """The file is as it was when it was wrong."""
    write(file, NEW_PIN)
    assert flags(client) & CKF.LOGIN_REQUIRED
    session = client.open(client.slots()[0])
    client.ok("C_SetPIN", session, PIN, len(PIN), NEW_PIN, len(NEW_PIN))
    assert not flags(client) & CKF.LOGIN_REQUIRED
    restart(client)
    assert not flags(client) & CKF.LOGIN_REQUIRED


def test_many_programs_that_start_at_once_make_one_attempt(client: Client, file: Path) -> None:
    write(file, b"wrong pin")
    threads = [threading.Thread(target=another_program) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures(client) == 1


def test_where_nothing_can_be_remembered_the_pin_is_not_locked_either(client: Client, file: Path, home: Path) -> None:
    """Each process then makes one attempt, until the last ones."""
    seen = home / "seen"
    for each in seen.iterdir():
        each.unlink()
    seen.rmdir()
    seen.write_text("no folder")
    for _ in range(12):
        write(file, b"wrong pin")
        assert flags(client) & CKF.LOGIN_REQUIRED
        restart(client)
    assert 1 <= failures(client) <= 7


def test_what_is_remembered_is_not_the_pin(client: Client, file: Path, home: Path) -> None:
    wrong = b"my other PIN, for something else"
    write(file, wrong)
    assert flags(client) & CKF.LOGIN_REQUIRED
    (kept,) = (home / "seen").glob("*.pin-file")
    assert len(kept.read_bytes()) == 16
    assert kept.stat().st_mode & 0o777 == 0o600
    for each in (*home.glob("*.log"), *home.glob("*.jsonl"), *(home / "seen").iterdir()):
        assert wrong not in each.read_bytes()


def test_a_file_that_others_can_read_is_named_and_left_as_it_is(client: Client, file: Path, home: Path) -> None:
    """keyfob did not make it."""
    write(file, PIN)
    file.chmod(0o644)
    assert not flags(client) & CKF.LOGIN_REQUIRED
    assert file.stat().st_mode & 0o777 == 0o644
    assert f"{file} is open to other users" in log_of(home)


def test_a_file_that_others_can_write_opens_nothing(client: Client, file: Path, home: Path) -> None:
    write(file, PIN)
    file.chmod(0o666)
    assert flags(client) & CKF.LOGIN_REQUIRED
    assert f"{file} is not believed: it can be written by everybody (mode 0666)" in log_of(home)
    assert failures(client) == 0


def test_the_audit_log_tells_who_opened_the_token_by_the_file(client: Client, file: Path, home: Path) -> None:
    write(file, b"wrong pin")
    assert flags(client) & CKF.LOGIN_REQUIRED
    write(file, PIN)
    assert not flags(client) & CKF.LOGIN_REQUIRED
    lines = (home / "keyfob-audit.jsonl").read_text().splitlines()
    assert any('"login-failed"' in line and '"purpose": "pin-file"' in line for line in lines)
    assert any('"event": "login"' in line and '"by": "pin-file"' in line for line in lines)


def test_pepper_and_pin_can_both_come_from_files(client: Client, file: Path, home: Path) -> None:
    from keyfob import config
    from keyfob.store import SqliteStore

    pepper = home / "pepper"
    pepper.write_bytes(os.urandom(32))
    store = SqliteStore.open(home / "tokens" / "slot-1.keyfob")
    store.configure(config.load(os.environ))
    store.login("user", PIN)
    store.set_pepper(str(pepper), {"user": PIN, "so": SO_PIN})
    store.close()
    with (home / "config.toml").open("a") as settings:
        settings.write('pepper = "pepper"\n')
    write(file, PIN)
    assert not flags(client) & CKF.LOGIN_REQUIRED
    pepper.rename(home / "away")
    restart(client)
    for _ in range(3):
        assert flags(client) & CKF.LOGIN_REQUIRED
    assert failures(client) == 0
    (home / "away").rename(pepper)
    assert not flags(client) & CKF.LOGIN_REQUIRED
