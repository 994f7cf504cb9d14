"""Logins and PINs of a token in SQLite: who has opened the master key, and how it is wrapped.

Argon2id runs outside of the store's lock and of every transaction, so that other threads and processes go on meanwhile;
what was true before it is checked again after it.

An attempt at a PIN is counted, and settled, in the one transaction that comes before its answer: who kills the process
before that has learnt nothing, who kills it afterwards gets no guess back, and no attempt is ever half counted. Of many
at the same moment each asks in its transaction whether the PIN is locked by now.
"""

from __future__ import annotations

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import meta, pepper, permissions, rows
from keyfob.store.counters import ROLES
from keyfob.store.info import check_pin_length
from keyfob.store.integrity import META_CHECKSUM
from keyfob.store.meta import HARDENING, NUMBER, ROSTER, WRAPPING_OF, Meta
from keyfob.store.roster import Roster
from keyfob.store.witness import Witness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Callable, Mapping

    from keyfob.config import Config
    from keyfob.store.hardening import Hardening
    from keyfob.store.info import TokenInfo
    from keyfob.store.pepper import Pepper, PepperState
    from keyfob.store.protocol import Database
    from keyfob.store.seal import Keys

STAND_IN = "stand-in"


class Attempt:
    """At a PIN, looked at and not answered: `keys` are None where it was wrong.

    `durable`: it must outlast a power failure. One that is right and finds nothing to set back need not: each durable
    commit waits for the disk, and hundreds of programs may start at once.
    """

    __slots__ = ("durable", "keys", "role", "wrapping")

    def __init__(self, role: str, wrapping: bytes, keys: Keys | None, *, durable: bool) -> None:
        self.role = role
        self.wrapping = wrapping
        self.keys = keys
        self.durable = durable or keys is None


