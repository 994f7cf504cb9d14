"""Stages for tests: the module that the interop tests are told to use, and SoftHSM to test the demo itself on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from demo import tokens

if TYPE_CHECKING:
    from demo.nss import Tools

# As for the other interop tests (tests/interop/tokens.py): "keyfob" or "softhsm", here also "softoken".
KIND = os.environ.get("KEYFOB_INTEROP_MODULE", "keyfob")


def make_token(folder: Path, tools: Tools) -> tokens.Token:
    """Give the token under test, behind pkcs11-spy.so if KEYFOB_INTEROP_SPY names a file for its record."""
    if KIND == "softhsm":
        token = tokens.softhsm(folder)
    elif KIND == "softoken":
        token = tokens.softoken(folder)
    else:
        token = tokens.keyfob(folder, tools)
    record = os.environ.get("KEYFOB_INTEROP_SPY")
    return tokens.spied(token, Path(record)) if record else token


def make_softhsm(folder: Path, _tools: Tools) -> tokens.Token:
    """Give a token of SoftHSM: the demo's own tests must not depend on keyfob being right."""
    return tokens.softhsm(folder)
