"""PKCS #12: keys brought in from elsewhere, and taken out where the key's attributes allow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from demo.evidence import Identity, certificate_of_key, key_identifier, make_identity, read_request, same_key
from demo.nss import StepFailedError, require
from demo.stage import DATABASE, PINS
from demo.steps import Registry
from demo.steps.certificates import P256, RSA, issue

if TYPE_CHECKING:
    from demo.stage import Stage

steps = Registry("pkcs12")

PASSWORD = "file-password"
OLD_CIPHER = "PKCS #12 V2 PBE With SHA-1 And 3KEY Triple DES-CBC"
EXTRACTABLE = ("--keyAttrFlags", "token,private,sensitive,extractable")


def use(stage: Stage, identity_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, subject: str) -> None:
    """Prove that the token has the key: it must sign a request, which cryptography verifies with the public key."""
    identifier = key_identifier(identity_key)
    target = ("-h", stage.token.label, "-k", identifier, "-s", f"CN={subject},O=keyfob")
    stage.certutil("-R", *target, "-a", "-o", "use.csr")
    require(same_key(read_request(stage.read("use.csr")).public_key(), identity_key), "another key signed the request")


def bring_in(stage: Stage, name: str, identity: Identity, *, aes: bool) -> str:
    """Import a PKCS #12 file made by cryptography, and use its key."""
    file = stage.write(f"{name}.p12", identity.pkcs12(name, PASSWORD, aes=aes))
    place = ("-d", DATABASE, "-h", stage.token.label, "-k", PINS, "-W", PASSWORD)
    stage.run("pk12util", "-i", file, *place, principal=True)
    require(stage.certificate(name) == identity.certificate, "the certificate on the token is another")
    public = identity.key.public_key()
    use(stage, public, f"{name} request")
    return "on the token, and signs a request"


@steps.step("import-rsa", "An RSA key comes in (PBES2, AES-256)", rules="§3.13 P1 O2 O3 N9 N11 P34")
def import_rsa(stage: Stage) -> str:
    """C_UnwrapKey(CKM_AES_CBC_PAD), or if the token cannot, C_CreateObject with all components."""
    return bring_in(stage, "import-rsa", make_identity("Import RSA"), aes=True)


@steps.step("import-ec", "An EC key comes in (PBES2, AES-256)", rules="§3.13 O2 P33 P34")
def import_ec(stage: Stage) -> str:
    """Its public half is created twice by NSS."""
    return bring_in(stage, "import-ec", make_identity("Import EC", elliptic=True), aes=True)


@steps.step("import-3des", "An old file comes in (3DES, SHA-1)", rules="§3.13 P1")
def import_3des(stage: Stage) -> str:
    """C_UnwrapKey(CKM_DES3_CBC_PAD)."""
    return bring_in(stage, "import-3des", make_identity("Import 3DES"), aes=False)


@steps.step(
    "export-refused", "A key that is not extractable stays: export is refused", rules="P15 §3.12", needs="alice"
)
def export_refused(stage: Stage) -> str:
    """C_WrapKey answers CKR_KEY_UNEXTRACTABLE."""
    command = ("pk12util", "-o", "alice.p12", "-n", stage.nick("alice"), "-d", DATABASE, "-k", PINS, "-W", PASSWORD)
    said = stage.run(*command, code=None, principal=True)
    require(said.code != 0, "Alice's key was exported", said)
    require("SEC_ERROR_PKCS12_UNABLE_TO_EXPORT_KEY" in said.output, "pk12util fails for another reason", said)
    return "Unable to export"


def take_out(stage: Stage, name: str, subject: str, kind: tuple[str, ...], *options: str) -> str:
    """Make an extractable key, export it, and open the file with openssl; gives its account."""
    issue(stage, name, subject, *kind, *EXTRACTABLE, principal=False)
    file = f"{name}.p12"
    place = ("-d", DATABASE, "-k", PINS, "-W", PASSWORD)
    stage.run("pk12util", "-o", file, "-n", stage.nick(name), *place, *options, principal=True)
    opened = f"{name}-opened.pem"
    said = stage.run("openssl", "pkcs12", "-in", file, "-passin", f"pass:{PASSWORD}", "-info", "-noenc", "-out", opened)
    require(certificate_of_key(stage.read(opened)) == stage.certificate(name), "the file holds another certificate")
    (shroud,) = (line for line in said.output.splitlines() if "Shrouded Keybag" in line)
    return shroud


@steps.step("export-aes", "An extractable RSA key goes out (PBES2, AES-256)", rules="§3.13 P15", needs="ca")
def export_aes(stage: Stage) -> str:
    """C_WrapKey(CKM_AES_CBC_PAD) with a wrapping key that NSS calls CKK_GENERIC_SECRET; openssl opens the file."""
    shroud = take_out(stage, "export-aes", "CN=Export AES", RSA, "-c", "AES-256-CBC")
    require("AES-256-CBC" in shroud, f"openssl says {shroud!r}")
    return shroud


@steps.step("export-3des", "One goes out for old programs (3DES, SHA-1)", rules="§3.13 P15", needs="ca")
def export_3des(stage: Stage) -> str:
    """C_WrapKey(CKM_DES3_CBC_PAD)."""
    shroud = take_out(stage, "export-3des", "CN=Export 3DES", RSA, "-c", OLD_CIPHER)
    require("3-KeyTripleDES" in shroud, f"openssl says {shroud!r}")
    return shroud


@steps.step("export-ec", "An extractable EC key goes out", rules="§3.13 P15 P33", needs="ca")
def export_ec(stage: Stage) -> str:
    """PBES2 is pk12util's own choice."""
    return take_out(stage, "export-ec", "CN=Export EC", P256)


@steps.step(
    "round-trip", "Out, deleted from the token, and in again: the same key", rules="§3.13 O15 P1", needs="export-aes"
)
def round_trip(stage: Stage) -> str:
    """With the file of the step export-aes."""
    certificate = stage.certificate("export-aes")
    public = certificate.public_key()
    if not isinstance(public, rsa.RSAPublicKey):
        raise StepFailedError("the certificate's key is not an RSA key")
    stage.certutil("-F", "-n", stage.nick("export-aes"))
    require(key_identifier(public) not in stage.private_keys(), "the key is still on the token")
    place = ("-d", DATABASE, "-h", stage.token.label, "-k", PINS, "-W", PASSWORD)
    stage.run("pk12util", "-i", "export-aes.p12", *place, principal=True)
    require(stage.certificate("export-aes") == certificate, "another certificate came back")
    use(stage, public, "round trip request")
    return "the key that came back signs a request"
