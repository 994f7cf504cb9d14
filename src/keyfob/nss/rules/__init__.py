"""Everything that NSS expects of a PKCS #11 module, rule by rule.

The guide "Implementing PKCS #11 for NSS" of 1998 gives the rules G, S, SE, O, K, I and N; P are the pitfalls on which
modules founder with NSS as it is today. `ALL` holds them in order, `rule("SE9")` gives one.
"""

from __future__ import annotations

from keyfob.nss.rules import (
    general,
    installation,
    kinds,
    objects,
    pitfalls,
    pitfalls_minor,
    semantics,
    sessions,
    slots,
)
from keyfob.nss.rules.rule import Rule

__all__ = ["ALL", "GROUPS", "Rule", "group", "rule"]

# The letters of a group and its name, in the order of the guide; pitfalls are ours.
GROUPS: dict[str, str] = {
    "G": "General-purpose functions",
    "S": "Slots and tokens",
    "SE": "Sessions",
    "O": "Objects",
    "K": "Kinds of tokens",
    "I": "Installation",
    "N": "Semantics unique to NSS",
    "P": "Pitfalls",
}

ALL: tuple[Rule, ...] = (
    *general.RULES,
    *slots.RULES,
    *sessions.RULES,
    *objects.RULES,
    *kinds.RULES,
    *installation.RULES,
    *semantics.RULES,
    *pitfalls.RULES,
    *pitfalls_minor.RULES,
)
_BY_ID = {each.id: each for each in ALL}


def rule(rule_id: str) -> Rule:
    """The rule of this ID; KeyError when there is none."""
    return _BY_ID[rule_id]


def group(letters: str) -> tuple[Rule, ...]:
    """The rules of a group: "G", "S", "SE", "O", "K", "I", "N" or "P"."""
    return tuple(each for each in ALL if each.group == letters)
