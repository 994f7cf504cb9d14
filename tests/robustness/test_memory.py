"""What is left of secrets in the memory of a host written in C: nothing, once nobody may use them any more.

The host looks through all its memory after each step (memory.c). Values are looked for as they are, the other way round
(OpenSSL's numbers), and in the digits of Python's numbers.
"""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from keyfob.mechanisms.der import OCTET_STRING, element
from keyfob.spec.constants import CKA, CKK, CKM, CKO
from keyfob.store import SqliteStore, seal
from keyfob.store.integrity import keyed
from keyfob.token.removable import Registration
from tests.client import Value, encoded
from tests.conftest import PIN, SO_PIN, module_path
from tests.robustness.conftest import Programs
from tests.robustness.hosts import environment

MASK = 0xA5
WINDOW = 24  # bytes of a value that are looked for: what is freed loses its first ones, to the allocator
NEXT_PIN = b"the-next-pin-of-this-user"
DIGIT = 30  # bits
ENOUGH_TO_LOCK = 1 << 20
LIBRARYS_OWN = ("seal-key", "mac-key")  # set up in OpenSSL and in CPython's BLAKE2 since the login
Key = tuple[str, list[tuple[int, Value]], list[tuple[str, int, bytes, int]], dict[str, int | bytes]]


def number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def digits(value: int) -> bytes:
    """As CPython has an int in memory."""
    count = (value.bit_length() + DIGIT - 1) // DIGIT
    return b"".join((value >> (DIGIT * i) & (1 << DIGIT) - 1).to_bytes(4, "little") for i in range(count))


def forms(secret: int | bytes) -> dict[str, bytes]:
    """How a value may lie in memory."""
    if isinstance(secret, int):
        data = number(secret)
        return {"big": data, "little": data[::-1], "digits": digits(secret)}
    return {"bytes": secret}


def windows(value: bytes) -> list[bytes]:
    """From the middle and from the end."""
    if len(value) <= WINDOW:
        return [value]
    middle = (len(value) - WINDOW) // 2
    return [value[middle : middle + WINDOW], value[-WINDOW:]]


def patterns(secrets: dict[str, int | bytes]) -> list[tuple[str, bytes]]:
    return [
        (f"{name}-{form}", window)
        for name, secret in secrets.items()
        for form, value in forms(secret).items()
        for window in windows(value)
    ]


def rsa_key(bits: int) -> Key:
    key = rsa.generate_private_key(65537, bits).private_numbers()
    parts = {"d": key.d, "p": key.p, "q": key.q, "dp": key.dmp1, "dq": key.dmq1, "qi": key.iqmp}
    names = (CKA.PRIVATE_EXPONENT, CKA.PRIME_1, CKA.PRIME_2, CKA.EXPONENT_1, CKA.EXPONENT_2, CKA.COEFFICIENT)
    public: list[tuple[int, Value]] = [
        (CKA.MODULUS, number(key.public_numbers.n)),
        (CKA.PUBLIC_EXPONENT, b"\x01\x00\x01"),
    ]
    private = [(name, number(value)) for name, value in zip(names, parts.values(), strict=True)]
    template: list[tuple[int, Value]] = [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.KEY_TYPE, CKK.RSA), *public, *private]
    uses = [("sign", CKM.RSA_PKCS, b"", 32), ("sign", CKM.SHA256_RSA_PKCS, b"", 99)]
    uses.append(("sign", CKM.RSA_X_509, b"", bits // 8))
    return f"rsa{bits}", template, uses, {f"rsa{bits}-{name}": value for name, value in parts.items()}


def ec_key(curve: ec.EllipticCurve) -> Key:
    key, peer = ec.generate_private_key(curve), ec.generate_private_key(curve).public_key()
    scalar = key.private_numbers().private_value
    value = scalar.to_bytes((curve.key_size + 7) // 8, "big")
    oids = {"secp256r1": "06082a8648ce3d030107", "secp384r1": "06052b81040022", "secp521r1": "06052b81040023"}
    template: list[tuple[int, Value]] = [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.KEY_TYPE, CKK.EC), (CKA.DERIVE, True)]
    template += [(CKA.EC_PARAMS, bytes.fromhex(oids[curve.name])), (CKA.VALUE, value)]
    point = peer.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    shared = key.exchange(ec.ECDH(), peer)
    uses = [("sign", CKM.ECDSA, b"", 32), ("sign", CKM.ECDSA_SHA256, b"", 99)]
    uses.append(("derive", CKM.ECDH1_DERIVE, point, 0))
    return curve.name, template, uses, {curve.name: scalar, f"{curve.name}-shared": shared[-32:]}


def edwards_key(kind: type[ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey], oid: str) -> Key:
    key = kind.generate()
    value = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    template: list[tuple[int, Value]] = [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.KEY_TYPE, CKK.EC_EDWARDS)]
    template += [(CKA.EC_PARAMS, bytes.fromhex(oid)), (CKA.VALUE, value)]
    return kind.__name__, template, [("sign", CKM.EDDSA, b"", 99)], {kind.__name__: value}


def montgomery_key(kind: type[x25519.X25519PrivateKey | x448.X448PrivateKey], oid: str) -> Key:
    key, peer = kind.generate(), kind.generate().public_key()
    value = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    template: list[tuple[int, Value]] = [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.KEY_TYPE, CKK.EC_MONTGOMERY)]
    template += [(CKA.EC_PARAMS, bytes.fromhex(oid)), (CKA.VALUE, value), (CKA.DERIVE, True)]
    point = element(OCTET_STRING, peer.public_bytes(Encoding.Raw, PublicFormat.Raw))
    return kind.__name__, template, [("derive", CKM.ECDH1_DERIVE, point, 0)], {kind.__name__: value}


