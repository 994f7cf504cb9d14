"""NSS's tools on a token with a PIN file: nobody is asked, servers start, and a wrong file leaves all as it was.

The password file that the demo's tools are given holds a wrong PIN: whoever used it would fail, and would be counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo import tokens
from demo.stage import PINS, open_stage
from tests.interop.nss.stages import KIND
from tests.interop.nss.test_nss_tools import report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo.nss import Tools
    from demo.stage import Stage

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(KIND != "keyfob", reason="only keyfob takes its PIN from a file"),
]

STEPS = (
    "rsa-key",
    "ec-key",
    "list-keys",
    "ca",
    "certify",
    "add",
    "sign-rsa",
    "sign-ec",
    "import-rsa",
    "tls12-rsa-server",
    "tls13-rsa-server",
    "tls12-static-rsa",
    "tls13-ec-server",
    "tls13-ec-client",
    "encrypt-rsa",
    "delete-key",
)


def make_token(folder: Path, tools: Tools) -> tokens.Token:
    token = tokens.keyfob(folder, tools)
    home = folder / "keyfob-home"
    home.mkdir()
    settings = f'[token."{token.label}"]\npin_file = "pin"\n'
    (home / "config.toml").write_text(f"[pin]\nmemory_kib = 8192\niterations = 1\n{settings}")
    write(folder, token.pin)
    return token


def write(folder: Path, pin: str) -> None:
    file = folder / "keyfob-home" / "pin"
    file.write_text(f"{pin}\n")
    file.chmod(0o600)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with open_stage(make_token) as shared:
        shared.write_pins("not-the-pin")
        yield shared


def pin_state(stage: Stage) -> str:
    """As `keyfob list` shows it: `set`, or how many attempts are left."""
    listed = stage.run(stage.token.command, "list").output.splitlines()[-1]
    return "tries left" if "tries left" in listed else "set"


@pytest.mark.parametrize("step", STEPS)
def test_the_tools_need_no_pin(stage: Stage, step: str) -> None:
    result = stage.show(step)
    assert result.state == "passed", report(result)
    assert pin_state(stage) == "set"


def test_certutil_asks_nobody(stage: Stage) -> None:
    """Without a password file, and with nothing to read from its standard input."""
    assert stage.show("rsa-key").state == "passed"
    assert stage.private_keys(pins="")


def test_with_a_wrong_file_the_tools_ask_as_ever(stage: Stage) -> None:
    """The file costs one attempt, whatever the number of programs; a right PIN sets the count back."""
    assert stage.show("rsa-key").state == "passed"
    write(stage.folder, "not-the-pin")
    try:
        for _ in range(3):
            listing = stage.certutil("-K", "-h", stage.token.label, code=None, pins="")
            assert listing.code != 0, listing.output
        assert "9 tries left" in stage.run(stage.token.command, "list").output
        stage.write_pins(stage.token.pin)
        assert stage.private_keys()
        assert pin_state(stage) == "set"
    finally:
        write(stage.folder, stage.token.pin)
        stage.write_pins("not-the-pin", PINS)
