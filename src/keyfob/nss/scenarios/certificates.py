"""Certificates: stored with NSS's nine attributes, found in all its ways, seen before a login, renamed, removed."""

from __future__ import annotations

from keyfob.nss import material
from keyfob.nss.client import Nss, NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import Reply, Template
from keyfob.nss.material import Certificate
from keyfob.nss.options import LABEL
from keyfob.nss.scenario import scenario
from keyfob.nss.scenarios.login import expect_session
from keyfob.spec.constants import CKA, CKC, CKO, CKR

CERTIFICATE = (CKA.CLASS, CKO.CERTIFICATE)
TOKEN = (CKA.TOKEN, True)
SIX = (CKA.CERTIFICATE_TYPE, CKA.ID, CKA.VALUE, CKA.ISSUER, CKA.SERIAL_NUMBER, CKA.SUBJECT)
"""What NSS reads of each certificate in one call (section 3.11)."""
READ_ONLY_ANSWERS = (CKR.TOKEN_WRITE_PROTECTED, CKR.SESSION_READ_ONLY)


def store(context: Context, slot: NssSlot, made: Certificate, label: str = LABEL) -> Reply[int]:
    """certutil -A: a read-write session of its own, the nine attributes, and the label read back."""
    nss, module = context.nss(), context.module
    session = nss.open_rw(slot)
    reply = module.C_CreateObject(session, material.certificate_template(made, label))
    if reply.is_ok:
        nss.read(session, reply.value, CKA.TOKEN, CKA.LABEL)
    nss.close(slot, session)
    return reply


def by_issuer_and_serial(nss: Nss, slot: NssSlot, made: Certificate, *, raw: bool = False) -> list[int]:
    serial = made.raw_serial if raw else made.der_serial
    return nss.find(slot.session, [TOKEN, CERTIFICATE, (CKA.ISSUER, made.subject), (CKA.SERIAL_NUMBER, serial)])


def destroy(context: Context, slot: NssSlot, *handles: int) -> None:
    session = context.nss().open_rw(slot)
    for handle in handles:
        context.module.C_DestroyObject(session, handle)
    context.nss().close(slot, session)


@scenario(
    "certificates: no login",
    "Store a certificate before any login, as certutil -A does",
    rules=("P18", "N5"),
    needs=("write",),
)
def without_login(context: Context) -> None:
    nss, slot = context.nss(), context.slot()
    if slot.needs_login and not slot.pin_initialized:
        context.give_up("the token has no user PIN yet")
    made = material.certificate("without a login")
    with context.step("certutil -A without a login"):
        with context.checking("P18") as check:
            reply = store(context, slot, made)
            if reply.is_ok:
                destroy(context, slot, reply.value)
            if not slot.needs_login:
                check.not_applicable("the token needs no login")
            if not reply.is_ok and reply.rv != CKR.USER_NOT_LOGGED_IN:
                _judge_refusal(context, check, slot, made)
            check.expect_rv(reply, CKR.OK, CKR.USER_NOT_LOGGED_IN, because="to a public certificate without a login")
        with context.checking("N5") as check:
            if slot.single_session:
                check.not_applicable("NSS has only one session of this token, for reading and writing")
            session = nss.open_ro(slot)
            refused = context.module.C_CreateObject(session, material.certificate_template(made))
            if refused.is_ok:
                destroy(context, slot, refused.value)
            nss.close(slot, session)
            if not refused.is_ok and refused.rv == reply.rv:
                check.not_tested(f"the certificate is refused in a read-write session, too: {reply.name}")
            wanted = (CKR.SESSION_READ_ONLY, CKR.USER_NOT_LOGGED_IN, CKR.TOKEN_WRITE_PROTECTED)
            check.expect_rv(refused, *wanted, because="to a token object in a read-only session")


def _judge_refusal(context: Context, check: Check, slot: NssSlot, made: Certificate) -> None:
    """A certificate that is refused after a login, too, is not refused for the lack of one."""
    if context.pin is None or slot.protected_path or not context.login(slot).is_ok:
        return
    again = store(context, slot, made)
    if again.is_ok:
        destroy(context, slot, again.value)
    context.module.C_Logout(slot.session)
    if not again.is_ok:
        check.not_tested(f"the certificate is refused after a login, too: {again.name}")


