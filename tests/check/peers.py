"""Real modules to check, each with a fresh token: keyfob in all its kinds, SoftHSM, NSS's softoken, OpenSC, p11-kit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from keyfob import __version__
from keyfob.nss.model import Report, ScenarioResult, Verdict
from keyfob.nss.options import Options
from keyfob.nss.runner import run
from keyfob.nss.scenario import Scenario
from keyfob.nss.scenarios import scenarios
from tests.check.mutant import environment
from tests.conftest import CHEAP_PINS, module_path

LABEL, PIN, SO_PIN = "peers", "24681357", "75318642"
SOFTOKEN_LABEL = "NSS Certificate DB"
"""What softoken calls the token of its key database."""
KINDS = ("multipurpose", "signing", "signing-decryption", "key-distribution")
LIBRARIES = ("usr/lib/*-linux-gnu", "usr/lib/*-linux-gnu/nss")
RACE = "load: threads"
"""The scenario that a module with a race passes now and then."""
ATTEMPTS = 200
"""How often a module that has been seen to lose its race may run it until it does again (0.3 s each)."""


class NotHere(Exception):  # noqa: N818 - an answer, not an error
    """The module is not on this machine; how to get it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A module with a token: what the checker is told, and the variables that lead the module to it."""

    path: Path
    variables: dict[str, str] = field(default_factory=dict)
    label: str | None = LABEL
    pin: str | None = PIN
    so_pin: str | None = SO_PIN
    parameters: str | None = None
    write: bool = True
    init: bool = True

    def options(self) -> Options:
        return Options(
            str(self.path),
            parameters=self.parameters,
            token_label=self.label,
            pin=self.pin,
            so_pin=self.so_pin,
            write=self.write,
            init=self.init,
            limit=20,
        )


@dataclass(frozen=True, slots=True)
class Peer:
    """`prepare` makes a token in an empty folder (NotHere: it cannot), `package` is Debian's.

    `loses` are the rules that fail when it loses its race.
    """

    name: str
    title: str
    package: str
    prepare: Callable[[Path], Prepared]
    loses: tuple[str, ...] = ()

    def version(self) -> str:
        """The package's version, as the system's package manager has it; keyfob's own."""
        return version_of(self.package) if self.package else __version__


def version_of(package: str) -> str:
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def check(peer: Peer, folder: Path) -> Report:
    """A whole run in an empty folder; NotHere without the module. A race is run until it is lost, ATTEMPTS times."""
    prepared = peer.prepare(folder)
    cleared = dict.fromkeys(("KEYFOB_HOME", "SOFTHSM2_CONF", "XDG_CONFIG_HOME", "KEYFOB_MUTANT"))
    with environment(**{**cleared, **prepared.variables}):
        report = run(scenarios(), prepared.options())
        place = next(i for i, result in enumerate(report.scenarios) if result.name == RACE)
        scenario = next(each for each in scenarios() if each.name == RACE)
        for _ in range(ATTEMPTS):
            failed = {finding.rule for finding in report.scenarios[place].findings if finding.verdict == Verdict.FAIL}
            if failed.issuperset(peer.loses):
                break
            report.scenarios[place] = _again(scenario, prepared.options())
        return report


def _again(scenario: Scenario, options: Options) -> ScenarioResult:
    options.write = False  # nothing to look after on the token
    return next(each for each in run([scenario], options).scenarios if each.name == scenario.name)


def _library(name: str, package: str, *folders: str) -> Path:
    for folder in folders:
        for found in sorted(Path("/").glob(f"{folder}/{name}")):
            return found
    raise NotHere(f"{name} is not installed (apt-get install {package})")


def _do(command: list[str], **variables: str) -> None:
    try:
        done = subprocess.run(
            command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60, check=False
        )
    except FileNotFoundError:
        raise NotHere(f"{command[0]} is not installed") from None
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"


def _keyfob(*words: str) -> Callable[[Path], Prepared]:
    def prepare(folder: Path) -> Prepared:
        (folder / "config.toml").write_text(CHEAP_PINS)
        _do([sys.executable, "-P", "-m", "keyfob.cli", "init", LABEL, *words], KEYFOB_HOME=str(folder))
        return Prepared(module_path(), {"KEYFOB_HOME": str(folder)})

    return prepare


