"""The shared object: its symbols, its interfaces and its function list, found exactly as NSS finds them (rules G4, P8).

load=pk11wrap/pk11load.c: C_GetInterface is looked up first; C_GetFunctionList only if that symbol is absent. A module
whose C_GetInterface fails is not loaded.
"""

from __future__ import annotations

import ctypes
from typing import Any

from keyfob.nss.driver import structs
from keyfob.nss.driver.arguments import Argument
from keyfob.nss.driver.record import Call, Recorder
from keyfob.nss.driver.reply import Reply
from keyfob.spec.constants import CKF, CKR
from keyfob.spec.functions import FUNCTIONS

ENTRY_POINTS = ("C_GetInterface", "C_GetFunctionList", "C_GetInterfaceList")
NULL_POINTER = "the function list has NULL here: NSS would crash"
OVERRUN = "the module wrote behind the end of a buffer"
FIPS_INTERFACE = b"Vendor NSS FIPS Interface"


class FoundInterface:
    """A CK_INTERFACE: its name, flags, and the address and version of its list."""

    __slots__ = ("address", "flags", "name", "version")

    def __init__(self, struct: structs.Interface) -> None:
        name = ctypes.cast(struct.pInterfaceName, ctypes.c_char_p).value if struct.pInterfaceName else None
        self.name = name or b""
        self.flags = int(struct.flags)
        self.address = int(struct.pFunctionList or 0)
        version = structs.Version.from_address(self.address) if self.address else structs.Version()
        self.version = (int(version.major), int(version.minor))


class Library:
    """A loaded module and its functions; `call` is the one way into it. OSError when it cannot be loaded."""

    def __init__(self, path: str, recorder: Recorder) -> None:
        self.path = path
        self.recorder = recorder
        # NSS: PR_LoadLibrary, with local symbols.
        self._loaded = ctypes.CDLL(path, mode=ctypes.RTLD_LOCAL)
        self.symbols = {name: self._symbol(name) for name in ENTRY_POINTS}
        self.pointers: dict[str, int] = {name: address for name, address in self.symbols.items() if address}
        self.version: tuple[int, int] = (0, 0)
        self.interface: FoundInterface | None = None
        self._functions: dict[tuple[str, int], Any] = {}
        self.overruns: list[Reply[Any]] = []

    def _symbol(self, name: str) -> int:
        """The address of an exported symbol, or 0."""
        try:
            return ctypes.cast(getattr(self._loaded, name), ctypes.c_void_p).value or 0
        except AttributeError:
            return 0

    def use_list(self, address: int) -> None:
        """Take the functions of the CK_FUNCTION_LIST at `address`, as many as its version says that there are."""
        self.version, self.pointers = structs.pointers_of_list(address)

    def has(self, function: str) -> bool:
        """Whether the list is new enough to hold the function; NSS calls it only then."""
        return function in self.pointers

    def call(self, function: str, *arguments: Argument | int | None, blocks: bool = False) -> Reply[Any]:
        """Call a C_* function, recorded. Plain ints and None (NULL) stand for single C values.

        The value is what came out: one value, a tuple of several, None for none. `blocks` says that it may wait as
        long as it likes. A NULL in the list answers CKR_GENERAL_ERROR with a note, and is not called.
        """
        wrapped = [a if isinstance(a, Argument) else Argument(a) for a in arguments]
        names = [name for name, _type in FUNCTIONS[function][1]]
        shown: list[dict[str, Any]] = []
        spans: list[list[str]] = []
        position = 0
        for argument in wrapped:
            spans.append(names[position : position + argument.takes])
            position += argument.takes
            shown += argument.shown(spans[-1])
        call = self.recorder.begin(function, shown, blocks=blocks)
        address = self.pointers[function]
        if not address:
            call.rv = CKR.GENERAL_ERROR
            self.recorder.end(call, NULL_POINTER)
            return Reply(CKR.GENERAL_ERROR, None, call, NULL_POINTER)
        # Functions of one list may share a stub, and differ in their arguments.
        pointer = self._functions.get((function, address))
        if pointer is None:
            pointer = self._functions[function, address] = structs.PROTOTYPES[function](address)
        c_values = [value for argument in wrapped for value in argument.c_values()]
        return self._answered(call, wrapped, spans, *_timed(pointer, c_values))

    def _answered(
        self, call: Call, wrapped: list[Argument], spans: list[list[str]], rv: int, microseconds: int
    ) -> Reply[Any]:
        call.rv, call.us = rv, microseconds
        for argument, span in zip(wrapped, spans, strict=True):
            call.out += argument.result_shown(span)
        note = OVERRUN if any(argument.overrun() for argument in wrapped) else ""
        self.recorder.end(call, note)
        results = [result for argument in wrapped if (result := argument.result()) is not None]
        value = None if not results else results[0] if len(results) == 1 else tuple(results)
        reply: Reply[Any] = Reply(rv, value, call, note)
        if note:
            self.overruns.append(reply)
        return reply

    # Finding the functions

    def get_interface(self, name: bytes | None, flags: int, version: tuple[int, int] | None = None) -> Reply[Any]:
        """C_GetInterface; the value is a FoundInterface, or None where the module gave none."""
        out = _OutInterface()
        wanted = None if version is None else structs.Version(*version)
        reply = self.call("C_GetInterface", _Name(name), _InVersion(wanted), out, _Flags(flags))
        return Reply(reply.rv, out.result(), reply.call, reply.note)

    def get_function_list(self) -> Reply[int]:
        """C_GetFunctionList of the exported symbol; the value is the list's address."""
        out = _OutPointer()
        reply = self.call("C_GetFunctionList", out)
        return Reply(reply.rv, out.result(), reply.call, reply.note)

    def resolve(self) -> Reply[Any]:
        """NSS's way to the list (load:486-525); the reply is that of the call that decided."""
        if self.symbols["C_GetInterface"]:
            reply = self.get_interface(b"PKCS 11", CKF.INTERFACE_FORK_SAFE)
            if not reply.is_ok:
                reply = self.get_interface(b"PKCS 11", 0)
            if reply.is_ok and reply.value is not None and reply.value.address:
                self.interface = reply.value
                self.get_interface(FIPS_INTERFACE, 0)
                self.use_list(reply.value.address)
            return reply
        listed = self.get_function_list()
        if listed.is_ok and listed.value:
            self.use_list(listed.value)
        return listed


