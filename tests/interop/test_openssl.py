"""OpenSSL with its engine for PKCS #11 modules (libp11): keys named by URIs; what curl, nginx and stunnel build on."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.interop.pkcs11_tool import Pkcs11Tool
from tests.interop.programs import missing, program, run, succeed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.interop.tokens import Token

pytestmark = pytest.mark.interop

ENGINES = [Path(f"/usr/lib/{machine}-linux-gnu/engines-3/pkcs11.so") for machine in ("x86_64", "aarch64")]
DATA = b"what is signed\n"
KEYS = {"rsa": "rsa:2048", "ec": "EC:prime256v1"}


class OpenSsl:
    """`openssl` whose engine knows the token; `folder` takes files."""

    def __init__(self, token: Token, folder: Path) -> None:
        if not any(place.exists() for place in ENGINES):
            missing("OpenSSL's engine for PKCS #11 is not installed (apt-get install libengine-pkcs11-openssl)")
        self.token = token
        self.folder = folder
        self.program = program("openssl", "openssl")
        self.environment = token.environment(PKCS11_MODULE_PATH=str(token.module.path), RANDFILE=str(folder / "rnd"))

    def uri(self, name: str, pin: str | None = None) -> str:
        return f"pkcs11:token={self.token.label};object={name};type=private;pin-value={pin or self.token.pin}"

    def command(self, *words: str | Path) -> list[str | Path]:
        return [self.program, words[0], "-engine", "pkcs11", *words[1:]]

    def __call__(self, *words: str | Path) -> str:
        return succeed(self.command(*words), self.environment)

    def sign(self, name: str, *options: str) -> bytes:
        source, target = self.folder / "data", self.folder / "signature"
        source.write_bytes(DATA)
        key = ("-keyform", "engine", "-sign", self.uri(name))
        self("dgst", "-sha256", *key, *options, "-out", target, source)
        return target.read_bytes()

    def certificate(self, name: str) -> Path:
        """A certificate for localhost that the key signs itself."""
        target = self.folder / f"{name}.pem"
        names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
        self("req", "-new", "-x509", "-keyform", "engine", "-key", self.uri(name), *names, "-out", target)
        return target


@pytest.fixture(scope="module")
def public(tool: Pkcs11Tool) -> dict[str, object]:
    """The public halves of the keys on the token, by name."""
    return {name: tool.generate(kind, f"0{place}", name) for place, (name, kind) in enumerate(KEYS.items(), 1)}


@pytest.fixture
def openssl(token: Token, public: dict[str, object], tmp_path: Path) -> OpenSsl:
    return OpenSsl(token, tmp_path)


def test_keys_sign_by_their_uri(openssl: OpenSsl, public: dict[str, object]) -> None:
    rsa_key, ec_key = public["rsa"], public["ec"]
    assert isinstance(rsa_key, rsa.RSAPublicKey)
    assert isinstance(ec_key, ec.EllipticCurvePublicKey)
    rsa_key.verify(openssl.sign("rsa"), DATA, padding.PKCS1v15(), hashes.SHA256())
    pss = openssl.sign("rsa", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32")
    rsa_key.verify(pss, DATA, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    ec_key.verify(openssl.sign("ec"), DATA, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("mode", ["pkcs1", "oaep"])
def test_rsa_decrypts(openssl: OpenSsl, public: dict[str, object], mode: str) -> None:
    key = public["rsa"]
    assert isinstance(key, rsa.RSAPublicKey)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # OpenSSL's default
    secret = openssl.folder / "secret"
    secret.write_bytes(key.encrypt(DATA, oaep if mode == "oaep" else padding.PKCS1v15()))
    target, option = openssl.folder / "text", ("-pkeyopt", f"rsa_padding_mode:{mode}")
    key_options = ("-keyform", "engine", "-inkey", openssl.uri("rsa"))
    openssl("pkeyutl", "-decrypt", *key_options, *option, "-in", secret, "-out", target)
    assert target.read_bytes() == DATA


def test_a_wrong_pin_signs_nothing(own_token: Token, tmp_path: Path) -> None:
    Pkcs11Tool(own_token, tmp_path).generate("EC:prime256v1", "01", "ec")
    openssl = OpenSsl(own_token, tmp_path)
    command = openssl.command("pkey", "-inform", "engine", "-in", openssl.uri("ec", "wrong-PIN"), "-pubout")
    done = run(command, openssl.environment)
    assert done.returncode != 0
    assert b"PIN incorrect" in done.stdout


def test_public_keys_are_read(openssl: OpenSsl, public: dict[str, object]) -> None:
    key = public["ec"]
    assert isinstance(key, ec.EllipticCurvePublicKey)
    uri = openssl.uri("ec").replace("type=private", "type=public")
    printed = openssl("pkey", "-inform", "engine", "-pubin", "-in", uri, "-pubout")
    assert key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode() in printed


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def handshake(port: int, certificate: Path, version: ssl.TLSVersion) -> str | None:
    """A whole handshake with a server on loopback, whose certificate is checked: the version that was agreed on."""
    context = ssl.create_default_context(cafile=str(certificate))
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as secure,
    ):
        return secure.version()


def wait_for(port: int, server: subprocess.Popen[bytes], output: Path) -> None:
    end = time.monotonic() + 30
    while True:
        assert server.poll() is None, output.read_text(errors="replace")
        assert time.monotonic() < end, "the server does not listen"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


@pytest.fixture(params=["s_server", "stunnel"])
def serving(request: pytest.FixtureRequest, openssl: OpenSsl) -> Iterator[dict[str, tuple[int, Path]]]:
    """TLS servers of OpenSSL or stunnel, one for each key on the token: port and certificate by the key's name."""
    found, servers = {}, []
    for name in KEYS:
        port, certificate = free_port(), openssl.certificate(name)
        if request.param == "s_server":
            key = ("-keyform", "engine", "-key", openssl.uri(name))
            command = openssl.command("s_server", *key, "-cert", certificate, "-accept", f"127.0.0.1:{port}", "-www")
        else:
            command = [program("stunnel4", "stunnel4"), stunnel_configuration(openssl, name, port, certificate)]
        output = openssl.folder / f"{request.param}-{name}.txt"
        with output.open("wb") as file:
            server = subprocess.Popen(command, env=openssl.environment, stdout=file, stderr=subprocess.STDOUT)
        servers.append(server)
        wait_for(port, server, output)
        found[name] = (port, certificate)
    yield found
    for server in servers:
        server.terminate()
        server.wait(30)


