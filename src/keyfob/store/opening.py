"""Who gets at a token: attempts at PINs, the key file, and the stand-in for the SO.

Argon2id runs outside of the store's lock and of every transaction, so that other threads and processes go on meanwhile;
what was true before it is checked again after it.

An attempt at a PIN is counted, and settled, in the one transaction that comes before its answer: who kills the process
before that has learnt nothing, who kills it afterwards gets no guess back, and no attempt is ever half counted. Of many
at the same moment each asks in its transaction whether the PIN is locked by now. A wrong one is counted a second time
before all that, where nobody who can write the token can change it (guesses.py).
"""

from __future__ import annotations

from keyfob.settled import SETTLED
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import meta, pepper
from keyfob.store.counters import ROLES
from keyfob.store.guesses import Guesses
from keyfob.store.integrity import META_CHECKSUM
from keyfob.store.ledger import STAND_IN, Ledger
from keyfob.store.meta import WRAPPING_OF, Meta
from keyfob.store.reserve import using
from keyfob.store.witness import NO_PUBLIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Callable

    from keyfob.config import Config
    from keyfob.store.counters import Counters
    from keyfob.store.hardening import Hardening
    from keyfob.store.pepper import Pepper
    from keyfob.store.protocol import Database
    from keyfob.store.seal import Keys


class Attempt:
    """At a PIN, looked at and not answered: `keys` are None where it was wrong.

    `durable`: it must outlast a power failure. One that is right and finds nothing to set back need not: each durable
    commit waits for the disk, and hundreds of programs may start at once. `guessed`: wrong PINs with this one, once it
    is counted.
    """

    __slots__ = ("durable", "guessed", "keys", "role", "wrapping")

    def __init__(self, role: str, wrapping: bytes, keys: Keys | None, *, durable: bool) -> None:
        self.role = role
        self.wrapping = wrapping
        self.keys = keys
        self.durable = durable or keys is None
        self.guessed = 0


