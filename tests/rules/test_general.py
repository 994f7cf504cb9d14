"""G1 to G7 as NSS calls: loading, interfaces, C_Initialize, C_GetInfo, the end, and all of it again."""

from __future__ import annotations

import ctypes
import importlib
import mmap
import pkgutil
from pathlib import Path
from typing import Any

import pytest

import keyfob.functions
from keyfob.spec.constants import CKA, CKF, CKM, CKO, CKR, CKS
from keyfob.spec.functions import FUNCTIONS
from tests.client import READ_ONLY, Client, ffi
from tests.conftest import PIN
from tests.rules.kinds import KINDS, start_on
from tests.rules.nss_calls import FIPS_INTERFACE, STANDARD_INTERFACE, Nss, get_interface, initialize_arguments, start

VALIDATIONS = (CKO.VALIDATION, CKO.NSS_VALIDATION)  # the standard's, and those of NSS's own token
ENTRIES = [name for name, _ in ffi.typeof("CK_FUNCTION_LIST_3_2").fields if name != "version"]


@pytest.mark.rule("G1", "G3")
def test_the_module_is_ended_and_started_again_in_one_process(nss: Nss) -> None:
    """Ends and starts as often as it is asked to in one process; tokens, keys and PINs are as they were."""
    nss.slot.login(PIN)
    _, private = nss.slot.generate_ec()
    wanted = nss.slot.read(private, CKA.ID)
    for _ in range(3):
        old = nss.slot.session
        nss.end()
        nss = start(nss.client)
        assert nss.client.call("C_CloseSession", old) == CKR.SESSION_HANDLE_INVALID
        assert not nss.slot.is_logged_in()
        nss.slot.login(PIN)
        (found,) = nss.slot.find([(CKA.CLASS, CKO.PRIVATE_KEY)])
        assert nss.slot.read(found, CKA.ID) == wanted


@pytest.mark.rule("G1")
def test_a_module_that_failed_to_load_can_be_loaded_later(module: Client) -> None:
    """Ends cleanly right after C_Initialize too, and starts again."""
    module.ok("C_Initialize", initialize_arguments())
    module.ok("C_Finalize", ffi.NULL)
    assert start(module).slot.session


@pytest.mark.rule("G2", "P9")
@pytest.mark.parametrize("parameters", [None, b"", b"configdir='/nowhere' flags=readOnly"])
@pytest.mark.parametrize("behind", [0, 0xDEAD])
def test_the_struct_of_nss_with_and_without_parameters(module: Client, parameters: bytes | None, behind: int) -> None:
    """Takes NSS's struct with flags 3, four callbacks and module parameters; what lies behind it does not matter."""
    for _ in range(2):
        module.ok("C_Initialize", initialize_arguments(parameters, behind))
        module.ok("C_Finalize", ffi.NULL)


@pytest.mark.rule("G2")
def test_null_is_as_good_as_a_struct(module: Client) -> None:
    """Takes NULL, NSS's second try, and is as thread-safe then."""
    module.ok("C_Initialize", ffi.NULL)
    assert module.slots()


