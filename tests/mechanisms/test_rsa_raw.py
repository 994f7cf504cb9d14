"""Raw RSA and its defences; RSA decryption that is no oracle."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from math import gcd, prod
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from keyfob.mechanisms import _rsa
from keyfob.spec.constants import CKA, CKF, CKM, CKR
from tests.mechanisms.asymmetric_vectors import (
    DIGEST_INFO_SHA1,
    labs_pair,
    operation,
    rsa_examples,
    rsa_pair,
    rv_of,
)

SMALL = prod(n for n in range(3, 1000, 2) if all(n % m for m in range(3, n, 2)))
SOURCES = Path(__file__).resolve().parents[2] / "src" / "keyfob" / "mechanisms"


def test_raw_rsa_agrees_with_the_pkcs1_signatures() -> None:
    """15 of 300, one for each key: raw RSA of the padded block is the PKCS #1 signature, and back."""
    examples = list(rsa_examples("RSA/pkcs1v15sign-vectors.txt", first="Message to be signed", last="Signature"))
    for attributes, example in examples[::20]:
        public, private = labs_pair(attributes)
        info = DIGEST_INFO_SHA1 + hashlib.sha1(example["Message to be signed"]).digest()
        size = private.size
        block = b"\0\1" + b"\xff" * (size - 3 - len(info)) + b"\0" + info
        signature = example["Signature"]
        assert operation(CKM.RSA_X_509, CKF.SIGN)(private, None).sign(block) == signature
        assert operation(CKM.RSA_X_509, CKF.DECRYPT)(private, None).run(block) == signature
        assert operation(CKM.RSA_X_509, CKF.VERIFY_RECOVER)(public, None).recover(signature) == block
        assert operation(CKM.RSA_X_509, CKF.ENCRYPT)(public, None).run(signature) == block
        operation(CKM.RSA_X_509, CKF.VERIFY)(public, None).verify(block.lstrip(b"\0"), signature)


def test_bad_pkcs1_padding_gives_the_same_junk_again() -> None:
    """Implicit rejection: no error, nothing of the block, the same answer to the same ciphertext."""
    public, private = rsa_pair()
    block = b"\0\3" + b"\x55" * 220 + b"\0" + b"planted plaintext, not to be seen"
    ciphertext = operation(CKM.RSA_X_509, CKF.ENCRYPT)(public, None).run(block)
    junk = operation(CKM.RSA_PKCS, CKF.DECRYPT)(private, None).run(ciphertext)
    assert junk == operation(CKM.RSA_PKCS, CKF.DECRYPT)(private, None).run(ciphertext)
    assert b"planted" not in junk


def test_unwrapping_of_known_length_never_tells_bad_padding() -> None:
    """Bleichenbacher through C_UnwrapKey: good, misfit and badly padded keys all unwrap to a value of the length."""
    public, private = rsa_pair()
    wrap, unwrap = operation(CKM.RSA_PKCS, CKF.WRAP)(public, None), operation(CKM.RSA_PKCS, CKF.UNWRAP)(private, None)
    raw = operation(CKM.RSA_X_509, CKF.ENCRYPT)(public, None)
    assert unwrap.unwrap(wrap.wrap(b"k" * 32), 32) == b"k" * 32
    misfit = wrap.wrap(b"k" * 31)
    bad = raw.run(b"\0\3" + b"\x55" * 254)
    for wrapped in (misfit, bad):
        value = unwrap.unwrap(wrapped, 32)
        assert len(value) == 32
        assert value == unwrap.unwrap(wrapped, 32)
        assert b"k" * 31 not in value
    assert unwrap.unwrap(misfit, 32) != unwrap.unwrap(bad, 32)
    for length in (0, 246, 2**64 - 1):
        assert rv_of(unwrap.unwrap, misfit, length) == CKR.WRAPPED_KEY_LEN_RANGE


