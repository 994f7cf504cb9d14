"""The guide's four kinds of tokens (table 1.2; K1 to K12): which functions with which mechanisms, which objects.

A kind is a promise to whoever depends on the token, for example that a signing token wraps no private key, whatever the
key's attributes allow. (Not that nothing is decrypted with it: table 1.2 lets every kind unwrap with RSA.) NSS knows no
kinds: it reads the list of mechanisms and their flags, tries, and does in software what a token refuses. So whatever a
kind lacks is left out of that list and answered as the standard says, never half done. The table below is the guide's,
with what has taken the place of its mechanisms since; docs/kinds.md tells it to users.

    function               key-distribution         signing       signing-decryption              multipurpose
    C_Sign                 SIGNATURES               SIGNATURES    SIGNATURES                      all
    C_Decrypt              RSA_PKCS, RSA_X_509      -             those, OAEP; MAIL_CONTENT       all
    C_UnwrapKey            RSA_PKCS                 RSA_PKCS      RSA_PKCS, OAEP; KEY_TRANSPORT   all
    C_DeriveKey            -                        -             AGREEMENT                       all
    C_GenerateKeyPair      KEY_PAIRS                KEY_PAIRS     KEY_PAIRS, for AGREEMENT too    all
    C_GenerateRandom, C_SeedRandom                  -             -                               yes
    C_GetOperationState, C_SetOperationState        -             -                               yes
    all others with mechanisms                      -             -                               all
    secret keys            of sessions              of sessions   of sessions                     also stored
"""

from __future__ import annotations

from keyfob import log
from keyfob.mechanisms import INDEX
from keyfob.spec.constants import CKA, CKF, CKM, CKO, CKP
from keyfob.token.object import TRUE, ulong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from keyfob.token.token import Token

    # CKF_* of a function: the mechanisms that it is offered with.
    Offers = Mapping[int, frozenset[int]]

MULTIPURPOSE, SIGNING, SIGNING_DECRYPTION, KEY_DISTRIBUTION = (
    "multipurpose",
    "signing",
    "signing-decryption",
    "key-distribution",
)
# The flags of C_GetMechanismInfo that stand for functions; the others describe, and promise none.
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

# The families (mechanisms/__init__.py) whose CKF_SIGN makes a MAC under a secret key, not a signature.
MAC_FAMILIES = ("hmac", "aes", "des3")
# Every signature that a person can be held to. Not CKM_RSA_X_509: signing anything is decrypting anything.
SIGNATURES = frozenset(
    mechanism
    for mechanism, (family, flags, _, _) in INDEX.items()
    if flags & CKF.SIGN and family not in MAC_FAMILIES and mechanism != CKM.RSA_X_509
)
AGREEMENT_PAIRS = frozenset((CKM.EC_MONTGOMERY_KEY_PAIR_GEN,))
ALL_PAIRS = frozenset(mechanism for mechanism, row in INDEX.items() if row[1] & CKF.GENERATE_KEY_PAIR)
KEY_PAIRS = ALL_PAIRS - AGREEMENT_PAIRS
AGREEMENT = frozenset((CKM.ECDH1_DERIVE, CKM.ECDH1_COFACTOR_DERIVE))
# How the content of a mail is encrypted, under a key that came with it (K4).
MAIL_CONTENT = frozenset((CKM.AES_CBC, CKM.AES_CBC_PAD, CKM.AES_GCM, CKM.DES3_CBC, CKM.DES3_CBC_PAD))
# How keys travel: under what was agreed on with ECDH, and (the last two) in PKCS #12 files.
KEY_TRANSPORT = frozenset(
    (
        CKM.AES_KEY_WRAP,
        CKM.AES_KEY_WRAP_PAD,
        CKM.AES_KEY_WRAP_KWP,
        CKM.NSS_AES_KEY_WRAP,
        CKM.NSS_AES_KEY_WRAP_PAD,
        CKM.AES_CBC_PAD,
        CKM.DES3_CBC_PAD,
    )
)
RSA_PKCS = frozenset((CKM.RSA_PKCS,))
RSA_OAEP = frozenset((CKM.RSA_PKCS_OAEP,))
RSA_X_509 = frozenset((CKM.RSA_X_509,))

