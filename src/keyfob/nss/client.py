"""NSS as a module sees it: the call sequences of loading, tokens, logins and searches, in NSS's order.

Recorded from NSS 3.87 and 3.124, which agree in all that is here. A call that NSS cannot do without raises CallFailed;
where NSS goes on without it, this does, too.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import Any

from keyfob.nss.driver import READ_ONLY, READ_WRITE, CallFailed, Module, Reply, Template
from keyfob.nss.driver.structs import text
from keyfob.spec.constants import CKA, CKF, CKO, CKR, CKS, CKU, CKV

LARGEST = 1 << 32
"""NSS takes a length from here on for absent (dev/ckhelper.c)."""

# A search that answers one of these found nothing; any other error makes it fail (dev/devtoken.c find_objects).
NOTHING_FOUND = (
    *(CKR.ATTRIBUTE_TYPE_INVALID, CKR.ATTRIBUTE_VALUE_INVALID, CKR.DATA_INVALID, CKR.DATA_LEN_RANGE),
    *(CKR.FUNCTION_NOT_SUPPORTED, CKR.TEMPLATE_INCOMPLETE, CKR.TEMPLATE_INCONSISTENT),
)
DEFUNCT = (CKR.DEVICE_ERROR, CKR.SESSION_CLOSED, CKR.SESSION_HANDLE_INVALID)
"""What says that a session is gone with its token (slot:1451)."""
LOGGED_IN = (CKS.RO_USER_FUNCTIONS, CKS.RW_USER_FUNCTIONS, CKS.RW_SO_FUNCTIONS)
PROFILE_PUBLIC_CERTIFICATES = 4
"""CKP_PUBLIC_CERTIFICATES_TOKEN: makes a token "friendly"."""


class Unusable(Exception):  # noqa: N818 - an answer, not an error
    """The scenario cannot go on: what it has not tested stays "not tested", for this reason."""


@dataclass(slots=True)
class NssSlot:
    """A slot as NSS keeps it. `session` is the default session, 0 for none; `disabled` says why NSS never uses it."""

    id: int
    info: Any = None
    token: Any = None
    mechanisms: list[int] = field(default_factory=list)
    session: int = 0
    disabled: str = ""
    friendly: bool = False

    @property
    def flags(self) -> int:
        """The token's flags; 0 without a token."""
        return int(self.token.flags) if self.token is not None else 0

    @property
    def label(self) -> str:
        """The token's name: only trailing blanks are taken off (slot:1395)."""
        return "" if self.token is None else text(self.token.label).rstrip(b" ").decode(errors="replace")

    @property
    def present(self) -> bool:
        return self.info is not None and bool(self.info.flags & CKF.TOKEN_PRESENT)

    @property
    def removable(self) -> bool:
        return self.info is not None and bool(self.info.flags & CKF.REMOVABLE_DEVICE)

    @property
    def needs_login(self) -> bool:
        return bool(self.flags & CKF.LOGIN_REQUIRED)

    @property
    def pin_initialized(self) -> bool:
        return bool(self.flags & CKF.USER_PIN_INITIALIZED)

    @property
    def read_only(self) -> bool:
        return bool(self.flags & CKF.WRITE_PROTECTED)

    @property
    def protected_path(self) -> bool:
        return bool(self.flags & CKF.PROTECTED_AUTHENTICATION_PATH)

    @property
    def single_session(self) -> bool:
        """NSS keeps one read-write session and no other (slot:1405)."""
        return not self.read_only and self.token is not None and self.token.ulMaxSessionCount == 1


