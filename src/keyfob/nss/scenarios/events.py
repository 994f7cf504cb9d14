"""Slot events and the wait that C_Finalize ends; processes that fork."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from keyfob.nss.client import Nss, NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import Call, CallFailed, Module, Reply
from keyfob.nss.scenario import scenario
from keyfob.spec.constants import CKA, CKF, CKO, CKR
from keyfob.spec.errors import name_of

WAITING = 0.3
"""Seconds after which a wait for an event is taken for one."""
RELEASE = 5.0
"""Seconds within which C_Finalize must end it."""


@scenario("events", "Wait for a slot event, and end the wait by C_Finalize as NSS does", rules=("P28", "G1"))
def events(context: Context) -> None:
    nss, module = context.nss(), context.module
    before = nss.slot_ids()
    with context.step("SECMOD_WaitForAnyTokenEvent"), context.checking("P28") as check:
        if not module.pointers.get("C_WaitForSlotEvent"):
            check.not_tested("the function list has NULL for C_WaitForSlotEvent: see G5")
        at_once = module.C_WaitForSlotEvent(CKF.DONT_BLOCK)
        if at_once.rv == CKR.FUNCTION_NOT_SUPPORTED:
            check.passed("there is no C_WaitForSlotEvent: NSS asks the slots themselves")
        else:
            # What happened before may be told once for each slot.
            for _ in before:
                if at_once.is_ok:
                    at_once = module.C_WaitForSlotEvent(CKF.DONT_BLOCK)
            if at_once.is_ok:
                check.fail("C_WaitForSlotEvent tells of events without end, where nothing happened", at_once)
            elif at_once.rv != CKR.NO_EVENT:
                _no_answer_to_a_wait(check, at_once, "CKF_DONT_BLOCK, where nothing happened")
            _wait(check, module)
    with context.step("SECMOD_CancelWait"), context.checking("G1") as check:
        _initialise_again(context, check, before)


def _wait(check: Check, module: Module) -> None:
    """SECMOD_CancelWait: C_Finalize from another thread releases the one that waits (util:1278)."""
    answers: list[Reply[int]] = []

    def wait() -> None:
        while not answers or answers[-1].is_ok:
            answers.append(module.C_WaitForSlotEvent(0))

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(WAITING)
    if not waiting.is_alive():
        if answers[-1].rv not in (CKR.FUNCTION_NOT_SUPPORTED, CKR.NO_EVENT):
            _no_answer_to_a_wait(check, answers[-1], "a call that should wait, or say that it cannot")
        check.passed(f"C_WaitForSlotEvent does not wait ({answers[-1].name}): NSS asks the slots themselves")
        return
    ended = module.C_Finalize()
    begun = time.monotonic()
    waiting.join(RELEASE)
    check.expect_rv(ended, CKR.OK, because="while another thread waits for an event")
    if waiting.is_alive():
        check.fail(f"C_WaitForSlotEvent still waits {RELEASE:g} s after C_Finalize", ended)
        return
    check.expect_rv(answers[-1], CKR.CRYPTOKI_NOT_INITIALIZED, because="when C_Finalize ended the wait")
    check.passed(f"C_Finalize ended the wait within {1000 * (time.monotonic() - begun):.0f} ms")


def _no_answer_to_a_wait(check: Check, reply: Reply[int], what: str) -> None:
    check.warn(
        f"C_WaitForSlotEvent answered {reply.name} to {what}",
        reply,
        nss="After CKR_FUNCTION_NOT_SUPPORTED NSS asks the slots themselves; any other error ends the wait.",
        expects="CKR_NO_EVENT to CKF_DONT_BLOCK; without it the call waits, or answers CKR_FUNCTION_NOT_SUPPORTED.",
        user="A program that waits for cards, as screen locks do, sees none come or go until it is restarted.",
    )


def _initialise_again(context: Context, check: Check, before: list[int]) -> None:
    """C_Initialize follows, also on a wait that was ended; the slots are those of before, the sessions are gone."""
    nss, module = context.nss(), context.module
    module.C_Finalize()  # done already where a wait was ended: NSS looks at the next answer only
    nss.loaded = False
    nss.initialize()
    slots = nss.slot_ids()
    listed = module.C_GetSlotList(False, None)
    check.expect(slots == before, f"after C_Finalize and C_Initialize the slots are {slots}, not {before}", listed)
    used = [slot for slot in nss.slots if slot.session]
    for slot in used:
        old = module.C_GetSessionInfo(slot.session)
        check.expect(not old.is_ok, "a session outlived C_Finalize", old)
    for slot in used:
        again = module.C_OpenSession(slot.id)
        check.expect_rv(again, CKR.OK, because="after C_Finalize and C_Initialize")
        slot.session = again.value if again.is_ok else 0


@scenario("events: fork", "A process that forks: SECMOD_RestartModules in the child", rules=("P39",))
def fork(context: Context) -> None:
    nss, module = context.nss(), context.module
    slot = context.slot()
    if slot.needs_login and slot.pin_initialized and not slot.protected_path and context.pin is not None:
        context.login(slot)
    state = module.C_GetSessionInfo(slot.session).ok().state
    with context.step("in the child"), context.checking("P39") as check:
        reader, writer = os.pipe()
        code = context.forked(lambda: _in_the_child(nss, slot, lambda told: _tell(writer, told)))
        os.close(writer)
        with os.fdopen(reader) as pipe:
            told = [json.loads(line) for line in pipe]
        _judge_child(check, told, code)
    with context.step("in the parent"), context.checking("P39") as check:
        info = module.C_GetSessionInfo(slot.session)
        if check.expect_rv(info, CKR.OK, because="in the parent, after a child was forked"):
            check.expect(info.value.state == state, "the fork changed the parent's login", info)
        reply, _handles = nss.search(slot.session, [(CKA.CLASS, CKO.CERTIFICATE), (CKA.TOKEN, True)])
        check.expect_rv(reply, CKR.OK, because="to a search in the parent, after a child was forked")


Told = dict[str, Any]


def _tell(writer: int, told: Told) -> None:
    os.write(writer, json.dumps(told).encode() + b"\n")


def _in_the_child(nss: Nss, slot: NssSlot, tell: Callable[[Told], None]) -> None:
    """What a child may do (util:1652): look, end what the parent began, and initialise for itself."""
    module = nss.module

    def said(step: str, reply: Reply[Any]) -> Reply[Any]:
        tell({"step": step, "rv": reply.rv, "number": reply.call.number, "function": reply.call.function})
        return reply

    said("first", module.C_GetSlotList(False, None))
    said("inherited", module.C_GetSessionInfo(slot.session))
    module.C_Finalize()
    try:
        begun: Reply[Any] = nss.initialize()
    except CallFailed as failed:
        begun = failed.reply
    said("own", begun)
    said("own", module.C_GetSlotList(False, None))
    opened = said("own", module.C_OpenSession(slot.id))
    if opened.is_ok:
        searching = said("own", module.C_FindObjectsInit(opened.value, [(CKA.CLASS, CKO.CERTIFICATE)]))
        if searching.is_ok:
            said("own", module.C_FindObjects(opened.value, 1))
    module.C_Finalize()  # its answer is G3's matter


def _judge_child(check: Check, told: list[Told], code: int) -> None:
    calls = {}
    for row in told:
        calls[row["number"]] = Call(row["number"], row["function"], [])
    steps = {step: [row for row in told if row["step"] == step] for step in ("first", "inherited", "own")}
    if steps["first"] and steps["first"][0]["rv"] == CKR.OK:
        _judge_inherited(check, steps["first"][0], steps["inherited"], calls)
    elif steps["first"] and steps["first"][0]["rv"] not in (CKR.CRYPTOKI_NOT_INITIALIZED, CKR.DEVICE_ERROR):
        # NSS takes any error for a reason to initialise; softoken answers CKR_DEVICE_ERROR.
        row = steps["first"][0]
        check.fail(f"C_GetSlotList answered {name_of('CKR', row['rv'])} in a forked child", calls[row["number"]])
    for row in steps["own"]:
        # Nobody has logged in there yet.
        if row["rv"] not in (CKR.OK, CKR.USER_NOT_LOGGED_IN):
            answer = name_of("CKR", row["rv"])
            saw = f"{row['function']} answered {answer} in a child that ended and initialised the module for itself"
            check.fail(saw, calls[row["number"]])
            break
    if code:
        last = told[-1]["function"] if told else "the fork"
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        check.fail(f"a forked child ended with {how} after {last}", *list(calls.values())[-1:])


def _judge_inherited(check: Check, first: Told, inherited: list[Told], calls: dict[int, Call]) -> None:
    """C_GetSlotList works in the child: NSS takes the module for alive there, and does not initialise it."""
    works = inherited and inherited[0]["rv"] == CKR.OK
    if works:
        check.warn(
            "a forked child goes on with what its parent initialised, as if it were the parent", calls[first["number"]]
        )
        return
    answer = name_of("CKR", inherited[0]["rv"]) if inherited else "nothing"
    check.fail(
        f"in a forked child C_GetSlotList answers CKR_OK, so that NSS does not initialise it, and the rest {answer}",
        *(calls[row["number"]] for row in (first, *inherited)),
    )