# What a kind that is not listed offers is everything.
OFFERED: dict[str, Offers] = {
    KEY_DISTRIBUTION: {
        CKF.SIGN: SIGNATURES,
        CKF.DECRYPT: RSA_PKCS | RSA_X_509,
        CKF.UNWRAP: RSA_PKCS,
        CKF.GENERATE_KEY_PAIR: KEY_PAIRS,
    },
    SIGNING: {
        CKF.SIGN: SIGNATURES,
        CKF.UNWRAP: RSA_PKCS,
        CKF.GENERATE_KEY_PAIR: KEY_PAIRS,
    },
    SIGNING_DECRYPTION: {
        CKF.SIGN: SIGNATURES,
        CKF.DECRYPT: RSA_PKCS | RSA_OAEP | RSA_X_509 | MAIL_CONTENT,
        CKF.UNWRAP: RSA_PKCS | RSA_OAEP | KEY_TRANSPORT,
        CKF.DERIVE: AGREEMENT,
        CKF.GENERATE_KEY_PAIR: ALL_PAIRS,
    },
}
SECRET_KEY = ulong(CKO.SECRET_KEY)

_tables: dict[str, dict[int, int]] = {}


def _table(kind: str) -> dict[int, int]:
    """CKF_* by mechanism, for the mechanisms that the kind offers anything of."""
    table = _tables.get(kind)
    if table is None:
        offers = OFFERED.get(kind)
        table = {}
        for mechanism, (_, flags, _, _) in INDEX.items():
            operations = flags & OPERATIONS
            if offers is not None:
                allowed = sum(flag for flag, mechanisms in offers.items() if mechanism in mechanisms)
                operations &= allowed
            if operations:
                table[mechanism] = operations | (flags & ~OPERATIONS)
        _tables[kind] = table
    return table


def flags_of(token: Token, mechanism: int) -> int:
    """CKF_* of the mechanism on this token; 0 when its kind or its configuration offers nothing of it."""
    if mechanism in token.hidden:
        return 0
    return _table(token.kind).get(mechanism, 0)


def has_random(token: Token) -> bool:
    """C_GenerateRandom and C_SeedRandom; CKF_RNG says so."""
    return token.kind not in OFFERED


def saves_operations(token: Token) -> bool:
    """C_GetOperationState and C_SetOperationState (the guide's C_Save and C_Restore)."""
    return token.kind not in OFFERED


def is_dual(token: Token) -> bool:
    """The functions of section 5.17, which need digests and encryption; CKF_DUAL_CRYPTO_OPERATIONS says so."""
    return token.kind not in OFFERED


def profiles(token: Token) -> tuple[int, ...]:
    """The CKP_* of the OASIS profiles that the token meets; each is published as an object (P7).

    Baseline, Extended and Authentication Token ask for functions that all kinds have; Public Certificates Token for
    certificates and public keys that are seen without login, which is what every template gives that does not ask for
    CKA_PRIVATE. CKP_COMPLETE_PROVIDER, the whole standard with all its mechanisms, is nobody's.
    """
    always = (
        CKP.BASELINE_PROVIDER,
        CKP.EXTENDED_PROVIDER,
        CKP.AUTHENTICATION_TOKEN,
        CKP.PUBLIC_CERTIFICATES_TOKEN,
    )
    return (*always, CKP.HKDF_TLS_TOKEN) if flags_of(token, CKM.HKDF_DATA) & CKF.DERIVE else always


def keeps(token: Token, attributes: Mapping[int, bytes]) -> bool:
    """Whether the kind has such objects. Session secret keys all have: NSS unwraps and imports with them (O4, K12)."""
    return token.kind not in OFFERED or attributes.get(CKA.CLASS) != SECRET_KEY or attributes.get(CKA.TOKEN) != TRUE


def numbers(names: Iterable[str | int]) -> frozenset[int]:
    """The configuration's hide_mechanisms: CKM_* of the names, and the numbers as they are. Others get a log line."""
    found = set()
    for name in names:
        number = getattr(CKM, name.removeprefix("CKM_"), None) if isinstance(name, str) else name
        if isinstance(number, int):
            found.add(number)
        else:
            log.line("warning", f"hide_mechanisms: {name} is no mechanism that keyfob knows of")
    return frozenset(found)
