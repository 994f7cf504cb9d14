"""Fresh tokens and the processes that work on them: one worker for each module and stage."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from . import keys
from .catalogue import FEW, Figure, Stage, Target
from .driver import HERE, BenchError, CallError, Process, compile_program, last_line
from .modules import PIN, Module, Token

Handles = dict[str, int]
Missing = dict[str, CallError]


class Worker:
    """One module on one token in a process of its own, which is started again after it died.

    `target` is what figures refer to; `missing` says for each absent object why it is absent.
    """

    def __init__(self, module: Module, token: Token, stage: Stage, log: Path, material: keys.Keys) -> None:
        self.name = module.name
        self.token = token
        self._module = module
        self._stage = stage
        self._log = log
        self._material = material
        self._process: Process | None = None
        self.population = 0
        self.target = Target({})
        self.missing: Missing = {}

    def start(self) -> Process:
        """A new process that has loaded and initialised the module; nobody is logged in."""
        command = [str(compile_program()), str(self._module.path)]
        if self.token.parameters is not None:
            command.append(self.token.parameters)
        return Process(command, self.token.environment, self._log)

    def log_in(self, process: Process) -> dict[str, Any]:
        """Open two sessions and log in; p11bench's answer has the time of C_Login."""
        return process.ask(f"open {self.token.label.encode().hex()} {PIN.encode().hex()} 2")

    def prepare(self, population: int, limit: float) -> None:
        """Put this stage's objects on the fresh token. `limit` is in seconds; `population` tells what was reached.

        Raises BenchError where the module cannot even be started and logged in to, CallError where filling fails.
        """
        process = None
        try:
            process = self.start()
            self.log_in(process)
        except CallError as failure:
            if process is not None:
                process.close()
            raise BenchError(" ".join(filter(None, (str(failure), last_line(self._log))))) from None
        try:
            for name, template in (
                ("rsa", self._material.rsa_private(token=True)),
                ("ec", self._material.ec_private(token=True)),
            ):
                try:
                    process.ask(f"make {keys.words(template)}")
                except CallError as failure:
                    self.missing[name] = failure
            if population:
                template_words = keys.words(self._material.ec_public())
                command = f"populate {population} {limit * 1000:.0f} {template_words}"
                self.population = int(process.ask(command, timeout=limit + 60)["made"])
        finally:
            process.close()

    def ready(self) -> Process:
        """The logged-in process with its objects at hand. Raises CallError where the module cannot be brought there."""
        if self._process is None:
            process = self.start()
            try:
                self.log_in(process)
            except CallError:
                process.close()
                raise
            self._process = process
            handles: Handles = {}
            for name, key_id in (("rsa", keys.RSA_ID), ("ec", keys.EC_ID)):
                self._obtain(process, handles, name, f"find {keys.words(keys.key_of_id(key_id))}")
            if self._stage == "main":
                for name, template in (
                    ("rsa-session", self._material.rsa_private(token=False)),
                    ("ec-session", self._material.ec_private(token=False)),
                    ("aes", keys.aes_session_key()),
                ):
                    self._obtain(process, handles, name, f"make {keys.words(template)}")
            self.target = Target(handles, self.population)
        return self._process

    def _obtain(self, process: Process, handles: Handles, name: str, command: str) -> None:
        if name in self.missing:
            return
        try:
            handles[name] = int(process.ask(command)["handle"])
        except CallError as failure:
            self.missing[name] = failure

    def measure(self, figure: Figure, microseconds: int) -> dict[str, Any]:
        """One batch of a figure. Raises CallError; a process that died is started again for the next one."""
        process = self.ready()
        if figure.needs in self.missing:
            raise self.missing[figure.needs]
        assert figure.command is not None
        name, arguments = figure.command(self.target)
        try:
            return process.ask(f"measure {name} {figure.lanes} {microseconds} {arguments}", 60 + microseconds / 1e6)
        except CallError as failure:
            if failure.fatal:
                self.close()
            raise

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.close()
            self._process = None


class Baseline:
    """The bare signatures of cryptography, in a process of this interpreter."""

    name = "bare"

    def __init__(self, folder: Path, material: keys.Keys) -> None:
        rsa_file, ec_file = material.write_pem(folder)
        # -I: what the benchmark's own folder holds must not stand before the standard library.
        command = [sys.executable, "-I", str(HERE / "bare.py"), str(rsa_file), str(ec_file)]
        self._process = Process(command, {}, folder / "bare.log")
        self.version = str(self._process.greeting["version"])

    def measure(self, figure: Figure, microseconds: int) -> dict[str, Any]:
        """One batch of bare signatures with the figure's kind of key."""
        data = keys.DIGEST_INFO if figure.baseline == "rsa" else keys.DIGEST
        return self._process.ask(f"measure sign 1 {microseconds} {figure.baseline} {data.hex()}")

    def close(self) -> None:
        """End the process."""
        self._process.close()


def population_of(stage: Stage, many: int) -> int:
    """How many objects the token of a stage holds beside the two keys."""
    return {"few": FEW, "many": many}.get(stage, 0)


def memory_folder(fallback: Path) -> Path:
    """Where tokens go whose filling is not measured: in memory, if the machine offers that.

    Filling takes thousands of durable writes; the look-ups that are measured do not wait for the disk.
    """
    shared = Path("/dev/shm")
    try:
        with tempfile.TemporaryDirectory(dir=shared):
            return shared
    except OSError:
        return fallback
