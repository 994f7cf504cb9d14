"""A page that says who you are: a TLS server that asks for a client certificate, and the authority that makes one.

    python -m demo.who_are_you sign alice.csr > alice.pem    certify a request, as an office would
    python -m demo.who_are_you serve                         https://localhost:8443/

For trying client certificates (docs/firefox.md), and for nothing else: whoever asks gets a certificate. The authority
and the server's key are kept in `who-are-you`, or the folder of --folder, and live for a year.
"""

from __future__ import annotations

import argparse
import datetime as dt
import html
import http.server
import ipaddress
import ssl
import sys
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

YEAR = dt.timedelta(days=365)
PAGE = """<!doctype html>
<meta charset="utf-8"><title>{who}</title>
<body style="font: 20px system-ui, sans-serif; margin: 3em">
<h1>{who}</h1><p>{why}</p><p>The connection is {version}.</p>
"""


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def builder(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + YEAR)
    )


class Authority:
    """`folder` holds authority.pem, which browsers are told to trust, its key, and the server's key and certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate_file, self.key_file = folder / "authority.pem", folder / "authority-key.pem"
        self.server_file = folder / "server.pem"
        if not self.key_file.exists():
            self._make()
        self.certificate = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
        key = load_pem_private_key(self.key_file.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # _make
        self.key = key

    def _make(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key, subject = ec.generate_private_key(ec.SECP256R1()), name("Who are you? Test authority")
        made = builder(subject, subject, key.public_key()).add_extension(x509.BasicConstraints(True, 0), True)
        certificate = made.sign(key, hashes.SHA256())
        self.certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        server = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
        )
        shown = builder(name("localhost"), subject, server.public_key()).add_extension(names, False)
        private = server.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._write(self.server_file, private + shown.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
        self._write(self.key_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @staticmethod
    def _write(file: Path, content: bytes) -> None:
        file.touch(mode=0o600)
        file.write_bytes(content)

    def certify(self, request: x509.CertificateSigningRequest) -> bytes:
        """The PEM of a client's certificate for the subject, the key and the alternative names of the request."""
        if not request.is_signature_valid:
            sys.exit("the request's signature is wrong")
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.EMAIL_PROTECTION])
        made = builder(request.subject, self.certificate.subject, request.public_key()).add_extension(purpose, False)
        for extension in request.extensions:
            if isinstance(extension.value, x509.SubjectAlternativeName):  # mail programs look for an address there
                made = made.add_extension(extension.value, extension.critical)
        return made.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def server(self, port: int) -> http.server.ThreadingHTTPServer:
        """On 127.0.0.1; port 0 takes a free one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_file)
        context.load_verify_locations(self.certificate_file)
        context.verify_mode = ssl.CERT_OPTIONAL
        made = http.server.ThreadingHTTPServer(("127.0.0.1", port), Page)
        # The handshake waits for a person: it must not keep others from connecting.
        made.socket = context.wrap_socket(made.socket, server_side=True, do_handshake_on_connect=False)
        return made


class Page(http.server.BaseHTTPRequestHandler):
    """Says who the certificate of this connection is for."""

    timeout = 120

    def do_GET(self) -> None:
        connection: Any = self.connection
        certificate = connection.getpeercert()
        who, why = "I do not know you", "Your browser sent no certificate."
        if certificate:
            names = [pair[1] for part in certificate["subject"] for pair in part if pair[0] == "commonName"]
            who, why = f"You are {', '.join(names)}", "Your certificate says so, and your key has just proved it."
        body = PAGE.format(who=html.escape(who), why=why, version=connection.version()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        print(who, flush=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Quiet: do_GET says what matters."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.who_are_you", description="A page that says who you are.")
    parser.add_argument("--folder", type=Path, default=Path("who-are-you"), help="of the authority's files")
    commands = parser.add_subparsers(dest="command", required=True)
    sign = commands.add_parser("sign", help="certify a certificate request; the certificate goes to standard output")
    sign.add_argument("request", type=Path)
    serve = commands.add_parser("serve", help="serve the page until Ctrl-C")
    serve.add_argument("--port", type=int, default=8443)
    given = parser.parse_args()
    authority = Authority(given.folder)
    if given.command == "sign":
        request = x509.load_pem_x509_csr(given.request.read_bytes())
        sys.stdout.write(authority.certify(request).decode())
        return
    server = authority.server(given.port)
    print(f"https://localhost:{server.server_address[1]}/", flush=True)
    print(f"Its certificate is by {authority.certificate_file}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
