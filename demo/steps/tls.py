"""TLS between selfserv and tstclnt: servers' and clients' keys are on the token, which both processes use at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo.evidence import make_identity
from demo.nss import require
from demo.server import GET, STOP, selfserv, serve, tstclnt
from demo.stage import DATABASE, PINS
from demo.steps import Registry

if TYPE_CHECKING:
    from demo.stage import Stage

steps = Registry("tls")

SAID = {"tls1.2": "SSL version 3.3", "tls1.3": "SSL version 3.4"}  # how NSS's tools call the versions
SUBJECTS = {"web-rsa": "OU=RSA web server", "web-ec": "OU=EC web server", "alice": "CN=Alice", "bob": "CN=Bob"}
LOAD = 200  # full handshakes
THREADS = 4


def greet_server(stage: Stage, version: str, name: str, scheme: str, *options: str) -> str:
    """Handshake with a server that has the key of ``name``: the client validates its certificate (and name)."""
    with selfserv(stage, name, "-V", f"{version}:{version}", *options) as server:
        said = tstclnt(stage, server.port, "-V", f"{version}:{version}", *options)
    require(SAID[version] in said.output, f"the version is not {version}", said)
    require(SUBJECTS[name] in said.output, "another certificate was shown", said)
    require("HTTP/1.0 200 OK" in said.output, "the server's page did not come", said)
    require(scheme in said.output, f"the signature scheme is not {scheme}", said)
    return f"{scheme}; the server's page came"


@steps.step("tls12-rsa-server", "TLS 1.2, RSA key on the server", rules="§3.15 O14 P2", needs="web-rsa")
def tls12_rsa_server(stage: Stage) -> str:
    """C_CopyObject twice, once with an empty template; then one signature for each handshake."""
    return greet_server(stage, "tls1.2", "web-rsa", "rsa_pss_rsae_sha256")


@steps.step("tls13-rsa-server", "TLS 1.3, RSA key on the server", rules="§3.15 §3.6 O14 P2 P4", needs="web-rsa")
def tls13_rsa_server(stage: Stage) -> str:
    """CKM_RSA_PKCS_PSS."""
    return greet_server(stage, "tls1.3", "web-rsa", "rsa_pss_rsae_sha256")


@steps.step(
    "tls12-static-rsa", "TLS 1.2 with RSA key exchange (the server decrypts)", rules="§3.15 K4", needs="web-rsa"
)
def tls12_static_rsa(stage: Stage) -> str:
    """TLS_RSA_WITH_AES_128_GCM_SHA256: C_Decrypt(CKM_RSA_PKCS) of the 48 bytes of the premaster secret."""
    return greet_server(stage, "tls1.2", "web-rsa", "Key Exchange: 2048-bit RSA", "-c", ":009C")


@steps.step("tls12-ec-server", "TLS 1.2, EC key on the server", rules="§3.15 §3.6 O14", needs="web-ec")
def tls12_ec_server(stage: Stage) -> str:
    """CKM_ECDSA."""
    return greet_server(stage, "tls1.2", "web-ec", "ecdsa_secp256r1_sha256")


@steps.step("tls13-ec-server", "TLS 1.3, EC key on the server", rules="§3.15 §3.6 O14", needs="web-ec")
def tls13_ec_server(stage: Stage) -> str:
    """CKM_ECDSA."""
    return greet_server(stage, "tls1.3", "web-ec", "ecdsa_secp256r1_sha256")


def greet_as(stage: Stage, version: str, name: str) -> str:
    """Handshake with a server that insists on a client certificate: the client signs with the key of ``name``."""
    with selfserv(stage, "web-ec", "-V", f"{version}:{version}", "-r", "-r") as server:
        client = ("-V", f"{version}:{version}", "-n", stage.nick(name), "-W", PINS)
        said = tstclnt(stage, server.port, *client)
    heard = server.output
    require("HTTP/1.0 200 OK" in said.output, "the server's page did not come", said)
    require(f"Subject: {SUBJECTS[name]}" in heard, f"the server did not see {SUBJECTS[name]}", server.outcome())
    require("Certificate Validated" in heard, "the server did not validate the certificate", server.outcome())
    require(SAID[version] in heard, f"the version is not {version}", server.outcome())
    return f"the server validated {SUBJECTS[name]}"


@steps.step(
    "tls12-rsa-client", "TLS 1.2, the client shows Alice's RSA key", rules="§3.15 §3.6 K3", needs="web-ec alice"
)
def tls12_rsa_client(stage: Stage) -> str:
    """Client and server are two processes on one token."""
    return greet_as(stage, "tls1.2", "alice")


@steps.step("tls13-rsa-client", "TLS 1.3, the client shows Alice's RSA key", rules="§3.15 K3 P4", needs="web-ec alice")
def tls13_rsa_client(stage: Stage) -> str:
    """CKM_RSA_PKCS_PSS."""
    return greet_as(stage, "tls1.3", "alice")


@steps.step("tls12-ec-client", "TLS 1.2, the client shows Bob's EC key", rules="§3.15 §3.6 K3", needs="web-ec bob")
def tls12_ec_client(stage: Stage) -> str:
    """CKM_ECDSA."""
    return greet_as(stage, "tls1.2", "bob")


@steps.step("tls13-ec-client", "TLS 1.3, the client shows Bob's EC key", rules="§3.15 §3.6 K3", needs="web-ec bob")
def tls13_ec_client(stage: Stage) -> str:
    """CKM_ECDSA."""
    return greet_as(stage, "tls1.3", "bob")


@steps.step("tls-no-client", "Without a certificate, the same server lets nobody in", rules="§3.15", needs="web-ec bob")
def tls_no_client(stage: Stage) -> str:
    """Then one with Bob's certificate comes in, and stops it."""
    version = ("-V", "tls1.3:tls1.3")
    with selfserv(stage, "web-ec", *version, "-r", "-r") as server:
        said = tstclnt(stage, server.port, *version, request=GET, code=None)
        tstclnt(stage, server.port, *version, "-n", stage.nick("bob"), "-W", PINS)
    require(said.code != 0 and "HTTP/1.0 200 OK" not in said.output, "a client without a certificate was served", said)
    require("-12285" in server.output, "the server gives another reason than the missing certificate", server.outcome())
    return "refused: no certificate"


