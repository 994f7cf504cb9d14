"""The program as it is started from a shell: exit codes, streams, terminals, secrets."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

import keyfob
from keyfob.cli import COMMANDS
from keyfob.cli import keyfob as program
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from tests.cli.conftest import Run

SECRET_PIN = "Secret-PIN-4711"
SECRET_SO_PIN = "Secret-SO-PIN-4712"
SECRET_PASSPHRASE = "Secret-passphrase-4713"


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(keyfob.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "keyfob.cli", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )


def test_errors_go_to_standard_error_with_exit_code_1(folder: Path) -> None:
    done = started("list", "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "keyfob: there is no token yet; make one with: keyfob init LABEL\n"


def test_wrong_usage_has_exit_code_2(folder: Path) -> None:
    assert started("frobnicate").returncode == 2
    assert started("init").returncode == 2


def test_module_path_is_the_library_beside_the_package(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyfob, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "libkeyfob.so").touch()
    assert run("module-path").output == f"{tmp_path / 'libkeyfob.so'}\n"


def test_module_path_imports_neither_rich_nor_the_token_nor_the_crypto_library(folder: Path) -> None:
    code = (
        "import sys\n"
        "from keyfob.cli import main\n"
        "try: main(['module-path'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'rich', 'cryptography', 'apsw', 'keyfob.token', 'keyfob.store'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(keyfob.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == "[]"


def every_command() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = [("", program)]
    for name in COMMANDS:
        command = program.get_command(click.Context(program), name)
        assert command is not None
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {inner}", below) for inner, below in command.commands.items()]
    return found


@pytest.mark.parametrize(
    ("name", "command"), every_command(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_explains_itself(run: Run, name: str, command: click.Command) -> None:
    output = run(f"{name} --help").output
    assert max(len(line) for line in output.splitlines()) <= 110
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name}"


@pytest.mark.parametrize("name", [name for name, command in every_command() if not isinstance(command, click.Group)])
def test_options_for_secrets_warn_of_the_list_of_processes(run: Run, name: str) -> None:
    output = " ".join(run(f"{name} --help").output.split())
    if "--pin TEXT" in output or "--so-pin TEXT" in output or "--passphrase TEXT" in output:
        assert "Others see it in the list of processes" in output


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(keyfob.__file__).parents[1]), "TERM": "xterm"}
        self.screen, inner = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "keyfob.cli", *arguments],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=environment,
            start_new_session=True,
        )
        os.close(inner)
        self.seen = ""

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 30
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            try:
                self.seen += os.read(self.screen, 4096).decode()
            except OSError:
                break
        assert text in self.seen
        self.seen = self.seen.split(text, 1)[1]

    def answer(self, prompt: str, text: str) -> None:
        self.wait_for(prompt)
        time.sleep(0.05)  # the prompt comes just before the terminal stops to echo
        os.write(self.screen, f"{text}\n".encode())

    def end(self) -> tuple[int, str]:
        while True:
            try:
                self.seen += os.read(self.screen, 4096).decode()
            except OSError:
                break
        os.close(self.screen)
        return self.process.wait(30), self.seen.replace("\r\n", "\n")


def test_on_a_terminal_new_pins_are_asked_for_twice_and_not_shown(folder: Path) -> None:
    terminal = Terminal("init", "work")
    terminal.answer("User PIN: ", SECRET_PIN)
    terminal.answer("Repeat for confirmation: ", SECRET_PIN)
    terminal.answer("SO PIN: ", SECRET_SO_PIN)
    terminal.answer("Repeat for confirmation: ", SECRET_SO_PIN)
    code, output = terminal.end()
    assert (code, output.strip()) == (0, "Made the token 'work' in slot 1 (multipurpose).")
    terminal = Terminal("list", "work", "--login")
    terminal.answer("User PIN: ", SECRET_PIN)
    code, output = terminal.end()
    assert (code, output.strip()) == (0, "No objects.")


def test_on_a_terminal_making_a_key_shows_progress_and_lists_are_drawn(run: Run, folder: Path) -> None:
    run(f"init work --pin {SECRET_PIN} --so-pin {SECRET_SO_PIN}")
    terminal = Terminal("key", "generate", "work", "--type", "rsa:2048", "--name", "mary", "--pin", SECRET_PIN)
    terminal.wait_for("Making rsa:2048 ...")
    code, output = terminal.end()
    assert code == 0
    assert "Made the rsa:2048 key 'mary'" in output
    code, output = Terminal("list", "work").end()
    assert code == 0
    assert "───" in output
    assert "rsa:2048" in output


def test_on_a_terminal_deleting_is_asked_back(run: Run, folder: Path) -> None:
    run(f"init work --pin {SECRET_PIN} --so-pin {SECRET_SO_PIN}")
    terminal = Terminal("delete", "work", "--token")
    terminal.answer("with everything on it for good? [y/N]: ", "n")
    code, output = terminal.end()
    assert (code, output.strip().splitlines()[-1]) == (1, "keyfob: nothing was deleted")
    assert "work" in run("list").output
    terminal = Terminal("delete", "work", "--token")
    terminal.answer("with everything on it for good? [y/N]: ", "y")
    assert terminal.end()[0] == 0
    assert run("list").output.startswith("There is no token yet")


def test_no_secret_reaches_output_log_or_token_file(run: Run, folder: Path) -> None:
    pin, so_pin = f"--pin {SECRET_PIN}", f"--so-pin {SECRET_SO_PIN}"
    said = [run(f"init work {pin} {so_pin}")]
    said.append(run(f"key generate work --type ec:p256 --name mary --extractable {pin}"))
    said.append(run(f"export work mary --out mary.p12 --passphrase {SECRET_PASSPHRASE} {pin}"))
    said.append(run(f"import work mary.p12 --passphrase {SECRET_PASSPHRASE}x {pin}", code=1))
    said.append(run(f"list work --json {pin}"))
    said.append(run(f"list work {pin}x", code=1))
    said.append(run(f"pin change work {pin} --new-pin x", code=1))
    said.append(run(f"pin unblock work {so_pin}x --new-pin {SECRET_PIN}", code=1))
    printed = "".join(result.output for result in said).encode()
    home = Path(os.environ["KEYFOB_HOME"])
    kept = b"".join(path.read_bytes() for path in (*home.rglob("*"), *folder.rglob("*")) if path.is_file())
    assert (home / "keyfob.log").exists()
    for secret in (SECRET_PIN, SECRET_SO_PIN, SECRET_PASSPHRASE):
        assert secret.encode() not in printed
        assert secret.encode() not in kept


def test_labels_cannot_steer_a_terminal(run: Run, folder: Path) -> None:
    run("init work --pin 1234 --so-pin 12345678")
    run("key generate work --type ec:p256 --name $'\\x1b[31mred' --pin 1234".replace("$'\\x1b", "'\x1b"))
    output = run("list work").output
    assert "\x1b" not in output
    assert "?[31mred" in output
    assert json.loads(run("list work --json").output.split("Private")[0])["objects"][0]["name"] == "\x1b[31mred"


def test_a_fault_of_keyfob_itself_is_one_line_without_its_text(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> None:
        raise ValueError(SECRET_PIN)

    monkeypatch.setattr("keyfob.cli.tokens.Library", faulty)
    output = run("list", code=1).output
    assert output.startswith("keyfob: this is a fault of keyfob itself: ValueError at test_program.py:")
    assert SECRET_PIN not in output
    assert output.count("\n") == 1


def test_an_error_of_the_token_is_said_with_its_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise PKCS11Error(CKR.DEVICE_ERROR, "the disk is gone")

    monkeypatch.setattr("keyfob.cli.tokens.Library", failing)
    assert run("list", code=1).output == "keyfob: the disk is gone (CKR_DEVICE_ERROR)\n"


def test_a_file_that_cannot_be_written_is_named(run: Run, folder: Path) -> None:
    run("init work --pin 1234 --so-pin 12345678")
    run("key generate work --type ed25519 --name mary --pin 1234")
    run('cert self-sign work mary --subject "CN=Mary" --pin 1234')
    output = run("cert export work mary --out no/such/folder/mary.pem", code=1).output
    assert output == "keyfob: no/such/folder/mary.pem cannot be written: No such file or directory\n"


def test_a_failing_second_pin_leaves_no_token(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise PKCS11Error(CKR.DEVICE_MEMORY, "the disk is full")

    monkeypatch.setattr("keyfob.token.token.Token.init_pin", full)
    assert "no room left on the disk" in run("init work --pin 1234 --so-pin 12345678", code=1).output
    assert run("list").output.startswith("There is no token yet")


def test_tokens_made_at_the_same_time_each_get_a_slot(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(keyfob.__file__).parents[1])}
    command = [sys.executable, "-m", "keyfob.cli", "init", "--no-pin"]
    labels = ("one", "two", "three", "four", "four")
    programs = [subprocess.Popen([*command, label], env=environment, stderr=subprocess.DEVNULL) for label in labels]
    codes = [program.wait(60) for program in programs]
    assert sorted(codes) == [0, 0, 0, 0, 1]
    done = started("list", "--json")
    assert sorted(token["label"] for token in json.loads(done.stdout)["tokens"]) == ["four", "one", "three", "two"]
