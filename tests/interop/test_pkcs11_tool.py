"""OpenSC's pkcs11-tool as a client: its own self-test, tokens and PINs, key generation, objects of every class."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.interop.certificates import Authority
from tests.interop.pkcs11_tool import Pkcs11Tool

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.tokens import Token

pytestmark = pytest.mark.interop

NEW_PIN = "Changed-4410"
FAILURE_SIGNS = ("ERR", "warning:", "Warning:", "failed", "CKR_")
"""What pkcs11-tool prints beside an exit status of 0 when something went wrong."""


def assert_no_complaint(output: str) -> None:
    """Fail when `output` tells of a fault, which pkcs11-tool does not always show in its exit status."""
    complaints = [line for line in output.splitlines() if any(sign in line for sign in FAILURE_SIGNS)]
    assert not complaints, output


def sign_and_check(tool: Pkcs11Tool, identifier: str) -> None:
    """Sign with the EC key `identifier` and verify the result away from the token."""
    key = tool.public_key(identifier)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    digest = bytes(range(32))
    command = ("--sign", "--mechanism", "ECDSA", "--id", identifier, "--signature-format", "openssl")
    signature = tool.pipe(*command, data=digest)
    key.verify(signature, digest, ec.ECDSA(Prehashed(SHA256())))


@pytest.fixture(scope="module")
def with_keys(tool: Pkcs11Tool) -> Pkcs11Tool:
    """The tool on a token that holds an RSA and an EC key pair."""
    tool.generate("rsa:2048", "01", "an RSA key")
    tool.generate("EC:prime256v1", "02", "an EC key")
    return tool


class TestSelfTest:
    """`--test` and its relatives, in which pkcs11-tool knows by itself what is right."""

    def test_passes(self, with_keys: Pkcs11Tool) -> None:
        with_keys.token.softhsm_cannot("OAEP with a label (C_DecryptInit: CKR_ARGUMENTS_BAD)")
        output = with_keys("--test")
        assert "No errors" in output
        assert_no_complaint(output)

    def test_with_software_mechanisms_signs_too(self, with_keys: Pkcs11Tool) -> None:
        """Without `--allow-sw` it takes only mechanisms with CKF_HW and skips all signing on a token in software."""
        with_keys.token.softhsm_cannot("OAEP with a label (C_DecryptInit: CKR_ARGUMENTS_BAD)")
        output = with_keys("--test", "--allow-sw", "--session-rw")
        assert "No errors" in output
        for mechanism in ("RSA-X-509", "RSA-PKCS", "SHA1-RSA-PKCS", "SHA256-RSA-PKCS", "RSA-PKCS-OAEP"):
            assert re.search(rf"^    {mechanism}: .*OK$", output, re.MULTILINE | re.DOTALL), output
        # The first mechanism it takes is bare RSA, which has no C_SignUpdate; it says so and goes on.
        single_part = "warning: PKCS11 function C_SignUpdate failed: rv = CKR_FUNCTION_NOT_SUPPORTED (0x54)"
        assert_no_complaint(output.replace(single_part, ""))

    @pytest.mark.parametrize("curve", ["prime256v1", "secp384r1"])
    def test_of_an_ec_key_passes(self, tool: Pkcs11Tool, curve: str) -> None:
        """Generate, rename, CKM_ECDSA_SHA1 with a buffer first too small and then given up, delete."""
        tool.token.softhsm_cannot("CKM_ECDSA_SHA1 (C_SignInit: CKR_MECHANISM_INVALID)")
        output = tool("--session-rw", "--test-ec", "--id", "a0", "--key-type", f"EC:{curve}")
        assert "==> OK" in output
        assert_no_complaint("\n".join(line for line in output.splitlines() if "C_SignFinal" not in line))

    def test_of_mozillas_way_to_a_certificate_passes(self, own_token: Token, tmp_path: Path) -> None:
        """`--moz-cert`: a key pair, renamed as NSS does it, signing, deleted; then a certificate is put there."""
        tool, certificate = Pkcs11Tool(own_token, tmp_path), tmp_path / "certificate.der"
        key = tool.generate("EC:prime256v1", "a1", "certified")
        certificate.write_bytes(Authority().client("Mozilla", key).public_bytes(Encoding.DER))
        output = tool("--moz-cert", certificate, "--id", "a2", "--key-type", "rsa:2048", "--session-rw")
        assert "==> OK, successful! Should work with Mozilla" in output
        assert_no_complaint(output)

    def test_child_of_a_fork_can_initialize(self, tool: Pkcs11Tool) -> None:
        tool.token.softhsm_cannot("C_Initialize after fork (CKR_CRYPTOKI_ALREADY_INITIALIZED)")
        tool("--test-fork", login=False)

    def test_threads_may_initialize_and_ask_at_once(self, tool: Pkcs11Tool) -> None:
        """Two threads: C_Initialize, C_GetInfo, C_GetSlotList, C_GetTokenInfo; the second initialisation is refused."""
        tool.token.softhsm_cannot("two C_Initialize at once (double free, SIGABRT)")
        # The main thread logs in meanwhile: when it is done before the threads are, it sleeps for 30 seconds.
        output = tool("--list-objects", "--test-threads", "ILGISLT0", "--test-threads", "ILGISLT0")
        answers = re.findall(r"C_Initialize +returned (\w+)", output)
        assert sorted(answers) in (
            ["CKR_CRYPTOKI_ALREADY_INITIALIZED", "CKR_OK"],
            ["CKR_CRYPTOKI_ALREADY_INITIALIZED"] * 2,  # the tool's main thread was first
        )
        assert len(re.findall(r"thread:\d state:-1, rv:CKR_OK", output)) == 2, output


class TestListings:
    """What the module says about itself."""

    def test_slot_shows_the_token(self, tool: Pkcs11Tool) -> None:
        output = tool("--list-token-slots", login=False)
        assert re.search(rf"token label +: {tool.token.label}\n", output)
        flags = re.search(r"token flags +: (.*)", output)
        assert flags is not None
        assert {"login required", "rng", "token initialized", "PIN initialized"} <= set(flags[1].split(", "))

    def test_module_shows_its_version(self, tool: Pkcs11Tool) -> None:
        output = tool("--show-info", login=False)
        assert re.search(r"Cryptoki version [23]\.\d+", output)

    def test_interfaces_have_names_and_versions(self, tool: Pkcs11Tool) -> None:
        tool.token.softhsm_cannot("interfaces of PKCS #11 3.0")
        output = tool("--list-interfaces", login=False)
        assert re.search(r"Interface 'PKCS 11'", output), output

    def test_mechanisms_have_their_uses(self, tool: Pkcs11Tool) -> None:
        output = tool("--list-mechanisms", login=False)
        for name, uses in {
            "RSA-PKCS-KEY-PAIR-GEN": {"generate_key_pair"},
            "RSA-PKCS": {"encrypt", "decrypt", "sign", "verify", "wrap", "unwrap"},
            "RSA-PKCS-PSS": {"sign", "verify"},
            "SHA256-RSA-PKCS": {"sign", "verify"},
            "ECDSA": {"sign", "verify"},
            "ECDH1-DERIVE": {"derive"},
            "AES-KEY-GEN": {"generate"},
            "AES-CBC-PAD": {"encrypt", "decrypt"},
            "SHA256": {"digest"},
            "SHA256-HMAC": {"sign", "verify"},
        }.items():
            line = re.search(rf"^  {name}, (.*)$", output, re.MULTILINE)
            assert line is not None, f"{name} is not in\n{output}"
            assert uses <= set(line[1].split(", ")), line[0]


class TestPins:
    """Making a token and changing its PINs from a client that is not ours."""

    def test_blank_slot_becomes_a_token_with_a_pin(self, blank: Token, tmp_path: Path) -> None:
        """C_InitToken on the one slot of an empty home, then C_InitPIN as SO, then a key by the user."""
        bare = Pkcs11Tool(blank, tmp_path)
        assert "uninitialized" in bare("--list-slots", login=False)
        bare("--init-token", "--label", "made here", "--so-pin", blank.so_pin, login=False)

        made = Pkcs11Tool(blank.named("made here"), tmp_path)
        made("--init-pin", "--login", "--so-pin", blank.so_pin, "--pin", blank.pin, login=False)
        assert isinstance(made.generate("EC:prime256v1", "01", "first"), ec.EllipticCurvePublicKey)

    def test_initialising_again_empties_the_token(self, own_token: Token, tmp_path: Path) -> None:
        tool = Pkcs11Tool(own_token, tmp_path)
        tool.generate("EC:prime256v1", "01", "doomed")
        tool("--init-token", "--label", own_token.label, "--so-pin", own_token.so_pin, login=False)
        assert "doomed" not in tool("--list-objects", login=False)
        tool("--init-pin", "--login", "--so-pin", own_token.so_pin, "--pin", own_token.pin, login=False)
        assert "doomed" not in tool("--list-objects")

    def test_initialising_with_a_wrong_so_pin_keeps_everything(self, own_token: Token, tmp_path: Path) -> None:
        tool = Pkcs11Tool(own_token, tmp_path)
        tool.generate("EC:prime256v1", "01", "kept")
        done = tool.attempt("--init-token", "--label", "other", "--so-pin", "not-the-so-pin", login=False)
        assert done.returncode != 0
        assert b"CKR_PIN_INCORRECT" in done.stdout
        assert "kept" in tool("--list-objects")

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(("--change-pin", "--pin", "{pin}"), id="changed by the user"),
            pytest.param(("--unlock-pin", "--puk", "{pin}"), id="changed without a login"),
            pytest.param(("--init-pin", "--login", "--so-pin", "{so_pin}"), id="set by the SO"),
        ],
    )
    def test_new_pin_replaces_the_old(self, own_token: Token, tmp_path: Path, change: tuple[str, ...]) -> None:
        tool = Pkcs11Tool(own_token, tmp_path)
        tool.generate("EC:prime256v1", "01", "stays")
        pins = {"pin": own_token.pin, "so_pin": own_token.so_pin}
        tool(*(word.format(**pins) for word in change), "--new-pin", NEW_PIN, login=False)

        refused = tool.attempt("--list-objects")
        assert refused.returncode != 0
        assert b"CKR_PIN_INCORRECT" in refused.stdout
        renewed = Pkcs11Tool(own_token.with_pin(NEW_PIN), tmp_path)
        assert "Private Key Object" in renewed("--list-objects")
        sign_and_check(renewed, "01")

    def test_so_changes_the_so_pin(self, own_token: Token, tmp_path: Path) -> None:
        tool = Pkcs11Tool(own_token, tmp_path)
        as_so = ("--login", "--login-type", "so", "--so-pin")
        tool(*as_so, own_token.so_pin, "--change-pin", "--new-pin", NEW_PIN, login=False)
        refused = tool.attempt("--init-pin", "--login", "--so-pin", own_token.so_pin, "--pin", NEW_PIN, login=False)
        assert refused.returncode != 0
        assert b"CKR_PIN_INCORRECT" in refused.stdout
        tool("--init-pin", "--login", "--so-pin", NEW_PIN, "--pin", own_token.pin, login=False)


CURVES = {
    "EC:prime256v1": ec.SECP256R1,
    "EC:secp384r1": ec.SECP384R1,
    "EC:secp521r1": ec.SECP521R1,
    "EC:secp256k1": ec.SECP256K1,
}


class TestKeyGeneration:
    """Key pairs and secret keys, with the attributes that pkcs11-tool asks for."""

    @pytest.mark.parametrize("bits", [2048, 3072])
    def test_rsa_key_pair_has_the_size_asked_for(self, tool: Pkcs11Tool, bits: int) -> None:
        identifier = tool.fresh()
        key = tool.generate(f"rsa:{bits}", identifier, f"RSA {bits}")
        assert isinstance(key, rsa.RSAPublicKey)
        assert (key.key_size, key.public_numbers().e) == (bits, 65537)

    @pytest.mark.parametrize("curve", CURVES)
    def test_ec_key_pair_is_on_the_curve_asked_for(self, tool: Pkcs11Tool, curve: str) -> None:
        identifier = tool.fresh()
        key = tool.generate(curve, identifier, curve)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, CURVES[curve])

    @pytest.mark.parametrize(("name", "kind"), [("edwards25519", "EC_EDWARDS"), ("curve25519", "EC_MONTGOMERY")])
    def test_curve25519_key_pairs_are_made(self, tool: Pkcs11Tool, name: str, kind: str) -> None:
        """pkcs11-tool names these curves as the standard does, by a PrintableString and not by an OID."""
        identifier = tool.fresh()
        if name == "curve25519":
            tool.token.softhsm_cannot("CKM_EC_MONTGOMERY_KEY_PAIR_GEN")
        output = tool("--keypairgen", "--key-type", f"EC:{name}", "--id", identifier, "--label", name)
        assert re.search(rf"Private Key Object; {kind}\b", output), output
        assert len(tool.point(identifier)) == 32

    def test_private_key_stays_hidden(self, tool: Pkcs11Tool) -> None:
        """A key made without wishes is sensitive and never extractable, and not seen before login."""
        identifier = tool.fresh()
        tool.generate("EC:prime256v1", identifier, "hidden")
        access = tool.listed("Private Key", identifier)["Access"]
        assert access == "sensitive, always sensitive, never extractable, local"
        assert tool("--list-objects", "--type", "privkey", login=False).strip() == ""
        assert "hidden" in tool("--list-objects", "--type", "pubkey", login=False)

    @pytest.mark.parametrize(
        ("key_type", "shown"), [("AES:16", "AES length 16"), ("AES:32", "AES length 32"), ("GENERIC:64", "Generic")]
    )
    def test_secret_keys_are_made(self, tool: Pkcs11Tool, key_type: str, shown: str) -> None:
        identifier = tool.fresh()
        output = tool("--keygen", "--key-type", key_type, "--id", identifier, "--label", key_type)
        assert shown.lower() in output.lower()


class TestObjects:
    """Writing, reading, renaming and deleting objects of each class."""

    def test_certificate_is_read_back_as_written(self, tool: Pkcs11Tool) -> None:
        identifier = tool.fresh()
        key = tool.generate("EC:prime256v1", identifier, "certified")
        certificate = Authority().client("Zoe Writes", key)
        tool.write_certificate(certificate, identifier, "certified")
        assert tool.read("cert", identifier) == certificate.public_bytes(Encoding.DER)
        shown = tool("--list-objects", "--type", "cert", login=False)
        assert "subject:    DN: CN=Zoe Writes" in shown
        tool.delete(identifier)
        tool("--delete-object", "--type", "cert", "--id", identifier)
        assert "Zoe" not in tool("--list-objects")

    @pytest.mark.parametrize("kind", ["RSA", "EC"])
    def test_imported_private_key_signs(self, tool: Pkcs11Tool, tmp_path: Path, kind: str) -> None:
        """C_CreateObject of a private and a public key; the signature verifies with the key that was written."""
        identifier = tool.fresh()
        key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
        key = rsa.generate_private_key(65537, 2048) if kind == "RSA" else ec.generate_private_key(ec.SECP256R1())
        private, public = tmp_path / "private.der", tmp_path / "public.der"
        private.write_bytes(key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        for file, object_type in ((private, "privkey"), (public, "pubkey")):
            named = ("--type", object_type, "--id", identifier, "--label", "imported")
            tool("--write-object", file, *named, "--usage-sign")

        assert tool.public_key(identifier) == key.public_key()
        if isinstance(key, rsa.RSAPrivateKey):
            signature = tool.pipe("--sign", "--mechanism", "SHA256-RSA-PKCS", "--id", identifier, data=b"imported")
            key.public_key().verify(signature, b"imported", PKCS1v15(), SHA256())
        else:
            sign_and_check(tool, identifier)

    @pytest.mark.parametrize("private", [False, True])
    def test_data_object_is_read_back_as_written(self, tool: Pkcs11Tool, tmp_path: Path, *, private: bool) -> None:
        """With `--private` it is there for the user only."""
        content = bytes(range(256)) * 19  # pkcs11-tool reads no more than 5000 bytes
        source = tmp_path / "data"
        source.write_bytes(content)
        named = ("--type", "data", "--label", "some data", "--application-label", "interop")
        tool("--write-object", source, *named, *(["--private"] if private else []))

        target = tmp_path / "read"
        tool("--read-object", *named, "--output-file", target)
        assert target.read_bytes() == content
        assert ("some data" in tool("--list-objects", login=False)) is not private
        tool("--delete-object", *named)
        assert "some data" not in tool("--list-objects")

    def test_secret_key_is_imported(self, tool: Pkcs11Tool, tmp_path: Path) -> None:
        identifier = tool.fresh()
        source = tmp_path / "secret"
        source.write_bytes(bytes(range(32)))
        named = ("--type", "secrkey", "--id", identifier, "--label", "imported")
        tool("--write-object", source, *named, "--key-type", "AES:32", "--extractable")
        assert tool.listed("Secret Key", identifier)["VALUE"] == source.read_bytes().hex()

    def test_new_id_is_where_the_object_is_found(self, tool: Pkcs11Tool) -> None:
        """C_SetAttributeValue of CKA_ID."""
        old, new = tool.fresh(), tool.fresh()
        key = tool.generate("EC:prime256v1", old, "renamed")
        tool("--session-rw", "--type", "pubkey", "--id", old, "--set-id", new)
        assert tool.public_key(new) == key

    def test_deleted_key_is_gone(self, tool: Pkcs11Tool) -> None:
        identifier = tool.fresh()
        tool.generate("EC:prime256v1", identifier, "deleted")
        tool.delete(identifier)
        assert "deleted" not in tool("--list-objects")
        done = tool.attempt("--sign", "--mechanism", "ECDSA", "--id", identifier, "--input-file", "/dev/null")
        assert done.returncode != 0

    def test_writing_without_login_is_refused(self, tool: Pkcs11Tool, tmp_path: Path) -> None:
        """A private object needs the user; nothing is left behind."""
        source = tmp_path / "data"
        source.write_bytes(b"private")
        written = ("--write-object", source, "--type", "data", "--label", "uninvited", "--private")
        done = tool.attempt(*written, login=False)
        assert done.returncode != 0
        assert b"CKR_USER_NOT_LOGGED_IN" in done.stdout
        assert "uninvited" not in tool("--list-objects")
