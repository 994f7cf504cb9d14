"""Fixtures of the tests of the rules: the module before NSS started it, and after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import Client, ffi
from tests.conftest import Fob, module_path
from tests.rules.nss_calls import Nss, start


@pytest.fixture
def module(home: Path) -> Iterator[Client]:
    """The module, loaded and not initialised; KEYFOB_HOME is empty but for its config.toml."""
    loaded = Client(str(module_path()))
    loaded.call("C_Finalize", ffi.NULL)
    yield loaded
    loaded.call("C_Finalize", ffi.NULL)


@pytest.fixture
def nss(module: Client) -> Nss:
    """NSS, started on a token `test` with PIN and SO_PIN of tests.conftest; nobody is logged in."""
    module.initialize()
    Fob(module)
    module.ok("C_Finalize", ffi.NULL)
    return start(module)


@pytest.fixture
def fresh(module: Client) -> Nss:
    """NSS, started where no token was ever made."""
    return start(module)
