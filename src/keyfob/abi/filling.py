"""Entries whose output is a struct, an array or several values: written by hand, in the shape of entries.py."""

from __future__ import annotations

import gc

from keyfob._abi import ffi, lib
from keyfob.abi import arrays
from keyfob.abi.answers import answer, no_session
from keyfob.abi.door import export
from keyfob.abi.marshal import (
    BYTES,
    MAX_DATA,
    cast,
    give_handle,
    mechanism,
    memmove,
    padded,
    take,
    take_or_none,
    template,
    unpack,
    wanted,
    words_of,
)
from keyfob.functions import general, keys, objects, random, sessions, slots
from keyfob.spec.constants import CK, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.spec.traits import SECRETS
from keyfob.token.nested import TEMPLATES
from keyfob.token.session import SESSIONS, session_that_may_be_gone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from keyfob.token.object import Object
UNAVAILABLE = CK.UNAVAILABLE_INFORMATION
NOT_JUST_COPIED = SECRETS | TEMPLATES
LABEL_SIZE = 32
RANDOM_STEP = 1 << 16  # bytes


def variable(name: str) -> str | None:
    """Of the environment as the C library has it (environment.py)."""
    value = lib.secure_getenv(name.encode())
    return ffi.string(value).decode(errors="surrogateescape") if value else None


class Undisturbed:
    """No garbage is collected within.

    A collection runs finalisers, in a host that is itself Python also the host's. PyKCS11's take the very lock that it
    holds while it calls C_Initialize or C_Finalize, and would wait for ever.
    """

    __slots__ = ("_collecting",)

    def __enter__(self) -> None:
        self._collecting = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._collecting:
            gc.enable()


@export
def C_Initialize(pInitArgs: Any) -> int:
    try:
        arguments = None
        if pInitArgs:
            held = ffi.cast("CK_C_INITIALIZE_ARGS *", pInitArgs)
            callbacks = (held.CreateMutex, held.DestroyMutex, held.LockMutex, held.UnlockMutex)
            arguments = general.InitializeArguments(sum(map(bool, callbacks)), held.flags)
        with Undisturbed():
            general.C_Initialize(arguments)
        return CKR.OK
    except BaseException as problem:
        return answer("C_Initialize", problem)


@export
def C_Finalize(pReserved: Any) -> int:
    try:
        if pReserved:
            raise PKCS11Error(CKR.ARGUMENTS_BAD, "pReserved must be NULL")
        with Undisturbed():
            general.C_Finalize()
        return CKR.OK
    except BaseException as problem:
        return answer("C_Finalize", problem)


@export
def C_GetInfo(pInfo: Any) -> int:
    try:
        wanted(pInfo)
        version, manufacturer, flags, description, library_version = general.C_GetInfo()
        pInfo.cryptokiVersion.major, pInfo.cryptokiVersion.minor = version
        pInfo.manufacturerID = padded(manufacturer, 32)
        pInfo.flags = flags
        pInfo.libraryDescription = padded(description, 32)
        pInfo.libraryVersion.major, pInfo.libraryVersion.minor = library_version
        return CKR.OK
    except BaseException as problem:
        return answer("C_GetInfo", problem)


def give_list(values: list[int], pointer: Any, count: Any) -> int:
    """An array of CK_ULONG with its count, by the rules of output buffers."""
    if not pointer:
        count[0] = len(values)
        return CKR.OK
    if count[0] < len(values):
        count[0] = len(values)
        return CKR.BUFFER_TOO_SMALL
    for i, value in enumerate(values):
        pointer[i] = value
    count[0] = len(values)
    return CKR.OK


@export
def C_GetSlotList(tokenPresent: int, pSlotList: Any, pulCount: Any) -> int:
    try:
        wanted(pulCount)
        return give_list(slots.C_GetSlotList(refresh=not pSlotList, present=bool(tokenPresent)), pSlotList, pulCount)
    except BaseException as problem:
        return answer("C_GetSlotList", problem)


@export
def C_GetSlotInfo(slotID: int, pInfo: Any) -> int:
    try:
        wanted(pInfo)
        description, flags = slots.C_GetSlotInfo(slotID)
        pInfo.slotDescription = padded(description, 64)
        pInfo.manufacturerID = padded(general.MANUFACTURER, 32)
        pInfo.flags = flags
        _give_versions(pInfo)
        return CKR.OK
    except BaseException as problem:
        return answer("C_GetSlotInfo", problem)


def _give_versions(info: Any) -> None:
    library_version = general.C_GetInfo()[4]
    info.hardwareVersion.major, info.hardwareVersion.minor = library_version
    info.firmwareVersion.major, info.firmwareVersion.minor = library_version


