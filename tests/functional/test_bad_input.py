"""Bad input: NULL pointers, wrong lengths, handles of nothing, calls out of order. A code each time, never a crash.

The module runs in this very process: a crash would end the whole run, which is the plainest report there is.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from keyfob.spec.errors import name_of
from keyfob.spec.functions import FUNCTIONS
from tests.client import P256, READ_ONLY, Template, ffi
from tests.conftest import Fob

HUGE = 0xFFFFFFFFFFFFFFFF
# Functions that would change what the other tests of a run need, or wait.
LEFT_OUT = {"C_Initialize", "C_Finalize", "C_WaitForSlotEvent", "C_CloseSession", "C_CloseAllSessions", "C_Logout"}
CALLED = [n for n in FUNCTIONS if n not in LEFT_OUT and not n.startswith(("C_GetInterface", "C_GetFunctionList"))]


def arguments(name: str, fob: Fob, handle: int, pointer: Any, length: int) -> list[Any]:
    """Arguments of the right C types: the session, `handle` for other handles, `pointer` and `length` for the rest."""
    values: list[Any] = []
    for argument, kind in FUNCTIONS[name][1]:
        if kind == "CK_SESSION_HANDLE":
            values.append(fob.session)
        elif kind == "CK_SLOT_ID":
            values.append(fob.slot)
        elif kind == "CK_OBJECT_HANDLE":
            values.append(handle)
        elif kind.endswith("_PTR") or kind == "CK_NOTIFY":
            values.append(pointer)
        elif "Len" in argument or "Count" in argument:
            values.append(length)
        else:
            values.append(0)
    return values


@pytest.mark.rule("P37", "G5")
@pytest.mark.parametrize("name", CALLED)
def test_null_pointers_get_a_code(fob: Fob, name: str) -> None:
    """Answers NULL pointers with a code, in every function."""
    for length in (0, 1, HUGE):
        rv = fob.client.call(name, *arguments(name, fob, 1, ffi.NULL, length))
        assert rv != CKR.GENERAL_ERROR
        if name in ("C_GetFunctionStatus", "C_CancelFunction"):
            assert rv == CKR.FUNCTION_NOT_PARALLEL
        elif rv == CKR.OK:
            # With a count of 0 there may be nothing to do; everything else has a reason to refuse.
            assert length == 0 or name == "C_SessionCancel"


@pytest.mark.rule("P37")
@pytest.mark.parametrize("name", [n for n in CALLED if FUNCTIONS[n][1][0][1] == "CK_SESSION_HANDLE"])
def test_session_handle_of_nothing_comes_first(fob: Fob, name: str) -> None:
    """Answers CKR_SESSION_HANDLE_INVALID to handle 0 and to handles of nothing, in every function, before all else."""
    values = arguments(name, fob, 1, ffi.NULL, HUGE)
    for handle in (0, 0xDEAD, HUGE):
        values[0] = handle
        rv = fob.client.call(name, *values)
        assert rv in (CKR.SESSION_HANDLE_INVALID, CKR.FUNCTION_NOT_SUPPORTED), name_of("CKR", rv)
        implemented = fob.client.call(name, fob.session, *values[1:]) != CKR.FUNCTION_NOT_SUPPORTED
        assert implemented == (rv == CKR.SESSION_HANDLE_INVALID)


@pytest.mark.parametrize(
    ("name", "rv"),
    [
        ("C_Encrypt", CKR.OPERATION_NOT_INITIALIZED),
        ("C_EncryptUpdate", CKR.OPERATION_NOT_INITIALIZED),
        ("C_EncryptFinal", CKR.OPERATION_NOT_INITIALIZED),
        ("C_Decrypt", CKR.OPERATION_NOT_INITIALIZED),
        ("C_DecryptUpdate", CKR.OPERATION_NOT_INITIALIZED),
        ("C_DecryptFinal", CKR.OPERATION_NOT_INITIALIZED),
        ("C_Digest", CKR.OPERATION_NOT_INITIALIZED),
        ("C_DigestUpdate", CKR.OPERATION_NOT_INITIALIZED),
        ("C_DigestFinal", CKR.OPERATION_NOT_INITIALIZED),
        ("C_Sign", CKR.OPERATION_NOT_INITIALIZED),
        ("C_SignUpdate", CKR.OPERATION_NOT_INITIALIZED),
        ("C_SignFinal", CKR.OPERATION_NOT_INITIALIZED),
        ("C_SignRecover", CKR.OPERATION_NOT_INITIALIZED),
        ("C_Verify", CKR.OPERATION_NOT_INITIALIZED),
        ("C_VerifyUpdate", CKR.OPERATION_NOT_INITIALIZED),
        ("C_VerifyFinal", CKR.OPERATION_NOT_INITIALIZED),
        ("C_VerifyRecover", CKR.OPERATION_NOT_INITIALIZED),
        ("C_DigestEncryptUpdate", CKR.OPERATION_NOT_INITIALIZED),
        ("C_DecryptVerifyUpdate", CKR.OPERATION_NOT_INITIALIZED),
        ("C_FindObjects", CKR.OPERATION_NOT_INITIALIZED),
        ("C_FindObjectsFinal", CKR.OPERATION_NOT_INITIALIZED),
        ("C_DestroyObject", CKR.OBJECT_HANDLE_INVALID),
        ("C_GetAttributeValue", CKR.OBJECT_HANDLE_INVALID),
        ("C_SetAttributeValue", CKR.OBJECT_HANDLE_INVALID),
        ("C_GetObjectSize", CKR.OBJECT_HANDLE_INVALID),
    ],
)
def test_call_out_of_order_gets_its_code(fob: Fob, name: str, rv: int) -> None:
    memory = ffi.new("char[64]")
    length = ffi.new("CK_ULONG *", 64)
    values = arguments(name, fob, 0xDEAD, None, 1)
    kinds = [kind for _, kind in FUNCTIONS[name][1]]
    for i, kind in enumerate(kinds):
        if kind == "CK_ULONG_PTR":
            values[i] = length
        elif kind == "CK_ATTRIBUTE_PTR":
            values[i] = ffi.new("CK_ATTRIBUTE[1]")
        elif kind.endswith("_PTR"):
            values[i] = ffi.cast("void *", memory)
    assert fob.client.call(name, *values) == rv


def aes(fob: Fob, *extra: tuple[int, Any]) -> int:
    template: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.VALUE, bytes(16)), *extra]
    return fob.client.create(fob.session, template)


def test_unknown_mechanism_and_foreign_keys(fob: Fob) -> None:
    key = aes(fob)
    data = fob.client.create(fob.session, [(CKA.CLASS, CKO.DATA)])
    init = [
        (CKM.VENDOR_DEFINED + 1, key, CKR.MECHANISM_INVALID),
        (CKM.SHA256, key, CKR.MECHANISM_INVALID),
        (CKM.AES_ECB, 0, CKR.KEY_HANDLE_INVALID),
        (CKM.AES_ECB, data, CKR.KEY_HANDLE_INVALID),
        (CKM.RSA_PKCS, key, CKR.KEY_TYPE_INCONSISTENT),
        (CKM.AES_CBC, key, CKR.MECHANISM_PARAM_INVALID),
        (CKM.AES_GCM, key, CKR.MECHANISM_PARAM_INVALID),
        (CKM.AES_ECB, aes(fob, (CKA.ENCRYPT, False)), CKR.KEY_FUNCTION_NOT_PERMITTED),
        (CKM.AES_ECB, aes(fob, (CKA.ALLOWED_MECHANISMS, CKM.AES_CBC)), CKR.MECHANISM_INVALID),
    ]
    for mechanism, handle, rv in init:
        held = fob.client.mechanism(mechanism)
        assert fob.client.call("C_EncryptInit", fob.session, held, handle) == rv, name_of("CKM", mechanism)
    assert fob.client.call("C_EncryptInit", fob.session, ffi.NULL, key) == CKR.ARGUMENTS_BAD


@pytest.mark.parametrize("parameter", [b"", b"x", bytes(15), bytes(17), bytes(47), bytes(49), bytes(1000)])
@pytest.mark.parametrize("mechanism", [CKM.AES_CBC, CKM.AES_GCM, CKM.AES_CTR, CKM.AES_CCM, CKM.AES_CBC_PAD])
def test_parameters_of_wrong_length_are_refused(fob: Fob, mechanism: int, parameter: bytes) -> None:
    held = fob.client.mechanism(mechanism, parameter)
    assert fob.client.call("C_EncryptInit", fob.session, held, aes(fob)) == CKR.MECHANISM_PARAM_INVALID


def test_a_struct_that_points_nowhere_is_refused(fob: Fob) -> None:
    parameter = ffi.new("CK_GCM_PARAMS *")
    parameter.ulIvLen, parameter.ulTagBits = 12, 128
    held = fob.client.mechanism(CKM.AES_GCM, parameter)
    assert fob.client.call("C_EncryptInit", fob.session, held, aes(fob)) == CKR.MECHANISM_PARAM_INVALID
    parameter.ulIvLen = HUGE
    parameter.pIv = ffi.cast("CK_BYTE *", parameter)
    assert fob.client.call("C_EncryptInit", fob.session, held, aes(fob)) == CKR.MECHANISM_PARAM_INVALID


def test_init_while_active_is_refused_and_changes_nothing(fob: Fob) -> None:
    key = aes(fob)
    held = fob.client.mechanism(CKM.AES_ECB)
    fob.client.ok("C_EncryptInit", fob.session, held, key)
    assert fob.client.call("C_EncryptInit", fob.session, held, key) == CKR.OPERATION_ACTIVE
    assert len(fob.client.output("C_Encrypt", fob.session, bytes(16), 16)) == 16
    fob.client.ok("C_EncryptInit", fob.session, held, key)
    fob.client.ok("C_EncryptInit", fob.session, ffi.NULL, 0)  # v3.0: a NULL mechanism cancels
    assert fob.client.call("C_EncryptInit", fob.session, held, key) == CKR.OK


def test_failing_call_ends_the_operation(fob: Fob) -> None:
    """Section 5.2: only CKR_OK and CKR_BUFFER_TOO_SMALL keep it active."""
    held, length = fob.client.mechanism(CKM.AES_ECB), ffi.new("CK_ULONG *", 64)
    output = ffi.new("char[64]")
    fob.client.ok("C_EncryptInit", fob.session, held, aes(fob))
    length[0] = 8
    assert fob.client.call("C_Encrypt", fob.session, bytes(16), 16, output, length) == CKR.BUFFER_TOO_SMALL
    assert length[0] == 16
    length[0] = 64
    assert fob.client.call("C_Encrypt", fob.session, bytes(15), 15, output, length) == CKR.DATA_LEN_RANGE
    assert fob.client.call("C_Encrypt", fob.session, bytes(16), 16, output, length) == CKR.OPERATION_NOT_INITIALIZED


def test_single_part_after_a_part_is_refused(fob: Fob) -> None:
    digest, length = ffi.new("char[64]"), ffi.new("CK_ULONG *", 64)
    fob.client.ok("C_DigestInit", fob.session, fob.client.mechanism(CKM.SHA256))
    fob.client.ok("C_DigestUpdate", fob.session, b"a", 1)
    assert fob.client.call("C_Digest", fob.session, b"a", 1, digest, length) == CKR.OPERATION_ACTIVE


@pytest.mark.parametrize("slot", [0, 2, 999, HUGE])
def test_slot_of_nothing(fob: Fob, slot: int) -> None:
    memory, count, handle = ffi.new("char[1024]"), ffi.new("CK_ULONG *"), ffi.new("CK_ULONG *")
    info = ffi.cast("void *", memory)
    for call in (
        ("C_GetSlotInfo", slot, info),
        ("C_GetTokenInfo", slot, info),
        ("C_GetMechanismList", slot, ffi.NULL, count),
        ("C_GetMechanismInfo", slot, CKM.RSA_PKCS, info),
        ("C_OpenSession", slot, READ_ONLY, ffi.NULL, ffi.NULL, handle),
        ("C_CloseAllSessions", slot),
        ("C_InitToken", slot, b"1234", 4, b"x".ljust(32)),
    ):
        assert fob.client.call(*call) == CKR.SLOT_ID_INVALID, call[0]


def test_parallel_sessions_are_refused(fob: Fob) -> None:
    handle = ffi.new("CK_ULONG *")
    call = fob.client.call("C_OpenSession", fob.slot, CKF.RW_SESSION, ffi.NULL, ffi.NULL, handle)
    assert call == CKR.SESSION_PARALLEL_NOT_SUPPORTED


def test_random_calls_never_end_in_a_general_error(fob: Fob) -> None:
    """A thousand calls with arguments as programs get them wrong; the seed is fixed so that a failure repeats."""
    draw = random.Random(20231)
    memory = ffi.new("char[]", 1 << 16)
    _, private = fob.client.generate_pair(fob.session, CKM.EC_KEY_PAIR_GEN, [(CKA.EC_PARAMS, P256)], [])
    handles = [0, 1, private, private - 1, aes(fob), HUGE]
    skipped = {"C_InitToken", "C_InitPIN", "C_SetPIN", "C_Login", "C_LoginUser"}
    for _ in range(1000):
        name = draw.choice([n for n in CALLED if n not in skipped])
        mechanism = fob.client.mechanism(draw.choice((CKM.AES_ECB, CKM.ECDSA, CKM.SHA256, 0x7777, CKM.AES_GCM)))
        array, _, _kept = fob.client.template(
            [(draw.choice((0, 1, 3, 0x100, 0x11)), draw.randbytes(draw.choice((0, 1, 8))))]
        )
        values: list[Any] = []
        for argument, kind in FUNCTIONS[name][1]:
            if kind == "CK_SESSION_HANDLE":
                values.append(fob.session)
            elif kind == "CK_SLOT_ID":
                values.append(draw.choice((fob.slot, 0, HUGE)))
            elif kind == "CK_MECHANISM_PTR":
                values.append(draw.choice((mechanism, ffi.NULL)))
            elif kind == "CK_ATTRIBUTE_PTR":
                values.append(draw.choice((array, ffi.NULL)))
            elif kind == "CK_ULONG_PTR":
                values.append(draw.choice((ffi.new("CK_ULONG *", draw.choice((0, 1, 64, 4096))), ffi.NULL)))
            elif kind.endswith("_PTR") or kind == "CK_NOTIFY":
                values.append(draw.choice((ffi.cast("void *", memory), ffi.NULL)))
            elif kind == "CK_BBOOL" or "Count" in argument:
                values.append(draw.choice((0, 1)))
            elif "Len" in argument:
                values.append(draw.choice((0, 1, 16, 64, 4096)))
            else:
                values.append(draw.choice(handles))
        rv = fob.client.call(name, *values)
        assert rv not in (CKR.GENERAL_ERROR, CKR.FUNCTION_FAILED), (name, values)
