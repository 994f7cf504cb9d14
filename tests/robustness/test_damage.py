"""Tokens that are missing, unreadable, read-only, damaged, newer, or on a full disk.

A code, a line in the log, and the data stay; a healthy token beside them works.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyfob.spec.constants import CKA, CKF, CKO, CKR
from keyfob.store import SqliteStore
from tests.client import Client, ffi
from tests.conftest import PIN, SO_PIN
from tests.robustness.conftest import Programs
from tests.robustness.damaged_token import look, look_at_all
from tests.robustness.hosts import answer_of, environment, python_child, start
from tests.robustness.inspect_token import problems

Spoil = Callable[[Path], None]
PAIR = {f"{CKO.PUBLIC_KEY} pair": "pair", f"{CKO.PRIVATE_KEY} pair": "pair"}
REFUSED = (CKR.DEVICE_ERROR, CKR.TOKEN_NOT_RECOGNIZED, CKR.TOKEN_NOT_PRESENT)
UNKNOWN = (CKR.USER_NOT_LOGGED_IN, CKR.KEY_HANDLE_INVALID, CKR.OBJECT_HANDLE_INVALID)
EMPTY_LOG = {"slot-1.keyfob-wal", "slot-1.keyfob-shm"}  # what SQLite leaves beside a file that is refused
PINS = (PIN.decode(), SO_PIN.decode())


@pytest.fixture
def two(key: Path) -> Path:
    """The first of two tokens; the second, in slot 2, is as healthy as a copy can be."""
    shutil.copy(key, key.with_name("slot-2.keyfob"))
    return key


def log_of(home: Path) -> list[str]:
    """Warnings and errors."""
    try:
        text = (home / "keyfob.log").read_text()
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.split(" ", 3)[2] in ("warning", "error")]


def child(home: Path, *, initialise: bool = False) -> Any:
    """What a process of its own sees, that obeys permissions."""
    more = {"INITIALISE": "1"} if initialise else {}
    return answer_of(python_child("damaged_token", *PINS, prefix=unprivileged(), KEYFOB_HOME=str(home), **more))


def here(client: Client, *, initialise: bool = False) -> Any:
    """What this process sees; a crash would end the whole run."""
    client.call("C_Finalize", ffi.NULL)
    return look_at_all(client, PIN, SO_PIN, initialise=initialise)


def check_healthy(seen: Any) -> None:
    assert (seen["info"], seen["token"], seen["open"], seen["login"]) == (CKR.OK,) * 4
    assert seen["objects"] == PAIR
    assert (seen["sign"], seen["create"]) == (CKR.OK, CKR.OK)


def zero_bytes(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def one_page(path: Path) -> None:
    os.truncate(path, 4096)


def headless(path: Path) -> None:
    os.truncate(path, 50)


def text(path: Path) -> None:
    path.write_text("this was never a token\n" * 1000)


def noise(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def foreign_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipe (name TEXT)")
    connection.close()


def newer_schema(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def damaged_facts(path: Path) -> None:
    """The rows about the token itself, each of them."""
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = x'00'")
    connection.close()


SPOILT: list[Spoil] = [
    zero_bytes,
    half,
    one_page,
    headless,
    text,
    noise,
    foreign_database,
    newer_schema,
    directory,
    dangling_link,
    damaged_facts,
]


def content_of(path: Path) -> bytes | str:
    return os.readlink(path) if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_spoilt_token_is_refused_and_kept(home: Path, two: Path, client: Client, spoil: Spoil) -> None:
    spoil(two)
    before = content_of(two)
    spoilt = here(client, initialise=True)["1"]
    assert spoilt["info"] == CKR.OK
    assert spoilt["token"] in REFUSED
    assert spoilt["open"] in REFUSED
    assert spoilt["initialise"] in REFUSED, "its data could be lost"
    assert content_of(two) == before
    assert any("slot 1" in line for line in log_of(home))
    assert {path.name for path in two.parent.iterdir()} - EMPTY_LOG == {"slot-1.keyfob", "slot-2.keyfob"}


@pytest.mark.parametrize("spoil", SPOILT)
def test_beside_a_spoilt_token_a_healthy_one_works(home: Path, two: Path, client: Client, spoil: Spoil) -> None:
    spoil(two)
    client.initialize()
    assert client.slots() == [1, 2]
    check_healthy(look(client, 2, PIN))
    client.ok("C_CloseAllSessions", 2)
    client.ok("C_InitToken", 2, SO_PIN, len(SO_PIN), b"anew".ljust(32))
    client.ok("C_Finalize", ffi.NULL)


def test_a_newer_schema_is_refused_untouched(home: Path, two: Path, client: Client) -> None:
    newer_schema(two)
    before = two.read_bytes(), two.stat().st_mtime_ns
    seen = here(client, initialise=True)["1"]
    assert (seen["token"], seen["open"], seen["initialise"]) == (CKR.TOKEN_NOT_RECOGNIZED,) * 3
    assert (two.read_bytes(), two.stat().st_mtime_ns) == before
    assert any("newer" in line for line in log_of(home))


def test_nss_cannot_set_a_first_pin_on_a_spoilt_token(key: Path, client: Client) -> None:
    """P6 is for tokens that are not there yet."""
    zero_bytes(key)
    client.initialize()
    handle = ffi.new("CK_ULONG *")
    assert client.call("C_OpenSession", 1, CKF.SERIAL_SESSION | CKF.RW_SESSION, ffi.NULL, ffi.NULL, handle) in REFUSED
    client.slots()
    assert client.call("C_InitToken", 1, SO_PIN, len(SO_PIN), b"new".ljust(32)) in REFUSED
    client.ok("C_Finalize", ffi.NULL)
    assert key.read_bytes() == b""


def test_a_missing_token_leaves_a_slot_to_initialise(key: Path, client: Client) -> None:
    key.unlink()
    seen = here(client, initialise=True)["1"]
    assert seen["token"] == CKR.OK
    assert not seen["flags"] & CKF.TOKEN_INITIALIZED
    assert seen["initialise"] == CKR.OK


def test_a_repaired_token_is_taken_up_without_a_restart(key: Path, client: Client) -> None:
    whole = key.read_bytes()
    zero_bytes(key)
    client.initialize()
    assert client.call("C_GetTokenInfo", 1, ffi.new("CK_TOKEN_INFO *")) in REFUSED
    key.write_bytes(whole)
    client.slots()
    check_healthy(look(client, 1, PIN))


def test_what_a_removed_token_left_behind_does_not_come_back_in_a_new_one(
    home: Path, key: Path, client: Client, programs: Programs
) -> None:
    """A write-ahead log beside a token that is gone: SQLite would play the old pages into the new file."""
    with start(programs("kill"), "objects", PIN.decode(), "1") as victim:
        assert victim.stdout is not None
        while not victim.stdout.readline().startswith(b"done"):
            pass
        victim.kill()
    assert key.with_name(key.name + "-wal").stat().st_size > 0
    key.unlink()
    client.initialize()
    new_pin = b"another-so-pin"
    client.ok("C_InitToken", 1, new_pin, len(new_pin), b"new".ljust(32))
    assert bytes(ffi.buffer(client.token_info(1).label)).rstrip() == b"new"
    session = client.open(1)
    client.login(session, new_pin, 0)
    profiles = client.find(session, [(CKA.CLASS, CKO.PROFILE)])
    assert profiles
    assert client.find(session, []) == profiles  # built in, and nothing else
    client.ok("C_Finalize", ffi.NULL)
    store = SqliteStore.open(key)
    store.login("so", new_pin)
    assert store.verify() == []
    store.close()


def test_what_a_killed_process_was_about_to_publish_is_removed(key: Path, client: Client) -> None:
    """It can be a second name of the token itself, which would outlive the token's removal."""
    with subprocess.Popen(["true"]) as dead:
        pass
    left = key.with_name(f".{key.name}.{dead.pid}-0123456789ab.new")
    others = key.with_name(f".{key.name}.{os.getpid()}-0123456789ab.new")
    foreign = key.with_name(".notes.new")
    left.hardlink_to(key)
    for path in (others, foreign):
        path.touch()
    client.initialize()
    client.ok("C_Finalize", ffi.NULL)
    assert sorted(key.parent.iterdir()) == sorted([others, foreign, key])


