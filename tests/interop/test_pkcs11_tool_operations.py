"""OpenSC's pkcs11-tool uses keys on the token: every result is checked by OpenSSL, and OpenSSL's by the token."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap_with_padding
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.interop.pkcs11_tool import Pkcs11Tool

pytestmark = pytest.mark.interop

SHORT = b"a short message"
LONG = bytes(range(256)) * 40
"""Longer than pkcs11-tool's buffer of 1024 bytes: it goes in parts."""
IV = bytes(range(16, 32))
AES_VALUE = bytes(range(32))
SHA256_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")

HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "SHA1": hashes.SHA1(),
    "SHA224": hashes.SHA224(),
    "SHA256": hashes.SHA256(),
    "SHA384": hashes.SHA384(),
    "SHA512": hashes.SHA512(),
}
CURVES = {"prime256v1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512", "secp256k1": "SHA256"}
"""The curves and the hash that fits each."""


@dataclass(frozen=True, slots=True)
class Keys:
    """CKA_IDs (hex) of the keys that the tests of this file share, and the public ones."""

    rsa_id: str
    rsa_public: rsa.RSAPublicKey
    ec_id: Mapping[str, str]
    ec_public: Mapping[str, ec.EllipticCurvePublicKey]
    edwards_id: str
    aes_id: str
    mac_id: str
    mac_value: bytes


@pytest.fixture(scope="module")
def keys(tool: Pkcs11Tool) -> Keys:
    """Make the keys; the values of AES and MAC key are known here."""
    rsa_id, edwards_id, aes_id, mac_id = (tool.fresh() for _ in range(4))
    rsa_public = tool.generate("rsa:2048", rsa_id, "RSA")
    assert isinstance(rsa_public, rsa.RSAPublicKey)
    ec_ids = {curve: tool.fresh() for curve in CURVES}
    ec_public = {}
    for curve, identifier in ec_ids.items():
        key = tool.generate(f"EC:{curve}", identifier, curve)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        ec_public[curve] = key
    tool("--keypairgen", "--key-type", "EC:edwards25519", "--id", edwards_id, "--label", "Ed25519")
    write_secret(tool, AES_VALUE, aes_id)
    # The tool of 0.23 cannot write a generic secret, but shows the value of an extractable one.
    tool("--keygen", "--key-type", "GENERIC:64", "--id", mac_id, "--label", "MAC", "--extractable", "--usage-sign")
    mac_value = bytes.fromhex(tool.listed("Secret Key", mac_id)["VALUE"])
    return Keys(rsa_id, rsa_public, ec_ids, ec_public, edwards_id, aes_id, mac_id, mac_value)


def write_secret(tool: Pkcs11Tool, value: bytes, identifier: str) -> None:
    """Put an AES-256 key of known value on the token."""
    source = tool.folder / "secret"
    source.write_bytes(value)
    usages = ("--usage-sign", "--usage-decrypt", "--usage-wrap", "--extractable")
    named = ("--type", "secrkey", "--key-type", "AES:32", "--id", identifier, "--label", "written")
    tool("--write-object", source, *named, *usages)


def signed(tool: Pkcs11Tool, identifier: str, mechanism: str, data: bytes, *more: str) -> bytes:
    """Sign `data` on the token, let the token verify it, and show that it refuses another message."""
    command = ("--mechanism", mechanism, "--id", identifier, *more)
    signature = tool.pipe("--sign", *command, data=data)

    message, proof = tool.folder / "message", tool.folder / "signature"
    message.write_bytes(data)
    proof.write_bytes(signature)
    assert "Signature is valid" in tool(
        "--verify", *command, "--input-file", message, "--signature-file", proof, login=False
    )
    message.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    refused = tool.attempt("--verify", *command, "--input-file", message, "--signature-file", proof, login=False)
    assert b"Invalid signature" in refused.stdout, refused.stdout.decode()
    return signature


