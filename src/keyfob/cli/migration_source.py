"""The process that reads another module's token: `python -m keyfob.cli.migration_source FD`; see migration.py.

A module may crash its process; this one holds nothing but the source, opened for reading. The job is JSON on standard
input, so that no PIN is in an argument or the environment: {"module", "parameters": for NSS's softoken, "slot": ID or
null, "token": label or null, "pin": hex or null}. JSON lines go to FD:

    {"t": "token", "label", "serial"}             what was found
    {"t": "needs pin", "label"}                   the end: it was started without one
    {"t": "object", "attributes": {CKA: hex}, "refused": [CKA], "templates": [CKA], "wrapped": [[CKM, hex], ...],
     "why": "...", "proof": [CKM, data, result]}  values in hex; `wrapped` under the session's key
    {"t": "key", "value"}                         that key: AES-256, made for this run
    {"t": "failed", "text"}                       the end, with a reason
    {"t": "done"}                                 the end
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

from keyfob.nss.client import Nss
from keyfob.nss.driver import READ_ONLY, CallFailed, Mechanism, Module, Recorder
from keyfob.nss.driver.structs import text
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR, CKU
from keyfob.spec.errors import name_of

ARRAY, VENDOR = 0x40000000, 0x80000000
"""CKF_ARRAY_ATTRIBUTE: the value is a template, full of pointers; among vendors' numbers the bit means nothing."""
NAMES = {value for name, value in vars(CKA).items() if isinstance(value, int) and not name.startswith("_")}
READABLE = sorted(value for value in NAMES if not value & ARRAY or value & VENDOR or value == CKA.ALLOWED_MECHANISMS)
TEMPLATES = sorted(NAMES - set(READABLE))
CLASSES = (
    *(CKO.CERTIFICATE, CKO.PUBLIC_KEY, CKO.PRIVATE_KEY, CKO.SECRET_KEY, CKO.DATA),
    *(CKO.NSS_TRUST, CKO.TRUST, CKO.NSS_CRL, CKO.NSS_SMIME),
)
TOLERATED = (CKR.OK, CKR.ATTRIBUTE_TYPE_INVALID, CKR.ATTRIBUTE_SENSITIVE, CKR.BUFFER_TOO_SMALL)
SECRETS = {CKO.PRIVATE_KEY: {CKK.RSA: CKA.PRIVATE_EXPONENT}}
# In this order; a module's own reading of CKM_AES_KEY_WRAP_PAD is found out where it is opened.
WRAPPINGS = (CKM.AES_KEY_WRAP_KWP, CKM.AES_KEY_WRAP_PAD, CKM.AES_CBC_PAD, CKM.AES_KEY_WRAP)
SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
PROOFS = {
    (CKO.PRIVATE_KEY, CKK.RSA): (CKM.RSA_PKCS, SHA256_INFO),
    (CKO.PRIVATE_KEY, CKK.EC): (CKM.ECDSA, b""),
    (CKO.PRIVATE_KEY, CKK.EC_EDWARDS): (CKM.EDDSA, b""),
    (CKO.SECRET_KEY, CKK.AES): (CKM.AES_ECB, b""),
    (CKO.SECRET_KEY, CKK.GENERIC_SECRET): (CKM.SHA256_HMAC, b""),
}


class Unreadable(Exception):  # noqa: N818 - an answer for the user
    """The token cannot be read; the text says why."""


