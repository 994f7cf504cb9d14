"""A token: its store, its one login per process, its sessions (sections 5.4 to 5.6).

A slot without a store holds an uninitialised token: it can be looked at, opened and searched (P10), C_InitToken makes
it a token, and so does NSS's way of setting the first PIN: C_Login(SO, "") beside an open read-only session,
C_InitPIN (P6).
"""

from __future__ import annotations

from _thread import RLock

from keyfob import log
from keyfob.settled import SETTLED
from keyfob.spec.constants import CKF, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.token import kinds
from keyfob.token.always_authenticate import Advertisement
from keyfob.token.login import Login
from keyfob.token.objects import Objects
from keyfob.token.pin_file import PinFile
from keyfob.token.session import SESSIONS, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.config import Config
    from keyfob.store import Store, TokenInfo

UNKNOWN = -1  # no change counter of a store
DEFAULT_LABEL = "keyfob"  # of a token that has no name yet (S10: NSS must be able to name it)


class Token:
    """`make_store(label, so_pin)` turns an uninitialised token into a stored one.

    `broken` is why the token's store could not be opened; such a token answers everything with that, and is not taken
    for an uninitialised one, or its data would be lost.
    """

    __slots__ = (
        "_general_access",
        "_login",
        "_looked_at",
        "_made",
        "_role",
        "advertised",
        "broken",
        "closed",
        "config",
        "hidden",
        "kind",
        "lock",
        "logouts",
        "make_store",
        "objects",
        "opened_by_pin_file",
        "pin_file",
        "sessions",
        "settings",
        "slot_id",
        "store",
        "write_protected",
    )

    removable = False
    registry = SESSIONS  # where its sessions are found by their handles

    def __init__(self, slot_id: int, make_store: Callable[[str, bytes], Store], config: Config) -> None:
        self.slot_id = slot_id
        self.make_store = make_store
        self.config = config
        self.sessions: dict[int, Session] = {}
        self.lock = RLock()
        self._login = Login(self)
        self.advertised = Advertisement(self)
        self.broken: PKCS11Error | None = None
        self.closed = False
        self._made: Store | None = None
        self.logouts = 0  # how often private objects went out of reach; see Session.still_allowed
        self.attach(None)

    def mark_broken(self, problem: PKCS11Error) -> None:
        self.broken = problem

    def check_usable(self) -> None:
        """Raise what the store's opening raised."""
        if self._made is not None:
            self.attach(self._made)
        if self.broken is not None:
            raise PKCS11Error(self.broken.rv, self.broken.reason)

    def attach(self, store: Store | None) -> None:
        """Work on this store from now on: a new incarnation, so that no old handle means a new object."""
        info = store.info() if store is not None else None
        name = f"{info.serial} {info.epoch}" if info is not None else f"slot {self.slot_id}"
        self.broken = None
        self.store = store
        self._role: str | None = None
        self._general_access = info is not None and info.general_access
        self.opened_by_pin_file = False
        self._looked_at = (
            UNKNOWN - 1
        )  # the store's change counter when `role` and `general_access` were last known to hold
        self.settings = self.config.token(info.label if info is not None else DEFAULT_LABEL)
        self.pin_file = PinFile(self.slot_id, self.settings.pin_file, self.config)
        self.write_protected = store is not None and (store.read_only or self.settings.write_protected)
        self.kind = info.kind if info is not None else kinds.MULTIPURPOSE
        self.hidden = kinds.numbers(self.settings.hide_mechanisms)
        self.objects = Objects(self, store, self.identity(name))
        self._made = None

    def take(self, store: Store) -> None:
        """Attach a store that a call has made: it is there, even where it cannot be asked at this moment."""
        self._made = store
        with SETTLED:
            self.attach(store)

    def identity(self, name: str) -> str:
        """What the handles of its objects belong to, see objects.base_of."""
        return name

    @property
    def absent(self) -> bool:
        """Whether the slot holds no token."""
        return False

    def look(self) -> None:
        """Notice that the token was removed or inserted; see removable.py."""

    @property
    def sees_private(self) -> bool:
        """Whether private objects are there at this moment: the user is logged in, or nobody needs to be (S12)."""
        return self.sees_private_as_of(UNKNOWN)

    def sees_private_as_of(self, counter: int) -> bool:
        """`sees_private`, for who has just asked the store for its change counter."""
        if counter != self._looked_at:
            self.look_again()
        role = self._role
        return role == "user" or (role is None and self._general_access)

    @property
    def role(self) -> str | None:
        """Who is logged in: None, "user" or "so"."""
        self.look_again()
        return self._role

    @role.setter
    def role(self, role: str | None) -> None:
        self._role = role

    @property
    def general_access(self) -> bool:
        """Whether everything is there without login (S12, S14), or by a PIN file (pin_file.py)."""
        self.look_again()
        return self._general_access

    @property
    def info(self) -> TokenInfo | None:
        self.check_usable()
        return self.store.info() if self.store is not None else None

    # Sessions

    def open_session(self, flags: int) -> Session:
        """C_OpenSession."""
        if not flags & CKF.SERIAL_SESSION:
            raise PKCS11Error(CKR.SESSION_PARALLEL_NOT_SUPPORTED, "CKF_SERIAL_SESSION must be set")
        if flags & CKF.RW_SESSION:
            if self.write_protected:
                raise PKCS11Error(CKR.TOKEN_WRITE_PROTECTED, "the token is write-protected")
        elif self.role == "so":
            raise PKCS11Error(CKR.SESSION_READ_WRITE_SO_EXISTS, "the SO is logged in")
        self.check_usable()
        self.use_pin_file()
        with self.lock:
            if self.closed:  # by C_Finalize in another thread, a moment ago
                raise PKCS11Error(CKR.CRYPTOKI_NOT_INITIALIZED)
            if len(self.sessions) >= self.settings.max_sessions:
                raise PKCS11Error(CKR.SESSION_COUNT, f"{self.settings.max_sessions} sessions are open")
            if self.store is not None and self.general_access:
                self.open_to_all(self.store)
            session = Session(self, flags)
            self.sessions[session.handle] = session
            self.registry[session.handle] = session
        return session

    def close_session(self, session: Session) -> None:
        """C_CloseSession: its operations and session objects die; the last one of the token logs out."""
        with self.lock:
            self.registry.pop(session.handle, None)
            if self.sessions.pop(session.handle, None) is None:
                return
            session.operations.clear()
            self.objects.forget_session(session.handle)
            if not self.sessions:
                self.forget_login()

    def close_all_sessions(self) -> None:
        with self.lock:
            for session in list(self.sessions.values()):
                self.close_session(session)

    # Logins and PINs: login.py

    def login(self, session: Session, user_type: int, pin: bytes | None) -> None:
        """C_Login."""
        self._login.log_in(session, user_type, pin)

    def ask_for_use(self) -> None:
        """The PIN once more where no client can give it, in a use that is one call: by the token's own dialog."""
        if not self.settings.protected_path:
            raise PKCS11Error(
                CKR.USER_NOT_LOGGED_IN, "the key asks for the PIN before each use, and one call has no before"
            )
        try:
            self._login.check_pin_again(None)
        except PKCS11Error as problem:
            wrong = problem.rv in (CKR.PIN_INCORRECT, CKR.PIN_LOCKED)  # which no such call may answer
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN if wrong else problem.rv, problem.reason) from None

    def logout(self) -> None:
        """C_Logout."""
        self._login.log_out()

    def init_pin(self, session: Session, pin: bytes | None) -> None:
        """C_InitPIN."""
        self._login.init_pin(session, pin)

    def set_pin(self, session: Session, old: bytes | None, new: bytes | None) -> None:
        """C_SetPIN."""
        self._login.set_pin(session, old, new)

    def initialise(self, pin: bytes | None, label: str) -> None:
        """C_InitToken."""
        self._login.initialise(pin, label)

    def open_to_all(self, store: Store) -> None:
        """Give a token of general access its keys, unless the SO or a program before us did."""
        if self._general_access and self._role is None and not store.unlocked:
            store.unlock_with_key_file()

    def use_pin_file(self) -> None:
        """Open the token with the PIN of a file, where the configuration names one and that is right."""
        if self.pin_file.location:
            self.pin_file.use(self._login)

    def open_by_pin_file(self) -> None:
        """The store was opened by a PIN file: nobody needs to log in."""
        with self.lock:
            self.opened_by_pin_file = self._general_access = True

    def close_pin_file(self) -> None:
        """The SO has logged in: the next session after that opens the token again."""
        if self.opened_by_pin_file:
            self.opened_by_pin_file = self._general_access = False

    def look_again(self) -> None:
        """Take up what another process, or we, changed about who may see what: a PIN that is set or gone (S8)."""
        store = self.store
        if store is None:
            return
        try:
            counter = store.change_counter()
            if counter == self._looked_at:
                return
            general_access, unlocked = store.info().general_access, store.unlocked
        except PKCS11Error:  # whatever call of the store comes next says so itself
            return
        with self.lock:
            if self.store is not store:
                return
            self._looked_at = counter
            if self.opened_by_pin_file:  # perhaps since we looked
                unlocked = self.opened_by_pin_file = store.unlocked
            general_access = general_access or self.opened_by_pin_file
            closed = self._general_access and not general_access
            self._general_access = general_access
            if self._role is not None and not unlocked:
                self.forget_login()
            elif closed and self._role is None:
                self._forget_private()

    def forget_login(self) -> None:
        """Nobody is logged in any more; what needs a login is out of reach (SE12), and out of memory."""
        role = self._role
        if role is None:
            return
        self._role = None
        try:
            self._forget_private()
        finally:
            self._lock_store(role)
        with SETTLED:
            from keyfob.token import audit

            audit.event(self, "logout", role=role)

    def _lock_store(self, role: str) -> None:
        """As it was before the login of this role."""
        if self.store is None or (role == "user" and self.opened_by_pin_file):
            return
        self.store.logout()
        if self._general_access:
            try:
                self.store.unlock_with_key_file()
            except PKCS11Error as problem:
                log.line("warning", f"slot {self.slot_id}: {problem}")

    def _forget_private(self) -> None:
        self.logouts += 1
        self.objects.forget_private()
        for session in self.sessions.values():
            session.end_private()

    def abandon(self) -> None:
        """In a forked child: keep nothing in memory, touch nothing that the parent uses, wait for no lock."""
        for session in self.sessions.values():
            session.operations = {}
        self.sessions = {}
        self.objects.close()
        if self.store is not None:
            self.store.abandon()

    def close(self) -> None:
        with self.lock:
            self.closed = True
            try:
                self._login.end()
                self.close_all_sessions()
            finally:
                self.objects.close()
                if self.store is not None:
                    self.store.close()
