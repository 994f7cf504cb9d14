"""Raw RSA and its defences; RSA decryption that is no oracle."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from keyfob.mechanisms import rsa_raw
from keyfob.spec.constants import CKA, CKF, CKM, CKR
from tests.mechanisms.asymmetric_vectors import (
    DIGEST_INFO_SHA1,
    labs_pair,
    operation,
    rsa_examples,
    rsa_pair,
    rv_of,
)

if TYPE_CHECKING:
    import pytest


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


def test_a_faulty_private_operation_gives_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One wrong CRT half would give the primes away (Boneh, DeMillo, Lipton)."""
    _, private = rsa_pair()
    calls = []

    def faulty(base: int, exponent: int, modulus: int) -> int:
        calls.append(modulus)
        return (pow(base, exponent, modulus) + (len(calls) == 1)) % modulus

    monkeypatch.setattr(rsa_raw, "secret_power", faulty)
    assert rv_of(operation(CKM.RSA_X_509, CKF.SIGN)(private, None).sign, b"data") == CKR.DEVICE_ERROR


def test_raw_rsa_never_repeats_base_or_exponent(monkeypatch: pytest.MonkeyPatch) -> None:
    _, private = rsa_pair()
    seen: list[tuple[int, int]] = []

    def watched(base: int, exponent: int, modulus: int) -> int:
        seen.append((base, exponent))
        return pow(base, exponent, modulus)

    monkeypatch.setattr(rsa_raw, "secret_power", watched)
    results = {operation(CKM.RSA_X_509, CKF.SIGN)(private, None).sign(b"the same") for _ in range(3)}
    assert len(results) == 1
    assert len({base for base, _ in seen}) == len({exponent for _, exponent in seen}) == 6
