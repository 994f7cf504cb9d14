"""No secret reaches a log, a stream, an error or a file that is not sealed: planted ones are looked for everywhere."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyfob.spec.constants import CKA, CKK, CKO, CKR
from tests.client import Client, Template
from tests.conftest import Fob, module_path
from tests.robustness.hosts import REPOSITORY, environment

SHORTEST = 8


def number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def secrets() -> dict[str, bytes]:
    """Every secret of the planting host, recognisable and each another one. `public` is none: it must be found."""
    key = rsa.generate_private_key(65537, 2048).private_numbers()
    inner = ec.generate_private_key(ec.SECP256R1())
    return {
        "so_pin": b"planted-so-pin-7301",
        "pin": b"planted-user-pin-7302",
        "new_pin": b"planted-new-pin-7303",
        "wrong_pin": b"planted-wrong-pin-7304",
        "long_pin": b"planted-long-pin-7305" * 20,
        "aes": b"planted-AES-key-of-32-bytes-7306",
        "generic": b"planted-generic-secret-7307",
        "ec": b"planted-P256-private-value-7308!",
        "label": b"planted-private-label-7309",
        "data": b"planted-value-of-a-private-object-7310",
        "plaintext": b"planted-text-to-encrypt-and-sign-7311",
        "seed": b"planted-seed-7312",
        "shared": b"planted-shared-data-7313",
        "password": b"planted-password-7314",
        "pkcs8": inner.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        "inner": number(inner.private_numbers().private_value),
        "rsa_MODULUS": number(key.public_numbers.n),
        "rsa_PRIVATE_EXPONENT": number(key.d),
        "rsa_PRIME_1": number(key.p),
        "rsa_PRIME_2": number(key.q),
        "rsa_EXPONENT_1": number(key.dmp1),
        "rsa_EXPONENT_2": number(key.dmq1),
        "rsa_COEFFICIENT": number(key.iqmp),
        "public": b"planted-public-label-7315",
    }


def forms(secret: bytes) -> list[bytes]:
    """As it is, as hex, as Python writes it, and inside any base64 text."""
    shown = repr(secret)[2:-1].encode()
    found = [secret, secret.hex().encode(), secret.hex().upper().encode(), shown]
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + secret)
        start, cut = (4 if shift else 0), len(text) % 4 or 4
        inner = text[start:-cut].replace(b"=", b"")
        found += [inner, base64.b64encode(bytes(shift) + secret, b"-_")[start:-cut]]
    return [form for form in found if len(form) >= SHORTEST]


def holders(places: dict[str, bytes], planted: dict[str, bytes]) -> set[tuple[str, str]]:
    """(place, secret) wherever a secret is found, or a fourth of a long one."""
    parts = {
        name: [value, *(value[i : i + 24] for i in range(0, len(value) - 24, 24))] if len(value) > 24 else [value]
        for name, value in planted.items()
    }
    return {
        (place, name)
        for name, values in parts.items()
        for form in {form for value in values for form in forms(value)}
        for place, content in places.items()
        if form in content
    }


def test_the_search_finds_every_form_of_a_secret() -> None:
    secret = b"planted-secret-\x00\xff-0001"
    texts = [secret, secret.hex().encode(), repr(secret).encode()]
    texts += [base64.b64encode(b"x" * shift + secret + b"tail") for shift in range(7)]
    for text in texts:
        assert holders({"place": b"before " + text + b" after"}, {"name": secret}) == {("place", "name")}
    assert holders({"place": b"planted-secret-\x00\xfe-0001"}, {"name": secret}) == set()


@pytest.mark.parametrize("killed", [False, True])
def test_no_secret_is_left_anywhere(home: Path, tmp_path: Path, killed: bool) -> None:
    """Files that a killed process leaves (the write-ahead log) count too."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (home / "config.toml").write_text('[log]\nlevel = "debug"\n[pin]\nmemory_kib = 8192\niterations = 1\n')
    planted = secrets()
    command = [
        sys.executable,
        "-m",
        "tests.robustness.keep_secrets",
        str(module_path()),
        *(["--kill"] if killed else []),
    ]
    done = subprocess.run(
        command,
        env=environment(PYTHONPATH=str(module_path().parents[1]), TMPDIR=str(temporary)),
        input=json.dumps({name: value.hex() for name, value in planted.items()}).encode(),
        cwd=REPOSITORY,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == (-9 if killed else 0), done.stderr.decode()
    planted["generated"] = bytes.fromhex(done.stdout.decode())
    assert done.stderr == b""
    places: dict[str, bytes] = {}
    for folder in (home, temporary):
        for parent, _, names in os.walk(folder):
            places |= {name: (Path(parent) / name).read_bytes() for name in names}
    files = {"slot-1.keyfob", "slot-1.keyfob-wal", "slot-1.keyfob-shm"} if killed else {"slot-1.keyfob"}
    remembered = {file.name for file in (home / "seen").iterdir()}
    assert set(places) == {"config.toml", "keyfob.log", "keyfob-audit.jsonl"} | files | remembered
    public = planted.pop("public")
    modulus = planted.pop("rsa_MODULUS")
    assert {name for name, _ in holders(places, {"public": public})} <= files
    assert holders(places, {"public": public}), "the search finds nothing"
    assert holders({"log": places["keyfob.log"]}, {"modulus": modulus}) == set()
    log = places["keyfob.log"].decode()
    assert log.count("unexpected ValueError") >= 6
    assert holders(places, planted) == set()


def test_a_guess_at_a_hidden_value_is_not_confirmed(client: Client, fob: Fob) -> None:
    """Neither by a search nor by a change to what the value is already."""
    secret = b"planted-secret-7316"
    template: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.GENERIC_SECRET), (CKA.VALUE, secret)]
    for hidden in ([(CKA.SENSITIVE, True)], [(CKA.SENSITIVE, False), (CKA.EXTRACTABLE, False)]):
        handle = client.create(fob.session, [*template, *hidden])
        for guess in (secret, b"another-secret-7317"):
            assert client.find(fob.session, [(CKA.VALUE, guess)]) == []
            assert client.set(fob.session, handle, [(CKA.VALUE, guess)]) == CKR.ATTRIBUTE_READ_ONLY
        assert client.get(fob.session, handle, CKA.VALUE) == [None]
