"""The state in which somebody with the keys left a token, and how one state is told to be another's successor.

A MAC says that a state was written by the token's user or SO, not that it is the newest. So every commit under a login
gets a name of its own, drawn by lot, and is counted for the machine that made it. Of two states the one whose counts
are all at least as high has seen everything that the other has; where each lacks something that the other has, both
grew from a copy of one token, and no machine that met one of them takes the other for its successor. Counts are
believed because they are part of a row with a MAC (meta.py), and nobody without the keys can make a new one.

A machine that has not written for long may be forgotten: its count is then part of `others`, a sum.
"""

from __future__ import annotations

import os
from _blake2 import blake2b
from struct import Struct, error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.store.counters import Counters
    from keyfob.store.seal import Keys

FORM = 1
HEAD = Struct("<B32sQQQQQ")  # FORM, public, version, adopted, tries, first notice, next notice
TRACE = Struct("<16sQ")  # identity, others
MACHINE = Struct("<8sQ")
MOST_MACHINES = 32
MOST = (1 << 63) - 1  # of any number here
NOBODY = bytes(8)  # a machine without a place to remember its name
OLD_COPY = "an older copy of the token was put back"
SAME, LATER, OLDER, FORK = "same", "later", "older", "fork"


class Trace:
    """Of a state, as much as tells which others came before it. `machines`: commits by machine, the last one last."""

    __slots__ = ("identity", "machines", "others")

    def __init__(self, identity: bytes, others: int = 0, machines: dict[bytes, int] | None = None) -> None:
        self.identity = identity
        self.others = others
        self.machines = {} if machines is None else machines

    def encode(self) -> bytes:
        machines = [MACHINE.pack(machine, count) for machine, count in self.machines.items()]
        return TRACE.pack(self.identity, self.others) + b"".join(machines)

    @classmethod
    def decode(cls, value: bytes) -> Trace:
        """ValueError unless `encode` could have written it."""
        if len(value) > TRACE.size + 2 * MOST_MACHINES * MACHINE.size:
            raise ValueError("too many machines")
        try:
            identity, others = TRACE.unpack_from(value)
            return cls(identity, others, dict(MACHINE.iter_unpack(value[TRACE.size :])))
        except error as problem:
            raise ValueError(str(problem)) from None

    def lacks(self, other: Trace) -> int:
        """How many of the other's commits are not part of this one's past."""
        lacking, forgotten = 0, other.others
        for machine, count in other.machines.items():
            known = self.machines.get(machine)
            if known is None:
                forgotten += count
            else:
                lacking += max(count - known, 0)
        return lacking + max(forgotten - self.others, 0)

    def relation_to(self, seen: Trace) -> str:
        """What this one is to a state that was seen before: SAME, LATER, OLDER, or of a copy that went on: FORK."""
        if self.identity == seen.identity:
            return SAME
        lacking, more = self.lacks(seen), seen.lacks(self)
        if more and not lacking:
            return LATER
        return OLDER if lacking and not more else FORK

    def joined(self, past: Trace) -> Trace:
        """One that follows from both."""
        machines = {each: max(count, past.machines.get(each, 0)) for each, count in self.machines.items()}
        lost = {each: count for each, count in past.machines.items() if each not in machines}
        return Trace(os.urandom(16), max(self.others, past.others), lost | machines)

    def successor(self, machine: bytes) -> Trace:
        """What this one becomes by a commit of `machine`."""
        machines, others = dict(self.machines), self.others
        machines[machine] = min(machines.pop(machine, 0) + 1, MOST)
        while len(machines) > MOST_MACHINES:
            others = min(others + machines.pop(next(iter(machines))), MOST)
        return Trace(os.urandom(16), others, machines)


def doubt(trace: Trace | None, seen: Trace | None) -> str:
    """What speaks against a token's being the one that was seen before; empty where nothing does."""
    if seen is None:
        return ""
    if trace is None:
        return f"{OLD_COPY}: it has no state, or none that can be believed"
    relation = trace.relation_to(seen)
    missing = f"{trace.lacks(seen)} changes under a login that this machine has seen are missing in it"
    if relation == OLDER:
        return f"{OLD_COPY}: {missing}"
    if relation == FORK:
        return f"another copy of the token, which has changed for itself, was put in its place: {missing}"
    return ""


class State:
    """`version`, `tries`: of the counters at that commit. `adopted`: rows without a MAC are older or not believed.

    `public`: what pardons are verified with (pardon.py). Notices (notices.py) have the numbers from `first_notice` to
    below `next_notice`.
    """

    __slots__ = ("adopted", "first_notice", "next_notice", "public", "trace", "tries", "version")

    def __init__(self, public: bytes, trace: Trace) -> None:
        self.public = public
        self.trace = trace
        self.version = self.adopted = self.tries = 0
        self.first_notice = self.next_notice = 1

    @classmethod
    def first(cls, public: bytes) -> State:
        """Of a new token."""
        return cls(public, Trace(os.urandom(16)))

    def encode(self) -> bytes:
        numbers = (self.version, self.adopted, self.tries, self.first_notice, self.next_notice)
        return HEAD.pack(FORM, self.public, *numbers) + self.trace.encode()

    @classmethod
    def decode(cls, value: bytes) -> State:
        """ValueError unless `encode` could have written it."""
        try:
            form, public, *numbers = HEAD.unpack_from(value)
        except error as problem:
            raise ValueError(str(problem)) from None
        if form != FORM:
            raise ValueError("a state of another form")
        state = cls(public, Trace.decode(value[HEAD.size :]))
        state.version, state.adopted, state.tries, state.first_notice, state.next_notice = numbers
        return state

    def successor(self, machine: bytes, counters: Counters, past: Trace | None) -> State:
        """The state after another commit of `machine`, which has seen `past`, too."""
        trace = self.trace if past is None or past.identity == self.trace.identity else self.trace.joined(past)
        state = State(self.public, trace.successor(machine))
        state.version, state.tries, state.adopted = counters.version, counters.tries, self.adopted
        state.first_notice, state.next_notice = self.first_notice, self.next_notice
        return state


def masked(keys: Keys, identity: bytes, total: bytes) -> bytes:
    """The roster's sum (roster.py) as it is stored with the state of this name; of what is stored, the sum."""
    mask = blake2b(identity, digest_size=len(total), person=b"keyfob total", key=keys.roster).digest()
    return (int.from_bytes(total, "little") ^ int.from_bytes(mask, "little")).to_bytes(len(total), "little")