class Reader:
    """One token of a module, by one read-only session."""

    def __init__(self, nss: Nss, slot: int, send: Any) -> None:
        self.module = nss.module
        self.nss = nss
        self.send = send
        self.session = self.module.C_OpenSession(slot, READ_ONLY).ok()
        count = self.module.C_GetMechanismList(slot, None).ok()
        self.mechanisms = set(self.module.C_GetMechanismList(slot, count).ok()) if count else set()
        self._iv = os.urandom(16)
        self._wrapping: int | None = None

    def objects(self) -> None:
        """Send every object of the token."""
        handles: dict[int, None] = {}
        searches: list[Any] = [[(CKA.TOKEN, True), (CKA.CLASS, kind)] for kind in CLASSES]
        for template in (*searches, [(CKA.TOKEN, True)]):
            with contextlib.suppress(CallFailed):
                handles.update(dict.fromkeys(self.nss.find_all(self.session, template, at_once=64)))
        for handle in handles:
            self.send(self._object(handle))

    def _object(self, handle: int) -> dict[str, Any]:
        found, refused = self._attributes(handle)
        message: dict[str, Any] = {
            "t": "object",
            "attributes": {str(attribute): value.hex() for attribute, value in found.items()},
            "refused": sorted(refused),
            "templates": self._templates(handle),
        }
        kind, key_type = (_number(found.get(each)) for each in (CKA.CLASS, CKA.KEY_TYPE))
        if kind in (CKO.PRIVATE_KEY, CKO.SECRET_KEY):
            secret = SECRETS.get(kind, {}).get(key_type, CKA.VALUE)
            if not found.get(secret):
                message["wrapped"], message["why"] = self._wrapped(handle, found)
            message["proof"] = self._proof(handle, found, kind, key_type)
        return message

    # Attributes

    def _attributes(self, handle: int) -> tuple[dict[int, bytes], list[int]]:
        """(what has a value, what is refused as secret); all at once, or one by one where the module cannot do that."""
        got = self._read(handle, READABLE)
        if got is None:
            got = [row for each in READABLE for row in self._read(handle, [each]) or []]
        values = {attribute: value for attribute, length, value in got if value is not None and length is not None}
        wanted = (CKA.VALUE, CKA.PRIVATE_EXPONENT, CKA.PRIME_1, CKA.PRIME_2, CKA.SEED)
        return values, [each for each in wanted if each not in values]

    def _read(self, handle: int, wanted: list[int]) -> list[tuple[int, int | None, bytes | None]] | None:
        sized = self.module.C_GetAttributeValue(self.session, handle, [(attribute, None) for attribute in wanted])
        if sized.rv not in TOLERATED:
            return None
        there = [(each, length) for each, length, _ in sized.value if length is not None and length < 1 << 32]
        if not there:
            return []
        reply = self.module.C_GetAttributeValue(self.session, handle, there)
        if reply.rv not in TOLERATED:
            return None
        # Where nothing was asked for, nothing was written: a module that does not know an attribute says so by -1.
        return [row for row in reply.value if row[1] is not None]

    def _templates(self, handle: int) -> list[int]:
        rows = self.module.C_GetAttributeValue(self.session, handle, [(each, None) for each in TEMPLATES])
        return [each for each, length, _ in rows.value if length] if rows.rv in TOLERATED else []

    # Keys

    def _wrapped(self, handle: int, found: dict[int, bytes]) -> tuple[list[list[Any]], str]:
        """The key under a key of this run, by every mechanism that does it; else why none does."""
        if found.get(CKA.EXTRACTABLE) == b"\0":
            return [], "it was made to stay on that token (CKA_EXTRACTABLE is false)"
        if found.get(CKA.WRAP_WITH_TRUSTED) == b"\1":
            return [], "it leaves under trusted wrapping keys only (CKA_WRAP_WITH_TRUSTED)"
        offered = [mechanism for mechanism in WRAPPINGS if mechanism in self.mechanisms]
        if not offered:
            return [], "it is not shown, and the module wraps no keys"
        wrapping = self._wrapping_key()
        if not wrapping:
            return [], "it is not shown, and the module takes no key to wrap it with"
        results: list[list[Any]] = []
        answers = []
        for mechanism in offered:
            given = Mechanism(mechanism, self._iv if mechanism == CKM.AES_CBC_PAD else b"")
            sized = self.module.C_WrapKey(self.session, given, wrapping, handle, None)
            reply = sized
            if sized.is_ok:
                reply = self.module.C_WrapKey(self.session, given, wrapping, handle, sized.value + 16)
            if reply.is_ok and isinstance(reply.value, bytes):
                iv = self._iv.hex() if mechanism == CKM.AES_CBC_PAD else ""
                results.append([mechanism, iv + reply.value.hex()])
            else:
                answers.append(f"{name_of('CKM', mechanism)}: {reply.name}")
        return results, "C_WrapKey refuses it: " + ", ".join(answers) if not results else ""

    def _wrapping_key(self) -> int:
        if self._wrapping is None:
            value = os.urandom(32)
            template: list[Any] = [
                *((CKA.CLASS, CKO.SECRET_KEY), (CKA.KEY_TYPE, CKK.AES), (CKA.TOKEN, False), (CKA.PRIVATE, False)),
                *((CKA.WRAP, True), (CKA.ENCRYPT, True), (CKA.VALUE, value)),
            ]
            reply = self.module.C_CreateObject(self.session, template)
            self._wrapping = reply.value if reply.is_ok else 0
            if reply.is_ok:
                self.send({"t": "key", "value": value.hex()})
        return self._wrapping

    def _proof(self, handle: int, found: dict[int, bytes], kind: int, key_type: int) -> list[Any] | None:
        """What the source makes of random data with this key: the key that arrives must fit it."""
        mechanism, prefix = PROOFS.get((kind, key_type), (0, b""))
        encrypts = mechanism == CKM.AES_ECB
        usable = found.get(CKA.ENCRYPT if encrypts else CKA.SIGN) == b"\1"
        if not mechanism or not usable or found.get(CKA.ALWAYS_AUTHENTICATE) == b"\1":
            return None
        data = prefix + os.urandom(32)
        begin, run = (
            (self.module.C_EncryptInit, self.module.C_Encrypt)
            if encrypts
            else (self.module.C_SignInit, self.module.C_Sign)
        )
        if not begin(self.session, Mechanism(mechanism), handle).is_ok:
            return None
        reply = run(self.session, data, 4096)
        return [mechanism, data.hex(), reply.value.hex()] if reply.is_ok and isinstance(reply.value, bytes) else None


