"""What belongs to a private key, so that NSS sees its certificate (P3): a public key object, and one CKA_ID for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyfob.cli import objects
from keyfob.cli.key import uses
from keyfob.functions.objects import C_SetAttributeValue
from keyfob.spec.constants import CKA, CKK
from keyfob.token import templates
from keyfob.token.object import CERTIFICATE, PRIVATE_KEY, PUBLIC_KEY, TRUE, Object, number, ulong

if TYPE_CHECKING:
    from keyfob.token.session import Session

Attributes = dict[int, bytes]


def public_half(private: Attributes, common: Attributes) -> Attributes:
    """The public key object that belongs to a private one: NSS looks for it before login (P3)."""
    key_type = number(private[CKA.KEY_TYPE])
    template = {**common, CKA.ID: private[CKA.ID], **dict(uses(key_type, private=False))}
    template |= {CKA.CLASS: PUBLIC_KEY, CKA.KEY_TYPE: ulong(key_type), CKA.TOKEN: TRUE}
    if key_type == CKK.RSA:
        template |= {attribute: private[attribute] for attribute in (CKA.MODULUS, CKA.PUBLIC_EXPONENT)}
    else:
        from keyfob.mechanisms import load_key

        template |= {CKA.EC_PARAMS: private[CKA.EC_PARAMS], CKA.EC_POINT: load_key(private).public_value() or b""}
    return templates.complete(template, templates.CREATE, private_default=False)


def put_right(session: Session, info: bytes, der: bytes) -> list[str]:
    """Give the certificate `der` and the public key the ID of the private key, and make that where there is none.

    `info` is the public key as CKA_PUBLIC_KEY_INFO has it. Gives what was done. Nothing is done without the private
    key, which only a login shows.
    """
    owners = objects.search(session, (CKA.CLASS, PRIVATE_KEY), (CKA.PUBLIC_KEY_INFO, info))
    if not owners:
        return []
    private = owners[0].attributes
    public = objects.search(session, (CKA.CLASS, PUBLIC_KEY), (CKA.PUBLIC_KEY_INFO, info))
    certificates = objects.search(session, (CKA.CLASS, CERTIFICATE), (CKA.VALUE, der))
    done = []
    for one in (*public, *certificates):
        if one.attributes.get(CKA.ID) != private[CKA.ID]:
            C_SetAttributeValue(session, one.handle, [(CKA.ID, private[CKA.ID])])
            done.append(f"Gave {_what(one)} {objects.label_of(one)!r} the ID of its private key{_id(owners[0])}.")
    if not public:
        common = {CKA.LABEL: private[CKA.LABEL]} if private.get(CKA.LABEL) else {}
        session.token.objects.add(session, public_half(private, common))
        done.append(f"Put the public key of {objects.label_of(owners[0])!r}{_id(owners[0])} beside it.")
    return done


def _what(one: Object) -> str:
    return "the certificate" if one.attributes[CKA.CLASS] == CERTIFICATE else "the public key"


def _id(one: Object) -> str:
    return objects.with_id(one)
