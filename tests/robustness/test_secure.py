"""A setuid host: what its caller says in the environment has no effect, and nothing of the caller's is started.

The host is root's and really setuid; its caller is another user. The home that the password database gives to root is a
scratch one meanwhile, in a mount namespace of the test's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyfob.spec.constants import CKR
from tests.conftest import CHEAP_PINS, module_path
from tests.robustness.hosts import compile_host, environment

CALLER = 65534
# Runs with its caller's rights, whoever that is: shells give up those of setuid programs.
PINENTRY = "#!/bin/sh\n: > {marker}\necho ERR 1\n"
SETTINGS = CHEAP_PINS + '[pinentry]\nprogram = "{program}"\n[token."mine"]\nprotected_path = true\n'


class Machine:
    """`folder` holds the homes of `root` and of the `caller`, each with a token; and the host."""

    def __init__(self, folder: Path, host: Path) -> None:
        self.folder = folder
        self.host = host
        self.home = folder / "root"
        self.caller = folder / "caller"
        self.marker = folder / "open" / "started"
        self.program = folder / "pinentry"
        folder.chmod(0o755)
        self.marker.parent.mkdir()
        self.marker.parent.chmod(0o777)
        self.program.write_text(PINENTRY.format(marker=self.marker))
        self.program.chmod(0o755)
        for config, variables, label in (
            (self.home / ".config" / "keyfob", {"HOME": str(self.home)}, "mine"),
            (self.caller, {"KEYFOB_HOME": str(self.caller)}, "trap"),
        ):
            config.mkdir(parents=True, mode=0o700)
            (config / "config.toml").write_text(SETTINGS.format(program=self.program))
            self._init(label, variables)
        with (self.caller / "config.toml").open("a") as file:
            file.write('[token."trap"]\nprotected_path = true\n')
        (self.caller / "keyfob.log").unlink(missing_ok=True)
        (self.caller / "keyfob.log").symlink_to(folder / "victim")
        (folder / "passwd").write_text(f"root:x:0:0:root:{self.home}:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")

    def _init(self, label: str, variables: dict[str, str]) -> None:
        command = [sys.executable, "-m", "keyfob.cli", "init", label, "--pin", "1234", "--so-pin", "12345678"]
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("KEYFOB", "XDG"))}
        subprocess.run(command, env=plain | variables, check=True, capture_output=True)

    def run(self, *prefix: str, **variables: str) -> list[str]:
        """What the host says, as root's home is the scratch one."""
        script = f'mount --bind {self.folder / "passwd"} /etc/passwd && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", script, "sh", *prefix, str(self.host), str(module_path())]
        done = subprocess.run(command, env=environment(**variables), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()


@pytest.fixture
def machine() -> Iterator[Machine]:
    """In a folder that the caller reaches."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a setuid program of root's")
    if shutil.which("setpriv") is None or subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0:
        pytest.skip("no mount namespace can be had here (unshare, setpriv)")
    folder = Path(tempfile.mkdtemp(prefix="keyfob-test-", dir="/var/tmp"))
    try:
        yield Machine(folder, compile_host("secure", folder))
    finally:
        shutil.rmtree(folder)


def test_a_setuid_host_takes_nothing_of_its_callers_environment(machine: Machine) -> None:
    def contents() -> set[Path]:
        return {path for path in machine.caller.rglob("*") if not path.name.endswith(("-wal", "-shm"))}

    machine.host.chmod(0o4755)
    for path in (machine.caller, *machine.caller.rglob("*")):
        os.chown(path, CALLER, CALLER, follow_symlinks=False)
    before = contents()
    as_caller = ("setpriv", "--reuid", str(CALLER), "--regid", str(CALLER), "--clear-groups")
    state = str(machine.caller)
    caller = {"KEYFOB_HOME": state, "HOME": state, "XDG_CONFIG_HOME": state, "XDG_STATE_HOME": state}
    secure, label, rv = machine.run(*as_caller, **caller, GPG_TTY="/dev/null", TMPDIR=state)
    if secure == "0":
        pytest.skip("the file system of /var/tmp is mounted nosuid")
    assert label == "mine"
    assert int(rv, 16) == CKR.FUNCTION_FAILED
    assert contents() == before
    assert not (machine.folder / "victim").exists()
    assert not machine.marker.exists(), "the pinentry was started"
    log = (machine.home / ".local/state/keyfob/keyfob.log").read_text()
    assert "is not started in a program with rights that its caller has not got" in log


def test_the_same_host_without_such_rights_is_told_by_its_environment(machine: Machine) -> None:
    secure, label, rv = machine.run(KEYFOB_HOME=str(machine.caller))
    assert (secure, label, int(rv, 16)) == ("0", "trap", CKR.FUNCTION_FAILED)
    assert machine.marker.exists()
    assert not (machine.folder / "victim").exists(), "a log is not written through a link"