@scenario(
    "certificates",
    "Store certificates, find them in every way that NSS has, rename and remove them",
    rules=("O6", "O7", "O8", "O15", "O18", "O21", "N12", "N13", "N16", "P19", "P20", "P32"),
    needs=("write",),
)
def certificates(context: Context) -> None:
    nss, module = context.nss(), context.module
    slot = context.ready()
    made = material.certificate("one")
    with context.step("certutil -A"):
        handle = _store_without_key(context, slot, made)
    with context.step("certutil -L"):
        _read_back(context, slot, handle, made)
        _find(context, slot, handle, made)
    with context.step("a second certificate of the same key"):
        _several(context, slot, made)
    with context.step("certutil --rename"):
        _rename(context, slot, handle)
    with context.step("certutil -D"), context.checking("O15") as check:
        session = nss.open_rw(slot)
        check.expect_rv(module.C_DestroyObject(session, handle), CKR.OK)
        nss.close(slot, session)
        check.expect(not by_issuer_and_serial(nss, slot, made), "the certificate is still found after C_DestroyObject")
        again = module.C_GetAttributeValue(slot.session, handle, [(CKA.VALUE, None)])
        check.expect(not again.is_ok, "a destroyed certificate can still be read by its handle", again)


def _store_without_key(context: Context, slot: NssSlot, made: Certificate) -> int:
    """A certificate whose key is elsewhere; the handle. One that is refused with its key, too, fails only rule O8."""
    with context.checking("O8") as check, context.checking("O7") as keyless, context.checking("P19") as pitfall:
        reply = store(context, slot, made)
        if reply.rv in READ_ONLY_ANSWERS and slot.read_only:
            context.give_up("the token is write-protected")
        if not reply.is_ok:
            refused, reply = reply, _store_with_key(context, slot, made)
            if not reply.is_ok:
                check.expect_rv(refused, CKR.OK, because="to a certificate with NSS's nine attributes")
                context.give_up("the token stores no certificate")
            for each in (keyless, pitfall):
                each.expect_rv(refused, CKR.OK, because="to a certificate whose key is not on the token")
    return reply.value


def _store_with_key(context: Context, slot: NssSlot, made: Certificate) -> Reply[int]:
    session = context.nss().open_rw(slot)
    for template in (material.private_key_template(made.key), material.public_key_template(made.key)):
        context.module.C_CreateObject(session, template)
    context.nss().close(slot, session)
    return store(context, slot, made)


def _read_back(context: Context, slot: NssSlot, handle: int, made: Certificate) -> None:
    nss, module = context.nss(), context.module
    with context.checking("N13") as check:
        sized = module.C_GetAttributeValue(slot.session, handle, [(attribute, None) for attribute in SIX])
        values = nss.read(slot.session, handle, *SIX)
        wanted = {CKA.VALUE: made.value, CKA.ISSUER: made.subject, CKA.SUBJECT: made.subject, CKA.ID: made.id}
        for attribute, value in wanted.items():
            name = {CKA.VALUE: "CKA_VALUE", CKA.ISSUER: "CKA_ISSUER", CKA.SUBJECT: "CKA_SUBJECT", CKA.ID: "CKA_ID"}
            check.expect(values[attribute] == value, f"{name[attribute]} is not what was stored", sized)
        serial = values[CKA.SERIAL_NUMBER]
        check.expect(serial == made.der_serial, "CKA_SERIAL_NUMBER is not what was stored", sized)
    with context.checking("O6") as check:
        other = nss.open_ro(slot)
        token = nss.read_flag(other, handle, CKA.TOKEN)
        read = module.C_GetAttributeValue(other, handle, [(CKA.TOKEN, 1)])
        check.expect(token, "CKA_TOKEN of a stored certificate is not TRUE: NSS drops the object", read)
        nss.close(slot, other)
    with context.checking("O8") as check:
        read = module.C_GetAttributeValue(slot.session, handle, [(CKA.PRIVATE, 1)])
        check.expect(read.is_ok and read.value[0][2] == b"\0", "a certificate without CKA_PRIVATE became private", read)


def _find(context: Context, slot: NssSlot, handle: int, made: Certificate) -> None:
    nss, module = context.nss(), context.module
    with context.checking("O21") as check, context.checking("N12") as mail:
        found = by_issuer_and_serial(nss, slot, made) or by_issuer_and_serial(nss, slot, made, raw=True)
        last = module.C_FindObjectsInit(slot.session, [TOKEN, CERTIFICATE, (CKA.VALUE, made.value)])
        module.C_FindObjectsFinal(slot.session)
        for each in (check, mail):
            each.expect(found == [handle], "a certificate is not found by issuer and serial number", last)
    with context.checking("O6") as check:
        ways: dict[str, Template] = {
            "CKA_VALUE": [(CKA.VALUE, made.value), CERTIFICATE],
            "CKA_SUBJECT": [TOKEN, CERTIFICATE, (CKA.SUBJECT, made.subject)],
            "CKA_ID": [TOKEN, (CKA.ID, made.id), CERTIFICATE],
        }
        for name, template in ways.items():
            reply, handles = nss.search(slot.session, template, 16)
            check.expect(handles == [handle], f"a certificate is not found by {name}", reply)
        reply, handles = nss.search(slot.session, [(CKA.LABEL, LABEL), TOKEN, CERTIFICATE], 16)
        check.expect(handle in handles, "a certificate is not found by CKA_LABEL", reply)
        strange = material.certificate("never stored")
        reply, handles = nss.search(slot.session, [TOKEN, CERTIFICATE, (CKA.SUBJECT, strange.subject)], 16)
        check.expect(not handles, "a search by an unknown subject finds something", reply)


