"""Entry points, interfaces, C_Initialize and C_Finalize (G1 to G7, P8, P9)."""

from __future__ import annotations

import threading

import pytest

from keyfob.spec.constants import CKF, CKR
from tests.client import Client, ffi
from tests.conftest import module_path

NAME = b"PKCS 11"


def interface(client: Client, name: object, version: object, flags: int) -> tuple[int, object]:
    found = ffi.new("CK_INTERFACE **")
    return client.library.C_GetInterface(name, version, found, flags), found[0]


@pytest.mark.rule("G4", "P8")
def test_nss_gets_the_newest_interface_fork_safe(client: Client) -> None:
    """Gives version 3.2 for "PKCS 11" without a version, fork-safe and not."""
    name = ffi.new("char[]", NAME)
    for flags in (CKF.INTERFACE_FORK_SAFE, 0):
        rv, found = interface(client, ffi.cast("CK_BYTE *", name), ffi.NULL, flags)
        assert rv == CKR.OK
        version = ffi.cast("CK_VERSION *", found.pFunctionList)  # type: ignore[attr-defined]
        assert (version.major, version.minor) == (3, 2)


@pytest.mark.rule("G4")
@pytest.mark.parametrize("version", [(2, 40), (3, 0), (3, 2)])
def test_every_version_is_had_by_asking(client: Client, version: tuple[int, int]) -> None:
    """Gives the lists of versions 2.40, 3.0 and 3.2 to whoever asks for one of them."""
    wanted = ffi.new("CK_VERSION *", version)
    rv, found = interface(client, ffi.NULL, wanted, 0)
    assert rv == CKR.OK
    held = ffi.cast("CK_VERSION *", found.pFunctionList)  # type: ignore[attr-defined]
    assert (held.major, held.minor) == version


@pytest.mark.rule("P8", "K6")
def test_unknown_interfaces_and_versions_are_refused(client: Client) -> None:
    """Refuses unknown interfaces and versions with CKR_FUNCTION_FAILED."""
    vendor = ffi.new("char[]", b"Vendor NSS FIPS Interface")
    assert interface(client, ffi.cast("CK_BYTE *", vendor), ffi.NULL, 0)[0] == CKR.FUNCTION_FAILED
    assert interface(client, ffi.NULL, ffi.new("CK_VERSION *", (9, 9)), 0)[0] == CKR.FUNCTION_FAILED
    assert client.library.C_GetInterface(ffi.NULL, ffi.NULL, ffi.NULL, 0) == CKR.ARGUMENTS_BAD


def test_interface_list_in_two_calls(client: Client) -> None:
    count = ffi.new("CK_ULONG *")
    assert client.library.C_GetInterfaceList(ffi.NULL, count) == CKR.OK
    assert count[0] == 3
    short = ffi.new("CK_INTERFACE[1]")
    count[0] = 1
    assert client.library.C_GetInterfaceList(short, count) == CKR.BUFFER_TOO_SMALL
    assert count[0] == 3


@pytest.mark.rule("G5", "P8")
@pytest.mark.parametrize("struct", ["CK_FUNCTION_LIST", "CK_FUNCTION_LIST_3_0", "CK_FUNCTION_LIST_3_2"])
def test_no_slot_of_a_function_list_is_null(client: Client, struct: str) -> None:
    """No entry of any of the three lists is NULL."""
    version = {"CK_FUNCTION_LIST": (2, 40), "CK_FUNCTION_LIST_3_0": (3, 0), "CK_FUNCTION_LIST_3_2": (3, 2)}[struct]
    _, found = interface(client, ffi.NULL, ffi.new("CK_VERSION *", version), 0)
    table = ffi.cast(f"{struct} *", found.pFunctionList)  # type: ignore[attr-defined]
    fields = [name for name, _ in ffi.typeof(struct).fields if name != "version"]
    assert len(fields) >= 68
    assert all(getattr(table, name) for name in fields)


@pytest.mark.rule("G4")
def test_the_list_by_name_is_version_2_40(client: Client) -> None:
    """Gives the 2.40 list by C_GetFunctionList."""
    table = ffi.new("CK_FUNCTION_LIST **")
    assert client.library.C_GetFunctionList(table) == CKR.OK
    assert (table[0].version.major, table[0].version.minor) == (2, 40)
    assert client.library.C_GetFunctionList(ffi.NULL) == CKR.ARGUMENTS_BAD


