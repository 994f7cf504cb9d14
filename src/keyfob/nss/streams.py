"""Operations in several parts, of whatever kind the token has: what NSS opens contexts for."""

from __future__ import annotations

from typing import Any, Protocol

from cryptography.hazmat.primitives import hashes

from keyfob.nss import keys
from keyfob.nss.client import NssSlot
from keyfob.nss.context import Context
from keyfob.nss.driver import Mechanism, Reply
from keyfob.nss.keys import TokenKey
from keyfob.spec.constants import CKF, CKM

COMBINED = (CKM.ECDSA_SHA256, CKM.SHA256_RSA_PKCS)
"""They hash and sign: keys.verifies() knows them."""


class Stream(Protocol):
    """`key` is what C_SetOperationState needs; `made` are keys to remove at the end (keys.remove)."""

    key: int
    made: list[TokenKey]

    def begin(self, session: int) -> Reply[Any]: ...

    def update(self, session: int, data: bytes) -> Reply[Any]: ...

    def end(self, session: int, whole: bytes) -> tuple[bool, Reply[Any]]:
        """Whether the result is that of all the data, and the call that gave it."""
        ...


class _Digest:
    def __init__(self, context: Context) -> None:
        self._module = context.module
        self.key = 0
        self.made: list[TokenKey] = []

    def begin(self, session: int) -> Reply[Any]:
        return self._module.C_DigestInit(session, Mechanism(CKM.SHA256))

    def update(self, session: int, data: bytes) -> Reply[Any]:
        return self._module.C_DigestUpdate(session, data)

    def end(self, session: int, whole: bytes) -> tuple[bool, Reply[Any]]:
        reply = self._module.C_DigestFinal(session, 32)
        return reply.is_ok and reply.value == keys.digest(hashes.SHA256(), whole), reply


class _Signature:
    def __init__(self, context: Context, key: TokenKey, mechanism: int, made: list[TokenKey]) -> None:
        self._module = context.module
        self._key = key
        self._mechanism = mechanism
        self.key = key.private
        self.made = made

    def begin(self, session: int) -> Reply[Any]:
        return self._module.C_SignInit(session, Mechanism(self._mechanism), self.key)

    def update(self, session: int, data: bytes) -> Reply[Any]:
        return self._module.C_SignUpdate(session, data)

    def end(self, session: int, whole: bytes) -> tuple[bool, Reply[Any]]:
        reply = self._module.C_SignFinal(session, self._key.length)
        right = reply.is_ok and isinstance(reply.value, bytes) and keys.verifies(self._key.public, reply.value, whole)
        return right, reply


def find_stream(context: Context, slot: NssSlot) -> Stream | None:
    """A digest where the token has SHA-256, else a mechanism that hashes and signs; None when it has neither."""
    if _offers(context, slot, CKM.SHA256, CKF.DIGEST):
        return _Digest(context)
    offered = [mechanism for mechanism in COMBINED if _offers(context, slot, mechanism, CKF.SIGN)]
    if not offered:
        return None
    found = keys.token_keys(context, slot)
    for key in found:
        for mechanism in offered:
            if (mechanism == CKM.SHA256_RSA_PKCS) == key.name.startswith("RSA"):
                return _Signature(context, key, mechanism, found)
    keys.remove(context, slot, found)
    return None


def _offers(context: Context, slot: NssSlot, mechanism: int, flag: int) -> bool:
    reply = context.module.C_GetMechanismInfo(slot.id, mechanism)
    return reply.is_ok and bool(reply.value.flags & flag)
