"""Pitfalls in how a module gets on with its host: forks, memory that is the host's, texts of fixed size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyfob.spec.constants import CKA, CKM, CKR
from tests.client import Client, ffi
from tests.conftest import PIN, SO_PIN, Fob, module_path
from tests.rules.nss_calls import Nss, start

ROOT = Path(__file__).resolve().parents[2]
GUARD = b"\xa5" * 64
TEXTS = {
    "CK_INFO": ("manufacturerID", "libraryDescription"),
    "CK_SLOT_INFO": ("slotDescription", "manufacturerID"),
    "CK_TOKEN_INFO": ("label", "manufacturerID", "model", "serialNumber", "utcTime"),
}


@pytest.mark.rule("P39", "G1")
def test_a_child_of_nss_starts_the_module_anew(nss: Nss, home: Path) -> None:
    """Tells a forked child CKR_CRYPTOKI_NOT_INITIALIZED, works there after a new start, and lets the parent go on."""
    nss.slot.login(PIN)
    nss.slot.generate_ec()
    nss.end()
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.rules.forked_nss"]
    done = subprocess.run(
        [*command, str(module_path()), PIN.decode()],
        env=os.environ | {"KEYFOB_HOME": str(home)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    seen = json.loads(done.stdout)
    uninitialised = "CKR_CRYPTOKI_NOT_INITIALIZED"
    told = {"probe": uninitialised, "session": uninitialised, "finalize": uninitialised}
    assert seen["child"] == told | {"logged in": False, "private keys": 0, "signs": True}
    assert seen["parent"] == {"status": 0, "finishes": True, "logged in": True, "signs": True}


def filled(client: Client, name: str, struct: str, *arguments: int) -> dict[str, bytes]:
    """The texts of a struct that lies between two guards of 64 bytes, which must stay what they are."""
    size = ffi.sizeof(struct)
    memory = ffi.new("unsigned char[]", GUARD + b"\xa5" * size + GUARD)
    client.ok(name, *arguments, ffi.cast(f"{struct} *", memory + len(GUARD)))
    held = bytes(ffi.buffer(memory, len(GUARD) * 2 + size))
    assert held[: len(GUARD)] == held[len(GUARD) + size :] == GUARD
    read = ffi.cast(f"{struct} *", memory + len(GUARD))
    return {field: bytes(ffi.buffer(getattr(read, field))) for field in TEXTS[struct]}


def check_texts(texts: dict[str, bytes]) -> None:
    for field, value in texts.items():
        assert b"\0" not in value, field
        assert value.decode().isprintable(), field
        assert value.strip(b" ") or field in ("label", "utcTime"), field
        assert value == value.rstrip(b" ").ljust(len(value)), field


@pytest.mark.rule("P40", "G6", "S3", "S10")
def test_texts_fill_their_fields_and_nothing_else(nss: Nss) -> None:
    """Fills every text to its last byte with blanks and writes not one byte beside the struct that the host gave."""
    slot = nss.slot.id
    check_texts(filled(nss.client, "C_GetInfo", "CK_INFO"))
    check_texts(filled(nss.client, "C_GetSlotInfo", "CK_SLOT_INFO", slot))
    check_texts(filled(nss.client, "C_GetTokenInfo", "CK_TOKEN_INFO", slot))


@pytest.mark.rule("P40", "P17", "S10")
@pytest.mark.parametrize("label", ["x" * 32, "ü" * 16, "€" * 10, "鍵" * 10 + "ab", "🔑" * 8, "a  b"])
def test_labels_as_long_as_their_field(module: Client, label: str) -> None:
    """Keeps labels of up to 32 bytes whole, in any script; NSS finds the token by exactly that name."""
    module.initialize()
    fob = Fob(module)
    module.ok("C_CloseAllSessions", fob.slot)
    module.ok("C_InitToken", fob.slot, SO_PIN, len(SO_PIN), label.encode().ljust(32))
    texts = filled(module, "C_GetTokenInfo", "CK_TOKEN_INFO", fob.slot)
    check_texts(texts)
    assert texts["label"] == label.encode().ljust(32)
    module.ok("C_Finalize", ffi.NULL)
    assert start(module).named(label).id == fob.slot


@pytest.mark.rule("P37", "P24")
def test_values_are_written_where_the_host_said_and_not_beside(nss: Nss) -> None:
    """Writes attribute values, signatures and lists of handles into the host's buffers and not one byte behind them."""
    slot, client = nss.slot, nss.client
    slot.login(PIN)
    _, private = slot.generate_ec()
    memory = ffi.new("unsigned char[]", b"\xa5" * 256)

    def written(size: int) -> bool:
        held = bytes(ffi.buffer(memory, 256))
        ffi.buffer(memory)[:256] = b"\xa5" * 256
        return held[64 + size :] == b"\xa5" * (192 - size) and held[:64] == GUARD

    for attribute, size in ((CKA.ID, 20), (CKA.CLASS, 8), (CKA.TOKEN, 1), (CKA.EC_PARAMS, 10)):
        entry = ffi.new("CK_ATTRIBUTE *", (attribute, memory + 64, size))
        client.ok("C_GetAttributeValue", slot.session, private, entry, 1)
        assert written(size)
        entry = ffi.new("CK_ATTRIBUTE *", (attribute, memory + 64, size - 1))
        assert client.call("C_GetAttributeValue", slot.session, private, entry, 1) == CKR.BUFFER_TOO_SMALL
        assert written(0)
    length = ffi.new("CK_ULONG *", 64)
    client.ok("C_SignInit", slot.session, client.mechanism(CKM.ECDSA), private)
    client.ok("C_Sign", slot.session, bytes(32), 32, memory + 64, length)
    assert written(64)
    client.ok("C_GenerateRandom", slot.session, memory + 64, 32)
    assert written(32)
    array, count, _kept = client.template([(CKA.TOKEN, True)])
    client.ok("C_FindObjectsInit", slot.session, array, count)
    client.ok("C_FindObjects", slot.session, ffi.cast("CK_ULONG *", memory + 64), 1, length)
    assert written(8)
    client.ok("C_FindObjectsFinal", slot.session)
