"""Searches and attributes: NSS's templates with and without hits, batches of many objects, reads, stable handles."""

from __future__ import annotations

from typing import Any

from keyfob.nss import material
from keyfob.nss.client import NOTHING_FOUND, Nss, NssSlot
from keyfob.nss.context import Context
from keyfob.nss.driver import Reply, Template
from keyfob.nss.options import LABEL
from keyfob.nss.scenario import scenario
from keyfob.spec.constants import CKA, CKK, CKO, CKR
from keyfob.spec.errors import name_of

TOKEN = (CKA.TOKEN, True)
UNKNOWN = b"keyfob check, never stored"
MANY = 21
"""More than NSS's batches of 10 and 16."""

# The templates of section 3.10, none of which anything matches; and what each is for. Of the attributes that a module
# may not know NSS searches by its own alone: a search by others would accuse softoken itself.
WITHOUT_HITS: tuple[tuple[str, Template], ...] = (
    ("CKO_NSS_BUILTIN_ROOT_LIST", [(CKA.CLASS, CKO.NSS_BUILTIN_ROOT_LIST)]),
    ("CKO_VALIDATION", [(CKA.CLASS, CKO.VALIDATION)]),
    ("CKO_NSS_CRL by subject", [(CKA.CLASS, CKO.NSS_CRL), (CKA.SUBJECT, UNKNOWN)]),
    ("CKO_TRUST", [TOKEN, (CKA.CLASS, CKO.TRUST), (CKA.ISSUER, UNKNOWN), (CKA.SERIAL_NUMBER, UNKNOWN)]),
    ("CKO_NSS_TRUST", [TOKEN, (CKA.CLASS, CKO.NSS_TRUST), (CKA.ISSUER, UNKNOWN), (CKA.SERIAL_NUMBER, UNKNOWN)]),
    ("CKO_NSS_TRUST by hash", [(CKA.CLASS, CKO.NSS_TRUST), (CKA.NSS_CERT_SHA1_HASH, UNKNOWN[:20])]),
    ("a certificate by nickname", [(CKA.LABEL, UNKNOWN), TOKEN, (CKA.CLASS, CKO.CERTIFICATE)]),
    ("a certificate by nickname and NUL", [(CKA.LABEL, UNKNOWN + b"\0"), TOKEN, (CKA.CLASS, CKO.CERTIFICATE)]),
    ("a certificate by e-mail", [(CKA.NSS_EMAIL, UNKNOWN), TOKEN, (CKA.CLASS, CKO.CERTIFICATE)]),
    ("a certificate by subject", [TOKEN, (CKA.CLASS, CKO.CERTIFICATE), (CKA.SUBJECT, UNKNOWN)]),
    ("a certificate by value", [(CKA.VALUE, UNKNOWN), (CKA.CLASS, CKO.CERTIFICATE)]),
    ("a key by ID", [(CKA.ID, UNKNOWN), (CKA.CLASS, CKO.PRIVATE_KEY)]),
    ("anything by modulus", [(CKA.MODULUS, UNKNOWN)]),
    ("anything by EC point", [(CKA.EC_POINT, b"\x04" + UNKNOWN)]),
    ("anything by value", [(CKA.VALUE, UNKNOWN)]),
    ("secret keys by label", [(CKA.CLASS, CKO.SECRET_KEY), TOKEN, (CKA.LABEL, UNKNOWN)]),
    ("a class that nobody knows", [(CKA.CLASS, CKO.VENDOR_DEFINED | 0x4B4659)]),
)


@scenario("find: before login", "NSS's searches before a login", rules=("P23", "O19"))
def before_login(context: Context) -> None:
    _without_hits(context, context.slot(), "before a login")


@scenario("find: after login", "NSS's searches after a login", rules=("P23", "O19"), needs=("pin",))
def after_login(context: Context) -> None:
    _without_hits(context, context.ready(), "after a login")


