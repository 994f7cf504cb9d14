"""The stage: one folder with a token, an NSS database that knows it, and the memory of which steps have been shown."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from demo.nss import Outcome, StepFailedError, Tools, require
from demo.steps import Step, all_steps
from demo.tokens import SO_PIN, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from demo.tokens import Token

DATABASE = "sql:db"
PINS = "pins"  # the password file: a line TOKEN:PIN
ATTEMPTS = 20  # to remove a folder
NOISE = "noise"  # spares certutil asking for key strokes


@dataclass(slots=True)
class Result:
    """What became of one step."""

    step: Step
    state: str  # "passed", "failed" or "not run"
    seconds: float = 0.0
    evidence: str = ""
    failure: str = ""
    outcomes: list[Outcome] = field(default_factory=list)
    culprit: Outcome | None = None


class Stage:
    """What a step gets: the token, the tools, and shorthands for those used most."""

    def __init__(self, folder: Path, make_token: Callable[[Path, Tools], Token]) -> None:
        """Prepare ``folder`` (empty) and the token that ``make_token`` gives; nothing is run on it yet."""
        self.folder = folder
        self.tools = Tools(folder, environment(folder))
        self.token = make_token(folder, self.tools)
        self.tools.environment = self.token.environment
        self.steps = all_steps(self.token.kind)
        self.results: dict[str, Result] = {}
        self.facts: dict[str, str] = {}  # what a step found out and a later one needs, by the step's name
        self.hidden = {self.token.pin: "PIN", SO_PIN: "SO_PIN"}
        self._serial = 100
        self.write_pins(self.token.pin)
        self.write(NOISE, bytes(range(256)) * 2)
        self._write_environment()

    # --- the steps -------------------------------------------------------------------------------------------------

    def show(self, name: str) -> Result:
        """Run a step, once; the steps that it needs run first, and when one of them failed it is not run at all."""
        if name in self.results:
            return self.results[name]
        step = self.steps[name]
        for need in step.needs:
            if self.show(need).state != "passed":
                self.results[name] = Result(step, "not run", failure=f"needs {need}")
                return self.results[name]
        start = time.monotonic()
        state, evidence, failure, culprit = "passed", "", "", None
        with self.tools.recording() as outcomes:
            try:
                evidence = step.function(self)
            except StepFailedError as error:
                state, failure, culprit = "failed", str(error), error.outcome
            except Exception as error:  # whatever a tool's strange answer sets off is this step's failure
                state, failure = "failed", f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - start
        self.results[name] = Result(step, state, seconds, evidence, failure, outcomes, culprit)
        return self.results[name]

    # --- files -----------------------------------------------------------------------------------------------------

    def write(self, name: str, content: str | bytes) -> str:
        """Write a file of the folder; gives its name back, for use in a command."""
        (self.folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    def read(self, name: str) -> bytes:
        """Read a file of the folder; a missing one fails the step, because a tool should have written it."""
        path = self.folder / name
        require(path.exists(), f"no file {name} was written")
        return path.read_bytes()

    def write_pins(self, pin: str, name: str = PINS) -> str:
        """Write a password file in the form that NSS's tools read."""
        return self.write(name, f"{self.token.label}:{pin}\n")

    def _write_environment(self) -> None:
        """Leave a file to source for whoever repeats a command in a kept folder."""
        names = {"HOME", "KEYFOB_HOME", "KEYFOB_STORE", "SOFTHSM2_CONF"}
        chosen = {k: v for k, v in self.token.environment.items() if k in names}
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in {**chosen, "PIN": self.token.pin}.items()]
        self.write("environment", "".join(lines))

    # --- tools -----------------------------------------------------------------------------------------------------

    def run(self, *command: str, stdin: str | bytes = b"", code: int | None = 0, principal: bool = False) -> Outcome:
        """Run any tool to its end, within the time limit."""
        return self.tools.run(*command, stdin=stdin, code=code, principal=principal)

    def certutil(
        self,
        action: str,
        *arguments: str,
        stdin: str = "",
        code: int | None = 0,
        principal: bool = False,
        pins: str = PINS,
    ) -> Outcome:
        """Run certutil on the database, with the password file (``pins=""``: without)."""
        login = ("-f", pins) if pins else ()
        command = ("certutil", action, "-d", DATABASE, *login, *arguments)
        return self.tools.run(*command, stdin=stdin, code=code, principal=principal)

    def pkcs11_tool(self, *arguments: str, code: int | None = 0, principal: bool = False) -> Outcome:
        """Run OpenSC's pkcs11-tool on the module, logged in."""
        login = ("--token-label", self.token.label, "--login", "--pin", self.token.pin)
        command = ("pkcs11-tool", "--module", self.token.module, *login, *arguments)
        return self.tools.run(*command, code=code, principal=principal)

    # --- what is on the token --------------------------------------------------------------------------------------

    def nick(self, name: str) -> str:
        """Give the name by which NSS knows the token's certificate ``name``."""
        return f"{self.token.label}:{name}"

    def serial(self) -> str:
        """Give a serial number that no other certificate of this stage has."""
        self._serial += 1
        return str(self._serial)

    def private_keys(self, *, pins: str = PINS, principal: bool = False) -> dict[str, tuple[str, str]]:
        """List the token's private keys as NSS sees them: CKA_ID in hex -> (type, name or "(orphan)").

        certutil answers 255 when there is no key at all.
        """
        listing = self.certutil("-K", "-h", self.token.label, code=None, pins=pins, principal=principal)
        require(listing.code == 0 or "no keys found" in listing.output, "certutil -K could not list the keys", listing)
        found = re.findall(r"^<\s*\d+>\s+(\S+)\s+([0-9a-f]+)\s+(.*?)\s*$", listing.output, re.MULTILINE)
        return {identifier: (kind, name) for kind, identifier, name in found}

    def certificates(self, *, database: str = DATABASE, pins: str = PINS, principal: bool = False) -> dict[str, str]:
        """List the token's certificates as NSS sees them: name without the token's -> trust flags."""
        login = ("-f", pins) if pins else ()
        command = ("certutil", "-L", "-d", database, *login, "-h", self.token.label)
        listing = self.tools.run(*command, principal=principal).output
        prefix = re.escape(self.token.label)
        return dict(re.findall(rf"^{prefix}:(.*?)\s+([a-zA-Z]*,[a-zA-Z]*,[a-zA-Z]*)\s*$", listing, re.MULTILINE))

    def certificate(self, name: str, *, principal: bool = False) -> x509.Certificate:
        """Fetch the token's certificate ``name`` through NSS; also leaves it in the file ``name``.pem."""
        pem = self.certutil("-L", "-n", self.nick(name), "-a", pins="", principal=principal).output
        self.write(f"{name}.pem", pem)
        return x509.load_pem_x509_certificate(pem.encode())

    def add_module(self, database: str, *, principal: bool = False) -> Outcome:
        """Register the module in an NSS database, under the name keyfob-demo."""
        friendly = ("-mechanisms", "FRIENDLY") if self.token.friendly else ()
        parameters = ("-string", self.token.parameters) if self.token.parameters else ()
        module = ("-add", "keyfob-demo", "-libfile", self.token.module)
        return self.run("modutil", "-dbdir", database, *module, *friendly, *parameters, "-force", principal=principal)


@contextlib.contextmanager
def open_stage(make_token: Callable[[Path, Tools], Token], *, keep: bool = False) -> Iterator[Stage]:
    """Make a stage in a temporary folder of its own, and remove the folder at the end unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="keyfob-demo-"))
    try:
        stage = Stage(folder, make_token)
        try:
            yield stage
        finally:
            stage.tools.kill_all()
    finally:
        if not keep:
            remove(folder)


def remove(folder: Path) -> None:
    """Remove a folder, also if a program that is just ending still writes into it."""
    for _ in range(ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