class TestRsaSignatures:
    """PKCS #1 v1.5, PSS and the bare RSA operation."""

    @pytest.mark.parametrize("data", [SHORT, LONG], ids=["at once", "in parts"])
    @pytest.mark.parametrize("name", HASHES)
    def test_pkcs1_with_hashing(self, tool: Pkcs11Tool, keys: Keys, name: str, data: bytes) -> None:
        signature = signed(tool, keys.rsa_id, f"{name}-RSA-PKCS", data)
        keys.rsa_public.verify(signature, data, padding.PKCS1v15(), HASHES[name])

    def test_pkcs1_of_a_digest_info(self, tool: Pkcs11Tool, keys: Keys) -> None:
        digest_info = SHA256_DIGEST_INFO + hashlib.sha256(SHORT).digest()
        signature = signed(tool, keys.rsa_id, "RSA-PKCS", digest_info)
        keys.rsa_public.verify(signature, SHORT, padding.PKCS1v15(), hashes.SHA256())

    @pytest.mark.parametrize("data", [SHORT, LONG], ids=["at once", "in parts"])
    @pytest.mark.parametrize("name", HASHES)
    def test_pss_with_hashing(self, tool: Pkcs11Tool, keys: Keys, name: str, data: bytes) -> None:
        """pkcs11-tool chooses MGF1 with the same hash and a salt of its length."""
        signature = signed(tool, keys.rsa_id, f"{name}-RSA-PKCS-PSS", data)
        scheme = padding.PSS(padding.MGF1(HASHES[name]), HASHES[name].digest_size)
        keys.rsa_public.verify(signature, data, scheme, HASHES[name])

    @pytest.mark.parametrize("salt", [0, 20, 32])
    def test_pss_of_a_digest(self, tool: Pkcs11Tool, keys: Keys, salt: int) -> None:
        digest = hashlib.sha256(SHORT).digest()
        wishes = ("--hash-algorithm", "SHA256", "--mgf", "MGF1-SHA256", "--salt-len", str(salt))
        signature = signed(tool, keys.rsa_id, "RSA-PKCS-PSS", digest, *wishes)
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
        keys.rsa_public.verify(signature, digest, scheme, Prehashed(hashes.SHA256()))

    def test_bare_rsa_of_a_padded_block(self, tool: Pkcs11Tool, keys: Keys) -> None:
        digest_info = SHA256_DIGEST_INFO + hashlib.sha256(SHORT).digest()
        block = b"\x00\x01".ljust(255 - len(digest_info), b"\xff") + b"\x00" + digest_info
        signature = tool.pipe("--sign", "--mechanism", "RSA-X-509", "--id", keys.rsa_id, data=block)
        keys.rsa_public.verify(signature, SHORT, padding.PKCS1v15(), hashes.SHA256())


class TestCurveSignatures:
    """ECDSA and EdDSA."""

    @pytest.mark.parametrize("curve", CURVES)
    def test_ecdsa_of_a_digest(self, tool: Pkcs11Tool, keys: Keys, curve: str) -> None:
        name = CURVES[curve]
        digest = hashlib.new(name, SHORT).digest()
        wishes = ("--signature-format", "openssl")
        signature = signed(tool, keys.ec_id[curve], "ECDSA", digest, *wishes)
        keys.ec_public[curve].verify(signature, digest, ec.ECDSA(Prehashed(HASHES[name])))

    @pytest.mark.parametrize("data", [SHORT, LONG], ids=["at once", "in parts"])
    @pytest.mark.parametrize("name", HASHES)
    def test_ecdsa_with_hashing(self, tool: Pkcs11Tool, keys: Keys, name: str, data: bytes) -> None:
        tool.token.softhsm_cannot("CKM_ECDSA_SHAxxx")
        wishes = ("--signature-format", "openssl")
        signature = signed(tool, keys.ec_id["secp384r1"], f"ECDSA-{name}", data, *wishes)
        keys.ec_public["secp384r1"].verify(signature, data, ec.ECDSA(HASHES[name]))

    def test_eddsa(self, tool: Pkcs11Tool, keys: Keys) -> None:
        signature = tool.pipe("--sign", "--mechanism", "EDDSA", "--id", keys.edwards_id, data=SHORT)
        ed25519.Ed25519PublicKey.from_public_bytes(tool.point(keys.edwards_id)).verify(signature, SHORT)


class TestMacs:
    """HMAC; the tool of 0.23 signs with a secret key for no other mechanism."""

    @pytest.mark.parametrize("data", [SHORT, LONG], ids=["at once", "in parts"])
    @pytest.mark.parametrize("name", [name for name in HASHES if name != "SHA1"])
    def test_hmac(self, tool: Pkcs11Tool, keys: Keys, name: str, data: bytes) -> None:
        code = tool.pipe("--sign", "--mechanism", f"{name}-HMAC", "--id", keys.mac_id, data=data)
        assert code == hmac.digest(keys.mac_value, data, name)