class Opening(Ledger):
    """A ledger with its ways in."""

    __slots__ = ("_guesses", "_peppers", "_turns")

    def __init__(
        self,
        database: Database,
        lock: RLock,
        log: Callable[[str], None],
        forget_objects: Callable[[], None],
        witness: str | None = None,
    ) -> None:
        super().__init__(database, lock, log, forget_objects, witness)
        self._guesses = None if witness is None else Guesses(witness, self.mention)
        self._turns = witness  # the folder where turns are taken
        self._peppers = pepper.Peppers(None, self.mention)

    def configure(self, config: Config) -> None:
        """Where peppers are, where that says anything."""
        self._peppers = pepper.Peppers(config, self.mention)

    def _stand_in(self) -> bool:
        """Log in whoever is to set the first user PIN without the SO PIN, if that may be (P6); no attempt at a PIN."""
        with self.lock:
            self._database.refresh()
            key = self.facts().first_pin_key
            if key:
                self.forget_keys()
                self.role, self._stands_in_until = STAND_IN, key
            return bool(key)

    def verify(self, role: str, pin: bytes) -> None:
        """Check the PIN; only the counters change."""
        attempt = self._look_at(role, pin)
        with self.lock:
            self._answer(attempt).wipe()

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
            wrapping = wrapping_of(self.facts(), role)
        used = self._pepper(seal.pepper_identity(wrapping))
        with Turn(self._turns):
            return seal.pin_mark(wrapping, pin, used)

    def unlock_with_key_file(self) -> None:
        """Open a token without PIN."""
        from keyfob.store import key_file, seal

        with self.lock:
            self._database.refresh()
            facts = self.facts()
            wrapping = facts.value(WRAPPING_OF["file"])
            if not wrapping:
                raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "this token is opened by a PIN")
            path = self._database.path
            master = seal.unwrap_with_key(wrapping, "file", key_file.unlocking(path, self.tell))
            if master is None:
                raise PKCS11Error(CKR.DEVICE_ERROR, f"{key_file.beside(path)} is not the key of this token")
            keys = seal.Keys(master)
            behind = facts.state is None or self._awaits_adoption
            behind = behind or self._database.row("SELECT 1 FROM unindexed LIMIT 1") is not None
            behind = bool(self._catch_up(facts)) or self._is_news(facts) or behind
            if self._database.read_only or not behind:
                facts = self._facts_for(keys)
                self._look_back_with_keys(facts, "")
                self._check_total(facts, keys)
            else:
                self._note(using(self._database, lambda: self._adopt_by_key_file(keys)), keys)
            self._keep("file", keys)

    def _adopt_by_key_file(self, keys: Keys) -> Meta:
        self.forget_facts()
        with self._database.writing():
            facts = Meta.load(self._database)
            doubt = self._catch_up(facts)
            self._vouched_for(facts, keys)
            found = self._look_back_with_keys(facts, doubt)
            self._check_total(facts, keys)
            meta.write_counters(self._database, facts.counters)
            self._adopt(keys, facts, found)
        return facts

    def _drop_key_file(self, keys: Keys) -> None:
        """Best effort: what no longer opens the token goes."""
        try:
            with SETTLED:
                self._try_to_drop_key_file(keys)
        finally:
            self.forget_facts()

    def _try_to_drop_key_file(self, keys: Keys) -> None:
        from keyfob.store import key_file

        try:
            key_file.drop(self._database, self._facts_for(keys), lambda: self._forget_key_file(keys))
        except OSError as problem:
            self.tell(f"the key file, which opens nothing any more, cannot be deleted: {problem.strerror}")
        except PKCS11Error as problem:
            self.tell(f"the key file, which opens nothing any more, is not deleted: {problem.reason}")

    def _forget_key_file(self, keys: Keys) -> None:
        with self._database.writing():
            facts = self._facts_for(keys)
            self._write(facts, {"key_file": b""}, keys)
        self._note(facts, keys, pins=False)

    # One attempt at a PIN: looked at, then counted and answered

    def _look_at(self, role: str, pin: bytes) -> Attempt:
        """The slow part, without any lock. CKR_PIN_LOCKED without looking."""
        from keyfob.store import seal
        from keyfob.store.turns import Turn

        if role not in ROLES:
            raise PKCS11Error(CKR.USER_TYPE_INVALID, f"{role} has no PIN")
        with self.lock:
            self._database.recover()
            self._database.refresh()
            facts = self.facts()
            self.forget_facts()  # what the witness knows better is not for others
            self._read_elsewhere(facts)
            wrapping = wrapping_of(facts, role)
            durable = bool(self._catch_up(facts)) or facts.counters.failed[role] > 0 or self._is_news(facts)
            durable = durable or self._awaits_adoption or any(self._failed_here.values())
            durable = durable or self._guesses_are_news(facts, wrapping)
            self._refuse_if_locked(facts, role, self._guessed(facts, role, wrapping)[0])
        try:
            used = self._pepper(seal.pepper_identity(wrapping))
            with Turn(self._turns):
                master = seal.unwrap(wrapping, role, pin, used)
        except ValueError as problem:
            raise PKCS11Error(CKR.DEVICE_ERROR, f"meta {WRAPPING_OF[role]}: {problem}") from None
        return Attempt(role, wrapping, None if master is None else seal.Keys(master), durable=durable)

    def _pepper(self, identity: bytes, label: str = "") -> Pepper | None:
        """The pepper that a PIN was made with, or is to be; CKR_DEVICE_ERROR when it is not where it should be.

        `label`: what the token is to be called, if it gets another label.
        """
        if not identity:
            return None
        with self.lock:
            facts = self.facts()
            label, settings = label or facts.readable_label, facts.readable_settings
        return self._peppers.known(identity, label, settings)

    def _answer(self, attempt: Attempt) -> Keys:
        """Within the lock, and after the attempt is counted: the keys, or CKR_PIN_INCORRECT."""
        keys = attempt.keys
        try:
            if self._database.read_only:
                self._count_here(attempt)
            else:
                using(self._database, lambda: self._count(attempt))
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
        self.forget_facts()
        with self._database.writing(durable=attempt.durable):
            facts = Meta.load(self._database)
            doubt = self._catch_up(facts)
            self._read_elsewhere(facts)
            guessed, known = self._guessed(facts, role, attempt.wrapping)
            guessed -= bool(attempt.guessed)  # it was counted, and what came then failed
            self._refuse_if_locked(facts, role, guessed)
            facts.counters.add(self._failed_here)
            if guessed > facts.counters.failed[role]:
                self.mention(f"this machine has counted more wrong PINs ({role}) than the token; they count on")
                facts.counters.failed[role] = guessed
            facts.counters.next_try()
            if keys is None:
                facts.counters.failed[role] = self._count_guess(facts, attempt, facts.counters)
                meta.write_counters(self._database, facts.counters)
            else:
                self._authenticate(facts, attempt, keys)
                found = self._look_back_with_keys(facts, doubt)
                if facts.counters.succeed(role):
                    self._pardon(facts, keys)
                meta.write_counters(self._database, facts.counters)
                self._check_total(facts, keys)
                if role == "user":
                    self._adopt(keys, facts, found)
                elif facts.has_roster:
                    self._settle(keys, facts, found, facts.adopted)
        with SETTLED:
            self._forget_elsewhere(facts)
        if attempt.durable:
            if keys is not None:
                self._note_opened(facts, attempt.wrapping, known)
            self._note(facts, keys)

    # Guesses at a wrapping, whatever the token says of them (guesses.py)

    def _guessed(self, facts: Meta, role: str, wrapping: bytes) -> tuple[int, int]:
        """How many wrong PINs count whatever the token says, and how many this machine knows of, forgiven or not."""
        found = None if self._guesses is None else self._guesses.read(wrapping)
        if found is None:
            return 0, 0
        return found.least(role, facts.readable_serial or "", facts.counters), found.failed

    def _guesses_are_news(self, facts: Meta, wrapping: bytes) -> bool:
        """Whether a right PIN changes what is known of guesses at this wrapping."""
        if self._guesses is None:
            return False
        found = self._guesses.read(wrapping)
        return found is None or found.failed > 0 or found.is_ageing or found.public != _public(facts)

    def _count_guess(self, facts: Meta, attempt: Attempt, counters: Counters) -> int:
        """Once for each attempt: how many wrong PINs there are with it. CKR_PIN_LOCKED where others were faster."""
        role, failed = attempt.role, counters.failed[attempt.role] + 1
        if not attempt.guessed:
            attempt.guessed = failed
            if self._guesses is not None:
                serial, public = facts.readable_serial or "", _public(facts)
                attempt.guessed = self._guesses.count(attempt.wrapping, role, serial, counters, public)
        counters.refuse_if_locked(role, facts.max_failures, least=attempt.guessed - 1)
        return max(attempt.guessed, failed)

    def _note_opened(self, facts: Meta, wrapping: bytes, forgiven: int = 0) -> None:
        """After a commit: the right PIN was given, or set. `forgiven`: wrong ones that were known before that."""
        with SETTLED:
            if self._guesses is not None:
                self._guesses.opened(wrapping, facts.counters.tries, _public(facts), forgiven)

    def _forget_elsewhere(self, facts: Meta) -> None:
        """What could not be counted in the token is counted there now."""
        if any(self._failed_here.values()):
            self._failed_here = dict.fromkeys(ROLES, 0)
            self._elsewhere.forget(facts.readable_serial or "")

    def _pardon(self, facts: Meta, keys: Keys, public: bytes = b"") -> None:
        """Say with a signature that wrong PINs were rightly forgotten. `public`: of new keys, where `keys` are old."""
        from keyfob.store import pardon

        public = public or pardon.public_key(keys)
        facts.counters.pardon = pardon.issue(keys, facts.readable_serial or "", facts.counters, public)

    def _count_here(self, attempt: Attempt) -> None:
        """On a read-only store guesses are counted elsewhere, or by process where that is not possible either.

        But not on a full disk, which is soon done, and soon undone: there no PIN is answered that cannot be counted.
        """
        role, keys = attempt.role, attempt.keys
        facts = Meta.load(self._database)
        self._read_elsewhere(facts)
        guessed, forgiven = self._guessed(facts, role, attempt.wrapping)
        self._refuse_if_locked(facts, role, guessed)
        if keys is not None:
            self._authenticate(facts, attempt, keys)
        else:
            known = facts.counters.copy()
            known.add(self._failed_here)
            self._count_guess(facts, attempt, known)
        if keys is None or self._failed_here[role] or self._database.is_full:
            self._count_elsewhere(facts, role, wrong=keys is None)
        if keys is None:  # of many at the same moment only so many are answered
            facts.counters.refuse_if_locked(role, facts.max_failures, self._failed_here[role] - 1)
            return
        self._look_back_with_keys(facts, "")
        self._check_total(facts, keys)
        if attempt.durable:
            self._note_opened(facts, attempt.wrapping, forgiven)

    def _count_elsewhere(self, facts: Meta, role: str, *, wrong: bool) -> None:
        try:
            self._failed_here = self._elsewhere.change(facts.readable_serial or "", role, wrong=wrong)
        except OSError as problem:
            if self._database.is_full:
                text = f"there is no room on the disk to count an attempt at a PIN: {problem.strerror}"
                raise PKCS11Error(CKR.DEVICE_MEMORY, text) from None
            self._failed_here[role] = self._failed_here[role] + 1 if wrong else 0

    def _authenticate(self, facts: Meta, attempt: Attempt, keys: Keys) -> None:
        """By the keys that were right a moment ago."""
        self._vouched_for(facts, keys)
        if wrapping_of(facts, attempt.role) != attempt.wrapping:
            raise PKCS11Error(CKR.PIN_INCORRECT, f"the {attempt.role} PIN was changed at this moment")

    def _refuse_if_locked(self, facts: Meta, role: str, guessed: int) -> None:
        facts.counters.refuse_if_locked(role, facts.max_failures, self._failed_here[role], guessed)


def _public(facts: Meta) -> bytes:
    """What pardons are verified with, by the token's word."""
    return NO_PUBLIC if facts.state is None else facts.state.public


def wrapping_of(facts: Meta, role: str) -> bytes:
    wrapping = facts.value(WRAPPING_OF[role])
    if not wrapping:
        if role == "user":
            raise PKCS11Error(CKR.USER_PIN_NOT_INITIALIZED, "the token has no user PIN")
        raise PKCS11Error(CKR.PIN_INCORRECT, "the token has no SO PIN; its user can set one")
    return wrapping