def _several(context: Context, slot: NssSlot, made: Certificate) -> None:
    """Two certificates of one key (N16), under the label of the first (P32): NSS's own doing when one is renewed."""
    nss = context.nss()
    renewed = material.renewed(made)
    with context.checking("N16") as check, context.checking("P32") as labels:
        reply = store(context, slot, renewed)
        if not reply.is_ok:
            # Which of the two it is that cannot be shared.
            refused, reply = reply, store(context, slot, renewed, f"{LABEL}, renewed")
            saw = f"a renewed certificate with the CKA_LABEL and CKA_SUBJECT of the old one gets {refused.name}"
            labels.expect(not reply.is_ok, saw, refused)
        check.expect_rv(reply, CKR.OK, because="to a second certificate with the same CKA_ID")
        searched, handles = nss.search(slot.session, [TOKEN, (CKA.ID, made.id), CERTIFICATE], 16)
        check.expect(len(handles) == 2, f"{len(handles)} of two certificates with one CKA_ID are found", searched)
        if reply.is_ok:
            destroy(context, slot, reply.value)
    with context.checking("P32") as labels:
        other = store(context, slot, material.certificate("of another subject"))
        if other.is_ok:
            destroy(context, slot, other.value)
        else:
            # So does softoken: NSS knows one subject for each nickname.
            labels.passed(f"a certificate of another subject cannot have a CKA_LABEL that is taken ({other.name})")


def _rename(context: Context, slot: NssSlot, handle: int) -> None:
    nss, module = context.nss(), context.module
    with context.checking("O18") as check, context.checking("P20") as pitfall:
        session = nss.open_rw(slot)
        identifier = b"another identifier, "  # as long as NSS's own, a SHA-1 hash
        for attribute, value in ((CKA.LABEL, f"{LABEL}, renamed"), (CKA.ID, identifier), (CKA.LABEL, LABEL)):
            reply = module.C_SetAttributeValue(session, handle, [(attribute, value)])
            for each in (check, pitfall):
                each.expect_rv(reply, CKR.OK, because="for a certificate in a read-write session")
        nss.close(slot, session)
        label = nss.read_one(slot.session, handle, CKA.LABEL)
        last = module.C_GetAttributeValue(slot.session, handle, [(CKA.LABEL, 64)])
        check.expect(label == LABEL.encode(), "a new CKA_LABEL is not there for another session", last)
        if reply.is_ok:
            now = nss.read_one(slot.session, handle, CKA.ID)
            last = module.C_GetAttributeValue(slot.session, handle, [(CKA.ID, 64)])
            for each in (check, pitfall):
                each.expect(now == identifier, "a new CKA_ID of 20 bytes is not what was set", last)


