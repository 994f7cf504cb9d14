"""Searches and attributes: NSS's templates with and without hits, batches of many objects, reads, stable handles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keyfob.nss import material
from keyfob.nss.client import NOTHING_FOUND, NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import Reply, Template
from keyfob.nss.options import LABEL
from keyfob.nss.scenario import scenario
from keyfob.spec.constants import CKA, CKC, CKK, CKO, CKR
from keyfob.spec.errors import name_of

TOKEN = (CKA.TOKEN, True)
UNKNOWN = b"keyfob check, never stored"
MANY = 21
"""More than NSS's batches of 10 and 16."""
FEW = 5
SECRET: Template = [(CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.GENERIC_SECRET), (CKA.LABEL, LABEL)]
CERTIFICATES: Template = [TOKEN, (CKA.CLASS, CKO.CERTIFICATE)]

# The templates of section 3.10, which nothing matches, but for classes that a module may have (roots and validations);
# and what each is for. Of the attributes that a module may not know NSS searches by its own alone: a search by others
# would accuse softoken itself.
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
                    _expect_none_or_its_own(context, often, slot, what, template, reply, handles)
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


def _expect_none_or_its_own(
    context: Context,
    check: Check,
    slot: NssSlot,
    what: str,
    template: Template,
    reply: Reply[Any],
    handles: list[int],
) -> None:
    """Nothing is found; of a class that is looked for by nothing else, objects of that class."""
    if len(template) == 1 and template[0][0] == CKA.CLASS:
        wanted = template[0][1]
        strange = [h for h in handles if context.nss().read_number(slot.session, h, CKA.CLASS) != wanted]
        check.expect(not strange, f"a search for {what} finds {len(strange)} objects of another class", reply)
    else:
        check.expect(not handles, f"a search for {what} finds {len(handles)} objects", reply)


@scenario(
    "find: many",
    "Find many objects, one, ten and sixteen at a time, on two sessions at once",
    rules=("SE3", "O20", "P23", "P25"),
)
def many(context: Context) -> None:
    """Session objects: nothing is written to the token. Where it takes none, its own certificates will do."""
    nss = context.nss()
    slot = context.ready()
    owner = nss.open_ro(slot)
    made = _session_keys(context, slot, owner)
    search: Template = [(CKA.ID, UNKNOWN), (CKA.CLASS, CKO.SECRET_KEY)]
    what = "objects with one CKA_ID"
    if len(made) < MANY:
        search, what = CERTIFICATES, "certificates"
        found = nss.find_objects(slot, search)
        if len(found) < FEW:
            context.give_up(f"the token takes no session keys from outside, and has no {FEW} certificates")
        context.skip("the token takes no session keys from outside", "O20")
        _in_batches(context, slot, search, what, len(found))
        _two_searches(context, slot, owner, search, len(found))
        with context.step("handles"), context.checking("P25") as check:
            _same_handles(context, check, slot, search)
    else:
        most, last = _in_batches(context, slot, search, what, len(made))
        with context.checking("O20") as twins:
            saw = f"of {MANY} objects with one CKA_ID at most {most} are found"
            twins.expect(most == len(made), saw, last)
        _two_searches(context, slot, owner, search, len(made))
        with context.step("handles"), context.checking("P25") as check:
            _same_handles(context, check, slot, search)
            _no_second_life(context, check, slot, owner, made[0])
    nss.close(slot, owner)


def _session_keys(context: Context, slot: NssSlot, owner: int) -> list[int]:
    """MANY secret keys of one CKA_ID; fewer where the token takes none, or would have no use for them."""
    made: list[int] = []
    module = context.module
    with context.step(f"make {MANY} session keys"), module.recorder.quietly("make session keys"):
        for i in range(MANY if slot.mechanisms else 0):
            value = (CKA.VALUE, bytes([i + 1]) * 16)
            reply = module.C_CreateObject(owner, [*SECRET, (CKA.ID, UNKNOWN), value])
            if not reply.is_ok:
                break
            made.append(reply.value)
    return made