class TestEncryption:
    """Decryption with RSA; AES in both directions."""

    def test_rsa_pkcs1_decryption(self, tool: Pkcs11Tool, keys: Keys) -> None:
        sealed = keys.rsa_public.encrypt(SHORT, padding.PKCS1v15())
        assert tool.pipe("--decrypt", "--mechanism", "RSA-PKCS", "--id", keys.rsa_id, data=sealed) == SHORT

    @pytest.mark.parametrize("name", HASHES)
    def test_rsa_oaep_decryption(self, tool: Pkcs11Tool, keys: Keys, name: str) -> None:
        """pkcs11-tool 0.23 gives `source` 0 with no data, where the standard knows only CKZ_DATA_SPECIFIED."""
        if name != "SHA1":
            tool.token.softhsm_cannot("OAEP with any hash but SHA-1 (C_DecryptInit: CKR_ARGUMENTS_BAD)")
        algorithm = HASHES[name]
        sealed = keys.rsa_public.encrypt(SHORT, padding.OAEP(padding.MGF1(algorithm), algorithm, None))
        wishes = ("--hash-algorithm", "SHA-1" if name == "SHA1" else name)
        opened = tool.pipe("--decrypt", "--mechanism", "RSA-PKCS-OAEP", *wishes, "--id", keys.rsa_id, data=sealed)
        assert opened == SHORT

    def test_bare_rsa_decryption(self, tool: Pkcs11Tool, keys: Keys) -> None:
        numbers = keys.rsa_public.public_numbers()
        block = b"\x00" + os.urandom(255)
        sealed = pow(int.from_bytes(block), numbers.e, numbers.n).to_bytes(256)
        assert tool.pipe("--decrypt", "--mechanism", "RSA-X-509", "--id", keys.rsa_id, data=sealed) == block

    def test_damaged_rsa_ciphertext_does_not_yield_the_message(self, tool: Pkcs11Tool, keys: Keys) -> None:
        sealed = keys.rsa_public.encrypt(SHORT, padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None))
        damaged = tool.folder / "damaged"
        damaged.write_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))
        command = ("--decrypt", "--mechanism", "RSA-PKCS-OAEP", "--hash-algorithm", "SHA-1", "--id", keys.rsa_id)
        done = tool.attempt(*command, "--input-file", damaged)
        assert done.returncode != 0
        assert b"C_Decrypt" in done.stdout

    @pytest.mark.parametrize("blocks", [1, 63, 64, 200], ids="{} blocks".format)
    @pytest.mark.parametrize("mechanism", ["AES-ECB", "AES-CBC", "AES-CBC-PAD"])
    def test_aes_in_both_directions(self, tool: Pkcs11Tool, keys: Keys, mechanism: str, blocks: int) -> None:
        """1024 bytes (64 blocks) and more go in parts; with padding the message is not a whole number of blocks."""
        padded = mechanism == "AES-CBC-PAD"
        data = os.urandom(16 * blocks - (5 if padded else 0))
        wishes = () if mechanism == "AES-ECB" else ("--iv", IV.hex())
        sealed = tool.pipe("--encrypt", "--mechanism", mechanism, *wishes, "--id", keys.aes_id, data=data)

        if padded:
            padder = PKCS7(128).padder()
            whole = padder.update(data) + padder.finalize()
        else:
            whole = data
        reference = Cipher(AES(AES_VALUE), ECB() if mechanism == "AES-ECB" else CBC(IV)).encryptor()
        assert sealed == reference.update(whole) + reference.finalize()
        assert tool.pipe("--decrypt", "--mechanism", mechanism, *wishes, "--id", keys.aes_id, data=sealed) == data


class TestDerivation:
    """ECDH with a key on the token."""

    @pytest.mark.parametrize("form", [(), ("--derive-pass-der",)], ids=["raw point", "DER point"])
    @pytest.mark.parametrize("curve", ["prime256v1", "secp384r1", "secp521r1"])
    def test_both_sides_get_the_same_secret(
        self, tool: Pkcs11Tool, keys: Keys, curve: str, form: tuple[str, ...]
    ) -> None:
        if curve == "secp521r1":
            tool.token.softhsm_cannot("a secret with a leading zero byte, as half of all P-521 secrets have")
        peer = ec.generate_private_key(keys.ec_public[curve].curve)
        point = peer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        command = ("--derive", "--mechanism", "ECDH1-DERIVE", "--id", keys.ec_id[curve], *form)
        assert tool.pipe(*command, data=point) == peer.exchange(ec.ECDH(), keys.ec_public[curve])


