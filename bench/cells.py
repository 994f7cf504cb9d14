"""One module's token with so many objects, and what is measured of it, step by step."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyfob.spec.constants import CKA, CKM, CKO

from .driver import CallError, Process, compile_program
from .keys import DIGEST, TRUE, Template, ulong, words
from .modules import PIN, Module, Token
from .population import PER_PERSON, Person

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

RUNS = 200  # of a search in a batch, fewer where one takes long
WARM_UP = (
    1500  # runs before the first batch that are not counted: a process is meant that has been at work for a second
)
LONGEST = 0.5  # seconds for a batch, but LEAST runs
LEAST = 3
BY_CLASS = 20  # searches by class in a batch
SIGNING_KEYS, IN_TURN = 16, 10
EXCHANGED = 6  # certificates destroyed and made in a batch
EVERYTHING = 1 << 30
TIMEOUT = 600
CERTIFICATE, PRIVATE_KEY = ({CKA.CLASS: ulong(each)} for each in (CKO.CERTIFICATE, CKO.PRIVATE_KEY))


def _key_by_id(person: Person) -> Template:
    return {CKA.ID: person.private[CKA.ID], **PRIVATE_KEY}


def _by(*attributes: int) -> Callable[[Person], Template]:
    return lambda person: {**CERTIFICATE, **{each: person.certificate[each] for each in attributes}}


_by_issuer = _by(CKA.ISSUER, CKA.SERIAL_NUMBER)


class Cell:
    """Its processes stay open between the steps; `close` ends them."""

    def __init__(self, module: Module, token: Token, folder: Path, people: Sequence[Person], size: int) -> None:
        self.module = module
        self.token = token
        self.folder = folder
        self.size = size
        self._whole = people[: size // PER_PERSON]
        self._choice = random.Random(size)
        self._open: dict[bool, Process] = {}
        self._warm: set[tuple[bool, Callable[[Person], Template]]] = set()
        self._signing_keys = ""

    def _start(self) -> Process:
        command = [str(compile_program()), str(self.module.path)]
        if self.token.parameters is not None:
            command.append(self.token.parameters)
        return Process(command, self.token.environment, self.folder.with_suffix(".log"))

    def _log_in(self, process: Process) -> int:
        """Nanoseconds of C_Login."""
        label, pin = self.token.label.encode().hex(), PIN.encode().hex()
        return int(process.ask(f"open {label} {pin} 1", TIMEOUT)["nanoseconds"])

    def _process(self, *, login: bool) -> Process:
        process = self._open.get(login)
        if process is None:
            process = self._open[login] = self._start()
            if login:
                self._log_in(process)
            else:
                process.ask(f"public {self.token.label.encode().hex()}", TIMEOUT)
        return process

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def fill(self, templates: Sequence[Template], limit: float) -> dict[str, Any]:
        """Through the module, until the time is over."""
        lines = self.folder.with_suffix(".objects")
        with lines.open("w") as file:
            file.writelines(words(template) + "\n" for template in templates)
        process = self._start()
        try:
            self._log_in(process)
            return process.ask(f"fill {limit * 1000:.0f} {lines}", limit + 120)
        finally:
            process.close()
            lines.unlink()

    # Steps: each gives the values of the figures that it is for

    def disk(self) -> tuple[float, ...]:
        return (sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file()),)

    def start_and_log_in(self) -> tuple[float, ...]:
        """Start, login, both, memory after it."""
        process = self._start()
        try:
            start, login = int(process.greeting["nanoseconds"]), self._log_in(process)
            return start, login, start + login, process.resident()
        finally:
            process.close()

    def search(self, template_of: Callable[[Person], Template], *, login: bool) -> tuple[float, ...]:
        """The median of as many as the time allows, each for another person at random."""
        process = self._process(login=login)
        slowest = max(self._searched(process, template_of, 2))
        runs = int(min(RUNS, max(LEAST, LONGEST * 1e9 / slowest)))
        if (login, template_of) not in self._warm:
            self._warm.add((login, template_of))
            if runs == RUNS:
                self._searched(process, template_of, WARM_UP)
        return (statistics.median(self._searched(process, template_of, runs)),)

    def _searched(self, process: Process, template_of: Callable[[Person], Template], count: int) -> list[int]:
        # The same persons again only where there are not enough.
        enough = count <= len(self._whole)
        chosen = self._choice.sample(self._whole, count) if enough else self._choice.choices(self._whole, k=count)
        answer = process.ask(f"search 16 {' / '.join(words(template_of(person)) for person in chosen)}", TIMEOUT)
        if set(answer["found"]) != {1}:
            raise CallError(f"a search found {sorted(set(answer['found']))} objects, not 1", "")
        samples: list[int] = answer["samples"]
        return samples

    def first_of_class(self, *, login: bool) -> tuple[float, ...]:
        """C_FindObjectsInit, the first handle, C_FindObjectsFinal: a median."""
        return (self._by_class(self._process(login=login), 1, BY_CLASS),)

    def _by_class(self, process: Process, limit: int, runs: int) -> float:
        one = words({**CERTIFICATE, CKA.TOKEN: TRUE})
        samples: list[int] = process.ask(f"search {limit} {one}", TIMEOUT)["samples"]
        more = int(min(runs - 1, LONGEST * 1e9 / samples[0]))
        if more:
            samples = process.ask(f"search {limit} {' / '.join([one] * more)}", TIMEOUT)["samples"]
        return statistics.median(samples)

    def _handles(self, process: Process, templates: Sequence[Template]) -> str:
        return " ".join(map(str, process.ask(f"search 1 {' / '.join(map(words, templates))}", TIMEOUT)["handles"]))

    def sign(self) -> tuple[float, ...]:
        """One C_SignInit and C_Sign with one of several keys after the other; each was used before."""
        process = self._process(login=True)
        rounds = IN_TURN
        if not self._signing_keys:
            chosen = self._choice.sample(self._whole, SIGNING_KEYS)
            self._signing_keys = self._handles(process, [_key_by_id(person) for person in chosen])
            rounds += 1
        signed = process.ask(f"turn {rounds} {CKM.ECDSA} {DIGEST.hex()} {self._signing_keys}", TIMEOUT)["samples"]
        return (statistics.median(signed[-SIGNING_KEYS * IN_TURN :]),)

    def exchange(self) -> tuple[float, ...]:
        """Destroy some certificates and make them anew, so that the token stays as full as it was: one of each."""
        process = self._process(login=True)
        chosen = self._choice.sample(self._whole, EXCHANGED)
        gone = self._handles(process, [_by_issuer(person) for person in chosen])
        destroyed = process.ask(f"destroy {gone}", TIMEOUT)["samples"]
        made = process.ask(f"create {' / '.join(words(person.certificate) for person in chosen)}", TIMEOUT)["samples"]
        return statistics.median(destroyed), statistics.median(made)

    def read_all(self) -> tuple[float, ...]:
        """A search for all certificates, all handles taken; memory after one for all objects."""
        process = self._process(login=True)
        took = self._by_class(process, EVERYTHING, 1)
        process.ask(f"search {EVERYTHING} {words({CKA.TOKEN: TRUE})}", TIMEOUT)
        return took, process.resident()


@dataclass(frozen=True)
class Step:
    """What is done with each cell in turn. Steps that follow each other and are done equally `often` take turns."""

    figures: tuple[str, ...]
    take: Callable[[Cell], tuple[float, ...]]
    often: str = "rounds"


SEARCHES: dict[str, tuple[str, Callable[[Person], Template]]] = {
    "find-id": ("find by CKA_ID", _by(CKA.ID)),
    "find-label": ("find by CKA_LABEL", _by(CKA.LABEL)),
    "find-issuer": ("find by issuer and serial", _by_issuer),
    "find-subject": ("find by subject", _by(CKA.SUBJECT)),
}


def _search(template_of: Callable[[Person], Template], *, login: bool) -> Callable[[Cell], tuple[float, ...]]:
    return lambda cell: cell.search(template_of, login=login)


STEPS = (
    Step(("disk",), Cell.disk, "once"),
    Step(("start", "login", "start-login", "memory-login"), Cell.start_and_log_in, "starts"),
    *(Step((f"public-{name}",), _search(of, login=False)) for name, (_, of) in SEARCHES.items()),
    Step(("public-class-first",), lambda cell: cell.first_of_class(login=False)),
    *(Step((name,), _search(of, login=True)) for name, (_, of) in SEARCHES.items()),
    Step(("find-private",), _search(_key_by_id, login=True)),
    Step(("class-first",), lambda cell: cell.first_of_class(login=True)),
    Step(("sign",), Cell.sign),
    Step(("destroy", "create"), Cell.exchange, "changes"),
    Step(("class-whole", "memory-searched"), Cell.read_all, "once"),
)
