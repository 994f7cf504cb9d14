"""What every C_*Init has in common: the mechanism, the key that may be used for it, the operation."""

from __future__ import annotations

from keyfob import mechanisms
from keyfob.spec.constants import CKA, CKF, CKR
from keyfob.spec.errors import PKCS11Error, name_of
from keyfob.token import kinds, policy
from keyfob.token.object import Object, number
from keyfob.token.session import Operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    MechanismValue = tuple[int, Any] | None  # (CKM_*, parameter); None for NULL

    from keyfob.mechanisms.base import Mechanism
    from keyfob.token.session import Session

NAMES = {
    CKF.ENCRYPT: "encryption",
    CKF.DECRYPT: "decryption",
    CKF.DIGEST: "digesting",
    CKF.SIGN: "signing",
    CKF.SIGN_RECOVER: "signing with recovery",
    CKF.VERIFY: "verifying",
    CKF.VERIFY_RECOVER: "verifying with recovery",
    CKF.GENERATE: "generating keys",
    CKF.GENERATE_KEY_PAIR: "generating key pairs",
    CKF.WRAP: "wrapping",
    CKF.UNWRAP: "unwrapping",
    CKF.DERIVE: "derivation",
}

_offered: dict[tuple[str, frozenset[int], int, int], tuple[Mechanism, Callable[..., Any]]] = {}


def offered(session: Session, mechanism: int, flag: int) -> tuple[Mechanism, Callable[..., Any]]:
    """The mechanism's row and what it does for this function; CKR_MECHANISM_INVALID when this token lacks it."""
    token = session.token
    which = (token.kind, token.hidden, mechanism, flag)
    known = _offered.get(which)
    if known is None:
        if not kinds.flags_of(token, mechanism) & flag:
            raise PKCS11Error(CKR.MECHANISM_INVALID, f"{name_of('CKM', mechanism)} is not offered for {NAMES[flag]}")
        row = mechanisms.lookup(mechanism)
        known = _offered[which] = (row, row.operations[flag])
    return known


def usable_key(session: Session, handle: int, row: Mechanism, flag: int) -> Object:
    """The key object for a use that is over when its function returns: wrapping, unwrapping, derivation.

    There is no moment between C_*Init and such a use in which the client could give the PIN that the key asks for.
    """
    found = session.token.objects.key(handle)
    check_use(found, row, flag)
    if found.always_authenticate:
        session.token.ask_for_use()
        found = session.token.objects.key(handle)  # much may have happened while the person was asked
        check_use(found, row, flag)
    return found


def check_use(found: Object, row: Mechanism, flag: int) -> None:
    """The key against the mechanism's key types, and the use against the key's attributes."""
    key_type = number(found.attributes[CKA.KEY_TYPE])
    if row.key_types and key_type not in row.key_types:
        raise PKCS11Error(
            CKR.KEY_TYPE_INCONSISTENT, f"{name_of('CKM', row.type)} does not take {name_of('CKK', key_type)} keys"
        )
    policy.may_use(found.attributes, flag, row.type)


def begin(session: Session, kind: str, flag: int, mechanism: MechanismValue, handle: int) -> None:
    """C_*Init of an operation with a key. A NULL mechanism cancels the active operation (v3.0, section 5.8).

    What was allowed once stays allowed as long as the key's attributes do (Object.uses goes with them), so a server's
    thousandth signature pays for none of the checks of its first.
    """
    if mechanism is None:
        cancel(session, kind)
        return
    session.require_idle(kind)
    number_, parameter = mechanism
    token = session.token
    logouts = token.logouts
    found = token.objects.key(handle)
    run = found.uses.get((number_, flag)) if parameter is None else None
    if run is None:
        row, make = offered(session, number_, flag)
        check_use(found, row, flag)
        run = make(found.key, parameter)
        if parameter is None and getattr(run, "reusable", False):
            found.uses[number_, flag] = run
    session.operations[kind] = Operation(run, number_, found)
    if token.logouts != logouts:
        session.still_allowed(logouts)


def cancel(session: Session, kind: str) -> None:
    if kind not in session.operations:
        raise PKCS11Error(CKR.ARGUMENTS_BAD, "a NULL mechanism cancels an operation, and none is active")
    session.end(kind)
