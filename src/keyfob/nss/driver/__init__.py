"""A driver of any PKCS #11 module through its C ABI, which records every call with names.

`Module` is all that scenarios need: see module.py. It lives in a process of its own (watch.py): a module may crash it.
"""

from __future__ import annotations

from keyfob.nss.driver.mechanism import Mechanism
from keyfob.nss.driver.module import NO_MECHANISM, NSS_FLAGS, READ_ONLY, READ_WRITE, Module
from keyfob.nss.driver.record import Call, Recorder, call_text
from keyfob.nss.driver.reply import CallFailed, Reply
from keyfob.nss.driver.values import Template, Value, encoded, number

__all__ = [
    "NO_MECHANISM",
    "NSS_FLAGS",
    "READ_ONLY",
    "READ_WRITE",
    "Call",
    "CallFailed",
    "Mechanism",
    "Module",
    "Recorder",
    "Reply",
    "Template",
    "Value",
    "call_text",
    "encoded",
    "number",
]
