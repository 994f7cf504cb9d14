"""How the master key of a token is wrapped: new PINs, harder ones, peppers, and C_InitToken."""

from __future__ import annotations

from keyfob.settled import SETTLED
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import meta, pepper
from keyfob.store.counters import ROLES
from keyfob.store.info import check_pin_length
from keyfob.store.ledger import STAND_IN
from keyfob.store.meta import HARDENING, WRAPPING_OF
from keyfob.store.opening import Opening, wrapping_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyfob.store.hardening import Hardening
    from keyfob.store.meta import Meta
    from keyfob.store.pepper import Pepper, PepperState
    from keyfob.store.seal import Keys


class Vault(Opening):
    """All of it: what a store asks for."""

    __slots__ = ()

    def login(self, role: str, pin: bytes) -> None:
        """Check the PIN and keep the keys."""
        if role == "so" and not pin and self._stand_in():
            return
        attempt = self._look_at(role, pin)
        with self.lock:
            self._keep(role, self._answer(attempt))
            self._opened_by_empty_pin = not pin
        if role == "so" and pin:
            with SETTLED:
                self._wrap_for_so(pin)

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
            self.mention(f"the SO's key is not renewed at this login: {problem}")
            return
        if handed_over:
            # Each time, not once: a second time tells of an old copy that was put back (SECURITY.md).
            self._log("the first user PIN was set without the SO PIN; the SO has taken over the key")

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
                total = None
                forgotten = facts.counters.succeed(role)
                facts.counters.next_version()
                facts.counters.next_try()  # a pardon counts from there
                if new_keys is not keys:
                    total, kept = rekey.replace_key(self._database, facts, keys, new_keys, self.tell, self.roster)
                    values = kept | values
                    self._hand_over(facts, keys, new_keys)
                elif forgotten:
                    self._pardon(facts, new_keys)
                self._write(facts, values, new_keys, total)
                meta.write_counters(self._database, facts.counters)
            self._note(facts, new_keys)
            self._note_opened(facts, wrapping)
            if role == "user" and self.role == "file":
                self.role = "user"
            if new_keys is not keys and self.role is not None:
                self._keep(self.role, new_keys)
            self._database.checkpoint()
            self._drop_key_file(new_keys)

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

    def _hand_over(self, facts: Meta, keys: Keys | None, new_keys: Keys) -> None:
        """Let other machines take the new master key's word for the old one's, within the caller's transaction.

        Not where nobody has the old one: they go on counting wrong PINs until the next login on them.
        """
        from keyfob.store import notices, pardon

        public = pardon.public_key(new_keys)
        if keys is not None:
            self._pardon(facts, keys, public)
        if facts.state is not None:
            facts.state.public = public
            notices.clear(self._database, facts.state)

    def _keys_to_wrap(self, role: str) -> Keys | None:
        """The keys that a new PIN of `role` shall open; None: new ones, because the first PIN is a stand-in's."""
        if self.role != STAND_IN:
            return self._required_keys()
        if role != "user":
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "the SO PIN is changed after a login with it")
        return self.keys

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
                self._write(facts, wrapped | {"settings": settings}, keys)
            self._note(facts, keys, pins=False)
            for each in wrapped.values():
                self._note_opened(facts, each)
            self._database.checkpoint()

    def _open_to_wrap_anew(self, role: str, pin: bytes) -> bytes:
        """The wrapping that this PIN opens, as an attempt at it; what it opens is what is open already, or an error."""
        attempt = self._look_at(role, pin)
        with self.lock:
            self._answer(attempt).wipe()
        return attempt.wrapping

    def reset(self, label: bytes, so_pin: bytes) -> None:
        """C_InitToken: after the right SO PIN every object, PIN and key file goes; serial, kind and limits stay."""
        from keyfob.store import rekey, seal

        attempt = self._look_at("so", so_pin)
        with self.lock:
            old = self._answer(attempt)
            facts = self._facts_for(old)
            hardening = facts.hardening
            used = self._pepper(pepper.identity_in(facts.settings), label.decode(errors="replace"))
        keys = seal.Keys.generate()
        so_facts = rekey.so_facts(keys, so_pin, hardening, used)
        with self.lock:
            with self._database.writing():
                facts = self._facts_for(old)
                if wrapping_of(facts, "so") != attempt.wrapping:
                    raise PKCS11Error(CKR.PIN_INCORRECT, "the so PIN was changed at this moment")
                total, values = rekey.start_anew(self._database, facts, keys, label)
                facts.counters.next_version()
                facts.counters.next_try()
                self._hand_over(facts, old, keys)
                self._write(facts, values | so_facts, keys, total)
                meta.write_counters(self._database, facts.counters)
            self._note(facts, keys)
            self._note_opened(facts, so_facts[WRAPPING_OF["so"]])
            self.forget_keys()
            self._database.checkpoint()
            self._drop_key_file(keys)
        old.wipe()
        keys.wipe()


def _check_pepper(facts: Meta, used: Pepper | None) -> None:
    if pepper.identity_in(facts.settings) != (b"" if used is None else used.identity):
        raise PKCS11Error(CKR.FUNCTION_FAILED, "the token's pepper was changed at this moment")


def _raised_facts(facts: Meta, role: str, replaced: bytes, hardening: Hardening) -> dict[str, bytes]:
    if facts.value(WRAPPING_OF[role]) != replaced:
        raise PKCS11Error(CKR.FUNCTION_FAILED, f"the {role} PIN was changed at this moment")
    return {"hardening": HARDENING.pack(hardening.memory_kib, hardening.iterations, hardening.lanes)}
