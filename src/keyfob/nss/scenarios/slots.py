"""Slots and tokens as NSS finds them at the start: lists, texts, names, sessions before any login."""

from __future__ import annotations

import time
from typing import Any

from keyfob.nss.client import Nss, NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import READ_WRITE, Mechanism, Module, Reply, Template
from keyfob.nss.driver.structs import text
from keyfob.nss.driver.values import SLOT_FLAGS, TOKEN_FLAGS, flags_text
from keyfob.nss.options import LABEL
from keyfob.nss.scenario import scenario
from keyfob.spec.constants import CKA, CKF, CKM, CKO, CKR, CKS

AGAIN = 5
"""How often lists are asked for again."""
SLOW_INFO = 0.05
"""Seconds that C_GetTokenInfo may take on average: NSS calls it at every event of a token."""
SLOW_RANDOM = 1.0
"""Seconds that 32 random bytes may take: NSS asks for them while a program starts."""


@scenario(
    "slots",
    "Slots, tokens, their names and their first sessions",
    rules=(
        *("S1", "S2", "S3", "S6", "S7", "S8", "S10", "S11", "K6", "N2", "N3"),
        *("P7", "P10", "P17", "P27", "P35", "P36", "P40"),
    ),
)
def slots(context: Context) -> None:
    nss, module = context.nss(), context.module
    context.fact("slots", [_slot_fact(slot) for slot in nss.slots])
    _lists(context, nss)
    if not nss.slots:
        context.give_up("the module has no slots")
    _slot_infos(context, nss)
    with context.step("sessions before login"):
        _first_sessions(context, nss)
    tokens = [slot for slot in nss.slots if slot.token is not None and not slot.disabled]
    if not tokens:
        context.give_up("there is no token that NSS would use")
    _names(context, tokens)
    _infos_again(context, tokens)
    with context.step("random numbers before login"):
        _random(context, module, tokens)
    _friendly(context, tokens)
    if module.has("C_GetSessionValidationFlags"):
        with context.step("PK11_GetFIPSStatus"):
            _validated(context, tokens)


def _slot_fact(slot: NssSlot) -> dict[str, Any]:
    fact: dict[str, Any] = {
        "id": slot.id,
        "description": text(slot.info.slotDescription).rstrip(b" \0").decode(errors="replace") if slot.info else "",
        "flags": flags_text(slot.info.flags, SLOT_FLAGS) if slot.info else "",
        "disabled": slot.disabled,
        "token": None,
    }
    if slot.token is not None:
        fact["token"] = {
            "label": slot.label,
            "manufacturer": text(slot.token.manufacturerID).rstrip(b" \0").decode(errors="replace"),
            "model": text(slot.token.model).rstrip(b" \0").decode(errors="replace"),
            "flags": flags_text(slot.flags, TOKEN_FLAGS),
            "max_sessions": slot.token.ulMaxSessionCount,
            "friendly": slot.friendly,
            "mechanisms": len(slot.mechanisms),
        }
    return fact


def _lists(context: Context, nss: Nss) -> None:
    module = context.module
    ids = [slot.id for slot in nss.slots]
    with context.step("C_GetSlotList"), context.checking("S1") as check:
        counted = module.C_GetSlotList(False, None)
        count = counted.ok()
        filled = module.C_GetSlotList(False, count)
        listed = filled.ok()
        check.expect(
            isinstance(listed, list) and len(listed) == count,
            f"C_GetSlotList counted {count} slots and then gave {len(listed) if isinstance(listed, list) else listed}",
            counted,
            filled,
        )
        with_token = module.C_GetSlotList(True, None)
        present = module.C_GetSlotList(True, with_token.ok()).ok()
        strange = [slot for slot in present if slot not in ids] if isinstance(present, list) else []
        check.expect(not strange, f"slots {strange} with a token are not in the list of all slots", with_token)
    with context.checking("S2") as check:
        with check.setup("count the slots"):
            module.C_GetSlotList(False, None).ok()
        for _ in range(AGAIN):
            again = module.C_GetSlotList(False, len(ids) + 16)
            now = again.ok()
            lost = [slot for slot in ids if slot not in now]
            check.expect(not lost, f"slots {lost} have vanished from the list", again)


