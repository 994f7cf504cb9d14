"""The audit log: one JSON line for each security event, in a file beside the log.

    {"time": "2026-11-24T18:40:00.123Z", "event": "login", "slot": 1, "token": "work", "serial": "...", "role": "user",
     "pid": 4711, "program": "firefox", "uid": 1000}

Appended with one write each, so that lines of several processes never mix. A file past its limit is renamed to *.1, *.2
and so on by whoever gets its lock; who still has the old one open writes its line to that, and no line is lost. A line
that cannot be written is said once in the log: an audit log never makes a call fail or wait. One for which no
descriptor was free waits in memory for the next. Lines hold no secrets: callers pass names, numbers and reasons only.
Signatures are not events: they are a server's daily bread.

Imported when the first event comes, not by C_Initialize. `_json` is the C part of json, whose Python part costs 2 ms.
"""

from __future__ import annotations

import os
import time
from _json import encode_basestring_ascii
from errno import EMFILE, ENFILE

from keyfob import files, log
from keyfob.spec.constants import CKA, CKO
from keyfob.spec.errors import PKCS11Error, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyfob.config import Config
    from keyfob.token.object import Object
    from keyfob.token.token import Token

Value = str | int | bool

KEYS = tuple(int(each).to_bytes(8, "little") for each in (CKO.PUBLIC_KEY, CKO.PRIVATE_KEY, CKO.SECRET_KEY))
SECRET_KEYS = KEYS[1:]
# What C_SetAttributeValue may do to a key that lets it be used or taken in more ways than before.
WEAKENING = (
    CKA.SENSITIVE,
    CKA.EXTRACTABLE,
    CKA.WRAP_WITH_TRUSTED,
    CKA.TRUSTED,
    CKA.ALWAYS_AUTHENTICATE,
    CKA.DECRYPT,
    CKA.SIGN,
    CKA.SIGN_RECOVER,
    CKA.WRAP,
    CKA.UNWRAP,
    CKA.DERIVE,
)

MOST_WAITING = 64

_told: set[str] = set()
_waiting: list[tuple[int, bytes]] = []  # lines with the process they are of: a parent writes its own


def be_ready() -> None:
    """Load now what lines are made with: when one is due there may be no descriptor to read it with."""
    name_of("CKR", 0)


def event(token: Token, name: str, **details: Value) -> None:
    """Something happened on this token."""
    if not token.config.audit:
        return
    facts: dict[str, Value] = {"slot": token.slot_id}
    try:
        info = token.info
    except PKCS11Error:  # the event counts, also on a token that is damaged
        info = None
    if info is not None:
        facts |= {"token": info.label, "serial": info.serial}
    write(token.config, name, facts | details)


def failure(token: Token, name: str, problem: PKCS11Error, **details: Value) -> None:
    """Something was refused, or failed."""
    event(token, name, **details, result=name_of("CKR", problem.rv))


def key_event(token: Token, name: str, attributes: Mapping[int, bytes], **details: Value) -> None:
    """Something happened to a key; objects that are no keys are no events."""
    if attributes.get(CKA.CLASS) in KEYS and token.config.audit:
        event(token, name, **described(attributes), **details)


def described(attributes: Mapping[int, bytes]) -> dict[str, Value]:
    """An object as people know it."""
    facts: dict[str, Value] = {"class": name_of("CKO", _number(attributes[CKA.CLASS]))}
    if CKA.KEY_TYPE in attributes:
        facts["key_type"] = name_of("CKK", _number(attributes[CKA.KEY_TYPE]))
    facts["label"] = attributes.get(CKA.LABEL, b"").decode(errors="replace")
    facts["id"] = attributes.get(CKA.ID, b"").hex()
    return facts


def secret_read(found: Object, attribute: int) -> None:
    """A key that is not sensitive gave a component away in the clear. CKA_VALUE of a certificate is no secret."""
    if found.attributes.get(CKA.CLASS) in SECRET_KEYS:
        key_event(found.token, "key-read", found.attributes, attribute=name_of("CKA", attribute))


def weakened(old: Mapping[int, bytes], new: Mapping[int, bytes]) -> str:
    """The names of a key's security attributes that a change touched, between commas."""
    return ",".join(name_of("CKA", each) for each in WEAKENING if old.get(each) != new.get(each))


def write(config: Config, name: str, facts: Mapping[str, Value]) -> None:
    """Append a line. Never raises."""
    if not config.audit:
        return
    try:
        _write(config, name, facts)
    except MemoryError:
        _tell("out of memory: the audit log lacks lines")


def _write(config: Config, name: str, facts: Mapping[str, Value]) -> None:
    path = config.audit_file
    line = f"{{{', '.join(f'{_text(key)}: {_value(value)}' for key, value in _whole(name, facts).items())}}}\n"
    lines = [*_taken_from_waiting(), line.encode()]
    data = b"".join(lines)
    try:
        descriptor = files.append(path)
        try:
            if files.write(descriptor, data) != len(data):
                _tell(f"{path}: a line was cut short: the disk is full")
            if os.fstat(descriptor).st_size > config.audit_max_kib * 1024:
                _rotate(path, descriptor, config.audit_keep)
        finally:
            os.close(descriptor)
    except OSError as problem:
        if problem.errno in (EMFILE, ENFILE):
            _waiting.extend((os.getpid(), each) for each in lines[-MOST_WAITING:])
            return
        _tell(f"{path}: the audit log cannot be written: {problem.strerror}")


def _taken_from_waiting() -> list[bytes]:
    """The lines of this process for which no descriptor was free."""
    here = os.getpid()
    taken = [line for process, line in _waiting if process == here]
    _waiting.clear()
    return taken


def _whole(name: str, facts: Mapping[str, Value]) -> dict[str, Value]:
    now = time.time_ns() // 1_000_000
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1000))
    return {"time": f"{stamp}.{now % 1000:03d}Z", "event": name, **facts} | {
        "pid": os.getpid(),
        "program": _program(),
        "uid": os.getuid(),
    }


def _rotate(path: str, descriptor: int, keep: int) -> None:
    """Rename the full file, unless another process does that or has just done it."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    try:
        if not os.path.samestat(os.stat(path), os.fstat(descriptor)):
            return
    except FileNotFoundError:  # renamed by another process a moment ago
        return
    for number in range(keep - 1, 0, -1):
        if os.path.exists(f"{path}.{number}"):
            os.replace(f"{path}.{number}", f"{path}.{number + 1}")
    os.replace(path, f"{path}.1")


def _tell(text: str) -> None:
    if text not in _told:
        _told.add(text)
        log.line("warning", text)


def _program() -> str:
    try:
        return os.path.basename(os.readlink("/proc/self/exe"))
    except OSError:
        return ""


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else _text(value)


def _text(text: str) -> str:
    return encode_basestring_ascii(text)


def _number(value: bytes) -> int:
    return int.from_bytes(value, "little")
