"""What a token knows of itself, and who vouches for it: facts, roster, state, and the second place that knows them.

Everything that is written here is guarded by the master key. Who opened that is opening.py's matter, and how it is
wrapped is vault.py's.
"""

from __future__ import annotations

from keyfob.settled import SETTLED
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import adoption, meta, notices, rows
from keyfob.store.counters import ROLES
from keyfob.store.elsewhere import Elsewhere
from keyfob.store.meta import WRAPPING_OF, Meta
from keyfob.store.notices import ADOPTED, TAMPERED, Notice
from keyfob.store.roster import Roster
from keyfob.store.state import LATER, NOBODY, State, doubt
from keyfob.store.witness import Witness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Callable, Mapping

    from keyfob.store.info import TokenInfo
    from keyfob.store.protocol import Database
    from keyfob.store.seal import Keys
    from keyfob.store.state import Trace

STAND_IN = "stand-in"


class Ledger:
    """`keys` and `role` are None while locked. `lock` is the store's, a reentrant one.

    Roles are "user", "so", "file", and STAND_IN: who gave NSS's empty SO PIN although there is an SO PIN, to set the
    first user PIN and do nothing else. The stand-in has no keys until then, and never may set the SO PIN.
    """

    __slots__ = (
        "_database",
        "_elsewhere",
        "_facts",
        "_failed_here",
        "_forget_objects",
        "_log",
        "_mentioned",
        "_opened_by_empty_pin",
        "_past",
        "_stands_in_until",
        "_witness",
        "complaints",
        "keys",
        "lock",
        "role",
        "roster",
    )

    def __init__(
        self,
        database: Database,
        lock: RLock,
        log: Callable[[str], None],
        forget_objects: Callable[[], None],
        witness: str | None = None,
    ) -> None:
        """`forget_objects` is called whenever what may be seen has changed. `witness`: witness.py."""
        self._database = database
        self.lock = lock
        self._forget_objects = forget_objects
        self._log = log
        self._facts: Meta | None = None
        self.complaints: dict[str, None] = {}  # what was wrong with the token so far, in order
        self._mentioned: set[str] = set()
        self._failed_here = dict.fromkeys(ROLES, 0)  # wrong PINs on a store that cannot be written
        self._elsewhere = Elsewhere(witness)
        self._opened_by_empty_pin = False
        self._past: Trace | None = None  # the state that somebody with the keys saw last, here or by the witness
        self._stands_in_until = b""  # this is no longer the key that the first PIN is sealed to
        self.keys: Keys | None = None
        self.role: str | None = None
        self.roster = Roster(database, self.tell)
        self._witness = None if witness is None else Witness(witness, self.mention)

    @property
    def sees_private(self) -> bool:
        """The SO opens the master key to wrap it anew, not to see the user's objects."""
        return self.keys is not None and self.role in ("user", "file")

    # Facts

    def facts(self) -> Meta:
        """The meta table as of now, within the lock. Logs out when another process has changed the master key."""
        if self._facts is None:
            facts = Meta.load(self._database)
            if self.keys is not None and not facts.belongs_to(self.keys):
                self.tell("another process has initialised the token anew: logged out")
                self.forget_keys()
            if self.role == "file" and facts.is_known_empty(WRAPPING_OF["file"]):
                self.tell("another process has given the token a PIN: logged out")
                self.forget_keys()
            if self.role == STAND_IN and self.keys is None and facts.first_pin_key != self._stands_in_until:
                self.tell("another process has set the user PIN, or initialised the token anew: logged out")
                self.forget_keys()
            if self.keys is not None:
                facts.authenticate(self.keys)
                self._tell_doubt(facts)
            self._facts = self._tell_problems(facts)
        return self._facts

    def info(self) -> TokenInfo:
        """What is told to everybody, within the lock."""
        facts = self.facts()
        if self._database.read_only:
            self._read_elsewhere(facts)
        return facts.info(self._failed_here)

    def _read_elsewhere(self, facts: Meta) -> None:
        """How many wrong PINs there were that the token could not count (elsewhere.py)."""
        serial = facts.readable_serial
        found = None if serial is None else self._elsewhere.read(serial)
        if found is not None:
            self._failed_here = found

    def forget_facts(self) -> None:
        """Read them again when next needed: another process or we have changed them, or tried to."""
        self._facts = None
        self.roster.forget()

    def tell(self, text: str) -> None:
        """A complaint about the token: a line for the log, once."""
        if text not in self.complaints:
            self.complaints[text] = None
            self._log(text)

    def mention(self, text: str) -> None:
        """A line for the log, once, that says nothing against the token."""
        if text not in self._mentioned:
            self._mentioned.add(text)
            self._log(text)

    def _tell_problems(self, facts: Meta) -> Meta:
        for name, reason in facts.problems.items():
            self.tell(f"meta {name}: {reason}")
        return facts

    def _facts_for(self, keys: Keys) -> Meta:
        return self._vouched_for(Meta.load(self._database), keys)

    def _vouched_for(self, facts: Meta, keys: Keys) -> Meta:
        facts.authenticate(keys)
        return self._tell_problems(facts)

    def write_facts(self, changed: Callable[[Meta], dict[str, bytes]]) -> None:
        """Set guarded rows to what `changed` makes of them; needs a login, because they are guarded by its key."""
        with self._database.writing():
            facts = self.facts()
            keys = self._required_keys()
            self.forget_facts()
            facts.counters.next_version()
            self._write(facts, changed(facts), keys)
            meta.write_counters(self._database, facts.counters)
        self._note(facts, keys)

    def _write(self, facts: Meta, values: Mapping[str, bytes], keys: Keys, total: bytes | None = None) -> None:
        """Set guarded rows, as part of a new state; within the caller's transaction, in which `facts` were read.

        `total`: the roster's, where it was built just now; without one a token of an older schema stays as it is.
        """
        if total is None and not facts.has_roster:
            meta.put(self._database, values, keys)
            return
        total = self._total(facts, keys) if total is None else total
        state = self._successor(facts, keys, self._tell_doubt(facts))
        meta.write(self._database, values, total, state, keys)
        facts.state = state

    def _required_keys(self) -> Keys:
        if self.keys is None:
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "this needs a login")
        return self.keys

    def forget_keys(self) -> None:
        """Log out."""
        if self.keys is not None:
            self.keys.wipe()
        self.keys = None
        self.role = None
        self._opened_by_empty_pin = False
        self._stands_in_until = b""
        self.forget_facts()
        self._forget_objects()

    def _keep(self, role: str, keys: Keys) -> None:
        self.forget_keys()
        self.keys, self.role = keys, role
        self._database.counter += 1  # what was read before was believed without keys

    # Vouching for objects

    def _adopt(self, keys: Keys, facts: Meta, found: list[Notice]) -> None:
        """Vouch for what may come without a login (adoption.py). `found`: what else to give notice of."""
        if not facts.has_roster:
            found = found + self._adopted(keys, facts, None)
            rows.index_rest(self._database, keys, facts.adopted)
            total, state = self.roster.build(keys), self._successor(facts, keys, found)
            state.adopted = facts.counters.version
            meta.write(self._database, {"key_id": meta.key_id(keys)}, total, state, keys)
            self._facts, facts.state = None, state
            return
        adopted = facts.adopted
        if self.roster.is_whole:  # else nobody knows what there was
            found = found + self._adopted(keys, facts, self.roster)
            adopted = facts.counters.version
        rows.index_rest(self._database, keys, facts.adopted)
        self._settle(keys, facts, found, adopted)

    def _adopted(self, keys: Keys, facts: Meta, roster: Roster | None) -> list[Notice]:
        found = adoption.adopt(self._database, keys, facts, self.tell, roster)
        for notice in found:
            if notice.kind == ADOPTED:
                self.mention(notice.line)
        return found

    @property
    def _awaits_adoption(self) -> bool:
        """Whether something came or went without a login."""
        statements = ("SELECT 1 FROM object WHERE mac IS NULL LIMIT 1", "SELECT 1 FROM pending LIMIT 1")
        return any(self._database.row(statement) is not None for statement in statements)

    def accept(self) -> None:
        """Vouch for the objects that are there, and for no others."""
        with self._database.writing():
            facts = self.facts()
            keys = self._required_keys()
            if not self.sees_private:
                raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "this needs the user's login")
            self.forget_facts()
            self._adopted(keys, facts, None)
            total, state = self.roster.build(keys), self._successor(facts, keys, [])
            state.adopted = facts.counters.version
            notices.clear(self._database, state)
            meta.write(self._database, {}, total, state, keys)
            facts.state = state
        self.complaints.clear()
        self._note(facts, keys)

    def _settle(self, keys: Keys, facts: Meta, found: list[Notice], adopted: int) -> None:
        """A new state, if there is anything new, within the caller's transaction."""
        if facts.state is not None and not (self.roster.is_changed or found):
            return
        total = self._total(facts, keys)
        if self.roster.is_changed:
            total = self.roster.settle(total, keys)
        state = self._successor(facts, keys, found)
        state.adopted = adopted
        facts.put_state(self._database, total, state, keys)

    def settle_write(self) -> None:
        """At the end of a transaction that wrote objects: the counters, and what is old without MAC is not believed."""
        facts = self.facts()
        meta.write_counters(self._database, facts.counters)
        if self.keys is None:
            return
        if self.sees_private:
            self._adopt(self.keys, facts, self._tell_doubt(facts))
        elif facts.has_roster:
            self._settle(self.keys, facts, self._tell_doubt(facts), facts.adopted)
        else:
            self.roster.forget()

    def _total(self, facts: Meta, keys: Keys) -> bytes:
        total = facts.total(keys)
        return total if facts.state is not None else self.roster.converted(total, keys)

    def is_whole(self) -> bool:
        """After login, within the lock: whether the roster is the one that was written last."""
        facts, keys = self.facts(), self._required_keys()
        return self.roster.adds_up_to(self._total(facts, keys), keys)

    def _check_total(self, facts: Meta, keys: Keys) -> None:
        """At a login: whether the roster is the one that was written last."""
        if facts.has_roster and not self.roster.adds_up_to(self._total(facts, keys), keys):
            self.tell("roster: parts of it were removed or put back to older ones: it was tampered with")

    # States

    def _successor(self, facts: Meta, keys: Keys, found: list[Notice]) -> State:
        """What the token becomes by this commit of somebody with the keys, within the caller's transaction."""
        present = facts.state
        if present is None:
            from keyfob.store import pardon

            present = State.first(pardon.public_key(keys))
        machine = NOBODY if self._witness is None else self._witness.machine
        state = present.successor(machine, facts.counters, self._past)
        notices.write(self._database, found, state, keys)
        return state

    def _tell_doubt(self, facts: Meta) -> list[Notice]:
        """What speaks against the token's being the one that was seen last; in words for the log, and as a notice."""
        text = doubt(facts.trace, self._past)
        if text:
            self.tell(text)
        return [Notice(TAMPERED, text)] if text else []

    def _look_back_with_keys(self, facts: Meta, known: str) -> list[Notice]:
        """At a login: what speaks against the token, as notices. `known`: what its counters have told already."""
        serial = facts.readable_serial
        seen = None if self._witness is None or serial is None else self._witness.read(serial)
        trace = None if seen is None else seen.trace
        if trace is not None and (self._past is None or trace.relation_to(self._past) == LATER):
            self._past = trace
        return [Notice(TAMPERED, known)] if known else self._tell_doubt(facts)

    # The second place that knows the counters

    def look_back(self) -> None:
        """When the token is opened, best effort: name in the log what is older than what was seen of it."""
        with self.lock:
            try:
                if not self._doubt_without_keys():
                    return
                self.forget_facts()  # or others have gone on since, and told the witness
                self._database.refresh()
                text = self._doubt_without_keys()
                if text:
                    self.tell(text)
            except PKCS11Error:  # whoever asks for the facts is told so
                return

    def _doubt_without_keys(self) -> str:
        """What the second place says against the token, whose state nobody vouches for yet; empty for nothing."""
        facts = self.facts()
        witness, serial = self._witness, facts.readable_serial
        if witness is None or serial is None:
            return ""
        text, seen = witness.catch_up(serial, facts.counters.copy()), witness.read(serial)
        return text or doubt(facts.trace, None if seen is None else seen.trace)

    def doubts(self) -> list[str]:
        """Within the lock: what is wrong with the token as a whole."""
        text = self._doubt_without_keys()
        missing = self._notices(self.facts())[1]
        gone = f"notices: {missing} are gone, or are not what was written: it was tampered with"
        return ([text] if text else []) + ([gone] if missing else [])

    def complaints_of_notices(self) -> list[str]:
        """Within the lock: what was wrong since the last `accept`."""
        return [f"since {text}" for kind, text in self._notices(self.facts())[0] if kind == TAMPERED]

    def remarks(self) -> list[str]:
        """Within the lock: what came or went without a login and counts, since the last `accept`."""
        return [text for kind, text in self._notices(self.facts())[0] if kind == ADOPTED]

    def _notices(self, facts: Meta) -> tuple[list[tuple[int, str]], int]:
        if self.keys is None or facts.state is None:
            return [], 0
        return notices.read(self._database, facts.state, self.keys)

    def _catch_up(self, facts: Meta) -> str:
        """What speaks against the token's counters, which go on from where they were; empty where nothing does."""
        serial = facts.readable_serial
        if self._witness is None or serial is None:
            return ""
        text = self._witness.catch_up(serial, facts.counters)
        if text:
            self.tell(text)
        return text

    def _is_news(self, facts: Meta) -> bool:
        """Whether the witness does not know of this version of the token, or of no version at all."""
        serial = facts.readable_serial
        if self._witness is None or serial is None:
            return False
        return not self._witness.knows(serial, facts.counters, facts.trace)

    def note(self) -> None:
        """After a commit that `settle_write` was part of."""
        if self._facts is not None:
            self._note(self._facts, self.keys, pins=False)

    def _note(self, facts: Meta, keys: Keys | None, *, pins: bool = True) -> None:
        """After a commit by whoever has the keys, or None. `pins`: of one that counted, forgot or set PINs."""
        if keys is not None and facts.state is not None:
            self._past = facts.state.trace
        with SETTLED:
            witness, serial = self._witness, facts.readable_serial
            if witness is None or serial is None or self._database.read_only:
                return
            if keys is not None and facts.state is not None:
                witness.note_state(serial, facts.counters, facts.state, pins=pins)
            elif pins:
                witness.note_attempt(serial, facts.counters, facts.state)
            else:
                witness.note_writes(serial, facts.counters)
