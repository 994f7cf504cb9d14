"""The driver: lists are not over-read, calls are recorded with names, secrets are not."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from cffi import FFI

from keyfob.abi.cryptoki import DECLARATIONS
from keyfob.nss.driver import Mechanism, Module, Recorder, call_text, values
from keyfob.nss.driver.arguments import InTemplate, OutBytes
from keyfob.nss.driver.footprints import Footprints
from keyfob.nss.driver.mechanism import _struct_of
from keyfob.nss.driver.structs import NAMES_2, NAMES_3_0, NAMES_3_2, NssInitializeArgs, TokenInfo, names_of_list
from keyfob.spec.constants import CKA, CKC, CKG, CKK, CKM, CKO, CKR, CKU
from keyfob.spec.parameters import (
    LAYOUTS,
    DesCbcEncryptDataParams,
    GcmParams,
    Pkcs5Pbkd2Params,
    RsaPkcsOaepParams,
    RsaPkcsPssParams,
)

if TYPE_CHECKING:
    from tests.check.conftest import Build

SECRET = b"a secret that nobody may read"


def opened(path: str) -> tuple[Module, list[dict[str, Any]]]:
    messages: list[dict[str, Any]] = []
    module = Module(path, Recorder(messages.append))
    module.resolve().ok()
    return module, messages


def test_a_list_of_version_2_40_is_read_no_further_than_it_goes(build: Build) -> None:
    module, _messages = opened(build("NOTHING"))
    assert module.version == (2, 40)
    assert list(module.pointers) == list(NAMES_2)
    assert not module.has("C_EncapsulateKey")


def test_each_version_of_a_list_has_its_functions() -> None:
    assert (len(NAMES_2), len(NAMES_3_0), len(NAMES_3_2)) == (68, 92, 104)
    assert names_of_list(2, 20) == NAMES_2
    assert names_of_list(3, 1) == NAMES_3_0
    assert names_of_list(3, 9) == NAMES_3_2


def test_structs_have_the_sizes_of_lp64() -> None:
    assert ctypes.sizeof(TokenInfo) == 208
    assert ctypes.sizeof(NssInitializeArgs) == 56


def test_a_call_is_recorded_with_names_answer_and_time(build: Build) -> None:
    module, messages = opened(build("NOTHING"))
    messages.clear()
    module.C_Initialize().ok()
    reply = module.C_GetSlotInfo(7)
    begin, end = messages[-2:]
    assert (begin["t"], begin["function"]) == ("begin", "C_GetSlotInfo")
    assert begin["arguments"][0] == {"name": "slotID", "text": "7"}
    assert (end["rv_name"], end["number"]) == ("CKR_OK", begin["number"])
    assert end["out"][0]["fields"]["flags"] == "REMOVABLE_DEVICE"
    assert end["us"] >= 0
    assert reply.call.text() == "C_GetSlotInfo(slotID=7) -> CKR_OK"
    module.C_Finalize()


def test_pins_and_keys_are_recorded_by_their_length_only(build: Build) -> None:
    module, messages = opened(build("NOTHING"))
    module.C_Login(1, CKU.USER, SECRET)
    module.C_SetPIN(1, SECRET, SECRET)
    module.C_InitToken(7, SECRET, b"label")
    module.C_CreateObject(1, [(CKA.CLASS, CKO.SECRET_KEY), (CKA.TOKEN, True), (CKA.VALUE, SECRET)])
    module.C_CreateObject(1, [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.KEY_TYPE, CKK.RSA), (CKA.PRIME_1, SECRET)])
    module.C_Encrypt(1, SECRET, 64)
    parameters = Pkcs5Pbkd2Params(1, b"salt", 1000, 1, b"", SECRET)
    module.C_GenerateKey(1, Mechanism(CKM.PKCS5_PBKD2, parameters), [])
    text = repr(messages)
    assert SECRET.decode() not in text
    assert SECRET.hex() not in text
    assert f"({len(SECRET)} secret bytes)" in text


def test_a_certificates_value_is_shown() -> None:
    shown = InTemplate([(CKA.CLASS, CKO.CERTIFICATE), (CKA.VALUE, b"\x30\x03\x02\x01\x01")]).shown(["pTemplate", "n"])
    assert shown[0]["text"] == "{CKA_CLASS=CKO_CERTIFICATE, CKA_VALUE=3003020101}"


def test_values_are_shown_by_name() -> None:
    assert values.value_text(CKA.KEY_TYPE, values.encoded(CKK.EC)) == "CKK_EC"
    assert values.value_text(CKA.CERTIFICATE_TYPE, values.encoded(CKC.X_509)) == "CKC_X_509"
    assert values.value_text(CKA.TOKEN, b"\x01") == "TRUE"
    assert values.value_text(CKA.LABEL, "Zoë".encode()) == '"Zoë"'
    assert values.value_text(CKA.ID, b"ABC") == "414243"
    assert values.flags_text(0x80000004, {4: "SERIAL_SESSION"}) == "SERIAL_SESSION | 0x80000000"


def test_mechanism_parameters_are_laid_out_as_the_standard_has_them() -> None:
    pss = Mechanism(CKM.RSA_PKCS_PSS, RsaPkcsPssParams(CKM.SHA256, CKG.MGF1_SHA256, 32))
    assert pss.struct.ulParameterLen == 24
    raw = ctypes.string_at(pss.struct.pParameter, 24)
    assert raw == b"".join(number.to_bytes(8, "little") for number in (CKM.SHA256, CKG.MGF1_SHA256, 32))
    assert pss.text() == "CKM_RSA_PKCS_PSS{hashAlg=CKM_SHA256, mgf=CKG_MGF1_SHA256, sLen=32}"
    gcm = Mechanism(CKM.AES_GCM, GcmParams(bytes(12), 96, b"", 128))
    assert gcm.struct.ulParameterLen == 48
    oaep = Mechanism(CKM.RSA_PKCS_OAEP, RsaPkcsOaepParams(CKM.SHA_1, CKG.MGF1_SHA1, 1, b""))
    assert "pSourceData=NULL" in oaep.text()
    assert Mechanism(CKM.RSA_PKCS).struct.pParameter is None


def test_a_write_behind_a_buffer_is_noticed() -> None:
    out = OutBytes(4)
    assert not out.overrun()
    ctypes.memset(ctypes.addressof(out.held) + 4, 0, 1)  # type: ignore[arg-type]
    assert out.overrun()


def test_a_null_function_is_not_called(build: Build) -> None:
    module, _messages = opened(build("NO_POINTER"))
    reply = module.C_WaitForSlotEvent(1)
    assert "NULL" in reply.note
    assert reply.rv == CKR.GENERAL_ERROR


def test_quiet_stretches_are_counted_and_failures_in_them_kept(build: Build) -> None:
    module, messages = opened(build("NOTHING"))
    module.C_Initialize().ok()
    messages.clear()
    with module.recorder.quietly("a hundred questions"):
        for slot in [7] * 99 + [8]:
            module.C_GetSlotInfo(slot)
    counted = [message for message in messages if message["t"] == "call"]
    assert [(row["function"], row["repeated"], row["rv_name"]) for row in counted] == [
        ("C_GetSlotInfo", 100, "1 of 100 failed")
    ]
    assert [message["rv_name"] for message in messages if message["t"] == "end"] == ["CKR_SLOT_ID_INVALID"]
    module.C_Finalize()


def test_what_is_left_on_a_token_is_told_without_secrets() -> None:
    told: list[list[tuple[int, bytes]]] = []
    footprints = Footprints(told.append)
    footprints.created([(CKA.CLASS, CKO.SECRET_KEY), (CKA.TOKEN, True), (CKA.VALUE, SECRET), (CKA.LABEL, "mine")])
    footprints.created([(CKA.CLASS, CKO.SECRET_KEY), (CKA.TOKEN, False), (CKA.LABEL, "of the session")])
    footprints.generated(11, 12)
    footprints.named(11, [(CKA.MODULUS, b"\xc0")])
    footprints.named(12, [(CKA.ID, b"\x01")])
    private = (CKA.CLASS, values.encoded(CKO.PRIVATE_KEY))
    assert told == [
        [(CKA.CLASS, values.encoded(CKO.SECRET_KEY)), (CKA.LABEL, b"mine")],
        [(CKA.CLASS, values.encoded(CKO.PUBLIC_KEY)), (CKA.MODULUS, b"\xc0")],
        [private, (CKA.MODULUS, b"\xc0")],
        [private, (CKA.ID, b"\x01")],
    ]


def test_a_call_that_did_not_return_says_so() -> None:
    assert call_text("C_GetInfo", [{"name": "pInfo", "text": "out"}], None) == "C_GetInfo() -> did not return"


def test_parameters_lie_in_memory_as_the_standard_has_them() -> None:
    """The structs of the driver and those that C sees, field by field."""
    ffi = FFI()
    ffi.cdef(DECLARATIONS)
    for layout, (name, fields) in LAYOUTS.items():
        block = 8 if layout is DesCbcEncryptDataParams else 16
        example = layout(*(bytes(block) if kind in ("bytes", "array") else None for kind, *_ in fields))
        struct = _struct_of(layout, example)
        assert ctypes.sizeof(struct) == ffi.sizeof(name), name
        for field, _type in struct._fields_:  # type: ignore[misc]
            assert getattr(struct, field).offset == ffi.offsetof(name, field), f"{name}.{field}"
