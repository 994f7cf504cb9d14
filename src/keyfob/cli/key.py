"""`keyfob key`: keys made on the token."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from keyfob.cli import objects, tokens
from keyfob.cli.errors import Refusal
from keyfob.cli.pins import Secret, pin_option
from keyfob.functions.keys import C_GenerateKey, C_GenerateKeyPair
from keyfob.mechanisms.der import object_identifier
from keyfob.spec.constants import CKA, CKK, CKM
from keyfob.token.object import FALSE, TRUE, ulong
from keyfob.token.templates import USAGES

if TYPE_CHECKING:
    from collections.abc import Generator

    from keyfob.token.session import Session

Template = list[tuple[int, bytes]]

# --type: the mechanism that makes it, and what its template needs.
RSA_TYPES = {f"rsa:{bits}": bits for bits in (2048, 3072, 4096)}
CURVE_TYPES = {
    "ec:p256": (CKM.EC_KEY_PAIR_GEN, CKK.EC, "1.2.840.10045.3.1.7"),
    "ec:p384": (CKM.EC_KEY_PAIR_GEN, CKK.EC, "1.3.132.0.34"),
    "ec:p521": (CKM.EC_KEY_PAIR_GEN, CKK.EC, "1.3.132.0.35"),
    "ec:secp256k1": (CKM.EC_KEY_PAIR_GEN, CKK.EC, "1.3.132.0.10"),
    "ed25519": (CKM.EC_EDWARDS_KEY_PAIR_GEN, CKK.EC_EDWARDS, "1.3.101.112"),
    "x25519": (CKM.EC_MONTGOMERY_KEY_PAIR_GEN, CKK.EC_MONTGOMERY, "1.3.101.110"),
}
AES_TYPES = {f"aes:{bits}": bits for bits in (128, 256)}
TYPES = (*RSA_TYPES, *CURVE_TYPES, *AES_TYPES)

# What keys are for, (private, public) by type. Left out, every use would be allowed, even those that make no sense.
USES = {
    CKK.RSA: (
        (CKA.SIGN, CKA.SIGN_RECOVER, CKA.DECRYPT, CKA.UNWRAP),
        (CKA.VERIFY, CKA.VERIFY_RECOVER, CKA.ENCRYPT, CKA.WRAP),
    ),
    CKK.EC: ((CKA.SIGN, CKA.DERIVE), (CKA.VERIFY, CKA.DERIVE)),
    CKK.EC_EDWARDS: ((CKA.SIGN,), (CKA.VERIFY,)),
    CKK.EC_MONTGOMERY: ((CKA.DERIVE,), (CKA.DERIVE,)),
}

EPILOG = """\b
Examples:
  keyfob key generate work --type rsa:3072 --name mail
  keyfob key generate work --type ec:p256 --name login --pin-file pin.txt
  keyfob key generate work --type ed25519 --name ca --extractable

A key made here stays here: it can be used, never read. With --extractable it can leave, encrypted (`keyfob export`)."""


@click.group()
def key() -> None:
    """Make keys."""


@key.command(epilog=EPILOG)
@click.argument("label")
@click.option("--type", "kind", metavar="TYPE", type=click.Choice(TYPES), required=True, help=", ".join(TYPES) + ".")
@click.option("--name", required=True, help="The key's label, by which programs show it.")
@click.option(
    "--id", "identifier", metavar="HEX", help="CKA_ID; without it the SHA-1 of the public key, as NSS has it."
)
@click.option("--extractable", is_flag=True, help="Let the key leave the token later, encrypted.")
@click.option("--insensitive", is_flag=True, help="With --extractable: let it leave unencrypted, too.")
@pin_option
def generate(
    label: str, kind: str, name: str, identifier: str | None, extractable: bool, insensitive: bool, pin: Secret
) -> None:
    """Make a key, or a key pair, on the token LABEL."""
    if insensitive and not extractable:
        raise click.UsageError("--insensitive needs --extractable")
    common = naming(name, identifier)
    protection: Template = [
        (CKA.TOKEN, TRUE),
        (CKA.PRIVATE, TRUE),
        (CKA.SENSITIVE, FALSE if insensitive else TRUE),
        (CKA.EXTRACTABLE, TRUE if extractable else FALSE),
    ]
    with tokens.opened(label, pin, writing=True) as session:
        refuse_taken(session, name, dict(common).get(CKA.ID))
        with working(f"Making {kind}"):
            handle = make(session, kind, common, protection)
        made = session.token.objects.get(handle)
        click.echo(f"Made the {kind} key {name!r}{objects.with_id(made)} on {tokens.label_of(session.token)!r}.")


def naming(name: str, identifier: str | None) -> Template:
    """CKA_LABEL and CKA_ID as asked for."""
    template = [(CKA.LABEL, name.encode())]
    if identifier is not None:
        value = objects.from_hex(identifier)
        if not value:
            raise click.UsageError(f"--id: {identifier!r} is not hex digits, two for each byte")
        template.append((CKA.ID, value))
    return template


def refuse_taken(session: Session, name: str, identifier: bytes | None) -> None:
    """A second key of the same name or ID would make both ambiguous, here and for NSS, which links by CKA_ID."""
    for attribute, value, what in ((CKA.LABEL, name.encode(), "called"), (CKA.ID, identifier, "with the ID")):
        if value and any(objects.class_of(hit) in objects.KEYS for hit in objects.search(session, (attribute, value))):
            shown = name if attribute == CKA.LABEL else value.hex()
            raise Refusal(f"{tokens.label_of(session.token)!r} has a key {what} {shown!r} already: choose another")


def make(session: Session, kind: str, common: Template, protection: Template) -> int:
    """The handle of the new private or secret key."""
    if kind in AES_TYPES:
        return C_GenerateKey(
            session, (CKM.AES_KEY_GEN, None), [*common, *protection, (CKA.VALUE_LEN, ulong(AES_TYPES[kind] // 8))]
        )
    public: Template = [*common, (CKA.TOKEN, TRUE), (CKA.PRIVATE, FALSE)]
    if kind in RSA_TYPES:
        mechanism, key_type = CKM.RSA_PKCS_KEY_PAIR_GEN, CKK.RSA
        public += [(CKA.MODULUS_BITS, ulong(RSA_TYPES[kind])), (CKA.PUBLIC_EXPONENT, b"\x01\x00\x01")]
    else:
        mechanism, key_type, curve = CURVE_TYPES[kind]
        public.append((CKA.EC_PARAMS, object_identifier(curve)))
    private = [*common, *protection, *uses(key_type, private=True)]
    return C_GenerateKeyPair(session, (mechanism, None), [*public, *uses(key_type, private=False)], private)[1]


def uses(key_type: int, *, private: bool) -> Template:
    """Every usage attribute of one half of a key pair."""
    sensible = USES[key_type][0 if private else 1]
    return [(usage, TRUE if usage in sensible else FALSE) for usage in USAGES]


@contextlib.contextmanager
def working(what: str) -> Generator[None]:
    """Show on a terminal that work goes on: large RSA keys take seconds."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # 100 ms of imports that only a terminal needs

    with Console(stderr=True).status(f"{what} ..."):
        yield
