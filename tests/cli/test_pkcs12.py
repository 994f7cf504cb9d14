"""What a PKCS #12 file holds is imported, or said: in encrypted parts as well, in BER, and however it is encrypted."""

from __future__ import annotations

import hmac
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyfob.cli import formats, pkcs12_bags, pkcs12_ciphers
from keyfob.cli.errors import Refusal
from keyfob.mechanisms import der
from tests.cli.conftest import Run
from tests.cli.test_formats import TWO_KEYS
from tests.cli.test_places import certificate

SECRET = b"secret1"
DATA = der.object_identifier("1.2.840.113549.1.7.1")
ENCRYPTED_DATA = der.object_identifier("1.2.840.113549.1.7.6")
ENVELOPED_DATA = der.object_identifier("1.2.840.113549.1.7.3")
PIECES = der.OCTET_STRING | pkcs12_bags.CONSTRUCTED


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "ROUNDS", 1000)


def sequence(*contents: bytes) -> bytes:
    return der.element(der.SEQUENCE, *contents)


def typed(kind: bytes, value: bytes) -> bytes:
    return sequence(kind, der.element(der.CONTEXT_0, value))


def plain(*bags: bytes) -> bytes:
    return typed(DATA, der.element(der.OCTET_STRING, sequence(*bags)))


def encrypted(*bags: bytes) -> bytes:
    """A part under PBES2, made of what an encrypted private key is made of."""
    reader = der.Reader(formats.encrypted_pkcs8(sequence(*bags), SECRET)).enter(der.SEQUENCE)
    algorithm, content = reader.read_whole(der.SEQUENCE), reader.read(der.OCTET_STRING)
    inner = sequence(DATA, algorithm, der.element(der.CONTEXT_0 & ~pkcs12_bags.CONSTRUCTED, content))
    return typed(ENCRYPTED_DATA, sequence(der.integer(0), inner))


def file(*parts: bytes) -> bytes:
    safe, salt = sequence(*parts), b"saltsalt"
    key = pkcs12_ciphers.derived((SECRET.decode() + "\0").encode("utf-16-be"), salt, 1, 3, 20)
    digest = sequence(der.object_identifier("1.3.14.3.2.26"), der.element(der.NULL))
    mac = sequence(digest, der.element(der.OCTET_STRING, hmac.digest(key, safe, "sha1")))
    content = typed(DATA, der.element(der.OCTET_STRING, safe))
    return sequence(der.integer(3), content, sequence(mac, der.element(der.OCTET_STRING, salt), der.integer(1)))


def bag(number: int, value: bytes) -> bytes:
    return typed(der.object_identifier(f"1.2.840.113549.1.12.10.1.{number}"), value)


