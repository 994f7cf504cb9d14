"""What loader.c imports once the interpreter runs: every slot of the function lists gets its Python function."""

# ruff: noqa: E402 - versions are looked at before anything else is imported
from __future__ import annotations

from keyfob import dependencies

dependencies.check(*dependencies.ALWAYS)  # before what follows imports them

from keyfob import environment, libraries
from keyfob._abi import lib
from keyfob.abi import descriptors, entries, filling, gate

__all__ = ["entries", "filling", "tables"]


def tables() -> int:
    """The address of the three functions that a host looks up by name (struct keyfob_tables in abi/build.py)."""
    environment.use(filling.variable, secure=bool(lib.keyfob_is_secure()))
    gate.install()
    descriptors.install()
    libraries.call(lib.keyfob_keep_libraries_clean)
    address: int = lib.keyfob_tables_address()
    return address
