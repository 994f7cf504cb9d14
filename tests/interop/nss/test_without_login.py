"""certutil without a PIN, which it never asks for: certificates come, are renamed and go, also those of a login."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from demo.stage import open_stage
from tests.interop.certificates import Authority
from tests.interop.nss.stages import KIND, make_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo.stage import Stage

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(KIND != "keyfob", reason="keyfob's own commands look at what came of it"),
]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with open_stage(make_token) as shared:
        for step in ("rsa-key", "ca"):
            shared.show(step)
        yield shared


def certutil(stage: Stage, action: str, name: str, *arguments: str) -> None:
    """As somebody who gives no PIN; on the token's certificate of that name."""
    stage.certutil(action, "-h", stage.token.label, "-n", name, *arguments, pins="")


def add(stage: Stage, name: str) -> None:
    certutil(stage, "-A", name, "-t", ",,", "-i", f"{name}.der")


def verified(stage: Stage) -> str:
    """What the token says after its user's login, which vouches for all that is there."""
    stage.write("pin", f"{stage.token.pin}\n")
    said: str = stage.run(stage.token.command, "verify", stage.token.label, "--pin-file", "pin").output
    assert "is as it was left" in said
    return said


@pytest.mark.parametrize("vouched_for", [False, True])
def test_certutil_adds_renames_and_removes_certificates_without_a_login(stage: Stage, vouched_for: bool) -> None:
    first, second = f"first-{vouched_for}", f"second-{vouched_for}"
    stage.write(f"{first}.der", Authority(first).certificate.public_bytes(Encoding.DER))
    add(stage, first)
    if vouched_for:
        assert "made without a login: object" in verified(stage)
    add(stage, first)  # again
    certutil(stage, "--rename", stage.nick(first), "--new-n", second)
    assert second in stage.certificates(pins="")
    assert first not in stage.certificates(pins="")
    said = verified(stage)
    assert ("renamed without a login" in said) == vouched_for
    assert second in stage.certificates()
    certutil(stage, "-D", stage.nick(second))
    assert second not in stage.certificates(pins="")
    assert "removed without a login: object" in verified(stage)
    assert second not in stage.certificates()
