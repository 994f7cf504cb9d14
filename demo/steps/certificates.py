"""Certificates and requests: a CA on the token, the certificates of its users, and what NSS makes of them.

Every certificate has a subject of its own, because NSS gives certificates with equal subjects one nickname.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from demo.evidence import key_identifier, make_identity, read_request, require_issued_by
from demo.nss import require
from demo.stage import NOISE
from demo.steps import Registry

if TYPE_CHECKING:
    from demo.stage import Stage

steps = Registry("certificates")

RSA = ("-k", "rsa", "-g", "2048")
P256 = ("-k", "ec", "-q", "nistp256")
CA_EXTENSIONS = ("--keyUsage", "certSigning,crlSigning,critical", "-2")
CA_ANSWERS = "y\n\ny\n"  # certutil -2 asks: is it a CA? path length? critical?
USERS = "web-rsa web-ec alice bob coder"


def issue(stage: Stage, name: str, subject: str, *arguments: str, issuer: str = "ca", principal: bool = True) -> str:
    """Let certutil -S make a key and a certificate for it, signed by ``issuer``'s key, both keys on the token.

    The signature is checked without NSS.
    """
    target = ("-h", stage.token.label, "-n", name, "-s", f"{subject},O=keyfob")
    signer = ("-c", stage.nick(issuer), "-t", ",,", "-m", stage.serial(), "-v", "12", "-z", NOISE)
    stage.certutil("-S", *target, *arguments, *signer, principal=principal)
    return evidence(stage.certificate(name), x509.load_pem_x509_certificate(stage.read(f"{issuer}.pem")))


def evidence(certificate: x509.Certificate, issuer: x509.Certificate) -> str:
    """Check a certificate's signature; gives a line about it."""
    require_issued_by(certificate, issuer)
    algorithm = certificate.signature_hash_algorithm
    return f"signature with {algorithm.name.upper() if algorithm else 'no hash'} verified by cryptography"


@steps.step("ca", "An RSA CA: key, certificate and signature from the token", rules="§4 O6 O8 O12 N14")
def ca(stage: Stage) -> str:
    """certutil -S -x: key generation, two signatures, the certificate stored, trusted for TLS, mail and code."""
    target = ("-h", stage.token.label, "-n", "ca", "-s", "CN=Demo CA,O=keyfob")
    rest = ("-x", "-t", "CT,C,C", "-m", "1", "-v", "24", "-z", NOISE, *CA_EXTENSIONS)
    stage.certutil("-S", *target, *RSA, *rest, stdin=CA_ANSWERS, principal=True)
    certificate = stage.certificate("ca")
    return evidence(certificate, certificate)


@steps.step("web-rsa", "A TLS server's certificate with an RSA key", rules="§4 §3.6", needs="ca")
def web_rsa(stage: Stage) -> str:
    """For localhost, signed by the CA."""
    usage = ("--keyUsage", "digitalSignature,keyEncipherment", "--extKeyUsage", "serverAuth", "-8", "localhost")
    return issue(stage, "web-rsa", "CN=localhost,OU=RSA web server", *RSA, *usage)


@steps.step("web-ec", "A TLS server's certificate with a P-256 key", rules="§4 §3.6", needs="ca")
def web_ec(stage: Stage) -> str:
    """For localhost, signed by the CA."""
    usage = ("--keyUsage", "digitalSignature", "--extKeyUsage", "serverAuth", "-8", "localhost")
    return issue(stage, "web-ec", "CN=localhost,OU=EC web server", *P256, *usage)


@steps.step("alice", "Alice's certificate (RSA), for mail and TLS clients", rules="§4 §3.6", needs="ca")
def alice(stage: Stage) -> str:
    """The address is in the subject and in an extension, as S/MIME wants it."""
    usage = ("--keyUsage", "digitalSignature,keyEncipherment", "--extKeyUsage", "emailProtection,clientAuth")
    address = "alice@keyfob.example"
    return issue(stage, "alice", f"CN=Alice,E={address}", *RSA, *usage, "-7", address)


@steps.step("bob", "Bob's certificate (EC), for mail and TLS clients", rules="§4 §3.6", needs="ca")
def bob(stage: Stage) -> str:
    """Like Alice's, with a P-256 key."""
    usage = ("--keyUsage", "digitalSignature,keyAgreement", "--extKeyUsage", "emailProtection,clientAuth")
    address = "bob@keyfob.example"
    return issue(stage, "bob", f"CN=Bob,E={address}", *P256, *usage, "-7", address)


