"""From another module's token to one of ours: reading it in a process of its own, opening and proving its keys."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.padding import PKCS7

from keyfob import environment
from keyfob.cli import twins
from keyfob.cli.errors import Refusal, explained
from keyfob.functions.encryption import C_Encrypt, C_EncryptInit
from keyfob.functions.signing import C_Sign, C_SignInit
from keyfob.mechanisms.pkcs8 import attributes_from_private_key_info
from keyfob.spec.constants import CKA, CKK, CKM, CKO
from keyfob.spec.errors import PKCS11Error, name_of
from keyfob.token import kinds, templates
from keyfob.token.certificate import attributes_of
from keyfob.token.object import FALSE, TRUE, number

if TYPE_CHECKING:
    from keyfob.store import Attributes
    from keyfob.token.session import Session

LIMIT = 300.0
"""Seconds that a source may be silent: slow tokens wrap slowly."""
GRACE = 5.0
"""Seconds for C_Finalize."""
# What a token says of where its own keys come from; ours says it of itself.
HISTORY = (
    *(CKA.UNIQUE_ID, CKA.LOCAL, CKA.ALWAYS_SENSITIVE, CKA.NEVER_EXTRACTABLE, CKA.KEY_GEN_MECHANISM),
    *(CKA.MODULUS_BITS, CKA.VALUE_LEN, CKA.CHECK_VALUE, CKA.PUBLIC_KEY_INFO),
)
OWN = (CKO.PROFILE, CKO.HW_FEATURE, CKO.MECHANISM, CKO.VALIDATION, CKO.NSS_BUILTIN_ROOT_LIST)
MOVED, THERE, NOT_MOVED = "moved", "already there", "could not be moved"


class Arrival:
    """An object of the source: what it becomes here, and what came of it."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.given: Attributes = {int(a): bytes.fromhex(value) for a, value in message["attributes"].items()}
        self.wrapped = [(int(mechanism), bytes.fromhex(value)) for mechanism, value in message.get("wrapped", ())]
        self.why = str(message.get("why", ""))
        proof = message.get("proof")
        self.proof = None if proof is None else (int(proof[0]), bytes.fromhex(proof[1]), bytes.fromhex(proof[2]))
        self.dropped: set[int] = set(message["templates"])
        self.complete: Attributes = {}
        self.result = MOVED
        self.reason = ""

    @property
    def object_class(self) -> int:
        return number(self.given.get(CKA.CLASS, b""))

    def refuse(self, reason: str) -> None:
        self.result, self.reason = NOT_MOVED, reason


class Source:
    """Everything that the other token gave. `needs_pin`: nothing yet, ask for its PIN."""

    def __init__(self) -> None:
        self.label = ""
        self.serial = ""
        self.arrivals: list[Arrival] = []
        self.needs_pin = False
        self.key = b""


def read(job: dict[str, Any], variables: dict[str, str] | None = None) -> Source:
    """Run migration_source.py on this job; Refusal when the module fails, crashes or hangs."""
    source = Source()
    reader, writer = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "keyfob.cli.migration_source", str(writer)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(writer,),
        env={**environment.whole(), **(variables or {})},
        start_new_session=True,
    )
    os.close(writer)
    ended = False
    try:
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended at once
            child.stdin.write(json.dumps(job).encode())
            child.stdin.close()
        ended = _listen(source, reader)
    finally:
        os.close(reader)
        code = _end(child, GRACE if ended else 0.5)
    if not ended:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise Refusal(f"{job['module']} ended the process that read it ({how}); nothing was moved")
    return source


def _end(child: subprocess.Popen[bytes], patience: float) -> int:
    """The child's exit code. What goes wrong in C_Finalize, after the last object, harms nobody."""
    try:
        return child.wait(timeout=patience)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def _listen(source: Source, reader: int) -> bool:
    """Take messages; whether the source came to its end."""
    buffer = b""
    last = time.monotonic()
    while True:
        ready, _, _ = select.select([reader], [], [], 1.0)
        if not ready:
            if time.monotonic() - last > LIMIT:
                raise Refusal(f"the module did not answer for {LIMIT:.0f} seconds; nothing was moved")
            continue
        last = time.monotonic()
        data = os.read(reader, 1 << 20)
        if not data:
            return False
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            if _take(source, json.loads(line)):
                return True


