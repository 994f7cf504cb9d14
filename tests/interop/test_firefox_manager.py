"""Firefox's windows show what is on the token and delete from it; uninstalled, keyfob leaves a profile as it was."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.interop.firefox.browser import installation_with_policies
from tests.interop.firefox.scene import Stage
from tests.interop.firefox.security_windows import CertificateManager, DeviceManager
from tests.interop.pkcs11_tool import Pkcs11Tool
from tests.interop.programs import program, succeed
from tests.interop.tls_server import NOBODY, Handshake

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.tokens import Token

pytestmark = pytest.mark.firefox


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """The authority and a place for a profile; ends the test early where Firefox is not installed."""
    program("firefox-esr", "firefox-esr")
    return Stage.make(tmp_path / "stage")


def test_certificates_are_shown_and_deleted_with_their_keys(stage: Stage, own_token: Token) -> None:
    """The certificate manager lists both certificates, opens one, and deletes the other one and its key, no more."""
    stage.certify(own_token, "Alice Example", "EC:prime256v1", "01")
    stage.certify(own_token, "Bob Example", "rsa:2048", "02")
    with stage.server() as server, stage.browser(own_token) as browser:
        browser.visit(server.url, pins=[own_token.pin], certificate="Alice Example")
        assert server.handshakes.pop() == Handshake("TLSv1.3", "Alice Example"), server.failures

        certificates = CertificateManager(browser)
        assert {"Alice Example", "Bob Example"} <= set(certificates.rows())
        assert certificates.view("Alice Example").startswith("about:certificate?cert=")
        dialogs = certificates.delete("Bob Example")
        assert [dialog["offered"] for dialog in dialogs] == [["Bob Example"]]

        left = Pkcs11Tool(own_token, stage.folder)("--list-objects")
        assert re.findall(r"^(.*) Object;", left, re.MULTILINE) == ["Public Key", "Private Key", "Certificate"]
        assert set(re.findall("label: +(.*)", left)) == {"Alice Example"}


def test_profile_is_as_before_once_keyfob_is_uninstalled(stage: Stage, own_token: Token) -> None:
    """Installed, the module is used; uninstalled, the list of modules is as it was and Firefox misses nothing."""
    keyfob = own_token.module.command
    own_token.softhsm_cannot("the commands install and uninstall")
    stage.certify(own_token, "Alice Example", "EC:prime256v1", "01")
    stage.make_profile(own_token)
    modules = stage.profile / "pkcs11.txt"
    before = modules.read_bytes()

    with stage.server() as server:
        succeed([keyfob, "install", "nss", stage.profile], own_token.environment())
        assert modules.read_bytes() != before
        with stage.browser(own_token, keep_profile=True) as browser:
            browser.visit(server.url, pins=[own_token.pin], certificate="Alice Example")
            assert server.handshakes.pop() == Handshake("TLSv1.3", "Alice Example"), server.failures
            assert browser.quit() == 0

        succeed([keyfob, "uninstall", "nss", stage.profile], own_token.environment())
        assert modules.read_bytes() == before
        with stage.browser(own_token) as browser:
            assert not [row for row in DeviceManager(browser).rows() if "keyfob" in row]
            visit = browser.visit(server.url + "again", pins=[own_token.pin], certificate="Alice Example")
            assert visit.kinds() == []
            assert server.handshakes.pop() == Handshake("TLSv1.3", NOBODY), server.failures
            assert browser.quit() == 0


@pytest.mark.rule("I1")
def test_a_policy_brings_the_module_into_a_profile_and_takes_it_out_again(stage: Stage, own_token: Token) -> None:
    """By policy the module is in a profile without any other step; it stays after the policy, until that deletes it."""
    own_token.softhsm_cannot("the commands install and uninstall")
    executable = installation_with_policies(stage.folder / "firefox", {})
    policies = executable.parent / "distribution" / "policies.json"
    stage.make_profile(own_token)
    listed = stage.folder / ".mozilla" / "firefox" / "profiles.ini"  # so that keyfob knows what uses its link
    listed.parent.mkdir(parents=True)
    listed.write_text(f"[Profile0]\nName=here\nIsRelative=0\nPath={stage.profile}\n")
    environment = own_token.environment(HOME=str(stage.folder))

    def modules() -> list[str]:
        with stage.browser(own_token, keep_profile=True, executable=executable) as browser:
            rows = DeviceManager(browser).rows()
            assert browser.quit() == 0
        return [row for row in rows if "keyfob" in row]

    def keyfob(what: str, *options: str) -> None:
        succeed([own_token.module.command, what, "policy", "--file", policies, *options], environment)

    assert modules() == []
    keyfob("install")
    assert modules() == ["keyfob", "keyfob slot 1"]
    keyfob("uninstall")
    assert modules() == ["keyfob", "keyfob slot 1"]
    keyfob("uninstall", "--from-profiles")
    assert modules() == []
    assert "libkeyfob" not in (stage.profile / "pkcs11.txt").read_text()
