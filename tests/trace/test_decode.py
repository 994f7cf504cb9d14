"""Lines of the tracer as calls with names."""

from __future__ import annotations

import json
from typing import Any

from keyfob.nss.driver.record import call_text
from keyfob.nss.tracer import decode


def line(call: str, given: dict[str, Any], out: dict[str, Any], rv: int = 0) -> str:
    return json.dumps(
        {"call": call, "time": 5_000_000, "process": 7, "thread": 8, "in": given, "us": 12, "out": out, "rv": rv}
    )


def one(call: str, given: dict[str, Any], out: dict[str, Any], rv: int = 0) -> dict[str, Any]:
    (decoded,) = decode.lines(iter([line(call, given, out, rv)]))
    return decoded


def test_a_template_has_the_names_of_its_attributes_and_values() -> None:
    call = one(
        "C_FindObjectsInit",
        {"hSession": 3, "pTemplate": [[0, 8, "0300000000000000"], [1, 1, "01"], [258, 2, "beef"]], "ulCount": 3},
        {},
    )
    assert call_text(call["function"], call["arguments"], call["rv"]) == (
        "C_FindObjectsInit(hSession=3, pTemplate={CKA_CLASS=CKO_PRIVATE_KEY, CKA_TOKEN=TRUE, CKA_ID=beef}, ulCount=3)"
        " -> CKR_OK"
    )
    assert call["arguments"][1]["attributes"][0] == {"type": "CKA_CLASS", "value": "CKO_PRIVATE_KEY", "length": 8}


def test_what_the_tracer_hid_is_shown_by_its_length() -> None:
    call = one(
        "C_Login",
        {"hSession": 1, "userType": 1, "pPin": {"length": 6, "hidden": True}, "ulPinLen": 6},
        {},
        rv=0xA0,
    )
    assert call_text(call["function"], call["arguments"], call["rv"]) == (
        "C_Login(hSession=1, userType=CKU_USER, pPin=(6 secret bytes), ulPinLen=6) -> CKR_PIN_INCORRECT"
    )
    created = one("C_CreateObject", {"hSession": 1, "pTemplate": [[17, 32, "hidden"]], "ulCount": 1}, {"phObject": 9})
    assert created["arguments"][1]["text"] == "{CKA_VALUE=(32 secret bytes)}"
    assert created["out"] == [{"name": "phObject", "text": "9"}]


def test_attributes_are_asked_for_and_answered() -> None:
    call = one(
        "C_GetAttributeValue",
        {"hSession": 1, "hObject": 5, "pTemplate": [[0, 8, "buffer"], [3, 0, None], [2, 1, "buffer"]], "ulCount": 3},
        {"pTemplate": [[0, 8, "0200000000000000"], [3, 4, None], [2, -1, None]]},
        rv=0x12,
    )
    assert call["arguments"][2]["text"] == "{CKA_CLASS[8], CKA_LABEL?, CKA_PRIVATE[1]}"
    assert call["out"][0]["text"] == "{CKA_CLASS=CKO_PUBLIC_KEY, CKA_LABEL=4 bytes, CKA_PRIVATE=-1}"
    assert call["rv_name"] == "CKR_ATTRIBUTE_TYPE_INVALID"


def test_a_mechanism_has_the_fields_of_its_parameter() -> None:
    parameter = {"hashAlg": 592, "mgf": 2, "sLen": 32}
    mechanism = {"mechanism": 13, "CK_RSA_PKCS_PSS_PARAMS": parameter}
    call = one("C_SignInit", {"hSession": 1, "pMechanism": mechanism, "hKey": 4}, {})
    assert call["arguments"][1]["text"] == "CKM_RSA_PKCS_PSS {hashAlg=CKM_SHA256, mgf=CKG_MGF1_SHA256, sLen=32}"
    plain = one(
        "C_DecryptInit", {"pMechanism": {"mechanism": 4226, "pParameter": {"length": 16, "hex": "00" * 16}}}, {}
    )
    assert next(a for a in plain["arguments"] if a["name"] == "pMechanism")["text"] == f"CKM_AES_CBC {'00' * 16}"


def test_a_struct_comes_out_as_its_fields() -> None:
    call = one("C_GetSessionInfo", {"hSession": 1}, {"slotID": 1, "state": 3, "flags": 6, "ulDeviceError": 0})
    (info,) = call["out"]
    assert info["fields"] == {
        "slotID": "1",
        "state": "CKS_RW_USER_FUNCTIONS",
        "flags": "RW_SESSION | SERIAL_SESSION",
        "ulDeviceError": "0",
    }


def test_text_that_is_no_ascii_is_shown_as_bytes_and_blanks_are_cut() -> None:
    call = one("C_GetInfo", {}, {"manufacturerID": "Maker   ", "libraryDescription": "\u00c3\u00a9" + " " * 30})
    fields = call["out"][0]["fields"]
    assert fields["manufacturerID"] == '"Maker"'
    assert fields["libraryDescription"] == "c3a9"


def test_a_line_that_was_cut_off_is_left_out() -> None:
    whole = line("C_Finalize", {"pReserved": None}, {})
    calls = list(decode.lines(iter([whole, whole[: len(whole) // 2], whole])))
    assert [call["number"] for call in calls] == [1, 2]