@steps.step("coder", "A certificate (RSA) for signing code", rules="§4 §3.6", needs="ca")
def coder(stage: Stage) -> str:
    """signtool asks for the old Netscape certificate type as well."""
    usage = ("--keyUsage", "digitalSignature", "--extKeyUsage", "codeSigning", "--nsCertType", "objectSigning")
    return issue(stage, "coder", "CN=Coder", *RSA, *usage)


@steps.step("ca-ec", "An EC CA (P-384) and a certificate from it (P-521)", rules="§3.6 §4")
def ca_ec(stage: Stage) -> str:
    """CKM_ECDSA over hashes of other lengths than the curve's."""
    target = ("-h", stage.token.label, "-n", "ca-ec", "-s", "CN=Demo EC CA,O=keyfob", "-k", "ec", "-q", "nistp384")
    rest = ("-x", "-t", ",,", "-m", "2", "-v", "24", "-z", NOISE, "-Z", "SHA384", *CA_EXTENSIONS)
    stage.certutil("-S", *target, *rest, stdin=CA_ANSWERS, principal=True)
    certificate = stage.certificate("ca-ec")
    own = evidence(certificate, certificate)
    leaf = ("-k", "ec", "-q", "nistp521", "-Z", "SHA512")
    issued = issue(stage, "leaf-ec", "CN=EC leaf", *leaf, issuer="ca-ec", principal=False)
    require("SHA384" in own and "SHA512" in issued, f"the signatures are not with SHA-384 and SHA-512: {own}, {issued}")
    return "signatures with SHA384 and SHA512 verified by cryptography"


@steps.step("pss", "A certificate signed with RSA-PSS", rules="§3.6 P4", needs="ca")
def pss(stage: Stage) -> str:
    """CKM_RSA_PKCS_PSS, which TLS 1.3 needs as well."""
    said = issue(stage, "pss", "CN=PSS user", *RSA, "--pss-sign")
    parameters = stage.certificate("pss").signature_algorithm_parameters
    require(isinstance(parameters, padding.PSS), "the certificate is not signed with RSA-PSS")
    return f"RSA-PSS {said}"


@steps.step("request", "A request (PKCS #10) with a new EC key", rules="§4 O13")
def request(stage: Stage) -> str:
    """certutil -R; cryptography checks the signature of the request."""
    target = ("-h", stage.token.label, "-s", "CN=Carol,O=keyfob", *P256, "-z", NOISE)
    stage.certutil("-R", *target, "-a", "-o", "carol.csr", principal=True)
    carol = read_request(stage.read("carol.csr"))
    require(key_identifier(carol.public_key()) in stage.private_keys(), "the key of the request is not on the token")
    return "self-signature good"


@steps.step(
    "request-again", "A request with the RSA key made before, named by its ID", rules="§3.10 N10", needs="rsa-key"
)
def request_again(stage: Stage) -> str:
    """NSS finds the key by CKA_ID and reads its public half back from the token."""
    identifier = stage.facts["rsa-key"]
    target = ("-h", stage.token.label, "-k", identifier, "-s", "CN=Dave,O=keyfob")
    stage.certutil("-R", *target, "-a", "-o", "dave.csr", principal=True)
    dave = read_request(stage.read("dave.csr"))
    require(isinstance(dave.public_key(), rsa.RSAPublicKey), "the request is not for the RSA key")
    require(key_identifier(dave.public_key()) == identifier, "the request is for another key")
    return "self-signature good, same key"


@steps.step("certify", "The CA on the token certifies the request", rules="§4", needs="ca request")
def certify(stage: Stage) -> str:
    """certutil -C: the issuer's certificate by label, its key by ID, one signature."""
    files = ("-i", "carol.csr", "-o", "carol.crt")
    stage.certutil("-C", "-c", stage.nick("ca"), "-a", *files, "-m", stage.serial(), "-v", "12", principal=True)
    certificate = x509.load_pem_x509_certificate(stage.read("carol.crt"))
    require_issued_by(certificate, stage.certificate("ca"))
    return "signature good"


@steps.step("add", "The new certificate joins its key on the token", rules="O6 O8 O11 N15 P3 P18", needs="certify")
def add(stage: Stage) -> str:
    """certutil -A works without login; the flag u says that NSS has found the key by CKA_ID."""
    stage.certutil("-A", "-h", stage.token.label, "-n", "carol", "-t", ",,", "-a", "-i", "carol.crt", principal=True)
    flags = stage.certificates().get("carol")
    require(flags == "u,u,u", f"certutil -L shows Carol's certificate with the flags {flags!r}")
    certificate = x509.load_pem_x509_certificate(stage.read("carol.crt"))
    require(stage.certificate("carol") == certificate, "the certificate comes back changed")
    return f"flags {flags}"