def secret_key(name: str, key_type: int, value: bytes, *uses: tuple[str, int, bytes, int]) -> Key:
    template: list[tuple[int, Value]] = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, key_type), (CKA.VALUE, value)]
    return name, template, list(uses), {name: value}


def some_keys() -> list[Key]:
    zeros = bytes(16)
    aes = secret_key("aes", CKK.AES, b"planted-AES-key-of-32-bytes-7306", ("encrypt", CKM.AES_CBC, zeros, 64))
    generic = b"planted-generic-secret-of-40-bytes--7307"
    return [
        aes,
        secret_key("generic", CKK.GENERIC_SECRET, generic, ("sign", CKM.SHA256_HMAC, b"", 99)),
        rsa_key(2048),
        ec_key(ec.SECP256R1()),
        edwards_key(ed25519.Ed25519PrivateKey, "06032b6570"),
        montgomery_key(x25519.X25519PrivateKey, "06032b656e"),
    ]


def all_keys() -> list[Key]:
    zeros = bytes(8)
    des3 = bytes.fromhex("0123456789abcdef23456789abcdef01456789abcdef0123")
    return [
        *some_keys(),
        secret_key("des3", CKK.DES3, des3, ("encrypt", CKM.DES3_CBC, zeros, 64)),
        secret_key("cmac", CKK.AES, b"planted-AES-24-bytes7308", ("sign", CKM.AES_CMAC, b"", 99)),
        rsa_key(1024),
        rsa_key(3072),
        rsa_key(4096),
        ec_key(ec.SECP384R1()),
        ec_key(ec.SECP521R1()),
        edwards_key(ed448.Ed448PrivateKey, "06032b6571"),
        montgomery_key(x448.X448PrivateKey, "06032b656f"),
    ]


def masked(data: bytes) -> str:
    return bytes(byte ^ MASK for byte in data).hex() or "-"


def script(keys: list[Key], secrets: dict[str, int | bytes]) -> str:
    lines = [f"user {masked(PIN)}", f"so {masked(SO_PIN)}", f"new {masked(NEXT_PIN)}"]
    lines += [f"pattern {name} {masked(pattern)}" for name, pattern in patterns(secrets)]
    for name, template, uses, _ in keys:
        own: list[tuple[int, Value]] = [
            (CKA.LABEL, name),
            (CKA.PRIVATE, True),
            (CKA.SENSITIVE, False),
            (CKA.EXTRACTABLE, True),
        ]
        lines.append("key")
        lines += [f"attribute {attribute} {masked(encoded(value))}" for attribute, value in [*template, *own]]
        lines += [f"use {how} {mechanism} {masked(parameter)} {size}" for how, mechanism, parameter, size in uses]
    return "\n".join([*lines, ""])


