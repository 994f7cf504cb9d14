"""The token's one login per process, and the life of its PINs (sections 5.5 and 5.6).

                     LOGIN_REQUIRED  USER_PIN_INITIALIZED                       (the guide's table 1.1)
    general access        no                 no           everything is there without login           S12
    uninitialised         yes                no           waits for its first user PIN, also NSS's    S13, P6
    with an empty PIN     no                 yes          as general access, until C_SetPIN           S14
    initialised           yes                yes          private objects need the user's login       S15
    with a PIN file       no                 yes          everything is there without login           pin_file.py

A PIN comes from the client, or, where it gives none and the token has a protected authentication path, from the person
(pinentry.py). PINs are checked and questions asked outside of the token's lock, so that other sessions go on.
"""

from __future__ import annotations

from _thread import allocate_lock

from keyfob import log
from keyfob.aside import ASIDE
from keyfob.settled import SETTLED
from keyfob.spec.constants import CKR, CKU
from keyfob.spec.errors import PKCS11Error
from keyfob.store import info as limits
from keyfob.token.person import Person
from keyfob.token.session import FIND

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable

    from keyfob.store import Store
    from keyfob.token.session import Session
    from keyfob.token.token import Token

MIN_PIN, MAX_PIN = limits.MIN_PIN, limits.MAX_PIN
ROLES = {CKU.SO: "so", CKU.USER: "user"}
FIRST_LATE = 3  # wrong PINs in a row, from which on answers come late
SHORTEST_WAIT, LONGEST_WAIT = 0.25, 5.0  # seconds


