"""Which of the guide's four kinds of tokens NSS can use a token as: table 1.2, in what it means today.

NSS itself has no notion of kinds: what a token is follows from its mechanisms and their flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyfob.spec.constants import CKF, CKM

SIGNERS = (CKM.RSA_PKCS, CKM.ECDSA, CKM.EDDSA, CKM.DSA)
DECRYPTERS = (CKM.RSA_PKCS, CKM.RSA_PKCS_OAEP)
GENERATORS = (CKM.RSA_PKCS_KEY_PAIR_GEN, CKM.EC_KEY_PAIR_GEN, CKM.EC_EDWARDS_KEY_PAIR_GEN, CKM.DSA_KEY_PAIR_GEN)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of table 1.2, and what the token lacks for it: nothing means that NSS can use it so."""

    name: str
    meaning: str
    lacks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "meaning": self.meaning, "usable": not self.lacks, "lacks": list(self.lacks)}


def kinds_of(flags: Mapping[int, int], token_flags: int) -> tuple[Kind, ...]:
    """The four kinds, by {CKM_*: flags} and the token's flags."""

    def can(flag: int, *mechanisms: int) -> bool:
        return any(flags.get(mechanism, 0) & flag for mechanism in mechanisms or tuple(flags))

    signs = can(CKF.SIGN, *SIGNERS)
    decrypts = can(CKF.DECRYPT, *DECRYPTERS) or can(CKF.UNWRAP, *DECRYPTERS) or can(CKF.DERIVE, CKM.ECDH1_DERIVE)
    generates = can(CKF.GENERATE_KEY_PAIR, *GENERATORS)
    no_sign = () if signs else ("C_Sign with RSA_PKCS, ECDSA, EdDSA or DSA",)
    no_decrypt = () if decrypts else ("C_Decrypt or C_UnwrapKey with RSA, or ECDH",)
    multi = {
        "C_Encrypt": can(CKF.ENCRYPT),
        "C_Decrypt": can(CKF.DECRYPT),
        "C_Verify": can(CKF.VERIFY, *SIGNERS),
        "C_GenerateKey": can(CKF.GENERATE),
        "C_GenerateKeyPair": generates or bool(token_flags & CKF.WRITE_PROTECTED),
        "C_GenerateRandom (CKF_RNG)": bool(token_flags & CKF.RNG),
    }
    lacking = tuple(name for name, has in multi.items() if not has)
    return (
        Kind("signing", "TLS client authentication, S/MIME and document signatures", no_sign),
        Kind("signing and decryption", "also reads encrypted mail", no_sign + no_decrypt),
        Kind("external key distribution", "keys are made elsewhere and put on the token", no_sign + no_decrypt),
        Kind(
            "multipurpose", "an accelerator: everything, also without keys of its own", no_sign + no_decrypt + lacking
        ),
    )
