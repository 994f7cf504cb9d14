"""Java's SunPKCS11: the token as a key store of keytool."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import load_pem_x509_certificate, load_pem_x509_csr

from tests.interop.programs import program, run, succeed

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.interop.tokens import Token

pytestmark = pytest.mark.interop


class KeyTool:
    """`keytool` on the one token of its home."""

    def __init__(self, token: Token, folder: Path) -> None:
        self.folder = folder
        self.environment = token.environment(HOME=str(folder))
        configuration = folder / "pkcs11.cfg"
        configuration.write_text(f"name = keyfob\nlibrary = {token.module.path}\nslotListIndex = 0\n")
        self._provider = ("-providerClass", "sun.security.pkcs11.SunPKCS11", "-providerArg", str(configuration))
        self._pin = token.pin

    def attempt(
        self, *words: str | Path, pin: str | None = None, which: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it, whatever comes of it; `which`: the token's place in the options, "dest" where a store is copied."""
        store = (f"-{which}keystore", "NONE", f"-{which}storetype", "PKCS11", f"-{which}storepass", pin or self._pin)
        return run([program("keytool", "default-jre-headless"), *words, *store, *self._provider], self.environment)

    def __call__(self, *words: str | Path) -> str:
        done = self.attempt(*words)
        output = done.stdout.decode(errors="replace")
        assert done.returncode == 0, output
        assert "xception" not in output
        return output

    def aliases(self) -> dict[str, str]:
        """The kind of each entry by its alias."""
        found = re.findall(r"^Alias name: (.*)\n(?:Creation.*\n)?Entry type: (.*)$", self("-list", "-v"), re.MULTILINE)
        return dict(found)


@pytest.fixture
def keytool(own_token: Token, tmp_path: Path) -> KeyTool:
    return KeyTool(own_token, tmp_path)


def test_keys_are_made_certified_and_deleted(keytool: KeyTool) -> None:
    keytool("-genkeypair", "-alias", "by-rsa", "-keyalg", "RSA", "-keysize", "2048", "-dname", "CN=RSA")
    keytool("-genkeypair", "-alias", "by-ec", "-keyalg", "EC", "-groupname", "secp256r1", "-dname", "CN=EC")
    keytool("-genseckey", "-alias", "secret", "-keyalg", "AES", "-keysize", "256")
    private, secret = "PrivateKeyEntry", "SecretKeyEntry"
    assert keytool.aliases() == {"by-rsa": private, "by-ec": private, "secret": secret}

    request = load_pem_x509_csr(keytool("-certreq", "-alias", "by-ec").encode())
    assert request.is_signature_valid
    assert isinstance(request.public_key(), ec.EllipticCurvePublicKey)
    certificate = load_pem_x509_certificate(keytool("-exportcert", "-rfc", "-alias", "by-rsa").encode())
    assert isinstance(certificate.public_key(), rsa.RSAPublicKey)
    certificate.verify_directly_issued_by(certificate)

    keytool("-delete", "-alias", "by-ec")
    assert keytool.aliases() == {"by-rsa": private, "secret": secret}


def test_a_pkcs12_file_is_imported(keytool: KeyTool, tmp_path: Path) -> None:
    key, certificate, bundle = tmp_path / "key.pem", tmp_path / "certificate.pem", tmp_path / "bundle.p12"
    openssl = program("openssl", "openssl")
    made = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", certificate)
    succeed([openssl, "req", "-x509", "-subj", "/CN=Imported", *made], keytool.environment)
    exported = ("-inkey", key, "-in", certificate, "-name", "imported", "-passout", "pass:changeit", "-out", bundle)
    succeed([openssl, "pkcs12", "-export", *exported], keytool.environment)
    source = ("-srckeystore", bundle, "-srcstoretype", "PKCS12", "-srcstorepass", "changeit")
    done = keytool.attempt("-importkeystore", *source, which="dest")
    assert done.returncode == 0, done.stdout
    assert keytool.aliases() == {"imported": "PrivateKeyEntry"}
    assert load_pem_x509_csr(keytool("-certreq", "-alias", "imported").encode()).is_signature_valid


def test_a_wrong_pin_opens_nothing(keytool: KeyTool) -> None:
    done = keytool.attempt("-list", pin="wrong-PIN")
    assert done.returncode != 0
    assert b"CKR_PIN_INCORRECT" in done.stdout or b"load failed" in done.stdout
