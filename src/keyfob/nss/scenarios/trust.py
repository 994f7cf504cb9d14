"""Trust: NSS writes a new trust object at every change, to the token that has the certificate, and reads the first."""

from __future__ import annotations

from dataclasses import dataclass

from keyfob.nss import material
from keyfob.nss.client import NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import Reply, Template
from keyfob.nss.material import Certificate
from keyfob.nss.scenario import scenario
from keyfob.nss.scenarios.certificates import store
from keyfob.nss.scenarios.transfer import created, removing
from keyfob.spec.constants import CKA, CKO, CKR, CKT
from keyfob.spec.errors import name_of

TOKEN = (CKA.TOKEN, True)
CLEAN = (CKR.ATTRIBUTE_VALUE_INVALID, CKR.TEMPLATE_INCONSISTENT)
"""What a token that keeps no trust says so with (P16)."""
CLASSES = (CKO.TRUST, CKO.NSS_TRUST)
"""In the order in which NSS looks for them; 3.87 knows only the second."""


@dataclass(frozen=True, slots=True)
class Form:
    """One of the two classes of trust objects: what NSS writes first and then, and what it reads (3.16)."""

    object_class: int
    server_auth: int
    others: tuple[int, ...]
    values: tuple[int, int]

    @property
    def name(self) -> str:
        return name_of("CKO", self.object_class)

    def template(self, made: Certificate, value: int) -> Template:
        make = material.trust_template if self.object_class == CKO.TRUST else material.nss_trust_template
        return make(made, value)


STANDARD = Form(
    CKO.TRUST,
    CKA.TRUST_SERVER_AUTH,
    (
        *(CKA.TRUST_CLIENT_AUTH, CKA.TRUST_EMAIL_PROTECTION, CKA.TRUST_CODE_SIGNING),
        *(CKA.HASH_OF_CERTIFICATE, CKA.NAME_HASH_ALGORITHM),
    ),
    (CKT.TRUST_ANCHOR, CKT.NOT_TRUSTED),
)
NSS = Form(
    CKO.NSS_TRUST,
    CKA.NSS_TRUST_SERVER_AUTH,
    (
        *(CKA.NSS_TRUST_CLIENT_AUTH, CKA.NSS_TRUST_EMAIL_PROTECTION, CKA.NSS_TRUST_CODE_SIGNING),
        *(CKA.NSS_TRUST_STEP_UP_APPROVED, CKA.NSS_CERT_SHA1_HASH),
    ),
    (CKT.NSS_TRUSTED_DELEGATOR, CKT.NSS_NOT_TRUSTED),
)


@scenario("trust", "Trust a certificate on the token, and trust it no more", rules=("P16",), needs=("write",))
def trust(context: Context) -> None:
    slot = context.ready()
    if slot.read_only:
        # p3h:1167 moves certificate and trust to another token.
        context.skip("the token is write-protected: NSS keeps trust elsewhere", "P16", applicable=False)
        return
    # dtok:979: the list's version decides; older versions, and NSS_TRUST_TYPE=NSS, know only their own class.
    forms = (STANDARD, NSS) if context.module.version >= (3, 2) else (NSS,)
    for form in forms:
        made = material.certificate(f"trusted as {form.name}")
        with removing(context, slot) as handles:
            stored = store(context, slot, made)
            if not stored.is_ok:
                context.skip("the token stores no certificate: NSS brings it no trust", "P16", applicable=False)
                return
            handles.append(stored.value)
            with context.step(f"certutil -M, {form.name}"), context.checking("P16") as check:
                _change(context, slot, made, form, forms[0] is form, handles, check)


def _change(
    context: Context, slot: NssSlot, made: Certificate, form: Form, newest: bool, handles: list[int], check: Check
) -> None:
    nss = context.nss()
    with check.setup("look for trust objects"):
        for object_class in CLASSES:
            nss.find(slot.session, _search(object_class, made))
    for turn, value in enumerate(form.values):
        reply = created(context, slot, form.template(made, value))
        if not reply.is_ok:
            _refused(reply, form, newest, turn, check)
            return
        if reply.value not in handles:
            handles.append(reply.value)
        nss.read(slot.session, reply.value, CKA.TOKEN, CKA.LABEL)
        _expect(context, slot, made, form, value, turn, handles, check)


def _search(object_class: int, made: Certificate) -> Template:
    return [
        *(TOKEN, (CKA.CLASS, object_class)),
        *((CKA.ISSUER, made.subject), (CKA.SERIAL_NUMBER, made.der_serial)),
    ]


def _refused(reply: Reply[int], form: Form, newest: bool, turn: int, check: Check) -> None:
    """NSS then copies certificate and trust into its own database, whatever the error; a locked one it cannot write."""
    if turn:
        check.expect_rv(reply, CKR.OK, because=f"to the second {form.name} of a certificate, whose trust changes")
        return
    odd = "" if reply.rv in CLEAN else ", and that is not how a token says that it keeps no trust"
    saw = f"C_CreateObject answered {reply.name} to a {form.name} for a certificate that it stores{odd}"
    say = check.fail if newest else check.warn
    say(
        saw,
        reply,
        nss=(
            "NSS brings trust to the token that has the certificate. Whatever the error, it then copies both into "
            "its own database; if that is locked, it fails (SEC_ERROR_TOKEN_NOT_LOGGED_IN)."
            f"{'' if newest else ' Only NSS before 3.114 brings this class to modules of PKCS #11 3.2.'}"
        ),
        expects="CKR_OK: whoever stores certificates is asked to keep their trust, too.",
        user=(
            'With a password on NSS\'s own database "Edit trust" and certutil -M -t fail until it is unlocked; '
            "then the certificate is there twice."
        ),
    )


def _expect(
    context: Context,
    slot: NssSlot,
    made: Certificate,
    form: Form,
    value: int,
    turn: int,
    handles: list[int],
    check: Check,
) -> None:
    """The first hit is what NSS believes; there should be no other."""
    nss, module = context.nss(), context.module
    searched, found = nss.search(slot.session, _search(form.object_class, made))
    if not check.expect(found, f"a {form.name} is not found by issuer and serial number", searched):
        return
    attributes = (CKA.TOKEN, form.server_auth, *form.others)
    values = nss.read(slot.session, found[0], *attributes)
    read = module.C_GetAttributeValue(slot.session, found[0], [(attribute, 64) for attribute in attributes])
    given = dict(form.template(made, value))
    when = "after it was changed" if turn else "as it was written"
    expected = values[form.server_auth] == material.ulong(value)
    saw = f"{name_of('CKA', form.server_auth)} is not read {when}: the trust that NSS finds is another"
    check.expect(expected, saw, searched, read)
    for attribute in form.others:
        data = given[attribute]
        wanted = bytes([data]) if isinstance(data, bool) else material.ulong(data) if isinstance(data, int) else data
        check.expect(values[attribute] == wanted, f"{name_of('CKA', attribute)} is not read {when}", read)
    everything, hits = nss.search(slot.session, _search(form.object_class, made), 16)
    handles += [handle for handle in hits if handle not in handles]
    if len(hits) > 1 and expected:
        check.fail(f"{len(hits)} objects of {form.name} are kept for one certificate", everything)