# Flipped bytes


def check_flipped(home: Path, client: Client) -> bool:
    """Look at both tokens; whether the flipped byte made a difference."""
    (home / "keyfob.log").unlink(missing_ok=True)
    client.initialize()
    assert client.slots() == [1, 2]
    seen, healthy = look(client, 1, PIN), look(client, 2, PIN)
    client.ok("C_Finalize", ffi.NULL)
    check_healthy(healthy)
    assert seen["info"] == CKR.OK
    for name, label in seen.get("objects", {}).items():
        if name.startswith("unreadable"):
            assert label == CKR.DEVICE_ERROR
        else:
            assert PAIR.get(name) == label, "a wrong value"
    for call in ("token", "open", "login", "create", "refused"):
        assert seen.get(call, CKR.OK) in (CKR.OK, *REFUSED, *UNKNOWN), call
    assert seen.get("sign", CKR.OK) in (CKR.OK, CKR.DEVICE_ERROR, *UNKNOWN, -1)
    right = "sign" in seen and seen.get("objects") == PAIR and seen["sign"] == seen["create"] == CKR.OK
    if not right and log_of(home) == []:
        # A look-up row that leads nowhere, a b-tree's page that lost its cells: not seen in passing, but by the check.
        assert problems(home / "tokens" / "slot-1.keyfob", PIN) != [], "nothing in the log, nothing found by the check"
    return not right


