"""The tokens that the demo can work with: keyfob's, and those of its peers as a yardstick.

A token's ``make`` writes everything it needs into the demo's folder, so that two demos at once never meet. ``limits``
names the steps that a peer is known to fail, and why: the demo then expects those failures. keyfob has none.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from demo.nss import StepFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from demo.nss import Tools

LABEL = "demo"
PIN = "demo-pin-7"
SO_PIN = "demo-so-pin-7"

SOFTHSM_MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
SOFTOKEN_MODULES = ("/usr/lib/x86_64-linux-gnu/libsoftokn3.so", "/usr/lib/x86_64-linux-gnu/nss/libsoftokn3.so")
SPY_MODULES = ("/usr/lib/x86_64-linux-gnu/pkcs11-spy.so", "/usr/lib/x86_64-linux-gnu/pkcs11/pkcs11-spy.so")

NO_WRAP = "SoftHSM: C_WrapKey knows no CKM_AES_CBC_PAD or CKM_DES3_CBC_PAD for private keys"
NO_COPY = "SoftHSM: C_CopyObject refuses an empty template, so selfserv cannot start with an RSA key"
NO_TRUST = "SoftHSM: refuses NSS's trust objects; NSS keeps the trust in its own database instead"
NO_PARAMETERS = "softoken: pkcs11-tool cannot hand it the parameters that it needs"

SOFTHSM_LIMITS = {
    "curve25519": "SoftHSM: does not know the curve by the OID that NSS sends",
    "trust": NO_TRUST,
    "trust-changed": NO_TRUST,
    "export-aes": NO_WRAP,
    "export-3des": NO_WRAP,
    "export-ec": NO_WRAP,
    "round-trip": NO_WRAP,
    "tls12-rsa-server": NO_COPY,
    "tls13-rsa-server": NO_COPY,
    "tls12-static-rsa": NO_COPY,
    "tls-load-rsa": NO_COPY,
}
SOFTOKEN_LIMITS = {
    "secp256k1": "softoken: does not know the curve",
    "export-refused": "softoken: every key is extractable",
    "ed25519": NO_PARAMETERS,
    "ed25519-in-nss": NO_PARAMETERS,
    "sensitive": NO_PARAMETERS,
    "ecdh": NO_PARAMETERS,
}


@dataclass(slots=True)
class Token:
    """A token and the module that serves it."""

    kind: str  # "keyfob", "softhsm", "softoken" or "module"
    title: str
    module: str
    label: str = LABEL
    pin: str = PIN
    friendly: bool = False  # NSS must be told (modutil -mechanisms FRIENDLY) that certificates can be read without PIN
    parameters: str = ""  # what NSS hands over in C_Initialize (modutil -string); softoken only
    environment: dict[str, str] = field(default_factory=dict)
    make: Callable[[Tools, Token], None] = lambda _tools, _token: None
    limits: Mapping[str, str] = field(default_factory=dict)
    command: str = ""  # keyfob's own command-line tool


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Give the tools an environment in which nothing of the user's own NSS databases or tokens can be touched."""
    path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    return {"PATH": path, "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8", "TERM": "dumb", **more}


def keyfob(folder: Path, tools: Tools, command: str = "", store: str = "") -> Token:
    """Give keyfob's token: the command beside this Python (or on PATH) tells where the module is.

    ``store``: the URL of the database that shall have the token. Raises StepFailedError when keyfob is not built yet.
    """
    beside = Path(sys.executable).with_name("keyfob")
    command = command or (str(beside) if beside.exists() else shutil.which("keyfob") or "")
    if not command:
        raise StepFailedError("there is no keyfob command: run `make build` first")
    module = tools.run(command, "module-path").output.strip()
    home = {"KEYFOB_HOME": str(folder / "keyfob-home"), "KEYFOB_STORE": store}
    return Token("keyfob", "keyfob", module, environment=environment(folder, **home), make=make_keyfob, command=command)


def make_keyfob(tools: Tools, token: Token) -> None:
    """Make the token with keyfob's own command-line tool."""
    tools.run(token.command, "init", token.label, "--pin", token.pin, "--so-pin", SO_PIN, principal=True)


def softhsm(folder: Path) -> Token:
    """Give a token of SoftHSM 2; raises StepFailedError when the package softhsm2 is missing."""
    module = first_existing(SOFTHSM_MODULES, "softhsm2")
    surroundings = environment(folder, SOFTHSM2_CONF=str(folder / "softhsm2.conf"))
    return Token(
        "softhsm",
        "SoftHSM 2",
        module,
        friendly=True,
        environment=surroundings,
        make=make_softhsm,
        limits=SOFTHSM_LIMITS,
    )


def make_softhsm(tools: Tools, token: Token) -> None:
    """Make the token with SoftHSM's tool, in a folder of its own."""
    objects = tools.folder / "softhsm-tokens"
    objects.mkdir()
    settings = f"directories.tokendir = {objects}\nobjectstore.backend = file\nlog.level = ERROR\n"
    (tools.folder / "softhsm2.conf").write_text(settings)
    label, pins = ("--label", token.label), ("--pin", token.pin, "--so-pin", SO_PIN)
    tools.run("softhsm2-util", "--init-token", "--free", *label, *pins, principal=True)


def softoken(folder: Path) -> Token:
    """Give a token of NSS's own softoken, loaded a second time (from a copy of its file) as if it were foreign.

    It passes what NSS itself can do, and so tells a fault of a module from a fault of the demo.
    """
    first_existing(SOFTOKEN_MODULES, "libnss3")
    parameters = (
        f"configdir='sql:{folder}/softoken-db' certPrefix='' keyPrefix='' secmod='secmod.db' flags= "
        f"dbTokenDescription='{LABEL}' dbSlotDescription='{LABEL} slot' "
        f"cryptoTokenDescription='{LABEL} crypto' cryptoSlotDescription='{LABEL} crypto slot'"
    )
    return Token(
        "softoken",
        "NSS softoken",
        str(folder / "libsoftoken-copy.so"),
        friendly=True,
        parameters=parameters,
        environment=environment(folder),
        make=make_softoken,
        limits=SOFTOKEN_LIMITS,
    )


def make_softoken(tools: Tools, token: Token) -> None:
    """Make softoken's database, whose password is the token's PIN, and copy the library."""
    shutil.copyfile(first_existing(SOFTOKEN_MODULES, "libnss3"), token.module)
    (tools.folder / "softoken-db").mkdir()
    (tools.folder / "softoken-pin").write_text(token.pin + "\n")
    tools.run("certutil", "-N", "-d", "sql:softoken-db", "-f", "softoken-pin", principal=True)


def given(folder: Path, module: str, label: str, pin: str) -> Token:
    """Give a token that exists already, of any module; it should be empty, and keeps what the demo puts there."""
    surroundings = {**os.environ, **{name: value for name, value in environment(folder).items() if name != "HOME"}}
    return Token("module", Path(module).name, str(Path(module).resolve()), label, pin, environment=surroundings)


def spied(token: Token, record: Path) -> Token:
    """Put OpenSC's pkcs11-spy between the clients and the module: it appends every call to the file ``record``."""
    token.environment |= {"PKCS11SPY": token.module, "PKCS11SPY_OUTPUT": str(record)}
    token.module = first_existing(SPY_MODULES, "opensc-pkcs11")
    return token


def first_existing(candidates: tuple[str, ...], package: str) -> str:
    """Give the first of the paths that exists, or say which Debian package brings it."""
    for path in candidates:
        if Path(path).exists():
            return path
    raise StepFailedError(f"none of {', '.join(candidates)} exists: install the package {package}")
