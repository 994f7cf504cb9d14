"""What loader.c imports once the interpreter runs: every slot of the function lists gets its Python function."""

from __future__ import annotations

from keyfob import environment, libraries
from keyfob._abi import lib
from keyfob.abi import descriptors, entries, filling, gate, imports

__all__ = ["entries", "filling", "tables"]


def tables() -> int:
    """The address of the three functions that a host looks up by name (struct keyfob_tables in abi/build.py)."""
    environment.use(filling.variable, secure=bool(lib.keyfob_is_secure()))
    gate.install()
    imports.install()
    descriptors.install()
    libraries.call(lib.keyfob_keep_libraries_clean)
    address: int = lib.keyfob_tables_address()
    return address
