"""The protected authentication path: the person is asked for a PIN where the client gives none (pinentry.py).

One question at a time. Nothing here is called within the token's lock, which other sessions need meanwhile.
"""

from __future__ import annotations

from _thread import allocate_lock

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.token.pinentry import Pinentry, Question

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.store import TokenInfo
    from keyfob.token.token import Token

MOST_QUESTIONS = 3  # for a new PIN that is too short or too long


class Person:
    """Whoever sits before the token's dialog. All answers are PINs, in bytes."""

    __slots__ = ("_asking", "_dialog", "_token")

    def __init__(self, token: Token) -> None:
        self._token = token
        self._asking = allocate_lock()
        self._dialog: Pinentry | None = None

    def end(self) -> None:
        """Close the dialog, without waiting for it."""
        if self._dialog is not None:
            self._dialog.end()

    def instead_of(self, pin: bytes | None) -> bytes | None:
        """The client's PIN; None: ask. NSS's modutil gives an empty one where the token shall ask."""
        return None if not pin and self._token.settings.protected_path else pin

    def present_pin(self, role: str, *, may_be_empty: bool) -> bytes:
        """The PIN that a role has; CKR_PIN_INCORRECT for none."""
        info = self._token.info
        pin = self._ask(Question(f"{_whose(role)} of {self._name()}", "PIN:", error=tries_left(info, role)))
        if not pin and not may_be_empty:
            raise PKCS11Error(CKR.PIN_INCORRECT, "the person entered no PIN")
        return pin

    def new_pin(self, role: str, check: Callable[[bytes], None]) -> bytes:
        """A PIN that `check` lets pass; after each that it does not the person may try again."""
        question = Question(f"{_whose(role, new=True)} for {self._name()}", "New PIN:", repeat=True)
        for _ in range(MOST_QUESTIONS):
            entered = self._ask(question)
            try:
                check(entered)
            except PKCS11Error as problem:
                question.error = f"{problem.reason[:1].upper()}{problem.reason[1:]}."
                continue
            return entered
        raise PKCS11Error(CKR.PIN_LEN_RANGE, f"the person entered {MOST_QUESTIONS} PINs of the wrong length")

    def _ask(self, question: Question) -> bytes:
        token = self._token
        if not token.settings.protected_path:
            raise PKCS11Error(CKR.ARGUMENTS_BAD, "no PIN was given and the token has no protected authentication path")
        with self._asking:
            dialog = Pinentry(token.config.pinentry, token.config.pinentry_timeout)
            with token.lock:
                if token.closed:
                    raise PKCS11Error(CKR.CRYPTOKI_NOT_INITIALIZED)
                self._dialog = dialog
            try:
                return dialog.ask(question)
            finally:
                self._dialog = None

    def _name(self) -> str:
        info = self._token.info
        return f'the token "{info.label}"' if info is not None else f"the new token in slot {self._token.slot_id}"


def _whose(role: str, *, new: bool = False) -> str:
    name = "SO PIN" if role == "so" else "PIN"
    return f"A new {name}" if new else f"The {name}"


def tries_left(info: TokenInfo | None, role: str) -> str:
    """What the dialog says after a wrong PIN; nothing after a right one."""
    failed = 0 if info is None else info.failed_so if role == "so" else info.failed_user
    if info is None or not failed:
        return ""
    left = max(info.max_failures - failed, 0)
    return f"The last PIN was wrong. {left} {'try is' if left == 1 else 'tries are'} left."