def _timed(pointer: Any, c_values: list[Any]) -> tuple[int, int]:
    from time import perf_counter_ns

    started = perf_counter_ns()
    rv = int(pointer(*c_values))
    return rv, (perf_counter_ns() - started) // 1000


class _Name(Argument):
    def __init__(self, name: bytes | None) -> None:
        super().__init__(None)
        self._held = None if name is None else ctypes.create_string_buffer(name)
        self._text = "NULL" if name is None else f'"{name.decode()}"'

    def c_values(self) -> tuple[Any, ...]:
        return (self._held,)


class _InVersion(Argument):
    def __init__(self, version: structs.Version | None) -> None:
        super().__init__(None, "NULL" if version is None else f"{version.major}.{version.minor}")
        self._version = version

    def c_values(self) -> tuple[Any, ...]:
        return (None if self._version is None else ctypes.byref(self._version),)


class _Flags(Argument):
    def __init__(self, flags: int) -> None:
        super().__init__(flags, "CKF_INTERFACE_FORK_SAFE" if flags == CKF.INTERFACE_FORK_SAFE else str(flags))


class _OutPointer(Argument):
    def __init__(self) -> None:
        super().__init__(None, "out")
        self.pointer = ctypes.c_void_p()

    def c_values(self) -> tuple[Any, ...]:
        return (ctypes.byref(self.pointer),)

    def result(self) -> Any:
        return self.pointer.value or 0

    def result_shown(self, names: Any) -> list[dict[str, Any]]:
        return [{"name": names[0], "text": "a list" if self.pointer.value else "NULL"}]


class _OutInterface(_OutPointer):
    def result(self) -> FoundInterface | None:
        return FoundInterface(structs.Interface.from_address(self.pointer.value)) if self.pointer.value else None

    def result_shown(self, names: Any) -> list[dict[str, Any]]:
        found = self.result()
        if found is None:
            return [{"name": names[0], "text": "NULL"}]
        major, minor = found.version
        return [
            {"name": names[0], "text": f'"{found.name.decode(errors="replace")}" {major}.{minor} flags={found.flags}'}
        ]
