"""The checker's own two scenarios: what was on the token before a run with --write, and removing what the run made.

They run in processes of their own, so that what a crashed scenario left is removed, too.
"""

from __future__ import annotations

import hashlib

from keyfob.nss.client import Nss, NssSlot
from keyfob.nss.context import Context
from keyfob.nss.driver import CallFailed, encoded
from keyfob.nss.driver.values import LONGEST, number_text, value_text
from keyfob.nss.options import LABEL
from keyfob.nss.scenario import scenario
from keyfob.spec.constants import CKA, CKO, CKR

CLASSES = (CKO.CERTIFICATE, CKO.PUBLIC_KEY, CKO.PRIVATE_KEY, CKO.SECRET_KEY, CKO.DATA, CKO.TRUST, CKO.NSS_TRUST)
IDENTITY = (CKA.LABEL, CKA.ID, CKA.SERIAL_NUMBER, CKA.MODULUS, CKA.EC_POINT)


def _logged_in(context: Context) -> NssSlot:
    slot = context.slot()
    if slot.needs_login and slot.pin_initialized:
        context.login(slot).must_be(CKR.OK, CKR.USER_ALREADY_LOGGED_IN)
    return slot


def listing(nss: Nss, slot: NssSlot) -> list[str]:
    """Every token object by class, label and what names it; no secret is read."""
    found = []
    for object_class in CLASSES:
        try:
            handles = nss.find_objects(slot, [(CKA.TOKEN, True), (CKA.CLASS, object_class)])
        except CallFailed:
            continue
        for handle in handles:
            values = {attribute: nss.read_one(slot.session, handle, attribute) for attribute in IDENTITY}
            digest = hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:16]
            label = values[CKA.LABEL] or b""
            shown = value_text(CKA.LABEL, label[:LONGEST]) if label else "without a label"
            found.append(f"{number_text('CKO', object_class)} {shown} [{digest}]")
    return sorted(found)


@scenario("inventory", "What is on the token before the run", rules=())
def inventory(context: Context) -> None:
    slot = _logged_in(context)
    context.fact("objects before", listing(context.nss(), slot))


@scenario("clean up", "Remove what the run made", rules=())
def clean_up(context: Context) -> None:
    """Destroys what the scenarios told of (driver/footprints.py) and everything under the checker's own label.

    The label is the checker's alone: what an earlier run left behind goes, too.
    """
    slot = _logged_in(context)
    nss = context.nss()
    templates = [[(attribute, bytes.fromhex(value)) for attribute, value in made] for made in context.options.made]
    templates.append([(CKA.LABEL, encoded(LABEL))])
    removed = 0
    session = nss.open_rw(slot)
    for template in templates:
        for handle in nss.find_all(session, [(CKA.TOKEN, True), *template]):
            removed += context.module.C_DestroyObject(session, handle).is_ok
    nss.close(slot, session)
    before = context.options.before
    left = listing(nss, slot)
    for known in before or ():
        if known in left:
            left.remove(known)
    context.fact("removed", removed)
    context.fact("left behind", left if before is not None else [])