@scenario(
    "certificates: user",
    "A key with its certificate, before and after a login",
    rules=("O11", "O12", "N14", "N18", "P3", "P7", "P20"),
    needs=("write",),
)
def user_certificate(context: Context) -> None:
    """NSS tells that it is the user's own by its CKA_ID: by the public key before a login, by the private one after."""
    nss, module = context.nss(), context.module
    slot = context.ready()
    made = material.certificate("the user's own")
    session = nss.open_rw(slot)
    with context.step("a key and its certificate"):
        private = module.C_CreateObject(session, material.private_key_template(made.key))
        public = module.C_CreateObject(session, material.public_key_template(made.key))
        if not private.is_ok or not public.is_ok:
            context.give_up("the token takes no keys from outside")
        stored = module.C_CreateObject(session, material.certificate_template(made))
        nss.close(slot, session)
        handle = stored.ok()
    with context.step("key of the certificate"):
        with context.checking("O11") as check, context.checking("N14") as both:
            identifier = nss.read(slot.session, handle, CKA.ID, CKA.CLASS)[CKA.ID]
            reply, found = nss.search(slot.session, [(CKA.ID, identifier or b""), (CKA.CLASS, CKO.PRIVATE_KEY)])
            for each in (check, both):
                each.expect(found == [private.value], "the private key is not found by its certificate's CKA_ID", reply)
            reply, found = nss.search(slot.session, [(CKA.ID, made.id), CERTIFICATE])
            check.expect(found == [handle], "the certificate is not found by its key's CKA_ID", reply)
        with context.checking("O12") as check:
            session = nss.open_rw(slot)
            pair: Template = [(CKA.LABEL, LABEL), (CKA.ID, made.id), (CKA.SUBJECT, made.subject)]
            reply = module.C_SetAttributeValue(session, private.value, pair)
            if not reply.is_ok:
                alone = module.C_SetAttributeValue(session, private.value, pair[:1])
                if alone.is_ok:
                    with context.checking("P20") as fixed:
                        fixed.expect_rv(reply, CKR.OK, because="to label, ID and subject, which NSS sets in one call")
                else:
                    check.expect_rv(alone, CKR.OK, because="to a label for a private key")
            nss.close(slot, session)
            label = nss.read_one(slot.session, private.value, CKA.LABEL)
            read = module.C_GetAttributeValue(slot.session, private.value, [(CKA.LABEL, 64)])
            check.expect(label == LABEL.encode(), "CKA_LABEL of a private key is not what was set", read)
    _before_login(context, slot, made, handle, public.value)
    destroy(context, slot, handle, private.value, public.value)


def _before_login(context: Context, slot: NssSlot, made: Certificate, handle: int, public: int) -> None:
    nss, module = context.nss(), context.module
    with context.step("before the login"):
        if not slot.needs_login:
            context.skip("the token needs no login", "P3", "N18", "P7", applicable=False)
            return
        module.C_Logout(slot.session).ok()
        expect_session(context, slot)
        with context.checking("P3") as check:
            reply, found = nss.search(slot.session, [TOKEN, CERTIFICATE, (CKA.SUBJECT, made.subject)], 16)
            check.expect(found == [handle], "the user's certificate is not seen before a login", reply)
            if found:
                read = module.C_GetAttributeValue(slot.session, handle, [(CKA.ID, 64)])
                same = read.is_ok and read.value[0][2] == made.id
                check.expect(same, "the certificate's CKA_ID is not its key's before a login", read)
        with context.checking("N18") as check:
            reply, found = nss.search(slot.session, [(CKA.ID, made.id), (CKA.CLASS, CKO.PUBLIC_KEY)])
            check.expect(
                found == [public],
                "the public key is not found by the certificate's CKA_ID before a login",
                reply,
            )
        with context.checking("P7") as check:
            if not slot.friendly:
                check.warn(
                    "certificates can be read without a login, but no CKO_PROFILE object says so",
                    reply,
                )
    context.login(slot).must_be(CKR.OK, CKR.USER_ALREADY_LOGGED_IN)


@scenario(
    "certificates: incomplete",
    "A certificate of which only the value is given",
    rules=("P3",),
    needs=("write",),
)
def incomplete(context: Context) -> None:
    """Not NSS's doing but other programs': OpenSC's and the vendors' own leave out what NSS cannot do without."""
    nss, module = context.nss(), context.module
    slot = context.ready()
    made = material.certificate("value alone")
    with context.step("store CKA_VALUE and CKA_SUBJECT alone"), context.checking("P3") as check:
        session = nss.open_rw(slot)
        kind: Template = [CERTIFICATE, TOKEN, (CKA.CERTIFICATE_TYPE, CKC.X_509), (CKA.LABEL, LABEL)]
        template = [*kind, (CKA.SUBJECT, made.subject), (CKA.VALUE, made.value)]
        reply = module.C_CreateObject(session, template)
        nss.close(slot, session)
        if not reply.is_ok:
            check.passed("the token refuses a certificate without issuer, serial number and ID")
            return
        values = nss.read(slot.session, reply.value, CKA.ISSUER, CKA.SERIAL_NUMBER, CKA.ID)
        names = {CKA.ISSUER: "CKA_ISSUER", CKA.SERIAL_NUMBER: "CKA_SERIAL_NUMBER", CKA.ID: "CKA_ID"}
        missing = [names[attribute] for attribute, value in values.items() if not value]
        if missing:
            check.warn(
                f"a certificate is stored without {' and '.join(missing)}, which CKA_VALUE has",
                reply,
                user="A certificate that a program other than NSS stored so is not shown, and not offered to servers.",
            )
        destroy(context, slot, reply.value)
