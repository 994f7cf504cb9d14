"""Signed files: a JAR archive, and a detached signature of any file."""

from __future__ import annotations

import base64
import zipfile
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from demo.nss import StepFailedError, require
from demo.stage import DATABASE, PINS
from demo.steps import Registry

if TYPE_CHECKING:
    from demo.stage import Stage

steps = Registry("files")

PAGES = {"index.html": "<p>Signed by a key on a token.</p>\n", "notes.txt": "Second file.\n"}


@steps.step("jar", "signtool signs a JAR archive, and verifies it", rules="§4 §3.6", needs="coder")
def jar(stage: Stage) -> str:
    """Signtool takes the PIN as an option; it signs the manifest of digests."""
    (stage.folder / "pages").mkdir(exist_ok=True)
    for name, text in PAGES.items():
        stage.write(f"pages/{name}", text)
    target = ("-k", stage.nick("coder"), "-Z", "signed.jar", "pages")
    stage.run("signtool", "-d", DATABASE, "-p", stage.token.pin, *target, principal=True)
    said = stage.run("signtool", "-d", DATABASE, "-v", "signed.jar")
    require("has passed crypto verification" in said.output, "signtool does not accept the archive", said)
    require(said.output.count(" verified ") == len(PAGES), "not every file is verified", said)
    signer = stage.run("signtool", "-w", "signed.jar", "-d", DATABASE)
    require("CN=Coder,O=keyfob" in signer.output, "another signer is named", signer)
    return f"passed crypto verification; {len(PAGES)} files; signer CN=Coder"


@steps.step("jar-tampered", "A file changed in the archive is noticed", rules="§3.6", needs="jar")
def jar_tampered(stage: Stage) -> str:
    """signtool -v names the file."""
    with (
        zipfile.ZipFile(stage.folder / "signed.jar") as signed,
        zipfile.ZipFile(stage.folder / "tampered.jar", "w") as changed,
    ):
        for entry in signed.infolist():
            content = signed.read(entry)
            changed.writestr(entry, b"Changed.\n" if entry.filename == "notes.txt" else content)
    said = stage.run("signtool", "-d", DATABASE, "-v", "tampered.jar", code=255, principal=True)
    failed = [line.strip() for line in said.output.splitlines() if "HASH FAILED" in line]
    require(failed and failed[0].endswith("notes.txt"), "signtool does not name the changed file", said)
    return "HASH FAILED for notes.txt"


@steps.step("detached", "A file's detached signature (p7sign), verified by signver", rules="§4 §3.6", needs="alice")
def detached(stage: Stage) -> str:
    """PKCS #7 of the old kind; a changed file is refused."""
    files = ("-i", stage.write("contract.txt", "I owe you one.\n"), "-o", "contract.p7s")
    stage.run("p7sign", "-d", DATABASE, "-f", PINS, "-k", stage.nick("alice"), *files, principal=True)
    check = ("signver", "-V", "-d", DATABASE, "-s", "contract.p7s", "-v", "-i")
    said = stage.run(*check, "contract.txt")
    require("signatureValid=yes" in said.output, "signver does not accept the signature", said)
    said = stage.run(*check, stage.write("forged.txt", "I owe you two.\n"), code=None)
    require("signatureValid=no" in said.output, "signver accepts another file", said)
    return "signatureValid=yes; of the changed file: no"


@steps.step("raw", "A bare signature (pk1sign), verified by cryptography", rules="§3.6 N10", needs="alice")
def raw(stage: Stage) -> str:
    """The tool insists on a terminal for the PIN, and signs with SHA-1 as it did in the nineties."""
    files = ("-i", stage.write("contract.txt", "I owe you one.\n"), "-o", "contract.sig")
    command = ("pk1sign", "-d", DATABASE, "-k", stage.nick("alice"), *files)
    stage.tools.run_on_terminal(*command, answer=stage.token.pin, principal=True)
    written = stage.read("contract.sig").decode()
    public = load_der_public_key(field(written, "pubkey:"))
    if not isinstance(public, rsa.RSAPublicKey):
        raise StepFailedError("pk1sign wrote no RSA public key")
    require(public == stage.certificate("alice").public_key(), "pk1sign wrote another public key than Alice's")
    signature = field(written, "signature:")[-public.key_size // 8 :]  # the BIT STRING ends the DER structure
    try:
        public.verify(signature, stage.read("contract.txt"), padding.PKCS1v15(), hashes.SHA1())
    except InvalidSignature:
        require(False, "the signature does not verify")
    return "RSA with SHA-1: good, and the key beside it is Alice's"


def field(text: str, name: str) -> bytes:
    """Give the base64 content that follows the line ``name``, up to the next line that ends in a colon."""
    lines = text[text.index(name) + len(name) :].strip().splitlines()
    end = next((number for number, line in enumerate(lines) if line.endswith(":")), len(lines))
    return base64.b64decode("".join(lines[:end]))