def test_raw_rsa_pads_short_input_and_refuses_big_numbers() -> None:
    public, private = rsa_pair()
    modulus = private.attributes[CKA.MODULUS]
    size = private.size
    for data in (b"", b"\0", b"\1", b"short", (int.from_bytes(modulus, "big") - 1).to_bytes(size, "big")):
        signature = operation(CKM.RSA_X_509, CKF.SIGN)(private, None).sign(data)
        operation(CKM.RSA_X_509, CKF.VERIFY)(public, None).verify(data, signature)
        decrypted = operation(CKM.RSA_X_509, CKF.DECRYPT)(private, None).run(
            operation(CKM.RSA_X_509, CKF.ENCRYPT)(public, None).run(data)
        )
        assert decrypted == data.rjust(size, b"\0")
    assert rv_of(operation(CKM.RSA_X_509, CKF.SIGN)(private, None).sign, modulus) == CKR.DATA_INVALID
    assert rv_of(operation(CKM.RSA_X_509, CKF.SIGN)(private, None).sign, bytes(size + 1)) == CKR.DATA_LEN_RANGE
    assert rv_of(operation(CKM.RSA_X_509, CKF.ENCRYPT)(public, None).run, modulus) == CKR.DATA_INVALID
    assert rv_of(operation(CKM.RSA_X_509, CKF.DECRYPT)(private, None).run, modulus) == CKR.ENCRYPTED_DATA_INVALID
    assert rv_of(operation(CKM.RSA_X_509, CKF.DECRYPT)(private, None).run, b"x") == CKR.ENCRYPTED_DATA_LEN_RANGE
    assert rv_of(operation(CKM.RSA_X_509, CKF.VERIFY_RECOVER)(public, None).recover, modulus) == CKR.SIGNATURE_INVALID


@pytest.mark.parametrize(
    "wrong", [CKA.PRIME_1, CKA.PRIME_2, CKA.EXPONENT_1, CKA.EXPONENT_2, CKA.COEFFICIENT, CKA.PUBLIC_EXPONENT]
)
def test_a_faulty_private_operation_gives_nothing_out(wrong: int) -> None:
    """One wrong CRT half would give the primes away (Boneh, DeMillo, Lipton)."""
    _, private = rsa_pair()
    held = private.attributes[wrong]
    faulty = type(private)({**private.attributes, wrong: held[:-1] + bytes([held[-1] ^ 2])})
    assert rv_of(operation(CKM.RSA_X_509, CKF.SIGN)(faulty, None).sign, b"data") == CKR.DEVICE_ERROR


