"""A host that runs out of memory is told so, closes what it has, and goes on when memory is back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from keyfob.spec.constants import CKA, CKK, CKM, CKO, CKR
from tests.client import Client, Template, ffi
from tests.conftest import CHEAP_PINS, PIN, Fob, module_path
from tests.robustness.conftest import Programs
from tests.robustness.hosts import environment

HOST_MEMORY, DEVICE_MEMORY = f"0x{CKR.HOST_MEMORY:x}", f"0x{CKR.DEVICE_MEMORY:x}"
NOT_LOGGED_IN = f"0x{CKR.USER_NOT_LOGGED_IN:x}"
SOME = (64, 1024, 12288)
# KiB: closely at the low end, and beyond what everything takes.
MANY = (*range(32, 2048, 97), *range(2048, 24576, 771), *range(24576, 131072, 8192))
RUSTS_OWN = "memory allocation of "  # its allocator ends the process, see SECURITY.md
TEMPLATE: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.GENERIC_SECRET), (CKA.VALUE, bytes(100))]


def answers(program: Path, kib: int, *more: str) -> set[str] | None:
    """What calls answered but CKR_OK while memory was short; None when a library in Rust ended the host."""
    done = subprocess.run(
        [str(program), str(module_path()), PIN.decode(), str(kib), *more],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode < 0 and RUSTS_OWN in done.stderr:
        return None
    assert (done.returncode, done.stderr) == (0, ""), f"{kib} KiB {more}: {done.returncode} {done.stderr}"
    found = {line.split()[-1] for line in done.stdout.splitlines()}
    if any(line.startswith("C_Login ") for line in done.stdout.splitlines()):
        found.discard(NOT_LOGGED_IN)  # memory came back after the login that it was refused to
    return found


@pytest.mark.parametrize(
    "limits", [pytest.param(SOME, id="some"), pytest.param(MANY, id="many", marks=pytest.mark.long)]
)
def test_a_host_without_memory_is_told_so_and_works_again_when_it_has_some(
    programs: Programs, token: Path, limits: tuple[int, ...]
) -> None:
    """Each call answers CKR_OK or that there is no memory, closing works, and so does all when memory is back."""
    ended, seen = [], set()
    for kib in limits:
        found = answers(programs("shortage"), kib, "warm")
        assert found is not None, f"{kib} KiB: a library in Rust ended a host whose libraries were loaded"
        assert found <= {HOST_MEMORY, DEVICE_MEMORY}, f"{kib} KiB"
        seen |= found
        found = answers(programs("shortage"), kib)
        if found is None:
            ended.append(kib)
        else:
            assert found <= {HOST_MEMORY, DEVICE_MEMORY}, f"{kib} KiB"
    assert HOST_MEMORY in seen, "memory never ran short"
    assert len(ended) <= len(limits) // 4, f"ended at {ended} KiB"


def limited(home: Path, client: Client, settings: str) -> Fob:
    """A token under these settings, and a session of its user."""
    client.ok("C_Finalize", ffi.NULL)
    (home / "config.toml").write_text(f"{CHEAP_PINS}\n[sessions]\n{settings}\n")
    client.initialize()
    return Fob(client)


def created(client: Client, session: int, template: Template) -> int:
    array, count, _kept = client.template(template)
    return client.call("C_CreateObject", session, array, count, ffi.new("CK_ULONG *"))


def test_session_objects_are_bounded_in_number(home: Path, client: Client) -> None:
    """CKR_DEVICE_MEMORY beyond max_objects; what is destroyed, closed or logged out makes room; a pair is two."""
    fob = limited(home, client, "max_objects = 3")
    handles = [client.create(fob.session, TEMPLATE) for _ in range(3)]
    assert created(client, fob.session, TEMPLATE) == CKR.DEVICE_MEMORY
    assert created(client, fob.session, [*TEMPLATE, (CKA.TOKEN, True)]) == CKR.OK, "token objects are no concern of it"
    client.ok("C_DestroyObject", fob.session, handles[0])
    client.create(fob.session, TEMPLATE)
    client.ok("C_DestroyObject", fob.session, handles[1])
    pair = client.mechanism(CKM.EC_KEY_PAIR_GEN)
    public, public_count, _public = client.template([(CKA.EC_PARAMS, bytes.fromhex("06082a8648ce3d030107"))])
    keys = ffi.new("CK_ULONG[2]")
    rv = client.call("C_GenerateKeyPair", fob.session, pair, public, public_count, ffi.NULL, 0, keys, keys + 1)
    assert rv == CKR.DEVICE_MEMORY
    client.create(fob.session, TEMPLATE)
    other = client.open(fob.slot)
    client.ok("C_CloseSession", fob.session)
    for _ in range(3):
        client.create(other, TEMPLATE)
    client.ok("C_Logout", other)
    client.login(other, PIN)
    for _ in range(3):
        client.create(other, TEMPLATE)


def test_session_objects_are_bounded_in_size(home: Path, client: Client) -> None:
    """CKR_DEVICE_MEMORY beyond max_object_mib, when they are made and when they are changed."""
    fob = limited(home, client, "max_object_mib = 1")
    data: Template = [(CKA.CLASS, CKO.DATA), (CKA.VALUE, bytes(600_000))]
    handle = client.create(fob.session, data)
    assert created(client, fob.session, data) == CKR.DEVICE_MEMORY
    assert client.set(fob.session, handle, [(CKA.VALUE, bytes(2_000_000))]) == CKR.DEVICE_MEMORY
    assert client.get(fob.session, handle, CKA.VALUE) == [bytes(600_000)]
    assert client.set(fob.session, handle, [(CKA.VALUE, bytes(10))]) == CKR.OK
    client.create(fob.session, data)


def test_what_must_be_kept_until_the_last_part_is_bounded(client: Client, fob: Fob) -> None:
    """CKR_DEVICE_MEMORY beyond 64 MiB of parts, and the operation is over."""
    handle = client.create(
        fob.session,
        [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE, bytes(16)), (CKA.TOKEN, False)],
    )
    vector = ffi.new("CK_BYTE[12]")
    parameter = ffi.new("CK_GCM_PARAMS *", {"pIv": vector, "ulIvLen": 12, "ulIvBits": 96, "ulTagBits": 128})
    client.ok("C_DecryptInit", fob.session, client.mechanism(CKM.AES_GCM, parameter), handle)
    part, length = ffi.new("CK_BYTE[]", 1 << 23), ffi.new("CK_ULONG *")
    for _ in range(8):
        length[0] = 1 << 23
        client.ok("C_DecryptUpdate", fob.session, part, 1 << 23, part, length)
    assert client.call("C_DecryptUpdate", fob.session, part, 1, part, length) == CKR.DEVICE_MEMORY
    assert client.call("C_DecryptUpdate", fob.session, part, 1, part, length) == CKR.OPERATION_NOT_INITIALIZED