@steps.step("add-stranger", "A stranger's certificate, without a key, may be stored too", rules="O7 P19")
def add_stranger(stage: Stage) -> str:
    """It has no u: nobody here has the key."""
    stranger = make_identity("A stranger", elliptic=True)
    stage.write("stranger.crt", stranger.pem)
    target = ("-h", stage.token.label, "-n", "stranger", "-t", ",,")
    stage.certutil("-A", *target, "-a", "-i", "stranger.crt", principal=True)
    flags = stage.certificates().get("stranger")
    require(flags == ",,", f"certutil -L shows the stranger's certificate with the flags {flags!r}")
    require(stage.certificate("stranger") == stranger.certificate, "the certificate comes back changed")
    return "stored and read back byte for byte; flags ',,'"


@steps.step("list-certificates", "certutil lists the certificates, each with its key", rules="O17 O19 N14", needs=USERS)
def list_certificates(stage: Stage) -> str:
    """All of them are user certificates (u)."""
    listed = stage.certificates(principal=True)
    for name in USERS.split():
        require(listed.get(name) == "u,u,u", f"{name} has the flags {listed.get(name)!r}")
    return f"{len(listed)} certificates"


@steps.step(
    "linked", "Each certificate is linked to its key by the ID of NSS", rules="O10 O11 N14 N15", needs=f"ca {USERS}"
)
def linked(stage: Stage) -> str:
    """certutil -K names each key after its certificate; the ID is the SHA-1 of the modulus, or of the point."""
    keys = stage.private_keys(principal=True)
    for name in ("ca", *USERS.split()):
        identifier = key_identifier(stage.certificate(name).public_key())
        _, listed = keys.get(identifier, ("", ""))
        require(listed == stage.nick(name), f"certutil -K lists the key of {name}, ID {identifier}, as {listed!r}")
    return "each key has the ID computed from its certificate, and its name"


@steps.step("list-without-pin", "They can be listed without any PIN", rules="P7 §3.4 N18", needs=USERS)
def list_without_pin(stage: Stage) -> str:
    """The token is "friendly": certificates and public keys are not private, and a profile object says so."""
    listed = stage.certificates(pins="", principal=True)
    for name in USERS.split():
        require(listed.get(name) == "u,u,u", f"{name} has the flags {listed.get(name)!r}")
    return "NSS was told so by modutil" if stage.token.friendly else "the token's own profile object says so"


@steps.step("show", "One certificate is shown and exported; openssl agrees", rules="O17 O19 N13", needs="web-ec")
def show(stage: Stage) -> str:
    """As text, and as PEM, in which openssl verifies the CA's signature and the server's name."""
    shown = stage.certutil("-L", "-n", stage.nick("web-ec"), pins="", principal=True)
    require('Subject: "CN=localhost,OU=EC web server,O=keyfob"' in shown.output, "another certificate is shown", shown)
    for name in ("ca", "web-ec"):
        stage.certificate(name)
    checks = ("-purpose", "sslserver", "-verify_hostname", "localhost")
    said = stage.run("openssl", "verify", "-CAfile", "ca.pem", *checks, "web-ec.pem")
    return said.output.strip()


@steps.step("validate", "NSS validates the certificates for their uses", rules="§3.10 §3.16", needs=USERS)
def validate(stage: Stage) -> str:
    """certutil -V: TLS server, TLS client, mail signer, mail recipient, code signer; and not for another use."""
    for name, use in (("web-rsa", "V"), ("web-ec", "V"), ("alice", "C"), ("alice", "S"), ("bob", "R"), ("coder", "J")):
        said = stage.certutil("-V", "-n", stage.nick(name), "-u", use, "-e", pins="", principal=name == "web-rsa")
        require("certificate is valid" in said.output, f"{name} is not valid for use {use}", said)
    stage.certutil("-V", "-n", stage.nick("coder"), "-u", "V", pins="", code=255)
    return "valid for TLS server and client, mail and code; the code signer's is refused for TLS"


@steps.step("chain", "NSS builds the chain up to the CA", rules="§3.10", needs="alice")
def chain(stage: Stage) -> str:
    """Certificates by subject, on the token."""
    said = stage.certutil("-O", "-n", stage.nick("alice"), pins="", principal=True)
    lines = [line for line in said.output.splitlines() if line.strip()]
    require(len(lines) == 2 and "CN=Demo CA" in lines[0] and "CN=Alice" in lines[1], "the chain is not CA, Alice", said)
    return "Demo CA, Alice"
