"""C_UnwrapKey with PKCS #1 v1.5 tells nobody whether the padding was good (Bleichenbacher; Bardou et al., 2012)."""

from __future__ import annotations

import pytest

from keyfob.mechanisms import key_class
from keyfob.mechanisms.secret_key import SecretKey
from keyfob.spec.constants import CKA, CKK, CKM, CKO, CKR
from tests.client import Template, ffi
from tests.conftest import Fob
from tests.functional.ways import READABLE, SECRETS, value_of
from tests.rules.nss_templates import components
from tests.rules.software_keys import rsa_key

NUMBERS = rsa_key(0, 1024).private_numbers()
MODULUS, EXPONENT = NUMBERS.public_numbers.n, NUMBERS.public_numbers.e
SIZE = 128
USAGES: Template = [(CKA.UNWRAP, True), (CKA.DECRYPT, False)]


def encrypted(block: bytes) -> bytes:
    assert len(block) == SIZE
    return pow(int.from_bytes(block, "big"), EXPONENT, MODULUS).to_bytes(SIZE, "big")


def padded(value: bytes) -> bytes:
    return b"\x00\x02" + b"\x55" * (SIZE - 3 - len(value)) + b"\x00" + value


BAD = {
    "no padding": b"\x00\x03" + b"\x55" * (SIZE - 2),
    "no end of the padding": b"\x00\x02" + b"\x55" * (SIZE - 2),
    "too short a padding": b"\x00\x02" + b"\x55" * 4 + b"\x00" + b"\x66" * (SIZE - 7),
    "nothing wrapped": padded(b""),
    "too much wrapped": padded(b"\x66" * (SIZE - 11)),
    "one byte": padded(b"\x66"),
    "17 bytes": padded(b"\x66" * 17),
}


@pytest.mark.parametrize("key_type", SECRETS)
def test_every_ciphertext_unwraps_to_a_key_of_a_length_that_its_type_has(fob: Fob, key_type: int) -> None:
    """Good padding, bad padding and keys of other lengths are all CKR_OK, without CKA_VALUE_LEN too."""
    client, session = fob.client, fob.session
    private: Template = [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.KEY_TYPE, CKK.RSA), *components(rsa_key(0, 1024)).items()]
    key = client.create(session, [*private, *USAGES])
    kind = key_class(CKO.SECRET_KEY, key_type)
    assert issubclass(kind, SecretKey)
    template: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, key_type), *READABLE]
    array, count, _kept = client.template(template)

    def unwrapped(block: bytes) -> bytes:
        wrapped, handle = encrypted(block), ffi.new("CK_ULONG *")
        rv = client.call(
            "C_UnwrapKey", session, client.mechanism(CKM.RSA_PKCS), key, wrapped, SIZE, array, count, handle
        )
        assert rv == CKR.OK, hex(rv)
        (value,) = client.get(session, handle[0], CKA.VALUE)
        assert value is not None
        return value

    assert unwrapped(padded(value_of(key_type))) == value_of(key_type)
    for name, block in BAD.items():
        value = unwrapped(block)
        assert len(value) in kind.LENGTHS, name
        assert value == unwrapped(block), f"{name}: another substitute would tell it from a key"


def test_the_substitutes_have_all_lengths_that_an_aes_key_may_have(fob: Fob) -> None:
    """One length would tell a substitute from the others."""
    client, session = fob.client, fob.session
    private: Template = [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.KEY_TYPE, CKK.RSA), *components(rsa_key(0, 1024)).items()]
    key = client.create(session, [*private, *USAGES])
    array, count, _kept = client.template([(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES)])
    lengths = set()
    for salt in range(64):
        wrapped, handle = encrypted(b"\x00\x03" + bytes([salt]) * (SIZE - 2)), ffi.new("CK_ULONG *")
        client.ok("C_UnwrapKey", session, client.mechanism(CKM.RSA_PKCS), key, wrapped, SIZE, array, count, handle)
        (length,) = client.get(session, handle[0], CKA.VALUE_LEN)
        lengths.add(length)
    assert lengths == {size.to_bytes(8, "little") for size in (16, 24, 32)}