def _without_hits(context: Context, slot: NssSlot, when: str) -> None:
    nss = context.nss()
    refused: dict[int, list[tuple[str, Reply[Any]]]] = {}
    with context.step(f"searches without hits {when}"), context.checking("P23") as check:
        with context.checking("O19") as often:
            for what, template in WITHOUT_HITS:
                reply, handles = nss.search(slot.session, template, 10, strict=True)
                # Private keys wait for a login; NSS logs in then, and tries again.
                private = (CKA.CLASS, CKO.PRIVATE_KEY) in template or (CKA.CLASS, CKO.SECRET_KEY) in template
                waiting = reply.rv == CKR.USER_NOT_LOGGED_IN and slot.needs_login and when.startswith("before")
                if reply.is_ok or reply.rv in NOTHING_FOUND or (waiting and private):
                    often.expect(not handles, f"a search for {what} finds {len(handles)} objects", reply)
                else:
                    refused.setdefault(reply.rv, []).append((what, reply))
        for searches in refused.values():
            what, reply = searches[0]
            others = f", and so do {len(searches) - 1} others" if len(searches) > 1 else ""
            check.fail(
                f"a search for {what} {when} ends with {reply.name}{others}",
                *(each for _what, each in searches),
                expects="CKR_OK without hits: NSS asks every token for such objects.",
            )
        for at_once in (1, 16):
            reply, handles = nss.search(slot.session, [(CKA.ID, UNKNOWN)], at_once)
            check.expect(not handles, "a search for an unknown CKA_ID finds something", reply)
        everything = context.module.C_FindObjectsInit(slot.session, None)
        check.expect_rv(everything, CKR.OK, because="to a search for everything (template NULL, count 0)")
        if everything.is_ok:
            context.module.C_FindObjects(slot.session, 16).ok()
            ended = context.module.C_FindObjectsFinal(slot.session)
            check.expect_rv(ended, CKR.OK, because="in the middle of a search")


@scenario(
    "find: many",
    "Find many objects, one, ten and sixteen at a time, on two sessions at once",
    rules=("SE3", "O20", "P23", "P25"),
)
def many(context: Context) -> None:
    """Session objects: nothing is written to the token."""
    nss, module = context.nss(), context.module
    slot = context.ready()
    owner = nss.open_ro(slot)
    template: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.GENERIC_SECRET), (CKA.LABEL, LABEL)]
    made = []
    with context.step(f"make {MANY} session keys"), module.recorder.quietly("make session keys"):
        for i in range(MANY):
            reply = module.C_CreateObject(owner, [*template, (CKA.ID, UNKNOWN), (CKA.VALUE, bytes([i + 1]) * 16)])
            if reply.is_ok:
                made.append(reply.value)
    if len(made) < MANY:
        context.give_up("the token takes no session keys from outside")
    search: Template = [(CKA.ID, UNKNOWN), (CKA.CLASS, CKO.SECRET_KEY)]
    with context.step("find them"), context.checking("P23") as check, context.checking("O20") as twins:
        most = 0
        for at_once in (1, 10, 16):
            handles = nss.find_all(slot.session, search, at_once)
            most = max(most, len(set(handles)))
            last = module.C_FindObjectsInit(slot.session, search)
            module.C_FindObjectsFinal(slot.session)
            check.expect(
                len(set(handles)) == len(handles) == len(made),
                f"{len(handles)} of {MANY} objects with one CKA_ID are found, {at_once} at a time",
                last,
                nss="NSS takes a call that gives fewer objects than asked for as the last one.",
            )
        twins.expect(most == len(made), f"of {MANY} objects with one CKA_ID at most {most} are found", last)
    _two_searches(context, slot, owner, search, made)
    with context.step("handles"), context.checking("P25") as check:
        other = nss.open_ro(slot)
        here, there = (nss.search(session, search, MANY + 1) for session in (slot.session, other))
        check.expect(
            sorted(here[1]) == sorted(there[1]),
            "a search in another session gives other handles for the same objects",
            here[0],
            there[0],
        )
        read = module.C_GetAttributeValue(other, made[0], [(CKA.CLASS, 8)])
        check.expect_rv(read, CKR.OK, because="for a handle that another session gave")
        module.C_DestroyObject(owner, made[0]).ok()
        fresh = module.C_CreateObject(owner, [*template, (CKA.ID, UNKNOWN), (CKA.VALUE, b"\x7f" * 16)])
        check.expect(fresh.ok() != made[0], "a handle is given to another object after C_DestroyObject", fresh)
        nss.close(slot, other)
    nss.close(slot, owner)


