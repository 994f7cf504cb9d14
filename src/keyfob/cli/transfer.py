"""`keyfob import` and `keyfob export`: keys with their certificates, from and to files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keyfob.cli import files, objects, tables, tokens
from keyfob.cli.errors import Refusal
from keyfob.cli.halves import public_half
from keyfob.cli.key import naming, refuse_taken, uses, working
from keyfob.cli.pins import Secret, pin_option, secret_option
from keyfob.functions.keys import C_WrapKey
from keyfob.functions.objects import C_CreateObject
from keyfob.spec.constants import CKA, CKK, CKM, CKO, CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.token import templates
from keyfob.token.object import FALSE, PRIVATE_KEY, PUBLIC_KEY, SECRET_KEY, TRUE, Object, number, ulong

if TYPE_CHECKING:
    from keyfob.token.session import Session

Attributes = dict[int, bytes]

IMPORT_EPILOG = """\b
Examples:
  keyfob import work mary.p12
  keyfob import work key.pem --name mary --passphrase-file pass.txt
  keyfob import work bundle.pem --not-extractable"""

EXPORT_EPILOG = """\b
Examples:
  keyfob export work mary --out mary.p12
  keyfob export work mary --out mary.key --passphrase-file pass.txt

Only keys made with --extractable, or imported, can leave; and only under a passphrase, unless they were made or
imported with --insensitive."""

SUFFIXES = {".p12": "pkcs12", ".pfx": "pkcs12"}


@click.command(name="import", epilog=IMPORT_EPILOG)
@click.argument("label")
@click.argument("file", type=click.File("rb"))
@click.option("--name", help="The key's label; without it the file's friendly name, or the certificate's common name.")
@click.option(
    "--id", "identifier", metavar="HEX", help="CKA_ID; without it the SHA-1 of the public key, as NSS has it."
)
@click.option("--not-extractable", is_flag=True, help="Never let the key leave the token again.")
@click.option("--insensitive", is_flag=True, help="Let the key leave the token unencrypted, too.")
@secret_option("passphrase", "passphrase of the file")
@pin_option
def import_(
    label: str,
    file: Any,
    name: str | None,
    identifier: str | None,
    not_extractable: bool,
    insensitive: bool,
    passphrase: Secret,
    pin: Secret,
) -> None:
    """Put the private keys and certificates of FILE on the token LABEL.

    FILE is PKCS #12, PKCS #8 or a key as OpenSSL writes it, in PEM or DER, or a PEM file with several of these
    (-: standard input). All of it gets on the token, or nothing.
    """
    from keyfob.cli import formats  # X.509 and key formats: 60 ms

    if not_extractable and insensitive:
        raise click.UsageError("--not-extractable and --insensitive contradict each other")
    found = formats.bundle(file.read(), passphrase.read)
    if not found.keys and not found.certificates:
        raise Refusal(f"{file.name} holds neither key nor certificate")
    if len(found.keys) != 1 and (name is not None or identifier is not None):
        raise click.UsageError(f"--name and --id are for one key, and {file.name} holds {len(found.keys)}")
    protection = {
        CKA.SENSITIVE: FALSE if insensitive else TRUE,
        CKA.EXTRACTABLE: FALSE if not_extractable else TRUE,
    }
    fallback = Path(file.name).stem if file.name not in ("-", "<stdin>") else "imported"
    with tokens.opened(label, pin, writing=True) as session, working("Importing"):
        kept, present = _keep(session, found, name, identifier, protection, fallback)
    for line in kept:
        click.echo(f"Put {line} on {label!r}.")
    for line in present:
        click.echo(f"{label!r} has {line} already.")
    for what, times in found.others.items():
        click.echo(tables.printable(f"keyfob: not imported: {times} {what}{'s' * (times != 1)}"), err=True)


def _keep(
    session: Session, found: Any, name: str | None, identifier: str | None, protection: Attributes, fallback: str
) -> tuple[list[str], list[str]]:
    """Store all of a bundle in one step; gives what was stored, and what was there before."""
    from keyfob.cli import certificates
    from keyfob.mechanisms.pkcs8 import attributes_from_private_key_info

    complete: list[Attributes] = []
    arrivals = certificates.Arrivals(session)
    present: list[str] = []
    for friendly_name, info in found.keys:
        made = _components(attributes_from_private_key_info, info)
        public_info = made[CKA.PUBLIC_KEY_INFO]
        own = objects.search(session, (CKA.CLASS, PRIVATE_KEY), (CKA.PUBLIC_KEY_INFO, public_info))
        if own or public_info in arrivals.keys:
            shown = objects.label_of(own[0]) if own else arrivals.keys[public_info][0]
            present.append(f"the key {shown!r}")
            continue
        label = name or friendly_name or _name_by_certificate(found, public_info) or fallback
        if label in (arrived for arrived, _ in arrivals.keys.values()):
            label = f"{label} #{len(arrivals.keys) + 1}"
        common = dict(naming(label, identifier))
        refuse_taken(session, label, common.get(CKA.ID))
        private = _private_half(made, common, protection)
        complete += [private, public_half(private, common)]
        arrivals.keys[public_info] = (label, private[CKA.ID])
    for friendly_name, der in found.certificates:
        template = arrivals.template(der, suggested=friendly_name)
        if template is None:
            present.append(f"the certificate {certificates.common_name(certificates.load(der))!r}")
        else:
            complete.append(templates.complete(dict(template), templates.CREATE, private_default=False))
    handles = session.token.objects.add(session, *complete)
    kept = [session.token.objects.get(handle) for handle in handles]
    return [_line(one) for one in kept if one.attributes[CKA.CLASS] != PUBLIC_KEY], present


def _line(one: Object) -> str:
    what = objects.key_kind(one) or "certificate"
    return f"{what} {objects.label_of(one)!r}{objects.with_id(one)}"


def _components(read: Any, info: bytes) -> Attributes:
    try:
        made: Attributes = read(info)
    except PKCS11Error as problem:
        raise Refusal(f"the key cannot be put on a token: {problem.reason}") from None
    return made


def _name_by_certificate(found: Any, public_info: bytes) -> str:
    from keyfob.cli import certificates
    from keyfob.token.certificate import attributes_of

    for _, der in found.certificates:
        if attributes_of(der).get(CKA.PUBLIC_KEY_INFO) == public_info:
            return certificates.common_name(certificates.load(der))
    return ""


def _private_half(made: Attributes, common: Attributes, protection: Attributes) -> Attributes:
    """As C_UnwrapKey would make it: it came from outside, so it is neither local nor always sensitive."""
    template = {**common, **protection, **dict(uses(number(made[CKA.KEY_TYPE]), private=True))}
    template |= {CKA.CLASS: PRIVATE_KEY, CKA.TOKEN: TRUE, CKA.PRIVATE: TRUE}
    return templates.complete(template, templates.UNWRAP, made=made, private_default=True)


@click.command(epilog=EXPORT_EPILOG)
@click.argument("label")
@click.argument("name")
@click.option(
    "--format",
    "kind",
    type=click.Choice(("pkcs8", "pkcs12")),
    help="PKCS #8 (the key) or PKCS #12 (with its certificates); without it as the suffix of --out says, else pkcs8.",
)
@click.option("--out", metavar="FILE", help="Write to FILE instead of standard output.")
@click.option("--der", is_flag=True, help="DER instead of PEM (pkcs8).")
@click.option(
    "--plain", is_flag=True, help="Without a passphrase (pkcs8); keys made or imported with --insensitive only."
)
@click.option("--force", is_flag=True, help="Write over FILE where it exists.")
@secret_option("passphrase", "passphrase of the file")
@pin_option
def export(
    label: str,
    name: str,
    kind: str | None,
    out: str | None,
    der: bool,
    plain: bool,
    force: bool,
    passphrase: Secret,
    pin: Secret,
) -> None:
    """Write the private key called NAME (or with this ID) to an encrypted file."""
    from keyfob.cli import certificates, formats

    kind = kind or SUFFIXES.get(Path(out or "").suffix.lower(), "pkcs8")
    if plain and (kind == "pkcs12" or passphrase.given):
        raise click.UsageError("--plain is for PKCS #8 without a passphrase")
    if der or kind == "pkcs12":
        files.refuse_binary_on_terminal(out)
    with tokens.opened(label, pin) as session:
        found = objects.single(session, name, CKO.PRIVATE_KEY)
        _refuse_what_must_stay(found, plain=plain)
        secret = b"" if plain else passphrase.read(new=True)
        if not plain and not secret:
            raise Refusal("the passphrase is empty")
        info = wrapped_out(session, found)
        own = certificates.of_key(session, found)[:1] if kind == "pkcs12" else []
        chain = own + (certificates.chain_of(session, own[0]) if own else [])
    with working("Encrypting"):
        if kind == "pkcs12":
            data = formats.pkcs12_file(objects.label_of(found), info, chain, secret)
        else:
            data = info if plain else formats.encrypted_pkcs8(info, secret)
            if not der:
                data = formats.pem("PRIVATE KEY" if plain else "ENCRYPTED PRIVATE KEY", data)
    files.write(out, data, mode=files.SECRET, force=force)
    if out not in (None, "-"):
        click.echo(f"Wrote {objects.label_of(found)!r} to {out}.")


def _refuse_what_must_stay(found: Object, *, plain: bool) -> None:
    name = objects.label_of(found)
    if not found.is_true(CKA.EXTRACTABLE):
        raise Refusal(
            f"{name!r} was made to stay on this token (it is not extractable), and that cannot be changed;"
            " for a key that can leave, make a new one with --extractable"
        )
    if plain and found.is_true(CKA.SENSITIVE):
        raise Refusal(f"{name!r} is sensitive: it leaves under a passphrase only, so leave out --plain")


def wrapped_out(session: Session, found: Object) -> bytes:
    """The key's PrivateKeyInfo, through C_WrapKey under a key of this moment: the token's own rules decide.

    As NSS does it (section 3.13): CKM_AES_CBC_PAD, in a read-only session too (P15).
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.padding import PKCS7

    value, iv = os.urandom(32), os.urandom(16)
    wrapping = C_CreateObject(
        session,
        [
            (CKA.CLASS, SECRET_KEY),
            (CKA.KEY_TYPE, ulong(CKK.AES)),
            (CKA.TOKEN, FALSE),
            (CKA.PRIVATE, FALSE),
            (CKA.WRAP, TRUE),
            (CKA.VALUE, value),
        ],
    )
    mechanism = (CKM.AES_CBC_PAD, iv)
    try:
        room = C_WrapKey(session, mechanism, wrapping, found.handle, None)
        assert isinstance(room, int)
        wrapped = C_WrapKey(session, mechanism, wrapping, found.handle, room)
    except PKCS11Error as problem:
        if problem.rv == CKR.MECHANISM_INVALID:
            raise Refusal(f"a token of the kind {session.token.kind!r} lets no key out") from None
        raise
    assert isinstance(wrapped, bytes)  # the room is what C_WrapKey itself asked for
    decryptor = Cipher(algorithms.AES(value), modes.CBC(iv)).decryptor()
    unpadder = PKCS7(128).unpadder()
    return unpadder.update(decryptor.update(wrapped) + decryptor.finalize()) + unpadder.finalize()
