"""The guide's four kinds of tokens (table 1.2, K1 to K11): which functions of a mechanism each of them offers."""

from __future__ import annotations

from keyfob.mechanisms import INDEX
from keyfob.spec.constants import CKF

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


def flags_of(kind: str, mechanism: int) -> int:
    """CKF_* of the mechanism on a token of this kind; 0 when it offers nothing of it."""
    row = INDEX.get(mechanism)
    if row is None:
        return 0
    operations = row[1] & OPERATIONS & OFFERED.get(kind, OPERATIONS)
    return operations | (row[1] & ~OPERATIONS) if operations else 0