def _slot_infos(context: Context, nss: Nss) -> None:
    module = context.module
    with context.step("C_GetSlotInfo"):
        infos: list[Reply[Any]] = []
        with context.checking("S3") as check:
            for slot in nss.slots:
                reply = module.C_GetSlotInfo(slot.id)
                if check.expect_rv(reply, CKR.OK, because=f"for the listed slot {slot.id}"):
                    infos.append(reply)
        with context.checking("P36") as check:
            descriptions = [text(reply.value.slotDescription) for reply in infos]
            twice = {d for d in descriptions if descriptions.count(d) > 1}
            for description in sorted(twice):
                same = [reply for reply in infos if text(reply.value.slotDescription) == description]
                check.fail(f"{len(same)} slots are called {description.strip().decode(errors='replace')!r}", *same)
        with context.checking("P35") as check, context.checking("S7") as alike:
            for reply in infos:
                if reply.value.flags & CKF.HW_SLOT:
                    check.warn("CKF_HW_SLOT is set: NSS keeps a cache of at most ten of the token's objects", reply)
                    alike.not_tested("what NSS's cache finds is not the module's doing: see P35")
            alike.not_applicable("CKF_HW_SLOT is clear")
        with context.checking("P40") as check:
            for reply in infos:
                _padding(check, reply, ("slotDescription", "manufacturerID"))
            for slot in nss.slots:
                if slot.token is not None:
                    reply = module.C_GetTokenInfo(slot.id)
                    _padding(check, reply, ("manufacturerID", "model", "serialNumber"))


def _padding(check: Any, reply: Reply[Any], fields: tuple[str, ...]) -> None:
    for name in fields:
        field = text(getattr(reply.value, name))
        if b"\0" in field:
            check.warn(f"{name} is padded with NUL instead of blanks", reply)
        else:
            try:
                readable = field.decode()
            except UnicodeDecodeError:
                check.fail(f"{name} is not UTF-8", reply)
                continue
            check.expect(readable.isprintable(), f"{name} holds control characters", reply)


def _first_sessions(context: Context, nss: Nss) -> None:
    module = context.module
    with context.checking("S6") as check:
        for slot in nss.slots:
            if slot.info is not None and not slot.removable:
                info = module.C_GetSlotInfo(slot.id)
                check.expect(
                    info.value.flags & CKF.TOKEN_PRESENT,
                    f"slot {slot.id} is not removable and has no token: NSS never uses it",
                    info,
                )
        if all(slot.removable for slot in nss.slots):
            check.not_applicable("every slot is removable")
    _sessions_open(context, nss)
    with context.checking("S11") as check:
        protected = [slot for slot in nss.slots if slot.read_only and not slot.disabled]
        if not protected:
            check.not_applicable("no token is write-protected")
        for slot in protected:
            opened = module.C_OpenSession(slot.id, READ_WRITE)
            if not opened.is_ok:
                check.expect_rv(opened, CKR.TOKEN_WRITE_PROTECTED, because="for a write-protected token")
                continue
            if context.options.write:
                _not_written(context, check, opened)
            module.C_CloseSession(opened.value)
        if not context.options.write:
            check.not_tested("a read-write session opens; whether it writes is not tried without --write")


def _not_written(context: Context, check: Check, opened: Reply[int]) -> None:
    """A read-write session of a write-protected token: no harm as long as nothing can be written in it."""
    template: Template = [(CKA.CLASS, CKO.DATA), (CKA.TOKEN, True), (CKA.LABEL, LABEL), (CKA.VALUE, b"written")]
    made = context.module.C_CreateObject(opened.value, template)
    check.expect(not made.is_ok, "a write-protected token opens a read-write session and is written to", opened, made)
    if made.is_ok:
        context.module.C_DestroyObject(opened.value, made.value)
    check.passed(f"read-write sessions are opened, but nothing can be written in them ({made.name})")