@steps.step(
    "tls-openssl-client", "openssl as the client of a server with the token's key", rules="§3.15", needs="web-ec"
)
def tls_openssl_client(stage: Stage) -> str:
    """Another TLS implementation checks the token's signature."""
    stage.certificate("ca")
    with selfserv(stage, "web-ec", "-V", "tls1.2:tls1.3") as server:
        peer = ("-connect", f"127.0.0.1:{server.port}", "-servername", "localhost")
        trust = ("-CAfile", "ca.pem", "-verify_hostname", "localhost", "-verify_return_error")
        said = stage.run("openssl", "s_client", *peer, *trust, "-ign_eof", stdin=stage.read(STOP), principal=True)
    require("Verification: OK" in said.output and "HTTP/1.0 200 OK" in said.output, "openssl is not content", said)
    return next(line.strip() for line in said.output.splitlines() if line.startswith("New, TLS"))


@steps.step(
    "tls-openssl-server", "openssl as the server that asks for Bob's certificate", rules="§3.15 K3", needs="bob"
)
def tls_openssl_server(stage: Stage) -> str:
    """The server's own key is a throw-away one; the client's is on the token."""
    stage.certificate("ca")
    elsewhere = make_identity("localhost")
    stage.write("elsewhere.pem", elsewhere.pem)
    stage.write("elsewhere.key", elsewhere.key_pem)
    own = ("-cert", "elsewhere.pem", "-key", "elsewhere.key")
    client = ("-CAfile", "ca.pem", "-Verify", "1", "-verify_return_error")
    stage.write(GET, "GET / HTTP/1.0\r\n\r\n")
    with serve(
        stage, "openssl", "s_server", "-accept", "127.0.0.1:PORT", *own, *client, "-www", "-naccept", "1"
    ) as server:
        said = tstclnt(stage, server.port, "-o", "-n", stage.nick("bob"), "-W", PINS, request=GET)
    require("HTTP/1.0 200 ok" in said.output, "the server's page did not come", said)
    verified = "CN = Bob\nverify return:1" in server.output
    require(verified, "openssl did not validate Bob's certificate", server.outcome())
    return "openssl validated CN=Bob"


def load(stage: Stage, version: str, name: str) -> str:
    """Let several threads of strsclnt make full handshakes at once."""
    options = ("-V", f"{version}:{version}")
    with selfserv(stage, name, *options) as server:
        client = ("-d", DATABASE, "-p", str(server.port), "-a", "localhost", *options)
        amount = ("-c", str(LOAD), "-t", str(THREADS), "-N", "-q", "-v")
        # strsclnt ends with 1 on TLS 1.3 even when all went well: count what it validated instead
        said = stage.run("strsclnt", *client, *amount, "127.0.0.1", code=None, principal=True)
        tstclnt(stage, server.port, *options)
    validated = said.output.count("Server Certificate Validated")
    require(validated >= LOAD, f"{validated} of {LOAD} handshakes succeeded", said)
    return f"{validated} full handshakes in {said.seconds:.1f} s"


@steps.step("tls-load-ec", "200 handshakes by four clients at once, EC", rules="§3.15 §3.8 SE2 SE4", needs="web-ec")
def tls_load_ec(stage: Stage) -> str:
    """TLS 1.3; the server signs in several threads, each in a session of its own."""
    return load(stage, "tls1.3", "web-ec")


@steps.step("tls-load-rsa", "200 handshakes by four clients at once, RSA", rules="§3.15 §3.8 SE2 SE4", needs="web-rsa")
def tls_load_rsa(stage: Stage) -> str:
    """TLS 1.2."""
    return load(stage, "tls1.2", "web-rsa")
