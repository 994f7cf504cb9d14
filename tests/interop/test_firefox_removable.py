"""Firefox notices a token that is put in, taken out and put in again while it runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.interop.firefox.scene import Stage
from tests.interop.firefox.security_windows import DeviceManager
from tests.interop.programs import program, succeed
from tests.interop.tls_server import NOBODY, Handshake
from tests.interop.tokens import PIN, SO_PIN, Module, Token

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.firefox

LABEL = "travel"
USER = "Alice Example"
NSS_LOOKS_AGAIN = 1.5
"""Seconds after which NSS asks a slot again whether its token is there; it does so once a second at most (S4)."""


@pytest.mark.rule("S2", "S4", "SE9", "SE10")
def test_token_is_put_in_taken_out_and_put_in_again_while_firefox_runs(module: Module, tmp_path: Path) -> None:
    """Put in, the token authenticates the user; taken out, nobody does; put in again, it asks for the PIN again."""
    program("firefox-esr", "firefox-esr")
    stage = Stage.make(tmp_path / "stage")
    stick = tmp_path / "stick"
    stick.mkdir()
    token = Token(module, LABEL, PIN, SO_PIN, module.home(tmp_path / "tokens"))
    token.softhsm_cannot("removable tokens")
    environment = token.environment()
    pins = ["--pin", PIN, "--so-pin", SO_PIN]
    succeed([module.command, "init", LABEL, "--removable", stick, *pins], environment)
    stage.certify(token, USER, "EC:prime256v1", "01")

    def turn(command: str, name: str) -> None:
        succeed([module.command, command, name], environment)
        time.sleep(NSS_LOOKS_AGAIN)

    turn("eject", LABEL)
    with stage.server() as server, stage.browser(token) as browser:
        devices = DeviceManager(browser)
        slot = next(row for row in devices.rows() if row.startswith("keyfob slot"))
        number = slot.split()[-1]
        assert devices.details(slot)["tok_status"] == "Not Present"
        devices.close()

        def visit(page: str) -> tuple[int, str]:
            """How often the PIN was asked for, and who the server says has come."""
            seen = browser.visit(server.url + page, pins=[PIN], certificate=USER)
            assert server.handshakes.pop() == Handshake("TLSv1.3", seen.title.removeprefix("client: "))
            return seen.kinds().count("promptPassword"), seen.title.removeprefix("client: ")

        assert visit("empty") == (0, NOBODY)
        turn("insert", number)
        assert visit("inserted") == (1, USER)
        assert visit("logged-in") == (0, USER)
        turn("eject", LABEL)
        assert visit("removed") == (0, NOBODY)
        turn("insert", number)
        assert visit("inserted-again") == (1, USER)
        assert browser.quit() == 0
