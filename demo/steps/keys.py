"""Keys: made on the token by NSS, listed, and proved never to leave it."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from demo.nss import StepFailedError, require
from demo.stage import DATABASE, NOISE
from demo.steps import Registry

if TYPE_CHECKING:
    from demo.stage import Stage

steps = Registry("keys")

EDWARDS_LABEL, EDWARDS_ID = "signer-ed25519", "0ed25519"


def generate(stage: Stage, kind: str, *arguments: str) -> str:
    """Let certutil make a key pair of ``kind`` ("rsa", "ec") on the token; gives the new key's CKA_ID in hex."""
    before = stage.private_keys()
    stage.certutil("-G", "-h", stage.token.label, "-k", kind, *arguments, "-z", NOISE, principal=True)
    new = {identifier: found for identifier, found in stage.private_keys().items() if identifier not in before}
    require(len(new) == 1, f"certutil -K lists {len(new)} new keys instead of one")
    ((identifier, (listed, _)),) = new.items()
    require(listed == kind, f"certutil -K calls the new key {listed!r}")
    require(len(identifier) == hashlib.sha1(usedforsecurity=False).digest_size * 2, "the CKA_ID is not a SHA-1 digest")
    return identifier


@steps.step("rsa-key", "certutil makes an RSA-2048 key on the token", rules="§3.12 O13 O18 P20 P21 P22")
def rsa_key(stage: Stage) -> str:
    """C_GenerateKeyPair without ID, then C_SetAttributeValue(CKA_ID) on both halves."""
    stage.facts["rsa-key"] = generate(stage, "rsa", "-g", "2048")
    return f"ID {stage.facts['rsa-key']}"


@steps.step("ec-key", "certutil makes a P-256 key", rules="§3.12 O10 P33")
def ec_key(stage: Stage) -> str:
    """The same for EC: NSS reads the public point back and computes the ID from it."""
    stage.facts["ec-key"] = generate(stage, "ec", "-q", "nistp256")
    return f"ID {stage.facts['ec-key']}"


@steps.step("ec-curves", "Keys on P-384 and P-521", rules="§3.12")
def ec_curves(stage: Stage) -> str:
    """The other curves that NSS itself knows."""
    return f"IDs {generate(stage, 'ec', '-q', 'nistp384')[:12]}…, {generate(stage, 'ec', '-q', 'nistp521')[:12]}…"


@steps.step("secp256k1", "A key on secp256k1, which NSS itself cannot compute with", rules="§3.12")
def secp256k1(stage: Stage) -> str:
    """NSS passes the curve's OID on to the token."""
    return f"ID {generate(stage, 'ec', '-q', 'secp256k1')}"


@steps.step("curve25519", "A Curve25519 key", rules="§3.12")
def curve25519(stage: Stage) -> str:
    """NSS 3.87 asks for it as CKM_EC_KEY_PAIR_GEN with the curve's OID."""
    return f"ID {generate(stage, 'ec', '-q', 'curve25519')}"


@steps.step("ed25519", "An Ed25519 key; it signs, and cryptography verifies", rules="§3.6")
def ed25519(stage: Stage) -> str:
    """certutil of NSS 3.87 cannot make it: keyfob's own tool does (pkcs11-tool for other modules)."""
    if stage.token.command:
        generate_with_cli = ("key", "generate", stage.token.label, "--type", "ed25519", "--pin", stage.token.pin)
        stage.run(stage.token.command, *generate_with_cli, "--name", EDWARDS_LABEL, "--id", EDWARDS_ID)
    else:
        identity = ("--label", EDWARDS_LABEL, "--id", EDWARDS_ID)
        stage.pkcs11_tool("--keypairgen", "--key-type", "EC:edwards25519", *identity)
    message = stage.write("message-ed25519", "signed by a key that never leaves its token\n")
    files = ("--input-file", message, "--output-file", "signature-ed25519")
    stage.pkcs11_tool("--sign", "--mechanism", "EDDSA", "--id", EDWARDS_ID, *files, principal=True)
    listing = stage.pkcs11_tool("--list-objects", "--type", "pubkey")
    objects = listing.output.split("Public Key Object; ")
    ours = next((text for text in objects if f"ID:         {EDWARDS_ID}\n" in text), "")
    # CKA_EC_POINT is the key's 32 bytes, and with older modules a DER OCTET STRING of them
    point = re.search(r"EC_POINT:\s+(?:0420)?([0-9a-f]{64})$", ours, re.MULTILINE)
    if point is None:
        raise StepFailedError("pkcs11-tool lists no Ed25519 public key", listing)
    signature = stage.read("signature-ed25519")
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(point[1])).verify(signature, stage.read(message))
    except InvalidSignature:
        require(False, "the Ed25519 signature does not verify")
    return f"{len(signature)} bytes of signature"


@steps.step("ed25519-in-nss", "What NSS 3.87 can do with Ed25519: list it", rules="§3.6 §3.11", needs="ed25519")
def ed25519_in_nss(stage: Stage) -> str:
    """certutil -K lists the key with its label but knows no name for its type; it can make no certificate for it."""
    keys = stage.private_keys(principal=True)
    require(EDWARDS_ID in keys, "certutil -K does not list the Ed25519 key")
    kind, name = keys[EDWARDS_ID]
    require(name == EDWARDS_LABEL, f"certutil -K names the Ed25519 key {name!r}")
    return f"listed with its label, type {kind!r}; certificates with it need a newer NSS"


@steps.step("list-keys", "certutil lists every key of the token", rules="O19 N10", needs="rsa-key ec-key")
def list_keys(stage: Stage) -> str:
    """C_FindObjects by class, then the attributes of each key."""
    kinds = sorted(kind for kind, _ in stage.private_keys(principal=True).values())
    require({"rsa", "ec"} <= set(kinds), "certutil -K lacks the RSA or the EC key")
    return f"{len(kinds)} keys: {', '.join(f'{kinds.count(kind)} {kind}' for kind in dict.fromkeys(kinds))}"


@steps.step(
    "sensitive", "The private keys are sensitive and not extractable", rules="N10 §3.12", needs="rsa-key ec-key"
)
def sensitive(stage: Stage) -> str:
    """OpenSC reads the same token: what it calls local was made there, and never left it."""
    listing = stage.pkcs11_tool("--list-objects", "--type", "privkey")
    access = dict(re.findall(r"^\s+ID:\s+([0-9a-f]+)\n(?:.*\n)*?\s+Access:\s+(.*)", listing.output, re.MULTILINE))
    expected = "sensitive, always sensitive, never extractable, local"
    for name in ("rsa-key", "ec-key"):
        found = access.get(stage.facts[name])
        require(found == expected, f"pkcs11-tool says of {name}: {found!r} instead of {expected!r}", listing)
    return expected


@steps.step("secret-key", "symkeyutil makes an AES-256 key on the token and lists it", rules="§3.14 §4")
def secret_key(stage: Stage) -> str:
    """C_GenerateKey(CKM_AES_KEY_GEN), then its label; NSS shows the value as restricted."""
    login = ("-d", DATABASE, "-f", "pins", "-h", stage.token.label)
    stage.run("symkeyutil", "-K", *login, "-t", "aes", "-s", "32", "-n", "vault", principal=True)
    listing = stage.run("symkeyutil", "-L", *login)
    require(re.search(r"^vault\s+32\s+256\s+aes\s+<restricted>", listing.output, re.MULTILINE), "no such key", listing)
    return "AES, 256 bits, value <restricted>"
