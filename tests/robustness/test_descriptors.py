"""A host that closes descriptors that are not its own, and opens other files under their numbers.

keyfob goes on, loses nothing that it acknowledged, and touches nothing that is not its own any more.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keyfob.spec.constants import CKA, CKF, CKM, CKO, CKR, CKU
from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore
from keyfob.store.turns import Turn
from tests.client import P256, Client, Template, ffi
from tests.conftest import PIN, Fob
from tests.robustness.conftest import Programs
from tests.robustness.hosts import run
from tests.store.samples import start_program

CONTENT = b"the host's own"
OTHER = """
import sys
from keyfob.spec.constants import CKA
from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore
from keyfob.store.turns import Turn
store = SqliteStore.open(sys.argv[1])
store.login("user", sys.argv[2].encode())
store.insert([{CKA.CLASS: bytes(8), CKA.TOKEN: b"\\1", CKA.PRIVATE: b"\\1", CKA.LABEL: b"other", CKA.VALUE: b"x"}])
store.close()
"""
DATA: Template = [(CKA.CLASS, CKO.DATA), (CKA.TOKEN, True), (CKA.PRIVATE, True)]


def descriptors(home: Path) -> list[int]:
    """The numbers under which this process has files of the tokens' folder open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that lists them
            continue
        if target.startswith(f"{home / 'tokens'}/"):
            found.append(int(name))
    return sorted(found)


class Host:
    """`close` and `replace` do with keyfob's descriptors what a host may do; `check` looks at what took their place."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.own: dict[int, Path] = {}

    def close(self, *numbers: int) -> None:
        for number in numbers or descriptors(self.home):
            os.close(number)

    def replace(self, *numbers: int) -> None:
        for number in numbers or descriptors(self.home):
            path = self.home / f"own-{len(self.own)}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.write(descriptor, CONTENT)
            os.dup2(descriptor, number)
            os.close(descriptor)
            self.own[number] = path

    def check(self) -> None:
        for number, path in self.own.items():
            assert os.path.samestat(os.fstat(number), path.stat()), f"{number} was closed"
            assert path.read_bytes() == CONTENT
            assert os.lseek(number, 0, os.SEEK_CUR) == len(CONTENT)

    def end(self) -> None:
        for number in self.own:
            os.close(number)


@pytest.fixture
def host(home: Path) -> Iterator[Host]:
    found = Host(home)
    yield found
    found.end()


def create(client: Client, session: int, label: str) -> int:
    return client.create(session, [*DATA, (CKA.LABEL, label), (CKA.VALUE, bytes(5000))])


def labels(home: Path) -> list[bytes]:
    """What the file holds, read by somebody else."""
    store = SqliteStore.open(home / "tokens" / "slot-1.keyfob")
    store.login("user", PIN)
    found = [(store.get(number) or {})[CKA.LABEL] for number in store.find([(CKA.CLASS, bytes(8))])]
    assert store.verify() == []
    store.close()
    return sorted(found)


def test_sqlite_has_its_descriptors_out_of_the_way_and_no_other_is_kept(home: Path, client: Client, fob: Fob) -> None:
    create(client, fob.session, "one")
    found = descriptors(home)
    assert len(found) == 3  # the database, its write-ahead log and the index of that
    assert min(found) >= 100
    assert not any(os.get_inheritable(number) for number in found)


Harm = Callable[[Host], None]


@pytest.mark.parametrize("harm", [Host.close, Host.replace])
def test_calls_go_on_and_nothing_of_the_hosts_is_touched(
    home: Path, client: Client, fob: Fob, host: Host, harm: Harm
) -> None:
    first = create(client, fob.session, "first")
    public, private = client.generate_pair(
        fob.session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256), (CKA.TOKEN, True)], [(CKA.TOKEN, True)]
    )
    harm(host)
    create(client, fob.session, "second")
    harm(host)
    assert client.get(fob.session, first, CKA.LABEL) == [b"first"]
    harm(host)
    client.sign(fob.session, private, client.mechanism(CKM.ECDSA), bytes(32))
    harm(host)
    client.ok("C_DestroyObject", fob.session, public)
    harm(host)
    assert len(client.find(fob.session, DATA)) == 2
    harm(host)
    client.ok("C_SetPIN", fob.session, PIN, len(PIN), PIN, len(PIN))
    harm(host)
    client.ok("C_Logout", fob.session)
    harm(host)
    assert client.call("C_Login", fob.session, CKU.USER, b"wrong-pin", 9) == CKR.PIN_INCORRECT
    client.login(fob.session, PIN)
    assert len([number for number in descriptors(home) if number not in host.own]) == 3
    harm(host)
    client.ok("C_Finalize", ffi.NULL)
    assert [number for number in descriptors(home) if number not in host.own] == []
    host.check()
    assert labels(home) == [b"first", b"second"]


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("harm", [Host.close, Host.replace])
def test_one_descriptor_is_as_bad_as_all(
    home: Path, client: Client, fob: Fob, host: Host, harm: Callable[..., None], which: int
) -> None:
    create(client, fob.session, "first")
    harm(host, descriptors(home)[which])
    create(client, fob.session, "second")
    harm(host, [number for number in descriptors(home) if number not in host.own][which])
    assert len(client.find(fob.session, DATA)) == 2
    client.ok("C_Finalize", ffi.NULL)
    host.check()
    assert labels(home) == [b"first", b"second"]


def test_what_others_do_meanwhile_is_seen_and_kept(home: Path, client: Client, fob: Fob, host: Host) -> None:
    """Without its locks in the way another program, as the last one out, ends the write-ahead log."""
    create(client, fob.session, "first")
    host.close()
    with start_program(OTHER, home / "tokens" / "slot-1.keyfob", PIN.decode()) as other:
        assert other.wait() == 0
    assert len(client.find(fob.session, DATA)) == 2
    create(client, fob.session, "second")
    client.ok("C_Finalize", ffi.NULL)
    assert labels(home) == [b"first", b"other", b"second"]


def test_a_number_that_one_token_has_lost_is_not_given_to_another(home: Path, client: Client, host: Host) -> None:
    """The first token would close it late, and so the second one's file."""
    first = Fob(client)
    create(client, first.session, "first")
    client.ok("C_Finalize", ffi.NULL)
    tokens = home / "tokens"
    (tokens / "slot-2.keyfob").write_bytes((tokens / "slot-1.keyfob").read_bytes())
    client.initialize()
    sessions = [client.open(slot) for slot in client.slots()]
    for session in sessions:
        client.login(session, PIN)
    host.close()
    create(
        client, sessions[1], "second"
    )  # its new connection opens three descriptors, and the first token has lost three
    create(client, sessions[0], "second")
    create(client, sessions[1], "third")
    client.ok("C_Finalize", ffi.NULL)
    assert labels(home) == [b"first", b"second"]
    assert descriptors(home) == []