class Vault:
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
        "_opened_by_empty_pin",
        "_peppers",
        "_stands_in_until",
        "_told",
        "_turns",
        "_witness",
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
        self._told: set[str] = set()
        self._failed_here = dict.fromkeys(ROLES, 0)  # wrong PINs on a store that cannot be written
        self._opened_by_empty_pin = False
        self._stands_in_until = b""  # this is no longer the key that the first PIN is sealed to
        self.keys: Keys | None = None
        self.role: str | None = None
        self.roster = Roster(database, self.tell)
        self._witness = None if witness is None else Witness(witness, self.tell)
        self._turns = witness  # the folder where turns are taken
        self._peppers = pepper.Peppers(None, self.tell)

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
        """A line for the log, once."""
        if text not in self._told:
            self._told.add(text)
            self._log(text)

    def _tell_problems(self, facts: Meta) -> Meta:
        for name, reason in facts.problems.items():
            self.tell(f"meta {name}: {reason}")
        return facts

    def _facts_for(self, keys: Keys) -> Meta:
        facts = Meta.load(self._database)
        facts.authenticate(keys)
        return self._tell_problems(facts)

    # Opening

    def login(self, role: str, pin: bytes) -> None:
        """Check the PIN and keep the keys."""
        if role == "so" and not pin and self._stand_in():
            return
        attempt = self._look_at(role, pin)
        with self.lock:
            self._keep(role, self._answer(attempt))
            self._opened_by_empty_pin = not pin
        if role == "so" and pin:
            self._wrap_for_so(pin)

    def _stand_in(self) -> bool:
        """Log in whoever is to set the first user PIN without the SO PIN, if that may be (P6); no attempt at a PIN."""
        with self.lock:
            self._database.refresh()
            key = self.facts().first_pin_key
            if key:
                self.forget_keys()
                self.role, self._stands_in_until = STAND_IN, key
            return bool(key)

    def _wrap_for_so(self, pin: bytes) -> None:
        """After the SO's login, best effort: take what a stand-in left, and let one come to a token of schema 2."""
        from keyfob.store import seal

        try:
            with self.lock:
                facts = self.facts()
                handed_over = seal.is_handed_over(facts.value(WRAPPING_OF["so"]), "so")
                closed = facts.awaits_first_pin and not facts.first_pin_key
            if self._database.read_only or not (handed_over or closed):
                return
            self.set_pin("so", pin)
        except PKCS11Error as problem:
            self.tell(f"the SO's key is not renewed at this login: {problem}")
            return
        if handed_over:
            # Each time, not once: a second time tells of an old copy that was put back (SECURITY.md).
            self._log("the first user PIN was set without the SO PIN; the SO has taken over the key")

    def hardening(self, role: str) -> Hardening | None:
        """As the wrapping of this role's PIN says, within the lock."""
        from keyfob.store import seal

        wrapping = self.facts().value(WRAPPING_OF[role])
        return seal.hardening_of(wrapping) if wrapping else None

    def pin_generation(self, role: str) -> bytes:
        """Another one whenever the PIN of this role was set, within the lock."""
        return META_CHECKSUM(self.facts().value(WRAPPING_OF[role]))

    def pin_mark(self, role: str, pin: bytes) -> bytes:
        """By what a wrong PIN is known again while the PIN of this role is what it is; takes as long as a login."""
        from keyfob.store import seal
        from keyfob.store.turns import Turn

        with self.lock:
            self._database.refresh()
            wrapping = _wrapping(self.facts(), role)
        used = self._pepper(seal.pepper_identity(wrapping))
        with Turn(self._turns):
            return seal.pin_mark(wrapping, pin, used)

    def raise_hardening(self, role: str, pin: bytes, least: Hardening) -> bool:
        """After the login with this PIN: wrap anew, in one transaction, where the wrapping has less than `least`.

        Also where it has not got the pepper that the token's PINs have by now.
        """
        from keyfob.store import seal

        with self.lock:
            self._database.refresh()
            if self._database.read_only or self.role != role:
                return False
            facts = self.facts()
            wrapping = facts.value(WRAPPING_OF[role])
            present = self.hardening(role)
            if present is None:
                return False
            wanted = present.raised_to(least)
            if wanted is present and seal.pepper_identity(wrapping) == pepper.identity_in(facts.settings):
                return False
            wanted = wanted.raised_to(facts.hardening)  # what the next PIN would get is not lowered either
        self.set_pin(role, pin, (wrapping, wanted))
        return True

    def verify(self, role: str, pin: bytes) -> None:
        """Check the PIN; only the counters change."""
        attempt = self._look_at(role, pin)
        with self.lock:
            self._answer(attempt).wipe()

    def unlock_with_key_file(self) -> None:
        """Open a token without PIN."""
        from keyfob.store import key_file, seal

        with self.lock:
            self._database.refresh()
            facts = self.facts()
            wrapping = facts.value(WRAPPING_OF["file"])
            if not wrapping:
                raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "this token is opened by a PIN")
            path = key_file.resolve(facts.text("key_file"), self._database.path)
            permissions.tighten(path, self.tell)
            master = seal.unwrap_with_key(wrapping, "file", key_file.read(path))
            if master is None:
                raise PKCS11Error(CKR.DEVICE_ERROR, f"{path} is not the key of this token")
            keys = seal.Keys(master)
            unguarded = self._database.row("SELECT 1 FROM object WHERE mac IS NULL LIMIT 1") is not None
            behind = unguarded or self._database.row("SELECT 1 FROM unindexed LIMIT 1") is not None
            behind = behind or not facts.has_roster or self._database.row("SELECT 1 FROM removed LIMIT 1") is not None
            behind = self._catch_up(facts) or behind
            if self._database.read_only or not behind:
                self._check_total(self._facts_for(keys))
            else:
                with self._database.writing():
                    facts = self._facts_for(keys)
                    self._check_total(facts)
                    self._catch_up(facts)
                    meta.write_counters(self._database, facts.counters)
                    self._adopt(keys, facts)
                self._note(facts)
            self._keep("file", keys)

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

    # One attempt at a PIN: looked at, then counted and answered

    def _look_at(self, role: str, pin: bytes) -> Attempt:
        """The slow part, without any lock. CKR_PIN_LOCKED without looking."""
        from keyfob.store import seal
        from keyfob.store.turns import Turn

        if role not in ROLES:
            raise PKCS11Error(CKR.USER_TYPE_INVALID, f"{role} has no PIN")
        with self.lock:
            self._database.refresh()
            facts = self.facts()
            self.forget_facts()  # what the witness knows better is not for others
            wrapping = _wrapping(facts, role)
            durable = self._catch_up(facts) or facts.counters.failed[role] > 0 or self._is_news(facts)
            self._refuse_if_locked(facts, role)
        try:
            used = self._pepper(seal.pepper_identity(wrapping))
            with Turn(self._turns):
                master = seal.unwrap(wrapping, role, pin, used)
        except ValueError as problem:
            raise PKCS11Error(CKR.DEVICE_ERROR, f"meta {WRAPPING_OF[role]}: {problem}") from None
        return Attempt(role, wrapping, None if master is None else seal.Keys(master), durable=durable)

    def _pepper(self, identity: bytes) -> Pepper | None:
        """The pepper that a PIN was made with, or shall be; CKR_DEVICE_ERROR when it is not where it should be."""
        if not identity:
            return None
        with self.lock:
            facts = self.facts()
            label, settings = facts.readable_label, facts.readable_settings
        return self._peppers.known(identity, label, settings)

    def _answer(self, attempt: Attempt) -> Keys:
        """Within the lock, and after the attempt is counted: the keys, or CKR_PIN_INCORRECT."""
        keys = attempt.keys
        try:
            if self._database.read_only:
                self._count_here(attempt)
            else:
                self._count(attempt)
        finally:
            self.forget_facts()
        if keys is None:
            raise PKCS11Error(CKR.PIN_INCORRECT, f"the {attempt.role} PIN is wrong")
        if not self._database.read_only:
            self._drop_key_file(keys)
        return keys

    def _count(self, attempt: Attempt) -> None:
        """At a user's login there is also a MAC for what was written without one."""
        role, keys = attempt.role, attempt.keys
        with self._database.writing(durable=attempt.durable):
            facts = Meta.load(self._database)
            self._catch_up(facts)
            self._refuse_if_locked(facts, role)
            facts.counters.tries += 1
            if keys is None:
                facts.counters.fail(role)
                meta.write_counters(self._database, facts.counters)
            else:
                self._authenticate(facts, attempt, keys)
                facts.counters.succeed(role)
                meta.write_counters(self._database, facts.counters)
                self._check_total(facts)
                if role == "user":
                    self._adopt(keys, facts)
        if attempt.durable:
            self._note(facts)

    def _count_here(self, attempt: Attempt) -> None:
        """On a read-only store guesses are counted by process; whoever can copy the file guesses elsewhere anyway."""
        role, keys = attempt.role, attempt.keys
        facts = Meta.load(self._database)
        self._refuse_if_locked(facts, role)
        if keys is None:
            self._failed_here[role] += 1
            return
        self._authenticate(facts, attempt, keys)
        self._failed_here[role] = 0
        self._check_total(facts)

    def _authenticate(self, facts: Meta, attempt: Attempt, keys: Keys) -> None:
        """By the keys that were right a moment ago."""
        facts.authenticate(keys)
        self._tell_problems(facts)
        if _wrapping(facts, attempt.role) != attempt.wrapping:
            raise PKCS11Error(CKR.PIN_INCORRECT, f"the {attempt.role} PIN was changed at this moment")

    def _refuse_if_locked(self, facts: Meta, role: str) -> None:
        facts.counters.refuse_if_locked(role, facts.max_failures, self._failed_here[role])

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
        serial = facts.readable_serial
        if self._witness is not None and serial is not None and not self._database.read_only:
            self._witness.note(serial, facts.counters)

    # Changing PINs

    def set_pin(self, role: str, pin: bytes, raised: tuple[bytes, Hardening] | None = None) -> None:
        """Wrap the master key anew for `role`.

        With the first PIN that is set through the empty SO PIN comes a new master key, see rekey.py.

        A user PIN also ends the use of a key file, in the same transaction; whoever had the token open by the file and
        sets it is the user from now on. The file is deleted after that, and its name forgotten last: so there is no
        moment without a way in, and a kill in between leaves a file that opens nothing, for the next login to delete.

        `raised`: the wrapping to replace, and the hardening of this PIN and of those that follow.
        """
        from keyfob.store import handover, rekey, seal

        if role not in ROLES:
            raise PKCS11Error(CKR.USER_TYPE_INVALID, f"{role} has no PIN")
        check_pin_length(pin)
        with self.lock:
            self._database.refresh()
            hardening = self.facts().hardening if raised is None else raised[1]
            keys = self._keys_to_wrap(role)
            new_keys = seal.Keys.generate() if keys is None or self._opened_by_empty_pin else keys
            master = bytes(new_keys.master)
            used = self._pepper(pepper.identity_in(self.facts().settings))
        wrapping = seal.wrap(master, role, pin, hardening, used)
        with self.lock:
            with self._database.writing():
                facts = self.facts()
                if self._keys_to_wrap(role) is not keys:
                    raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "logged out meanwhile")
                _check_pepper(facts, used)
                values = {WRAPPING_OF[role]: wrapping}
                if raised is not None:
                    values |= _raised_facts(facts, role, *raised)
                if role == "user":
                    settings = {name: value for name, value in facts.settings.items() if name != meta.USER_PIN}
                    values |= {WRAPPING_OF["file"]: b"", "settings": meta.encode_settings(settings), "so_key": b""}
                elif facts.awaits_first_pin:
                    values["so_key"] = handover.public_key(master)
                self.forget_facts()
                if keys is None:
                    values = rekey.replace_unknown_key(self._database, facts, new_keys, self.tell, self.roster) | values
                elif new_keys is not keys:
                    values = rekey.replace_open_key(self._database, facts, keys, new_keys, self.roster) | values
                facts.counters.succeed(role)
                facts.counters.next_version()
                meta.write(self._database, values, new_keys)
                meta.write_counters(self._database, facts.counters)
            self._note(facts)
            if role == "user" and self.role == "file":
                self.role = "user"
            if new_keys is not keys and self.role is not None:
                self._keep(self.role, new_keys)
            self._database.checkpoint()
            self._drop_key_file(new_keys)

    def configure(self, config: Config) -> None:
        """Where peppers are, where that says anything."""
        self._peppers = pepper.Peppers(config, self.tell)

    def pepper_state(self) -> PepperState | None:
        """What PINs are made with, within the lock; None where none has a pepper and none gets one."""
        from keyfob.store import seal

        facts = self.facts()
        needed = {role: seal.pepper_identity(facts.value(WRAPPING_OF[role])) for role in ROLES}
        roles = tuple(role for role in ROLES if needed[role])
        identities = dict.fromkeys([pepper.identity_in(facts.settings), *(needed[role] for role in roles)])
        identities.pop(b"", None)
        if not identities:
            return None
        problem, location = "", ""
        try:
            for identity in identities:
                found = self._pepper(identity)
                location = found.location if found is not None else location
        except PKCS11Error as refused:
            problem = refused.reason
        return pepper.PepperState(location, problem, roles)

    def set_pepper(self, location: str | None, pins: Mapping[str, bytes]) -> None:
        """Give the PINs of these roles, and all that are set from now on, another pepper or none.

        A PIN that has none yet may be left out: it gets it at its next login.
        """
        from keyfob.store import seal

        new = None if location is None else self._peppers.new(location)
        present = {role: self._open_to_wrap_anew(role, pin) for role, pin in pins.items()}
        with self.lock:
            self._database.refresh()
            keys = self._required_keys()
            master = bytes(keys.master)
        wrapped = {
            WRAPPING_OF[role]: seal.wrap(master, role, pin, seal.hardening_of(present[role]), new)
            for role, pin in pins.items()
        }
        with self.lock:
            with self._database.writing():
                facts = self.facts()
                if self.keys is not keys:
                    raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "logged out meanwhile")
                for role in ROLES:
                    wrapping = facts.value(WRAPPING_OF[role])
                    if role in present and wrapping != present[role]:
                        raise PKCS11Error(CKR.FUNCTION_FAILED, f"the {role} PIN was changed at this moment")
                    if role not in present and seal.pepper_identity(wrapping):
                        raise PKCS11Error(CKR.ARGUMENTS_BAD, f"the {role} PIN needs the present pepper: give it, too")
                settings = meta.encode_settings(pepper.with_pepper(facts.settings, new))
                self.forget_facts()
                meta.write(self._database, wrapped | {"settings": settings}, keys)
            self._database.checkpoint()

    def _open_to_wrap_anew(self, role: str, pin: bytes) -> bytes:
        """The wrapping that this PIN opens, as an attempt at it; what it opens is what is open already, or an error."""
        attempt = self._look_at(role, pin)
        with self.lock:
            self._answer(attempt).wipe()
        return attempt.wrapping

    def _drop_key_file(self, keys: Keys) -> None:
        """Best effort: what no longer opens the token goes."""
        from keyfob.store import key_file

        try:
            key_file.drop(self._database, self._facts_for(keys), keys, self.tell)
        except OSError as problem:
            self.tell(f"the key file, which opens nothing any more, cannot be deleted: {problem.strerror}")
        except PKCS11Error as problem:
            self.tell(f"the key file, which opens nothing any more, is not deleted: {problem.reason}")
        finally:
            self.forget_facts()

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

    def reset(self, label: bytes, so_pin: bytes) -> None:
        """C_InitToken: after the right SO PIN every object, PIN and key file goes; serial, kind and limits stay."""
        from keyfob.store import rekey, seal

        attempt = self._look_at("so", so_pin)
        with self.lock:
            old = self._answer(attempt)
            facts = self._facts_for(old)
            hardening = facts.hardening
            used = self._pepper(pepper.identity_in(facts.settings))
        keys = seal.Keys.generate()
        so_facts = rekey.so_facts(keys, so_pin, hardening, used)
        with self.lock:
            with self._database.writing():
                facts = self._facts_for(old)
                if _wrapping(facts, "so") != attempt.wrapping:
                    raise PKCS11Error(CKR.PIN_INCORRECT, "the so PIN was changed at this moment")
                values = rekey.start_anew(self._database, facts, keys, label) | so_facts
                facts.counters.next_version()
                meta.write(self._database, values, keys)
                meta.write_counters(self._database, facts.counters)
            self._note(facts)
            self.forget_keys()
            self._database.checkpoint()
            self._drop_key_file(keys)
        old.wipe()
        keys.wipe()

    def _keys_to_wrap(self, role: str) -> Keys | None:
        """The keys that a new PIN of `role` shall open; None: new ones, because the first PIN is a stand-in's."""
        if self.role != STAND_IN:
            return self._required_keys()
        if role != "user":
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "the SO PIN is changed after a login with it")
        return self.keys

    def _required_keys(self) -> Keys:
        if self.keys is None:
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "this needs a login")
        return self.keys


def _check_pepper(facts: Meta, used: Pepper | None) -> None:
    if pepper.identity_in(facts.settings) != (b"" if used is None else used.identity):
        raise PKCS11Error(CKR.FUNCTION_FAILED, "the token's pepper was changed at this moment")


def _raised_facts(facts: Meta, role: str, replaced: bytes, hardening: Hardening) -> dict[str, bytes]:
    if facts.value(WRAPPING_OF[role]) != replaced:
        raise PKCS11Error(CKR.FUNCTION_FAILED, f"the {role} PIN was changed at this moment")
    return {"hardening": HARDENING.pack(hardening.memory_kib, hardening.iterations, hardening.lanes)}


def _wrapping(facts: Meta, role: str) -> bytes:
    wrapping = facts.value(WRAPPING_OF[role])
    if not wrapping:
        if role == "user":
            raise PKCS11Error(CKR.USER_PIN_NOT_INITIALIZED, "the token has no user PIN")
        raise PKCS11Error(CKR.PIN_INCORRECT, "the token has no SO PIN; its user can set one")
    return wrapping
