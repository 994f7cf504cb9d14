"""OpenSC's `pkcs11-tool` as a maker of keys and certificates on a token, for all interop tests."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from tests.interop.programs import program, run

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
    from cryptography.x509 import Certificate

    from tests.interop.tokens import Token


_CURVES: dict[str, ec.EllipticCurve] = {
    "06082a8648ce3d030107": ec.SECP256R1(),
    "06052b81040022": ec.SECP384R1(),
    "06052b81040023": ec.SECP521R1(),
    "06052b8104000a": ec.SECP256K1(),
}
"""Curves by CKA_EC_PARAMS, the DER of their OIDs."""

_BARE_POINT = 32


class Pkcs11Tool:
    """`pkcs11-tool` bound to one token. `folder` takes the files that go in and come out."""

    def __init__(self, token: Token, folder: Path) -> None:
        self.token = token
        self.folder = folder
        self._program = program("pkcs11-tool", "opensc")
        self._identifiers = itertools.count(0x5001)

    def fresh(self) -> str:
        """A CKA_ID (hex) that no object on the token has yet."""
        return f"{next(self._identifiers):x}"

    def attempt(
        self, *arguments: str | Path, login: bool = True, data: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it, whatever comes of it; `login` gives the user PIN, where the token has one."""
        command: list[str | Path] = [self._program, "--module", self.token.module.path]
        if self.token.label:
            command += ["--token-label", self.token.label]
        if login and self.token.pin:
            command += ["--login", "--pin", self.token.pin]
        return run([*command, *arguments], self.token.environment(), data=data)

    def __call__(self, *arguments: str | Path, login: bool = True, data: bytes = b"") -> str:
        """Run it and return what it printed; AssertionError with its output when it fails."""
        done = self.attempt(*arguments, login=login, data=data)
        output = done.stdout.decode(errors="replace")
        given = " ".join(map(str, arguments))
        told = f"pkcs11-tool {given}\nended with {done.returncode}:\n{output}\n{self.token.last_words()}"
        assert done.returncode == 0, told
        return output

    def pipe(self, *arguments: str | Path, data: bytes, login: bool = True) -> bytes:
        """Run an operation with `data` as `--input-file`; the content of its `--output-file`."""
        source, target = self.folder / "operation-input", self.folder / "operation-output"
        source.write_bytes(data)
        target.unlink(missing_ok=True)
        self(*arguments, "--input-file", source, "--output-file", target, login=login)
        return target.read_bytes()

    def generate(self, key_type: str, identifier: str, label: str, *more: str) -> PublicKeyTypes:
        """Make a key pair on the token (`key_type` as in `rsa:2048`, `EC:prime256v1`) and read its public key."""
        self("--keypairgen", "--key-type", key_type, "--id", identifier, "--label", label, *more)
        return self.public_key(identifier)

    def public_key(self, identifier: str) -> PublicKeyTypes:
        """The RSA or EC public key with CKA_ID `identifier` (hex)."""
        params = self.listed("Public Key", identifier).get("EC_PARAMS")
        if params is None:
            return load_der_public_key(self.read("pubkey", identifier))
        # `--read-object` of 0.23 fails on EC keys ("cannot create EVP_PKEY") with every curve but one.
        curve = _CURVES[params.partition(" ")[0]]
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, self.point(identifier))

    def point(self, identifier: str) -> bytes:
        """CKA_EC_POINT of the public key `identifier` (hex), taken out of its DER OCTET STRING.

        The points of Ed25519 and X25519 may be bare: PKCS #11 3.0 wanted the OCTET STRING, 3.1 does not.
        """
        encoded = bytes.fromhex(self.listed("Public Key", identifier)["EC_POINT"])
        if len(encoded) == _BARE_POINT:
            return encoded
        header = 3 if encoded[1] == 0x81 else 2
        assert encoded[0] == 0x04, encoded.hex()
        assert encoded[header - 1] == len(encoded) - header, encoded.hex()
        return encoded[header:]

    def listed(self, kind: str, identifier: str) -> dict[str, str]:
        """What `--list-objects` prints of the one `kind` (`Private Key`, `Certificate`) with CKA_ID `identifier`."""
        found = []
        for block in re.split(r"^(?=\S.* Object;)", self("--list-objects"), flags=re.MULTILINE):
            whole_lines = re.sub(r"\n {10,}(?=[0-9a-f]+$)", "", block, flags=re.MULTILINE)  # a long CKA_VALUE is cut
            fields = dict(re.findall(r"^  (\w+): +(.*)$", whole_lines, re.MULTILINE))
            if block.startswith(f"{kind} Object;") and fields.get("ID") == identifier:
                found.append(fields)
        assert len(found) == 1, f"{len(found)} objects of kind {kind} with ID {identifier}"
        return found[0]

    def read(self, kind: str, identifier: str) -> bytes:
        """The object of type `kind` (`cert`, `pubkey`...) with CKA_ID `identifier`, as `--read-object` writes it."""
        target = self.folder / f"read-{kind}-{identifier}"
        target.unlink(missing_ok=True)
        self("--read-object", "--type", kind, "--id", identifier, "--output-file", target)
        return target.read_bytes()

    def delete(self, identifier: str) -> None:
        """Delete the key pair with CKA_ID `identifier` (hex)."""
        for kind in ("privkey", "pubkey"):
            self("--delete-object", "--type", kind, "--id", identifier)

    def write_certificate(self, certificate: Certificate, identifier: str, label: str) -> None:
        """Put `certificate` on the token, tied by CKA_ID `identifier` to its key."""
        source = self.folder / f"certificate-{identifier}.der"
        source.write_bytes(certificate.public_bytes(Encoding.DER))
        self("--write-object", source, "--type", "cert", "--id", identifier, "--label", label)
