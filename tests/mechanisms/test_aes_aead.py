"""AES-GCM and AES-CCM against NIST's known answers."""

from __future__ import annotations

import pytest

from keyfob.spec.constants import CKF, CKM, CKR
from keyfob.spec.parameters import CcmParams, GcmParams
from tests.mechanisms.symmetric_vectors import begin, data, in_parts, records, refused, sample, secret_key

SIZES = (128, 192, 256)
KEY = secret_key(bytes(range(32)))


def gcm(iv: bytes = bytes(12), aad: bytes = b"", tag_bits: int = 128) -> GcmParams:
    return GcmParams(iv, len(iv) * 8, aad, tag_bits)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("iv_bits", [8, 96, 1024])
def test_gcm_encryption_gives_the_known_answers(size: int, iv_bits: int) -> None:
    """NIST's vectors of 8 bits take the way that the library does not offer."""
    found = [r for r in records(f"ciphers/AES/GCM/gcmEncryptExtIV{size}.rsp") if r["IVLEN"] == str(iv_bits)]
    for record in sample(found, 210):
        value, iv, aad, plaintext, ciphertext, tag = data(record, "KEY", "IV", "AAD", "PT", "CT", "TAG")
        key, parameter = secret_key(value), gcm(iv, aad, int(record["TAGLEN"]))
        operation = begin(CKM.AES_GCM, CKF.ENCRYPT, key, parameter)
        assert operation.size(len(plaintext)) == len(ciphertext + tag)
        assert operation.run(plaintext) == ciphertext + tag
        assert in_parts(begin(CKM.AES_GCM, CKF.ENCRYPT, key, parameter), plaintext) == ciphertext + tag


@pytest.mark.parametrize("size", SIZES)
def test_gcm_decryption_gives_the_known_answers_and_refuses_the_forged_ones(size: int) -> None:
    forged = 0
    for record in sample(records(f"ciphers/AES/GCM/gcmDecrypt{size}.rsp"), 600):
        value, iv, aad, ciphertext, tag = data(record, "KEY", "IV", "AAD", "CT", "TAG")
        key, parameter = secret_key(value), gcm(iv, aad, int(record["TAGLEN"]))
        if "FAIL" in record:
            forged += 1
            with refused(CKR.ENCRYPTED_DATA_INVALID):
                begin(CKM.AES_GCM, CKF.DECRYPT, key, parameter).run(ciphertext + tag)
        else:
            (plaintext,) = data(record, "PT")
            assert begin(CKM.AES_GCM, CKF.DECRYPT, key, parameter).run(ciphertext + tag) == plaintext
            assert in_parts(begin(CKM.AES_GCM, CKF.DECRYPT, key, parameter), ciphertext + tag) == plaintext
    assert forged > 100


@pytest.mark.parametrize("iv_length", [1, 12, 128, 129, 300])
@pytest.mark.parametrize("length", [0, 1, 16, 1000])
def test_gcm_decrypts_what_it_encrypted_with_vectors_of_any_length(iv_length: int, length: int) -> None:
    parameter = gcm(bytes(range(iv_length % 256)) or b"\x01" * iv_length, b"header", 96)
    sealed = begin(CKM.AES_GCM, CKF.ENCRYPT, KEY, parameter).run(bytes(length))
    assert len(sealed) == length + 12
    operation = begin(CKM.AES_GCM, CKF.DECRYPT, KEY, parameter)
    assert operation.size(len(sealed)) == length
    assert operation.run(sealed) == bytes(length)


def test_the_way_by_hand_agrees_with_the_library_also_where_the_counter_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    from keyfob.mechanisms import aes_aead

    def both(iv: bytes) -> tuple[bytes, bytes]:
        parameter = gcm(iv, b"header")
        library = begin(CKM.AES_GCM, CKF.ENCRYPT, KEY, parameter).run(bytes(200))
        with monkeypatch.context() as patch:
            patch.setattr(aes_aead, "LIBRARY_VECTORS", range(0))
            return library, begin(CKM.AES_GCM, CKF.ENCRYPT, KEY, parameter).run(bytes(200))

    for iv in (bytes(8), b"\x01" * 16, b"\x02" * 100):
        library, by_hand = both(iv)
        assert library == by_hand
    operation = aes_aead._Gcm(KEY, gcm())
    start = b"\x05" * 12 + b"\xff\xff\xff\xfd"
    stream = operation._counter_mode(start, bytes(64))
    blocks = [start[:12] + counter for counter in (b"\xff\xff\xff\xfe", b"\xff\xff\xff\xff", bytes(4), b"\0\0\0\x01")]
    assert stream == begin(CKM.AES_ECB, CKF.ENCRYPT, KEY, None).run(b"".join(blocks))
    assert operation._counter_mode(b"\x05" * 12 + b"\xff" * 4, bytes(32)) == stream[32:]


def test_gcm_in_parts_gives_no_plaintext_before_the_tag_is_checked() -> None:
    sealed = begin(CKM.AES_GCM, CKF.ENCRYPT, KEY, gcm()).run(bytes(100))
    operation = begin(CKM.AES_GCM, CKF.DECRYPT, KEY, gcm())
    assert operation.update_size(100) == 0
    assert operation.update(sealed[:50]) == b""
    assert operation.update(sealed[50:]) == b""
    assert operation.final_size() == 100
    assert operation.final() == bytes(100)
    broken = begin(CKM.AES_GCM, CKF.DECRYPT, KEY, gcm())
    broken.update(sealed[:-1] + bytes((sealed[-1] ^ 1,)))
    with refused(CKR.ENCRYPTED_DATA_INVALID):
        broken.final()


