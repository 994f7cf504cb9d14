"""`keyfob list`: the tokens, or the objects of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from keyfob.cli import objects, tables, tokens
from keyfob.cli.pins import Secret, pin_option
from keyfob.spec.constants import CKA, CKO
from keyfob.store.pepper import SETTING
from keyfob.token.certificate import attributes_of

if TYPE_CHECKING:
    from keyfob.store import TokenInfo
    from keyfob.token.object import Object
    from keyfob.token.token import Token

EPILOG = """\b
Examples:
  keyfob list                          the tokens
  keyfob list work                     what anybody may see of one
  keyfob list work --pin-file pin.txt  its private objects too
  keyfob list work --login             the same, asking for the PIN"""


@click.command(name="list", epilog=EPILOG)
@click.argument("label", required=False)
@pin_option
@click.option("--login", is_flag=True, help="Ask for the PIN, to see private objects.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def list_(label: str | None, pin: Secret, login: bool, as_json: bool) -> None:
    """List the tokens, or the objects of the token LABEL.

    Private objects (the private keys among them) are seen with the PIN only.
    """
    if label is None:
        _list_tokens(as_json=as_json)
    else:
        _list_objects(label, pin, login=login, as_json=as_json)


def _list_tokens(*, as_json: bool) -> None:
    with tokens.library() as library:
        rows = [_token_row(token) for token in tokens.stored(library)]
        damaged = tokens.broken(library)
        absent: list[dict[str, Any]] = [
            {"slot": each.slot_id, "folder": each.registration.folder, "ejected": each.registration.ejected}
            for each in library.removables()
            if each.absent
        ]
    if as_json:
        tables.show_json(
            {
                "tokens": rows,
                "absent": absent,
                "damaged": [{"slot": slot_id, "reason": reason} for slot_id, reason in damaged.items()],
            }
        )
        return
    if rows:
        heads = ("SLOT", "LABEL", "KIND", "PIN", "SO PIN", "PUBLIC OBJECTS", "SERIAL", "FLAGS")
        tables.show(
            heads,
            [
                (
                    str(row["slot"]),
                    row["label"],
                    row["kind"],
                    row["pin"],
                    row["so_pin"],
                    str(row["public_objects"]),
                    row["serial"],
                    ", ".join(row["flags"]),
                )
                for row in rows
            ],
        )
    elif not damaged and not absent:
        click.echo(tokens.NO_TOKENS[0].upper() + tokens.NO_TOKENS[1:])
    for each in absent:
        why = "ejected" if each["ejected"] else f"{tables.printable(each['folder'])} is not there"
        click.echo(f"Slot {each['slot']} has no token now: {why}.")
    for row in rows:
        _complain(row["label"], row["problems"])
    for slot_id, reason in damaged.items():
        click.echo(f"keyfob: slot {slot_id} cannot be opened: {tables.printable(reason)}", err=True)


def _complain(label: str, found: list[str]) -> None:
    """Objects that are damaged or refused are in no list: somebody must say so."""
    if found:
        click.echo(f"keyfob: {tables.printable(tokens.complaint(label, found))}", err=True)


def _token_row(token: Token) -> dict[str, Any]:
    info = token.info
    assert info is not None  # only stored tokens are listed
    flags = []
    if token.write_protected:
        flags.append("read-only")
    if info.general_access:
        flags.append("general-access")
    if token.removable:
        flags.append("removable")
    if SETTING in info.settings:
        flags.append("pepper")
    return {
        "slot": token.slot_id,
        "label": info.label,
        "kind": info.kind,
        "serial": info.serial,
        "pin": _open_state(info) or pin_state(info, set_=info.user_pin_set, failed=info.failed_user),
        "so_pin": pin_state(info, set_=info.so_pin_set, failed=info.failed_so),
        "public_objects": tokens.count(token),
        "flags": flags,
        "problems": tokens.complaints(token),
    }


def _open_state(info: TokenInfo) -> str:
    if not info.general_access:
        return ""
    return "empty" if info.empty_pin else "none"


def pin_state(info: TokenInfo, *, set_: bool, failed: int) -> str:
    """set, not set, locked, or how many wrong ones it still bears when some were given."""
    if not set_:
        return "not set"
    left = info.max_failures - failed
    if left <= 0:
        return "locked"
    return "set" if failed == 0 else f"set, {left} tries left"


def _list_objects(label: str, pin: Secret, *, login: bool, as_json: bool) -> None:
    with tokens.opened(label, pin, ask=login) as session:
        rows = [object_row(found) for found in objects.search(session)]
        seen = session.token.sees_private
        name, found = tokens.label_of(session.token), tokens.complaints(session.token)
    if as_json:
        tables.show_json({"objects": rows, "private_objects_seen": seen, "problems": found})
        return
    if rows:
        heads = ("CLASS", "NAME", "ID", "TYPE", "DETAILS")
        tables.show(heads, [(row["class"], row["name"], row["id"], row["type"], _details(row)) for row in rows])
    else:
        click.echo("No objects." if seen else "No public objects.")
    if not seen:
        click.echo("Private objects are not shown: give --login or --pin-file to see them.", err=True)
    _complain(name, found)


def object_row(found: Object) -> dict[str, Any]:
    """An object as JSON has it. Only what is public of an object: no value of a key gets here."""
    uses, protection = objects.flags_of(found)
    row: dict[str, Any] = {
        "class": objects.class_name(found),
        "name": objects.label_of(found),
        "id": objects.id_of(found),
        "type": objects.key_kind(found),
        "private": found.private,
    }
    if objects.class_of(found) in objects.KEYS:
        row |= {"uses": uses, "protection": protection}
    if objects.class_of(found) == CKO.CERTIFICATE:
        row |= _certificate_row(found)
    return row


def _certificate_row(found: Object) -> dict[str, Any]:
    value = found.attributes.get(CKA.VALUE, b"")
    if not attributes_of(value):
        return {"type": "not X.509"}
    from cryptography import x509  # 60 ms that only certificates need

    try:
        certificate = x509.load_der_x509_certificate(value)
        return {
            "type": "X.509",
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "serial": f"{certificate.serial_number:x}",
            "not_before": certificate.not_valid_before_utc.isoformat(),
            "not_after": certificate.not_valid_after_utc.isoformat(),
        }
    except (ValueError, x509.InvalidVersion):
        return {"type": "faulty X.509"}


def _details(row: dict[str, Any]) -> str:
    if "subject" in row:
        return f"{row['subject']}, valid {row['not_before'][:10]} to {row['not_after'][:10]}"
    return "; ".join(part for part in (", ".join(row.get("uses", ())), ", ".join(row.get("protection", ()))) if part)
