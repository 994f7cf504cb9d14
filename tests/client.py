"""A client of any PKCS #11 module for tests: the C ABI with as little between as possible.

`Client(path)` loads a module and calls through its default interface's function list. `call` gives the CK_RV; `ok`
demands CKR_OK. Templates are lists of (CKA_*, value): bytes, bool for CK_BBOOL, int for CK_ULONG, str for UTF-8; a list
for a template in a template.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cffi import FFI

from keyfob.abi.cryptoki import DECLARATIONS
from keyfob.spec.constants import CKA, CKF, CKR, CKU
from keyfob.spec.errors import name_of

ffi = FFI()
ffi.cdef(
    DECLARATIONS + "CK_RV C_GetFunctionList(CK_FUNCTION_LIST **);"
    "CK_RV C_GetInterfaceList(CK_INTERFACE *, CK_ULONG *);"
    "CK_RV C_GetInterface(CK_BYTE *, CK_VERSION *, CK_INTERFACE **, CK_ULONG);"
)

Value = bytes | bool | int | str | list[Any]
Template = Sequence[tuple[int, Value]]
READ_ONLY = CKF.SERIAL_SESSION
READ_WRITE = CKF.SERIAL_SESSION | CKF.RW_SESSION


NESTED = (
    CKA.WRAP_TEMPLATE,
    CKA.UNWRAP_TEMPLATE,
    CKA.DERIVE_TEMPLATE,
    CKA.ENCAPSULATE_TEMPLATE,
    CKA.DECAPSULATE_TEMPLATE,
)


def elements(attribute: Any) -> Any:
    """The CK_ATTRIBUTEs that are the value of one."""
    count = attribute.ulValueLen // ffi.sizeof("CK_ATTRIBUTE")
    return ffi.cast("CK_ATTRIBUTE *", attribute.pValue)[0:count] if attribute.pValue else ()


def read(attribute: Any) -> list[tuple[int, Any]]:
    return [
        (each.type, read(each) if each.type in NESTED else bytes(ffi.buffer(each.pValue, each.ulValueLen)))
        for each in elements(attribute)
    ]


class RvError(AssertionError):
    """A call did not answer CKR_OK."""

    def __init__(self, name: str, rv: int) -> None:
        super().__init__(f"{name}: {name_of('CKR', rv)}")
        self.rv = rv


def but(template: Template, *others: tuple[int, Value]) -> Template:
    """The template with other values, since two for one attribute are CKR_TEMPLATE_INCONSISTENT."""
    changed = dict(others)
    return [*((attribute, value) for attribute, value in template if attribute not in changed), *others]


def encoded(value: Value) -> bytes:
    if isinstance(value, bool):
        return b"\x01" if value else b"\x00"
    if isinstance(value, int):
        return value.to_bytes(8, "little")
    if isinstance(value, list):
        raise TypeError("a template has no bytes of its own")
    return value.encode() if isinstance(value, str) else value


class Client:
    def __init__(self, path: str) -> None:
        self.library = ffi.dlopen(path)
        interface = ffi.new("CK_INTERFACE **")
        rv = self.library.C_GetInterface(ffi.NULL, ffi.NULL, interface, 0)
        if rv != CKR.OK:
            raise RvError("C_GetInterface", rv)
        self.functions = ffi.cast("CK_FUNCTION_LIST_3_2 *", interface[0].pFunctionList)

    def call(self, name: str, *arguments: Any) -> int:
        rv: int = getattr(self.functions, name)(*arguments)
        return rv

    def ok(self, name: str, *arguments: Any) -> None:
        rv = self.call(name, *arguments)
        if rv != CKR.OK:
            raise RvError(name, rv)

    # Values in C

    def template(self, template: Template) -> tuple[Any, int, list[Any]]:
        """(CK_ATTRIBUTE array, count, what must be kept alive)."""
        array = ffi.new("CK_ATTRIBUTE[]", max(len(template), 1))
        kept: list[Any] = []
        for i, (attribute, value) in enumerate(template):
            if isinstance(value, list):  # a template in a template
                inner, inner_count, kept_too = self.template(value)
                kept += [inner, kept_too]
                length = inner_count * ffi.sizeof("CK_ATTRIBUTE")
                array[i].type, array[i].pValue, array[i].ulValueLen = attribute, inner, length
                continue
            data = encoded(value)
            held = ffi.new("char[]", data or b"\0")
            kept.append(held)
            array[i].type, array[i].pValue, array[i].ulValueLen = attribute, held, len(data)
        return array, len(template), kept

    def mechanism(self, kind: int, parameter: Any = b"") -> Any:
        """CK_MECHANISM; `parameter` is bytes or a cffi struct pointer."""
        mechanism = ffi.new("CK_MECHANISM *")
        mechanism.mechanism = kind
        if isinstance(parameter, bytes):
            held = ffi.new("char[]", parameter) if parameter else ffi.NULL
            mechanism.pParameter, mechanism.ulParameterLen = held, len(parameter)
        else:
            held = parameter
            mechanism.pParameter, mechanism.ulParameterLen = parameter, ffi.sizeof(parameter[0])
        _ALIVE[mechanism] = held
        return mechanism

    # Sessions

    def initialize(self, flags: int = CKF.OS_LOCKING_OK) -> None:
        arguments = ffi.new("CK_C_INITIALIZE_ARGS *")
        arguments.flags = flags
        self.ok("C_Initialize", arguments)

    def slots(self) -> list[int]:
        count = ffi.new("CK_ULONG *")
        self.ok("C_GetSlotList", 0, ffi.NULL, count)
        slots = ffi.new("CK_ULONG[]", count[0])
        self.ok("C_GetSlotList", 0, slots, count)
        return list(slots[0 : count[0]])

    def open(self, slot: int, flags: int = READ_WRITE) -> int:
        handle = ffi.new("CK_ULONG *")
        self.ok("C_OpenSession", slot, flags, ffi.NULL, ffi.NULL, handle)
        return int(handle[0])

    def login(self, session: int, pin: bytes, user: int = CKU.USER) -> None:
        self.ok("C_Login", session, user, pin, len(pin))

    def state(self, session: int) -> int:
        info = ffi.new("CK_SESSION_INFO *")
        self.ok("C_GetSessionInfo", session, info)
        return int(info.state)

    def token_info(self, slot: int) -> Any:
        info = ffi.new("CK_TOKEN_INFO *")
        self.ok("C_GetTokenInfo", slot, info)
        return info

    # Objects

    def create(self, session: int, template: Template) -> int:
        array, count, _kept = self.template(template)
        handle = ffi.new("CK_ULONG *")
        self.ok("C_CreateObject", session, array, count, handle)
        return int(handle[0])

    def get(self, session: int, handle: int, *attributes: int) -> list[bytes | None]:
        """Values by the size pass and the value pass, as NSS reads them; None for what has no value."""
        array = ffi.new("CK_ATTRIBUTE[]", len(attributes))
        for i, attribute in enumerate(attributes):
            array[i].type = attribute
        rv = self.call("C_GetAttributeValue", session, handle, array, len(attributes))
        if rv not in (CKR.OK, CKR.ATTRIBUTE_SENSITIVE, CKR.ATTRIBUTE_TYPE_INVALID):
            return [None] * len(attributes)
        missing = 0xFFFFFFFFFFFFFFFF
        buffers = []
        for i in range(len(attributes)):
            size = array[i].ulValueLen
            buffers.append(None if size == missing else ffi.new("char[]", max(size, 1)))
            array[i].pValue = buffers[i] or ffi.NULL
        self.call("C_GetAttributeValue", session, handle, array, len(attributes))
        return [
            None if held is None else bytes(ffi.buffer(held, array[i].ulValueLen)) for i, held in enumerate(buffers)
        ]

    def get_template(self, session: int, handle: int, attribute: int) -> list[tuple[int, Any]]:
        """The template that is the value of an attribute: how many, how long each, then the values, level by level."""
        outer = ffi.new("CK_ATTRIBUTE *", (attribute, ffi.NULL, 0))
        kept: list[Any] = []

        def fill(element: Any) -> bool:
            """Give room to what has told its length; False where nothing is missing any more."""
            if not element.pValue:
                if not element.ulValueLen:
                    return False
                of_attributes = element.type in NESTED
                count = element.ulValueLen // ffi.sizeof("CK_ATTRIBUTE") if of_attributes else element.ulValueLen
                kept.append(ffi.new("CK_ATTRIBUTE[]" if of_attributes else "char[]", count))
                element.pValue = kept[-1]
                return True
            filled = [fill(each) for each in elements(element)] if element.type in NESTED else []
            return any(filled)

        while True:
            self.ok("C_GetAttributeValue", session, handle, outer, 1)
            if not fill(outer):
                return read(outer)

    def set(self, session: int, handle: int, template: Template) -> int:
        array, count, _kept = self.template(template)
        return self.call("C_SetAttributeValue", session, handle, array, count)

    def find(self, session: int, template: Template, at_once: int = 10) -> list[int]:
        array, count, _kept = self.template(template)
        self.ok("C_FindObjectsInit", session, array, count)
        found: list[int] = []
        handles, number = ffi.new("CK_ULONG[]", at_once), ffi.new("CK_ULONG *")
        while True:
            self.ok("C_FindObjects", session, handles, at_once, number)
            found.extend(handles[0 : number[0]])
            if number[0] < at_once:
                break
        self.ok("C_FindObjectsFinal", session)
        return found

    def generate_pair(self, session: int, kind: int, public: Template, private: Template) -> tuple[int, int]:
        public_array, public_count, _kept = self.template(public)
        private_array, private_count, _kept_too = self.template(private)
        handles = ffi.new("CK_ULONG[2]")
        self.ok(
            "C_GenerateKeyPair",
            session,
            self.mechanism(kind),
            public_array,
            public_count,
            private_array,
            private_count,
            handles,
            handles + 1,
        )
        return int(handles[0]), int(handles[1])

    def generate(self, session: int, mechanism: Any, template: Template) -> int:
        array, count, _kept = self.template(template)
        handle = ffi.new("CK_ULONG *")
        self.ok("C_GenerateKey", session, mechanism, array, count, handle)
        return int(handle[0])

    # Operations

    def output(self, name: str, session: int, *arguments: Any) -> bytes:
        """A call that ends in (buffer, length): the size asked for first, then the output."""
        length = ffi.new("CK_ULONG *")
        self.ok(name, session, *arguments, ffi.NULL, length)
        held = ffi.new("char[]", max(length[0], 1))
        self.ok(name, session, *arguments, held, length)
        return bytes(ffi.buffer(held, length[0]))

    def sign(self, session: int, key: int, mechanism: Any, data: bytes) -> bytes:
        self.ok("C_SignInit", session, mechanism, key)
        return self.output("C_Sign", session, data, len(data))

    def verify(self, session: int, key: int, mechanism: Any, data: bytes, signature: bytes) -> int:
        self.ok("C_VerifyInit", session, mechanism, key)
        return self.call("C_Verify", session, data, len(data), signature, len(signature))


RSA_2048: Template = [(CKA.MODULUS_BITS, 2048), (CKA.PUBLIC_EXPONENT, b"\x01\x00\x01")]
P256 = bytes.fromhex("06082a8648ce3d030107")


class _Alive:
    """Keeps what a mechanism points to alive as long as the mechanism."""

    def __init__(self) -> None:
        import weakref

        self._held: Any = weakref.WeakKeyDictionary()

    def __setitem__(self, owner: Any, held: Any) -> None:
        self._held[owner] = held


_ALIVE = _Alive()
