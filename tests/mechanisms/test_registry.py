"""The registry: its index holds, families load when they are used, contradictions are noticed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keyfob import mechanisms
from keyfob.abi import imports
from keyfob.mechanisms.base import Key, Mechanism
from keyfob.mechanisms.index import INDEX, KEY_INDEX
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from keyfob.spec.errors import name_of
from tests.mechanisms.symmetric_vectors import refused, ulong

TOOL = Path(__file__).resolve().parents[2] / "tools" / "generate_index.py"
FACTS = TOOL.parents[1] / "facts" / "mechanism_functions.json"
FUNCTIONS = {
    "encrypt_decrypt": CKF.ENCRYPT | CKF.DECRYPT,
    "sign_verify": CKF.SIGN | CKF.VERIFY,
    "digest": CKF.DIGEST,
    "generate": CKF.GENERATE | CKF.GENERATE_KEY_PAIR,
    "wrap_unwrap": CKF.WRAP | CKF.UNWRAP,
    "derive": CKF.DERIVE,
}
SYMMETRIC = ("aes", "des3", "digest", "hmac", "secret")


def tool() -> Any:
    spec = importlib.util.spec_from_file_location("generate_index", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_index_is_what_the_families_say() -> None:
    done = subprocess.run([sys.executable, TOOL, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_rows_for_one_mechanism_are_an_error() -> None:
    generator = tool()
    families = {
        "one": SimpleNamespace(MECHANISMS=(Mechanism(CKM.AES_ECB, {}),)),
        "two": SimpleNamespace(MECHANISMS=(Mechanism(CKM.AES_ECB, {}),)),
    }
    with pytest.raises(generator.RegistryError, match="0x1081 has a row in one and one in two"):
        generator.mechanisms_of(families)


def test_every_type_of_secret_keys_says_whether_it_is_several_keys() -> None:
    """A new type that forgets is told here: the rules in token/policy.py and derivation.py ask for it."""
    found = {kind: mechanisms.key_class(*kind) for kind in KEY_INDEX if kind[0] == CKO.SECRET_KEY}
    for kind, key_class in found.items():
        assert hasattr(key_class, "PART_BITS"), name_of("CKK", kind[1])
    parts = {kind[1]: mechanisms.part_bits(kind[1]) for kind in found}
    assert {kind: bits for kind, bits in parts.items() if bits} == {CKK.DES2: 56, CKK.DES3: 56, CKK.AES_XTS: 128}


def test_two_classes_for_one_key_type_are_an_error() -> None:
    generator = tool()
    kind = {(CKO.SECRET_KEY, CKK.AES): Key}
    with pytest.raises(generator.RegistryError, match="claimed by one and by two"):
        generator.keys_of({"one": SimpleNamespace(KEYS=kind), "two": SimpleNamespace(KEYS=kind)})


def test_every_mechanism_of_the_index_is_found_with_its_flags() -> None:
    for mechanism, (_, flags, smallest, largest) in mechanisms.INDEX.items():
        row = mechanisms.lookup(mechanism)
        assert row.type == mechanism
        assert (row.flags, row.min_key_size, row.max_key_size) == (flags, smallest, largest)
        assert flags


def test_every_key_class_of_the_index_is_found() -> None:
    for object_class, key_type in mechanisms.KEY_INDEX:
        assert mechanisms.key_class(object_class, key_type) is not Key


def test_no_mechanism_does_what_the_standard_does_not_give_it() -> None:
    facts = json.loads(FACTS.read_text())
    checked = 0
    for mechanism, (family, *_) in mechanisms.INDEX.items():
        row, name = mechanisms.lookup(mechanism), name_of("CKM", mechanism)
        if name not in facts or family not in SYMMETRIC:
            continue
        checked += 1
        allowed = 0
        for function in facts[name]["functions"]:
            allowed |= FUNCTIONS.get(function, 0)
        for flag in row.operations:
            assert flag & allowed, f"{name} has {name_of('CKF', flag)}"
    assert checked > 80


def test_the_index_knows_mechanisms_without_loading_a_family() -> None:
    program = """
import sys
from keyfob import mechanisms
assert mechanisms.INDEX
print(*sorted(name for name in sys.modules if name.startswith("cryptography")))
mechanisms.lookup(0x250)
print(*sorted(set(f"keyfob.mechanisms.{family}" for family in mechanisms.FAMILIES) & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "keyfob.mechanisms.digest"]


def test_an_unknown_mechanism_is_refused() -> None:
    with refused(CKR.MECHANISM_INVALID):
        mechanisms.lookup(0x7FFFFFFF)


def test_a_key_that_no_family_claims_is_a_plain_key() -> None:
    attributes = {CKA.CLASS: ulong(CKO.SECRET_KEY), CKA.KEY_TYPE: ulong(CKK.BLOWFISH)}
    assert type(mechanisms.load_key(attributes)) is Key
    assert mechanisms.check_value(attributes) is None


def test_only_secret_keys_and_certificates_have_a_check_value() -> None:
    assert mechanisms.check_value({CKA.CLASS: ulong(CKO.CERTIFICATE), CKA.VALUE: b"abc"}) == bytes.fromhex("a9993e")
    assert mechanisms.check_value({CKA.CLASS: ulong(CKO.CERTIFICATE)}) is None
    assert mechanisms.check_value({CKA.CLASS: ulong(CKO.DATA), CKA.VALUE: b"abc"}) is None
    assert mechanisms.check_value({CKA.CLASS: ulong(CKO.PUBLIC_KEY), CKA.KEY_TYPE: ulong(CKK.RSA)}) is None


def test_forks_of_root_bring_in_every_family() -> None:
    """abi/imports.py names them, because that room does not look into this one."""
    assert {family for family, *_ in INDEX.values()} <= set(imports.MECHANISMS)
