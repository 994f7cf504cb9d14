"""RSA with padding: known answers from RSA Laboratories and NIST (CAVP), and what is refused."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from keyfob.spec.constants import CKA, CKF, CKG, CKK, CKM, CKR, CKZ
from keyfob.spec.errors import PKCS11Error
from keyfob.spec.parameters import RsaPkcsOaepParams, RsaPkcsPssParams
from tests.mechanisms.asymmetric_vectors import (
    DIGEST_INFO_SHA1,
    HASH_NAMES,
    ROWS,
    Record,
    hexed,
    labs_pair,
    operation,
    public_key,
    records,
    rsa_examples,
    rsa_pair,
    rv_of,
    sample,
)

PKCS1_MECHANISMS = {
    "SHA1": CKM.SHA1_RSA_PKCS,
    "SHA224": CKM.SHA224_RSA_PKCS,
    "SHA256": CKM.SHA256_RSA_PKCS,
    "SHA384": CKM.SHA384_RSA_PKCS,
    "SHA512": CKM.SHA512_RSA_PKCS,
}
PSS_MECHANISMS = {
    "SHA1": CKM.SHA1_RSA_PKCS_PSS,
    "SHA224": CKM.SHA224_RSA_PKCS_PSS,
    "SHA256": CKM.SHA256_RSA_PKCS_PSS,
    "SHA384": CKM.SHA384_RSA_PKCS_PSS,
    "SHA512": CKM.SHA512_RSA_PKCS_PSS,
}
MGFS = {
    "SHA1": CKG.MGF1_SHA1,
    "SHA224": CKG.MGF1_SHA224,
    "SHA256": CKG.MGF1_SHA256,
    "SHA384": CKG.MGF1_SHA384,
    "SHA512": CKG.MGF1_SHA512,
}
OAEP_SHA1 = RsaPkcsOaepParams(CKM.SHA_1, CKG.MGF1_SHA1, CKZ.DATA_SPECIFIED, b"")
PSS_SHA256 = RsaPkcsPssParams(CKM.SHA256, CKG.MGF1_SHA256, 32)


# Known answers


def test_pkcs1_signatures_of_rsa_laboratories() -> None:
    """40 of 300: keys of 1024 to 2048 bits, some of odd sizes; each signed five ways, verified, recovered."""
    examples = list(rsa_examples("RSA/pkcs1v15sign-vectors.txt", first="Message to be signed", last="Signature"))
    assert len(examples) == 300
    for attributes, example in sample(examples, 40):
        public, private = labs_pair(attributes)
        message, signature = example["Message to be signed"], example["Signature"]
        info = DIGEST_INFO_SHA1 + hashlib.sha1(message).digest()
        assert operation(CKM.RSA_PKCS, CKF.SIGN)(private, None).sign(info) == signature
        assert operation(CKM.RSA_PKCS, CKF.SIGN_RECOVER)(private, None).sign(info) == signature
        assert operation(CKM.SHA1_RSA_PKCS, CKF.SIGN)(private, None).sign(message) == signature
        parts = operation(CKM.SHA1_RSA_PKCS, CKF.SIGN)(private, None)
        parts.update(message[:10])
        parts.update(message[10:])
        assert parts.final() == signature
        assert operation(CKM.RSA_PKCS, CKF.VERIFY_RECOVER)(public, None).recover(signature) == info
        operation(CKM.RSA_PKCS, CKF.VERIFY)(public, None).verify(info, signature)
        operation(CKM.SHA1_RSA_PKCS, CKF.VERIFY)(public, None).verify(message, signature)


def test_pkcs1_decryption_of_rsa_laboratories() -> None:
    """60 of 300."""
    examples = list(rsa_examples("RSA/pkcs1v15crypt-vectors.txt", first="Message", last="Encryption"))
    assert len(examples) == 300
    for attributes, example in sample(examples, 60):
        _, private = labs_pair(attributes)
        ciphertext = example["Encryption"].rjust(private.size, b"\0")
        assert operation(CKM.RSA_PKCS, CKF.DECRYPT)(private, None).run(ciphertext) == example["Message"]
        assert operation(CKM.RSA_PKCS, CKF.UNWRAP)(private, None).unwrap(ciphertext) == example["Message"]


def test_oaep_decryption_of_rsa_laboratories() -> None:
    """All 60."""
    examples = list(rsa_examples("RSA/pkcs-1v2-1d2-vec/oaep-vect.txt", first="Message", last="Encryption"))
    assert len(examples) == 60
    for attributes, example in examples:
        _, private = labs_pair(attributes)
        ciphertext = example["Encryption"].rjust(private.size, b"\0")
        message = operation(CKM.RSA_PKCS_OAEP, CKF.DECRYPT)(private, OAEP_SHA1).run(ciphertext)
        assert message == example["Message"]


@pytest.mark.parametrize(
    ("mgf", "digest"), [(mgf, digest) for mgf in MGFS for digest in MGFS if (mgf, digest) != ("SHA1", "SHA1")]
)
def test_oaep_with_every_pair_of_hashes(mgf: str, digest: str) -> None:
    """4 for each of 24 pairs of hash and MGF hash (P14); SHA-1 with SHA-1 is in the test above."""
    name = f"RSA/oaep-custom/oaep-{mgf.lower()}-{digest.lower()}.txt"
    examples = list(rsa_examples(name, first="Message", last="Encryption"))
    parameter = RsaPkcsOaepParams(HASH_NAMES[digest], MGFS[mgf], CKZ.DATA_SPECIFIED, b"")
    for attributes, example in sample(examples, 4):
        _, private = labs_pair(attributes)
        ciphertext = example["Encryption"].rjust(private.size, b"\0")
        assert operation(CKM.RSA_PKCS_OAEP, CKF.DECRYPT)(private, parameter).run(ciphertext) == example["Message"]
        assert operation(CKM.RSA_PKCS_OAEP, CKF.UNWRAP)(private, parameter).unwrap(ciphertext) == example["Message"]


def test_pss_verification_of_rsa_laboratories() -> None:
    """All 60; both over the hash and over the message."""
    examples = list(rsa_examples("RSA/pkcs-1v2-1d2-vec/pss-vect.txt", first="Message to be signed", last="Signature"))
    assert len(examples) == 60
    parameter = RsaPkcsPssParams(CKM.SHA_1, CKG.MGF1_SHA1, 20)
    for attributes, example in examples:
        public, _ = labs_pair(attributes)
        message, signature = example["Message to be signed"], example["Signature"]
        prehashed = operation(CKM.RSA_PKCS_PSS, CKF.VERIFY)(public, parameter)
        prehashed.verify(hashlib.sha1(message).digest(), signature)
        operation(CKM.SHA1_RSA_PKCS_PSS, CKF.VERIFY)(public, parameter).verify(message, signature)


def nist_public(record: Record) -> Any:
    return public_key(CKK.RSA, {CKA.MODULUS: hexed(record["n"]), CKA.PUBLIC_EXPONENT: hexed(record["e"])})


def outcome(verify: Any, message: bytes, signature: bytes) -> int:
    """The CKR_* that a verification ends with."""
    try:
        verify.verify(message, signature)
    except PKCS11Error as error:
        return error.rv
    return CKR.OK


@pytest.mark.parametrize("name", ["SigVer15_186-3.rsp", "SigVerPSS_186-3.rsp"])
def test_nist_verification(name: str) -> None:
    """60 of each of the files, good and bad ones, moduli of 1024 to 4096 bits."""
    cases = [case for _, case in records(f"RSA/FIPS_186-2/{name}", carried=("n", "p", "q")) if "Msg" in case]
    seen = set()
    for case in sample(cases, 60):
        digest = case["SHAAlg"]
        public = nist_public(case)
        if "PSS" in name:
            parameter = RsaPkcsPssParams(HASH_NAMES[digest], MGFS[digest], len(hexed(case["SaltVal"])))
            verify = operation(PSS_MECHANISMS[digest], CKF.VERIFY)(public, parameter)
        else:
            verify = operation(PKCS1_MECHANISMS[digest], CKF.VERIFY)(public, None)
        expected = CKR.OK if case["Result"].startswith("P") else CKR.SIGNATURE_INVALID
        assert outcome(verify, hexed(case["Msg"]), hexed(case["S"]).rjust(public.size, b"\0")) == expected
        seen.add(expected)
    assert len(seen) == 2


@pytest.mark.parametrize("name", ["SigGen15_186-3.rsp", "SigGenPSS_186-3.rsp"])
def test_nist_signatures_verify_in_parts(name: str) -> None:
    """30 of each of the files; PSS without salt."""
    cases = [case for _, case in records(f"RSA/FIPS_186-2/{name}", carried=("n", "e", "d")) if "Msg" in case]
    for case in sample(cases, 30):
        digest = case["SHAAlg"]
        public = nist_public(case)
        if "PSS" in name:
            parameter = RsaPkcsPssParams(HASH_NAMES[digest], MGFS[digest], 0)
            verify = operation(PSS_MECHANISMS[digest], CKF.VERIFY)(public, parameter)
        else:
            verify = operation(PKCS1_MECHANISMS[digest], CKF.VERIFY)(public, None)
        message = hexed(case["Msg"])
        verify.update(message[:64])
        verify.update(message[64:])
        verify.final(hexed(case["S"]).rjust(public.size, b"\0"))


# Everything with a key of one's own


SIGNING_ROWS = [row for row in ROWS.values() if CKK.RSA in row.key_types and CKF.SIGN in row.operations]


@pytest.mark.parametrize("row", SIGNING_ROWS, ids=lambda row: hex(row.type))
def test_every_signing_row_signs_what_it_verifies(row: Any) -> None:
    public, private = rsa_pair()
    parameter: Any = None
    data = b"the whole message"
    if row.type in PSS_PARAMETERS:
        parameter = RsaPkcsPssParams(*PSS_PARAMETERS[row.type], 17)
    elif row.type == CKM.RSA_PKCS_PSS:
        parameter, data = PSS_SHA256, hashlib.sha256(data).digest()
    signer = row.operations[CKF.SIGN](private, parameter)
    signature = signer.sign(data)
    assert len(signature) == signer.output_size == 256
    row.operations[CKF.VERIFY](public, parameter).verify(data, signature)
    other = bytes([data[0] ^ 1]) + data[1:]
    assert rv_of(row.operations[CKF.VERIFY](public, parameter).verify, other, signature) == CKR.SIGNATURE_INVALID
    spoilt = bytes([signature[0] >> 1]) + signature[1:-1] + bytes([signature[-1] ^ 1])
    assert rv_of(row.operations[CKF.VERIFY](public, parameter).verify, data, spoilt) == CKR.SIGNATURE_INVALID
    for wrong in (signature[:-1], signature + b"\0", b""):
        assert rv_of(row.operations[CKF.VERIFY](public, parameter).verify, data, wrong) == CKR.SIGNATURE_LEN_RANGE


PSS_PARAMETERS = {
    CKM.SHA1_RSA_PKCS_PSS: (CKM.SHA_1, CKG.MGF1_SHA1),
    CKM.SHA224_RSA_PKCS_PSS: (CKM.SHA224, CKG.MGF1_SHA256),
    CKM.SHA256_RSA_PKCS_PSS: (CKM.SHA256, CKG.MGF1_SHA256),
    CKM.SHA384_RSA_PKCS_PSS: (CKM.SHA384, CKG.MGF1_SHA384),
    CKM.SHA512_RSA_PKCS_PSS: (CKM.SHA512, CKG.MGF1_SHA1),
    CKM.SHA3_224_RSA_PKCS_PSS: (CKM.SHA3_224, CKG.MGF1_SHA3_224),
    CKM.SHA3_256_RSA_PKCS_PSS: (CKM.SHA3_256, CKG.MGF1_SHA3_256),
    CKM.SHA3_384_RSA_PKCS_PSS: (CKM.SHA3_384, CKG.MGF1_SHA3_384),
    CKM.SHA3_512_RSA_PKCS_PSS: (CKM.SHA3_512, CKG.MGF1_SHA3_512),
}


def test_flags_are_those_of_table_1_2() -> None:
    every = CKF.SIGN | CKF.VERIFY | CKF.ENCRYPT | CKF.DECRYPT | CKF.WRAP | CKF.UNWRAP
    assert ROWS[CKM.RSA_PKCS].flags == every | CKF.SIGN_RECOVER | CKF.VERIFY_RECOVER
    raw = every & ~(CKF.WRAP | CKF.UNWRAP)  # the block that unwraps could be any signature
    assert ROWS[CKM.RSA_X_509].flags == raw | CKF.SIGN_RECOVER | CKF.VERIFY_RECOVER
    assert ROWS[CKM.RSA_PKCS_OAEP].flags == CKF.ENCRYPT | CKF.DECRYPT | CKF.WRAP | CKF.UNWRAP
    assert ROWS[CKM.RSA_PKCS_PSS].flags == CKF.SIGN | CKF.VERIFY
    assert ROWS[CKM.RSA_PKCS_KEY_PAIR_GEN].flags == CKF.GENERATE_KEY_PAIR


def test_pkcs1_signs_any_bytes_up_to_the_room() -> None:
    public, private = rsa_pair()
    for data in (b"", b"\0", b"x" * 36, b"y" * 245):
        signature = operation(CKM.RSA_PKCS, CKF.SIGN)(private, None).sign(data)
        operation(CKM.RSA_PKCS, CKF.VERIFY)(public, None).verify(data, signature)
        assert operation(CKM.RSA_PKCS, CKF.VERIFY_RECOVER)(public, None).recover(signature) == data
    assert rv_of(operation(CKM.RSA_PKCS, CKF.SIGN)(private, None).sign, b"z" * 246) == CKR.DATA_LEN_RANGE
    verify = operation(CKM.RSA_PKCS, CKF.VERIFY)(public, None)
    assert rv_of(verify.verify, b"z" * 246, bytes(256)) == CKR.DATA_LEN_RANGE


def test_final_without_update_signs_the_empty_message() -> None:
    public, private = rsa_pair()
    signature = operation(CKM.SHA256_RSA_PKCS, CKF.SIGN)(private, None).final()
    operation(CKM.SHA256_RSA_PKCS, CKF.VERIFY)(public, None).final(signature)
    operation(CKM.SHA256_RSA_PKCS, CKF.VERIFY)(public, None).verify(b"", signature)


def test_single_part_mechanisms_refuse_update() -> None:
    public, private = rsa_pair()
    assert rv_of(operation(CKM.RSA_PKCS, CKF.SIGN)(private, None).update, b"x") == CKR.FUNCTION_NOT_SUPPORTED
    assert rv_of(operation(CKM.RSA_PKCS_PSS, CKF.SIGN)(private, PSS_SHA256).update, b"x") == CKR.FUNCTION_NOT_SUPPORTED
    assert rv_of(operation(CKM.RSA_X_509, CKF.ENCRYPT)(public, None).update, b"x") == CKR.FUNCTION_NOT_SUPPORTED


@pytest.mark.parametrize("mechanism", [CKM.RSA_PKCS, CKM.RSA_PKCS_OAEP])
def test_encryption_and_wrapping(mechanism: int) -> None:
    public, private = rsa_pair()
    parameter = OAEP_SHA1 if mechanism == CKM.RSA_PKCS_OAEP else None
    longest = 256 - 42 if mechanism == CKM.RSA_PKCS_OAEP else 256 - 11
    encrypt = operation(mechanism, CKF.ENCRYPT)(public, parameter)
    decrypt = operation(mechanism, CKF.DECRYPT)(private, parameter)
    assert encrypt.exact
    assert not decrypt.exact
    assert (encrypt.size(1), decrypt.size(256)) == (256, longest)
    for message in (b"", b"secret", b"x" * longest):
        ciphertext = encrypt.run(message)
        assert len(ciphertext) == 256
        assert decrypt.run(ciphertext) == message
    wrapped = operation(mechanism, CKF.WRAP)(public, parameter).wrap(bytes(32))
    assert operation(mechanism, CKF.UNWRAP)(private, parameter).unwrap(wrapped) == bytes(32)
    assert rv_of(encrypt.run, b"x" * (longest + 1)) == CKR.DATA_LEN_RANGE
    wrap = operation(mechanism, CKF.WRAP)(public, parameter)
    assert rv_of(wrap.wrap, b"x" * (longest + 1)) == CKR.KEY_SIZE_RANGE
    for length in (0, 255, 257):
        assert rv_of(decrypt.run, bytes(length)) == CKR.ENCRYPTED_DATA_LEN_RANGE
        unwrap = operation(mechanism, CKF.UNWRAP)(private, parameter)
        assert rv_of(unwrap.unwrap, bytes(length)) == CKR.WRAPPED_KEY_LEN_RANGE
    assert rv_of(decrypt.run, b"\xff" * 256) == CKR.ENCRYPTED_DATA_INVALID
    assert rv_of(operation(mechanism, CKF.UNWRAP)(private, parameter).unwrap, b"\xff" * 256) == CKR.WRAPPED_KEY_INVALID


def test_oaep_takes_a_label() -> None:
    public, private = rsa_pair()
    labelled = RsaPkcsOaepParams(CKM.SHA256, CKG.MGF1_SHA256, CKZ.DATA_SPECIFIED, b"label")
    other = RsaPkcsOaepParams(CKM.SHA256, CKG.MGF1_SHA256, CKZ.DATA_SPECIFIED, b"other")
    ciphertext = operation(CKM.RSA_PKCS_OAEP, CKF.ENCRYPT)(public, labelled).run(b"secret")
    assert operation(CKM.RSA_PKCS_OAEP, CKF.DECRYPT)(private, labelled).run(ciphertext) == b"secret"
    decrypt = operation(CKM.RSA_PKCS_OAEP, CKF.DECRYPT)(private, other)
    assert rv_of(decrypt.run, ciphertext) == CKR.ENCRYPTED_DATA_INVALID


@pytest.mark.parametrize(
    ("digest", "mgf", "source", "label"),
    [
        (CKM.MD5, CKG.MGF1_SHA1, CKZ.DATA_SPECIFIED, b""),
        (CKM.SHA3_256, CKG.MGF1_SHA3_256, CKZ.DATA_SPECIFIED, b""),
        (CKM.SHA_1, 0, CKZ.DATA_SPECIFIED, b""),
        (CKM.SHA_1, CKG.MGF1_SHA1, 2, b""),
        (CKM.SHA_1, CKG.MGF1_SHA1, 0, b"label"),
    ],
)
def test_bad_oaep_parameters_are_refused_at_init(digest: int, mgf: int, source: int, label: bytes) -> None:
    public, private = rsa_pair()
    parameter = RsaPkcsOaepParams(digest, mgf, source, label)
    for flag, key in ((CKF.ENCRYPT, public), (CKF.DECRYPT, private), (CKF.WRAP, public), (CKF.UNWRAP, private)):
        assert rv_of(operation(CKM.RSA_PKCS_OAEP, flag), key, parameter) == CKR.MECHANISM_PARAM_INVALID
        assert rv_of(operation(CKM.RSA_PKCS_OAEP, flag), key, None) == CKR.MECHANISM_PARAM_INVALID


def test_bad_pss_parameters_are_refused_at_init() -> None:
    _, private = rsa_pair()
    sign = operation(CKM.RSA_PKCS_PSS, CKF.SIGN)
    hashed = operation(CKM.SHA256_RSA_PKCS_PSS, CKF.SIGN)
    for parameter in (
        None,
        b"raw",
        RsaPkcsPssParams(CKM.AES_CBC, CKG.MGF1_SHA256, 32),
        RsaPkcsPssParams(CKM.SHA256, 99, 32),
        RsaPkcsPssParams(CKM.SHA256, CKG.MGF1_SHA256, 256 - 32 - 1),
        RsaPkcsPssParams(CKM.SHA256, CKG.MGF1_SHA256, 2**64 - 1),
    ):
        assert rv_of(sign, private, parameter) == CKR.MECHANISM_PARAM_INVALID
        assert rv_of(hashed, private, parameter) == CKR.MECHANISM_PARAM_INVALID
    assert rv_of(hashed, private, RsaPkcsPssParams(CKM.SHA_1, CKG.MGF1_SHA1, 20)) == CKR.MECHANISM_PARAM_INVALID
    longest = RsaPkcsPssParams(CKM.SHA256, CKG.MGF1_SHA256, 256 - 32 - 2)
    assert len(sign(private, longest).sign(bytes(32))) == 256
    for length in (0, 20, 31, 33):
        assert rv_of(sign(private, PSS_SHA256).sign, bytes(length)) == CKR.DATA_LEN_RANGE


@pytest.mark.parametrize("mechanism", [CKM.RSA_PKCS, CKM.RSA_X_509, CKM.SHA256_RSA_PKCS])
def test_an_unasked_parameter_is_refused(mechanism: int) -> None:
    public, private = rsa_pair()
    assert rv_of(operation(mechanism, CKF.SIGN), private, b"x") == CKR.MECHANISM_PARAM_INVALID
    assert rv_of(operation(mechanism, CKF.VERIFY), public, b"x") == CKR.MECHANISM_PARAM_INVALID


def test_small_moduli_are_refused_for_big_hashes() -> None:
    """A modulus of 512 bits has no room for DigestInfo and padding with SHA-512, nor for PSS with it."""
    modulus = bytes.fromhex("c1" + "a7" * 63)
    public = public_key(CKK.RSA, {CKA.MODULUS: modulus, CKA.PUBLIC_EXPONENT: b"\1\0\1"})
    assert rv_of(operation(CKM.SHA512_RSA_PKCS, CKF.VERIFY), public, None) == CKR.KEY_SIZE_RANGE
    parameter = RsaPkcsPssParams(CKM.SHA512, CKG.MGF1_SHA512, 0)
    assert rv_of(operation(CKM.SHA512_RSA_PKCS_PSS, CKF.VERIFY), public, parameter) == CKR.KEY_SIZE_RANGE
    oaep = RsaPkcsOaepParams(CKM.SHA256, CKG.MGF1_SHA256, CKZ.DATA_SPECIFIED, b"")
    assert rv_of(operation(CKM.RSA_PKCS_OAEP, CKF.ENCRYPT), public, oaep) == CKR.KEY_SIZE_RANGE
    assert operation(CKM.SHA256_RSA_PKCS, CKF.VERIFY)(public, None).size == 64