def _general_access(folder: Path) -> Prepared:
    """Not erased: C_InitToken would make it a token with a PIN."""
    made = _keyfob("--no-pin")(folder)
    return Prepared(made.path, made.variables, pin=None, so_pin=None, init=False)


def _empty(folder: Path) -> Prepared:
    """What a new user has: no token yet. The run initialises the one in the first slot."""
    (folder / "config.toml").write_text(CHEAP_PINS)
    return Prepared(module_path(), {"KEYFOB_HOME": str(folder)}, label=None)


def _softhsm(folder: Path) -> Prepared:
    path = _library("libsofthsm2.so", "softhsm2", "usr/lib/softhsm", "usr/lib/*-linux-gnu/softhsm")
    (folder / "tokens").mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    words = ["--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", SO_PIN]
    _do(["softhsm2-util", *words], SOFTHSM2_CONF=str(configuration))
    return Prepared(path, {"SOFTHSM2_CONF": str(configuration)})


def _softoken(folder: Path) -> Prepared:
    """As an external module. Not erased: softoken has no SO PIN to erase it with."""
    path = _library("libsoftokn3.so", "libnss3", *LIBRARIES)
    password = folder / "password"
    password.write_text(PIN + "\n")
    _do(["certutil", "-N", "-d", f"sql:{folder}", "-f", str(password)])
    parameters = f"configdir='sql:{folder}' certPrefix='' keyPrefix='' secmod='secmod.db' flags="
    return Prepared(path, label=SOFTOKEN_LABEL, so_pin=None, parameters=parameters, init=False)


def _opensc(folder: Path) -> Prepared:
    path = _library("opensc-pkcs11.so", "opensc-pkcs11", "usr/lib/*-linux-gnu")
    return Prepared(path, label=None, pin=None, so_pin=None, init=False)


def _p11_kit(folder: Path) -> Prepared:
    """The proxy as the system has set it up: SoftHSM is registered by its package, root's own settings are not read."""
    path = _library("p11-kit-proxy.so", "p11-kit-modules", "usr/lib/*-linux-gnu")
    if not Path("/usr/share/p11-kit/modules/softhsm2.module").exists():
        raise NotHere("SoftHSM is not registered with p11-kit (apt-get install softhsm2)")
    return replace(_softhsm(folder), path=path)


def _roots(name: str, package: str, *folders: str) -> Callable[[Path], Prepared]:
    """Root certificates: what is on them is the system's, and stays as it is."""

    def prepare(folder: Path) -> Prepared:
        path = _library(name, package, *folders)
        return Prepared(path, label=None, pin=None, so_pin=None, write=False, init=False)

    return prepare


def _keyfob_of(kind: str) -> Peer:
    pins = ("--pin", PIN, "--so-pin", SO_PIN)
    return Peer(f"keyfob-{kind}", f"keyfob, {kind}", "", _keyfob("--kind", kind, *pins))


KEYFOB: tuple[Peer, ...] = (
    *map(_keyfob_of, KINDS),
    Peer("keyfob-general-access", "keyfob, general access", "", _general_access),
    Peer("keyfob-empty", "keyfob, not yet initialised", "", _empty),
)
OTHERS: tuple[Peer, ...] = (
    Peer("softhsm", "SoftHSM", "softhsm2", _softhsm, ("P9", "X1")),
    Peer("softoken", "NSS's softoken", "libnss3", _softoken, ("P9", "X1")),
    Peer("opensc", "OpenSC, no card", "opensc-pkcs11", _opensc),
    Peer("p11-kit-proxy", "p11-kit-proxy, SoftHSM behind", "p11-kit-modules", _p11_kit, ("P9",)),
    Peer("nssckbi", "NSS's root certificates", "libnss3", _roots("libnssckbi.so", "libnss3", *LIBRARIES)),
    Peer(
        "p11-kit-trust",
        "p11-kit's trust module",
        "p11-kit-modules",
        _roots("p11-kit-trust.so", "p11-kit-modules", "usr/lib/*-linux-gnu/pkcs11"),
    ),
)
