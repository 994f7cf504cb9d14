"""`keyfob cert`: certificates on the token, and certificates and requests signed by its keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keyfob.cli import files, objects, tokens
from keyfob.cli.errors import Refusal
from keyfob.cli.pins import Secret, pin_option
from keyfob.functions.objects import C_CreateObject
from keyfob.spec.constants import CKA, CKO

if TYPE_CHECKING:
    from collections.abc import Callable

PURPOSES = ("server", "client", "email", "code")
DAY_LIMIT = 36_525

subject_option = click.option("--subject", required=True, metavar="NAME", help='For example "CN=Mary,O=Example,C=CH".')
days_option = click.option(
    "--days", type=click.IntRange(1, DAY_LIMIT), default=365, show_default=True, help="How long it is valid."
)
authority_option = click.option("--ca", "authority", is_flag=True, help="Let it sign other certificates.")
purpose_option = click.option(
    "--for", "purposes", multiple=True, type=click.Choice(PURPOSES), help="What it is good for (may be repeated)."
)
out_option = click.option("--out", metavar="FILE", help="Write to FILE instead of standard output.")
force_option = click.option("--force", is_flag=True, help="Write over FILE where it exists.")
der_option = click.option("--der", is_flag=True, help="DER instead of PEM.")


def alternatives_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for name, what in (("--email", "e-mail address"), ("--ip", "IP address"), ("--dns", "host name")):
        function = click.option(name, multiple=True, metavar="NAME", help=f"An {what} it holds for.")(function)
    return function


@click.group()
def cert() -> None:
    """Import, export, request and sign certificates."""


@cert.command(
    name="import",
    epilog="\b\nExamples:\n  keyfob cert import work mary.pem\n  keyfob cert import work ca.der --name ca",
)
@click.argument("label")
@click.argument("file", type=click.File("rb"))
@click.option("--name", help="Its label; without it the label of its key, or its common name.")
@pin_option
def import_(label: str, file: Any, name: str | None, pin: Secret) -> None:
    """Put the certificates of FILE (PEM or DER, -: standard input) on the token LABEL.

    Certificates are public, so the PIN is not needed. A certificate gets the ID of its key: so programs find both.
    With the PIN one that is there already gets it too, and a private key without a public one gets that.
    """
    from keyfob.cli import certificates, formats, halves  # X.509 and key formats: 60 ms
    from keyfob.token.certificate import attributes_of

    found = formats.certificates(file.read())
    if not found:
        raise Refusal(f"{file.name} holds no certificate, neither PEM nor DER")
    if name is not None and len(found) > 1:
        raise click.UsageError(f"--name is for one certificate, and {file.name} holds {len(found)}")
    with tokens.opened(label, pin, writing=True, ask=False) as session:
        arrivals = certificates.Arrivals(session)
        for der in found:
            template = arrivals.template(der, name=name)
            if template is None:
                click.echo(f"{label!r} has {certificates.common_name(certificates.load(der))!r} already.")
            else:
                made = session.token.objects.get(C_CreateObject(session, template))
                click.echo(f"Put {objects.label_of(made)!r}{objects.with_id(made)} on {label!r}.")
            for line in halves.put_right(session, attributes_of(der)[CKA.PUBLIC_KEY_INFO], der):
                click.echo(line)


@cert.command(epilog="\b\nExample:\n  keyfob cert export work mary --out mary.pem")
@click.argument("label")
@click.argument("name")
@out_option
@der_option
@force_option
def export(label: str, name: str, out: str | None, der: bool, force: bool) -> None:
    """Write the certificate called NAME (or with this ID); of several the one that is valid longest."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from keyfob.cli import certificates

    if der:
        files.refuse_binary_on_terminal(out)
    with tokens.opened(label, None) as session:
        hits = objects.named(session, name, CKO.CERTIFICATE)
        found = [certificates.load(hit.attributes[CKA.VALUE]) for hit in hits]
    if len({certificate.subject for certificate in found}) > 1:
        ids = ", ".join(objects.id_of(hit) for hit in hits)
        raise Refusal(f"{len(hits)} certificates are called {name!r}: give the ID of one instead, {ids}")
    longest = max(found, key=lambda certificate: certificate.not_valid_after_utc)
    files.write(out, longest.public_bytes(Encoding.DER if der else Encoding.PEM), force=force)


