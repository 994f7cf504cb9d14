"""p11-kit and GnuTLS: the module in a server that forks for each client, and p11tool as one more kind of client."""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from cryptography.x509 import load_pem_x509_certificate, load_pem_x509_csr

from tests.interop.certificates import Authority
from tests.interop.pkcs11_tool import Pkcs11Tool
from tests.interop.programs import missing, program, succeed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.interop.tokens import Token

pytestmark = pytest.mark.interop

CLIENT_PLACES = [Path(f"/usr/lib/{machine}-linux-gnu/pkcs11/p11-kit-client.so") for machine in ("x86_64", "aarch64")]


@pytest.fixture
def remote(token: Token, tmp_path: Path) -> Iterator[Token]:
    """The token behind `p11-kit server`: the module runs there, clients load p11-kit-client.so."""
    client = next((place for place in CLIENT_PLACES if place.exists()), None)
    if client is None:
        missing("p11-kit-client.so is not installed (apt-get install p11-kit-modules)")
    socket = tmp_path / "p11-kit"
    words = ["server", "--foreground", "--name", str(socket), "--provider", str(token.module.path), "pkcs11:"]
    server = subprocess.Popen(
        [program("p11-kit", "p11-kit"), *words],
        env=token.environment(XDG_RUNTIME_DIR=str(tmp_path)),
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        # It says where it listens once it does.
        assert server.stdout.readline().startswith(b"P11_KIT_SERVER_ADDRESS=")
        yield token.through(client, P11_KIT_SERVER_ADDRESS=f"unix:path={socket}")
    finally:
        server.terminate()
        server.communicate(timeout=30)


class TestRemote:
    """`p11-kit server` loads the module once and forks a process for each client that connects."""

    def test_every_client_gets_a_working_module(self, remote: Token, tmp_path: Path) -> None:
        tool = Pkcs11Tool(remote, tmp_path)
        key = tool.generate("EC:prime256v1", "7101", "made from afar")
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert tool.public_key("7101") == key
        assert len(tool.pipe("--sign", "--mechanism", "ECDSA", "--id", "7101", data=bytes(32))) == 64

    def test_clients_at_the_same_time_do_not_disturb_each_other(self, remote: Token, tmp_path: Path) -> None:
        remote.softhsm_cannot("several processes that write into its folder")

        def client(number: int) -> bool:
            folder = tmp_path / f"client-{number}"
            folder.mkdir()
            tool, identifier = Pkcs11Tool(remote, folder), f"72{number:02}"
            return tool.generate("EC:prime256v1", identifier, f"client {number}") == tool.public_key(identifier)

        with ThreadPoolExecutor(4) as clients:
            assert all(clients.map(client, range(4)))

    def test_wrong_pin_is_refused_from_afar(self, remote: Token, tmp_path: Path) -> None:
        done = Pkcs11Tool(remote.with_pin("wrong-PIN"), tmp_path).attempt("--list-objects")
        assert done.returncode != 0
        assert b"CKR_PIN_INCORRECT" in done.stdout


class P11Tool:
    """GnuTLS's `p11tool` and `certtool` on one token."""

    def __init__(self, token: Token, folder: Path) -> None:
        self.token = token
        self.folder = folder
        self._environment = token.environment(GNUTLS_PIN=token.pin, GNUTLS_SO_PIN=token.so_pin)
        self._provider = f"--provider={token.module.path}"

    def __call__(self, *arguments: str | Path) -> str:
        """Run p11tool and return what it printed; AssertionError when it fails."""
        return succeed([program("p11tool", "gnutls-bin"), self._provider, "--batch", *arguments], self._environment)

    def certtool(self, *arguments: str | Path) -> str:
        """Run certtool and return what it printed; AssertionError when it fails."""
        return succeed([program("certtool", "gnutls-bin"), self._provider, *arguments], self._environment)

    def url(self, **parts: str) -> str:
        """PKCS #11 URI of an object of the token."""
        return ";".join([f"pkcs11:token={self.token.label}", *(f"{name}={value}" for name, value in parts.items())])

    def generate(self, label: str, *kind: str) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
        """Make a key pair of the `kind` on the token; its public key as p11tool exports it."""
        file = self.folder / "public.pem"
        self("--login", "--generate-privkey", *kind, "--label", label, "--outfile", file, self.url())
        key = load_pem_public_key(file.read_bytes())
        assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
        return key


KINDS = {
    "RSA": ("rsa", "--bits", "2048"),
    "P-256": ("ecdsa", "--curve", "secp256r1"),
    "P-384": ("ecdsa", "--curve", "secp384r1"),
}


class TestGnuTls:
    """p11tool as a client; the keys then serve certtool."""

    @pytest.fixture
    def p11tool(self, token: Token, tmp_path: Path) -> P11Tool:
        return P11Tool(token, tmp_path)

    def test_token_is_listed(self, p11tool: P11Tool) -> None:
        output = p11tool("--list-tokens")
        assert f"Label: {p11tool.token.label}\n" in output
        assert "Requires login" in output

    def test_mechanisms_are_listed(self, p11tool: P11Tool) -> None:
        output = p11tool("--list-mechanisms", p11tool.url())
        for mechanism in ("CKM_RSA_PKCS", "CKM_RSA_PKCS_PSS", "CKM_ECDSA", "CKM_AES_CBC_PAD"):
            assert re.search(rf"\] {mechanism} .*(sign|encrypt)", output), output

    @pytest.mark.parametrize("kind", KINDS)
    def test_generated_key_signs(self, p11tool: P11Tool, kind: str) -> None:
        """`--test-sign` verifies with the private key's parameters and with the public key on the token."""
        p11tool.generate(f"gnutls {kind}", *KINDS[kind])
        output = p11tool("--login", "--test-sign", p11tool.url(object=f"gnutls%20{kind}", type="private"))
        assert output.count("... ok") == 3, output

    def test_pss_signature_is_verified(self, p11tool: P11Tool) -> None:
        p11tool.generate("gnutls PSS", *KINDS["RSA"])
        url = p11tool.url(object="gnutls%20PSS", type="private")
        output = p11tool("--login", "--test-sign", "--sign-params=RSA-PSS", "--hash=SHA256", url)
        assert "RSA-PSS-RSAE-SHA256... ok" in output or "RSA-PSS-SHA256... ok" in output, output

    @pytest.mark.parametrize("kind", KINDS)
    def test_certificate_request_is_signed(self, p11tool: P11Tool, kind: str) -> None:
        key = p11tool.generate(f"request {kind}", *KINDS[kind])
        template, request = p11tool.folder / "template", p11tool.folder / "request.pem"
        template.write_text('cn = "Greta GnuTLS"\n')
        private = p11tool.url(object=f"request%20{kind}", type="private")
        p11tool.certtool("--generate-request", "--load-privkey", private, "--template", template, "--outfile", request)
        made = load_pem_x509_csr(request.read_bytes())
        assert made.is_signature_valid
        assert made.public_key() == key

    def test_certificate_is_written_listed_exported_and_deleted(self, p11tool: P11Tool) -> None:
        key = p11tool.generate("with certificate", *KINDS["P-256"])
        certificate = Authority().client("Gustav GnuTLS", key)
        file, exported = p11tool.folder / "certificate.pem", p11tool.folder / "exported.pem"
        file.write_bytes(certificate.public_bytes(Encoding.PEM))
        p11tool("--login", "--write", "--load-certificate", file, "--label", "written", p11tool.url())

        assert "Label: written" in p11tool("--list-all-certs", p11tool.url())
        url = p11tool.url(object="written", type="cert")
        p11tool("--export", url, "--outfile", exported)
        assert load_pem_x509_certificate(exported.read_bytes()) == certificate
        p11tool("--login", "--delete", url)
        assert "Label: written" not in p11tool("--list-all", p11tool.url())

    def test_ed25519_key_is_read_back_as_written(self, p11tool: P11Tool) -> None:
        """GnuTLS 3.7 writes CKA_EC_POINT in DER and reads no other: Knot DNS's keymgr reads the key that it imports."""
        key = ed25519.Ed25519PrivateKey.generate()
        private, public, exported = (p11tool.folder / f"{name}.pem" for name in ("private", "public", "exported"))
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        p11tool("--login", "--write", "--load-privkey", private, "--label", "curved", p11tool.url())
        p11tool("--login", "--write", "--load-pubkey", public, "--label", "curved", p11tool.url())

        p11tool("--login", "--export", p11tool.url(object="curved", type="public"), "--outfile", exported)
        assert load_pem_public_key(exported.read_bytes()) == key.public_key()

    def test_blank_token_is_initialised(self, blank: Token, tmp_path: Path) -> None:
        """C_InitToken, then C_InitPIN as SO, then a key."""
        bare = P11Tool(blank, tmp_path)
        bare("--initialize", "--label", "by GnuTLS", "--set-so-pin", blank.so_pin, "pkcs11:")
        made = P11Tool(blank.named("by%20GnuTLS"), tmp_path)
        made("--initialize-pin", "--set-so-pin", blank.so_pin, "--set-pin", blank.pin, made.url())
        assert isinstance(made.generate("first", *KINDS["P-256"]), ec.EllipticCurvePublicKey)


class TestListModules:
    """`p11-kit list-modules` with a configuration of its own."""

    def test_module_is_described(self, token: Token, tmp_path: Path) -> None:
        if os.geteuid() == 0:
            pytest.skip("p11-kit reads no configuration from a home folder as root")
        modules = tmp_path / ".config" / "pkcs11" / "modules"
        modules.mkdir(parents=True)
        (modules / "interop.module").write_text(f"module: {token.module.path}\n")
        output = succeed(
            [program("p11-kit", "p11-kit"), "list-modules"],
            token.environment(HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path / ".config")),
        )
        assert f"token: {token.label}" in output