@export
def C_GetTokenInfo(slotID: int, pInfo: Any) -> int:
    try:
        wanted(pInfo)
        token = slots.C_GetTokenInfo(slotID)
        pInfo.label = padded(token.label, LABEL_SIZE)
        pInfo.manufacturerID = padded(general.MANUFACTURER, 32)
        pInfo.model = padded(slots.MODEL, 16)
        pInfo.serialNumber = padded(token.serial, 16)
        pInfo.flags = token.flags
        pInfo.ulMaxSessionCount = pInfo.ulMaxRwSessionCount = token.max_sessions
        pInfo.ulSessionCount = token.sessions
        pInfo.ulRwSessionCount = token.read_write_sessions
        pInfo.ulMaxPinLen, pInfo.ulMinPinLen = token.max_pin, token.min_pin
        pInfo.ulTotalPublicMemory = pInfo.ulFreePublicMemory = UNAVAILABLE
        pInfo.ulTotalPrivateMemory = pInfo.ulFreePrivateMemory = UNAVAILABLE
        _give_versions(pInfo)
        pInfo.utcTime = padded("", 16)
        return CKR.OK
    except BaseException as problem:
        return answer("C_GetTokenInfo", problem)


@export
def C_GetMechanismList(slotID: int, pMechanismList: Any, pulCount: Any) -> int:
    try:
        wanted(pulCount)
        return give_list(slots.C_GetMechanismList(slotID), pMechanismList, pulCount)
    except BaseException as problem:
        return answer("C_GetMechanismList", problem)


@export
def C_GetMechanismInfo(slotID: int, kind: int, pInfo: Any) -> int:
    try:
        wanted(pInfo)
        pInfo.ulMinKeySize, pInfo.ulMaxKeySize, pInfo.flags = slots.C_GetMechanismInfo(slotID, kind)
        return CKR.OK
    except BaseException as problem:
        return answer("C_GetMechanismInfo", problem)


@export
def C_InitToken(slotID: int, pPin: Any, ulPinLen: int, pLabel: Any) -> int:
    try:
        wanted(pLabel)
        # Some clients end it by a NUL, and what lies behind that is not theirs (PyKCS11).
        slots.C_InitToken(slotID, take_or_none(pPin, ulPinLen), ffi.string(pLabel, LABEL_SIZE))
        return CKR.OK
    except BaseException as problem:
        return answer("C_InitToken", problem)


@export
def C_WaitForSlotEvent(flags: int, pSlot: Any, pReserved: Any) -> int:
    try:
        wanted(pSlot)
        if pReserved:
            raise PKCS11Error(CKR.ARGUMENTS_BAD, "pReserved must be NULL")
        return give_handle(slots.C_WaitForSlotEvent(flags), pSlot)
    except BaseException as problem:
        return answer("C_WaitForSlotEvent", problem)


@export
def C_OpenSession(slotID: int, flags: int, pApplication: Any, Notify: Any, phSession: Any) -> int:
    try:
        wanted(phSession)
        return give_handle(sessions.C_OpenSession(slotID, flags), phSession)
    except BaseException as problem:
        return answer("C_OpenSession", problem)


@export
def C_GetSessionInfo(hSession: int, pInfo: Any) -> int:
    session = SESSIONS.get(hSession) or session_that_may_be_gone(hSession)
    if session is None:
        return no_session("C_GetSessionInfo", hSession)
    try:
        wanted(pInfo)
        pInfo.slotID, pInfo.state, pInfo.flags = sessions.C_GetSessionInfo(session)
        pInfo.ulDeviceError = 0
        return CKR.OK
    except BaseException as problem:
        return answer("C_GetSessionInfo", problem, session)


@export
def C_GetSessionValidationFlags(hSession: int, kind: int, pFlags: Any) -> int:
    session = SESSIONS.get(hSession) or session_that_may_be_gone(hSession)
    if session is None:
        return no_session("C_GetSessionValidationFlags", hSession)
    try:
        wanted(pFlags)
        return give_handle(sessions.C_GetSessionValidationFlags(session, kind), pFlags)
    except BaseException as problem:
        return answer("C_GetSessionValidationFlags", problem, session)


@export
def C_GetObjectSize(hSession: int, hObject: int, pulSize: Any) -> int:
    session = SESSIONS.get(hSession) or session_that_may_be_gone(hSession)
    if session is None:
        return no_session("C_GetObjectSize", hSession)
    try:
        wanted(pulSize)
        return give_handle(objects.C_GetObjectSize(session, hObject), pulSize)
    except BaseException as problem:
        return answer("C_GetObjectSize", problem, session)


def _not_just_copied(found: Object, attribute: int, triple: Any) -> tuple[bytes | None, int]:
    """The value to copy; or None for an entry that is done, and its return value."""
    value, problem = objects.attribute_of(found, attribute)
    if problem:
        triple[2] = UNAVAILABLE
        return None, problem
    return (None, arrays.give(value, triple)) if attribute in TEMPLATES else (value, CKR.OK)