def stunnel_configuration(openssl: OpenSsl, name: str, port: int, certificate: Path) -> Path:
    """Threads, one for each connection, all with the one key; what is behind does not matter here."""
    file = openssl.folder / f"stunnel-{name}.conf"
    token = openssl.token
    file.write_text(
        f"foreground = yes\npid =\nengine = pkcs11\nengineCtrl = MODULE_PATH:{token.module.path}\n"
        f"engineCtrl = PIN:{token.pin}\n[https]\naccept = 127.0.0.1:{port}\nexec = /bin/true\nexecArgs = true\n"
        f"cert = {certificate}\nengineId = pkcs11\nkey = pkcs11:token={token.label};object={name};type=private\n"
    )
    return file


def test_a_server_has_its_key_on_the_token(serving: dict[str, tuple[int, Path]]) -> None:
    for port, certificate in serving.values():
        assert handshake(port, certificate, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        assert handshake(port, certificate, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"


def test_many_clients_at_once_each_get_a_signature(serving: dict[str, tuple[int, Path]]) -> None:
    jobs = [serving[name] for name in KEYS] * 20
    with ThreadPoolExecutor(4) as clients:
        versions = list(clients.map(lambda job: handshake(job[0], job[1], ssl.TLSVersion.TLSv1_3), jobs))
    assert versions == ["TLSv1.3"] * len(jobs)
