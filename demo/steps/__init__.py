"""The steps of the demo: what each shows, which rules of NSS.md it rests on, and what must have gone before.

A step is a function that takes the :class:`~demo.stage.Stage`, drives real tools, raises
:class:`~demo.nss.StepFailedError` when something is not as it should be, and returns one line of evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from demo.stage import Stage

    StepFunction = Callable[[Stage], str]

# The chapters in the order of the account; each is a module of this package, whose STEPS decorate() has filled.
CHAPTERS: Mapping[str, str] = {
    "module": "The module and the token in NSS",
    "keys": "Keys",
    "certificates": "Certificates and requests",
    "upkeep": "Looking after certificates, keys, trust and PIN",
    "mail": "S/MIME mail",
    "files": "Signed files",
    "tls": "TLS",
    "pkcs12": "PKCS #12",
    "farewell": "Coming and going",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One step: ``name`` for --only, ``sentence`` and ``rules`` for the reader, ``needs`` the steps before it."""

    name: str
    sentence: str
    rules: tuple[str, ...]
    needs: tuple[str, ...]
    chapter: str
    function: StepFunction
    only: str  # the kind of token that this step is for; empty: any


class Registry:
    """The steps of one chapter, in the order in which its file defines them."""

    def __init__(self, chapter: str) -> None:
        """Start an empty chapter; ``chapter`` is a key of CHAPTERS."""
        self.chapter = chapter
        self.steps: list[Step] = []

    def step(
        self, name: str, sentence: str, *, rules: str, needs: str = "add-module", only: str = ""
    ) -> Callable[[StepFunction], StepFunction]:
        """Register the decorated function as a step; ``rules`` and ``needs`` are names separated by blanks."""

        def register(function: StepFunction) -> StepFunction:
            step = Step(name, sentence, tuple(rules.split()), tuple(needs.split()), self.chapter, function, only)
            self.steps.append(step)
            return function

        return register


def all_steps(kind: str = "") -> dict[str, Step]:
    """Give every step by name, in order; with ``kind``, only those meant for that kind of token.

    Raises ValueError when two steps share a name, or one needs a step that does not come before it.
    """
    steps: dict[str, Step] = {}
    for chapter in CHAPTERS:
        registry: Registry = import_module(f"demo.steps.{chapter}").steps
        for step in registry.steps:
            if step.name in steps or not all(need in steps for need in step.needs):
                raise ValueError(
                    f"step {step.name}: its name is taken, or a step that it needs does not come before it"
                )
            steps[step.name] = step
    if not kind:
        return steps
    return {name: step for name, step in steps.items() if step.only in {"", kind}}
