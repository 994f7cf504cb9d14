"""The server of docs/firefox.md, met by a client with a key on a token and by one without."""

from __future__ import annotations

import ssl
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from demo.who_are_you import Authority, name
from tests.cli.conftest import Run


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def url(authority: Authority) -> Iterator[str]:
    server = authority.server(0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://localhost:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def page(url: str, authority: Authority, certificate: Path | None = None) -> str:
    context = ssl.create_default_context(cafile=str(authority.certificate_file))
    if certificate is not None:
        context.load_cert_chain(certificate)
    with urllib.request.urlopen(url, context=context, timeout=30) as answer:
        return str(answer.read().decode())


def test_a_client_without_a_certificate_is_not_known(url: str, authority: Authority) -> None:
    assert "I do not know you" in page(url, authority)


def test_a_client_with_a_certificate_is_named(url: str, authority: Authority, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(name("Alice <b>")).sign(key, hashes.SHA256())
    file = tmp_path / "client.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + authority.certify(request))
    assert "You are Alice &lt;b&gt;" in page(url, authority, file)


def test_a_request_of_the_token_is_certified_and_the_certificate_goes_back(
    run: Run, folder: Path, authority: Authority
) -> None:
    run("init alice --pin 1234 --so-pin 12345678")
    run("key generate alice --type ec:p256 --name me --pin 1234")
    run('cert request alice me --subject "CN=Alice Example" --email alice@example.org --out alice.csr --pin 1234')
    request = x509.load_pem_x509_csr((folder / "alice.csr").read_bytes())
    (folder / "alice.pem").write_bytes(authority.certify(request))
    certificate = x509.load_pem_x509_certificate((folder / "alice.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.RFC822Name) == ["alice@example.org"]
    run("cert import alice alice.pem --pin 1234")
    assert "certificate" in run("list alice").output
    assert '"level": "wrong"' not in run("doctor --json --pin 1234").output


def test_the_authority_is_the_same_the_next_time(authority: Authority) -> None:
    assert Authority(authority.folder).certificate == authority.certificate
    assert authority.key_file.stat().st_mode & 0o077 == 0
