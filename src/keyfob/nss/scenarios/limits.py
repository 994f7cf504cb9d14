"""Sessions to their limits: many at once, thousands one after the other, and handles that nobody gave out."""

from __future__ import annotations

import os
from typing import Any

from keyfob.nss import material
from keyfob.nss.client import NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import READ_ONLY, READ_WRITE, Mechanism, Module, Reply
from keyfob.nss.scenario import scenario
from keyfob.nss.scenarios.sessions import CLOSED
from keyfob.spec.constants import CK, CKA, CKK, CKM, CKO, CKR

AT_ONCE = 64
THOUSANDS = 10_000
WARM_UP = 1_000
LEAK = 256
"""Bytes of a session that is never freed, at least."""
PAGE = os.sysconf("SC_PAGESIZE")
FEWEST = 16
"""Sessions that a token should have, unless it has one (P26)."""
UNKNOWN_COUNTS = (CK.EFFECTIVELY_INFINITE, CK.UNAVAILABLE_INFORMATION)


@scenario(
    "sessions: many",
    f"{AT_ONCE} sessions at once, {THOUSANDS} one after the other",
    rules=("SE2", "P26"),
)
def many(context: Context) -> None:
    module = context.module
    slot = context.slot()
    token = module.C_GetTokenInfo(slot.id).ok()
    most = int(token.ulMaxSessionCount)
    if slot.single_session:
        context.skip("the token has one session and says so", "SE2", applicable=False)
        with context.checking("P26") as check:
            second = module.C_OpenSession(slot.id, READ_ONLY)
            check.expect_rv(second, CKR.SESSION_COUNT, because="to a second session, though ulMaxSessionCount is 1")
        return
    with context.step("at once"), context.checking("P26") as check:
        if most not in UNKNOWN_COUNTS and most < FEWEST:
            check.warn(f"the token has {most} sessions: keys and connections share them")
        _at_once(context, check, slot, most)
    with context.step("one after the other"), context.checking("SE2") as check:
        session = module.C_OpenSession(slot.id).ok()
        module.C_CloseSession(session)
        after = module.C_GetSessionInfo(session)
        if after.is_ok:
            check.not_tested("C_CloseSession closes nothing: see SE6")
        _one_after_the_other(context, check, slot)


def _at_once(context: Context, check: Check, slot: NssSlot, most: int) -> None:
    """As many sessions as NSS may need, of either kind, as far as the token promises them."""
    module = context.module
    token = module.C_GetTokenInfo(slot.id).ok()
    for flags, limit, name in (
        (READ_ONLY, most, "ulMaxSessionCount"),
        (READ_WRITE, int(token.ulMaxRwSessionCount), "ulMaxRwSessionCount"),
    ):
        if slot.read_only and flags == READ_WRITE:
            continue
        # NSS's first session, which only reads, counts as one of all.
        room = [most - 1] if most not in UNKNOWN_COUNTS else []
        room += [limit] if flags == READ_WRITE and limit not in UNKNOWN_COUNTS else []
        wanted = min([AT_ONCE, *room])
        if wanted < 1:
            continue
        opened: list[Reply[int]] = []
        with module.recorder.quietly(f"open {wanted} sessions"):
            while len(opened) < wanted and (not opened or opened[-1].is_ok):
                opened.append(module.C_OpenSession(slot.id, flags))
        last = opened[-1]
        if not opened[0].is_ok:
            check.not_tested(f"C_OpenSession answered {last.name} to the first: see SE1")
        promised = "" if limit in UNKNOWN_COUNTS else f", though {name} is {limit}"
        saw = f"C_OpenSession answered {last.name} to the {len(opened)}th session{promised}"
        check.expect(last.is_ok, saw, last)
        handles = [reply.value for reply in opened if reply.is_ok]
        if len(handles) == AT_ONCE:
            with context.checking("SE2") as many_check:
                if len({*handles, slot.session}) <= len(handles):
                    many_check.fail("several open sessions have one handle", module.C_OpenSession(slot.id, flags))
        elif flags == READ_ONLY:
            with context.checking("SE2") as many_check:
                many_check.warn(f"there are no {AT_ONCE} sessions at once, only {len(handles) + 1}", last)
        with module.recorder.quietly(f"close {len(handles)} sessions"):
            for handle in handles:
                module.C_CloseSession(handle)


def _one_after_the_other(context: Context, check: Check, slot: NssSlot) -> None:
    module = context.module
    before = int(module.C_GetTokenInfo(slot.id).ok().ulSessionCount)

    def cycle(times: int) -> Reply[Any] | None:
        for _ in range(times):
            reply: Reply[Any] = module.C_OpenSession(slot.id)
            if reply.is_ok:
                reply = module.C_CloseSession(reply.value)
            if not reply.is_ok:
                return reply
        return None

    with module.recorder.quietly(f"open and close {THOUSANDS} sessions"):
        failed = cycle(WARM_UP)
        held = _resident()
        failed = failed or cycle(THOUSANDS)
        grown = _resident() - held
    if failed is not None:
        check.fail(f"of {THOUSANDS} sessions, one after the other, one fails: {failed.name}", failed)
        return
    counted = module.C_GetTokenInfo(slot.id)
    after = int(counted.ok().ulSessionCount)
    if before != CK.UNAVAILABLE_INFORMATION:
        saw = f"ulSessionCount was {before} and is {after} after all were closed"
        if after < before:
            check.warn(saw, counted, user="Nothing in NSS, which does not read it; a monitor shows nonsense.")
        check.expect(after <= before, saw, counted)
    saw = f"{THOUSANDS} sessions, opened and closed, leave {grown // 1024} KiB of memory behind"
    check.expect(grown < THOUSANDS * LEAK, saw, counted)


