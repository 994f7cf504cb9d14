"""Firefox authenticates itself with keys on tokens of every kind, all of them in one browser."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.interop.firefox.scene import Stage
from tests.interop.programs import program, succeed
from tests.interop.tls_server import Handshake
from tests.interop.tokens import PIN, SO_PIN, Module, Token

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.firefox

KEY_TYPES = {
    "signing": "rsa:2048",
    "signing-decryption": "EC:prime256v1",
    "key-distribution": "rsa:2048",
    "multipurpose": "EC:secp384r1",
}
OPEN = "general-access"


@pytest.mark.rule("K1", "K2", "K3", "K4", "K5")
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_tokens_of_every_kind_authenticate_the_user(module: Module, tmp_path: Path, version: str) -> None:
    """Each kind of token signs for Firefox; only a token without a PIN is used without being asked for one."""
    program("firefox-esr", "firefox-esr")
    stage = Stage.make(tmp_path / "stage")
    home = Token(module, "", PIN, SO_PIN, module.home(tmp_path / "tokens"))
    home.softhsm_cannot("kinds of tokens")
    for kind, key_type in KEY_TYPES.items():
        token = home.named(kind)
        succeed([module.command, "init", kind, "--kind", kind, "--pin", PIN, "--so-pin", SO_PIN], home.environment())
        if kind == "key-distribution":  # which makes no keys: they come from outside
            _import_key(stage, token)
        else:
            stage.certify(token, _user(kind), key_type, "01")
    succeed([module.command, "init", OPEN, "--no-pin"], home.environment())
    stage.certify(replace(home, label=OPEN, pin=""), _user(OPEN), "EC:prime256v1", "01")

    with stage.server(version) as server, stage.browser(home) as browser:
        for kind in (*KEY_TYPES, OPEN):
            visit = browser.visit(server.url + kind, pins=[PIN], certificate=_user(kind))
            prompts = [dialog["text"] for dialog in visit.dialogs if dialog["kind"] == "promptPassword"]
            assert len(prompts) == (0 if kind == OPEN else 1), (kind, prompts)
            assert all(f"({kind})" in prompt for prompt in prompts)
            assert server.handshakes.pop() == Handshake(version, _user(kind)), server.failures
        assert browser.quit() == 0


def _user(kind: str) -> str:
    return f"user of {kind}"


def _import_key(stage: Stage, token: Token) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    certificate = stage.authority.client(_user(token.label), key.public_key())
    bundle = stage.folder / "bundle.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    bundle.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    succeed([token.module.command, "import", token.label, bundle, "--pin", token.pin], token.environment())
