"""Firefox uses a key that wants the PIN for each signature (CKA_ALWAYS_AUTHENTICATE)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop.firefox.scene import VERSIONS, Stage
from tests.interop.programs import program
from tests.interop.tls_server import Handshake

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.tokens import Token

pytestmark = pytest.mark.firefox

KEY_TYPES = {"RSA": "rsa:2048", "EC": "EC:prime256v1"}


@pytest.mark.rule("P5")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KEY_TYPES)
def test_key_that_always_authenticates_asks_for_the_pin_at_each_signature(
    tmp_path: Path, own_token: Token, kind: str, version: str
) -> None:
    """A key that wants the PIN for each use signs for Firefox in TLS 1.2 and 1.3, which asks at each connection."""
    stage = _stage(tmp_path)
    stage.certify(own_token, "Alice Example", KEY_TYPES[kind], "01", "--always-auth")
    with stage.server(version) as server, stage.browser(own_token) as browser:
        prompts = []
        for page in ("first", "second"):
            visit = browser.visit(server.url + page, pins=[own_token.pin] * 3, certificate="Alice Example")
            assert server.handshakes.pop() == Handshake(version, "Alice Example"), server.failures
            prompts.append(visit.kinds().count("promptPassword"))
        assert prompts == [2, 1]  # to log in and to sign; to sign


@pytest.mark.rule("P5")
def test_key_that_always_authenticates_does_not_sign_without_the_pin(tmp_path: Path, own_token: Token) -> None:
    """Logged in already, Firefox gets no signature when the PIN is not given again, and no connection."""
    stage = _stage(tmp_path)
    stage.certify(own_token, "Alice Example", KEY_TYPES["EC"], "01", "--always-auth")
    with stage.server() as server, stage.browser(own_token) as browser:
        visit = browser.visit(server.url, pins=[own_token.pin], certificate="Alice Example")
        answers = [dialog["answer"] for dialog in visit.dialogs if dialog["kind"] == "promptPassword"]
        assert answers == ["PIN", "cancel"]
        assert visit.title != "client: Alice Example"
        assert server.handshakes == []


def _stage(folder: Path) -> Stage:
    program("firefox-esr", "firefox-esr")
    return Stage.make(folder / "stage")