def test_a_token_that_was_removed_meanwhile_is_not_taken_for_another(
    home: Path, client: Client, fob: Fob, host: Host
) -> None:
    path = home / "tokens" / "slot-1.keyfob"
    content = path.read_bytes()
    host.close()
    path.rename(home / "removed")
    path.write_bytes(content)
    array, count, _kept = client.template([*DATA, (CKA.VALUE, b"x")])
    assert client.call("C_CreateObject", fob.session, array, count, ffi.new("CK_ULONG *")) == CKR.DEVICE_ERROR
    assert re.search("moved or deleted", (home / "keyfob.log").read_text())


def test_a_daemon_that_closes_everything_goes_on(home: Path, token: Path, programs: Programs, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    assert run(programs("closing"), PIN.decode(), str(own)).stdout == "done\n"
    store = SqliteStore.open(token)
    store.login("user", PIN)
    assert len(store.find([])) == 3
    assert store.verify() == []
    store.close()


def test_a_store_that_was_closed_is_not_opened_again(client: Client, fob: Fob) -> None:
    from keyfob.functions.state import STATE

    assert STATE.library is not None
    store = STATE.library.tokens[fob.slot].store
    assert store is not None
    client.ok("C_Finalize", ffi.NULL)
    with pytest.raises(PKCS11Error) as refused:
        store.info()
    assert refused.value.rv == CKR.CRYPTOKI_NOT_INITIALIZED


def test_a_host_without_a_free_descriptor_is_not_told_that_there_is_no_token(
    client: Client, fob: Fob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be offered an uninitialised one to initialise."""
    client.ok("C_Finalize", ffi.NULL)

    def no_descriptor(_: str) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files")

    info = ffi.new("CK_TOKEN_INFO *")
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", no_descriptor)
        client.initialize()
        assert client.call("C_GetTokenInfo", fob.slot, info) == CKR.FUNCTION_FAILED
    client.slots()
    client.ok("C_GetTokenInfo", fob.slot, info)
    assert info.flags & CKF.TOKEN_INITIALIZED


def test_a_lock_that_is_held_while_a_pin_is_hardened_is_not_closed_for_another(tmp_path: Path) -> None:
    with Turn(str(tmp_path)):
        (number,) = [int(name) for name in os.listdir("/proc/self/fd") if leads_to(name, tmp_path / ".turns")]
        own = os.open(tmp_path / "own", os.O_RDWR | os.O_CREAT)
        os.dup2(own, number)
    assert os.path.samestat(os.fstat(number), os.fstat(own))
    os.close(own)
    os.close(number)


def leads_to(name: str, path: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{name}") == str(path)
    except FileNotFoundError:  # the one that lists them
        return False
