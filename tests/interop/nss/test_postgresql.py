"""The whole demo with a token in PostgreSQL: NSS's tools notice no difference."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.interop.nss import REPOSITORY

pytestmark = [pytest.mark.interop, pytest.mark.long]


def test_every_step_of_the_demo_passes_with_a_token_on_a_server(database_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--brief", "--store", database_url],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "PASSED: all 82 steps" in done.stdout
