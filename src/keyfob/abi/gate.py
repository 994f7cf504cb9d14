"""A fork waits until no other thread is inside a call, and no call begins until it is over.

A child has the thread that forks and no other: whatever lock another thread held at that moment stays held in it for
ever, and nobody knows them all. SQLite has some, OpenSSL, the import system, and the cryptography library one for each
thing that it looks up when it is first needed. A call that is over holds none of them. So each slot of the function
lists counts who is inside (build.py, for the price of two atomic additions), and a fork first closes the gate.

A call that waits for somebody, a person or a slot event, steps aside meanwhile (aside.py). One that takes long, to
make a key or to harden a PIN, is waited for within the limit; then the fork goes on, as it would without a gate.
"""

from __future__ import annotations

import os

from keyfob import aside
from keyfob._abi import lib

LIMIT_MS = 5000


def _before_fork() -> None:
    lib.keyfob_close_gate(LIMIT_MS)  # cffi lets go of the GIL meanwhile, so those inside can come out


def install() -> None:
    """To be the last that prepares for forks: what is registered last is called first, and in the parent last."""
    os.register_at_fork(before=_before_fork, after_in_parent=lib.keyfob_open_gate, after_in_child=lib.keyfob_new_gate)
    aside.call(lib.keyfob_step_aside, lib.keyfob_step_back)