def _two_searches(context: Context, slot: NssSlot, owner: int, search: Template, made: list[int]) -> None:
    """The default session searches while a search stands open elsewhere (SE3)."""
    nss, module = context.nss(), context.module
    with context.step("two searches at once"), context.checking("SE3") as check:
        if slot.single_session:
            check.not_applicable("NSS has only one session of this token")
        whole = {session: nss.search(session, search, MANY + 1)[1] for session in (owner, slot.session)}
        if {len(handles) for handles in whole.values()} != {len(made)}:
            check.not_tested("a search does not find everything in one call even alone")
        with check.setup("open a search in another session"):
            module.C_FindObjectsInit(owner, search).ok()
            first = module.C_FindObjects(owner, 5).ok()
        begun = module.C_FindObjectsInit(slot.session, search)
        check.expect_rv(begun, CKR.OK, because="while another session searches")
        second = module.C_FindObjects(slot.session, MANY + 1)
        module.C_FindObjectsFinal(slot.session)
        rest = module.C_FindObjects(owner, MANY + 1)
        module.C_FindObjectsFinal(owner)
        found = sorted(second.value) if second.is_ok and isinstance(second.value, list) else []
        check.expect(
            found == sorted(whole[slot.session]), "the second of two searches does not find everything", second
        )
        found = sorted([*first, *rest.value]) if rest.is_ok and isinstance(rest.value, list) else []
        check.expect(found == sorted(whole[owner]), "a search loses its place while another session searches", rest)


@scenario(
    "read attributes", "Read attributes as NSS does: sizes and values, known and unknown together", rules=("O17", "P24")
)
def attributes(context: Context) -> None:
    nss = context.nss()
    slot = context.ready()
    session = nss.open_ro(slot)
    secret: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.GENERIC_SECRET), (CKA.LABEL, LABEL)]
    reply = context.module.C_CreateObject(session, [*secret, (CKA.VALUE, UNKNOWN), (CKA.SENSITIVE, True)])
    if not reply.is_ok:
        context.give_up("the token takes no session keys from outside")
    with context.step("known and unknown attributes together"):
        _mixed(context, nss, session, reply.value)
    with context.step("one number, one flag"), context.checking("O17") as check:
        number = nss.read_number(session, reply.value, CKA.KEY_TYPE)
        read = context.module.C_GetAttributeValue(session, reply.value, [(CKA.KEY_TYPE, 8)])
        check.expect(number == CKK.GENERIC_SECRET, "CKA_KEY_TYPE is not eight bytes with the key's type", read)
        read = context.module.C_GetAttributeValue(session, reply.value, [(CKA.TOKEN, 1)])
        check.expect(read.is_ok and read.value[0][1:] == (1, b"\0"), "CKA_TOKEN is not one byte, FALSE", read)
        small = context.module.C_GetAttributeValue(session, reply.value, [(CKA.LABEL, 1)])
        if small.rv != CKR.BUFFER_TOO_SMALL:
            check.fail(
                f"C_GetAttributeValue answered {small.name} for a buffer that is too small",
                small,
                expects="CKR_BUFFER_TOO_SMALL.",
                nss="A value may have grown between the pass that asks for its size and the one that reads it.",
                user="Rarely anything: two programs at one token, one of which gives an object a longer label.",
            )
    nss.close(slot, session)


def _mixed(context: Context, nss: Nss, session: int, handle: int) -> None:
    module = context.module
    asked = (CKA.MODULUS, CKA.VALUE, CKA.LABEL, CKA.CERTIFICATE_TYPE, CKA.CLASS)
    with context.checking("P24") as check, context.checking("O17") as both:
        sized = module.C_GetAttributeValue(session, handle, [(attribute, None) for attribute in asked])
        check.expect_rv(sized, CKR.ATTRIBUTE_TYPE_INVALID, CKR.ATTRIBUTE_SENSITIVE, because="though some have no value")
        lengths = {attribute: length for attribute, length, _value in sized.value}
        for missing in (CKA.MODULUS, CKA.VALUE, CKA.CERTIFICATE_TYPE):
            check.expect(
                lengths[missing] is None,
                f"{name_of('CKA', missing)}, which is not to be had, has the length {lengths[missing]}",
                sized,
                expects="The length -1.",
            )
        check.expect(lengths[CKA.LABEL] == len(LABEL), "CKA_LABEL behind a missing attribute has no length", sized)
        check.expect(lengths[CKA.CLASS] == 8, "CKA_CLASS behind a missing attribute has no length", sized)
        values = nss.read(session, handle, *asked)
        last = module.C_GetAttributeValue(session, handle, [(CKA.MODULUS, 8), (CKA.LABEL, 64), (CKA.CLASS, 8)])
        for each in (check, both):
            each.expect(
                values[CKA.LABEL] == LABEL.encode() and values[CKA.CLASS] == material.ulong(CKO.SECRET_KEY),
                "attributes behind a missing one are not read",
                last,
            )
