"""Digests against NIST's known answers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from keyfob.mechanisms.hashes import hash_of, sha1
from keyfob.spec.constants import CKF, CKM, CKR
from tests.mechanisms.symmetric_vectors import Record, begin, data, records, refused, sample

FILES = {
    CKM.MD5: ("MD5/rfc-1321",),
    CKM.SHA_1: ("SHA1/SHA1ShortMsg", "SHA1/SHA1LongMsg"),
    CKM.SHA224: ("SHA2/SHA224ShortMsg", "SHA2/SHA224LongMsg"),
    CKM.SHA256: ("SHA2/SHA256ShortMsg", "SHA2/SHA256LongMsg"),
    CKM.SHA384: ("SHA2/SHA384ShortMsg", "SHA2/SHA384LongMsg"),
    CKM.SHA512: ("SHA2/SHA512ShortMsg", "SHA2/SHA512LongMsg"),
    CKM.SHA512_224: ("SHA2/SHA512_224ShortMsg", "SHA2/SHA512_224LongMsg"),
    CKM.SHA512_256: ("SHA2/SHA512_256ShortMsg", "SHA2/SHA512_256LongMsg"),
    CKM.SHA3_224: ("SHA3/SHA3_224ShortMsg", "SHA3/SHA3_224LongMsg"),
    CKM.SHA3_256: ("SHA3/SHA3_256ShortMsg", "SHA3/SHA3_256LongMsg"),
    CKM.SHA3_384: ("SHA3/SHA3_384ShortMsg", "SHA3/SHA3_384LongMsg"),
    CKM.SHA3_512: ("SHA3/SHA3_512ShortMsg", "SHA3/SHA3_512LongMsg"),
}


def message_of(record: Record) -> bytes:
    return data(record, "MSG")[0][: int(record["LEN"]) // 8]


@pytest.mark.parametrize("mechanism", FILES)
def test_digests_give_the_known_answers(mechanism: int) -> None:
    for name in FILES[mechanism]:
        path = f"hashes/{name}.{'txt' if mechanism == CKM.MD5 else 'rsp'}"
        for record in sample(records(path, "LEN"), 30):
            message, expected = message_of(record), data(record, "MD")[0]
            digest = begin(mechanism, CKF.DIGEST, None)
            assert digest.output_size == len(expected)
            assert digest.digest(message) == expected
            in_parts = begin(mechanism, CKF.DIGEST, None)
            for start in range(0, len(message), 999):
                in_parts.update(message[start : start + 999])
            assert in_parts.final() == expected


def test_a_copy_goes_on_by_itself() -> None:
    digest = begin(CKM.SHA256, CKF.DIGEST, None)
    untouched = digest.copy()
    digest.update(b"one")
    other = digest.copy()
    digest.update(b"two")
    other.update(b"three")
    assert digest.final() == begin(CKM.SHA256, CKF.DIGEST, None).digest(b"onetwo")
    assert other.final() == begin(CKM.SHA256, CKF.DIGEST, None).digest(b"onethree")
    assert untouched.final() == begin(CKM.SHA256, CKF.DIGEST, None).digest(b"")


def test_a_digest_takes_no_parameter() -> None:
    begin(CKM.SHA256, CKF.DIGEST, b"")
    with refused(CKR.MECHANISM_PARAM_INVALID):
        begin(CKM.SHA256, CKF.DIGEST, b"\x20")


def test_a_parameter_that_names_no_hash_is_refused() -> None:
    assert hash_of(CKM.SHA384).size == 48
    with refused(CKR.MECHANISM_PARAM_INVALID):
        hash_of(CKM.AES_ECB)


def test_sha1_is_sha1() -> None:
    assert sha1(b"abc").hex() == "a9993e364706816aba3e25717850c26c9cd0d89d"


def test_no_family_pulls_the_systems_libcrypto_into_the_host() -> None:
    """hashlib, hmac and ssl link it; a host built on another OpenSSL would share its state with us."""
    program = """
import sys
from keyfob import mechanisms
for mechanism in mechanisms.INDEX:
    mechanisms.lookup(mechanism)
print(*sorted({"hashlib", "_hashlib", "hmac", "ssl", "_ssl"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
