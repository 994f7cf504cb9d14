"""PINs and room: on a full disk a login and a destruction still work, and no wrong PIN goes uncounted anywhere."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from keyfob.spec.constants import CKR, CKU
from keyfob.store.reserve import NAME, SIZE
from tests.client import Client, ffi
from tests.conftest import PIN, SO_PIN, Fob
from tests.robustness.hosts import answer_of, environment, python_child
from tests.robustness.test_damage import unprivileged

MOST_FAILURES = 10
MOUNT = 'mount -t tmpfs -o size=1536k tmpfs "$DISK" && cp -a "$KEPT/." "$DISK" && export KEYFOB_HOME="$DISK"'
FILL = 'cat /dev/zero > "$DISK/filler" 2> /dev/null'


@pytest.fixture
def disk(home: Path, key: Path) -> dict[str, str]:
    """The environment of `on_disk`: the token's home is copied to a small file system."""
    folder = home.with_name("disk")
    folder.mkdir()
    places = {"DISK": str(folder), "KEPT": str(home)}
    tried = subprocess.run([*on_disk("true"), "true"], env=environment(**places), capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip("no file system can be mounted here")
    return places


def on_disk(*steps: str) -> list[str]:
    """What runs a command after these steps, with KEYFOB_HOME on a file system of 1.5 MiB that goes with it."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = "; ".join([f"{MOUNT} || exit 1", *steps, 'exec "$@"'])
    return ["unshare", "--mount", *user, "sh", "-c", script, "sh"]


def guesses(prefix: Sequence[str], places: dict[str, str], most: int = 30) -> Any:
    return answer_of(python_child("guess", PIN.decode(), str(most), prefix=prefix, **places))


def again(count: int) -> str:
    """A step: so many programs that guess, one after the other; what they print goes to a file each."""
    return f'for i in $(seq {count}); do "$@" > "$KEPT/guesses-$i"; done'


def test_room_is_kept_and_given_back(home: Path, client: Client, fob: Fob) -> None:
    room = home / "seen" / NAME
    assert room.stat().st_size == SIZE
    assert room.stat().st_blocks * 512 >= SIZE
    room.unlink()
    client.ok("C_Finalize", ffi.NULL)
    assert room.stat().st_size == SIZE


def test_a_token_that_fills_its_own_disk_is_still_open_and_can_be_emptied(disk: dict[str, str]) -> None:
    seen = answer_of(python_child("crowded", PIN.decode(), prefix=on_disk(), **disk))
    assert seen["made"] > 20
    assert seen["refused"] == CKR.DEVICE_MEMORY
    assert (seen["login"], seen["wrong"], seen["again"]) == (CKR.OK, CKR.PIN_INCORRECT, CKR.OK)
    assert seen["counted"]
    assert (seen["destroyed"], seen["left"], seen["finalize"]) == (seen["made"], 0, CKR.OK)


def test_on_a_full_disk_each_program_counts_on(disk: dict[str, str], home: Path) -> None:
    last = guesses(on_disk(FILL, again(2)), disk)
    before = [answer_of(_done(home / f"guesses-{i}")) for i in (1, 2)]
    assert before[0] == {"wrong": MOST_FAILURES, "last": CKR.PIN_LOCKED, "right": CKR.PIN_LOCKED}
    assert before[1] == last == {"wrong": 0, "last": CKR.PIN_LOCKED, "right": CKR.PIN_LOCKED}


def test_on_a_full_disk_without_reserved_room_no_pin_is_answered_uncounted(disk: dict[str, str], home: Path) -> None:
    last = guesses(on_disk(f'rm -f "$DISK/seen/{NAME}"', FILL, again(2)), disk)
    found = [*(answer_of(_done(home / f"guesses-{i}")) for i in (1, 2)), last]
    assert sum(each["wrong"] for each in found) <= MOST_FAILURES
    assert {each["last"] for each in found} <= {CKR.DEVICE_MEMORY, CKR.PIN_LOCKED}


def _done(output: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], 0, output.read_text(), "")


def test_wrong_pins_of_a_token_that_cannot_be_written_count_on_and_are_brought_to_it(
    home: Path, key: Path, client: Client
) -> None:
    key.chmod(0o400)
    key.parent.chmod(0o500)
    try:
        found = [guesses(unprivileged(), {"KEYFOB_HOME": str(home)}) for _ in range(2)]
    finally:
        key.parent.chmod(0o700)
        key.chmod(0o600)
    assert found[0] == {"wrong": MOST_FAILURES, "last": CKR.PIN_LOCKED, "right": CKR.PIN_LOCKED}
    assert found[1] == {"wrong": 0, "last": CKR.PIN_LOCKED, "right": CKR.PIN_LOCKED}
    client.initialize()
    session = client.open(client.slots()[0])
    client.login(session, SO_PIN, CKU.SO)  # any attempt at a PIN brings the count
    client.ok("C_Logout", session)
    assert client.call("C_Login", session, CKU.USER, PIN, len(PIN)) == CKR.PIN_LOCKED
    client.login(session, SO_PIN, CKU.SO)
    client.ok("C_InitPIN", session, PIN, len(PIN))
    client.ok("C_Logout", session)
    client.login(session, PIN)


def test_a_right_pin_forgets_the_wrong_ones_of_a_token_that_cannot_be_written(
    home: Path, key: Path, client: Client
) -> None:
    key.chmod(0o400)
    key.parent.chmod(0o500)
    try:
        found = [guesses(unprivileged(), {"KEYFOB_HOME": str(home)}, most=4) for _ in range(4)]
    finally:
        key.parent.chmod(0o700)
        key.chmod(0o600)
    assert found == [{"wrong": 4, "last": CKR.PIN_INCORRECT, "right": CKR.OK}] * 4


def test_the_limit_of_a_files_size_is_a_full_disk_and_no_signal_that_ends_the_host(home: Path, key: Path) -> None:
    """RLIMIT_FSIZE; a signal of the host's own stays the host's, and so does its mask."""
    seen = answer_of(python_child("file_limit", PIN.decode(), KEYFOB_LOG=str(home / "log")))
    assert 0 < seen["made"] < 500
    assert (seen["refused"], seen["without any"]) == (CKR.DEVICE_MEMORY, CKR.DEVICE_MEMORY)
    assert seen["problems"] == [errno.EFBIG] * 3
    assert (seen["waiting"], seen["blocked"]) == ([], [])
    assert (seen["kept"], seen["wait"]) == ([signal.SIGXFSZ], True)
    assert (seen["later"], seen["finalize"]) == (CKR.OK, CKR.OK)