@pytest.mark.parametrize("places", [60, pytest.param(1500, marks=pytest.mark.long)])
def test_a_flipped_byte_is_noticed_or_without_effect(home: Path, two: Path, client: Client, places: int) -> None:
    whole = two.read_bytes()
    healthy = two.with_name("slot-2.keyfob").read_bytes()
    draw = random.Random(places)
    used = [i for i in range(len(whole)) if whole[i]]
    noticed = 0
    for number in range(places):
        place = draw.choice(used) if number % 3 else draw.randrange(len(whole))
        flipped = bytearray(whole)
        flipped[place] ^= draw.randrange(1, 256)
        two.write_bytes(flipped)
        two.with_name("slot-2.keyfob").write_bytes(healthy)
        try:
            noticed += check_flipped(home, client)
        except AssertionError as problem:
            raise AssertionError(f"byte {place}: {whole[place]} became {flipped[place]}") from problem
    print(f"{noticed} of {places} flipped bytes made a difference")
    assert noticed > places // 10


# Permissions and space


def unprivileged() -> list[str]:
    """What makes a command obey permissions, also when root runs the tests."""
    if os.geteuid() != 0:
        return []
    program = shutil.which("setpriv")
    if program is None:
        pytest.skip("root cannot be kept from reading files without setpriv")
    return [program, "--bounding-set=-dac_override,-dac_read_search,-fowner"]


def test_an_unreadable_token_is_refused_and_kept(home: Path, two: Path) -> None:
    two.chmod(0)
    seen = child(home, initialise=True)
    unreadable = seen["1"]
    assert (unreadable["token"], unreadable["open"], unreadable["initialise"]) == (CKR.DEVICE_ERROR,) * 3
    assert any("slot 1" in line for line in log_of(home))
    two.chmod(0o600)
    check_healthy(child(home)["1"])


@pytest.mark.parametrize("folder", [False, True])
def test_a_read_only_token_signs_and_takes_no_writes(home: Path, key: Path, folder: bool) -> None:
    key.chmod(0o400)
    if folder:
        key.parent.chmod(0o500)
    before = key.read_bytes()
    try:
        seen = child(home)["1"]
    finally:
        key.parent.chmod(0o700)
    assert seen["token"] == CKR.OK
    assert seen["flags"] & CKF.WRITE_PROTECTED
    assert (seen["open"], seen["login"], seen["sign"]) == (CKR.OK,) * 3
    assert seen["objects"] == PAIR
    assert seen["create"] == CKR.TOKEN_WRITE_PROTECTED
    assert key.read_bytes() == before


