"""The module in NSS: a token is made, a fresh NSS database learns of the module, and NSS shows what it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo.nss import require
from demo.stage import DATABASE
from demo.steps import Registry

if TYPE_CHECKING:
    from demo.stage import Stage

steps = Registry("module")


@steps.step("token", "A token with a PIN is made", rules="S10 S15", needs="")
def token(stage: Stage) -> str:
    """Make the token; a token given by --module exists already."""
    stage.token.make(stage.tools, stage.token)
    return f"token {stage.token.label!r} of {stage.token.title}"


@steps.step("database", "certutil makes a fresh NSS database", rules="§3.1", needs="")
def database(stage: Stage) -> str:
    """Make the database that all later steps use; it has no password, so that every prompt is the token's."""
    (stage.folder / "db").mkdir()
    stage.run("certutil", "-N", "-d", DATABASE, "--empty-password")
    require((stage.folder / "db" / "pkcs11.txt").exists(), "certutil -N wrote no pkcs11.txt")
    return "cert9.db, key4.db, pkcs11.txt"


@steps.step("add-module", "modutil registers the module in it", rules="G1 G4 G6 S1 I1 P8 P9", needs="token database")
def add_module(stage: Stage) -> str:
    """Load the module for the first time: C_GetInterface, C_Initialize, C_GetInfo, C_GetSlotList."""
    stage.add_module(DATABASE)
    written = stage.read("db/pkcs11.txt").decode()
    require(f"library={stage.token.module}" in written, "pkcs11.txt does not name the module")
    return "pkcs11.txt names it: whoever opens this database loads it"


@steps.step("list-modules", "modutil lists the module, its slot and its token", rules="S3 S10 P36 P40")
def list_modules(stage: Stage) -> str:
    """The slot is usable ("status: loaded"), and the token is named as it was made."""
    listing = stage.run("modutil", "-dbdir", DATABASE, "-list")
    _, found, ours = listing.output.partition("keyfob-demo\n")
    require(found, "the module is not listed", listing)
    require("status: loaded" in ours, "the module is not loaded", listing)
    require(f"token: {stage.token.label}\n" in ours, "the token is not listed", listing)
    slot = next(line.strip() for line in ours.splitlines() if "slot: " in line)
    return f"status: loaded; {slot}; token: {stage.token.label}"


@steps.step("slot-info", "modutil shows the token's flags: login required, PIN set", rules="S8 S15 G7 P17")
def slot_info(stage: Stage) -> str:
    """NSS reads the slot's and the token's info as text fields padded with blanks."""
    listing = stage.run("modutil", "-dbdir", DATABASE, "-list", "keyfob-demo")
    fields = [line.strip() for line in listing.output.splitlines()]
    for line in (f"Token Name: {stage.token.label}", "Login Type: Login required", "User Pin: Initialized"):
        require(line in fields, f"modutil does not say {line!r}", listing)
    return "Login required, user PIN initialized"


@steps.step("wrong-pin", "A wrong PIN opens nothing", rules="§3.4 SE11", needs="add-module")
def wrong_pin(stage: Stage) -> str:
    """C_Login answers CKR_PIN_INCORRECT and NSS says so; the right PIN still works afterwards."""
    wrong = stage.write_pins("not-the-pin", "wrong-pins")
    listing = stage.certutil("-K", "-h", stage.token.label, code=255, pins=wrong, principal=True)
    require("Incorrect password/PIN entered" in listing.output, "NSS does not call the PIN incorrect", listing)
    stage.private_keys()
    return "Incorrect password/PIN entered; the right one still opens the token"
