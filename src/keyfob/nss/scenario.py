"""What a scenario is: a function that drives a module as NSS does, and the rules that it tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from keyfob.nss.rules import rule

if TYPE_CHECKING:
    from keyfob.nss.context import Context

Need = Literal["pin", "so_pin", "write", "init"]

# What to tell a user whose run lacks what a scenario needs.
NEEDS: dict[Need, str] = {
    "pin": "no PIN was given (--pin-file)",
    "so_pin": "no SO PIN was given (--so-pin-file)",
    "write": "it writes to the token (--write)",
    "init": "it erases the token (--init)",
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario: `name` is unique ("load" or "load: NULL"), `needs` is what it cannot run without."""

    name: str
    title: str
    rules: tuple[str, ...]
    needs: tuple[Need, ...]
    function: Callable[[Context], None]

    def lacks(self, given: Iterable[Need]) -> str:
        """Why it cannot run; empty when it can."""
        have = set(given)
        return "; ".join(NEEDS[need] for need in self.needs if need not in have)


def scenario(
    name: str, title: str, *, rules: Iterable[str], needs: Iterable[Need] = ()
) -> Callable[[Callable[[Context], None]], Scenario]:
    """Make a scenario of a function. `rules` are the IDs that it gives findings for: the others are refused."""
    ids = tuple(rules)
    for rule_id in ids:
        rule(rule_id)  # KeyError: no such rule

    def decorate(function: Callable[[Context], None]) -> Scenario:
        return Scenario(name, title, ids, tuple(needs), function)

    return decorate
