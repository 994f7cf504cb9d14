"""The baseline of keyfob's signatures: cryptography's own `private_key.sign()` in a loop, without PKCS #11 around it.

Run as a program with two PEM files (RSA, EC); obeys `measure sign 1 MICROSECONDS KEY DATA` on standard input, where KEY
is "rsa" or "ec" and DATA is hexadecimal, and answers like p11bench. Its loops look at the clock between chunks, too.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cryptography
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import NoDigestInfo, Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK_NANOSECONDS = 50_000


def rsa_signer(key: rsa.RSAPrivateKey, data: bytes) -> Callable[[int], None]:
    """A function that signs `data`, a DigestInfo, so many times: what CKM_RSA_PKCS does."""
    scheme, no_digest_info = padding.PKCS1v15(), NoDigestInfo()

    def sign(times: int) -> None:
        for _ in range(times):
            key.sign(data, scheme, no_digest_info)

    return sign


def ec_signer(key: ec.EllipticCurvePrivateKey, data: bytes) -> Callable[[int], None]:
    """A function that signs `data`, a SHA-256 digest, so many times: what CKM_ECDSA does."""
    algorithm = ec.ECDSA(Prehashed(SHA256()))

    def sign(times: int) -> None:
        for _ in range(times):
            key.sign(data, algorithm)

    return sign


def run_batch(sign: Callable[[int], None], budget: int) -> tuple[int, int]:
    """Sign for at least `budget` nanoseconds after warming up: (operations, nanoseconds)."""
    chunk, clock = 1, time.perf_counter_ns
    while True:
        start = clock()
        sign(chunk)
        if clock() - start >= CHUNK_NANOSECONDS:
            break
        chunk *= 2
    operations, start = 0, clock()
    while (took := clock() - start) < budget:
        sign(chunk)
        operations += chunk
    return operations, took


def main(rsa_file: str, ec_file: str) -> None:
    """Answer commands until standard input ends."""
    rsa_key = load_pem_private_key(Path(rsa_file).read_bytes(), password=None)
    ec_key = load_pem_private_key(Path(ec_file).read_bytes(), password=None)
    assert isinstance(rsa_key, rsa.RSAPrivateKey)
    assert isinstance(ec_key, ec.EllipticCurvePrivateKey)
    print(json.dumps({"library": "cryptography", "version": cryptography.__version__}), flush=True)
    for line in sys.stdin:
        _, _, _, microseconds, key, data = line.split()
        text = bytes.fromhex(data)
        sign = rsa_signer(rsa_key, text) if key == "rsa" else ec_signer(ec_key, text)
        operations, took = run_batch(sign, int(microseconds) * 1000)
        print(json.dumps({"lanes": [[operations, took]]}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
