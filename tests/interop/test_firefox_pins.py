"""Firefox sets and changes PINs by its own dialog, as under Settings, Security Devices, Change Password."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop.firefox.scene import Stage
from tests.interop.firefox.security_windows import DeviceManager
from tests.interop.programs import program
from tests.interop.tls_server import Handshake

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.tokens import Token

pytestmark = pytest.mark.firefox

NEW_PIN = "Changed-4406"
WRONG_PIN = "not-the-PIN"
USER = "Alice Example"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """The authority and a place for a profile; ends the test early where Firefox is not installed."""
    program("firefox-esr", "firefox-esr")
    return Stage.make(tmp_path / "stage")


@pytest.mark.rule("S13", "P6")
def test_first_pin_of_a_fresh_token_is_set_in_firefox_and_a_key_then_used(stage: Stage, blank: Token) -> None:
    """Firefox's own dialog gives a fresh token its PIN; a key is made with it, and Firefox uses that key at once."""
    with stage.server() as server, stage.browser(blank) as browser:
        devices = DeviceManager(browser)
        slot = next(row for row in devices.rows() if row.startswith("keyfob slot"))
        assert devices.details(slot)["tok_status"] == "Uninitialized"

        dialogs = devices.change_pin(slot, "", blank.pin)
        assert dialogs[0]["first"]
        assert dialogs[1]["text"] == "Password successfully changed."
        assert devices.details(slot)["tok_status"] == "Logged In"
        devices.close()

        stage.certify(blank, USER, "EC:prime256v1", "01")
        visit = browser.visit(server.url, pins=[blank.pin], certificate=USER)
        assert server.handshakes == [Handshake("TLSv1.3", USER)], server.failures
        assert visit.title == f"client: {USER}"


def test_pin_is_changed_in_firefox(stage: Stage, own_token: Token) -> None:
    """The dialog refuses a wrong old PIN; with the right one the PIN becomes another, for every program."""
    stage.certify(own_token, USER, "EC:prime256v1", "01")
    with stage.server() as server:
        with stage.browser(own_token) as browser:
            devices = DeviceManager(browser)
            slot = next(row for row in devices.rows() if row.startswith("keyfob slot"))
            refused = devices.change_pin(slot, WRONG_PIN, NEW_PIN)
            assert not refused[0]["first"]
            assert "did not enter the correct current password" in refused[1]["text"]
            assert devices.change_pin(slot, own_token.pin, NEW_PIN)[1]["text"] == "Password successfully changed."

        with stage.browser(own_token) as browser:
            visit = browser.visit(server.url, pins=[own_token.pin, NEW_PIN], certificate=USER)
            assert [dialog["kind"] for dialog in visit.dialogs].count("promptPassword") == len(["old", "new"])
            assert server.handshakes == [Handshake("TLSv1.3", USER)], server.failures


@pytest.mark.rule("SE12", "SE15", "S15")
def test_who_logs_out_in_firefox_is_asked_for_the_pin_again(stage: Stage, own_token: Token) -> None:
    """Log Out in the Device Manager makes the next visit ask for the PIN; Log In there saves the visit from asking."""
    stage.certify(own_token, USER, "EC:prime256v1", "01")
    with stage.server() as server, stage.browser(own_token) as browser:

        def prompts(page: str) -> int:
            visit = browser.visit(server.url + page, pins=[own_token.pin], certificate=USER)
            assert server.handshakes.pop() == Handshake("TLSv1.3", USER), server.failures
            return visit.kinds().count("promptPassword")

        def press(before: str, button: str, after: str) -> None:
            devices = DeviceManager(browser)
            devices.wait_for_status("keyfob slot", before)
            browser.answer_dialogs(pins=[own_token.pin])
            devices.press(button)
            devices.wait_for_status("keyfob slot", after)
            devices.close()

        assert (prompts("first"), prompts("second")) == (1, 0)
        press("Logged In", "logout_button", "Not Logged In")
        assert prompts("after-logout") == 1
        press("Logged In", "logout_button", "Not Logged In")
        press("Not Logged In", "login_button", "Logged In")
        assert prompts("after-login") == 0