@export
def C_GetAttributeValue(hSession: int, hObject: int, pTemplate: Any, ulCount: int) -> int:
    """Section 5.7.5: every entry is worked on; one that has no value gets the length -1 and gives the return value."""
    session = SESSIONS.get(hSession) or session_that_may_be_gone(hSession)
    if session is None:
        return no_session("C_GetAttributeValue", hSession)
    try:
        if not ulCount:
            raise PKCS11Error(CKR.ARGUMENTS_BAD, "the template is empty")
        written = words_of(pTemplate, ulCount)
        words = unpack(written, 3 * ulCount)
        found = session.token.objects.get(hObject)
        attributes = found.attributes
        rv = CKR.OK
        for i in range(0, 3 * ulCount, 3):
            attribute = words[i]
            value = attributes.get(attribute)
            if value is None or attribute in NOT_JUST_COPIED:
                value, problem = _not_just_copied(found, attribute, written + i)
                if value is None:
                    rv = problem if problem and rv in (CKR.OK, CKR.BUFFER_TOO_SMALL) else rv
                    continue
            size = len(value)
            address, room = words[i + 1], words[i + 2]
            if address:
                if room < size:
                    written[i + 2] = UNAVAILABLE
                    rv = rv or CKR.BUFFER_TOO_SMALL
                    continue
                memmove(cast(BYTES, address), value, size)
            if room != size:
                written[i + 2] = size
        return rv
    except BaseException as error:
        return answer("C_GetAttributeValue", error, session)


@export
def C_FindObjects(hSession: int, phObject: Any, ulMaxObjectCount: int, pulObjectCount: Any) -> int:
    session = SESSIONS.get(hSession) or session_that_may_be_gone(hSession)
    if session is None:
        return no_session("C_FindObjects", hSession)
    try:
        wanted(pulObjectCount)
        if ulMaxObjectCount:
            wanted(phObject)
        hits = objects.C_FindObjects(session, ulMaxObjectCount)
        for i, handle in enumerate(hits):
            phObject[i] = handle
        pulObjectCount[0] = len(hits)
        return CKR.OK
    except BaseException as problem:
        return answer("C_FindObjects", problem, session)


@export
def C_GenerateKeyPair(
    hSession: int,
    pMechanism: Any,
    pPublicKeyTemplate: Any,
    ulPublicKeyAttributeCount: int,
    pPrivateKeyTemplate: Any,
    ulPrivateKeyAttributeCount: int,
    phPublicKey: Any,
    phPrivateKey: Any,
) -> int:
    session = SESSIONS.get(hSession) or session_that_may_be_gone(hSession)
    if session is None:
        return no_session("C_GenerateKeyPair", hSession)
    try:
        wanted(phPublicKey)
        wanted(phPrivateKey)
        phPublicKey[0], phPrivateKey[0] = keys.C_GenerateKeyPair(
            session,
            mechanism(pMechanism),
            template(pPublicKeyTemplate, ulPublicKeyAttributeCount),
            template(pPrivateKeyTemplate, ulPrivateKeyAttributeCount),
        )
        return CKR.OK
    except BaseException as problem:
        return answer("C_GenerateKeyPair", problem, session)


@export
def C_SetOperationState(
    hSession: int, pOperationState: Any, ulOperationStateLen: int, hEncryptionKey: int, hAuthenticationKey: int
) -> int:
    session = SESSIONS.get(hSession) or session_that_may_be_gone(hSession)
    if session is None:
        return no_session("C_SetOperationState", hSession)
    try:
        state = take(pOperationState, ulOperationStateLen)
        sessions.C_SetOperationState(session, state, hEncryptionKey, hAuthenticationKey)
        return CKR.OK
    except BaseException as problem:
        return answer("C_SetOperationState", problem, session)


@export
def C_GenerateRandom(hSession: int, RandomData: Any, ulRandomLen: int) -> int:
    session = SESSIONS.get(hSession) or session_that_may_be_gone(hSession)
    if session is None:
        return no_session("C_GenerateRandom", hSession)
    try:
        if ulRandomLen:
            wanted(RandomData)
        if ulRandomLen > MAX_DATA:
            raise PKCS11Error(CKR.ARGUMENTS_BAD, f"{ulRandomLen} random bytes are more than a call can give")
        for done in range(0, ulRandomLen or 1, RANDOM_STEP):
            part = min(RANDOM_STEP, ulRandomLen - done)
            memmove(RandomData + done, random.C_GenerateRandom(session, part), part)
        return CKR.OK
    except BaseException as problem:
        return answer("C_GenerateRandom", problem, session)
