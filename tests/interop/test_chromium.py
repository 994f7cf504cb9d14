"""Chromium authenticates itself to a TLS server with keys on tokens, with and without a PIN."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.interop.certificates import Authority
from tests.interop.chromium.browser import Chromium
from tests.interop.desktop import Desktop
from tests.interop.pkcs11_tool import Pkcs11Tool
from tests.interop.programs import program
from tests.interop.tls_server import NOBODY, Handshake, TlsServer
from tests.interop.tokens import Module, Token, general_access_token, make_token

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.firefox

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
KEY_TYPES = {"RSA": "rsa:2048", "EC": "EC:prime256v1"}
WRONG_PIN = "not-the-PIN"


@dataclass(frozen=True, slots=True)
class Scene:
    """What every test here starts from: the authority, and a token for each kind of key, with a PIN and without."""

    authority: Path
    """Folder with `authority.pem` and `server.pem`."""
    with_pin: dict[str, Token]
    open: dict[str, Token]
    """Tokens of one certified key each, by the kind of the key."""
    folder: Path
    """For files of this test alone."""

    def server(self, version: str) -> TlsServer:
        """A TLS server of that version only."""
        return TlsServer(VERSIONS[version], self.authority / "server.pem", self.authority / "authority.pem")

    def chromium(self, token: Token) -> Chromium:
        """A browser with a fresh home, which knows no module yet."""
        return Chromium(self.folder / "home", self.authority / "authority.pem", token.environment())


def user(kind: str) -> str:
    """The name in the certificate of the key of this kind."""
    return f"Somebody with {kind}"


@pytest.fixture(scope="module")
def made(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Make the authority and the tokens."""
    folder = tmp_path_factory.mktemp("chromium")
    authority = Authority()
    authority.write(folder / "authority.pem")
    authority.write_server(folder / "server.pem")
    scene = Scene(folder, {}, {}, folder)
    for kind, key_type in KEY_TYPES.items():
        scene.with_pin[kind] = make_token(module, folder / f"pin-{kind}", cheap_pins=False)
        scene.open[kind] = general_access_token(module, folder / f"open-{kind}")
        for token in (scene.with_pin[kind], scene.open[kind]):
            tool = Pkcs11Tool(token, folder)
            tool.write_certificate(authority.client(user(kind), tool.generate(key_type, "01", kind)), "01", kind)
    return scene


@pytest.fixture
def scene(made: Scene, tmp_path: Path) -> Scene:
    """The scene of one test; ends the test early where Chromium is not installed."""
    program("chromium", "chromium")
    return Scene(made.authority, made.with_pin, made.open, tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KEY_TYPES)
def test_general_access_token_serves_a_browser_without_a_screen(scene: Scene, kind: str, version: str) -> None:
    """Nobody is there to be asked for a PIN, and nobody needs to be."""
    token = scene.open[kind]
    chromium = scene.chromium(token)
    chromium.register_with_modutil("interop module", token.module.path)
    with scene.server(version) as server:
        chromium.choose_by_itself(server.url)
        assert chromium.title_without_a_screen(server.url) == f"client: {user(kind)}"
        assert set(server.handshakes) == {Handshake(version, user(kind))}, server.failures


def test_absent_module_leaves_the_server_without_a_certificate(scene: Scene) -> None:
    """The control for all tests here: certificates and keys come from the token and from nowhere else."""
    chromium = scene.chromium(scene.open["EC"])
    with scene.server("TLSv1.3") as server:
        chromium.choose_by_itself(server.url)
        assert chromium.title_without_a_screen(server.url) == f"client: {NOBODY}"
        assert set(server.handshakes) == {Handshake("TLSv1.3", NOBODY)}, server.failures


@pytest.mark.parametrize(("kind", "version"), [("RSA", "TLSv1.3"), ("EC", "TLSv1.2")])
def test_certificate_is_chosen_and_the_pin_typed(scene: Scene, kind: str, version: str) -> None:
    """The chooser, the PIN dialog, and the page that says who the user is."""
    token = scene.with_pin[kind]
    chromium = scene.chromium(token)
    chromium.register_with_modutil("interop module", token.module.path)
    with (
        scene.server(version) as server,
        Desktop(chromium.environment) as desktop,
        chromium.on(desktop, server.url) as window,
    ):
        window.take_the_certificate()
        window.give_pin(token.pin)
        window.wait_for_title(f"client: {user(kind)}")
        assert set(server.handshakes) == {Handshake(version, user(kind))}, server.failures


def test_wrong_pin_leaves_the_server_without_a_certificate(scene: Scene) -> None:
    """The PIN dialog comes again after a wrong PIN; once it is given up no key is used."""
    token = scene.with_pin["EC"]
    chromium = scene.chromium(token)
    chromium.register_with_modutil("interop module", token.module.path)
    with (
        scene.server("TLSv1.3") as server,
        Desktop(chromium.environment) as desktop,
        chromium.on(desktop, server.url) as window,
    ):
        window.take_the_certificate()
        window.give_pin(WRONG_PIN)
        window.wait_for_title(f"client: {NOBODY}", refusing_pins=True)
        log = token.log_file()
        assert log is not None
        assert "CKR_PIN_INCORRECT" in log.read_text()
        assert set(server.handshakes) == {Handshake("TLSv1.3", NOBODY)}, server.failures
