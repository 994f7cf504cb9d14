"""Firefox ESR authenticates itself to a TLS server with keys on the token, its real dialogs answered as by a person."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.interop.certificates import Authority
from tests.interop.firefox.browser import Browser, installation_with_policies, make_profile
from tests.interop.gecko.profile import register_with_modutil
from tests.interop.programs import program
from tests.interop.tls_server import NOBODY, Handshake, TlsServer
from tests.interop.tokens import Module, Token, make_token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.interop.pkcs11_tool import Pkcs11Tool

pytestmark = pytest.mark.firefox

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
USERS = {"RSA": "Rosa with an RSA key", "EC": "Edda with an EC key"}
WRONG_PIN = "not-the-PIN"


@dataclass(frozen=True, slots=True)
class Scene:
    """What every test here starts from: files of the authority, and a token with two certified keys."""

    authority_pem: Path
    server_pem: Path
    token: Token
    folder: Path
    """For files of this test alone."""

    def friendly(self) -> bool:
        """Whether the token says that its certificates are public (CKP_PUBLIC_CERTIFICATES_TOKEN; NSS.md 3.4)."""
        return self.token.module.kind == "keyfob"

    def dialogs(self) -> list[str]:
        """The dialogs of a first visit, in order: a friendly token needs its PIN only for the signature."""
        return ["certificate", "promptPassword"] if self.friendly() else ["promptPassword", "certificate"]

    def server(self, version: str = "TLSv1.3") -> TlsServer:
        """A TLS server of that version only."""
        return TlsServer(VERSIONS[version], self.server_pem, self.authority_pem)

    def browser(self, *, with_module: bool = True, executable: Path | None = None) -> Browser:
        """A browser with a fresh profile, which knows the module if `with_module`."""
        profile = self.folder / "profile"
        make_profile(profile, self.authority_pem, self.token.environment())
        if with_module:
            register_with_modutil(profile, "interop module", self.token.module.path, self.token.environment())
        evidence = self.folder / "evidence"
        return Browser(
            profile, self.token.environment(), evidence=evidence, log=self.token.log_file(), executable=executable
        )


@pytest.fixture(scope="module")
def token(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Token:
    """A token as users have it, with all the work that goes into the PIN."""
    return make_token(module, tmp_path_factory.mktemp("token"), cheap_pins=False)


@pytest.fixture(scope="module")
def certified(tool: Pkcs11Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Put an RSA and an EC key with certificates on the token; the folder of the authority's and server's files."""
    folder = tmp_path_factory.mktemp("authority")
    authority = Authority()
    authority.write(folder / "authority.pem")
    authority.write_server(folder / "server.pem")
    for identifier, kind, key_type in (("01", "RSA", "rsa:2048"), ("02", "EC", "EC:prime256v1")):
        key = tool.generate(key_type, identifier, USERS[kind])
        tool.write_certificate(authority.client(USERS[kind], key), identifier, USERS[kind])
    return folder


@pytest.fixture
def scene(certified: Path, token: Token, tmp_path: Path) -> Scene:
    """The scene of one test; ends the test early where Firefox is not installed."""
    program("firefox-esr", "firefox-esr")
    return Scene(certified / "authority.pem", certified / "server.pem", token, tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", USERS)
def test_client_authenticates_with_a_key_on_the_token(scene: Scene, kind: str, version: str) -> None:
    """PIN prompt, chooser, signature (NSS.md 3.4, 3.6), and a quiet end of the browser with the module loaded."""
    with scene.server(version) as server, scene.browser() as browser:
        visit = browser.visit(server.url, pins=[scene.token.pin], certificate=USERS[kind])

        assert server.handshakes == [Handshake(version, USERS[kind])], server.failures
        assert visit.title == f"client: {USERS[kind]}"
        assert visit.kinds() == scene.dialogs()
        chooser, prompt = sorted(visit.dialogs, key=lambda dialog: str(dialog["kind"]))
        assert scene.token.label in prompt["text"]
        assert scene.token.label in chooser["text"]
        assert sorted(label.partition(" [")[0] for label in chooser["offered"]) == sorted(USERS.values())
        assert browser.quit() == 0


def test_one_login_serves_several_connections(scene: Scene) -> None:
    """The PIN is asked once; both keys then sign for servers of both versions in the same browser."""
    with scene.browser() as browser:
        asked = []
        for version in VERSIONS:
            for user in USERS.values():
                with scene.server(version) as server:
                    asked += browser.visit(server.url, pins=[scene.token.pin], certificate=user).kinds()
                    assert server.handshakes == [Handshake(version, user)], server.failures
        assert asked == [*scene.dialogs(), *["certificate"] * 3]


@pytest.mark.parametrize("version", VERSIONS)
def test_wrong_pin_leaves_the_server_without_a_certificate(scene: Scene, version: str) -> None:
    """The prompt comes again after a wrong PIN; once it is given up no key is used. The right PIN then works."""
    with scene.server(version) as server, scene.browser() as browser:
        refused = browser.visit(server.url, pins=[WRONG_PIN], certificate=USERS["EC"])
        assert server.handshakes == [Handshake(version, NOBODY)], server.failures
        assert refused.title == f"client: {NOBODY}"
        prompts = [dialog["answer"] for dialog in refused.dialogs if dialog["kind"] == "promptPassword"]
        assert prompts == ["PIN", "cancel"]

        accepted = browser.visit(server.url + "again", pins=[scene.token.pin], certificate=USERS["EC"])
        assert accepted.title == f"client: {USERS['EC']}"


@pytest.mark.parametrize("version", VERSIONS)
def test_absent_module_leaves_the_server_without_a_certificate(scene: Scene, version: str) -> None:
    """The control for all tests above: the certificates and keys come from the token and from nowhere else."""
    with scene.server(version) as server, scene.browser(with_module=False) as browser:
        visit = browser.visit(server.url, pins=[scene.token.pin], certificate=USERS["EC"])
        assert server.handshakes == [Handshake(version, NOBODY)], server.failures
        assert visit.title == f"client: {NOBODY}"
        assert visit.kinds() == []


def test_declined_certificate_leaves_the_server_without_one(scene: Scene) -> None:
    """A user who sends no certificate is nobody to the server, and need not have logged in if the token is friendly."""
    with scene.server() as server, scene.browser() as browser:
        visit = browser.visit(server.url, pins=[scene.token.pin], certificate=None)
        assert server.handshakes == [Handshake("TLSv1.3", NOBODY)], server.failures
        assert visit.kinds() == (["certificate"] if scene.friendly() else scene.dialogs())


def _by_the_load_dialog(scene: Scene) -> Browser:
    return scene.browser(with_module=False)


def _by_policy(scene: Scene) -> Browser:
    devices = {"SecurityDevices": {"Add": {"interop module": str(scene.token.module.path)}}}
    executable = installation_with_policies(scene.folder / "firefox", devices)
    return scene.browser(with_module=False, executable=executable)


@pytest.mark.parametrize("start", [_by_the_load_dialog, _by_policy])
def test_module_registered_in_the_browser_itself_is_used(scene: Scene, start: Callable[[Scene], Browser]) -> None:
    """The two ways that need no NSS tools: the device manager's Load dialog and an enterprise policy."""
    with scene.server() as server, start(scene) as browser:
        if start is _by_the_load_dialog:
            browser.load_module("interop module", scene.token.module.path)
        browser.visit(server.url, pins=[scene.token.pin], certificate=USERS["RSA"])
        assert server.handshakes == [Handshake("TLSv1.3", USERS["RSA"])], server.failures