def _number(value: bytes | None) -> int:
    return int.from_bytes(value, "little") if value else -1


def _choose(nss: Nss, job: dict[str, Any]) -> tuple[int, Any]:
    """(slot, CK_TOKEN_INFO) of the token that is meant."""
    tokens = []
    for slot in nss.slot_ids():
        reply = nss.module.C_GetTokenInfo(slot)
        if reply.is_ok and (reply.value.flags & CKF.TOKEN_INITIALIZED or slot == job["slot"]):
            tokens.append((slot, reply.value))
    hits = [
        (slot, info) for slot, info in tokens if job["slot"] in (None, slot) and job["token"] in (None, _label(info))
    ]
    names = ", ".join(f"{_label(info)!r} (slot {slot})" for slot, info in tokens) or "none"
    if not hits:
        raise Unreadable(f"the module has no such token; it has {names}")
    if len(hits) > 1:
        raise Unreadable(f"the module has several tokens, {names}: say which one")
    return hits[0]


def _label(info: Any) -> str:
    return text(info.label).rstrip(b" \0").decode(errors="replace")


def read(job: dict[str, Any], send: Any) -> None:
    """The whole of the process' work; Unreadable, CallFailed, OSError."""
    module = Module(job["module"], Recorder(lambda _: None))
    if not (module.symbols["C_GetInterface"] or module.symbols["C_GetFunctionList"]):
        raise Unreadable("it is no PKCS #11 module")
    nss = Nss(module, job["parameters"])
    nss.load()
    slot, info = _choose(nss, job)
    send({"t": "token", "label": _label(info), "serial": text(info.serialNumber).decode(errors="replace").strip(" \0")})
    reader = Reader(nss, slot, send)
    if info.flags & CKF.LOGIN_REQUIRED:
        if job["pin"] is None:
            send({"t": "needs pin", "label": _label(info)})
            return
        reply = module.C_Login(reader.session, CKU.USER, bytes.fromhex(job["pin"]))
        if not reply.is_ok and reply.rv != CKR.USER_ALREADY_LOGGED_IN:
            raise Unreadable(f"the PIN of {_label(info)!r} was not taken: {reply.name}")
    reader.objects()
    send({"t": "done"})
    nss.end()


def main(descriptor: int) -> None:
    job = json.load(sys.stdin)
    os.set_inheritable(descriptor, False)

    def send(message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(descriptor, data) :]

    try:
        read(job, send)
    except (Unreadable, CallFailed, OSError) as problem:
        send({"t": "failed", "text": str(problem)})


if __name__ == "__main__":
    main(int(sys.argv[1]))
