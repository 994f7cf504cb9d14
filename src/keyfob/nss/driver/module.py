"""`Module`: one typed method for each C_* function that NSS calls; each gives a Reply and is recorded.

    reply = module.C_OpenSession(slot, READ_ONLY)     # never raises for a CK_RV
    session = reply.ok()                              # CallFailed unless CKR_OK
    module.C_Login(session, CKU.USER, pin).must_be(CKR.OK, CKR.USER_ALREADY_LOGGED_IN)

Sizes: where a function fills a buffer, `room` is the room that it gets; None passes NULL, and the value is the size.
What has no method goes through `module.call(name, ...)` with the arguments of driver/arguments.py.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from keyfob.nss.driver import structs, values
from keyfob.nss.driver.arguments import (
    Argument,
    Bare,
    Data,
    InMechanism,
    InTemplate,
    OutBytes,
    OutFixed,
    OutHandles,
    OutNumber,
    OutNumbers,
    OutStruct,
    OutTemplate,
)
from keyfob.nss.driver.footprints import Footprints
from keyfob.nss.driver.library import Library
from keyfob.nss.driver.mechanism import Mechanism
from keyfob.nss.driver.mutexes import MUTEXES
from keyfob.nss.driver.record import Recorder
from keyfob.nss.driver.reply import Reply
from keyfob.nss.driver.values import Template, encoded
from keyfob.spec.constants import CKA, CKF, CKM
from keyfob.spec.errors import name_of

READ_ONLY = CKF.SERIAL_SESSION
READ_WRITE = CKF.SERIAL_SESSION | CKF.RW_SESSION
NSS_FLAGS = CKF.LIBRARY_CANT_CREATE_OS_THREADS | CKF.OS_LOCKING_OK
"""The flags that NSS gives to C_Initialize: 3."""

Read = list[tuple[int, int | None, bytes | None]]
"""What C_GetAttributeValue gave: (CKA_*, length or None for -1, value or None where there was no room)."""


class Module(Library):
    """A module under test. One of its kind per process."""

    def __init__(self, path: str, recorder: Recorder) -> None:
        super().__init__(path, recorder)
        self._classes: dict[int, int] = {}
        self._footprints = Footprints(self._tell)
        self._kept: list[Any] = []

    def _tell(self, template: list[tuple[int, bytes]]) -> None:
        self.recorder.send({"t": "made", "template": [[attribute, value.hex()] for attribute, value in template]})

    # General (section 5.4)

    def C_Initialize(self, *, parameters: str | None = None, callbacks: bool = True) -> Reply[None]:
        """With NSS's own struct: flags 3 and four callbacks, or neither; module parameters where NSS puts them."""
        arguments = structs.NssInitializeArgs()
        text = "flags=0, no callbacks"
        if callbacks:
            arguments.flags = NSS_FLAGS
            for name in ("create", "destroy", "lock", "unlock"):
                pointer = ctypes.cast(getattr(MUTEXES, name), ctypes.c_void_p)
                setattr(arguments, f"{name.capitalize()}Mutex", pointer)
            text = f"flags={values.flags_text(NSS_FLAGS, values.INITIALIZE_FLAGS)}, 4 mutex callbacks"
        if parameters is not None:
            held = ctypes.create_string_buffer(parameters.encode())
            self._kept.append(held)
            arguments.LibraryParameters = ctypes.addressof(held)
            text += ", LibraryParameters given"
        return self.call("C_Initialize", _Struct(arguments, f"{{{text}}}"))

    def C_Initialize_NULL(self) -> Reply[None]:
        return self.call("C_Initialize", None)

    def C_Finalize(self) -> Reply[None]:
        return self.call("C_Finalize", None)

    def C_GetInfo(self) -> Reply[Any]:
        return self.call("C_GetInfo", OutStruct(structs.Info, {}))

    # Slots and tokens (section 5.5)

    def C_GetSlotList(self, token_present: bool, room: int | None) -> Reply[Any]:
        """The IDs, or their count when there was no room."""
        return self.call("C_GetSlotList", int(token_present), OutNumbers(room))

    def C_GetSlotInfo(self, slot: int) -> Reply[Any]:
        return self.call("C_GetSlotInfo", slot, OutStruct(structs.SlotInfo, {"flags": values.SLOT_FLAGS}))

    def C_GetTokenInfo(self, slot: int) -> Reply[Any]:
        return self.call("C_GetTokenInfo", slot, OutStruct(structs.TokenInfo, {"flags": values.TOKEN_FLAGS}))

    def C_GetMechanismList(self, slot: int, room: int | None) -> Reply[Any]:
        return self.call("C_GetMechanismList", slot, OutNumbers(room, "CKM"))

    def C_GetMechanismInfo(self, slot: int, mechanism: int) -> Reply[Any]:
        shown = Argument(mechanism, values.mechanism_name(mechanism))
        out = OutStruct(structs.MechanismInfo, {"flags": values.MECHANISM_FLAGS})
        return self.call("C_GetMechanismInfo", slot, shown, out)

    def C_InitToken(self, slot: int, so_pin: bytes | None, label: bytes) -> Reply[None]:
        return self.call("C_InitToken", slot, Data(so_pin, secret=True), Bare(label.ljust(32)))

    def C_InitPIN(self, session: int, pin: bytes | None) -> Reply[None]:
        return self.call("C_InitPIN", session, Data(pin, secret=True))

    def C_SetPIN(self, session: int, old: bytes | None, new: bytes | None) -> Reply[None]:
        return self.call("C_SetPIN", session, Data(old, secret=True), Data(new, secret=True))

    def C_WaitForSlotEvent(self, flags: int) -> Reply[int]:
        shown = Argument(flags, "CKF_DONT_BLOCK" if flags == CKF.DONT_BLOCK else "")
        return self.call("C_WaitForSlotEvent", shown, OutNumber(), None, blocks=not flags & CKF.DONT_BLOCK)

    # Sessions (section 5.6)

    def C_OpenSession(self, slot: int, flags: int = READ_ONLY) -> Reply[int]:
        shown = Argument(flags, values.flags_text(flags, values.SESSION_FLAGS))
        return self.call("C_OpenSession", slot, shown, None, None, OutNumber())

    def C_CloseSession(self, session: int) -> Reply[None]:
        return self.call("C_CloseSession", session)

    def C_CloseAllSessions(self, slot: int) -> Reply[None]:
        return self.call("C_CloseAllSessions", slot)

    def C_GetSessionInfo(self, session: int) -> Reply[Any]:
        named: dict[str, dict[int, str] | str] = {"flags": values.SESSION_FLAGS, "state": "CKS"}
        return self.call("C_GetSessionInfo", session, OutStruct(structs.SessionInfo, named))

    def C_GetOperationState(self, session: int, room: int | None) -> Reply[Any]:
        return self.call("C_GetOperationState", session, OutBytes(room, secret=True))

    def C_SetOperationState(self, session: int, state: bytes, encryption_key: int = 0, mac_key: int = 0) -> Reply[None]:
        return self.call("C_SetOperationState", session, Data(state, secret=True), encryption_key, mac_key)

    def C_Login(self, session: int, user: int, pin: bytes | None, *, on_device: bool = False) -> Reply[None]:
        """`pin` None is NULL and 0. `on_device`: a person types the PIN on the token, which takes its time."""
        shown = Argument(user, name_of("CKU", user))
        return self.call("C_Login", session, shown, Data(pin, secret=True), blocks=on_device)

    def C_Logout(self, session: int) -> Reply[None]:
        return self.call("C_Logout", session)

    def C_GetSessionValidationFlags(self, session: int, kind: int) -> Reply[int]:
        return self.call("C_GetSessionValidationFlags", session, kind, OutNumber())

    # Objects (section 5.7)

    def C_CreateObject(self, session: int, template: Template) -> Reply[int]:
        self._footprints.created(template)
        return self._made(self.call("C_CreateObject", session, InTemplate(template), OutNumber()), template)

    def C_CopyObject(self, session: int, handle: int, template: Template | None) -> Reply[int]:
        """`template` None is NULL and 0, as in SECKEY_CopyPrivateKey (rule P2)."""
        self._footprints.created(template)
        reply = self.call("C_CopyObject", session, handle, InTemplate(template), OutNumber())
        if reply.is_ok and handle in self._classes:
            self._classes[reply.value] = self._classes[handle]
        return reply

    def C_DestroyObject(self, session: int, handle: int) -> Reply[None]:
        return self.call("C_DestroyObject", session, handle)

    def C_GetAttributeValue(self, session: int, handle: int, wanted: Sequence[tuple[int, int | None]]) -> Reply[Read]:
        """`wanted`: (CKA_*, room); room None passes pValue NULL. One raw call: Nss.read does NSS's two passes."""
        out = OutTemplate(wanted, self._classes.get(handle))
        reply: Reply[Read] = self.call("C_GetAttributeValue", session, handle, out)
        pairs = [(attribute, value) for attribute, _length, value in reply.value]
        self._footprints.named(handle, pairs)
        for attribute, value in pairs:
            if attribute == CKA.CLASS and value:
                self._classes[handle] = values.number(value)
        return reply

    def C_SetAttributeValue(self, session: int, handle: int, template: Template) -> Reply[None]:
        self._footprints.named(handle, [(attribute, encoded(value)) for attribute, value in template])
        return self.call("C_SetAttributeValue", session, handle, InTemplate(template))

    def C_FindObjectsInit(self, session: int, template: Template | None) -> Reply[None]:
        self._sought = values.class_of(template or ())
        return self.call("C_FindObjectsInit", session, InTemplate(template))

    def C_FindObjects(self, session: int, at_once: int) -> Reply[Any]:
        """The handles; a count above `at_once`, which no module may give, comes as a plain number."""
        reply = self.call("C_FindObjects", session, OutHandles(at_once))
        if isinstance(reply.value, list) and self._sought is not None:
            self._classes.update(dict.fromkeys(reply.value, self._sought))
        return reply

    def C_FindObjectsFinal(self, session: int) -> Reply[None]:
        return self.call("C_FindObjectsFinal", session)

    _sought: int | None = None

    def _made(self, reply: Reply[int], template: Template) -> Reply[int]:
        object_class = values.class_of(template)
        if reply.is_ok and object_class is not None:
            self._classes[reply.value] = object_class
        return reply

    # Encryption (section 5.8, 5.10)

    def C_EncryptInit(self, session: int, mechanism: Mechanism, key: int) -> Reply[None]:
        return self.call("C_EncryptInit", session, InMechanism(mechanism), key)

    def C_Encrypt(self, session: int, data: bytes, room: int | None) -> Reply[Any]:
        return self.call("C_Encrypt", session, Data(data, secret=True), OutBytes(room))

    def C_EncryptUpdate(self, session: int, data: bytes, room: int | None) -> Reply[Any]:
        return self.call("C_EncryptUpdate", session, Data(data, secret=True), OutBytes(room))

    def C_EncryptFinal(self, session: int, room: int | None) -> Reply[Any]:
        return self.call("C_EncryptFinal", session, OutBytes(room))

    def C_DecryptInit(self, session: int, mechanism: Mechanism, key: int) -> Reply[None]:
        return self.call("C_DecryptInit", session, InMechanism(mechanism), key)

    def C_Decrypt(self, session: int, data: bytes, room: int | None) -> Reply[Any]:
        return self.call("C_Decrypt", session, Data(data), OutBytes(room, secret=True))

    def C_DecryptUpdate(self, session: int, data: bytes, room: int | None) -> Reply[Any]:
        return self.call("C_DecryptUpdate", session, Data(data), OutBytes(room, secret=True))

    def C_DecryptFinal(self, session: int, room: int | None) -> Reply[Any]:
        return self.call("C_DecryptFinal", session, OutBytes(room, secret=True))

    # Digests (section 5.12)

    def C_DigestInit(self, session: int, mechanism: Mechanism) -> Reply[None]:
        return self.call("C_DigestInit", session, InMechanism(mechanism))

    def C_Digest(self, session: int, data: bytes, room: int | None) -> Reply[Any]:
        return self.call("C_Digest", session, Data(data), OutBytes(room))

    def C_DigestUpdate(self, session: int, data: bytes) -> Reply[None]:
        return self.call("C_DigestUpdate", session, Data(data))

    def C_DigestFinal(self, session: int, room: int | None) -> Reply[Any]:
        return self.call("C_DigestFinal", session, OutBytes(room))

    # Signatures (sections 5.13, 5.15)

    def C_SignInit(self, session: int, mechanism: Mechanism, key: int) -> Reply[None]:
        return self.call("C_SignInit", session, InMechanism(mechanism), key)

    def C_Sign(self, session: int, data: bytes, room: int | None) -> Reply[Any]:
        return self.call("C_Sign", session, Data(data), OutBytes(room))

    def C_SignUpdate(self, session: int, data: bytes) -> Reply[None]:
        return self.call("C_SignUpdate", session, Data(data))

    def C_SignFinal(self, session: int, room: int | None) -> Reply[Any]:
        return self.call("C_SignFinal", session, OutBytes(room))

    def C_VerifyInit(self, session: int, mechanism: Mechanism, key: int) -> Reply[None]:
        return self.call("C_VerifyInit", session, InMechanism(mechanism), key)

    def C_Verify(self, session: int, data: bytes, signature: bytes) -> Reply[None]:
        return self.call("C_Verify", session, Data(data), Data(signature))

    def verify_recover(self, session: int, mechanism: Mechanism, key: int, signature: bytes, room: int) -> Reply[Any]:
        """C_VerifyRecoverInit and C_VerifyRecover; the reply is the first that was not CKR_OK."""
        begun = self.call("C_VerifyRecoverInit", session, InMechanism(mechanism), key)
        return self.call("C_VerifyRecover", session, Data(signature), OutBytes(room)) if begun.is_ok else begun

    def verify_signature(
        self, session: int, mechanism: Mechanism, key: int, data: bytes, signature: bytes
    ) -> Reply[Any]:
        """C_VerifySignatureInit and C_VerifySignature, of lists from 3.2 on."""
        begun = self.call("C_VerifySignatureInit", session, InMechanism(mechanism), key, Data(signature))
        return self.call("C_VerifySignature", session, Data(data)) if begun.is_ok else begun

    # Keys (section 5.18)

    def C_GenerateKey(self, session: int, mechanism: Mechanism, template: Template) -> Reply[int]:
        self._footprints.created(template)
        arguments = (session, InMechanism(mechanism), InTemplate(template), OutNumber())
        return self._made(self.call("C_GenerateKey", *arguments), template)

    def C_GenerateKeyPair(
        self, session: int, mechanism: Mechanism, public: Template, private: Template
    ) -> Reply[tuple[int, int]]:
        """The handles of the public and the private key."""
        self._footprints.created(public)
        self._footprints.created(private)
        templates = (InTemplate(public), InTemplate(private))
        reply = self.call("C_GenerateKeyPair", session, InMechanism(mechanism), *templates, OutNumber(), OutNumber())
        if reply.is_ok and (CKA.TOKEN, True) in (*public, *private):
            self._footprints.generated(*reply.value)
        return reply

    def C_WrapKey(self, session: int, mechanism: Mechanism, wrapping: int, key: int, room: int | None) -> Reply[Any]:
        return self.call("C_WrapKey", session, InMechanism(mechanism), wrapping, key, OutBytes(room))

    def C_UnwrapKey(
        self, session: int, mechanism: Mechanism, unwrapping: int, wrapped: bytes, template: Template
    ) -> Reply[int]:
        self._footprints.created(template)
        arguments = (session, InMechanism(mechanism), unwrapping, Data(wrapped), InTemplate(template), OutNumber())
        return self._made(self.call("C_UnwrapKey", *arguments), template)

    def C_DeriveKey(self, session: int, mechanism: Mechanism, base: int, template: Template) -> Reply[int]:
        arguments = (session, InMechanism(mechanism), base, InTemplate(template), OutNumber())
        return self._made(self.call("C_DeriveKey", *arguments), template)

    # Random numbers (section 5.19)

    def C_SeedRandom(self, session: int, seed: bytes) -> Reply[None]:
        return self.call("C_SeedRandom", session, Data(seed, secret=True))

    def C_GenerateRandom(self, session: int, length: int) -> Reply[bytes]:
        return self.call("C_GenerateRandom", session, OutFixed(length))


class _Struct(Argument):
    """A struct in, by reference."""

    def __init__(self, struct: ctypes.Structure, text: str) -> None:
        super().__init__(None, text)
        self._struct = struct

    def c_values(self) -> tuple[Any, ...]:
        return (ctypes.byref(self._struct),)


NO_MECHANISM = CKM.VENDOR_DEFINED | 0x4B4659
"""A mechanism that no module has: what CKR_MECHANISM_INVALID is asked with."""
