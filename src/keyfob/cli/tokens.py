"""The tokens of this user, opened in this process: found by label, logged in to, and closed again whatever happens."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING

from keyfob import config
from keyfob.cli.errors import Refusal
from keyfob.spec.constants import CKF, CKR, CKU
from keyfob.spec.errors import PKCS11Error
from keyfob.token.library import Library

if TYPE_CHECKING:
    from collections.abc import Generator

    from keyfob.cli.pins import Secret
    from keyfob.token.session import Session
    from keyfob.token.token import Token

READ_ONLY = CKF.SERIAL_SESSION
READ_WRITE = CKF.SERIAL_SESSION | CKF.RW_SESSION
NO_TOKENS = "there is no token yet; make one with: keyfob init LABEL"


@contextmanager
def library() -> Generator[Library]:
    """Every token that KEYFOB_HOME or the user's own folders hold."""
    opened = Library(config.present())
    try:
        yield opened
    finally:
        opened.close()


def stored(tokens: Library) -> list[Token]:
    """The tokens that exist: not slot 1's stand-in where there are none, not those whose file cannot be opened."""
    return [token for token in tokens.tokens.values() if token.store is not None]


def broken(tokens: Library) -> dict[int, str]:
    """Slots whose token file is there and cannot be opened, with the reason."""
    return {
        slot_id: token.broken.reason or str(token.broken)
        for slot_id, token in tokens.tokens.items()
        if token.broken is not None
    }


def find(tokens: Library, name: str) -> Token:
    """The token with this label, else the one in the slot of this number."""
    known = stored(tokens)
    hits = [token for token in known if label_of(token) == name]
    if not hits and name.isascii() and name.isdigit():
        hits = [token for token in known if token.slot_id == int(name)]
    if len(hits) > 1:
        slots = " and ".join(str(token.slot_id) for token in hits)
        raise Refusal(f"several tokens are called {name!r}: give the number of the slot, {slots}")
    if hits:
        return hits[0]
    damaged = [f"slot {slot_id} cannot be opened: {reason}" for slot_id, reason in broken(tokens).items()]
    if not known:
        raise Refusal("; ".join(damaged) if damaged else NO_TOKENS)
    names = ", ".join(f"{label_of(token)!r} (slot {token.slot_id})" for token in known)
    raise Refusal("; ".join((f"no token is called {name!r}; there are {names}", *damaged)))


def damaged_slot(tokens: Library, name: str) -> int | None:
    """The number of the slot whose damaged token `name` stands for; a damaged token has no label that could be read."""
    return int(name) if name.isascii() and name.isdigit() and int(name) in broken(tokens) else None


def count(token: Token) -> int:
    """How many objects can be seen without a PIN."""
    token.open_session(READ_ONLY)  # opens tokens of general access
    return len(token.store.find(())) if token.store is not None else 0


def complaints(token: Token) -> list[str]:
    """What is wrong with the token as far as that was seen in passing; `keyfob verify` looks at all of it."""
    return token.store.complaints() if token.store is not None else []


def complaint(label: str, found: list[str]) -> str:
    """The same in one line, with what to do."""
    first = f"{found[0]}; and {len(found) - 1} more" if len(found) > 1 else found[0]
    problems = "a problem" if len(found) == 1 else f"{len(found)} problems"
    return f"{label!r} has {problems} ({first}): see keyfob verify {shlex.quote(label)}"


def label_of(token: Token) -> str:
    info = token.info
    return info.label if info is not None else ""


def refuse_read_only(token: Token) -> None:
    if token.write_protected:
        raise Refusal(f"{label_of(token)!r} can only be read: its file or the file's folder is write-protected")


@contextmanager
def opened(name: str, pin: Secret | None, *, writing: bool = False, ask: bool = True) -> Generator[Session]:
    """A session of the token called `name`, logged in where a PIN is given or asked for.

    `pin` None: without login. `ask` False: a PIN that was not given is not asked for, and there is no login. Tokens
    that nobody logs in to (general access) never ask.
    """
    with library() as tokens:
        token = find(tokens, name)
        if writing:
            refuse_read_only(token)
        session = token.open_session(READ_ONLY if token.write_protected else READ_WRITE)
        if pin is not None and not token.general_access and (ask or pin.given):
            login(session, pin)
        yield session


def login(session: Session, pin: Secret, *, user_type: int = CKU.USER) -> None:
    """C_Login with the PIN, wherever it comes from; what goes wrong is said with the way out."""
    token = session.token
    label, info = label_of(token), token.info
    in_shell = shlex.quote(label)
    if info is not None:
        if user_type == CKU.USER and not info.user_pin_set:
            raise Refusal(f"{label!r} has no user PIN yet: set one with `keyfob pin unblock {in_shell}`")
        if user_type == CKU.SO and not info.so_pin_set:
            raise Refusal(f"{label!r} has no SO PIN: its user sets one with `keyfob pin change {in_shell} --so`")
    try:
        token.login(session, user_type, pin.read())
    except PKCS11Error as problem:
        raise Refusal(login_refused(token, problem, user_type)) from None


def login_refused(token: Token, problem: PKCS11Error, user_type: int = CKU.USER) -> str:
    """Why a PIN was not taken, and what is left to do."""
    label, info = label_of(token), token.info
    is_so = user_type == CKU.SO
    who = "SO PIN" if is_so else "PIN"
    left = 0 if info is None else info.max_failures - (info.failed_so if is_so else info.failed_user)
    if problem.rv == CKR.PIN_LOCKED or (problem.rv == CKR.PIN_INCORRECT and left <= 0):
        if is_so:
            return f"the SO PIN of {label!r} is locked after too many wrong ones, for good; the user PIN still works"
        way_out = f"with the SO PIN: keyfob pin unblock {shlex.quote(label)}"
        return f"the PIN of {label!r} is locked after too many wrong ones; {way_out}"
    if problem.rv == CKR.PIN_INCORRECT:
        return f"the {who} of {label!r} is wrong; {left} {'attempt is' if left == 1 else 'attempts are'} left"
    return f"{label!r} refused the {who}: {problem.reason or problem}"
