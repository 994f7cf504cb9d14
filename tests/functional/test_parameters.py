"""Mechanism parameters in the forms that programs really send them."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyfob.mechanisms import INDEX
from keyfob.nss.tracer import run as tracer
from keyfob.spec.constants import CKA, CKK, CKM, CKO, CKP, CKR, CKZ
from keyfob.spec.parameters import PARAMETER_OF
from tests.client import Template, ffi
from tests.conftest import Fob, module_path

ROOT = Path(__file__).resolve().parents[2]

PASSWORD, SALT, ITERATIONS = b"password", b"0123456789abcdef", 1000
WANTED = hashlib.pbkdf2_hmac("sha256", PASSWORD, SALT, ITERATIONS, 32)


@pytest.mark.parametrize("length_by_pointer", [False, True])
def test_pbkdf2_takes_the_password_length_as_both_versions_give_it(fob: Fob, *, length_by_pointer: bool) -> None:
    """3.13 of NSS.md: NSS 3.87 passes a pointer to the length (CK_PKCS5_PBKD2_PARAMS), newer ones the length."""
    salt, password = ffi.from_buffer("CK_BYTE[]", SALT), ffi.from_buffer("CK_BYTE[]", PASSWORD)
    pointed = ffi.new("CK_ULONG *", len(PASSWORD))
    parameter = ffi.new("CK_PKCS5_PBKD2_PARAMS2 *")
    parameter.saltSource = CKZ.SALT_SPECIFIED
    parameter.pSaltSourceData, parameter.ulSaltSourceDataLen = salt, len(SALT)
    parameter.iterations, parameter.prf = ITERATIONS, CKP.PKCS5_PBKD2_HMAC_SHA256
    parameter.pPassword = password
    parameter.ulPasswordLen = int(ffi.cast("CK_ULONG", pointed)) if length_by_pointer else len(PASSWORD)
    template: Template = [
        (CKA.VALUE_LEN, 32),
        (CKA.KEY_TYPE, CKK.AES),
        *((usage, True) for usage in (CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.WRAP, CKA.UNWRAP)),
        (CKA.SENSITIVE, False),
        (CKA.EXTRACTABLE, True),
    ]
    key = fob.client.generate(fob.session, fob.client.mechanism(CKM.PKCS5_PBKD2, parameter), template)
    assert fob.client.get(fob.session, key, CKA.VALUE) == [WANTED]


def test_a_password_length_that_is_neither_a_length_nor_an_address_is_refused(fob: Fob) -> None:
    """Nothing there, nobody's to read, or only its first half there."""
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    start = int(ffi.cast("CK_ULONG", ffi.from_buffer(pages)))
    protect = ctypes.CDLL(None).mprotect
    assert protect(ctypes.c_void_p(start + mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
    parameter = ffi.new("CK_PKCS5_PBKD2_PARAMS2 *")
    parameter.saltSource, parameter.iterations, parameter.prf = CKZ.SALT_SPECIFIED, 1, CKP.PKCS5_PBKD2_HMAC_SHA256
    parameter.pPassword = password = ffi.from_buffer("CK_BYTE[]", PASSWORD)
    array, count, _kept = fob.client.template([(CKA.VALUE_LEN, 32), (CKA.KEY_TYPE, CKK.AES)])
    for length in ((1 << 64) - 1, 1 << 60, start + mmap.PAGESIZE, start + mmap.PAGESIZE - 4):
        parameter.ulPasswordLen = length
        mechanism = fob.client.mechanism(CKM.PKCS5_PBKD2, parameter)
        rv = fob.client.call("C_GenerateKey", fob.session, mechanism, array, count, ffi.new("CK_ULONG *"))
        assert rv == CKR.MECHANISM_PARAM_INVALID
    assert len(password) == len(PASSWORD)


@pytest.mark.parametrize("struct", ["now", "before 3.0"])
def test_gcm_takes_both_lengths_of_its_struct(fob: Fob, struct: str) -> None:
    iv, aad = ffi.new("CK_BYTE[12]"), ffi.from_buffer("CK_BYTE[]", b"header")
    if struct == "now":
        parameter = ffi.new("CK_GCM_PARAMS *")
        parameter.pIv, parameter.ulIvLen, parameter.ulIvBits = iv, 12, 96
        parameter.pAAD, parameter.ulAADLen, parameter.ulTagBits = aad, 6, 128
        mechanism = fob.client.mechanism(CKM.AES_GCM, parameter)
    else:
        words = (int(ffi.cast("CK_ULONG", iv)), 12, int(ffi.cast("CK_ULONG", aad)), 6, 128)
        mechanism = fob.client.mechanism(CKM.AES_GCM, b"".join(word.to_bytes(8, "little") for word in words))
    value = bytes(range(16))
    key = fob.client.create(fob.session, [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE, value)])
    fob.client.ok("C_EncryptInit", fob.session, mechanism, key)
    sealed = fob.client.output("C_Encrypt", fob.session, b"text", 4)
    assert AESGCM(value).decrypt(bytes(12), sealed, b"header") == b"text"


def test_who_asks_how_long_a_part_will_be_never_hears_zero(fob: Fob) -> None:
    """A buffer of no bytes has no address in C++: the call with the part would be one more question (PyKCS11)."""
    key = fob.client.create(fob.session, [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE, bytes(16))])
    parameter = ffi.new("CK_GCM_PARAMS *")
    vector = ffi.from_buffer("CK_BYTE[]", bytes(12))
    parameter.pIv, parameter.ulIvLen, parameter.ulIvBits, parameter.ulTagBits = vector, 12, 96, 128
    sealed = AESGCM(bytes(16)).encrypt(bytes(12), b"twenty bytes of text", None)
    fob.client.ok("C_DecryptInit", fob.session, fob.client.mechanism(CKM.AES_GCM, parameter), key)
    for part in (sealed[:20], sealed[20:]):
        length = ffi.new("CK_ULONG *")
        fob.client.ok("C_DecryptUpdate", fob.session, part, len(part), ffi.NULL, length)
        assert length[0] == 1
        fob.client.ok("C_DecryptUpdate", fob.session, part, len(part), ffi.new("CK_BYTE[1]"), length)
        assert length[0] == 0
    text, length = ffi.new("CK_BYTE[20]"), ffi.new("CK_ULONG *", 20)
    fob.client.ok("C_DecryptFinal", fob.session, text, length)
    assert bytes(text) == b"twenty bytes of text"


def test_structs_are_read_only_for_mechanisms_that_there_are() -> None:
    """What is refused anyway is not looked into: nobody knows which of its pointers lead anywhere."""
    assert not set(PARAMETER_OF) - set(INDEX)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.usefixtures("home")
def test_no_pointer_is_followed_that_does_not_count(tmp_path: Path, *, traced: bool) -> None:
    """Neither by the module nor by the tracer between: real NSS never sets HKDF's salt where nothing is extracted."""
    lines = tmp_path / "lines"
    environment = tracer.variables(module_path(), lines) if traced else None
    program = [sys.executable, "-m", "tests.functional.unset_fields", str(module_path())]
    ran = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, (ran.returncode, ran.stderr)
    assert ran.stdout.splitlines() == ["looked at 93 fields and 115 lengths"]
    assert not traced or len(lines.read_text().splitlines()) > 150
