"""The search: all moves, again and again, until nothing is gained any more or a target's value is known.

It is bounded in the values that can be derived from one another (moves.DEPTH), in the templates that are asked for
(moves.PALETTE, moves.CHANGES) and in the number of keys of each kind (one for each template), and in nothing else:
within that every order and number of calls is covered, since what the attacker has only grows (model.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from keyfob.functions import objects
from keyfob.spec.constants import CKA, CKK
from keyfob.token.object import FALSE, TRUE, ulong
from tests.policy.model import Attributes, Fact, World
from tests.policy.moves import MOVES, OWN, Tried, known_rsa

Goal = Callable[[World], Iterator[tuple[str, Fact]]]


class Result(NamedTuple):
    """`attack`: its lines, or nothing when none was found."""

    attack: list[str]
    keys: int
    calls: int


def lines(goal: str, fact: Fact) -> list[str]:
    """An attack as a list of calls, each after those that it needs."""
    found: list[str] = []
    seen: set[int] = set()

    def walk(one: Fact) -> None:
        if id(one) in seen:
            return
        seen.add(id(one))
        for parent in one.parents:
            walk(parent)
        line = f"{one.how} -> {one.name}"
        if line not in found:
            found.append(line)

    walk(fact)
    return [*(f"{i}. {line}" for i, line in enumerate(found, 1)), f"So he {goal}."]


def world_with(target: Attributes, *, imported: bool = False, trusted: bool = False) -> World:
    """A token with one key of somebody else's, and perhaps a wrapping key that the SO made and trusts."""
    from keyfob.functions import keys
    from keyfob.spec.constants import CKM

    world = World()
    if trusted:
        world.token.role = "so"
        asked = {
            CKA.VALUE_LEN: ulong(16),
            CKA.PRIVATE: FALSE,
            CKA.TRUSTED: TRUE,
            CKA.SENSITIVE: TRUE,
            CKA.EXTRACTABLE: FALSE,
        }
        handle = keys.C_GenerateKey(world.session, (CKM.AES_KEY_GEN, None), list(asked.items()))
        trust = world.gain_key(handle, "the key that the SO trusts", "C_GenerateKey by the SO, CKA_TRUSTED", ())
        world.generated.add(trust.value)
        world.token.role = "user"
    if imported:
        asked = {**target, CKA.VALUE: bytes(range(0x40, 0x50))}
        handle = objects.C_CreateObject(world.session, list(asked.items()))
    else:
        asked = {a: v for a, v in target.items() if a != CKA.KEY_TYPE}
        generator = CKM.AES_KEY_GEN if target[CKA.KEY_TYPE] == ulong(CKK.AES) else CKM.GENERIC_SECRET_KEY_GEN
        asked[CKA.VALUE_LEN] = ulong(16)
        handle = keys.C_GenerateKey(world.session, (generator, None), list(asked.items()))
    key = world.gain_key(handle, "the target", "made by its owner", ())
    world.targets[key.value] = "the target's value"
    world.owned[key.value] = key.attributes
    world.depth[key.value] = 0
    world.shown.add(key.value)
    world.learn(OWN, "a value of his own", "chosen", ())
    world.learn(bytes(16), "zeros", "chosen", ())
    known_rsa(world)
    return world


def search(world: World, goal: Goal = World.reached) -> Result:
    tried = Tried()
    while True:
        before = len(world.keys), len(world.known), len(world.blobs), len(world.links)
        for move in MOVES:
            move(world, tried)
            for name, fact in goal(world):
                return Result(lines(name, fact), len(world.keys), world.calls)
        if before == (len(world.keys), len(world.known), len(world.blobs), len(world.links)):
            return Result([], len(world.keys), world.calls)
