"""A program on NSS, in C: removal and slot events through NSS's own functions, and how often it asks for the PIN."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.abi.stub_module import compiler
from tests.conftest import module_path
from tests.interop.programs import missing, program, succeed
from tests.robustness.hosts import environment
from tests.rules.test_removal import keyfob, make

pytestmark = pytest.mark.interop

PIN = "user-pin-1"  # of tests.conftest


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pkg_config = program("pkg-config", "pkg-config")
    found = subprocess.run([pkg_config, "--cflags", "--libs", "nss"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        missing("NSS's headers are not installed (apt-get install libnss3-dev)")
    built = tmp_path_factory.mktemp("host") / "host"
    source = Path(__file__).with_name("host.c")
    command = [compiler(), "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(built), str(source), *found.stdout.split()]
    subprocess.run(command, check=True)
    return built


@pytest.fixture
def database(tmp_path: Path) -> str:
    folder = tmp_path / "db"
    folder.mkdir()
    succeed([program("certutil", "libnss3-tools"), "-N", "-d", f"sql:{folder}", "--empty-password"], environment())
    return f"sql:{folder}"


class Conversation:
    """The program, a line at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go on\n")
        self.process.stdin.flush()

    def end(self) -> str:
        output, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, output
        return output.strip()


class Talk:
    def __init__(self, host: Path, database: str) -> None:
        self.host = host
        self.database = database
        self.started: list[Conversation] = []

    def __call__(self, token: str, *action: str) -> Conversation:
        command = [str(self.host), self.database, str(module_path()), token, PIN, *action]
        self.started.append(Conversation(command))
        return self.started[-1]


@pytest.fixture
def talk(host: Path, database: str, home: Path) -> Iterator[Talk]:
    talking = Talk(host, database)
    yield talking
    for conversation in talking.started:
        conversation.process.kill()
        conversation.process.wait()


@pytest.fixture
def stick(home: Path, tmp_path: Path) -> Path:
    make(tmp_path / "stick", "travel")
    keyfob("key", "generate", "travel", "--type", "ec:p256", "--name", "me", "--pin", PIN)
    return tmp_path / "stick"


@pytest.mark.rule("SE12", "SE13", "SE15")
@pytest.mark.parametrize("how", ["once", "timeout", "always"])
def test_nss_asks_for_the_pin_as_often_as_it_was_told(talk: Talk, stick: Path, how: str) -> None:
    """Where NSS asks always, or after a time, it logs out and in before each use, and each use works."""
    said = re.fullmatch(r"asked (\d+) times", talk("travel", "ask", how).end())
    assert said is not None
    # Three signatures; NSS asks for the list of keys, too.
    assert int(said[1]) == 1 if how == "once" else int(said[1]) >= 3


@pytest.mark.rule("S4", "S9", "SE9", "SE10")
def test_nss_sees_the_token_go_and_come(talk: Talk, stick: Path) -> None:
    """PK11_IsPresent follows the token out and in again."""
    conversation = talk("travel", "present")
    assert conversation.hear() == "present"
    for expected in ("absent", "present"):
        other = stick.with_name("pulled")
        (stick if stick.exists() else other).rename(other if stick.exists() else stick)
        time.sleep(1.1)  # NSS looks once a second
        conversation.go_on()
        assert conversation.hear() == expected
    conversation.end()


@pytest.mark.rule("SE9", "SE10", "S9")
def test_a_program_signs_again_after_the_token_was_away(talk: Talk, stick: Path) -> None:
    """Signing works, fails while the token is away, and works again after it: NSS asks for the PIN anew."""
    conversation = talk("travel", "again")
    assert conversation.hear() == "sign 0"
    stick.rename(stick.with_name("pulled"))
    time.sleep(1.1)
    conversation.go_on()
    assert conversation.hear() != "sign 0"
    stick.with_name("pulled").rename(stick)
    time.sleep(1.1)
    conversation.go_on()
    assert conversation.hear() == "sign 0"
    assert int(conversation.end().split()[1]) > 1


@pytest.mark.rule("P28", "S4")
def test_nss_waits_for_slot_events_and_can_end_the_wait(talk: Talk, stick: Path) -> None:
    """SECMOD_WaitForAnyTokenEvent tells of a removal and an insertion, and SECMOD_CancelWait ends the wait."""
    conversation = talk("travel", "events")
    assert conversation.hear() == "waiting"
    time.sleep(0.5)
    stick.rename(stick.with_name("pulled"))
    assert conversation.hear() == "removed"
    stick.with_name("pulled").rename(stick)
    assert conversation.hear() == "inserted"
    conversation.go_on()
    assert conversation.hear() == "cancelled"
    assert conversation.hear() == "end"
    conversation.end()
