"""Looking after what is on the token: trust, names, deletion, revocation, and the PIN."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from demo.nss import require
from demo.stage import DATABASE, NOISE, PINS
from demo.steps import Registry
from demo.steps.certificates import P256, RSA, issue

if TYPE_CHECKING:
    from demo.stage import Stage

steps = Registry("upkeep")

OTHER_DATABASE = "sql:other-db"


def trust_in_other_database(stage: Stage, name: str) -> str | None:
    """Give the trust flags in a second NSS database, which has nothing but the module; None: no such certificate."""
    if not (stage.folder / "other-db").exists():
        (stage.folder / "other-db").mkdir()
        stage.run("certutil", "-N", "-d", OTHER_DATABASE, "--empty-password")
        stage.add_module(OTHER_DATABASE)
    return stage.certificates(database=OTHER_DATABASE).get(name)


@steps.step("trust", "Trust is stored on the token: another database sees it", rules="§3.16 P16", needs="ca")
def trust(stage: Stage) -> str:
    """certutil -S -t CT,C,C has made a CKO_NSS_TRUST object beside the CA's certificate."""
    flags = trust_in_other_database(stage, "ca")
    require(flags == "CTu,Cu,Cu", f"the other database shows the CA with the flags {flags!r}")
    return f"the CA's flags in a database that has nothing but the module: {flags}"


@steps.step("trust-changed", "Changed trust replaces the old", rules="§3.16 P16", needs="ca")
def trust_changed(stage: Stage) -> str:
    """NSS always creates a new trust object, which must take the place of the old one.

    certutil -M does not log in by itself: in a batch the command before it does.
    """
    make_judged_ca(stage, "ca-judged", "CN=Judged CA")
    shown = []
    for flags in (",C,", "C,,C"):
        login = f"-K -d {DATABASE} -f {PINS} -h {stage.token.label}\n"
        change = f"-M -d {DATABASE} -f {PINS} -n {stage.nick('ca-judged')} -t {flags}\n"
        stage.run("certutil", "-B", "-d", DATABASE, "-i", stage.write("batch", login + change), principal=True)
        shown.append(trust_in_other_database(stage, "ca-judged"))
    require(shown == ["u,Cu,u", "Cu,u,Cu"], f"the other database shows the flags {shown}")
    return f"after login, -M -t ,C, then C,,C: the other database shows {shown[0]} then {shown[1]}"


@steps.step(
    "trust-needs-pin", "Without the PIN, trust stays as it was", rules="§3.16 P16 P18", needs="ca", only="keyfob"
)
def trust_needs_pin(stage: Stage) -> str:
    """CKR_USER_NOT_LOGGED_IN: trust decides whom every program believes. NSS 3.87 says nothing about it."""
    make_judged_ca(stage, "ca-guarded", "CN=Guarded CA")
    before = trust_in_other_database(stage, "ca-guarded")
    stage.certutil("-M", "-n", stage.nick("ca-guarded"), "-t", ",,", pins="", code=None, principal=True)
    after = trust_in_other_database(stage, "ca-guarded")
    require(before == after == "CTu,Cu,Cu", f"the other database shows {before!r}, then {after!r}")
    return f"still {after}"


def make_judged_ca(stage: Stage, name: str, subject: str) -> None:
    """Make a CA of its own for a step that changes trust, trusted for all."""
    target = ("-h", stage.token.label, "-n", name, "-s", f"{subject},O=keyfob", *P256)
    stage.certutil("-S", *target, "-x", "-t", "CT,C,C", "-m", stage.serial(), "-z", NOISE)


@steps.step("rename", "A certificate gets another name", rules="O18 P20", needs="ca")
def rename(stage: Stage) -> str:
    """C_SetAttributeValue(CKA_LABEL)."""
    issue(stage, "erin", "CN=Erin", *P256, principal=False)
    stage.certutil("--rename", "-n", stage.nick("erin"), "--new-n", "erin-renamed", pins="", principal=True)
    listed = stage.certificates()
    require("erin" not in listed and listed.get("erin-renamed") == "u,u,u", "certutil -L does not show the new name")
    return "erin is erin-renamed"


@steps.step("delete-certificate", "A certificate is deleted; its key stays", rules="O15 §4", needs="ca")
def delete_certificate(stage: Stage) -> str:
    """C_DestroyObject in a session of its own."""
    issue(stage, "frank", "CN=Frank", *P256, principal=False)
    keys = set(stage.private_keys())
    stage.certutil("-D", "-n", stage.nick("frank"), principal=True)
    require("frank" not in stage.certificates(), "certutil -L still lists the certificate")
    require(set(stage.private_keys()) == keys, "the key has gone with the certificate")
    return "the key is listed as an orphan"


