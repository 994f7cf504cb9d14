"""Every step of the demo as a test: Debian's NSS tools do a whole job with keys on keyfob's token.

`KEYFOB_INTEROP_MODULE=softhsm` runs the same on SoftHSM, `softoken` on NSS's own softoken, where the known limits of
that module must show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from demo.account import verdict_on
from demo.steps import all_steps
from tests.interop.nss.stages import KIND

if TYPE_CHECKING:
    from demo.stage import Result, Stage

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("nss-tools")]


@pytest.mark.parametrize("name", all_steps(KIND))
def test_nss_tools_do(stage: Stage, name: str) -> None:
    result = stage.show(name)
    assert verdict_on(result, stage) in {"ok", "known"}, report(result)


def report(result: Result) -> str:
    """What went wrong, for a reader of the test's output."""
    runs = "\n".join(f"$ {' '.join(run.command)}\n{run.output}" for run in result.outcomes)
    return f"{result.step.sentence}: {result.failure}\n{runs}"
