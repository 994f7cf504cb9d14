"""Slot and token management (section 5.5)."""

from __future__ import annotations

from keyfob import mechanisms
from keyfob.functions.state import STATE, library
from keyfob.spec.constants import CKF, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.token import kinds
from keyfob.token.login import MAX_PIN
from keyfob.token.token import DEFAULT_LABEL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.token.session import Session
    from keyfob.token.token import Token

MODEL = "keyfob"
LOOK_EVERY = 0.25  # seconds


class TokenFacts:
    """What CK_TOKEN_INFO holds beside the constants."""

    __slots__ = ("flags", "label", "max_pin", "max_sessions", "min_pin", "read_write_sessions", "serial", "sessions")

    def __init__(self, token: Token) -> None:
        info = token.info
        self.label = info.label if info else DEFAULT_LABEL  # S10: NSS must be able to name it
        self.serial = info.serial if info else ""
        self.min_pin, self.max_pin = token.config.min_pin, MAX_PIN  # bytes
        self.max_sessions = token.settings.max_sessions
        self.sessions = len(token.sessions)
        self.read_write_sessions = sum(session.read_write for session in list(token.sessions.values()))
        self.flags = token_flags(token)


def token_flags(token: Token) -> int:
    """CKF_* of CK_TOKEN_INFO; LOGIN_REQUIRED and USER_PIN_INITIALIZED are the guide's table 1.1 (S12 to S15)."""
    flags = CKF.RNG if kinds.has_random(token) else 0
    if kinds.is_dual(token):
        flags |= CKF.DUAL_CRYPTO_OPERATIONS
    token.use_pin_file()
    info = token.info
    if token.settings.protected_path:
        flags |= CKF.PROTECTED_AUTHENTICATION_PATH
    if info is None:
        return flags | CKF.LOGIN_REQUIRED
    flags |= CKF.TOKEN_INITIALIZED
    if info.login_required and not token.general_access:
        flags |= CKF.LOGIN_REQUIRED
    if info.user_pin_set:
        flags |= CKF.USER_PIN_INITIALIZED
    if token.write_protected:
        flags |= CKF.WRITE_PROTECTED
    flags |= _counter_flags(
        info.max_failures - info.failed_user,
        info.max_failures,
        CKF.USER_PIN_COUNT_LOW,
        CKF.USER_PIN_FINAL_TRY,
        CKF.USER_PIN_LOCKED,
    )
    return flags | _counter_flags(
        info.max_failures - info.failed_so,
        info.max_failures,
        CKF.SO_PIN_COUNT_LOW,
        CKF.SO_PIN_FINAL_TRY,
        CKF.SO_PIN_LOCKED,
    )


def _counter_flags(left: int, allowed: int, low: int, final: int, locked: int) -> int:
    if left <= 0:
        return locked
    if left == allowed:
        return 0
    return low | final if left == 1 else low


def C_GetSlotList(*, refresh: bool, present: bool = False) -> list[int]:
    """Slot IDs; a size query refreshes the list, as the standard says. `present`: only of slots that hold a token."""
    current = library()
    if refresh:
        current.rescan()
    if not present:
        return list(current.tokens)
    return [slot_id for slot_id in list(current.tokens) if not current.slot(slot_id).absent]


def C_GetSlotInfo(slot_id: int) -> tuple[str, int]:
    """(slotDescription, flags). A slot that is not removable always has its token (S6); never CKF_HW_SLOT (P35)."""
    token = library().slot(slot_id)
    flags = CKF.REMOVABLE_DEVICE if token.removable else 0
    return f"keyfob slot {slot_id}", flags | (0 if token.absent else CKF.TOKEN_PRESENT)


def C_GetTokenInfo(slot_id: int) -> TokenFacts:
    return TokenFacts(library().token(slot_id))


def C_GetMechanismList(slot_id: int) -> list[int]:
    """Every mechanism that the token's kind offers, but those withheld for the sake of its keys (P5)."""
    token = library().token(slot_id)
    return [mechanism for mechanism in mechanisms.INDEX if token.advertised.flags_of(mechanism)]


def C_GetMechanismInfo(slot_id: int, mechanism: int) -> tuple[int, int, int]:
    """(ulMinKeySize, ulMaxKeySize, flags)."""
    flags = library().token(slot_id).advertised.flags_of(mechanism)
    if not flags:
        raise PKCS11Error(CKR.MECHANISM_INVALID, f"mechanism 0x{mechanism:x} is not offered")
    _, _, smallest, largest = mechanisms.INDEX[mechanism]
    return smallest, largest, flags


def C_InitToken(slot_id: int, pin: bytes | None, label: bytes) -> None:
    """`label`: up to 32 bytes, padded with blanks or ended by a NUL."""
    current = library()
    token = current.token(slot_id)
    try:
        text = label.rstrip(b" ").decode()
    except UnicodeDecodeError:
        raise PKCS11Error(CKR.ARGUMENTS_BAD, "the label is not UTF-8") from None
    current.check_label(text, slot_id)
    token.initialise(pin, text)


def C_InitPIN(session: Session, pin: bytes | None) -> None:
    session.token.init_pin(session, pin)


def C_SetPIN(session: Session, old_pin: bytes | None, new_pin: bytes | None) -> None:
    session.token.set_pin(session, old_pin, new_pin)


def C_WaitForSlotEvent(flags: int) -> int:
    """The slot whose token came or went. A call that waits looks four times a second; C_Finalize ends it (P28)."""
    current = library()
    while True:
        slot_id = current.moved_slot()
        if slot_id is not None:
            return slot_id
        if flags & CKF.DONT_BLOCK:
            raise PKCS11Error(CKR.NO_EVENT)
        STATE.wait(LOOK_EVERY)
        if STATE.library is not current:
            raise PKCS11Error(CKR.CRYPTOKI_NOT_INITIALIZED)
        current.rescan()
