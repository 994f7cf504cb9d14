"""Fixtures of the tests with NSS's tools: a stage of the demo, shared by all steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from demo.stage import Stage, open_stage
from tests.interop.nss.stages import make_softhsm, make_token

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """A stage with the module under test; a step shown once is not run again."""
    with open_stage(make_token) as shared:
        yield shared


@pytest.fixture
def softhsm() -> Iterator[Stage]:
    """A stage of SoftHSM, for one test that spoils it."""
    with open_stage(make_softhsm) as own:
        yield own