class Login:
    """What C_Login, C_InitPIN, C_SetPIN and C_InitToken do on `token`; who is logged in is the token's `role`."""

    __slots__ = ("_person", "_waiting", "lock", "token")

    def __init__(self, token: Token) -> None:
        self.token = token
        self.lock = allocate_lock()  # one login, logout or change of a PIN at a time
        self._person = Person(token)
        self._waiting: list[LockType] = []  # held by late answers; releasing one wakes it

    def end(self) -> None:
        """C_Finalize: close the dialog, let late answers go. Waits for neither; within the token's lock."""
        while self._waiting:
            self._waiting.pop().release()
        self._person.end()

    # Logging in and out

    def log_in(self, session: Session, user_type: int, pin: bytes | None) -> None:
        """C_Login."""
        pin = self._person.instead_of(pin)
        if user_type == CKU.CONTEXT_SPECIFIC:
            self._log_in_for_operation(session, pin)
            return
        role = ROLES.get(user_type)
        if role is None:
            raise PKCS11Error(CKR.USER_TYPE_INVALID, f"{user_type} is not a type of user")
        self._check_may_log_in(role, pin)
        given = self._login_pin(role, pin)

        def attempt() -> None:
            with self.lock:
                self._check_may_log_in(role, given)
                self._check_pin(role, given)
                with self.token.lock:
                    self.token.role = role
                    if role == "so":
                        self.token.close_pin_file()

        self._count(role, attempt, "login")
        self.audit("login", f"{role} logged in", role)
        if given:
            self.raise_hardening(role, given)

    def raise_hardening(self, role: str, pin: bytes) -> None:
        """Best effort: a PIN that is hardened with less than is asked for now is hardened anew (store/vault.py)."""
        with SETTLED:
            self._try_to_raise_hardening(role, pin)

    def _try_to_raise_hardening(self, role: str, pin: bytes) -> None:
        from keyfob.store import hardening

        store = self.token.store
        try:
            if store is None or not store.raise_hardening(role, pin, hardening.least()):
                return
        except PKCS11Error as problem:
            log.line("warning", f"slot {self.token.slot_id}: the {role} PIN is not hardened anew: {problem}")
            return
        self.audit("pin-hardened", f"the {role} PIN was hardened anew, against faster guessing", role)

    def audit(self, name: str, text: str, role: str, **details: str) -> None:
        """Something that went well: for people in the log, and for programs."""
        with SETTLED:
            log.line("info", f"slot {self.token.slot_id}: {text}")
            from keyfob.token import audit

            audit.event(self.token, name, role=role, **details)

    def _check_may_log_in(self, role: str, pin: bytes | None) -> None:
        present = self.token.role
        if present == role:
            raise PKCS11Error(CKR.USER_ALREADY_LOGGED_IN)
        if present is not None:
            raise PKCS11Error(CKR.USER_ANOTHER_ALREADY_LOGGED_IN)
        if role == "so":
            self._check_so(pin)

    def _check_so(self, pin: bytes | None) -> None:
        """Until a user PIN is set NSS may do what the standard forbids: SO beside read-only sessions, no PIN (P6).

        The empty PIN is then accepted beside a real SO PIN too; what it may do there is the store's matter.
        """
        if self._awaits_first_pin:
            return
        if pin == b"":
            raise PKCS11Error(CKR.PIN_INCORRECT, "the empty SO PIN counts only until the user PIN is set")
        if any(not session.read_write for session in list(self.token.sessions.values())):
            raise PKCS11Error(CKR.SESSION_READ_ONLY_EXISTS, "the SO cannot log in beside read-only sessions")

    @property
    def _awaits_first_pin(self) -> bool:
        info = self.token.info
        return info is None or not info.user_pin_set

    def _login_pin(self, role: str, pin: bytes | None) -> bytes:
        """The client's PIN, or the person's; nobody is asked where only the empty one can be right."""
        token = self.token
        if pin is not None:
            return pin
        if role == "user" and token.general_access:
            return b""
        if role == "so" and (token.store is None or (self._awaits_first_pin and not token.settings.protected_path)):
            return b""
        return self._present_pin(role)

    def _check_pin(self, role: str, pin: bytes) -> None:
        store, info = self.token.store, self.token.info
        if store is None or info is None:
            if role == "user":
                raise PKCS11Error(CKR.USER_PIN_NOT_INITIALIZED, "the token is not initialised")
            if pin:
                raise PKCS11Error(CKR.PIN_INCORRECT, "an uninitialised token takes the empty SO PIN, or C_InitToken")
        elif role == "user" and info.empty_pin:
            _check_empty(pin)
        elif pin or not self._is_open_to(role):
            store.login(role, pin)

    def _is_open_to(self, role: str) -> bool:
        """Whether a PIN file has opened the token to its user, who then may give no PIN."""
        return role == "user" and self.token.opened_by_pin_file

    def _log_in_for_operation(self, session: Session, pin: bytes | None) -> None:
        """CKU_CONTEXT_SPECIFIC: the PIN once more, for the operation that its key asks it for: the last one begun."""
        waiting = [o for kind, o in session.operations.items() if kind != FIND and o.needs_login]
        if not waiting:
            raise PKCS11Error(CKR.OPERATION_NOT_INITIALIZED, "no operation of this session waits for a login")
        self.check_pin_again(pin)
        waiting[-1].needs_login = False

    def check_pin_again(self, pin: bytes | None) -> None:
        """The user PIN, for one use of a key; None: the person is asked."""
        token = self.token
        if token.store is None or not token.sees_private:
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN)
        store, info = token.store, token.info
        given = self._login_pin("user", pin)

        def attempt() -> None:
            if info is not None and info.general_access:
                _check_empty(given)
            elif given or not self._is_open_to("user"):
                store.verify_pin("user", given)

        self._count("user", attempt, "operation")

    def log_out(self) -> None:
        """C_Logout."""
        token = self.token
        with self.lock, token.lock:
            role = token.role
            if role is None:
                raise PKCS11Error(CKR.USER_NOT_LOGGED_IN)
            token.forget_login()
        log.line("info", f"slot {token.slot_id}: {role} logged out")

    # Setting PINs

    def init_pin(self, session: Session, pin: bytes | None) -> None:
        """C_InitPIN: the SO sets the user's PIN; on a token that NSS initialises this makes the store (P6)."""
        session.require_read_write()
        token = self.token
        if token.role != "so":
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "C_InitPIN is the SO's")
        checked = self._new_pin("user", self._person.instead_of(pin))
        with self.lock:
            if token.role != "so":
                raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "the SO has logged out meanwhile")
            if token.store is not None:
                token.store.set_pin("user", checked)
            else:
                with token.lock:
                    store = token.make_store("", b"")
                    token.take(store)  # also where the PIN cannot be set: then it waits for that
                    store.login("so", b"")
                    token.role = "so"
                    store.set_pin("user", checked)
        self.audit("pin-set", "the user PIN was set by the SO", "user")

    def set_pin(self, session: Session, old: bytes | None, new: bytes | None) -> None:
        """C_SetPIN: whoever is logged in changes their PIN; nobody logged in means the user."""
        session.require_read_write()
        token, old, new = self.token, self._person.instead_of(old), self._person.instead_of(new)
        store, info = token.store, token.info
        if store is None or info is None:
            raise PKCS11Error(CKR.USER_PIN_NOT_INITIALIZED, "the token is not initialised")
        role = token.role or "user"
        if role == "user" and info.general_access and not info.empty_pin:
            raise PKCS11Error(CKR.USER_PIN_NOT_INITIALIZED, "a token of general access; its SO can set a user PIN")
        if role == "user" and info.empty_pin:
            _check_empty(old or b"")
            present = b""
        else:
            if self._is_open_to(role) and not old:
                raise PKCS11Error(CKR.PIN_INCORRECT, "the PIN that a file opens the token with is not the empty one")
            present = self._present_pin(role) if old is None else old
        checked = self._new_pin(role, new)

        def attempt() -> None:
            with self.lock:
                if (token.role or "user") != role:
                    raise PKCS11Error(CKR.FUNCTION_FAILED, "another login has come meanwhile")
                if role == "user" and info.empty_pin:
                    self._replace_empty_pin(store, checked)
                else:
                    self._replace_pin(store, role, present, checked)

        self._count(role, attempt, "pin-change")
        self.audit("pin-changed", f"the {role} PIN was changed", role)

    def _replace_pin(self, store: Store, role: str, old: bytes, new: bytes) -> None:
        if self.token.role is None and not self.token.opened_by_pin_file:
            store.login(role, old)
            try:
                store.set_pin(role, new)
            finally:
                store.logout()
        else:
            store.verify_pin(role, old)
            store.set_pin(role, new)

    def _replace_empty_pin(self, store: Store, new: bytes) -> None:
        """S14: from now on everybody needs the PIN. Who had said to be the user (C_Login, "") still is."""
        token = self.token
        with token.lock:
            token.open_to_all(store)
            role = token.role
            store.set_pin("user", new)
            if role is None:
                store.logout()
        with SETTLED:
            token.look_again()

    def initialise(self, pin: bytes | None, label: str) -> None:
        """C_InitToken: every object goes; a wrong SO PIN leaves all as it is."""
        token = self.token
        token.check_usable()
        given = self._person.instead_of(pin)
        if given is None:
            self._check_may_initialise()
            given = self._new_pin("so", None) if token.store is None else self._present_pin("so")

        def attempt() -> None:
            with token.lock:
                self._check_may_initialise()
                if token.store is None:
                    self.check_new(given)
                    token.take(token.make_store(label, given))
                else:
                    token.store.reset(label, given)
                    token.take(token.store)

        self._count("so", attempt, "initialise")
        self.audit("token-initialised", "the token was initialised", "so")

    def _check_may_initialise(self) -> None:
        if self.token.sessions:
            raise PKCS11Error(CKR.SESSION_EXISTS, "sessions are open on this token")
        if self.token.write_protected:
            raise PKCS11Error(CKR.TOKEN_WRITE_PROTECTED, "the token is write-protected")

    def check_new(self, pin: bytes) -> None:
        """CKR_PIN_LEN_RANGE for a PIN that must not be set: `[pin] min_length` of the configuration to 255 bytes."""
        check_pin(pin, self.token.config.min_pin)

    def _present_pin(self, role: str) -> bytes:
        """The PIN that a role has, from the person."""
        return self._person.present_pin(role, may_be_empty=role == "so" and self._awaits_first_pin)

    def _new_pin(self, role: str, pin: bytes | None) -> bytes:
        """A PIN that may be set: the client's, or the person's."""
        if pin is None:
            return self._person.new_pin(role, self.check_new)
        self.check_new(pin)
        return pin

    # Wrong PINs

    def _count(self, role: str, attempt: Callable[[], None], purpose: str) -> None:
        """Run an attempt at a PIN. The store has counted a wrong one before this waits, so killing us gains nothing."""
        try:
            attempt()
        except PKCS11Error as problem:
            self.audit_failure(role, problem, purpose)
            if problem.rv == CKR.PIN_INCORRECT and self.token.config.delay:
                self._wait(delay_after(self._failures(role)))
            raise

    def audit_failure(self, role: str, problem: PKCS11Error, purpose: str) -> None:
        if problem.rv not in (CKR.PIN_INCORRECT, CKR.PIN_LOCKED):
            return
        with SETTLED:
            from keyfob.token import audit

            failed = self._failures(role)
            audit.failure(self.token, "login-failed", problem, role=role, purpose=purpose, failures=failed)
            if problem.rv == CKR.PIN_INCORRECT and failed >= self._most_failures():
                audit.event(self.token, "pin-locked", role=role)

    def _most_failures(self) -> int:
        try:
            info = self.token.info
        except PKCS11Error:
            info = None
        return limits.DEFAULT_MAX_FAILURES if info is None else info.max_failures

    def _failures(self, role: str) -> int:
        """Wrong PINs in a row; 0 where the token cannot be asked any more."""
        try:
            info = self.token.info
        except PKCS11Error:
            return 0
        if info is None:
            return 0
        return info.failed_so if role == "so" else info.failed_user

    def _wait(self, seconds: float) -> None:
        """Without any lock of the token, and no longer than until C_Finalize."""
        if not seconds:
            return
        gate = allocate_lock()
        gate.acquire()
        with self.token.lock:
            if self.token.closed:
                return
            self._waiting.append(gate)
        with ASIDE:
            gate.acquire(timeout=seconds)
        with self.token.lock:
            if gate in self._waiting:
                self._waiting.remove(gate)


def _check_empty(pin: bytes) -> None:
    if pin:
        raise PKCS11Error(CKR.PIN_INCORRECT, "the user PIN of a token of general access is the empty one")


def delay_after(failures: int) -> float:
    """Seconds that the answer to the last of so many wrong PINs in a row waits."""
    if failures < FIRST_LATE:
        return 0.0
    doubled = SHORTEST_WAIT * 2.0 ** min(failures - FIRST_LATE, 16)
    return min(doubled, LONGEST_WAIT)


def check_pin(pin: bytes, least: int = MIN_PIN) -> bytes:
    """A PIN that may be set: `least` to 255 bytes; CKR_PIN_LEN_RANGE."""
    if not least <= len(pin) <= MAX_PIN:
        raise PKCS11Error(CKR.PIN_LEN_RANGE, f"a PIN has {least} to {MAX_PIN} bytes")
    return pin