def run(program: Path, text: str, *mode: str) -> list[tuple[str, set[str]]]:
    """What was found at each step."""
    done = subprocess.run(
        [str(program), str(module_path()), *mode],
        input=text,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [(words[0], set(words[1:])) for words in (line.split() for line in done.stdout.splitlines())]


def opened(token: Path) -> dict[str, int | bytes]:
    """What the user's PIN opens, and what comes of it."""
    store = SqliteStore.open(token)
    store.login("user", PIN)
    keys = store._vault.keys
    assert keys is not None
    wrapping = store._vault.facts().value("user_wrapping")
    salt = seal.WRAPPING.unpack_from(wrapping)[3]
    master = bytes(keys.master)
    found: dict[str, int | bytes] = {"wrapping-key": seal.harden(PIN, salt, seal.hardening_of(wrapping))}
    found |= {"master": master, "seal-key": keyed(b"keyfob seal", master), "mac-key": keyed(b"keyfob mac", master)}
    store.close()
    return found


def check_where_they_are(found: set[str]) -> None:
    """What keyfob holds of keys that nobody has used yet is left out of core dumps, and never swapped out."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    may_lock = limit == resource.RLIM_INFINITY or limit >= ENOUGH_TO_LOCK
    held = {name for name in found if not name.startswith(LIBRARYS_OWN)}
    assert {name.partition("-")[0] for name in held} >= {"master", "aes", "generic", "secp256r1", "rsa2048"}
    assert {name for name in held if "/dumped" in name or (may_lock and "/unlocked" in name)} == set()


PINS: dict[str, int | bytes] = {"pin": PIN, "so-pin": SO_PIN, "next-pin": NEXT_PIN}
KINDS = [pytest.param(some_keys, id="some"), pytest.param(all_keys, id="all", marks=pytest.mark.long)]


@pytest.mark.parametrize("kinds", KINDS)
def test_secrets_are_gone_from_memory_when_nobody_may_use_them(programs: Programs, token: Path, kinds: object) -> None:
    """PINs after their call; private keys and master key after C_Logout; all after C_Finalize, and in a fork."""
    assert callable(kinds)
    keys: list[Key] = kinds()
    program = programs("memory")
    values = {name: value for *_, secrets in keys for name, value in secrets.items()}
    for step, found in run(program, script(keys, PINS | values), "keep"):
        gone = found if step != "set-pin" else found & PINS.keys()
        assert gone == set(), f"after {step}"
    secrets = PINS | values | opened(token)
    seen = set()
    for step, found in run(program, script(keys, secrets), "use"):
        seen |= found
        if step == "read":
            check_where_they_are(found)
        gone = (
            found
            if step in ("start", "logout", "child", "end")
            else {n for n in found if n.startswith(("pin", "wrapping"))}
        )
        assert gone == set(), f"after {step}"
    assert {"aes-bytes", "master-bytes"} <= seen, "the search finds nothing"
    assert any("/dumped" in name for name in seen), "the search does not tell places apart"
    for step, found in run(program, script(keys, PINS | values), "session"):
        gone = found if step in ("destroyed", "closed", "logout", "end") else {n for n in found if n.startswith("pin")}
        assert gone == set(), f"after {step}"


def test_secrets_are_gone_from_memory_when_the_token_is(programs: Programs, token: Path, tmp_path: Path) -> None:
    keys = [some_keys()[0], ec_key(ec.SECP256R1())]
    program = programs("memory")
    values = {name: value for *_, secrets in keys for name, value in secrets.items()}
    run(program, script(keys, values), "keep")
    stick = tmp_path / "stick"
    stick.mkdir()
    token.rename(stick / "token.keyfob")
    Registration(str(token.with_name("slot-2.removable"))).write(str(stick), ejected=False)
    steps = dict(run(program, script(keys, PINS | values | opened(stick / "token.keyfob")), "eject", str(stick)))
    assert {name.partition("/")[0] for name in steps["used"]} >= {"aes-bytes", "master-bytes"}
    assert steps["ejected"] == set()
