"""A token: its store, its one login per process, its sessions (sections 5.4 to 5.6).

A slot without a store holds an uninitialised token: it can be looked at, opened and searched (P10), C_InitToken makes
it a token, and so does NSS's way of setting the first PIN: C_Login(SO, "") beside an open read-only session,
C_InitPIN (P6).
"""

from __future__ import annotations

from _thread import RLock, allocate_lock

from keyfob import log
from keyfob.spec.constants import CKF, CKR, CKU
from keyfob.spec.errors import PKCS11Error
from keyfob.store import info as limits
from keyfob.token import kinds
from keyfob.token.objects import Objects
from keyfob.token.session import FIND, SESSIONS, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.config import Config
    from keyfob.store import Store, TokenInfo

MIN_PIN, MAX_PIN = limits.MIN_PIN, limits.MAX_PIN
ROLES = {CKU.SO: "so", CKU.USER: "user"}


class Token:
    """`make_store(label, so_pin)` turns an uninitialised token into a stored one; `role` is None, "user" or "so".

    `broken` is why the token's store could not be opened; such a token answers everything with that, and is not taken
    for an uninitialised one, or its data would be lost.
    """

    __slots__ = (
        "_login_lock",
        "broken",
        "closed",
        "config",
        "general_access",
        "hidden",
        "kind",
        "lock",
        "make_store",
        "objects",
        "role",
        "sessions",
        "settings",
        "slot_id",
        "store",
        "write_protected",
    )

    def __init__(self, slot_id: int, make_store: Callable[[str, bytes], Store], config: Config) -> None:
        self.slot_id = slot_id
        self.make_store = make_store
        self.config = config
        self.sessions: dict[int, Session] = {}
        self.lock = RLock()
        self._login_lock = allocate_lock()
        self.role: str | None = None
        self.broken: PKCS11Error | None = None
        self.closed = False
        self.attach(None)

    def mark_broken(self, problem: PKCS11Error) -> None:
        self.broken = problem

    def check_usable(self) -> None:
        """Raise what the store's opening raised."""
        if self.broken is not None:
            raise PKCS11Error(self.broken.rv, self.broken.reason)

    def attach(self, store: Store | None) -> None:
        """Work on this store from now on: a new incarnation, so that no old handle means a new object."""
        identity = f"slot {self.slot_id}"
        info = store.info() if store is not None else None
        if info is not None:
            identity = f"{info.serial} {info.epoch}"
        self.broken = None
        self.store = store
        self.role = None
        self.general_access = info is not None and info.general_access
        self.settings = self.config.token(info.label if info is not None else "")
        self.write_protected = store is not None and (store.read_only or self.settings.write_protected)
        self.kind = info.kind if info is not None else kinds.MULTIPURPOSE
        self.hidden = kinds.numbers(self.settings.hide_mechanisms)
        self.objects = Objects(self, store, identity)

    @property
    def sees_private(self) -> bool:
        """Whether private objects are there at this moment: the user is logged in, or nobody needs to be (S12)."""
        return self.role == "user" or self.general_access

    @property
    def info(self) -> TokenInfo | None:
        self.check_usable()
        return self.store.info() if self.store is not None else None

    @property
    def _awaits_first_pin(self) -> bool:
        info = self.info
        return info is None or not info.user_pin_set

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
        with self.lock:
            if self.closed:  # by C_Finalize in another thread, a moment ago
                raise PKCS11Error(CKR.CRYPTOKI_NOT_INITIALIZED)
            if len(self.sessions) >= self.settings.max_sessions:
                raise PKCS11Error(CKR.SESSION_COUNT, f"{self.settings.max_sessions} sessions are open")
            if self.general_access and self.store is not None and not self.store.unlocked:
                self.store.unlock_with_key_file()
            session = Session(self, flags)
            self.sessions[session.handle] = session
            SESSIONS[session.handle] = session
        return session

    def close_session(self, session: Session) -> None:
        """C_CloseSession: its operations and session objects die; the last one of the token logs out."""
        with self.lock:
            SESSIONS.pop(session.handle, None)
            if self.sessions.pop(session.handle, None) is None:
                return
            session.operations.clear()
            self.objects.forget_session(session.handle)
            if not self.sessions:
                self._forget_login()

    def close_all_sessions(self) -> None:
        with self.lock:
            for session in list(self.sessions.values()):
                self.close_session(session)

    # Logins and PINs

    def login(self, session: Session, user_type: int, pin: bytes | None) -> None:
        """C_Login. The PIN is checked outside of the token's lock, so that other sessions go on meanwhile."""
        if pin is None and user_type == CKU.SO and self._awaits_first_pin:
            pin = b""
        if pin is None:
            raise PKCS11Error(CKR.ARGUMENTS_BAD, "no PIN was given and the token has no protected authentication path")
        if user_type == CKU.CONTEXT_SPECIFIC:
            self._login_for_operation(session, pin)
            return
        role = ROLES.get(user_type)
        if role is None:
            raise PKCS11Error(CKR.USER_TYPE_INVALID, f"{user_type} is not a type of user")
        with self._login_lock:
            if self.role == role:
                raise PKCS11Error(CKR.USER_ALREADY_LOGGED_IN)
            if self.role is not None:
                raise PKCS11Error(CKR.USER_ANOTHER_ALREADY_LOGGED_IN)
            self._check_pin(role, pin)
            with self.lock:
                self.role = role
        log.line("info", f"slot {self.slot_id}: {role} logged in")

    def _check_pin(self, role: str, pin: bytes) -> None:
        if role == "so":
            self._check_so(pin)
        if self.store is not None:
            self.store.login(role, pin)
        elif role == "user":
            raise PKCS11Error(CKR.USER_PIN_NOT_INITIALIZED, "the token is not initialised")
        elif pin:
            raise PKCS11Error(CKR.PIN_INCORRECT, "an uninitialised token takes the empty SO PIN, or C_InitToken")

    def _check_so(self, pin: bytes) -> None:
        """Until a user PIN is set NSS may do what the standard forbids: SO beside read-only sessions, no PIN (P6)."""
        if self._awaits_first_pin:
            return
        if not pin:
            raise PKCS11Error(CKR.PIN_INCORRECT, "the empty SO PIN counts only until the user PIN is set")
        if any(not session.read_write for session in list(self.sessions.values())):
            raise PKCS11Error(CKR.SESSION_READ_ONLY_EXISTS, "the SO cannot log in beside read-only sessions")

    def _login_for_operation(self, session: Session, pin: bytes) -> None:
        """CKU_CONTEXT_SPECIFIC: the PIN once more, for the operation that its key asks it for."""
        waiting = [o for kind, o in session.operations.items() if kind != FIND and o.needs_login]
        if not waiting:
            raise PKCS11Error(CKR.OPERATION_NOT_INITIALIZED, "no operation of this session waits for a login")
        if self.role != "user" or self.store is None:
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN)
        self.store.verify_pin("user", pin)
        for operation in waiting:
            operation.needs_login = False

    def logout(self) -> None:
        """C_Logout."""
        with self._login_lock, self.lock:
            if self.role is None:
                raise PKCS11Error(CKR.USER_NOT_LOGGED_IN)
            role = self.role
            self._forget_login()
        log.line("info", f"slot {self.slot_id}: {role} logged out")

    def _forget_login(self) -> None:
        if self.role is None:
            return
        self.role = None
        if self.store is not None and not self.general_access:
            self.store.logout()
        self.objects.forget_private()
        for session in self.sessions.values():
            for kind, operation in list(session.operations.items()):
                if kind == FIND or (operation.key is not None and operation.key.private):
                    session.end(kind)

    def init_pin(self, session: Session, pin: bytes | None) -> None:
        """C_InitPIN: the SO sets the user's PIN; on a token that NSS initialises this makes the store (P6)."""
        session.require_read_write()
        if self.role != "so":
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "C_InitPIN is the SO's")
        checked = check_pin(pin)
        with self.lock:
            if self.store is None:
                store = self.make_store("", b"")
                store.login("so", b"")
                store.set_pin("user", checked)
                self.attach(store)
                self.role = "so"
            else:
                self.store.set_pin("user", checked)
        log.line("info", f"slot {self.slot_id}: the user PIN was set by the SO")

    def set_pin(self, session: Session, old: bytes | None, new: bytes | None) -> None:
        """C_SetPIN: whoever is logged in changes their PIN; nobody logged in means the user."""
        session.require_read_write()
        role = self.role or "user"
        if self.store is None:
            raise PKCS11Error(CKR.USER_PIN_NOT_INITIALIZED, "the token is not initialised")
        if old is None:
            raise PKCS11Error(CKR.ARGUMENTS_BAD, "no PIN was given and the token has no protected authentication path")
        checked = check_pin(new)
        with self._login_lock:
            if self.role is None:
                self.store.login(role, old)
                try:
                    self.store.set_pin(role, checked)
                finally:
                    self.store.logout()
            else:
                self.store.verify_pin(role, old)
                self.store.set_pin(role, checked)
        log.line("info", f"slot {self.slot_id}: the {role} PIN was changed")

    def initialise(self, pin: bytes | None, label: str) -> None:
        """C_InitToken: every object goes; a wrong SO PIN leaves all as it is."""
        if pin is None:
            raise PKCS11Error(CKR.ARGUMENTS_BAD, "no PIN was given and the token has no protected authentication path")
        self.check_usable()
        with self.lock:
            if self.sessions:
                raise PKCS11Error(CKR.SESSION_EXISTS, "sessions are open on this token")
            if self.write_protected:
                raise PKCS11Error(CKR.TOKEN_WRITE_PROTECTED, "the token is write-protected")
            if self.store is None:
                check_pin(pin)
                self.attach(self.make_store(label, pin))
            else:
                self.store.reset(label, pin)
                self.attach(self.store)
        log.line("info", f"slot {self.slot_id}: the token was initialised")

    def close(self) -> None:
        with self.lock:
            self.closed = True
            self.close_all_sessions()
            if self.store is not None:
                self.store.close()


def check_pin(pin: bytes | None) -> bytes:
    """A PIN that may be set: 4 to 255 bytes."""
    if pin is None:
        raise PKCS11Error(CKR.ARGUMENTS_BAD, "no PIN was given and the token has no protected authentication path")
    if not MIN_PIN <= len(pin) <= MAX_PIN:
        raise PKCS11Error(CKR.PIN_LEN_RANGE, f"a PIN has {MIN_PIN} to {MAX_PIN} bytes")
    return pin