def _sessions_open(context: Context, nss: Nss) -> None:
    """Rule P10: what NSS calls for every token before it knows anything of it."""
    module = context.module
    with context.checking("P10") as check:
        for slot in nss.slots:
            if not slot.present:
                continue
            token = module.C_GetTokenInfo(slot.id)
            check.expect_rv(token, CKR.OK, because=f"for slot {slot.id}: NSS disables the slot")
            fresh = token.is_ok and not token.value.flags & CKF.TOKEN_INITIALIZED
            kind = "uninitialised" if fresh else "initialised"
            counted = module.C_GetMechanismList(slot.id, None)
            check.expect_rv(counted, CKR.OK, because=f"for the {kind} token in slot {slot.id}: NSS disables the slot")
            opened = module.C_OpenSession(slot.id)
            if check.expect_rv(
                opened, CKR.OK, because=f"for the {kind} token in slot {slot.id}: NSS disables the slot"
            ) and (opened.value != slot.session):
                module.C_CloseSession(opened.value)
        if not any(slot.present for slot in nss.slots):
            check.not_tested("no slot has a token")


def _names(context: Context, tokens: list[NssSlot]) -> None:
    module = context.module
    with context.step("token names"), context.checking("S10") as check, context.checking("P17") as pitfall:
        replies = {slot.id: module.C_GetTokenInfo(slot.id) for slot in tokens}
        for slot in tokens:
            reply = replies[slot.id]
            if not reply.value.flags & CKF.TOKEN_INITIALIZED and not slot.label:
                continue  # it gets its name with its first initialisation
            check.expect(slot.label.strip("\0 "), f"the token in slot {slot.id} has no name", reply)
            pitfall.expect(
                ":" not in slot.label, f"the label {slot.label!r} holds a colon, where NSS ends a token's name", reply
            )
            pitfall.expect(
                b"\0" not in text(reply.value.label),
                f"the label of slot {slot.id} is padded with NUL: pkcs11 URIs do not find the token",
                reply,
            )
        named = [slot.label for slot in tokens if slot.label]
        for label in sorted({label for label in named if named.count(label) > 1}):
            same = [replies[slot.id] for slot in tokens if slot.label == label]
            pitfall.fail(f"{len(same)} tokens are called {label!r}: NSS finds only the first by its name", *same)


def _infos_again(context: Context, tokens: list[NssSlot]) -> None:
    module = context.module
    with context.checking("S8") as check:
        for slot in tokens:
            times = 10
            started = time.perf_counter()
            replies = [module.C_GetTokenInfo(slot.id) for _ in range(times)]
            average = (time.perf_counter() - started) / times
            for reply in replies:
                check.expect_rv(reply, CKR.OK)
            if average > SLOW_INFO:
                check.warn(f"C_GetTokenInfo takes {average * 1000:.0f} ms on average", replies[0])
            changed = {(text(reply.value.label), reply.value.flags) for reply in replies if reply.is_ok}
            check.expect(len(changed) <= 1, "C_GetTokenInfo gives another label or other flags each time", *replies[:2])


