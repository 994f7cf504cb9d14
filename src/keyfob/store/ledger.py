"""What a token knows of itself, and who vouches for it: the facts, the roster, and the second place that knows both.

Everything that is written here is guarded by the master key. Who opened that is opening.py's matter, and how it is
wrapped is vault.py's.
"""

from __future__ import annotations

from keyfob.settled import SETTLED
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import meta, rows
from keyfob.store.counters import ROLES
from keyfob.store.meta import NUMBER, ROSTER, WRAPPING_OF, Meta
from keyfob.store.roster import Roster
from keyfob.store.witness import Witness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Callable

    from keyfob.store.info import TokenInfo
    from keyfob.store.protocol import Database
    from keyfob.store.seal import Keys

STAND_IN = "stand-in"


class Ledger:
    """`keys` and `role` are None while locked. `lock` is the store's, a reentrant one.

    Roles are "user", "so", "file", and STAND_IN: who gave NSS's empty SO PIN although there is an SO PIN, to set the
    first user PIN and do nothing else. The stand-in has no keys until then, and never may set the SO PIN.
    """

    __slots__ = (
        "_database",
        "_facts",
        "_failed_here",
        "_forget_objects",
        "_log",
        "_mentioned",
        "_opened_by_empty_pin",
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
        self._opened_by_empty_pin = False
        self._stands_in_until = b""  # this is no longer the key that the first PIN is sealed to
        self.keys: Keys | None = None
        self.role: str | None = None
        self.roster = Roster(database, self.tell)
        self._witness = None if witness is None else Witness(witness, self.tell, self.mention)

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
            self._facts = self._tell_problems(facts)
        return self._facts

    def info(self) -> TokenInfo:
        """What is told to everybody, within the lock."""
        return self.facts().info(self._failed_here)

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
        facts = Meta.load(self._database)
        facts.authenticate(keys)
        return self._tell_problems(facts)

    def write_facts(self, changed: Callable[[Meta], dict[str, bytes]]) -> None:
        """Set guarded rows to what `changed` makes of them; needs a login, because they are guarded by its key."""
        with self._database.writing():
            facts = self.facts()
            keys = self._required_keys()
            self.forget_facts()
            facts.counters.next_version()
            meta.write(self._database, changed(facts), keys)
            meta.write_counters(self._database, facts.counters)
        self._note(facts)

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

    # Vouching for objects

    def _adopt(self, keys: Keys, facts: Meta) -> None:
        """Vouch for what was written and removed without login."""
        rows.adopt(self._database, keys, facts.adopted, self.tell, self.roster)
        rows.index_rest(self._database, keys, facts.adopted)
        if facts.has_roster:
            self.roster.adopt_removals(keys)
            self._settle_roster(keys, facts, {"adopted": NUMBER.pack(facts.counters.version)})
            return
        values = {"adopted": NUMBER.pack(facts.counters.version), "key_id": meta.key_id(keys)}
        meta.write(self._database, values | {ROSTER: self.roster.build(keys)}, keys)
        self._facts = None

    def build_roster(self) -> None:
        """Vouch for the objects that are there, and for no others."""
        with self._database.writing():
            self.facts()
            keys = self._required_keys()
            if not self.sees_private:
                raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "this needs the user's login")
            self.forget_facts()
            meta.write(self._database, {ROSTER: self.roster.build(keys)}, keys)

    def _settle_roster(self, keys: Keys, facts: Meta, values: dict[str, bytes]) -> None:
        if self.roster.is_changed:
            values[ROSTER] = facts.with_total(self.roster.settle(facts.total, keys))
        values = {name: value for name, value in values.items() if not facts.has(name, value)}
        if values:
            meta.put(self._database, values, keys)
            facts.replace(values)

    def settle_write(self) -> None:
        """At the end of a transaction that wrote objects: the counters, and what is old without MAC is not believed."""
        facts = self.facts()
        meta.write_counters(self._database, facts.counters)
        if self.keys is None:
            return
        if self.sees_private:
            self._adopt(self.keys, facts)
        elif facts.has_roster:
            self._settle_roster(self.keys, facts, {})
        else:
            self.roster.forget()

    def _check_total(self, facts: Meta) -> None:
        """At a login: whether the roster is the one that was written last."""
        if facts.has_roster and not self.roster.adds_up_to(facts.total):
            self.tell("roster: parts of it were removed or put back to older ones: it was tampered with")

    # The second place that knows the counters

    def look_back(self) -> None:
        """When the token is opened, best effort: name in the log what is older than what was seen of it."""
        witness = self._witness
        if witness is None:
            return
        with self.lock:
            try:
                serial = self.facts().readable_serial
                seen = None if serial is None else witness.read(serial)
                if seen is None or not seen.is_ahead_of(self.facts().counters):
                    return
                self.forget_facts()  # or others have gone on since, and told the witness
                self._database.refresh()
                seen.tell_if_ahead_of(self.facts().counters, self.tell)
            except PKCS11Error:  # whoever asks for the facts is told so
                return

    def _catch_up(self, facts: Meta) -> bool:
        """Whether this is an older copy of the token; its counters go on from where they were."""
        serial = facts.readable_serial
        return self._witness is not None and serial is not None and self._witness.catch_up(serial, facts.counters)

    def _is_news(self, facts: Meta) -> bool:
        """Whether the witness does not know of this version of the token, or of no version at all."""
        serial = facts.readable_serial
        return self._witness is not None and serial is not None and not self._witness.knows(serial, facts.counters)

    def note(self) -> None:
        """After a commit that `settle_write` was part of."""
        if self._facts is not None:
            self._note(self._facts)

    def _note(self, facts: Meta) -> None:
        with SETTLED:
            serial = facts.readable_serial
            if self._witness is not None and serial is not None and not self._database.read_only:
                self._witness.note(serial, facts.counters)