def key() -> bytes:
    made = ec.generate_private_key(ec.SECP256R1())
    return bag(1, made.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def test_two_keys_are_refused_wherever_they_are() -> None:
    for parts in (
        (encrypted(key(), key()),),
        (encrypted(key()), encrypted(key())),
        (plain(key()), encrypted(bag(6, sequence(bag(6, sequence(key())))))),
    ):
        with pytest.raises(Refusal, match="holds 2 keys, and only one can be read"):
            formats.bundle(file(*parts), lambda: SECRET)


def test_one_key_is_imported_and_what_is_left_is_named(run: Run, folder: Path) -> None:
    run("init work --pin 1234 --so-pin 12345678")
    crl = bag(4, typed(der.object_identifier("1.2.840.113549.1.9.23.1"), der.element(der.OCTET_STRING, b"crl")))
    secret = bag(5, typed(DATA, der.element(der.OCTET_STRING, b"value")))
    (folder / "one.p12").write_bytes(file(encrypted(key(), crl, secret, crl), plain(bag(9, der.element(der.NULL)))))
    said = run("import work one.p12 --passphrase secret1 --pin 1234")
    assert said.stdout.startswith("Put ec:p256 'one'")
    assert said.stderr.splitlines() == [
        "keyfob: not imported: 2 CRLs",
        "keyfob: not imported: 1 secret key",
        "keyfob: not imported: 1 unknown item",
    ]


def test_pem_blocks_that_are_not_imported_are_named() -> None:
    text = formats.pem("EC PARAMETERS", b"curve") + formats.pem("X509 CRL", b"crl") + formats.pem("PKCS7", b"more")
    assert formats.bundle(text, lambda: b"").others == {"X509 CRL block": 1, "PKCS7 block": 1}


def test_a_part_that_cannot_be_looked_into_is_refused() -> None:
    closed = typed(ENVELOPED_DATA, sequence(der.integer(0)))
    with pytest.raises(Refusal, match="cannot be told"):
        pkcs12_bags.held(file(encrypted(key()), closed), SECRET)


def in_ber(data: bytes, depth: int = 0) -> bytes:
    """The same in BER: lengths that are not told, and octets in two pieces."""
    found = b""
    for tag, content in pkcs12_bags._elements(data):
        if tag & pkcs12_bags.CONSTRUCTED:
            found += bytes((tag, 0x80)) + in_ber(content, depth + 1) + b"\0\0"
        elif tag == der.OCTET_STRING and depth < 4:
            pieces = [der.element(tag, piece) for piece in (content[:9], content[9:])]
            found += bytes((PIECES, 0x80)) + b"".join(pieces) + b"\0\0"
        else:
            found += der.element(tag, content)
    return found


def test_keys_are_counted_in_ber_too() -> None:
    """A file of two keys, by keytool."""
    held = pkcs12_bags.held(in_ber(TWO_KEYS.read_bytes()), SECRET)
    assert (held.keys, held.certificates, held.others) == (2, 2, {})


def test_whatever_is_damaged_or_deep_is_refused_in_words() -> None:
    good = file(encrypted(key()))
    deep = sequence()
    for _ in range(40):
        deep = sequence(bag(6, deep))
    pieces = b""
    for _ in range(2000):
        pieces = der.element(PIECES, pieces)
    traps = (b"\x30\x80" * 5000, file(plain(bag(6, deep))), sequence(der.integer(3), typed(DATA, pieces)))
    for data in (*(good[:end] for end in range(0, len(good), 7)), *traps):
        with pytest.raises(Refusal, match="cannot be told"):
            pkcs12_bags.held(data, b"wrong")


ALGORITHMS = ("AES-128-CBC", "AES-192-CBC", "AES-256-CBC", "DES-EDE3-CBC")
OLD_ONES = tuple(f"PBE-SHA1-{name}" for name in ("RC4-128", "RC4-40", "3DES", "2DES", "RC2-128", "RC2-40"))


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, *OLD_ONES])
@pytest.mark.parametrize("secret", ["secret", "", "p\u00e4ss \U0001f511"])
def test_every_encryption_of_openssl_is_opened_for_counting(tmp_path: Path, algorithm: str, secret: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed (apt-get install openssl)")
    path = tmp_path / "file.p12"
    (tmp_path / "me.pem").write_bytes(formats.pem("CERTIFICATE", certificate(30)))
    command = ["openssl", "pkcs12", "-export", "-legacy", "-nokeys", "-in", str(tmp_path / "me.pem")]
    done = subprocess.run(
        [*command, "-out", str(path), "-certpbe", algorithm, "-passout", f"pass:{secret}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unknown" in done.stderr or "unsupported" in done.stderr.lower():
        pytest.skip(f"this openssl has no {algorithm}")
    assert done.returncode == 0, done.stderr
    held = pkcs12_bags.held(path.read_bytes(), secret.encode())
    assert (held.keys, held.certificates) == (0, 1)


@pytest.mark.parametrize(
    ("secret", "sealed", "opened"),
    [
        ("ffffffffffffffff", "278b27e42e2f0d49", "ffffffffffffffff"),
        ("3000000000000000", "30649edf9be7d2c2", "1000000000000001"),
        ("88bca90e90875a7f0f79c384627bafb2", "2269552ab0f85ca6", "0000000000000000"),
    ],
)
def test_rc2_gives_what_rfc_2268_says(secret: str, sealed: str, opened: str) -> None:
    assert pkcs12_ciphers.rc2_cbc(bytes.fromhex(secret), bytes(8), bytes.fromhex(sealed)).hex() == opened