def _random(context: Context, module: Module, tokens: list[NssSlot]) -> None:
    able = [slot for slot in tokens if slot.flags & CKF.RNG]
    with context.checking("P27") as slow, context.checking("N3") as flag, context.checking("N2") as check:
        for slot in able:
            drawn = module.C_GenerateRandom(slot.session, 32)
            check.expect(drawn.rv != CKR.USER_NOT_LOGGED_IN, "C_GenerateRandom needs a login", drawn)
            slow.expect_rv(drawn, CKR.OK, CKR.USER_NOT_LOGGED_IN, because="to 32 bytes, which CKF_RNG promises")
            flag.expect(drawn.rv != CKR.USER_NOT_LOGGED_IN, "CKF_RNG is set, but random numbers need a login", drawn)
            seconds = drawn.call.us / 1e6
            slow.expect(seconds < SLOW_RANDOM, f"32 random bytes took {seconds:.1f} s", drawn)
            seeded = module.C_SeedRandom(slot.session, bytes(32))
            check.expect(seeded.rv != CKR.USER_NOT_LOGGED_IN, "C_SeedRandom needs a login", seeded)
        for slot in tokens:
            if CKM.SHA256 in slot.mechanisms:
                begun = module.C_DigestInit(slot.session, Mechanism(CKM.SHA256))
                if check.expect_rv(begun, CKR.OK, because="before the login"):
                    check.expect_rv(module.C_Digest(slot.session, b"abc", 32), CKR.OK, because="before the login")
        if not able:
            slow.not_applicable("CKF_RNG is clear: NSS asks for no random numbers")


def _validated(context: Context, tokens: list[NssSlot]) -> None:
    """Lists from 3.2 on are asked whether the last operation was a validated one (slot:2806); any refusal will do."""
    with context.checking("K6") as check:
        for slot in tokens:
            reply = context.module.C_GetSessionValidationFlags(slot.session, CKS.LAST_VALIDATION_OK)
            searched, objects = context.nss().search(slot.session, [(CKA.CLASS, CKO.VALIDATION)])
            _claims(context, check, slot, objects)
            if reply.is_ok and reply.value and not objects:
                check.warn(
                    f"C_GetSessionValidationFlags gives {reply.value:#x}, and there is no CKO_VALIDATION object",
                    reply,
                    searched,
                    user="A program that asks NSS takes the token for a validated one.",
                )


def _claims(context: Context, check: Check, slot: NssSlot, objects: list[int]) -> None:
    """A validation object says by whom and what, and has the flag by which operations refer to it (section 4.15)."""
    for claim in objects:
        module = context.module
        flag = module.C_GetAttributeValue(slot.session, claim, [(CKA.VALIDATION_FLAG, 8)])
        module_id = module.C_GetAttributeValue(slot.session, claim, [(CKA.VALIDATION_MODULE_ID, 256)])
        empty = [reply for reply in (flag, module_id) if not reply.is_ok or not (reply.value[0][2] or b"").strip(b"\0")]
        if empty:
            check.warn(
                "a CKO_VALIDATION object claims a validation that no operation and no certificate of it can be told by",
                *empty,
                expects="CKA_VALIDATION_FLAG and CKA_VALIDATION_MODULE_ID, or no such object.",
                user="A program that asks NSS takes the token for a validated one.",
            )


def _friendly(context: Context, tokens: list[NssSlot]) -> None:
    with context.checking("P7") as check:
        asked = [slot for slot in tokens if slot.needs_login and slot.flags & CKF.TOKEN_INITIALIZED]
        if not asked:
            check.not_applicable("no token needs a login")
        for slot in asked:
            if not slot.friendly:
                check.warn(
                    f"the token {slot.label!r} has no profile object for public certificates: "
                    "NSS asks for its PIN before it looks at certificates"
                )


@scenario("slots: again", "The same slots in another process", rules=("P36",))
def slots_again(context: Context) -> None:
    nss = context.nss()
    before = context.known.get("slots")
    with context.checking("P36") as check:
        if before is None:
            check.not_tested("the scenario `slots` did not run")
        now = {slot.id: _slot_fact(slot)["description"] for slot in nss.slots}
        for known in before:
            listed = context.module.C_GetSlotInfo(known["id"])
            check.expect(known["id"] in now, f"slot {known['id']} has another ID in the next process", listed)
            if known["id"] in now:
                check.expect(
                    now[known["id"]] == known["description"],
                    f"slot {known['id']} has another description in the next process: {now[known['id']]!r}",
                    listed,
                )
