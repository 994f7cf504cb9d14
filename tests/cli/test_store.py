"""`keyfob store`, and the other commands on tokens that a PostgreSQL server has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.postgres import Server

pytestmark = pytest.mark.interop

MAKE = "init work --pin 1234 --so-pin 87654321"


@pytest.fixture
def url(postgres: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """KEYFOB_STORE: an empty database that is not prepared."""
    url = postgres.empty_database()
    monkeypatch.setenv("KEYFOB_STORE", url)
    return url


def test_init_says_what_comes_next_and_may_be_said_again(run: Run, url: str) -> None:
    assert "keyfob store init" in run(MAKE, code=1).output
    assert "is ready for tokens" in run("store init").output
    assert "was ready already" in run("store init").output
    run(MAKE)


def test_init_needs_a_database(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYFOB_STORE")
    assert "name the database" in run("store init", code=1).output
    assert "begins with postgresql://" in run("store init mysql://db/keyfob", code=1).output
    assert "KEYFOB_STORE" in run(f"store init '{url}'").output


def test_a_token_s_whole_life_is_the_same_as_in_files(run: Run, url: str, folder: Path) -> None:
    run("store init")
    run(MAKE)
    assert "has a token with this label already" in run(MAKE, code=1).output
    run("key generate work --type ec:p256 --name me --pin 1234")
    run("cert self-sign work me --subject CN=Me --pin 1234")
    assert "certificate" in run("list work --pin 1234").output
    assert "is as it was left" in run("verify work --pin 1234").output
    run("pin change work --pin 1234 --new-pin 4321")
    (folder / "passphrase").write_text("a long enough passphrase")
    run("backup work work.backup --pin 4321 --passphrase-file passphrase")
    run("delete work --token --yes")
    assert "there is no token yet" in run("list work", code=1).output
    run("restore work.backup --passphrase-file passphrase --pin 1111 --so-pin 22222222")
    assert "me" in run("list work --pin 1111").output
    assert "is as it was left" in run("verify work --pin 1111").output
    assert not list((folder.parent / "home" / "tokens").iterdir())


def test_doctor_names_the_server_and_what_to_think_about(run: Run, url: str, postgres: Server) -> None:
    assert "keyfob store init" in run("doctor", code=None).output
    run("store init")
    run(MAKE)
    said = run("doctor", code=None).output
    assert f"tokens are in PostgreSQL on {postgres.folder}, database tokens" in said
    assert "fsync" in said


def test_an_unreachable_server_is_named_without_its_password(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYFOB_STORE", "postgresql://me:hush@127.0.0.1:1/keyfob")
    for command in ("list", "list work", MAKE, "doctor", "verify 1"):
        said = run(command, code=0 if command == "list" else 1).output
        assert "127.0.0.1" in said
        assert "hush" not in said
    assert "hush" not in (folder.parent / "home" / "keyfob.log").read_text()


def test_copying_moves_tokens_to_the_server_and_back(
    run: Run, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("store init")
    monkeypatch.delenv("KEYFOB_STORE")
    run(MAKE)
    run("init other --no-pin")
    run("key generate work --type ec:p256 --name me --pin 1234")
    run("key generate other --type ec:p256 --name it")
    said = run(f"store copy files '{url}'").output
    assert "Copied 'work' to slot 1: 2 objects, compared." in said
    assert "Copied 'other' to slot 2" in said
    assert "is there already" in run(f"store copy files '{url}' work", code=1).output
    assert "there is no token 'none'" in run(f"store copy files '{url}' none", code=1).output
    monkeypatch.setenv("KEYFOB_STORE", url)
    (folder / "csr").mkdir()
    run("cert request work me --subject CN=Me --out csr/me.csr --pin 1234")
    run("cert request other it --subject CN=It --out csr/it.csr")
    monkeypatch.delenv("KEYFOB_STORE")
    (folder / "back").mkdir(mode=0o700)
    run(f"store copy '{url}' back work")
    assert [path.name for path in (folder / "back").iterdir()] == ["slot-1.keyfob"]


def test_tls_to_the_server_is_verified_when_it_is_asked_for(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    try:
        authority = server.use_tls()
        server.empty_database()
        secure = f"{server.tcp_url('tokens')}?sslmode=verify-full&sslrootcert="
        monkeypatch.setenv("KEYFOB_STORE", f"{secure}{authority}")
        run("store init")
        run(MAKE)
        run("key generate work --type ec:p256 --name me --pin 1234")
        assert "not encrypted" not in run("doctor", code=None).output
        stranger = folder / "stranger.crt"
        stranger.write_bytes(Path("/etc/ssl/certs/ca-certificates.crt").read_bytes())
        monkeypatch.setenv("KEYFOB_STORE", f"{secure}{stranger}")
        assert "certificate verify failed" in run("list work", code=1).output
    finally:
        server.close()