def _take(source: Source, message: dict[str, Any]) -> bool:
    kind = message["t"]
    if kind == "failed":
        raise Refusal(f"the source cannot be read: {message['text']}")
    if kind == "token":
        source.label, source.serial = message["label"], message["serial"]
    elif kind == "key":
        source.key = bytes.fromhex(message["value"])
    elif kind == "object":
        source.arrivals.append(Arrival(message))
    elif kind == "needs pin":
        source.needs_pin = True
    return kind in ("done", "needs pin")


def prepare(source: Source, session: Session) -> None:
    """Settle for each object whether it can be moved, and prove the keys, by the rules of the session's token."""
    stored = session.token.store
    assert stored is not None
    source.arrivals = [one for one in source.arrivals if one.object_class not in OWN]
    publics = _publics(source)
    for one in source.arrivals:
        try:
            secrets = _components(one, source.key)
            if one.result == NOT_MOVED:
                continue
            one.complete = _completed(one, secrets)
            if not kinds.keeps(session.token, one.complete):
                one.refuse(f"a token of the kind {session.token.kind} keeps no such objects")
            elif twins.has_twin(stored, one.complete):
                one.result = THERE
            elif one.object_class in (CKO.PRIVATE_KEY, CKO.SECRET_KEY):
                _prove(one, publics.get(one.given.get(CKA.ID, b""), []), session)
        except PKCS11Error as problem:
            one.refuse(explained(problem))


def _publics(source: Source) -> dict[bytes, list[bytes]]:
    """By CKA_ID the SubjectPublicKeyInfo of certificates."""
    found: dict[bytes, list[bytes]] = {}
    for one in source.arrivals:
        if one.object_class == CKO.CERTIFICATE and one.given.get(CKA.VALUE):
            info = attributes_of(one.given[CKA.VALUE]).get(CKA.PUBLIC_KEY_INFO)
            if info:
                found.setdefault(one.given.get(CKA.ID, b""), []).append(info)
    return found


def _components(one: Arrival, key: bytes) -> Attributes:
    """What C_WrapKey gave of a key that is not shown; empty for an object that is."""
    if one.why:
        one.refuse(one.why)
        return {}
    opened = [value for mechanism, data in one.wrapped for value in _unwrapped(mechanism, data, key)]
    if not one.wrapped:
        return {}
    for value in opened:
        if one.object_class == CKO.SECRET_KEY:
            if number(one.given.get(CKA.VALUE_LEN, b"")) in (0, len(value)):
                return {CKA.VALUE: value}
            continue
        try:
            return attributes_from_private_key_info(value)
        except PKCS11Error:
            continue
    one.refuse("what C_WrapKey gave is no key of a kind that keyfob has")
    return {}


def _unwrapped(mechanism: int, data: bytes, key: bytes) -> list[bytes]:
    """What it may have been: CKM_AES_KEY_WRAP_PAD is PKCS #7 padding in NSS, KWP in SoftHSM."""
    found = []
    try:
        if mechanism == CKM.AES_CBC_PAD:
            decryptor = Cipher(algorithms.AES(key), modes.CBC(data[:16])).decryptor()
            found.append(_unpadded(decryptor.update(data[16:]) + decryptor.finalize(), 128))
        elif mechanism == CKM.AES_KEY_WRAP:
            found.append(aes_key_unwrap(key, data))
        else:
            found.append(aes_key_unwrap_with_padding(key, data))
    except (InvalidUnwrap, ValueError):
        if mechanism == CKM.AES_KEY_WRAP_PAD:
            try:
                found.append(_unpadded(aes_key_unwrap(key, data), 64))
            except (InvalidUnwrap, ValueError):
                return []
    return found


def _unpadded(data: bytes, bits: int) -> bytes:
    unpadder = PKCS7(bits).unpadder()
    return unpadder.update(data) + unpadder.finalize()


def _completed(one: Arrival, secrets: Attributes) -> Attributes:
    """The object as this token keeps it; what it has no place for is noted as dropped."""
    origin = templates.UNWRAP if secrets and one.object_class == CKO.PRIVATE_KEY else templates.CREATE
    made = secrets if origin == templates.UNWRAP else {}
    given = {**one.given, **({} if made else secrets)}
    key_type = number(given[CKA.KEY_TYPE]) if CKA.KEY_TYPE in given else None
    rows = templates.rows_of(one.object_class, key_type)
    kept: Attributes = {}
    for attribute, value in given.items():
        notes = rows[attribute][1] if attribute in rows else None
        if attribute in HISTORY or attribute in made or (notes is None and attribute in templates.USAGES):
            continue
        if notes is None and not templates.is_vendor(attribute):
            one.dropped.add(attribute)
        elif notes is not None and templates.FORBIDDEN[origin] in notes:
            if attribute not in secrets:
                one.dropped.add(attribute)
        elif notes is not None and 10 in notes and value == TRUE:  # only the SO says whom to trust
            one.dropped.add(attribute)
        else:
            try:
                kept[attribute] = templates.checked(attribute, value)
            except PKCS11Error:
                one.dropped.add(attribute)
    kept[CKA.TOKEN] = TRUE
    return templates.complete(kept, origin, made=made, private_default=True)


