"""Several hosts on one token in PostgreSQL, whose server is restarted and killed under them: nothing is lost."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keyfob.spec.constants import CKA, CKF, CKM, CKO, CKR
from tests.client import Client, ffi
from tests.conftest import CHEAP_PINS, PIN, Fob, module_path
from tests.postgres import Server
from tests.robustness.host import KEPT
from tests.robustness.hosts import REPOSITORY, environment

pytestmark = pytest.mark.interop
HOSTS = 3


@pytest.fixture
def fleet_token(database_url: str, monkeypatch: pytest.MonkeyPatch, home: Path, client: Client) -> str:
    """A token in the database with the PINs of tests.conftest, which this process has closed again; the URL."""
    client.call("C_Finalize", ffi.NULL)
    monkeypatch.setenv("KEYFOB_STORE", database_url)
    client.initialize()
    Fob(client)
    client.ok("C_Finalize", ffi.NULL)
    return database_url


def start(folder: Path, name: str) -> subprocess.Popen[str]:
    """One host, with a home of its own."""
    home = folder / name
    home.mkdir()
    (home / "config.toml").write_text(CHEAP_PINS)
    with (folder / f"{name}.out").open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.robustness.host", str(module_path()), PIN.decode(), name],
            env=environment(PYTHONPATH=f"{module_path().parents[1]}", KEYFOB_HOME=str(home)),
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=output,
            text=True,
        )


@contextmanager
def hosts_at_work(folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """While the block runs the hosts do; each must end well."""
    hosts = [start(folder, f"host{number}") for number in range(HOSTS)]
    try:
        for host in hosts:
            wait_for(folder, host, 3)
        yield hosts
    finally:
        for host in hosts:
            assert host.stdin is not None
            host.stdin.close()
    assert [host.wait(timeout=60) for host in hosts] == [0] * HOSTS


def wait_for(folder: Path, host: subprocess.Popen[str], more: int) -> None:
    """Until the host has said so many lines more than now."""
    assert isinstance(host.args, list)
    output = folder / f"{host.args[-1]}.out"
    wanted, deadline = len(output.read_text().splitlines()) + more, time.monotonic() + 60
    while len(output.read_text().splitlines()) < wanted:
        assert host.poll() is None, "a host has ended"
        assert time.monotonic() < deadline, "a host hangs"
        time.sleep(0.02)


def acknowledged(folder: Path) -> tuple[set[str], set[str], list[str]]:
    """What must be there; what must not be there any more; what failed."""
    lines = [line.split(maxsplit=1) for path in folder.glob("*.out") for line in path.read_text().splitlines()]
    made = {line[1] for line in lines if line[0] == "made"}
    destroyed = {line[1] for line in lines if line[0] == "destroyed"}
    return made - destroyed, destroyed, [line[1] for line in lines if line[0] == "failed"]


def check_everything(client: Client, folder: Path) -> None:
    """In a fresh session: every acknowledged pair is there, signs and fits; no pair is half; nothing failed."""
    expected, destroyed, failed = acknowledged(folder)
    kept = {name for name in expected if int(name.rpartition("-")[2]) % KEPT == 0}
    assert failed == []
    client.initialize()
    session = client.open(client.slots()[0])
    client.login(session, PIN)
    found: dict[int, set[str]] = {}
    for kind in (CKO.PRIVATE_KEY, CKO.PUBLIC_KEY):
        handles = client.find(session, [(CKA.CLASS, kind)], at_once=1000)
        found[kind] = {(client.get(session, handle, CKA.ID)[0] or b"").decode() for handle in handles}
        assert len(handles) == len(found[kind]), "a key is there twice"
    # A host that was killed between two C_DestroyObject has left the second key of a pair that it had made.
    assert found[CKO.PUBLIC_KEY] <= found[CKO.PRIVATE_KEY]
    assert found[CKO.PRIVATE_KEY] - found[CKO.PUBLIC_KEY] <= expected
    assert expected & kept <= found[CKO.PUBLIC_KEY]
    assert not destroyed & found[CKO.PRIVATE_KEY]
    for name in expected & kept:
        [private] = client.find(session, [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.ID, name)])
        [public] = client.find(session, [(CKA.CLASS, CKO.PUBLIC_KEY), (CKA.ID, name)])
        mechanism = client.mechanism(CKM.ECDSA)
        signature = client.sign(session, private, mechanism, bytes(32))
        assert client.verify(session, public, mechanism, bytes(32), signature) == CKR.OK
    client.ok("C_Finalize", ffi.NULL)


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.long)])
@pytest.mark.parametrize("how", ["restart", "immediate", "kill"])
def test_hosts_work_through_a_server_that_goes_and_comes_back(
    postgres: Server, fleet_token: str, client: Client, tmp_path: Path, how: str, times: int
) -> None:
    """A clean restart, one without a shutdown, a crash of all of the server's processes: no call fails or is lost."""
    with hosts_at_work(tmp_path) as hosts:
        for _ in range(times):
            if how == "kill":
                postgres.kill()
            else:
                postgres.stop("fast" if how == "restart" else "immediate")
            time.sleep(0.2)
            postgres.start()
            for host in hosts:
                wait_for(tmp_path, host, 6)
    check_everything(client, tmp_path)


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.long)])
def test_a_host_that_is_killed_holds_up_nobody_and_leaves_nothing_half(
    fleet_token: str, client: Client, tmp_path: Path, kills: int
) -> None:
    with hosts_at_work(tmp_path) as hosts:
        for number in range(kills):
            doomed = start(tmp_path, f"doomed{number}")
            wait_for(tmp_path, doomed, 4)
            doomed.kill()
            doomed.communicate()
            wait_for(tmp_path, hosts[number % HOSTS], 4)
    check_everything(client, tmp_path)


def test_a_server_that_is_away_at_the_start_leaves_a_slot_that_says_so_until_it_is_back(
    postgres: Server, fleet_token: str, client: Client, home: Path
) -> None:
    """C_Initialize succeeds; the one slot answers with an error, and is not taken for a token without a PIN."""
    postgres.stop()
    try:
        client.initialize()
        [slot] = client.slots()
        info, handle = ffi.new("CK_TOKEN_INFO *"), ffi.new("CK_ULONG *")
        assert client.call("C_GetTokenInfo", slot, info) == CKR.FUNCTION_FAILED
        assert client.call("C_InitToken", slot, PIN, len(PIN), b"new".ljust(32)) == CKR.FUNCTION_FAILED
        assert client.call("C_OpenSession", slot, CKF.SERIAL_SESSION, ffi.NULL, ffi.NULL, handle) == CKR.FUNCTION_FAILED
    finally:
        postgres.start()
    assert client.slots() == [slot]
    session = client.open(slot)
    client.login(session, PIN)
    client.ok("C_Finalize", ffi.NULL)
    assert "the tokens cannot be reached" in (home / "keyfob.log").read_text()


def test_a_program_that_starts_while_the_server_restarts_waits_for_it(
    postgres: Server, fleet_token: str, client: Client
) -> None:
    postgres.stop()
    starting = threading.Timer(1, postgres.start)
    starting.start()
    try:
        client.initialize()
        session = client.open(client.slots()[0])
    finally:
        starting.join()
    client.login(session, PIN)
    client.ok("C_Finalize", ffi.NULL)