class Cliff:
    """The last bytes before memory that nobody may read: one byte too many is a crash."""

    def __init__(self, size: int) -> None:
        self.pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.pages))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(self.start + mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
        self.address = self.start + mmap.PAGESIZE - size

    def holding(self, kind: str) -> Any:
        return ffi.cast(f"{kind} *", self.address)


@pytest.mark.rule("G2")
def test_nothing_is_read_behind_the_standard_struct(module: Client) -> None:
    """Reads the standard's struct and not one byte behind it."""
    cliff = Cliff(ffi.sizeof("CK_C_INITIALIZE_ARGS"))
    arguments = cliff.holding("CK_C_INITIALIZE_ARGS")
    arguments.flags = CKF.OS_LOCKING_OK
    module.ok("C_Initialize", arguments)


@pytest.mark.rule("G3", "SE7")
def test_the_end_of_nss_in_the_middle_of_work(nss: Nss) -> None:
    """Ends with sessions, searches and operations open; calls after the end are told that nothing is initialised."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    mechanism = client.mechanism(CKM.SHA256)
    client.ok("C_DigestInit", client.open(slot.id, READ_ONLY), mechanism)
    array, count, _kept = client.template([(CKA.CLASS, CKO.CERTIFICATE)])
    client.ok("C_FindObjectsInit", slot.session, array, count)
    nss.end()
    state = ffi.new("CK_SESSION_INFO *")
    assert client.call("C_GetSessionInfo", slot.session, state) == CKR.CRYPTOKI_NOT_INITIALIZED
    assert client.call("C_CloseAllSessions", slot.id) == CKR.CRYPTOKI_NOT_INITIALIZED
    assert client.call("C_Finalize", ffi.NULL) == CKR.CRYPTOKI_NOT_INITIALIZED


@pytest.mark.rule("G4", "P8", "K6")
def test_the_interface_that_nss_asks_for(module: Client) -> None:
    """Gives the interface "PKCS 11", fork-safe as NSS wishes; the vendor's FIPS interface is refused cleanly."""
    for flags in (CKF.INTERFACE_FORK_SAFE, 0):
        rv, found = get_interface(module, STANDARD_INTERFACE, None, flags)
        assert rv == CKR.OK
        assert ffi.string(ffi.cast("char *", found.pInterfaceName)) == STANDARD_INTERFACE
    assert get_interface(module, FIPS_INTERFACE, None, 0)[0] == CKR.FUNCTION_FAILED
    assert start(module).slot.session


@pytest.mark.rule("K6")
@pytest.mark.parametrize("kind", KINDS)
def test_no_token_claims_to_be_validated(module: Client, home: Path, kind: str) -> None:
    """Has no validation object, before and after the login, and no operation that counts as a validated one."""
    slot = start_on(module, home, kind)
    flags = ffi.new("CK_ULONG *", 1)
    for _ in range(2):
        for claim in VALIDATIONS:
            assert slot.find([(CKA.CLASS, claim)]) == slot.find([(CKA.TOKEN, True), (CKA.CLASS, claim)], 10) == []
        assert not set(VALIDATIONS) & {slot.ulong(each, CKA.CLASS) for each in slot.find([])}
        module.ok("C_GetSessionValidationFlags", slot.session, CKS.LAST_VALIDATION_OK, flags)
        assert flags[0] == 0
        slot.logout()
    slot.login(PIN)
    made = ffi.new("CK_ULONG *")
    for claim, level in zip(VALIDATIONS, (CKA.VALIDATION_LEVEL, CKA.NSS_VALIDATION_LEVEL), strict=True):
        array, count, _kept = module.template([(CKA.CLASS, claim), (level, 3)])
        assert module.call("C_CreateObject", slot.session, array, count, made) != CKR.OK, "nor is one made"


@pytest.mark.rule("G4")
def test_the_list_of_an_older_client_serves_the_same_tokens(nss: Nss) -> None:
    """Gives the 2.40 list by C_GetFunctionList as well; both serve the same sessions and objects."""
    table = ffi.new("CK_FUNCTION_LIST **")
    assert nss.client.library.C_GetFunctionList(table) == CKR.OK
    assert (table[0].version.major, table[0].version.minor) == (2, 40)
    info = ffi.new("CK_SESSION_INFO *")
    assert table[0].C_GetSessionInfo(nss.slot.session, info) == CKR.OK
    assert info.slotID == nss.slot.id


def implemented() -> set[str]:
    """The C_* that keyfob.functions defines, and what the door itself answers."""
    chapters = pkgutil.iter_modules(keyfob.functions.__path__)
    names = {name for each in chapters for name in dir(importlib.import_module(f"keyfob.functions.{each.name}"))}
    return names | {"C_GetFunctionList", "C_GetInterfaceList", "C_GetInterface", "C_GetAttributeValue"}


@pytest.mark.rule("G5")
@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in ("C_Initialize", "C_Finalize")])
def test_every_entry_of_the_list_answers(nss: Nss, name: str) -> None:
    """Every entry of the list can be called; what keyfob does not implement answers CKR_FUNCTION_NOT_SUPPORTED."""
    values: list[Any] = []
    for argument, kind in FUNCTIONS[name][1]:
        if kind == "CK_SESSION_HANDLE":
            values.append(nss.slot.session)
        elif argument == "flags":
            values.append(CKF.DONT_BLOCK)
        else:
            values.append(ffi.NULL if kind.endswith("_PTR") or kind in ("CK_NOTIFY", "CK_INTERFACE_PTR_PTR") else 0)
    rv = nss.client.call(name, *values)
    assert (rv == CKR.FUNCTION_NOT_SUPPORTED) == (name not in implemented())


@pytest.mark.rule("G6", "P8")
def test_the_version_is_that_of_the_list(nss: Nss) -> None:
    """Says 3.2 both in C_GetInfo and in the list that NSS uses, so NSS calls what is there."""
    info = ffi.new("CK_INFO *")
    nss.client.ok("C_GetInfo", info)
    version = nss.client.functions.version
    assert (info.cryptokiVersion.major, info.cryptokiVersion.minor) == (version.major, version.minor) == (3, 2)
    assert info.flags == 0
    assert all(getattr(nss.client.functions, name) for name in ENTRIES)


@pytest.mark.rule("G6", "G7", "P40")
def test_the_texts_of_the_library_fit_into_a_module_database(nss: Nss) -> None:
    """Names itself "keyfob PKCS #11 token": blank padded, without quotes or other signs of NSS's database."""
    info = ffi.new("CK_INFO *")
    nss.client.ok("C_GetInfo", info)
    assert bytes(ffi.buffer(info.manufacturerID)) == b"keyfob".ljust(32)
    description = bytes(ffi.buffer(info.libraryDescription))
    assert description == b"keyfob PKCS #11 token".ljust(32)
    assert not set(description) & set(b"\"'=<>\\\0")