def test_gcm_depends_on_its_additional_data() -> None:
    sealed = begin(CKM.AES_GCM, CKF.ENCRYPT, KEY, gcm(aad=b"one")).run(b"text")
    with refused(CKR.ENCRYPTED_DATA_INVALID):
        begin(CKM.AES_GCM, CKF.DECRYPT, KEY, gcm(aad=b"two")).run(sealed)


@pytest.mark.parametrize("length", [0, 15])
def test_gcm_data_shorter_than_its_tag_is_refused(length: int) -> None:
    with refused(CKR.ENCRYPTED_DATA_LEN_RANGE):
        begin(CKM.AES_GCM, CKF.DECRYPT, KEY, gcm()).run(bytes(length))


@pytest.mark.parametrize("parameter", [gcm(b""), gcm(tag_bits=0), gcm(tag_bits=24), gcm(tag_bits=100), None, bytes(12)])
@pytest.mark.parametrize("flag", [CKF.ENCRYPT, CKF.DECRYPT])
def test_a_wrong_gcm_parameter_is_refused(parameter: object, flag: int) -> None:
    with refused(CKR.MECHANISM_PARAM_INVALID):
        begin(CKM.AES_GCM, flag, KEY, parameter)


def test_gcm_wraps_keys_and_refuses_a_changed_one() -> None:
    wrapped = begin(CKM.AES_GCM, CKF.WRAP, KEY, gcm()).wrap(b"secret")
    assert len(wrapped) == begin(CKM.AES_GCM, CKF.WRAP, KEY, gcm()).size(6) == 22
    unwrap = begin(CKM.AES_GCM, CKF.UNWRAP, KEY, gcm())
    assert unwrap.unwrap(wrapped) == b"secret"
    assert begin(CKM.AES_GCM, CKF.UNWRAP, KEY, gcm()).unwrap(wrapped, 5) == b"secret"
    with refused(CKR.WRAPPED_KEY_INVALID):
        begin(CKM.AES_GCM, CKF.UNWRAP, KEY, gcm()).unwrap(b"x" + wrapped[1:])
    with refused(CKR.WRAPPED_KEY_LEN_RANGE):
        begin(CKM.AES_GCM, CKF.UNWRAP, KEY, gcm()).unwrap(bytes(15))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["VADT", "VNT", "VPT", "VTT"])
def test_ccm_encryption_gives_the_known_answers(kind: str, size: int) -> None:
    for record in sample(records(f"ciphers/AES/CCM/{kind}{size}.rsp"), 40):
        value, nonce, aad, plaintext, ciphertext = data(record, "KEY", "NONCE", "ADATA", "PAYLOAD", "CT")
        aad, plaintext = aad[: int(record["ALEN"])], plaintext[: int(record["PLEN"])]
        key, parameter = secret_key(value), CcmParams(len(plaintext), nonce, aad, int(record["TLEN"]))
        operation = begin(CKM.AES_CCM, CKF.ENCRYPT, key, parameter)
        assert operation.size(len(plaintext)) == len(ciphertext)
        assert operation.run(plaintext) == ciphertext
        assert in_parts(begin(CKM.AES_CCM, CKF.DECRYPT, key, parameter), ciphertext) == plaintext


@pytest.mark.parametrize("size", SIZES)
def test_ccm_decryption_refuses_the_forged_ones(size: int) -> None:
    for record in sample(records(f"ciphers/AES/CCM/DVPT{size}.rsp"), 120):
        value, nonce, aad, ciphertext = data(record, "KEY", "NONCE", "ADATA", "CT")
        aad, length = aad[: int(record["ALEN"])], int(record["PLEN"])
        operation = begin(
            CKM.AES_CCM, CKF.DECRYPT, secret_key(value), CcmParams(length, nonce, aad, int(record["TLEN"]))
        )
        if record["RESULT"].startswith("Pass"):
            assert operation.run(ciphertext) == data(record, "PAYLOAD")[0][:length]
        else:
            with refused(CKR.ENCRYPTED_DATA_INVALID):
                operation.run(ciphertext)


def test_ccm_data_of_another_length_than_announced_is_refused() -> None:
    parameter = CcmParams(10, bytes(12), b"", 16)
    with refused(CKR.DATA_LEN_RANGE):
        begin(CKM.AES_CCM, CKF.ENCRYPT, KEY, parameter).run(bytes(11))
    with refused(CKR.ENCRYPTED_DATA_LEN_RANGE):
        begin(CKM.AES_CCM, CKF.DECRYPT, KEY, parameter).run(bytes(27))


@pytest.mark.parametrize(
    "parameter",
    [
        CcmParams(1, bytes(6), b"", 16),
        CcmParams(1, bytes(14), b"", 16),
        CcmParams(1, bytes(12), b"", 5),
        CcmParams(1, bytes(12), b"", 0),
        CcmParams(65536, bytes(13), b"", 16),
        None,
    ],
)
def test_a_wrong_ccm_parameter_is_refused(parameter: object) -> None:
    with refused(CKR.MECHANISM_PARAM_INVALID):
        begin(CKM.AES_CCM, CKF.ENCRYPT, KEY, parameter)
