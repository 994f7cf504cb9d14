"""A token that stays, and one that is taken out of its slot and put back (--eject, --insert) while a program runs."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from keyfob.nss.client import Nss, NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import Reply
from keyfob.nss.driver.structs import text
from keyfob.nss.scenario import scenario
from keyfob.spec.constants import CKF, CKR, CKS

AGAIN = 20
"""How often a slot is asked whether its token is there: NSS does so once a second (dslot:20)."""
SETTLED = 5.0
"""Seconds that a reader may take to notice."""
NOBODY = "nobody takes the token out and puts it back (--eject, --insert)"
COMING = ("S4", "S9", "SE9", "SE10")


@scenario(
    "removal",
    "A token that stays, and one that goes and comes while a program runs",
    rules=("S4", "S5", "S9", "SE9", "SE10"),
)
def removal(context: Context) -> None:
    nss, slot = context.nss(), context.slot()
    if not slot.removable:
        context.skip("the slot is not removable", *COMING, applicable=False)
        with context.step("a token in a slot that is not removable"), context.checking("S5") as check:
            _stays(context, check, slot)
        return
    context.skip("the slot is removable", "S5", applicable=False)
    with context.step("nssSlot_IsTokenPresent"), context.checking("S4") as check:
        _stays(context, check, slot)
        if context.options.eject is None or context.options.insert is None:
            check.not_tested(f"the token stays present when it is asked for; to see it go, {NOBODY}")
    if context.options.eject is None or context.options.insert is None:
        context.skip(NOBODY, "S9", "SE9", "SE10")
        return
    _goes_and_comes(context, nss, slot)


def _stays(context: Context, check: Check, slot: NssSlot) -> None:
    for _ in range(AGAIN):
        info = context.module.C_GetSlotInfo(slot.id)
        if check.expect_rv(info, CKR.OK, because="asked for a slot again"):
            present = bool(info.value.flags & CKF.TOKEN_PRESENT)
            check.expect(present, "a token that nobody touched is gone: CKF_TOKEN_PRESENT is clear", info)
        state = context.module.C_GetSessionInfo(slot.session)
        check.expect_rv(state, CKR.OK, because="for NSS's first session, while the token is present")
        if check.judged:
            return


def _goes_and_comes(context: Context, nss: Nss, slot: NssSlot) -> None:
    module = context.module
    old = slot.session
    before = module.C_GetTokenInfo(slot.id).ok()
    if slot.needs_login and slot.pin_initialized and not slot.protected_path and context.pin is not None:
        context.login(slot)
    try:
        with context.step("the token is taken out"):
            _run(context, "eject")
            with context.checking("S4") as check:
                _expect_presence(context, check, slot, present=False)
            with context.checking("SE9") as check:
                gone = module.C_GetSessionInfo(old)
                check.expect(not gone.is_ok, "a session of a token that was taken out goes on", gone)
    finally:
        with context.step("the token is put back"):
            _run(context, "insert")
    with context.step("the token is put back"):
        with context.checking("S4") as check:
            _expect_presence(context, check, slot, present=True)
        with context.checking("SE10") as check:
            state = module.C_GetSessionInfo(old)
            check.expect(not state.is_ok, "a session from before the token was taken out works again", state)
        # nssSlot_IsTokenPresent closes what it has; PK11_InitToken reads the token anew.
        module.C_CloseSession(old)
        slot.session = 0
        with context.checking("S9") as check:
            nss.init_token(slot)
            _expect_read_anew(context, check, slot, before)
        if slot.session:
            with context.checking("SE10") as check:
                state = module.C_GetSessionInfo(slot.session)
                check.expect(slot.session != old, "a new session gets the handle of one from before", state)


def _expect_read_anew(context: Context, check: Check, slot: NssSlot, before: Any) -> None:
    info = context.module.C_GetTokenInfo(slot.id)
    check.expect(not slot.disabled, f"NSS cannot use the token that was put back: {slot.disabled}", info)
    if info.is_ok:
        same = (text(info.value.label), text(info.value.serialNumber)) == (
            text(before.label),
            text(before.serialNumber),
        )
        check.expect(same, "the token that was put back has another label or serial number", info)
    if slot.session:
        state = context.module.C_GetSessionInfo(slot.session)
        logged_in = state.is_ok and state.value.state not in (CKS.RO_PUBLIC_SESSION, CKS.RW_PUBLIC_SESSION)
        check.expect(not (slot.needs_login and logged_in), "the login outlived the token's removal", state)


def _expect_presence(context: Context, check: Check, slot: NssSlot, *, present: bool) -> None:
    info: Reply[Any] = context.module.C_GetSlotInfo(slot.id)
    deadline = time.monotonic() + SETTLED
    while info.is_ok and bool(info.value.flags & CKF.TOKEN_PRESENT) != present and time.monotonic() < deadline:
        time.sleep(0.2)
        info = context.module.C_GetSlotInfo(slot.id)
    if check.expect_rv(info, CKR.OK, because="for a removable slot"):
        shows = bool(info.value.flags & CKF.TOKEN_PRESENT)
        saw = "that was put back" if present else "that was taken out"
        word = "clear" if present else "set"
        check.expect(shows == present, f"CKF_TOKEN_PRESENT is {word} {SETTLED:g} s after a token {saw}", info)


def _run(context: Context, which: str) -> None:
    """The user's command; `insert` is the runner's to run when this process does not come to it."""
    command = str(getattr(context.options, which))
    context.send({"t": "ejected", "on": which == "eject"})
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=context.options.limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        context.give_up(f"--{which}: the command did not end")
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        context.give_up(f"--{which}: {said[0]}")