def _in_batches(context: Context, slot: NssSlot, search: Template, what: str, number: int) -> tuple[int, Reply[Any]]:
    """(how many different objects were found at most, a call to show)."""
    nss, module = context.nss(), context.module
    most = 0
    with context.step("find them"), context.checking("P23") as check:
        for at_once in (1, 10, 16):
            handles = nss.find_all(slot.session, search, at_once)
            most = max(most, len(set(handles)))
            last = module.C_FindObjectsInit(slot.session, search)
            module.C_FindObjectsFinal(slot.session)
            check.expect(
                len(set(handles)) == len(handles) == number,
                f"{len(handles)} of {number} {what} are found, {at_once} at a time",
                last,
                nss="NSS takes a call that gives fewer objects than asked for as the last one.",
            )
    return most, last


def _two_searches(context: Context, slot: NssSlot, owner: int, search: Template, number: int) -> None:
    """The default session searches while a search stands open elsewhere (SE3)."""
    nss, module = context.nss(), context.module
    with context.step("two searches at once"), context.checking("SE3") as check:
        if slot.single_session:
            check.not_applicable("NSS has only one session of this token")
        whole = {session: nss.search(session, search, number + 1)[1] for session in (owner, slot.session)}
        if {len(handles) for handles in whole.values()} != {number}:
            check.not_tested("a search does not find everything in one call even alone")
        with check.setup("open a search in another session"):
            module.C_FindObjectsInit(owner, search).ok()
            first = module.C_FindObjects(owner, FEW).ok()
        begun = module.C_FindObjectsInit(slot.session, search)
        check.expect_rv(begun, CKR.OK, because="while another session searches")
        second = module.C_FindObjects(slot.session, number + 1)
        module.C_FindObjectsFinal(slot.session)
        rest = module.C_FindObjects(owner, number + 1)
        module.C_FindObjectsFinal(owner)
        found = sorted(second.value) if second.is_ok and isinstance(second.value, list) else []
        check.expect(
            found == sorted(whole[slot.session]), "the second of two searches does not find everything", second
        )
        found = sorted([*first, *rest.value]) if rest.is_ok and isinstance(rest.value, list) else []
        check.expect(found == sorted(whole[owner]), "a search loses its place while another session searches", rest)


def _same_handles(context: Context, check: Check, slot: NssSlot, search: Template) -> None:
    nss = context.nss()
    other = nss.open_ro(slot)
    here, there = (nss.search(session, search, MANY + 1) for session in (slot.session, other))
    if not here[1]:
        check.not_tested("nothing is found: see P23")
    check.expect(
        sorted(here[1]) == sorted(there[1]),
        "a search in another session gives other handles for the same objects",
        here[0],
        there[0],
    )
    read = context.module.C_GetAttributeValue(other, here[1][0], [(CKA.CLASS, 8)])
    check.expect_rv(read, CKR.OK, because="for a handle that another session gave")
    nss.close(slot, other)


def _no_second_life(context: Context, check: Check, slot: NssSlot, owner: int, handle: int) -> None:
    context.module.C_DestroyObject(owner, handle).ok()
    fresh = context.module.C_CreateObject(owner, [*SECRET, (CKA.ID, UNKNOWN), (CKA.VALUE, b"\x7f" * 16)])
    check.expect(fresh.ok() != handle, "a handle is given to another object after C_DestroyObject", fresh)


@scenario(
    "read attributes", "Read attributes as NSS does: sizes and values, known and unknown together", rules=("O17", "P24")
)
def attributes(context: Context) -> None:
    """Of a session key; of a certificate of its own, where the token takes no such key or has no use for one."""
    nss = context.nss()
    slot = context.ready()
    session = nss.open_ro(slot)
    made: Reply[int] | None = None
    if slot.mechanisms:
        made = context.module.C_CreateObject(session, [*SECRET, (CKA.VALUE, UNKNOWN), (CKA.SENSITIVE, True)])
    if made is not None and made.is_ok:
        _read(context, session, made.value, SESSION_KEY)
    else:
        own = nss.find(slot.session, CERTIFICATES)
        if not own:
            context.give_up("the token takes no session keys from outside, and has no certificate")
        _read(context, session, own[0], OWN_CERTIFICATE)
    nss.close(slot, session)


