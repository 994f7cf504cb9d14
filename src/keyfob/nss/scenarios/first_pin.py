"""Erasing a token and setting its first PIN as NSS does it (certutil -T, -N, -W; Firefox), and changing it."""

from __future__ import annotations

from typing import Any

from keyfob.nss.client import Nss, NssSlot
from keyfob.nss.context import Check, Context, chosen
from keyfob.nss.driver import READ_WRITE, Reply
from keyfob.nss.options import LABEL
from keyfob.nss.scenario import scenario
from keyfob.spec.constants import CKF, CKR, CKU

# How a PIN is refused.
WRONG = (CKR.PIN_INCORRECT, CKR.PIN_INVALID, CKR.PIN_LEN_RANGE, CKR.PIN_EXPIRED)
CANNOT = "to the SO with an empty PIN, beside NSS's open session: NSS cannot set the first PIN"


@scenario(
    "first pin",
    "Set the first PIN as NSS does, erase the token and set it again, change it and change it back",
    rules=("P6", "S13", "S15", "S18", "S19", "S20", "N1", "N6", "N7"),
    needs=("init", "pin"),
)
def first_pin(context: Context) -> None:
    nss = context.nss()
    slot = chosen(nss, context.options)
    if slot is None:
        context.give_up("there is no token in any slot")
    so_pin = context.so_pin
    fresh = False
    if slot.session and slot.needs_login and not slot.pin_initialized:
        with context.step("PK11_InitPin"):
            fresh = _initialise(context, nss, slot, None)
    if fresh:
        context.skip("the token came without a user PIN, and NSS set it: run again with its SO PIN to erase it", "S18")
    elif so_pin is not None:
        with context.step("certutil -T"):
            _erase(context, nss, slot, so_pin)
        with context.step("PK11_InitPin"):
            _initialise(context, nss, slot, so_pin)
    else:
        context.skip(context.why_no_pin("so_pin"), "S18", "S13")
    if slot.disabled or not slot.pin_initialized:
        context.give_up(f"the token has no user PIN: {slot.disabled or context.why_no_pin('so_pin')}")
    with context.step("certutil -W"):
        _change(context, nss, slot)


def _erase(context: Context, nss: Nss, slot: NssSlot, so_pin: bytes) -> None:
    module = context.module
    label = slot.label.strip("\0 ") if slot.flags & CKF.TOKEN_INITIALIZED else ""
    wanted = (label or LABEL).encode()[:32]
    with context.checking("S18") as check:
        module.C_CloseAllSessions(slot.id)  # whatever it answers: see SE7
        reply = module.C_InitToken(slot.id, so_pin, wanted)
        context.judge_pin(reply, "so_pin")
        if reply.rv == CKR.FUNCTION_NOT_SUPPORTED:
            check.not_applicable("the token cannot be erased: C_InitToken answers CKR_FUNCTION_NOT_SUPPORTED")
        reply.ok()
        # PK11_ResetToken forgets the session and reads the token anew (slot:2728).
        slot.session = 0
        before, slot.disabled = slot.disabled, ""
        nss.init_token(slot)
        if slot.disabled and slot.disabled == before:
            check.not_tested(f"NSS could not use the token before it was erased either: {before}")
        check.expect(not slot.disabled, f"NSS cannot use the fresh token: {slot.disabled}", reply)
        # Names are padded with blanks; with what else is P17's matter.
        named = slot.label.strip("\0 ")
        check.expect(named == wanted.decode(), f"the label became {slot.label!r} instead of {wanted!r}", reply)
    if slot.disabled or not slot.session:
        context.give_up(f"there is no fresh token: {slot.disabled}")
    with context.checking("S13") as check:
        info = module.C_GetTokenInfo(slot.id)
        flags = int(info.ok().flags)
        if not flags & CKF.LOGIN_REQUIRED:
            check.not_applicable("the token needs no login")
        check.expect(not flags & CKF.USER_PIN_INITIALIZED, "CKF_USER_PIN_INITIALIZED is set before C_InitPIN", info)