# Proofs


def _prove(one: Arrival, certified: list[bytes], session: Session) -> None:
    """Refuse a key that does not do here what it did there, or that is another one than its certificate says."""
    here = {CKA.TOKEN: FALSE, CKA.SIGN: TRUE, CKA.ENCRYPT: TRUE, CKA.ALWAYS_AUTHENTICATE: FALSE}
    attributes = {**one.complete, **{each: value for each, value in here.items() if each in one.complete}}
    attributes.pop(CKA.ALLOWED_MECHANISMS, None)
    (handle,) = session.token.objects.add(session, attributes)
    try:
        if one.object_class == CKO.SECRET_KEY:
            _prove_secret(one, handle, session)
        else:
            _prove_pair(one, certified, handle, session)
    finally:
        session.token.objects.destroy(session, session.token.objects.get(handle))


def _prove_secret(one: Arrival, handle: int, session: Session) -> None:
    if one.proof is None:
        return
    mechanism, data, result = one.proof
    if mechanism == CKM.AES_ECB:
        C_EncryptInit(session, (mechanism, None), handle)
        again = C_Encrypt(session, data, 1024)
    else:
        C_SignInit(session, (mechanism, None), handle)
        again = C_Sign(session, data, 1024)
    if again != result:
        one.refuse("it arrived as another key than it was: what it makes of data differs")


def _prove_pair(one: Arrival, certified: list[bytes], handle: int, session: Session) -> None:
    info = one.complete[CKA.PUBLIC_KEY_INFO]
    if certified and info not in certified:
        one.refuse("it does not belong to the certificate that has its CKA_ID")
    elif one.proof is not None and not _verifies(info, *one.proof):
        one.refuse("it arrived as another key than it was: its old signature does not fit")
    elif number(one.complete[CKA.KEY_TYPE]) in SIGNING:
        mechanism = SIGNING[number(one.complete[CKA.KEY_TYPE])]
        data = (SHA256_INFO if mechanism == CKM.RSA_PKCS else b"") + os.urandom(32)
        C_SignInit(session, (mechanism, None), handle)
        signature = C_Sign(session, data, 4096)
        if not isinstance(signature, bytes) or not _verifies(info, mechanism, data, signature):
            one.refuse("its signature does not fit its public key")


SIGNING = {CKK.RSA: CKM.RSA_PKCS, CKK.EC: CKM.ECDSA, CKK.EC_EDWARDS: CKM.EDDSA}
SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


def _verifies(info: bytes, mechanism: int, data: bytes, signature: bytes) -> bool:
    """The cryptography library's opinion."""
    public: Any = serialization.load_der_public_key(info)
    try:
        if mechanism == CKM.RSA_PKCS and isinstance(public, rsa.RSAPublicKey):
            digest = data.removeprefix(SHA256_INFO)
            public.verify(signature, digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))
        elif mechanism == CKM.ECDSA and isinstance(public, ec.EllipticCurvePublicKey):
            half = len(signature) // 2
            pair = (int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big"))
            form = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
            public.verify(utils.encode_dss_signature(*pair), data, form)
        else:
            public.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def keep(source: Source, session: Session) -> None:
    """Put what is to be moved on the token, all of it in one step, and look whether it is there."""
    moving = [one for one in source.arrivals if one.result == MOVED]
    handles = session.token.objects.add(session, *(one.complete for one in moving))
    for one, handle in zip(moving, handles, strict=True):
        if session.token.objects.get(handle).attributes != one.complete:
            raise Refusal("the token does not hold what was put on it: see `keyfob verify`")


def dropped(source: Source) -> str:
    """`CKA_TRUSTED (2), CKA_NSS_DB (1)`: the attributes that were left behind, and of how many objects."""
    counts: dict[int, int] = {}
    for one in source.arrivals:
        for attribute in one.dropped if one.result == MOVED else ():
            counts[attribute] = counts.get(attribute, 0) + 1
    return ", ".join(f"{name_of('CKA', attribute)} ({count})" for attribute, count in sorted(counts.items()))
