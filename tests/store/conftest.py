"""A token in a file and a token in memory, and what the former says to the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keyfob.store import hardening
from tests.store.samples import make, make_in_memory, make_on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keyfob.store import SqliteStore, Store


@pytest.fixture(autouse=True)
def cheap_pins() -> Iterator[None]:
    """PINs may be hardened with next to nothing, which takes no time."""
    before = hardening.least()
    hardening.require(hardening.Hardening.for_tests())
    yield
    hardening.require(before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "slot-1.keyfob"


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def sqlite_store(path: Path, log: list[str]) -> Iterator[SqliteStore]:
    """Both PINs set, locked."""
    store = make(path, log=log.append)
    yield store
    store.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.interop), "memory"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """The same token of each kind: both PINs set, locked."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_store")
    elif request.param == "postgresql":
        shelf = request.getfixturevalue("shelf")
        made = make_on(shelf)
        yield made
        made.close()
    else:
        memory = make_in_memory()
        yield memory
        memory.close()
