"""What NSS does with a module, call by call: the vocabulary in which the tests of the rules are written.

`start(client)` is the start of every tool and of Firefox: C_GetInterface, C_Initialize, C_GetInfo, the slots, and for
each slot the set-up of its token (NSS 3.87 and 3.124 do the same). It gives an `Nss` with its slots; a `Slot` has NSS's
default session and does with it what NSS does: `login`, `find`, `read`, `rw` and `ro` for a session of one operation,
`sign`, `generate_rsa`, `init_pin`, `change_pin`. Names of NSS's functions stand in the docstrings. `end()` is its end.

Everything goes through `tests.client.Client`, so a call that NSS does not tolerate to fail raises RvError here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha1
from typing import Any

from keyfob.spec.constants import CKA, CKF, CKM, CKO, CKP, CKR, CKS, CKU
from tests.client import P256, READ_ONLY, READ_WRITE, Client, RvError, Template, ffi

# NSS's vendor classes and interfaces, as NSS asks for them.
BUILTIN_ROOT_LIST = CKO.NSS_BUILTIN_ROOT_LIST
STANDARD_INTERFACE, FIPS_INTERFACE = b"PKCS 11", b"Vendor NSS FIPS Interface"
INITIALIZE_FLAGS = CKF.LIBRARY_CANT_CREATE_OS_THREADS | CKF.OS_LOCKING_OK
LOGGED_IN = (CKS.RO_USER_FUNCTIONS, CKS.RW_USER_FUNCTIONS, CKS.RW_SO_FUNCTIONS)
# What a search may answer and count as "none" (dev/devtoken.c find_objects).
NOTHING_FOUND = (
    CKR.ATTRIBUTE_TYPE_INVALID,
    CKR.ATTRIBUTE_VALUE_INVALID,
    CKR.DATA_INVALID,
    CKR.DATA_LEN_RANGE,
    CKR.FUNCTION_NOT_SUPPORTED,
    CKR.TEMPLATE_INCOMPLETE,
    CKR.TEMPLATE_INCONSISTENT,
)


def get_interface(client: Client, name: bytes | None, version: tuple[int, int] | None, flags: int) -> tuple[int, Any]:
    """(CK_RV, CK_INTERFACE *) of C_GetInterface."""
    found = ffi.new("CK_INTERFACE **")
    text = ffi.NULL if name is None else ffi.new("CK_BYTE[]", name + b"\0")
    wanted = ffi.NULL if version is None else ffi.new("CK_VERSION *", version)
    return client.library.C_GetInterface(text, wanted, found, flags), found[0]


def _no_mutex(*_arguments: object) -> int:
    return CKR.OK


_CREATE = ffi.callback("unsigned long(void **)", _no_mutex)
_USE = ffi.callback("unsigned long(void *)", _no_mutex)


def initialize_arguments(parameters: bytes | None = None, behind: int = 0) -> Any:
    """NSS's CK_C_INITIALIZE_ARGS: callbacks, flags 3, LibraryParameters, and only then pReserved (`behind`)."""
    words = ffi.new("void *[7]")
    words[0] = _CREATE
    words[1] = words[2] = words[3] = _USE
    words[4] = ffi.cast("void *", INITIALIZE_FLAGS)
    text = None if parameters is None else ffi.new("char[]", parameters)
    words[5] = ffi.NULL if text is None else text
    words[6] = ffi.cast("void *", behind)
    return ffi.gc(ffi.cast("CK_C_INITIALIZE_ARGS *", words), lambda _: (words, text))


def start(client: Client, parameters: bytes | None = None) -> Nss:
    """Load the module as NSS does (pk11wrap/pk11load.c); the module must not be initialised."""
    for flags in (CKF.INTERFACE_FORK_SAFE, 0):
        rv, found = get_interface(client, STANDARD_INTERFACE, None, flags)
        if rv == CKR.OK:
            break
    else:
        raise RvError("C_GetInterface", rv)
    client.functions = ffi.cast("CK_FUNCTION_LIST_3_2 *", found.pFunctionList)
    get_interface(client, FIPS_INTERFACE, None, 0)
    client.ok("C_Initialize", initialize_arguments(parameters))
    info = ffi.new("CK_INFO *")
    client.ok("C_GetInfo", info)
    assert info.cryptokiVersion.major >= 2, "NSS refuses modules of PKCS #11 v1"
    return Nss(client, client.slots())


