"""Coming and going: what is left behind, keyfob's own installation, and NSS letting go of the module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo.nss import require
from demo.stage import DATABASE
from demo.steps import Registry

if TYPE_CHECKING:
    from demo.stage import Stage

steps = Registry("farewell")


@steps.step("nowhere-else", "NSS's own key database is still empty", rules="O2", needs="rsa-key ec-key")
def nowhere_else(stage: Stage) -> str:
    """Were a mechanism missing, NSS would make or unwrap the key itself: none must be there after all the steps."""
    listing = stage.run("certutil", "-K", "-d", DATABASE, "-h", "NSS Certificate DB", code=255)
    require("no keys found" in listing.output, "NSS's own database holds a key", listing)
    return "certutil: no keys found"


@steps.step(
    "install-nss", "keyfob install nss does the same, and undoes it", rules="I1 §3.19", needs="token", only="keyfob"
)
def install_nss(stage: Stage) -> str:
    """The command-line tool writes what modutil writes: NSS's tools see the token through it."""
    command = stage.token.command
    stage.run(command, "install", "nss", "cli-db", "--create", principal=True)
    login = ("-d", "sql:cli-db", "-h", stage.token.label)
    stage.run("certutil", "-L", *login)
    stage.run(command, "uninstall", "nss", "cli-db")
    listing = stage.run("modutil", "-dbdir", "sql:cli-db", "-list")
    require(stage.token.module not in listing.output, "the module is still listed", listing)
    return "the token was there, and is gone from the database"


@steps.step("delete-module", "modutil takes the module out of a database again", rules="G3 §3.19")
def delete_module(stage: Stage) -> str:
    """In a database of its own, so that a kept folder stays usable."""
    (stage.folder / "last-db").mkdir(exist_ok=True)
    database = "sql:last-db"
    stage.run("certutil", "-N", "-d", database, "--empty-password")
    stage.add_module(database)
    stage.run("modutil", "-dbdir", database, "-delete", "keyfob-demo", "-force", principal=True)
    listing = stage.run("modutil", "-dbdir", database, "-list")
    require("keyfob-demo" not in listing.output, "the module is still listed", listing)
    return "no longer listed"