@dataclass(frozen=True, slots=True)
class Subject:
    """An object to read: attributes that it has not or keeps to itself, two numbers, CKA_TOKEN, its label if known."""

    missing: tuple[int, ...]
    object_class: int
    kind: tuple[int, int]
    on_token: bool
    long: int
    label: bytes | None = None


SESSION_KEY = Subject(
    (CKA.MODULUS, CKA.VALUE, CKA.CERTIFICATE_TYPE),
    CKO.SECRET_KEY,
    (CKA.KEY_TYPE, CKK.GENERIC_SECRET),
    on_token=False,
    long=CKA.LABEL,
    label=LABEL.encode(),
)
OWN_CERTIFICATE = Subject(
    (CKA.MODULUS, CKA.KEY_TYPE), CKO.CERTIFICATE, (CKA.CERTIFICATE_TYPE, CKC.X_509), on_token=True, long=CKA.VALUE
)


def _read(context: Context, session: int, handle: int, subject: Subject) -> None:
    nss, module = context.nss(), context.module
    with context.step("known and unknown attributes together"):
        _mixed(context, session, handle, subject)
    with context.step("one number, one flag"), context.checking("O17") as check:
        attribute, value = subject.kind
        name = name_of("CKA", attribute)
        number = nss.read_number(session, handle, attribute)
        read = module.C_GetAttributeValue(session, handle, [(attribute, 8)])
        check.expect(number == value, f"{name} is not eight bytes with the object's type", read)
        read = module.C_GetAttributeValue(session, handle, [(CKA.TOKEN, 1)])
        wanted = (1, bytes([subject.on_token]))
        word = "TRUE" if subject.on_token else "FALSE"
        check.expect(read.is_ok and read.value[0][1:] == wanted, f"CKA_TOKEN is not one byte, {word}", read)
        small = module.C_GetAttributeValue(session, handle, [(subject.long, 1)])
        if small.rv != CKR.BUFFER_TOO_SMALL:
            check.fail(
                f"C_GetAttributeValue answered {small.name} for a buffer that is too small",
                small,
                expects="CKR_BUFFER_TOO_SMALL.",
                nss="A value may have grown between the pass that asks for its size and the one that reads it.",
                user="Rarely anything: two programs at one token, one of which gives an object a longer label.",
            )


def _mixed(context: Context, session: int, handle: int, subject: Subject) -> None:
    nss, module = context.nss(), context.module
    asked = (*subject.missing, CKA.LABEL, CKA.CLASS)
    with context.checking("P24") as check, context.checking("O17") as both:
        sized = module.C_GetAttributeValue(session, handle, [(attribute, None) for attribute in asked])
        check.expect_rv(sized, CKR.ATTRIBUTE_TYPE_INVALID, CKR.ATTRIBUTE_SENSITIVE, because="though some have no value")
        lengths = {attribute: length for attribute, length, _value in sized.value}
        for missing in subject.missing:
            check.expect(
                lengths[missing] is None,
                f"{name_of('CKA', missing)}, which is not to be had, has the length {lengths[missing]}",
                sized,
                expects="The length -1.",
            )
        if subject.label is not None:
            right = lengths[CKA.LABEL] == len(subject.label)
            check.expect(right, "CKA_LABEL behind a missing attribute has no length", sized)
        check.expect(lengths[CKA.CLASS] == 8, "CKA_CLASS behind a missing attribute has no length", sized)
        values = nss.read(session, handle, *asked)
        last = module.C_GetAttributeValue(session, handle, [(CKA.MODULUS, 8), (CKA.LABEL, 64), (CKA.CLASS, 8)])
        for each in (check, both):
            each.expect(
                values[CKA.CLASS] == material.ulong(subject.object_class)
                and (subject.label is None or values[CKA.LABEL] == subject.label),
                "attributes behind a missing one are not read",
                last,
            )