def _resident() -> int:
    """Bytes of memory that the process has; 0 where there is no way to know."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * PAGE
    except OSError:
        return 0


# Handles from nowhere: last, since a module may crash or hang

NOWHERE = {0: "0", 0x7F4B4601: "of no session", (1 << 64) - 1: "of all ones"}
NO_OBJECTS = {0: "0", 0x7F4B4602: "of no object", (1 << 64) - 1: "of all ones"}


@scenario("sessions: handles from nowhere", "Session and object handles that nobody gave out", rules=("P37",))
def nowhere(context: Context) -> None:
    module = context.module
    slot = context.slot()
    with context.step("session handles"), context.checking("P37") as check:
        for session, name in {**NOWHERE, **_closed(context, slot)}.items():
            # NSS tells a lost session by this answer alone; of other functions any error will do.
            state = module.C_GetSessionInfo(session)
            check.expect_rv(state, *CLOSED, because=f"to a session handle {name}")
            module.C_GenerateRandom(session, 16)  # needs no state: softoken gives random bytes all the same
            _expect_refused(check, _with_session(module, session), f"a session handle {name}")
    with context.step("object handles"), context.checking("P37") as check:
        for handle, name in NO_OBJECTS.items():
            _expect_refused(check, _with_object(module, slot.session, handle), f"an object handle {name}")


def _expect_refused(check: Check, replies: list[Reply[Any]], what: str) -> None:
    taken = [reply for reply in replies if reply.is_ok]
    functions = ", ".join(reply.call.function for reply in taken)
    check.expect(not taken, f"CKR_OK to {what}: {functions}", *taken)


def _closed(context: Context, slot: NssSlot) -> dict[int, str]:
    """The handle of a session that was closed; none where closing does nothing, which is SE6."""
    if slot.single_session:
        return {}
    session = context.module.C_OpenSession(slot.id).ok()
    context.module.C_CloseSession(session)
    return {} if context.module.C_GetSessionInfo(session).is_ok else {session: "of a closed session"}


def _with_session(module: Module, session: int) -> list[Reply[Any]]:
    """What NSS calls with a session. The object handle is nobody's either: nothing is changed by a careless module."""
    thing = 0x7F4B4602
    rsa, digest = Mechanism(CKM.RSA_PKCS), Mechanism(CKM.SHA256)
    wrap = Mechanism(CKM.AES_KEY_WRAP)
    return [
        module.C_CloseSession(session),
        module.C_GetOperationState(session, 64),
        module.C_Logout(session),
        module.C_CreateObject(session, material.secret_key_template(CKK.AES, CKA.ENCRYPT, bytes(16))),
        module.C_CopyObject(session, thing, [(CKA.TOKEN, False)]),
        module.C_DestroyObject(session, thing),
        module.C_GetAttributeValue(session, thing, [(CKA.CLASS, 8)]),
        module.C_SetAttributeValue(session, thing, [(CKA.LABEL, b"nothing")]),
        module.C_FindObjectsInit(session, [(CKA.CLASS, CKO.CERTIFICATE)]),
        module.C_FindObjects(session, 1),
        module.C_FindObjectsFinal(session),
        module.C_DecryptInit(session, rsa, thing),
        module.C_Decrypt(session, bytes(16), 16),
        module.C_DigestInit(session, digest),
        module.C_DigestUpdate(session, bytes(16)),
        module.C_SignInit(session, rsa, thing),
        module.C_Sign(session, bytes(16), 512),
        module.C_SignFinal(session, 512),
        module.C_WrapKey(session, wrap, thing, thing, 512),
        module.C_UnwrapKey(session, rsa, thing, bytes(16), [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES)]),
    ]


def _with_object(module: Module, session: int, handle: int) -> list[Reply[Any]]:
    rsa = Mechanism(CKM.RSA_PKCS)
    return [
        module.C_GetAttributeValue(session, handle, [(CKA.CLASS, 8)]),
        module.C_SetAttributeValue(session, handle, [(CKA.LABEL, b"nothing")]),
        module.C_CopyObject(session, handle, [(CKA.TOKEN, False)]),
        module.C_DestroyObject(session, handle),
        module.C_SignInit(session, rsa, handle),
        module.C_DecryptInit(session, rsa, handle),
        module.C_WrapKey(session, Mechanism(CKM.AES_KEY_WRAP), handle, handle, 512),
        module.C_UnwrapKey(session, rsa, handle, bytes(256), [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES)]),
    ]
