"""Fixtures of the interop tests: the module under test and a fresh token for each test file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop.pkcs11_tool import Pkcs11Tool
from tests.interop.tokens import Module, Token, blank_token, make_token, module_under_test

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def module() -> Module:
    """The module under test (see tokens.py for how to choose it)."""
    return module_under_test()


@pytest.fixture(scope="module")
def token(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Token:
    """A fresh token of the module under test, shared by the tests of one file."""
    return make_token(module, tmp_path_factory.mktemp("token"))


@pytest.fixture
def own_token(module: Module, tmp_path: Path) -> Token:
    """A fresh token for one test that changes more than objects of its own, such as the PINs."""
    return make_token(module, tmp_path / "own-token")


@pytest.fixture
def blank(module: Module, tmp_path: Path) -> Token:
    """A home without any token, for one test."""
    return blank_token(module, tmp_path / "blank")


@pytest.fixture(scope="module")
def tool(token: Token, tmp_path_factory: pytest.TempPathFactory) -> Pkcs11Tool:
    """`pkcs11-tool` on the token of this test file."""
    return Pkcs11Tool(token, tmp_path_factory.mktemp("pkcs11-tool"))
