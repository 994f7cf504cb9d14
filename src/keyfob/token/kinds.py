"""The guide's four kinds of tokens (table 1.2, K1 to K11): which functions of a mechanism each of them offers."""

from __future__ import annotations

from keyfob.mechanisms import INDEX
from keyfob.spec.constants import CKF, CKM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyfob.token.token import Token

MULTIPURPOSE, SIGNING, SIGNING_DECRYPTION, KEY_DISTRIBUTION = (
    "multipurpose",
    "signing",
    "signing-decryption",
    "key-distribution",
)
OPERATIONS = (
    CKF.ENCRYPT
    | CKF.DECRYPT
    | CKF.DIGEST
    | CKF.SIGN
    | CKF.SIGN_RECOVER
    | CKF.VERIFY
    | CKF.VERIFY_RECOVER
    | CKF.GENERATE
    | CKF.GENERATE_KEY_PAIR
    | CKF.WRAP
    | CKF.UNWRAP
    | CKF.DERIVE
)
OFFERED = {
    MULTIPURPOSE: OPERATIONS,
    SIGNING: CKF.SIGN | CKF.GENERATE_KEY_PAIR | CKF.UNWRAP,
    SIGNING_DECRYPTION: CKF.SIGN | CKF.DECRYPT | CKF.UNWRAP | CKF.DERIVE | CKF.GENERATE_KEY_PAIR,
    KEY_DISTRIBUTION: CKF.SIGN | CKF.DECRYPT | CKF.UNWRAP | CKF.GENERATE_KEY_PAIR,
}


def flags_of(token: Token, mechanism: int) -> int:
    """CKF_* of the mechanism on this token; 0 when its kind or its configuration offers nothing of it."""
    row = INDEX.get(mechanism)
    if row is None or mechanism in token.hidden:
        return 0
    operations = row[1] & OPERATIONS & OFFERED.get(token.kind, OPERATIONS)
    return operations | (row[1] & ~OPERATIONS) if operations else 0


def numbers(names: Iterable[str | int]) -> frozenset[int]:
    """CKM_* of the names that are known, and the numbers as they are."""
    found = (getattr(CKM, name.removeprefix("CKM_"), None) if isinstance(name, str) else name for name in names)
    return frozenset(number for number in found if number is not None)