@steps.step("delete-key", "A certificate is deleted together with its key", rules="O15 P38 §4", needs="ca")
def delete_key(stage: Stage) -> str:
    """certutil -F -n: certificate, private and public key."""
    issue(stage, "grace", "CN=Grace", *RSA, principal=False)
    before = stage.private_keys()
    stage.certutil("-F", "-n", stage.nick("grace"), principal=True)
    require("grace" not in stage.certificates(), "certutil -L still lists the certificate")
    after = stage.private_keys()
    gone = [name for identifier, (_, name) in before.items() if identifier not in after]
    require(gone == [stage.nick("grace")], f"the keys gone are {gone}")
    return "certificate and key are gone"


@steps.step("delete-orphan", "A key without certificate is deleted by its ID", rules="O15 P38 §4", needs="add-module")
def delete_orphan(stage: Stage) -> str:
    """certutil -F -k."""
    before = set(stage.private_keys())
    stage.certutil("-G", "-h", stage.token.label, *P256, "-z", NOISE)
    (orphan,) = set(stage.private_keys()) - before
    stage.certutil("-F", "-h", stage.token.label, "-k", orphan, principal=True)
    require(set(stage.private_keys()) == before, "certutil -K still lists the key")
    return f"key {orphan[:12]}… is gone"


@steps.step("revoke", "The CA revokes a certificate (CRL), and NSS refuses it", rules="§3.10 §4", needs="ca")
def revoke(stage: Stage) -> str:
    """Crlutil insists on a terminal for the PIN: it gets one of its own."""
    issue(stage, "mallory", "CN=Mallory", *P256, principal=False)
    mallory = stage.certificate("mallory")
    valid = stage.certutil("-V", "-n", stage.nick("mallory"), "-u", "C", pins="")
    require("certificate is valid" in valid.output, "the certificate is not valid to begin with", valid)
    now = dt.datetime.now(dt.UTC)
    this, following = (f"{moment:%Y%m%d%H%M%SZ}" for moment in (now, now + dt.timedelta(days=30)))
    script = f"update={this}\nnextupdate={following}\naddcert {mallory.serial_number} {this}\n"
    files = ("-c", stage.write("crl-script", script), "-o", "ca.crl")
    command = ("crlutil", "-G", "-d", DATABASE, "-n", stage.nick("ca"), *files)
    stage.tools.run_on_terminal(*command, answer=stage.token.pin, principal=True)
    stage.certificate("ca")
    checked = stage.run("openssl", "crl", "-in", "ca.crl", "-inform", "DER", "-CAfile", "ca.pem", "-noout")
    require("verify OK" in checked.output, "openssl does not accept the CRL's signature", checked)
    refused = stage.certutil("-V", "-n", stage.nick("mallory"), "-u", "C", pins="", code=255)
    require("has been revoked" in refused.output, "NSS refuses the certificate for another reason", refused)
    return "Peer's Certificate has been revoked; openssl: CRL verify OK"


@steps.step("pin-change", "The PIN is changed, and changed back", rules="S20 SE14 N6 §3.7", needs="rsa-key")
def pin_change(stage: Stage) -> str:
    """C_Logout, C_Login, C_SetPIN in a read-write session; the old PIN is refused afterwards."""
    old, new = stage.token.pin, f"{stage.token.pin}-changed"
    changed = stage.write_pins(new, "changed-pins")
    stage.write("new-pin", f"{new}\n{new}\n")
    stage.write("old-pin", f"{old}\n{old}\n")
    keys = stage.private_keys()
    stage.certutil("-W", "-h", stage.token.label, "-@", "new-pin", principal=True)
    try:
        refused = stage.certutil("-K", "-h", stage.token.label, code=255)
        require(
            "Incorrect password/PIN entered" in refused.output, "the old PIN is refused for another reason", refused
        )
        require(stage.private_keys(pins=changed) == keys, "the new PIN does not open the same keys")
    finally:
        stage.certutil("-W", "-h", stage.token.label, "-@", "old-pin", pins=changed)
    require(stage.private_keys(pins=PINS) == keys, "after the change back, the keys are not the same")
    return "the new PIN opens the same keys, the old one none"
