"""Fixtures of the robustness tests: a token made here and left closed, hosts in C, fresh Python processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from keyfob.spec.constants import CKA, CKM
from tests.client import P256, Client, Template, ffi
from tests.conftest import PIN, Fob
from tests.robustness.hosts import compile_host

Programs = Callable[[str], Path]
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long tests here keep a whole machine busy, and measure their patience with it: no other test runs beside."""
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("long"):
            item.add_marker("alone")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """`programs("kill")`: the host compiled from kill.c."""
    folder = tmp_path_factory.mktemp("hosts")
    compiled: dict[str, Path] = {}

    def program(name: str) -> Path:
        if name not in compiled:
            compiled[name] = compile_host(name, folder)
        return compiled[name]

    return program


@pytest.fixture(params=["files", pytest.param("postgresql", marks=pytest.mark.interop)])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the tokens of a test are kept, if it uses this: in files, then in PostgreSQL."""
    kind: str = request.param
    if kind == "postgresql":
        monkeypatch.setenv("KEYFOB_STORE", request.getfixturevalue("database_url"))
    return kind


@pytest.fixture
def token(home: Path, client: Client) -> Path:
    """The file of a token with the PINs of tests.conftest, which this process has closed again."""
    Fob(client)
    client.ok("C_Finalize", ffi.NULL)
    return home / "tokens" / "slot-1.keyfob"


@pytest.fixture
def key(token: Path, client: Client) -> Path:
    """The token with one P-256 pair, its CKA_ID and labels "pair"."""
    client.initialize()
    session = client.open(client.slots()[0])
    client.login(session, PIN)
    template: Template = [(CKA.TOKEN, True), (CKA.ID, b"pair"), (CKA.LABEL, b"pair")]
    client.generate_pair(session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256), *template], template)
    client.ok("C_Finalize", ffi.NULL)
    return token
