"""Fresh tokens for the interop tests, on keyfob or on SoftHSM 2 standing in for it.

`KEYFOB_INTEROP_MODULE` chooses: unset or `keyfob` takes the keyfob that is installed beside the running Python;
`softhsm` or the path of a libsofthsm2.so takes SoftHSM, which helps to tell a fault of a test from a fault of keyfob.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.interop.programs import missing, program, run, succeed

if TYPE_CHECKING:
    from collections.abc import Mapping

PIN = "Interop-7291"
SO_PIN = "Officer-518203"

_SOFTHSM_PLACES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
_LEADING_VARIABLES = ("KEYFOB_", "SOFTHSM2_", "PKCS11SPY", "P11_KIT_", "GNUTLS_", "NSS_")
"""How variables begin that lead modules and client libraries; those of whoever runs the tests do not count."""

_LAST_LINES = 12
_REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Module:
    """A PKCS #11 module under test."""

    kind: str
    """`keyfob` or `softhsm`."""
    path: Path
    command: Path
    """The program that makes tokens for it: `keyfob` or `softhsm2-util`."""

    def home(self, folder: Path, *, cheap_pins: bool = True) -> dict[str, str]:
        """Prepare `folder` to hold tokens of this module; the environment variables that lead the module there.

        With `cheap_pins` a login costs little: many programs log in once for each thing they do.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if self.kind == "keyfob":
            hardening = "\n[pin]\nmemory_kib = 8192\niterations = 1\ndelay = false\n" if cheap_pins else ""
            (folder / "config.toml").write_text('[log]\nlevel = "debug"\n' + hardening)
            return {"KEYFOB_HOME": str(folder)}
        store = folder / "tokens"
        store.mkdir(exist_ok=True)
        configuration = folder / "softhsm2.conf"
        configuration.write_text(f"directories.tokendir = {store}\nobjectstore.backend = file\nlog.level = ERROR\n")
        return {"SOFTHSM2_CONF": str(configuration)}


@dataclass(frozen=True, slots=True)
class Token:
    """A token that exists, and how a program gets to it. Without `label` it is a blank one, not initialised yet."""

    module: Module
    label: str
    pin: str
    so_pin: str
    settings: Mapping[str, str]
    """Environment variables that lead the module to this token and to no other."""

    def environment(self, **more: str) -> dict[str, str]:
        """Environment for a program that is to use this token and no other."""
        return clean_environment() | dict(self.settings) | more

    def named(self, label: str) -> Token:
        """The same token after it got this label."""
        return replace(self, label=label)

    def with_pin(self, pin: str) -> Token:
        """The same token after its user PIN became `pin`."""
        return replace(self, pin=pin)

    def through(self, module: Path, **settings: str) -> Token:
        """The same token, reached through another `module` that needs these environment variables."""
        return replace(self, module=replace(self.module, path=module), settings={**self.settings, **settings})

    def log_file(self) -> Path | None:
        """The file in which the module says why it refused something; None if it keeps none."""
        home = self.settings.get("KEYFOB_HOME")
        return Path(home) / "keyfob.log" if home else None

    def last_words(self) -> str:
        """The end of the module's log, for the message of a test that fails."""
        file = self.log_file()
        if file is None or not file.exists():
            return ""
        lines = file.read_text().splitlines()[-_LAST_LINES:]
        return "\n".join(["The end of the module's log:", *lines])

    def softhsm_cannot(self, what: str) -> None:
        """Skip the running test when SoftHSM stands in, because `what` is beyond SoftHSM; with keyfob do nothing."""
        if self.module.kind == "softhsm":
            pytest.skip(f"SoftHSM stands in and cannot do this: {what}")


def clean_environment() -> dict[str, str]:
    """Return this process's environment, in English, without what leads a module or a client library elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_LEADING_VARIABLES)}
    return kept | {"LC_ALL": "C.UTF-8"}


def module_under_test() -> Module:
    """The module that `KEYFOB_INTEROP_MODULE` names; ends the test through `missing` when it is not there."""
    choice = os.environ.get("KEYFOB_INTEROP_MODULE", "keyfob")
    stands_in = choice == "softhsm" or Path(choice).name.startswith("libsofthsm")
    return _softhsm(choice) if stands_in else _keyfob(choice)


def _softhsm(choice: str) -> Module:
    places = _SOFTHSM_PLACES if choice == "softhsm" else (choice,)
    for place in places:
        if Path(place).exists():
            return Module("softhsm", Path(place), Path(program("softhsm2-util", "softhsm2")))
    return missing(f"SoftHSM is not at {' or '.join(places)} (apt-get install softhsm2)")


def _keyfob(choice: str) -> Module:
    command = _keyfob_command()
    if choice != "keyfob":
        return Module("keyfob", Path(choice), command)
    printed = run([command, "module-path"], clean_environment())
    path = Path(printed.stdout.decode(errors="replace").strip())
    if printed.returncode != 0 or not path.is_file():
        missing(f"`keyfob module-path` does not lead to a module: {printed.stdout.decode(errors='replace')!r}")
    return Module("keyfob", path, command)


def _keyfob_command() -> Path:
    """The `keyfob` beside the running Python, else that of the repository's own environment, else that of PATH."""
    for place in (Path(sys.executable).parent / "keyfob", _REPOSITORY / ".venv" / "bin" / "keyfob"):
        if place.is_file():
            return place
    found = shutil.which("keyfob")
    if found is None:
        missing("keyfob is not installed beside this Python (make build)")
    return Path(found)


def make_token(module: Module, folder: Path, *, cheap_pins: bool = True) -> Token:
    """Make a token in a home of its own under `folder`, with the user PIN set."""
    label = "interop"
    token = Token(module, label, PIN, SO_PIN, module.home(folder, cheap_pins=cheap_pins))
    command: list[str | Path]
    if module.kind == "keyfob":
        command = [module.command, "init", label, "--pin", PIN, "--so-pin", SO_PIN]
    else:
        command = [module.command, "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", SO_PIN]
    succeed(command, token.environment())
    return token


def general_access_token(module: Module, folder: Path) -> Token:
    """Make a token without a PIN: everything on it is used without login."""
    label = "open"
    token = Token(module, label, "", SO_PIN, module.home(folder))
    token.softhsm_cannot("a token without a PIN")
    succeed([module.command, "init", label, "--no-pin"], token.environment())
    return token


def blank_token(module: Module, folder: Path) -> Token:
    """A home without any token: the module shows one slot, its token not initialised. The PINs are those to give it."""
    return Token(module, "", PIN, SO_PIN, module.home(folder))