def test_each_private_operation_draws_its_own_blinding(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the modulus' length; and the base is multiplied with what was drawn: with 0 nothing would come out."""
    _, private = rsa_pair()
    drawn: list[bytes] = []

    def watched(length: int) -> bytes:
        drawn.append(random.randbytes(length))
        return drawn[-1]

    monkeypatch.setattr(os, "urandom", watched)
    results = {operation(CKM.RSA_X_509, CKF.SIGN)(private, None).sign(b"the same") for _ in range(3)}
    assert len(results) == 1
    assert len(drawn) == 3
    assert min(map(len, drawn)) >= private.size + 16
    monkeypatch.setattr(os, "urandom", bytes)
    assert rv_of(operation(CKM.RSA_X_509, CKF.SIGN)(private, None).sign, b"the same") == CKR.DEVICE_ERROR


def prime(bits: int, exponent: int) -> int:
    """A random one of exactly that many bits, that RSA can use with that exponent."""
    while True:
        candidate = random.getrandbits(bits) | 3 << bits - 2 | 1  # the product of two has as many bits as both
        if gcd(candidate, SMALL) != 1 or gcd(candidate - 1, exponent) != 1:
            continue
        bases = [random.randrange(2, candidate - 1) for _ in range(4)]
        if all(pow(base, candidate - 1, candidate) == 1 for base in bases):
            return candidate


def as_bytes(*parts: int) -> tuple[bytes, ...]:
    sizes = [(part.bit_length() + 7) // 8 for part in parts]
    sizes[4:] = sizes[2], sizes[3], sizes[2]
    return tuple(part.to_bytes(size, "big") for part, size in zip(parts, sizes, strict=True))


def numbers(size_p: int, size_q: int, exponent: int) -> tuple[tuple[int, int], tuple[bytes, ...]]:
    """((n, d), what private_power takes)."""
    p, q = prime(size_p, exponent), prime(size_q, exponent)
    n, d = p * q, pow(exponent, -1, (p - 1) * (q - 1))
    parts = (n, exponent, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    return (n, d), as_bytes(*parts)


@pytest.mark.parametrize(
    ("size_p", "size_q", "exponent"),
    [
        *((512, 512, 65537), (512, 512, 3), (513, 511, 17), (520, 512, 65537), (500, 524, 65537), (64, 448, 65537)),
        *((448, 64, 65537), (65, 960, 65537), (1023, 65, 65537), (766, 770, 65537), (1024, 1024, (1 << 64) - 59)),
    ],
)
def test_powers_of_keys_of_every_shape_are_those_of_arithmetic(size_p: int, size_q: int, exponent: int) -> None:
    """Odd sizes, primes of unequal length, either the longer; the values at the edges and others."""
    (n, d), key = numbers(size_p, size_q, exponent)
    size = len(key[0])
    edges = [0, 1, 2, n - 1, n - 2, int.from_bytes(key[2], "big"), int.from_bytes(key[3], "big") * 2]
    for value in [*edges, *(random.randrange(n) for _ in range(9))]:
        block = value.to_bytes(size, "big")
        power = _rsa.private_power(block, key, os.urandom(size + 16))  # type: ignore[arg-type]
        assert power == pow(value, d, n).to_bytes(size, "big")
        assert _rsa.public_power(power, key[0], key[1]) == block


@pytest.mark.parametrize(
    "bits", [1024, 2048, pytest.param(3072, marks=pytest.mark.long), pytest.param(4096, marks=pytest.mark.long)]
)
def test_raw_rsa_undoes_itself_with_keys_of_each_usual_size(bits: int) -> None:
    made = rsa.generate_private_key(65537, bits).private_numbers()
    n = made.public_numbers.n
    key = as_bytes(n, 65537, made.p, made.q, made.dmp1, made.dmq1, made.iqmp)
    block = random.randrange(n).to_bytes(bits // 8, "big")
    power = _rsa.private_power(block, key, os.urandom(bits // 8 + 16))  # type: ignore[arg-type]
    assert power is not None
    assert _rsa.public_power(power, key[0], key[1]) == block
    assert int.from_bytes(power, "big") == pow(int.from_bytes(block, "big"), made.d, n)


def test_numbers_that_are_no_moduli_have_no_power() -> None:
    _, key = numbers(64, 64, 65537)
    for wrong in (b"", b"\0" + key[0], key[0][:-1] + b"\2"):
        assert _rsa.public_power(b"\1", wrong, key[1]) is None
        assert _rsa.private_power(b"\1", (wrong, *key[1:]), bytes(64)) is None  # type: ignore[arg-type]
        assert _rsa.private_power(b"\1", (*key[:2], wrong, *key[3:]), bytes(64)) is None  # type: ignore[arg-type]
    for part in (4, 5, 6):  # as long as their primes, or their own length would show
        short = (*key[:part], key[part][1:], *key[part + 1 :])
        assert _rsa.private_power(b"\1", short, bytes(64)) is None  # type: ignore[arg-type]
    assert _rsa.private_power(b"\1", key, b"\1" * (len(key[0]) + 15)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("optimised", ["-O0", "-O2"])
def test_the_way_through_the_code_tells_nothing_of_key_or_value(tmp_path: Path, optimised: str) -> None:
    """Every branch taken, in order, told by the compiler's own instrumentation: the same for all keys of one shape.

    The public exponent and the sizes do show: that the comparison can fail is proved with them.
    """
    program = tmp_path / "path_of_power"
    sources = [str(SOURCES / "rsa_power.c"), str(Path(__file__).with_name("path_of_power.c"))]
    warnings = ["-Wall", "-Wextra", "-Werror", "-std=gnu11", f"-I{SOURCES}"]
    subprocess.run(["gcc", optimised, *warnings, "-c", sources[1], "-o", f"{program}.o"], check=True)
    traced = [
        "gcc",
        optimised,
        "-fsanitize-coverage=trace-pc",
        *warnings,
        "-c",
        sources[0],
        "-o",
        f"{program}_traced.o",
    ]
    subprocess.run(traced, check=True)
    subprocess.run(["gcc", f"{program}.o", f"{program}_traced.o", "-o", str(program)], check=True)

    def path_of(key: tuple[bytes, ...], value: int, drawn: bytes) -> str:
        parts = [value.to_bytes(len(key[0]), "big"), *key, drawn]
        ran = subprocess.run([program, *(part.hex() for part in parts)], capture_output=True, text=True, check=True)
        return ran.stdout

    secrets = [numbers(256, 256, 65537)[1] for _ in range(4)]
    paths = {path_of(key, random.getrandbits(500), os.urandom(80)) for key in secrets}
    paths |= {path_of(secrets[0], value, os.urandom(80)) for value in (0, 1, 2**500)}
    assert len(paths) == 1
    assert path_of(numbers(256, 256, 3)[1], 5, os.urandom(80)) not in paths
    assert path_of(numbers(255, 257, 65537)[1], 5, os.urandom(80)) not in paths