class Nss:
    """A started module. `slots`: by ID, each set up; `disabled`: why the others are disabled."""

    def __init__(self, client: Client, slots: Sequence[int]) -> None:
        self.client = client
        self.slots: dict[int, Slot] = {}
        self.disabled: dict[int, str] = {}
        self._listed = list(slots)
        for slot_id in self._listed:
            self._set_up(slot_id)

    def _set_up(self, slot_id: int) -> None:
        slot = Slot(self.client, slot_id)
        try:
            slot.init_slot()
        except RvError as problem:
            self.disabled[slot_id] = str(problem)
        self.slots[slot_id] = slot

    @property
    def slot(self) -> Slot:
        """The first slot."""
        return next(iter(self.slots.values()))

    def named(self, label: str) -> Slot:
        """The slot whose token has this name (PK11_FindSlotByName)."""
        (found,) = (slot for slot in self.slots.values() if slot.name == label)
        return found

    def update_slot_list(self) -> list[int]:
        """SECMOD_UpdateSlotList: list anew, append what is new; gives the new IDs."""
        listed = self.client.slots()
        assert len(listed) >= len(self._listed), "NSS takes a shorter list for an incompatible module"
        new = [slot_id for slot_id in listed if slot_id not in self.slots]
        for slot_id in new:
            self._set_up(slot_id)
        self._listed = listed
        return new

    def end(self) -> None:
        """Shutdown (SECMOD_UnloadModule): every slot's sessions, then C_Finalize."""
        for slot_id in self.slots:
            self.client.ok("C_CloseAllSessions", slot_id)
        self.client.ok("C_Finalize", ffi.NULL)