class TestWrapping:
    """Keys leave and enter the token under other keys."""

    def test_wrapped_aes_key_is_unwrapped_by_its_standard(self, tool: Pkcs11Tool, keys: Keys) -> None:
        target = tool.fresh()
        value = os.urandom(32)
        write_secret(tool, value, target)
        wrapped = self.wrap(tool, "AES-KEY-WRAP", keys.aes_id, target)
        assert aes_key_unwrap(AES_VALUE, wrapped) == value

    def test_rsa_wraps_and_unwraps_an_aes_key(self, tool: Pkcs11Tool, keys: Keys) -> None:
        source, copy = tool.fresh(), tool.fresh()
        write_secret(tool, bytes(range(100, 132)), source)
        wrapped = self.wrap(tool, "RSA-PKCS", keys.rsa_id, source)
        self.unwrap(tool, "RSA-PKCS", keys.rsa_id, wrapped, copy)
        assert self.probe(tool, copy) == self.probe(tool, source)

    def test_key_wrapped_by_openssl_is_unwrapped(self, tool: Pkcs11Tool, keys: Keys) -> None:
        """RFC 5649, which the tool of 0.23 knows by its number only."""
        copy = tool.fresh()
        value = os.urandom(32)
        # SoftHSM knows RFC 5649 by the number of CKM_AES_KEY_WRAP_PAD, the standard by that of CKM_AES_KEY_WRAP_KWP.
        mechanism = "0x210A" if tool.token.module.kind == "softhsm" else "0x210B"
        self.unwrap(tool, mechanism, keys.aes_id, aes_key_wrap_with_padding(AES_VALUE, value), copy)
        reference = Cipher(AES(value), ECB()).encryptor()
        assert self.probe(tool, copy) == reference.update(AES_VALUE)

    def test_damaged_wrapping_is_refused(self, tool: Pkcs11Tool, keys: Keys) -> None:
        source, copy = tool.fresh(), tool.fresh()
        write_secret(tool, AES_VALUE, source)
        wrapped = bytearray(self.wrap(tool, "AES-KEY-WRAP", keys.aes_id, source))
        wrapped[5] ^= 1
        file = tool.folder / "damaged"
        file.write_bytes(wrapped)
        done = tool.attempt(*self.unwrapping("AES-KEY-WRAP", keys.aes_id, file, copy))
        assert done.returncode != 0
        assert re.search(rb"C_UnwrapKey failed: rv = CKR_(WRAPPED_KEY_INVALID|GENERAL_ERROR)", done.stdout), done.stdout
        assert not re.search(rf"ID: +{copy}\b", tool("--list-objects"))

    @staticmethod
    def wrap(tool: Pkcs11Tool, mechanism: str, wrapping: str, target: str) -> bytes:
        """Wrap the secret key `target`; pkcs11-tool names it by `--application-id`."""
        output = tool.folder / "wrapped"
        output.unlink(missing_ok=True)
        # The tool says 1 for success here.
        done = tool.attempt(
            "--wrap", "--mechanism", mechanism, "--id", wrapping, "--application-id", target, "--output-file", output
        )
        assert b"Key wrapped" in done.stdout, done.stdout.decode()
        return output.read_bytes()

    @staticmethod
    def unwrapping(mechanism: str, wrapping: str, file: Path, target: str) -> tuple[str | Path, ...]:
        """Arguments to make the AES key `target` out of `file`."""
        named = ("--key-type", "AES:", "--application-id", target, "--application-label", "unwrapped")
        return ("--unwrap", "--mechanism", mechanism, "--id", wrapping, "--input-file", file, *named)

    def unwrap(self, tool: Pkcs11Tool, mechanism: str, wrapping: str, wrapped: bytes, target: str) -> None:
        """Make the AES key `target` out of `wrapped`."""
        file = tool.folder / "wrapped"
        file.write_bytes(wrapped)
        output = tool(*self.unwrapping(mechanism, wrapping, file, target))
        assert "Key unwrapped" in output

    @staticmethod
    def probe(tool: Pkcs11Tool, identifier: str) -> bytes:
        """Encrypt the same two blocks with the AES key `identifier`: equal keys give equal results."""
        return tool.pipe("--encrypt", "--mechanism", "AES-ECB", "--id", identifier, data=AES_VALUE)


class TestHashesAndRandom:
    """What needs no key."""

    @pytest.mark.parametrize("data", [SHORT, LONG], ids=["at once", "in parts"])
    @pytest.mark.parametrize("name", ["MD5", "SHA-1", "SHA224", "SHA256", "SHA384", "SHA512"])
    def test_digest(self, tool: Pkcs11Tool, name: str, data: bytes) -> None:
        digest = tool.pipe("--hash", "--mechanism", name, data=data, login=False)
        assert digest == hashlib.new(name.replace("-", ""), data).digest()

    def test_random_bytes_differ(self, tool: Pkcs11Tool) -> None:
        first, second = tool.folder / "random-1", tool.folder / "random-2"
        for file in (first, second):
            tool("--generate-random", "5000", "--output-file", file, login=False)
            assert len(file.read_bytes()) == 5000
        assert first.read_bytes() != second.read_bytes()
