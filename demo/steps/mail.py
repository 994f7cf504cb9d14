"""S/MIME mail: signed and decrypted with keys on the token, by NSS's cmsutil; openssl is the correspondent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from demo.evidence import key_identifier
from demo.nss import StepFailedError, require
from demo.stage import DATABASE, PINS
from demo.steps import Registry

if TYPE_CHECKING:
    from demo.nss import Outcome
    from demo.stage import Stage

steps = Registry("mail")

TEXT = "Dear Bob,\n\nthe key that signed this has never left its token.\n\nAlice\n"
MESSAGE = "message.txt"


def sign(stage: Stage, name: str, output: str, *options: str) -> None:
    """Sign the message as ``name``."""
    files = ("-i", stage.write(MESSAGE, TEXT), "-o", output)
    stage.run("cmsutil", "-S", "-d", DATABASE, "-f", PINS, "-N", stage.nick(name), *options, *files, principal=True)


def verify(stage: Stage, name: str, signed: str, *options: str) -> Outcome:
    """Let cmsutil verify the message, and openssl after it, which knows only the CA's certificate."""
    said = stage.run("cmsutil", "-D", "-d", DATABASE, *options, "-i", signed, "-u", "4", "-h", "0")
    require(f'signer0.id="{name}"' in said.output, "another signer is named", said)
    require("signer0.status=GoodSignature" in said.output, "NSS does not call the signature good", said)
    require(TEXT in said.output, "the message does not come out", said)
    stage.certificate("ca")
    detached = ("-content", MESSAGE) if options else ()
    purpose = ("-purpose", "smimesign", "-CAfile", "ca.pem")
    files = ("-in", signed, *detached, "-out", f"{signed}.txt")
    stage.run("openssl", "cms", "-verify", "-binary", "-inform", "DER", *purpose, *files)
    return said


@steps.step("sign-rsa", "Alice signs a message; NSS and openssl verify it", rules="§3.6 K3 O21", needs="alice")
def sign_rsa(stage: Stage) -> str:
    """CKM_RSA_PKCS over a DigestInfo."""
    sign(stage, "alice", "signed-rsa.p7m", "-G", "-P")
    verify(stage, "Alice", "signed-rsa.p7m")
    return "GoodSignature from Alice; openssl: verified"


@steps.step("sign-ec", "Bob signs with his EC key; both verify it", rules="§3.6 K3", needs="bob")
def sign_ec(stage: Stage) -> str:
    """CKM_ECDSA over the hash; the token's r and s become DER in NSS."""
    sign(stage, "bob", "signed-ec.p7m")
    verify(stage, "Bob", "signed-ec.p7m")
    return "GoodSignature from Bob; openssl: verified"


@steps.step("sign-detached", "A detached signature with SHA-512", rules="§3.6", needs="alice")
def sign_detached(stage: Stage) -> str:
    """As mail programs sign, so that anybody can read the text."""
    sign(stage, "alice", "detached.p7s", "-T", "-H", "SHA512")
    require(TEXT.encode() not in stage.read("detached.p7s"), "the message is inside the signature")
    verify(stage, "Alice", "detached.p7s", "-c", MESSAGE)
    return "GoodSignature from Alice; openssl: verified"


@steps.step("tampered", "A message changed after signing is refused", rules="§3.6", needs="sign-rsa")
def tampered(stage: Stage) -> str:
    """Cmsutil ends with 0 all the same: its word is what counts."""
    content = stage.read("signed-rsa.p7m")
    stage.write("tampered.p7m", content.replace(b"never left", b"never lost"))
    said = stage.run("cmsutil", "-D", "-d", DATABASE, "-i", "tampered.p7m", "-u", "4", "-h", "0", principal=True)
    require("GoodSignature" not in said.output and "DigestMismatch" in said.output, "no DigestMismatch", said)
    return "DigestMismatch"


def decrypt(stage: Stage, encrypted: str, *, principal: bool = False) -> None:
    """Decrypt a message with the key on the token."""
    said = stage.run("cmsutil", "-D", "-d", DATABASE, "-f", PINS, "-i", encrypted, principal=principal)
    require(said.output == TEXT, "the message does not come out", said)