class Slot:
    """A slot with its token as NSS sees it.

    `session`: NSS's default session, 0 without one; `name`: the token's label as NSS writes it; `flags`: of
    CK_TOKEN_INFO, at the last set-up; `mechanisms`: the list; `friendly`: certificates may be listed without a login.
    """

    def __init__(self, client: Client, slot_id: int) -> None:
        self.client = client
        self.id = slot_id
        self.session = 0
        self.slot_flags = 0
        self.flags = 0
        self.name = ""
        self.mechanisms: list[int] = []
        self.one_session = False
        self.friendly = False

    # Setting up

    def slot_info(self) -> Any:
        info = ffi.new("CK_SLOT_INFO *")
        self.client.ok("C_GetSlotInfo", self.id, info)
        self.slot_flags = int(info.flags)
        return info

    def init_slot(self) -> None:
        """PK11_InitSlot: a removable slot may be empty, any other must have its token."""
        self.slot_info()
        if self.slot_flags & CKF.TOKEN_PRESENT:
            self.init_token()
        elif not self.slot_flags & CKF.REMOVABLE_DEVICE:
            raise RvError("PK11_InitSlot: no token in a permanent slot", CKR.TOKEN_NOT_PRESENT)

    def init_token(self) -> None:
        """PK11_InitToken: information, mechanisms, default session, profiles, random numbers, root list."""
        info = self.client.token_info(self.id)
        self.flags = int(info.flags)
        self.name = bytes(ffi.buffer(info.label)).rstrip(b" ").decode()
        self.one_session = info.ulMaxSessionCount == 1 and not self.flags & CKF.WRITE_PROTECTED
        self.mechanisms = self.read_mechanisms()
        if not self.session or self._session_is_gone():
            self.session = 0
            self.session = self.client.open(self.id, READ_WRITE if self.one_session else READ_ONLY)
        self._read_profiles()
        if self.flags & CKF.RNG:
            held = ffi.new("char[32]")
            self.client.call("C_GenerateRandom", self.session, held, 32)
            self.client.call("C_SeedRandom", self.session, held, 32)
        self.find([(CKA.CLASS, BUILTIN_ROOT_LIST)], 1)

    def _session_is_gone(self) -> bool:
        info = ffi.new("CK_SESSION_INFO *")
        rv = self.client.call("C_GetSessionInfo", self.session, info)
        if rv == CKR.DEVICE_ERROR:
            self.client.call("C_CloseSession", self.session)
        return rv in (CKR.DEVICE_ERROR, CKR.SESSION_CLOSED, CKR.SESSION_HANDLE_INVALID)

    def read_mechanisms(self) -> list[int]:
        """PK11_ReadMechanismList: two calls, of which the second may give fewer."""
        count = ffi.new("CK_ULONG *")
        self.client.ok("C_GetMechanismList", self.id, ffi.NULL, count)
        held = ffi.new("CK_ULONG[]", count[0])
        self.client.ok("C_GetMechanismList", self.id, held, count)
        return list(held[0 : count[0]])

    def _read_profiles(self) -> None:
        with self.ro() as session:
            profiles = self.find([(CKA.TOKEN, True), (CKA.CLASS, CKO.PROFILE)], 10, session)
            kinds = [self.client.get(session, profile, CKA.PROFILE_ID)[0] for profile in profiles]
        self.friendly = CKP.PUBLIC_CERTIFICATES_TOKEN.to_bytes(8, "little") in kinds

    def is_present(self) -> bool:
        """nssSlot_IsTokenPresent: permanent slots are not asked; a changed token is set up anew."""
        if not self.slot_flags & CKF.REMOVABLE_DEVICE:
            return True
        self.slot_info()
        if not self.slot_flags & CKF.TOKEN_PRESENT:
            self._drop_session()
            return False
        info = ffi.new("CK_SESSION_INFO *")
        if self.session and self.client.call("C_GetSessionInfo", self.session, info) != CKR.OK:
            self._drop_session()
        if not self.session:
            self.init_token()
        return True

    def _drop_session(self) -> None:
        if self.session:
            self.client.call("C_CloseSession", self.session)
        self.session = 0

    def mechanism_flags(self, mechanism: int) -> int:
        """CKF_* of C_GetMechanismInfo; 0 where it fails, which NSS takes for "cannot" (pk11_filterSlot)."""
        info = ffi.new("CK_MECHANISM_INFO *")
        rv = self.client.call("C_GetMechanismInfo", self.id, mechanism, info)
        return int(info.flags) if rv == CKR.OK else 0

    # Sessions

    @contextmanager
    def ro(self) -> Iterator[int]:
        """A session for one operation; the default session when none can be had (pk11_GetNewSession)."""
        handle = ffi.new("CK_ULONG *")
        own = self.client.call("C_OpenSession", self.id, READ_ONLY, ffi.NULL, ffi.NULL, handle) == CKR.OK
        try:
            yield int(handle[0]) if own else self.session
        finally:
            if own:
                self.client.ok("C_CloseSession", handle[0])

    @contextmanager
    def rw(self) -> Iterator[int]:
        """A read-write session (PK11_GetRWSession); the default one where the token has only that."""
        if self.one_session:
            yield self.session
            return
        session = self.client.open(self.id, READ_WRITE)
        try:
            yield session
        finally:
            self.client.ok("C_CloseSession", session)

    # Logins and PINs

    def is_logged_in(self) -> bool:
        """PK11_IsLoggedIn: the state of the default session."""
        return self.client.state(self.session) in LOGGED_IN

    def login(self, pin: bytes | None) -> None:
        """PK11_DoPassword: on the default session; "already logged in" is as good as CKR_OK."""
        if not self.flags & CKF.LOGIN_REQUIRED or self.is_logged_in():
            return
        held, size = (ffi.NULL, 0) if pin is None else (pin, len(pin))
        rv = self.client.call("C_Login", self.session, CKU.USER, held, size)
        if rv not in (CKR.OK, CKR.USER_ALREADY_LOGGED_IN):
            raise RvError("C_Login", rv)

    def logout(self) -> int:
        """PK11_Logout."""
        return self.client.call("C_Logout", self.session)

    def check_password(self, pin: bytes) -> int:
        """PK11_CheckUserPassword: C_Logout whatever it answers, then C_Login; gives C_Login's answer."""
        self.client.call("C_Logout", self.session)
        return self.client.call("C_Login", self.session, CKU.USER, pin, len(pin))

    def init_pin(self, pin: bytes, so_pin: bytes = b"") -> None:
        """PK11_InitPin: the SO logs in on a read-write session while the default one stays open."""
        with self.rw() as session:
            self.client.ok("C_Login", session, CKU.SO, so_pin, len(so_pin))
            try:
                self.client.ok("C_InitPIN", session, pin, len(pin))
            finally:
                self.client.ok("C_Logout", session)
        self.init_token()
        if self.flags & CKF.LOGIN_REQUIRED:
            self.client.ok("C_Login", self.session, CKU.USER, pin, len(pin))

    def change_pin(self, old: bytes, new: bytes) -> int:
        """PK11_ChangePW: C_SetPIN on a read-write session of its own; gives its answer."""
        with self.rw() as session:
            rv = self.client.call("C_SetPIN", session, old, len(old), new, len(new))
        self.init_token()
        return rv

    def reset_token(self, so_pin: bytes) -> int:
        """PK11_ResetToken (certutil -T): C_InitToken with the name that the token has; gives its answer."""
        self.client.ok("C_CloseAllSessions", self.id)
        self.session = 0
        rv = self.client.call("C_InitToken", self.id, so_pin, len(so_pin), self.name.encode().ljust(32))
        self.init_token()
        return rv

    # Objects

    def find(self, template: Template, maximum: int = 0, session: int | None = None) -> list[int]:
        """find_objects: all at once when `maximum` is given, else 16, and twice as many each time the room is full."""
        where = self.session if session is None else session
        array, count, _kept = self.client.template(template)
        rv = self.client.call("C_FindObjectsInit", where, array, count)
        if rv in NOTHING_FOUND:
            return []
        if rv != CKR.OK:
            raise RvError("C_FindObjectsInit", rv)
        found: list[int] = []
        room, number = maximum or 16, ffi.new("CK_ULONG *")
        while True:
            held = ffi.new("CK_ULONG[]", room - len(found))
            self.client.ok("C_FindObjects", where, held, room - len(found), number)
            found.extend(held[0 : number[0]])
            if maximum or len(found) < room:
                break
            room *= 2
        self.client.ok("C_FindObjectsFinal", where)
        return found

    def read(self, handle: int, *attributes: int) -> list[bytes | None]:
        """Size pass and value pass on the default session (nssCKObject_GetAttributes); None for what is missing."""
        return self.client.get(self.session, handle, *attributes)

    def ulong(self, handle: int, attribute: int) -> int | None:
        """PK11_ReadULongAttribute: straight into eight bytes; None on any error."""
        held = ffi.new("CK_ULONG *")
        entry = ffi.new("CK_ATTRIBUTE *", (attribute, held, 8))
        rv = self.client.call("C_GetAttributeValue", self.session, handle, entry, 1)
        return int(held[0]) if rv == CKR.OK and entry.ulValueLen == 8 else None

    def boolean(self, handle: int, attribute: int) -> bool:
        """PK11_HasAttributeSet: straight into one byte; an error counts as false."""
        held = ffi.new("unsigned char *")
        entry = ffi.new("CK_ATTRIBUTE *", (attribute, held, 1))
        rv = self.client.call("C_GetAttributeValue", self.session, handle, entry, 1)
        return rv == CKR.OK and held[0] == 1

    def create(self, template: Template) -> int:
        """A token object, in a read-write session of its own (PK11_CreateNewObject)."""
        with self.rw() as session:
            return self.client.create(session, template)

    def set(self, handle: int, template: Template) -> int:
        """C_SetAttributeValue in a read-write session of its own; gives its answer."""
        with self.rw() as session:
            return self.client.set(session, handle, template)

    def destroy(self, handle: int) -> int:
        """C_DestroyObject in a read-write session of its own (PK11_DestroyTokenObject); gives its answer."""
        with self.rw() as session:
            return self.client.call("C_DestroyObject", session, handle)

    # Keys

    def generate_rsa(self, bits: int = 2048) -> tuple[int, int]:
        """certutil -G -k rsa: (public, private), every usage written, then the ID on both."""
        public: Template = [
            (CKA.MODULUS_BITS, bits),
            (CKA.PUBLIC_EXPONENT, b"\x01\x00\x01"),
            (CKA.TOKEN, True),
            (CKA.DERIVE, False),
            (CKA.WRAP, True),
            (CKA.VERIFY, True),
            (CKA.VERIFY_RECOVER, False),
            (CKA.ENCRYPT, True),
        ]
        usages: Template = [(CKA.DERIVE, False), (CKA.UNWRAP, True), (CKA.SIGN, True), (CKA.DECRYPT, True)]
        self.mechanism_flags(CKM.RSA_PKCS)
        return self._generate(CKM.RSA_PKCS_KEY_PAIR_GEN, public, usages, CKA.MODULUS)

    def generate_ec(self, curve: bytes = P256) -> tuple[int, int]:
        """certutil -G -k ec: (public, private)."""
        public: Template = [
            (CKA.EC_PARAMS, curve),
            (CKA.TOKEN, True),
            (CKA.DERIVE, True),
            (CKA.WRAP, False),
            (CKA.VERIFY, True),
            (CKA.VERIFY_RECOVER, False),
            (CKA.ENCRYPT, False),
        ]
        usages: Template = [(CKA.DERIVE, True), (CKA.UNWRAP, False), (CKA.SIGN, True), (CKA.DECRYPT, False)]
        self.mechanism_flags(CKM.ECDH1_DERIVE)
        self.mechanism_flags(CKM.ECDSA)
        return self._generate(CKM.EC_KEY_PAIR_GEN, public, usages, CKA.EC_POINT)

    def _generate(self, mechanism: int, public: Template, usages: Template, value: int) -> tuple[int, int]:
        """PK11_GenerateKeyPairWithOpFlags: keys whose ID cannot be set are destroyed."""
        private: Template = [(CKA.TOKEN, True), (CKA.PRIVATE, True), (CKA.SENSITIVE, True), *usages]
        with self.rw() as session:
            handles = self.client.generate_pair(session, mechanism, public, private)
            assert self.ulong(handles[0], CKA.CLASS) == CKO.PUBLIC_KEY, "NSS looks which handle is which"
            read = self.read(handles[0], value)[0] or b""
            identity = key_id(point_of(read) if value == CKA.EC_POINT else read)
            for handle in reversed(handles):
                if self.client.set(session, handle, [(CKA.ID, identity)]) != CKR.OK:
                    self.client.call("C_DestroyObject", session, handle)
                    raise AssertionError("NSS destroys keys whose ID cannot be set")
        return handles

    def sign(self, key: int, mechanism: Any, data: bytes, size: int, pin: bytes | None = None) -> bytes:
        """PK11_SignWithMechanism: into a buffer of the computed length; `pin` for CKA_ALWAYS_AUTHENTICATE."""
        held, length = ffi.new("char[]", size), ffi.new("CK_ULONG *", size)
        with self.ro() as session:
            self.client.ok("C_SignInit", session, mechanism, key)
            if self.boolean(key, CKA.ALWAYS_AUTHENTICATE) and pin is not None:
                self.client.ok("C_Login", session, CKU.CONTEXT_SPECIFIC, pin, len(pin))
            self.client.ok("C_Sign", session, data, len(data), held, length)
        return bytes(ffi.buffer(held, length[0]))


def key_id(public_value: bytes) -> bytes:
    """PK11_MakeIDFromPubKey: SHA-1 of the modulus or the uncompressed point, or the value itself up to 20 bytes."""
    return public_value if len(public_value) <= 20 else sha1(public_value).digest()


def point_of(octet_string: bytes) -> bytes:
    """The EC point in the DER OCTET STRING that CKA_EC_POINT holds."""
    return octet_string[3:] if octet_string[1] == 0x81 else octet_string[2:]


def make_token(label: str, *options: str) -> None:
    """What a person does meanwhile in a terminal: `keyfob init LABEL`, of general access unless `options` say else."""
    subprocess.run([sys.executable, "-m", "keyfob.cli", "init", label, *(options or ["--no-pin"])], check=True)