def test_a_read_only_token_cannot_be_initialised(home: Path, key: Path) -> None:
    key.chmod(0o400)
    seen = child(home, initialise=True)["1"]
    assert seen["initialise"] == CKR.TOKEN_WRITE_PROTECTED
    assert seen["objects"] == PAIR


@pytest.mark.parametrize("mode", [0, 0o500])
def test_a_folder_that_cannot_be_read_or_written_answers_with_a_code(home: Path, mode: int) -> None:
    folder = home / "tokens"
    folder.mkdir()
    folder.chmod(mode)
    seen = child(home, initialise=True)
    folder.chmod(0o700)
    assert seen["1"]["info"] == CKR.OK
    assert seen["1"]["initialise"] in (CKR.TOKEN_WRITE_PROTECTED, CKR.DEVICE_ERROR)
    assert list(folder.iterdir()) == []
    assert log_of(home) != [] or "cannot be made" in (home / "keyfob.log").read_text()


def test_a_file_in_place_of_the_folder_answers_with_a_code(home: Path, client: Client) -> None:
    (home / "tokens").write_text("no folder")
    assert here(client, initialise=True)["1"]["initialise"] in (CKR.TOKEN_WRITE_PROTECTED, CKR.DEVICE_ERROR)
    assert (home / "tokens").read_text() == "no folder"
    assert log_of(home) != []


def test_a_log_that_cannot_be_written_stops_nothing(home: Path, key: Path, client: Client) -> None:
    (home / "keyfob.log").unlink()
    (home / "keyfob.log").mkdir()
    check_healthy(here(client)["1"])


@pytest.mark.parametrize("config", ["not = toml = at all", "log = 3\npin = 'x'\n[sessions]\nmax = -1", "\xff\xfe"])
def test_a_faulty_configuration_is_named_and_the_defaults_hold(
    home: Path, key: Path, client: Client, config: str
) -> None:
    (home / "config.toml").write_bytes(config.encode("latin-1"))
    check_healthy(here(client)["1"])
    assert any("config.toml" in line for line in log_of(home))


def check_full(seen: Any) -> None:
    assert seen["created"] in (CKR.DEVICE_MEMORY, CKR.DEVICE_ERROR)
    assert seen["found"] == seen["kept"] == seen["acknowledged"] + (seen["again"] == CKR.OK)
    assert seen["acknowledged"] > 0
    assert (seen["sign"], seen["public"], seen["finalize"]) == (CKR.OK, 1, CKR.OK)
    assert seen["login"] in (CKR.OK, CKR.DEVICE_MEMORY, CKR.DEVICE_ERROR)
    assert (seen["later"], seen["signs"], seen["makes"], seen["problems"]) == (CKR.OK, CKR.OK, CKR.OK, [])


def test_files_that_may_not_grow_lose_nothing(home: Path, key: Path) -> None:
    check_full(answer_of(python_child("full_disk", PIN.decode(), "limit", KEYFOB_HOME=str(home))))


def test_a_full_disk_loses_nothing(home: Path, key: Path) -> None:
    script = 'mount -t tmpfs -o size=1m tmpfs "$DISK" && cp -a "$KEPT/." "$DISK" && KEYFOB_HOME="$DISK" exec "$@"'
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    prefix = ["unshare", "--mount", *user, "sh", "-c", script, "sh"]
    disk = home.with_name("disk")
    disk.mkdir()
    places = {"DISK": str(disk), "KEPT": str(home)}
    tried = subprocess.run([*prefix, "true"], env=environment(**places), capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip("no file system can be mounted here")
    seen = answer_of(python_child("full_disk", PIN.decode(), "space", prefix=prefix, **places))
    check_full(seen)
    assert seen["created"] == CKR.DEVICE_MEMORY