def _initialise(context: Context, nss: Nss, slot: NssSlot, so_pin: bytes | None) -> bool:
    """PK11_InitPin (auth:418), and where that fails the way of the standard, so that the run can go on.

    Whatever the SO PIN is, NSS gives an empty one. `so_pin`: the SO's, for the standard's way; None: not to be tried.
    The answer is whether NSS's way worked.
    """
    if not slot.needs_login:
        context.skip("the token needs no login", "P6", "S19", applicable=False)
        return False
    module = context.module
    done = False
    with context.checking("N7") as check, context.checking("N1") as both, context.checking("P6") as pitfall:
        session = slot.session
        if not slot.single_session:
            opened = module.C_OpenSession(slot.id, READ_WRITE)
            if not both.expect_rv(opened, CKR.OK, because="beside the open read-only session"):
                check.not_tested("there is no read-write session: see N1")
            session = opened.value
            both.expect(session != slot.session, "C_OpenSession gave the handle of another open session", opened)
        empty = module.C_Login(session, CKU.SO, None if slot.protected_path else b"", on_device=slot.protected_path)
        if pitfall.expect_rv(empty, CKR.OK, because=CANNOT):
            pin = module.C_InitPIN(session, None if slot.protected_path else context.pin)
            done = check.expect_rv(pin, CKR.OK, because="in a read-write session of the SO")
        module.C_Logout(session)
        nss.close(slot, session)
        if not done:
            check.not_tested("NSS's login as SO did not work")
    if not done:
        if so_pin is None:
            return False
        otherwise = False
        with context.checking("S19"):
            otherwise = _initialise_by_the_standard(context, slot, so_pin)
        if not otherwise:
            context.give_up("the SO cannot set a user PIN by the standard's way either: see S19")
    with context.checking("S19") as check:
        nss.init_token(slot)
        info = module.C_GetTokenInfo(slot.id)
        is_set = info.ok().flags & CKF.USER_PIN_INITIALIZED
        check.expect(is_set, "CKF_USER_PIN_INITIALIZED is clear after C_InitPIN", info)
        reply = module.C_Login(slot.session, CKU.USER, context.pin)
        check.expect(reply.rv not in WRONG, "the PIN that C_InitPIN has set does not open the token", reply)
        context.judge_pin(reply, "pin")
    with context.checking("S13") as check:
        check.expect(slot.pin_initialized, "CKF_USER_PIN_INITIALIZED did not become TRUE", info)
    if not reply.is_ok and slot.pin_initialized:
        context.give_up(f"the user cannot log in: C_Login answered {reply.name}")
    return done


def _initialise_by_the_standard(context: Context, slot: NssSlot, so_pin: bytes) -> bool:
    module = context.module
    with context.step("the first PIN by the standard, without other sessions"):
        module.C_CloseAllSessions(slot.id)
        slot.session = 0
        session = module.C_OpenSession(slot.id, READ_WRITE).ok()
        reply = module.C_Login(session, CKU.SO, so_pin)
        context.judge_pin(reply, "so_pin")
        reply.ok()
        module.C_InitPIN(session, context.pin).ok()
        module.C_Logout(session)
        module.C_CloseSession(session)
    return True


def another(pin: bytes) -> bytes:
    """A PIN of the same length and kind."""
    first = pin[0]
    return bytes([ord("0") + (first - ord("0") + 1) % 10 if chr(first).isdigit() else first ^ 1]) + pin[1:]


def _change(context: Context, nss: Nss, slot: NssSlot) -> None:
    """PK11_CheckUserPassword and PK11_ChangePW (auth:133,487), there and back."""
    if not slot.needs_login or not slot.pin_initialized or context.pin is None or slot.protected_path:
        context.skip("there is no PIN to change", "S20", "N6")
        return
    old, new = context.pin, another(context.pin)
    module = context.module
    module.C_Logout(slot.session)
    reply = module.C_Login(slot.session, CKU.USER, old)
    context.judge_pin(reply, "pin")
    if not reply.is_ok:
        context.give_up(f"the user cannot log in: C_Login answered {reply.name}")
    shows_login = nss.is_logged_in(slot)
    with context.checking("N6") as needs_rw, context.checking("S20") as check:
        readonly = _set_pin(context, nss, slot, old, new)
        if readonly.rv == CKR.FUNCTION_NOT_SUPPORTED:
            check.not_applicable("C_SetPIN answers CKR_FUNCTION_NOT_SUPPORTED, which NSS takes for an answer")
        if not needs_rw.expect_rv(readonly, CKR.OK, because="in a read-write session of the user"):
            check.fail(f"C_SetPIN answered {readonly.name}", readonly)
            return
        nss.init_token(slot)
        if shows_login:
            check.expect(nss.is_logged_in(slot), "the user is logged out after C_SetPIN", readonly)
        if _opens_with_the_old(context, check, slot, old, new):
            return
        back = _set_pin(context, nss, slot, new, old)
        check.expect_rv(back, CKR.OK, because="when the PIN was to be changed back")
        module.C_Logout(slot.session)


def _set_pin(context: Context, nss: Nss, slot: NssSlot, old: bytes, new: bytes) -> Reply[Any]:
    module = context.module
    module.C_Logout(slot.session)
    module.C_Login(slot.session, CKU.USER, old).ok()
    session = nss.open_rw(slot)
    try:
        return module.C_SetPIN(session, old, new)
    finally:
        nss.close(slot, session)


def _opens_with_the_old(context: Context, check: Check, slot: NssSlot, old: bytes, new: bytes) -> bool:
    """Whether C_SetPIN has changed nothing: the old PIN is the run's wrong one."""
    wrong, _why = context.wrong_pin(slot)
    if wrong is None:
        return False
    module = context.module
    module.C_Logout(slot.session)
    reply = module.C_Login(slot.session, CKU.USER, old)
    check.expect(not reply.is_ok, "the PIN from before C_SetPIN still opens the token", reply)
    if not reply.is_ok:
        with context.checking("S15") as wrong_pin:
            wrong_pin.expect_rv(reply, CKR.PIN_INCORRECT, because="to the PIN from before C_SetPIN, which is wrong now")
        module.C_Login(slot.session, CKU.USER, new).ok()
    return reply.is_ok