@steps.step(
    "encrypt-rsa", "A message encrypted to Alice is decrypted with her key", rules="§3.14 K4 N12 P12", needs="alice"
)
def encrypt_rsa(stage: Stage) -> str:
    """C_UnwrapKey(CKM_RSA_PKCS) makes the message's AES key on the token, which then decrypts (CKM_AES_CBC)."""
    files = ("-i", stage.write(MESSAGE, TEXT), "-o", "encrypted-rsa.p7m")
    stage.run("cmsutil", "-E", "-d", DATABASE, "-r", stage.nick("alice"), *files)
    require(b"never left" not in stage.read("encrypted-rsa.p7m"), "the message is readable")
    decrypt(stage, "encrypted-rsa.p7m", principal=True)
    return "the text comes out again"


@steps.step("encrypt-openssl", "A message from openssl to Alice is decrypted", rules="§3.14 K4", needs="alice")
def encrypt_openssl(stage: Stage) -> str:
    """Another program's AES-256 message."""
    stage.certificate("alice")
    files = ("-in", stage.write(MESSAGE, TEXT), "-out", "encrypted-openssl.p7m")
    command = ("openssl", "cms", "-encrypt", "-binary", "-aes-256-cbc", "-outform", "DER", *files, "alice.pem")
    stage.run(*command, principal=True)
    decrypt(stage, "encrypted-openssl.p7m")
    return "AES-256-CBC; the text comes out again"


@steps.step("bulk", "More messages under the same key (cmsutil -C)", rules="§3.14 P12", needs="encrypt-rsa")
def bulk(stage: Stage) -> str:
    """The key of the first message, unwrapped on the token, encrypts the second and decrypts it."""
    login = ("-d", DATABASE, "-f", PINS, "-e", "encrypted-rsa.p7m")
    stage.run("cmsutil", "-C", *login, "-i", stage.write(MESSAGE, TEXT), "-o", "bulk.p7m", principal=True)
    said = stage.run("cmsutil", "-D", *login, "-i", "bulk.p7m")
    require(TEXT in said.output, "the message does not come out", said)
    return "the text comes out again"


@steps.step("encrypt-ec", "Encryption to Bob's EC key, as far as NSS can", rules="§4 P13", needs="bob")
def encrypt_ec(stage: Stage) -> str:
    """NSS 3.87 has no EC recipients in S/MIME, for any token: it must say so; a newer NSS must do the whole job."""
    files = ("-i", stage.write(MESSAGE, TEXT), "-o", "encrypted-ec.p7m")
    command = ("cmsutil", "-E", "-d", DATABASE, "-r", stage.nick("bob"), *files)
    said = stage.run(*command, code=None, principal=True)
    if said.code == 0:
        decrypt(stage, "encrypted-ec.p7m")
        return "this NSS can: the text comes out again"
    require("SEC_ERROR_INVALID_ALGORITHM" in said.output, "cmsutil refuses for another reason", said)
    return "this NSS cannot (invalid algorithm, before it asks any token)"


@steps.step("ecdh", "What mail to an EC key rests on: ECDH with Bob's key", rules="§3.14 P13 P33", needs="bob")
def ecdh(stage: Stage) -> str:
    """C_DeriveKey(CKM_ECDH1_DERIVE) through OpenSC; cryptography computes the same secret from the other side."""
    peer = ec.generate_private_key(ec.SECP256R1())
    stage.write("peer.der", peer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    bob = stage.certificate("bob").public_key()
    if not isinstance(bob, ec.EllipticCurvePublicKey):
        raise StepFailedError("Bob's key is not an EC key")
    files = ("--input-file", "peer.der", "--output-file", "secret")
    stage.pkcs11_tool("--derive", "--mechanism", "ECDH1-DERIVE", "--id", key_identifier(bob), *files, principal=True)
    require(stage.read("secret") == peer.exchange(ec.ECDH(), bob), "the two sides computed different secrets")
    return "both sides have the same 32 bytes"