@cert.command(
    epilog='\b\nExample:\n  keyfob cert request work mail --subject "CN=Mary" --email mary@example.org --out mary.csr'
)
@click.argument("label")
@click.argument("keyname")
@subject_option
@alternatives_options
@out_option
@der_option
@force_option
@pin_option
def request(
    label: str,
    keyname: str,
    subject: str,
    dns: tuple[str, ...],
    ip: tuple[str, ...],
    email: tuple[str, ...],
    out: str | None,
    der: bool,
    force: bool,
    pin: Secret,
) -> None:
    """Make a request (PKCS #10) for a certificate of the key KEYNAME, to send to an authority."""
    from keyfob.cli import formats, issuing, token_key

    name, alternatives = issuing.subject_name(subject), issuing.alternative_names(dns, ip, email)
    if der:
        files.refuse_binary_on_terminal(out)
    with token_key.signing(label, keyname, pin) as key:
        made = issuing.request(key, name, alternatives)
    files.write(out, made if der else formats.pem("CERTIFICATE REQUEST", made), force=force)


@cert.command(
    name="self-sign",
    epilog='\b\nExamples:\n  keyfob cert self-sign work ca --subject "CN=Our CA" --ca --days 3650\n'
    '  keyfob cert self-sign work web --subject "CN=localhost" --dns localhost --for server',
)
@click.argument("label")
@click.argument("keyname")
@subject_option
@alternatives_options
@authority_option
@purpose_option
@days_option
@click.option("--out", metavar="FILE", help="Write it to FILE, too (PEM; -: standard output).")
@force_option
@pin_option
def self_sign(
    label: str,
    keyname: str,
    subject: str,
    dns: tuple[str, ...],
    ip: tuple[str, ...],
    email: tuple[str, ...],
    authority: bool,
    purposes: tuple[str, ...],
    days: int,
    out: str | None,
    force: bool,
    pin: Secret,
) -> None:
    """Make a certificate of the key KEYNAME, signed by itself, and put it on the token."""
    from keyfob.cli import certificates, formats, issuing, token_key

    name, alternatives = issuing.subject_name(subject), issuing.alternative_names(dns, ip, email)
    with token_key.signing(label, keyname, pin, writing=True) as key:
        made = issuing.self_signed(key, name, alternatives, days=days, authority=authority, purposes=purposes)
        if out is not None:
            files.write(out, formats.pem("CERTIFICATE", made), force=force)
        template = certificates.Arrivals(key.session).template(made)
        assert template is not None  # no token has a certificate with this new serial number
        kept = key.session.token.objects.get(C_CreateObject(key.session, template))
    click.echo(f"Put the certificate {objects.label_of(kept)!r}{objects.with_id(kept)} on {label!r}.", err=out == "-")


@cert.command(
    epilog="\b\nExample:\n  keyfob cert sign work ca mary.csr --for email --for client --out mary.pem\n"
    "  keyfob cert import work mary.pem"
)
@click.argument("label")
@click.argument("caname")
@click.argument("file", type=click.File("rb"))
@authority_option
@purpose_option
@days_option
@out_option
@der_option
@force_option
@pin_option
def sign(
    label: str,
    caname: str,
    file: Any,
    authority: bool,
    purposes: tuple[str, ...],
    days: int,
    out: str | None,
    der: bool,
    force: bool,
    pin: Secret,
) -> None:
    """Sign the request in FILE with the certificate and key CANAME of the token LABEL.

    Subject, public key and alternative names come from the request: look at them first (openssl req -text). Everything
    else is said here.
    """
    from keyfob.cli import formats, issuing, token_key

    asked = issuing.checked_request(file.read())
    if der:
        files.refuse_binary_on_terminal(out)
    with token_key.signing(label, caname, pin) as key:
        issuer = issuing.authority_of(key)
        made = issuing.issued(key, issuer, asked, days=days, authority=authority, purposes=purposes)
    files.write(out, made if der else formats.pem("CERTIFICATE", made), force=force)
