"""OpenSSH: keys on the token for logins (ssh-keygen -D, ssh-add -s) and for certifying the keys of others."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.interop.pkcs11_tool import Pkcs11Tool
from tests.interop.programs import program, run, succeed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.interop.tokens import Token

pytestmark = pytest.mark.interop

KEYS = {"rsa": "rsa:2048", "p256": "EC:prime256v1", "p384": "EC:secp384r1"}


@pytest.fixture(scope="module")
def lines(tool: Pkcs11Tool) -> dict[str, str]:
    """The keys on the token as OpenSSH writes public keys (type and value), by their labels."""
    found = {}
    for place, (label, kind) in enumerate(KEYS.items(), 1):
        key = tool.generate(kind, f"0{place}", label)
        found[label] = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return found


class Agent:
    """`ssh-agent` that may load the module, asked with `environment`."""

    def __init__(self, token: Token, folder: Path, pin: str) -> None:
        self.token = token
        answer = folder / "askpass"
        answer.write_text(f"#!/bin/sh\necho {pin}\n")
        answer.chmod(0o700)
        self.socket = folder / "agent"
        self.environment: Mapping[str, str] = token.environment(
            SSH_AUTH_SOCK=str(self.socket), SSH_ASKPASS=str(answer), SSH_ASKPASS_REQUIRE="force", HOME=str(folder)
        )
        # Modules from elsewhere than /usr/lib must be allowed by name.
        allowed = str(token.module.path.resolve())
        self.process = subprocess.Popen(
            [program("ssh-agent", "openssh-client"), "-D", "-a", str(self.socket), "-P", allowed],
            env=dict(self.environment),
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert b"SSH_AUTH_SOCK" in self.process.stdout.readline()

    def add(self, *options: str | Path) -> subprocess.CompletedProcess[bytes]:
        return run([program("ssh-add", "openssh-client"), *options], self.environment)

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)


@pytest.fixture
def agent(token: Token, lines: dict[str, str], tmp_path: Path) -> Iterator[Agent]:
    started = Agent(token, tmp_path, token.pin)
    yield started
    started.end()


def listed(output: str) -> dict[str, str]:
    """Type and value of each key by its comment."""
    words = (line.split() for line in output.splitlines() if line.startswith(("ssh-", "ecdsa-")))
    return {comment: f"{kind} {value}" for kind, value, comment in words}


def test_ssh_keygen_lists_the_keys_without_a_pin(token: Token, lines: dict[str, str]) -> None:
    output = succeed([program("ssh-keygen", "openssh-client"), "-D", token.module.path], token.environment())
    assert listed(output) == lines


def test_the_agent_signs_with_every_key_of_the_token(agent: Agent, lines: dict[str, str], tmp_path: Path) -> None:
    added = agent.add("-s", agent.token.module.path.resolve())
    assert added.returncode == 0, added.stdout
    assert listed(agent.add("-L").stdout.decode()) == lines
    for label, line in lines.items():
        file = tmp_path / f"{label}.pub"
        file.write_text(f"{line}\n")
        tested = agent.add("-T", file)  # signs and verifies
        assert tested.returncode == 0, tested.stdout
    assert agent.add("-e", agent.token.module.path.resolve()).returncode == 0
    assert b"no identities" in agent.add("-l").stdout


def test_the_agent_gets_nothing_with_a_wrong_pin(token: Token, lines: dict[str, str], tmp_path: Path) -> None:
    agent = Agent(token, tmp_path, "wrong-PIN")
    try:
        assert agent.add("-s", token.module.path.resolve()).returncode != 0
        assert b"no identities" in agent.add("-l").stdout
    finally:
        agent.end()
    log = token.log_file()
    assert log is None or "CKR_PIN_INCORRECT" in log.read_text()


def test_a_key_on_the_token_certifies_a_users_key(agent: Agent, lines: dict[str, str], tmp_path: Path) -> None:
    keygen = program("ssh-keygen", "openssh-client")
    user, authority = tmp_path / "user", tmp_path / "ca.pub"
    authority.write_text(f"{lines['p256']}\n")
    succeed([keygen, "-q", "-t", "ed25519", "-N", "", "-f", user], os.environ)
    sign = ("-s", authority, "-D", agent.token.module.path, "-I", "somebody", "-n", "somebody")
    succeed([keygen, *sign, user.with_suffix(".pub")], agent.environment)
    shown = succeed([keygen, "-L", "-f", tmp_path / "user-cert.pub"], os.environ)
    assert 'Key ID: "somebody"' in shown
    assert "using ecdsa-sha2-nistp256" in shown
