"""A token that opens itself: its user PIN comes from a file, for programs that cannot ask for one (a server's).

`[token."..."] pin_file` names the file; its first line is the PIN. To programs the token looks like one whose PIN is
the empty one (S14): it does not say CKF_LOGIN_REQUIRED, so nobody is asked for anything, and private objects are there
from the first session on. Whoever logs in all the same, with the PIN or with none, is let in.

A wrong file costs one attempt at the PIN, not one for each session or each start of a server. What was wrong is known
again by the file's identity in this process, and in others by a mark of the PIN (seal.py), which is kept beside the
witness: a credential is a new file with each start, so only its content tells. Processes try one after the other. The
last attempts are never used up: a person may need them.
"""

from __future__ import annotations

import os
import time

from keyfob import files, log
from keyfob.aside import ASIDE
from keyfob.descriptors import Held
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import secret_file
from keyfob.store.info import MAX_PIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.config import Config
    from keyfob.store import Store
    from keyfob.token.login import Login
    from keyfob.token.token import Token

MOST = 4096  # bytes of the file
LEFT_FOR_PEOPLE = 4  # attempts
PATIENCE = 10.0  # seconds to wait for other processes that try
STEP = 0.02
SUFFIX = ".pin-file"

_open: set[Held] = set()  # descriptors of memories


class PinFile:
    """`location` is empty where the configuration names no file. `problem`: why it does not open the token."""

    __slots__ = ("_config", "_failed", "location", "problem", "slot_id")

    def __init__(self, slot_id: int, location: str, config: Config) -> None:
        self.slot_id = slot_id
        self.location = location
        self.problem = ""
        self._config = config
        self._failed: tuple[object, ...] | None = None  # the file and the PIN as they were when they did not fit

    def use(self, login: Login) -> None:
        """Open the login's token, if that is still to be done and may be: not within locks, it takes long."""
        token = login.token
        if not self.location or not _is_to_be_opened(token):
            return
        refused: PKCS11Error | None = None
        with login.lock:
            store, info = token.store, token.info
            if store is None or info is None or not info.user_pin_set or not _is_to_be_opened(token):
                return
            try:
                pin = self._open(store, self._folder(token))
            except PKCS11Error as problem:
                refused = problem
            else:
                token.open_by_pin_file()
        if refused is None:
            self.problem = ""
            login.audit("login", f"the PIN file {self.location} opened the token", "user", by="pin-file")
            login.raise_hardening("user", pin)
            return
        if refused.rv == CKR.PIN_INCORRECT:
            login.audit_failure("user", refused, "pin-file")
        if self.problem != refused.reason:
            self.problem = refused.reason
            log.line("error", f"slot {self.slot_id}: the PIN file does not open the token: {refused.reason}")

    def _folder(self, token: Token) -> str:
        return self._config.witness_of(token.slot_id) if token.removable else self._config.witness

    def _open(self, store: Store, folder: str) -> bytes:
        """The PIN, with which the store is open. CKR_PIN_INCORRECT: an attempt was made; others: none was counted."""
        state = (self._identity(), store.pin_generation("user"))
        if state == self._failed:
            raise PKCS11Error(CKR.PIN_INVALID, self.problem)
        pin = self._pin()
        wrong = f"the PIN in {self.location} is wrong; it is not tried again until it or the token's PIN is another one"
        with Memory(folder, store.info().serial) as memory:
            if memory.mark and memory.mark == store.pin_mark("user", pin):
                self._failed = state
                raise PKCS11Error(CKR.PIN_INVALID, wrong)
            self._leave_some_for_people(store)
            try:
                store.login("user", pin)
            except PKCS11Error as problem:
                if problem.rv != CKR.PIN_INCORRECT:
                    raise
                self._failed = state
                memory.write(store.pin_mark("user", pin))
                raise PKCS11Error(CKR.PIN_INCORRECT, wrong) from None
            memory.write(b"")
        self._failed = None
        return pin

    def _leave_some_for_people(self, store: Store) -> None:
        info = store.info()
        left = info.max_failures - info.failed_user
        if left < LEFT_FOR_PEOPLE:
            text = f"the last {LEFT_FOR_PEOPLE - 1} attempts at the PIN are left for people; a right one sets them back"
            raise PKCS11Error(CKR.PIN_INVALID, text)

    def _identity(self) -> tuple[int, ...]:
        path = secret_file.path_of(self.location, self._config.credentials)
        try:
            found = os.stat(path)
        except OSError as problem:
            raise PKCS11Error(CKR.DEVICE_ERROR, f"{path} cannot be read: {problem.strerror}") from None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _pin(self) -> bytes:
        def tell(text: str) -> None:
            log.line("warning", f"slot {self.slot_id}: {text}")

        content = secret_file.read(self.location, self._config.credentials, MOST, tell)
        pin = content.partition(b"\n")[0].removesuffix(b"\r")
        if not 1 <= len(pin) <= MAX_PIN:
            raise PKCS11Error(CKR.DEVICE_ERROR, f"the first line of {self.location} is no PIN: it has {len(pin)} bytes")
        return pin


def _is_to_be_opened(token: Token) -> bool:
    return token.role is None and not token.general_access


class Memory:
    """The PIN that was wrong, as a mark, for all processes of this machine; who has it open keeps the others waiting.

    Best effort: where it cannot be kept, or another process has it for too long, each process tries for itself.
    """

    __slots__ = ("_held", "_path", "mark")

    def __init__(self, folder: str, serial: str) -> None:
        self._path = os.path.join(folder, files.name_for(serial) + SUFFIX)
        self._held: Held | None = None
        self.mark = b""

    def __enter__(self) -> Memory:  # noqa: PYI034 - typing is slow to import, and nobody inherits from this
        try:
            self._held = Held(files.keep(self._path))
            _open.add(self._held)
            self._wait(self._held)
            if self._held.are_ours():
                self.mark = os.pread(self._held.number, 64, 0)
        except OSError:
            self.mark = b""
        return self

    def _wait(self, held: Held) -> None:
        """Until the host closes what is waited with: its number may then stand for a file of the host's."""
        import fcntl

        end = time.monotonic() + PATIENCE
        while held.are_ours() and time.monotonic() < end:
            try:
                fcntl.flock(held.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with ASIDE:
                    time.sleep(STEP)
            else:
                return

    def write(self, mark: bytes) -> None:
        if self._held is None or mark == self.mark or not self._held.are_ours():
            return
        try:
            os.ftruncate(self._held.number, 0)
            files.write_at(self._held.number, mark, 0)
        except OSError:
            log.line("warning", "nobody will remember that a PIN file was wrong: a new start tries it again")

    def __exit__(self, *_: object) -> None:
        if self._held in _open:
            _open.discard(self._held)
            self._held.close()


def _in_child() -> None:
    """A lock that another thread of the parent has is not kept for it here."""
    while _open:
        _open.pop().close()


os.register_at_fork(after_in_child=_in_child)
