"""Key files that hold more than is read of them, which nobody may delete half imported; those that cost too much."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from keyfob.cli import apart, formats, pkcs12_ciphers
from keyfob.cli.errors import Refusal
from keyfob.mechanisms import der

# keytool's keystore of two P-256 keys, one after the other; the passphrase is "secret1".
TWO_KEYS = Path(__file__).parent / "files" / "two-keys.p12"


def test_a_pkcs12_file_of_several_keys_is_refused() -> None:
    with pytest.raises(Refusal, match="holds 2 keys, and only one can be read"):
        formats.bundle(TWO_KEYS.read_bytes(), lambda: b"secret1")


@pytest.mark.parametrize("kind", ["PRIVATE KEY", "CERTIFICATE", "ENCRYPTED PRIVATE KEY"])
@pytest.mark.parametrize("good_one_before", [True, False])
def test_a_pem_block_without_its_end_is_refused(kind: str, *, good_one_before: bool) -> None:
    block = formats.pem("SOMETHING ELSE", b"value")
    cut_off = formats.pem(kind, b"value").splitlines()[0] + b"\nAAAA\n"
    with pytest.raises(Refusal, match=f"its {kind} block has no end"):
        formats.bundle(block + cut_off if good_one_before else cut_off, lambda: b"")


def info() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def with_rounds(rounds: int) -> bytes:
    """An encrypted key that asks for so many rounds of PBKDF2."""
    derivation = der.element(der.SEQUENCE, der.element(der.OCTET_STRING, bytes(16)), der.integer(rounds))
    return under(pkcs12_ciphers.PBKDF2, derivation)


def with_memory(cost: int) -> bytes:
    """One that asks for so many KiB, by scrypt (RFC 7914)."""
    numbers = (der.integer(number) for number in (cost, 8, 1))
    derivation = der.element(der.SEQUENCE, der.element(der.OCTET_STRING, bytes(16)), *numbers)
    return under(der.object_identifier("1.3.6.1.4.1.11591.4.11"), derivation)


def under(kind: bytes, derivation: bytes) -> bytes:
    cipher = der.element(der.SEQUENCE, pkcs12_ciphers.AES_256_CBC, der.element(der.OCTET_STRING, bytes(16)))
    scheme = der.element(der.SEQUENCE, der.element(der.SEQUENCE, kind, derivation), cipher)
    head = der.element(der.SEQUENCE, pkcs12_ciphers.PBES2, scheme)
    return der.element(der.SEQUENCE, head, der.element(der.OCTET_STRING, bytes(32)))


def pkcs12_with_rounds(rounds: int) -> bytes:
    """A file whose MAC asks for so many."""
    made = formats.pkcs12_file("me", info(), [], b"passphrase")
    place = max(i for i in range(len(made)) if made[i] == der.SEQUENCE and i + 2 + made[i + 1] == len(made))
    mac = made[place + 2 :].removesuffix(der.integer(2048)) + der.integer(rounds)
    return der.element(der.SEQUENCE, made[4:place], der.element(der.SEQUENCE, mac))


@pytest.mark.parametrize("kind", ["DER", "PEM", "PKCS #12"])
def test_a_file_that_asks_for_more_than_a_minute_is_given_up(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "SECONDS", 1)
    if kind == "PKCS #12":
        trap = pkcs12_with_rounds(0x7FFFFFFF)
    else:
        trap = with_rounds(0x7FFFFFFF)
        trap = formats.pem("ENCRYPTED PRIVATE KEY", trap) if kind == "PEM" else trap
    with pytest.raises(Refusal, match="more than 1 seconds of computing"):
        formats.bundle(trap, lambda: b"passphrase")


@pytest.mark.parametrize("passphrase", [b"passphrase", b""])
@pytest.mark.parametrize("pem", [True, False])
def test_keys_are_opened_apart_as_they_are(passphrase: bytes, *, pem: bool) -> None:
    held = info()
    key = load_der_private_key(held, None)
    how = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    file = key.private_bytes(Encoding.PEM if pem else Encoding.DER, PrivateFormat.PKCS8, how)
    assert formats.bundle(file, lambda: passphrase).keys == [("", held)]
    if passphrase:
        with pytest.raises(Refusal, match="the passphrase is wrong"):
            formats.bundle(file, lambda: b"wrong")


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(Refusal, match="holds no key, certificate or PKCS #12"):
        formats.bundle(b"0 no key", lambda: b"")


def test_a_file_that_asks_for_too_much_memory_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "MEMORY", 400 << 20)
    with pytest.raises(Refusal, match="takes more than 400 MiB of memory"):
        formats.bundle(with_memory(1 << 20), lambda: b"passphrase")


OPENS = """
import sys
from keyfob.cli import formats
from keyfob.cli.errors import Refusal
try:
    print(len(formats.bundle(open(sys.argv[1], "rb").read(), lambda: b"passphrase").keys), "key")
except Refusal as refused:
    print(refused.message)
"""


@pytest.mark.parametrize(
    ("limit", "trap", "said"),
    [
        ("-v 3000000", False, "1 key"),
        ("-S -v 3000000", False, "1 key"),
        ("-t 50", False, "1 key"),
        ("-S -t 50", False, "1 key"),
        ("-t 2", True, "takes more than 1 seconds of computing"),
        ("-S -t 2", True, "takes more than 1 seconds of computing"),
    ],
)
def test_a_user_of_less_opens_good_files_and_is_told_the_cause_of_bad_ones(
    tmp_path: Path, limit: str, *, trap: bool, said: str
) -> None:
    (tmp_path / "key").write_bytes(with_rounds(0x7FFFFFFF) if trap else formats.pem("PRIVATE KEY", info()))
    command = ["sh", "-c", f'ulimit {limit} && exec "$@"', "sh", sys.executable, "-c", OPENS, str(tmp_path / "key")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said in done.stdout


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("kill -KILL $$", "was ended by SIGKILL, as the kernel does where memory runs out"),
        ("kill -ABRT $$", "was ended by SIGABRT"),
        ("exit 3", r"did not start, or failed \(exit code 3\)"),
    ],
)
def test_what_ended_the_process_is_told_as_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    """Python's place is taken by a program that ends in another way."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nulimit -c 0\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(Refusal, match=said):
        formats.bundle(formats.pem("PRIVATE KEY", b"0"), lambda: b"")
    program.unlink()
    with pytest.raises(Refusal, match="can be started: No such file"):
        formats.bundle(formats.pem("PRIVATE KEY", b"0"), lambda: b"")


def test_a_fault_of_ours_in_there_is_told_as_one() -> None:
    with pytest.raises(Refusal, match="a fault of keyfob itself: KeyError"):
        apart.opened("no such kind", b"", None)