class Nss:
    """A module that NSS has loaded."""

    def __init__(self, module: Module, parameters: str | None = None) -> None:
        self.module = module
        self.parameters = parameters
        self.info: Any = None
        self.slots: list[NssSlot] = []
        self.single_threaded = False
        self.loaded = False

    # Loading (pk11wrap/pk11load.c secmod_LoadPKCS11Module)

    def load(self) -> None:
        """The function list, C_Initialize with NSS's one retry, C_GetInfo, the slot list."""
        self.module.resolve().ok()
        self.initialize()
        try:
            self.info = self.module.C_GetInfo().ok()
            self.slots = [NssSlot(slot) for slot in self.slot_ids()]
        except CallFailed:
            self.module.C_Finalize()  # load:648
            self.loaded = False
            raise

    def initialize(self) -> Reply[None]:
        """C_Initialize: on any error once more without locks, and then one thread at a time (load:276-309)."""
        reply = self.module.C_Initialize(parameters=self.parameters)
        if not reply.is_ok:
            self.single_threaded = True
            if self.parameters is None:
                reply = self.module.C_Initialize_NULL()
            else:
                reply = self.module.C_Initialize(parameters=self.parameters, callbacks=False)
        reply.ok()
        self.loaded = True
        return reply

    def slot_ids(self) -> list[int]:
        """Both calls, the second also for no slots at all; when the first fails NSS goes on without slots."""
        counted = self.module.C_GetSlotList(False, None)
        if not counted.is_ok:
            return []
        listed = self.module.C_GetSlotList(False, counted.value).ok()
        return list(listed) if isinstance(listed, list) else []

    def start(self) -> None:
        """START: everything that any of NSS's tools does with a module before its work."""
        self.load()
        for slot in self.slots:
            self.init_slot(slot)

    def init_slot(self, slot: NssSlot) -> None:
        """PK11_InitSlot (slot:1623)."""
        reply = self.module.C_GetSlotInfo(slot.id)
        if not reply.is_ok:
            slot.disabled = f"C_GetSlotInfo answered {reply.name}"
            return
        slot.info = reply.value
        if slot.present:
            self.init_token(slot)
        elif not slot.removable:
            slot.disabled = "there is no token in a slot that is not removable"

    def init_token(self, slot: NssSlot) -> None:
        """PK11_InitToken (slot:1340): on load, re-insertion, and after every change of a PIN."""
        module = self.module
        try:
            slot.token = module.C_GetTokenInfo(slot.id).ok()
            count = module.C_GetMechanismList(slot.id, None).ok()
            listed = module.C_GetMechanismList(slot.id, count)
            # A second call that fails leaves a token without mechanisms (PK11_ReadMechanismList).
            slot.mechanisms = list(listed.value) if listed.is_ok and isinstance(listed.value, list) else []
            if slot.session:
                # The session of before still stands (slot:1451).
                state = module.C_GetSessionInfo(slot.session)
                if state.rv == CKR.DEVICE_ERROR:
                    module.C_CloseSession(slot.session)
                if state.rv in DEFUNCT:
                    slot.session = 0
            if not slot.session:
                flags = READ_WRITE if slot.single_session else READ_ONLY
                slot.session = module.C_OpenSession(slot.id, flags).ok()
        except CallFailed as failed:
            slot.disabled = f"{failed.reply.call.function} answered {failed.reply.name}"
            return
        self._read_profiles(slot)
        if slot.flags & CKF.RNG:
            module.C_GenerateRandom(slot.session, 32)
            module.C_SeedRandom(slot.session, os.urandom(32))
        self.search(slot.session, [(CKA.CLASS, CKO.NSS_BUILTIN_ROOT_LIST)])

    def _read_profiles(self, slot: NssSlot) -> None:
        """pk11_ReadProfileList and pk11_GetValidationFlags (slot:1237,1306): whatever they answer, NSS goes on."""
        with contextlib.suppress(CallFailed):
            for handle in self.find_objects(slot, [(CKA.TOKEN, True), (CKA.CLASS, CKO.PROFILE)]):
                if self.read_number(slot.session, handle, CKA.PROFILE_ID) == PROFILE_PUBLIC_CERTIFICATES:
                    slot.friendly = True
        if self.info is not None and (self.info.cryptokiVersion.major, self.info.cryptokiVersion.minor) >= (3, 2):
            with contextlib.suppress(CallFailed):
                authority = (CKA.VALIDATION_AUTHORITY_TYPE, CKV.AUTHORITY_TYPE_NIST_CMVP)
                self.find_objects(slot, [(CKA.CLASS, CKO.VALIDATION), authority])

    def end(self) -> None:
        """END: every slot's sessions, also those of disabled slots, then C_Finalize (slot:474, load:737)."""
        for slot in self.slots:
            self.module.C_CloseAllSessions(slot.id)
        self.module.C_Finalize()
        self.loaded = False

    # Sessions and logins

    def open_ro(self, slot: NssSlot) -> int:
        """pk11_GetNewSession: a session of one's own, or the default one when there is none to be had (slot:359)."""
        opened = self.module.C_OpenSession(slot.id, READ_ONLY)
        return self._another(slot, opened.value) if opened.is_ok else slot.session

    def open_rw(self, slot: NssSlot) -> int:
        """PK11_GetRWSession (slot:770): a failure ends what was to be done, which is no other rule's matter."""
        if slot.single_session:
            return slot.session
        opened = self.module.C_OpenSession(slot.id, READ_WRITE)
        if not opened.is_ok:
            raise Unusable(f"C_OpenSession answered {opened.name} to a read-write session: see SE1 and P26")
        return self._another(slot, opened.value)

    def _another(self, slot: NssSlot, session: int) -> int:
        if session == slot.session:
            raise Unusable("C_OpenSession gave the handle of NSS's first session once more: see SE4")
        return session

    def close(self, slot: NssSlot, session: int) -> None:
        """Close a session of open_ro or open_rw; the default session stays."""
        if session != slot.session:
            self.module.C_CloseSession(session)

    def is_logged_in(self, slot: NssSlot) -> bool:
        """PK11_IsLoggedIn: C_GetSessionInfo on the default session (auth:736)."""
        reply = self.module.C_GetSessionInfo(slot.session)
        return reply.is_ok and reply.value.state in LOGGED_IN

    def login(self, slot: NssSlot, pin: bytes | None, *, on_device: bool = False) -> Reply[None]:
        """PK11_Authenticate: C_GetSessionInfo, then C_Login on the default session. The reply is not judged."""
        self.module.C_GetSessionInfo(slot.session)
        return self.module.C_Login(slot.session, CKU.USER, pin, on_device=on_device)

    # Searches and attributes

    def search(
        self,
        session: int,
        template: Template,
        at_once: int = 1,
        *,
        leave_failed: bool = False,
        strict: bool = False,
    ) -> tuple[Reply[Any], list[int]]:
        """pk11_FindObjectByTemplate: Init, one C_FindObjects, Final; the reply is the first that was not CKR_OK.

        `leave_failed`: no C_FindObjectsFinal after a C_FindObjects that failed, as find_objects in dev/devtoken.c.
        `strict`: what C_FindObjectsFinal answers counts as well. dev/devtoken.c looks at it, pk11wrap does not; it is
        rule P23's matter, and one scenario's.
        """
        begun: Reply[Any] = self.module.C_FindObjectsInit(session, template)
        if not begun.is_ok:
            return begun, []
        found = self.module.C_FindObjects(session, at_once)
        if not found.is_ok and leave_failed:
            return found, []
        ended: Reply[Any] = self.module.C_FindObjectsFinal(session)
        handles = found.value if isinstance(found.value, list) else []
        return (ended if strict and found.is_ok else found), handles

    def find(self, session: int, template: Template, at_once: int = 1) -> list[int]:
        """The first `at_once` objects, where NSS takes an error for none found; CallFailed for errors that it minds."""
        reply, handles = self.search(session, template, at_once)
        if not reply.is_ok and reply.rv not in NOTHING_FOUND:
            raise CallFailed(reply)
        return handles

    def find_objects(self, slot: NssSlot, template: Template) -> list[int]:
        """pk11_FindObjectsByTemplate (obj:2036): find_all in a session of its own."""
        opened = self.module.C_OpenSession(slot.id, READ_ONLY)
        session = opened.value if opened.is_ok else slot.session
        try:
            return self.find_all(session, template)
        finally:
            self.close(slot, session)

    def find_all(self, session: int, template: Template, at_once: int = 10) -> list[int]:
        """Every object, `at_once` a call, until a call gives fewer."""
        begun = self.module.C_FindObjectsInit(session, template)
        if begun.rv in NOTHING_FOUND:
            return []
        begun.ok()
        handles: list[int] = []
        while True:
            found = self.module.C_FindObjects(session, at_once).ok()
            if not isinstance(found, list):
                break
            handles += found
            if len(found) < at_once:
                break
        self.module.C_FindObjectsFinal(session)
        return handles

    def read(self, session: int, handle: int, *attributes: int) -> dict[int, bytes | None]:
        """nssCKObject_GetAttributes: the lengths, then the values; None for what has none (ckh:56)."""
        sized = self.module.C_GetAttributeValue(session, handle, [(attribute, None) for attribute in attributes])
        sized.must_be(CKR.OK, CKR.ATTRIBUTE_TYPE_INVALID, CKR.ATTRIBUTE_SENSITIVE, CKR.BUFFER_TOO_SMALL)
        wanted = [
            (attribute, None if length is None or not 0 < length < LARGEST else length)
            for attribute, length, _value in sized.value
        ]
        reply = self.module.C_GetAttributeValue(session, handle, wanted)
        reply.must_be(CKR.OK, CKR.ATTRIBUTE_TYPE_INVALID, CKR.ATTRIBUTE_SENSITIVE)
        return {attribute: value for attribute, _length, value in reply.value}

    def read_one(self, session: int, handle: int, attribute: int) -> bytes | None:
        """PK11_ReadAttribute: strict, both calls must answer CKR_OK; None otherwise (obj:202)."""
        sized = self.module.C_GetAttributeValue(session, handle, [(attribute, None)])
        length = sized.value[0][1]
        if not sized.is_ok or not length or length >= LARGEST:
            return None
        reply = self.module.C_GetAttributeValue(session, handle, [(attribute, length)])
        return reply.value[0][2] if reply.is_ok else None

    def read_number(self, session: int, handle: int, attribute: int) -> int | None:
        """PK11_ReadULongAttribute: 8 bytes at once, without asking for the length (obj:99)."""
        return self._read_direct(session, handle, attribute, 8)

    def read_flag(self, session: int, handle: int, attribute: int) -> bool:
        """pk11_HasAttributeSet: one byte; anything but CKR_OK is FALSE (obj:142)."""
        return bool(self._read_direct(session, handle, attribute, 1))

    def _read_direct(self, session: int, handle: int, attribute: int, room: int) -> int | None:
        reply = self.module.C_GetAttributeValue(session, handle, [(attribute, room)])
        value = reply.value[0][2]
        return int.from_bytes(value, "little") if reply.is_ok and value is not None and len(value) == room else None