@pytest.mark.rule("G6", "G7", "P40")
def test_info_is_blank_padded_without_quotes(client: Client) -> None:
    """Pads its texts with blanks; they hold neither NUL nor quotes."""
    info = ffi.new("CK_INFO *")
    client.ok("C_GetInfo", info)
    assert (info.cryptokiVersion.major, info.cryptokiVersion.minor) == (3, 2)
    for field in (info.manufacturerID, info.libraryDescription):
        text = bytes(ffi.buffer(field))
        assert text.strip()
        assert not set(text) & set(b"\"'=\0\n")


def arguments(flags: int, callbacks: int) -> object:
    held = ffi.new("CK_C_INITIALIZE_ARGS *")
    held.flags = flags
    for name in ("CreateMutex", "DestroyMutex", "LockMutex", "UnlockMutex")[:callbacks]:
        setattr(held, name, ffi.cast("void *", 1))
    return held


@pytest.mark.rule("G2", "P9")
@pytest.mark.parametrize(("flags", "callbacks"), [(3, 4), (2, 0), (0, 4), (0, 0), (1, 0), (3, 0)])
def test_every_way_of_initialising_works(client: Client, flags: int, callbacks: int) -> None:
    """Takes any legal combination of flags and callbacks, NSS's among them."""
    client.ok("C_Finalize", ffi.NULL)
    client.ok("C_Initialize", arguments(flags, callbacks))


@pytest.mark.rule("G2")
def test_arguments_of_nss_with_parameters(client: Client) -> None:
    """Does not take NSS's module parameters for a faulty pReserved."""
    client.ok("C_Finalize", ffi.NULL)
    parameters = ffi.new("char[]", b"configdir='x'")
    held = arguments(3, 4)
    held.pReserved = parameters  # type: ignore[attr-defined]
    client.ok("C_Initialize", held)


def test_some_callbacks_without_the_others_are_refused(client: Client) -> None:
    client.ok("C_Finalize", ffi.NULL)
    assert client.call("C_Initialize", arguments(0, 2)) == CKR.ARGUMENTS_BAD


@pytest.mark.rule("G1", "G3")
def test_twice_and_again(client: Client) -> None:
    """Says CKR_CRYPTOKI_ALREADY_INITIALIZED and CKR_CRYPTOKI_NOT_INITIALIZED where they belong, again and again."""
    assert client.call("C_Initialize", ffi.NULL) == CKR.CRYPTOKI_ALREADY_INITIALIZED
    assert client.call("C_Finalize", ffi.cast("void *", 1)) == CKR.ARGUMENTS_BAD
    for _ in range(3):
        client.ok("C_Finalize", ffi.NULL)
        assert client.call("C_Finalize", ffi.NULL) == CKR.CRYPTOKI_NOT_INITIALIZED
        client.ok("C_Initialize", ffi.NULL)


@pytest.mark.rule("P9")
def test_threads_that_initialise_at_once_get_one_ok(client: Client) -> None:
    """Of eight threads that initialise at once one gets CKR_OK, the others CKR_CRYPTOKI_ALREADY_INITIALIZED."""
    client.ok("C_Finalize", ffi.NULL)
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(client.call("C_Initialize", ffi.NULL))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [CKR.OK] + 7 * [CKR.CRYPTOKI_ALREADY_INITIALIZED]


@pytest.mark.rule("G3")
def test_every_function_says_that_nothing_is_initialised(home: object) -> None:
    """Every function answers CKR_CRYPTOKI_NOT_INITIALIZED before C_Initialize."""
    client = Client(str(module_path()))
    client.call("C_Finalize", ffi.NULL)
    exempt = {"C_Initialize", "C_GetFunctionList", "C_GetInterfaceList", "C_GetInterface"}
    for name, field in ffi.typeof("CK_FUNCTION_LIST_3_2").fields:
        if name == "version" or name in exempt:
            continue
        kinds = field.type.args
        zeros = [ffi.NULL if kind.kind == "pointer" else 0 for kind in kinds]
        assert client.call(name, *zeros) == CKR.CRYPTOKI_NOT_INITIALIZED, name
