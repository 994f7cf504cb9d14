"""What a token with CKA_ALWAYS_AUTHENTICATE keys does not advertise (P5).

Such a key asks for the PIN (CKU_CONTEXT_SPECIFIC) between C_SignInit and the signature. Where C_GetMechanismInfo shows
CKF_SIGN for a mechanism that hashes and signs, NSS since 3.101 signs with it in parts, as in TLS 1.3, and never asks
for the PIN on that way; where it does not, NSS hashes by itself, takes the raw mechanism, and asks. So while such a key
can be seen these mechanisms are not advertised for signing. C_SignInit takes them all the same.
"""

from __future__ import annotations

from keyfob.spec.constants import CKA, CKF, CKM
from keyfob.token.kinds import OPERATIONS, flags_of
from keyfob.token.object import PRIVATE_KEY, TRUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyfob.store import Store
    from keyfob.token.token import Token

HASHES = ("MD5", "SHA1", "SHA224", "SHA256", "SHA384", "SHA512", "SHA3_224", "SHA3_256", "SHA3_384", "SHA3_512")
NAMES = [
    *(f"{name}_{scheme}" for name in HASHES for scheme in ("RSA_PKCS", "RSA_PKCS_PSS")),
    *(f"{scheme}_{name}" for name in HASHES for scheme in ("ECDSA", "DSA")),
]
HASH_AND_SIGN = frozenset(number for name in NAMES if (number := getattr(CKM, name, None)) is not None)
SUCH_KEYS = ((CKA.ALWAYS_AUTHENTICATE, TRUE), (CKA.CLASS, PRIVATE_KEY))


class Advertisement:
    """The mechanisms of one token as C_GetMechanismList and C_GetMechanismInfo show them."""

    __slots__ = ("_found", "_seen", "_token")

    def __init__(self, token: Token) -> None:
        self._token = token
        self._seen: tuple[Store, int, bool] | None = None  # when the store was asked last
        self._found = False

    def flags_of(self, mechanism: int) -> int:
        """CKF_*; 0 for a mechanism that is not advertised at all."""
        flags = flags_of(self._token, mechanism)
        if mechanism in HASH_AND_SIGN and flags & CKF.SIGN and self._has_such_keys():
            flags &= ~CKF.SIGN
        return flags if flags & OPERATIONS else 0

    def _has_such_keys(self) -> bool:
        """Whether the present login sees any; asked again only when the token has changed, by an indexed look-up."""
        token = self._token
        sees_private = token.sees_private
        for found in list(token.objects.in_memory.values()):
            if found.always_authenticate and (sees_private or not found.private):
                return True
        store = token.store
        if store is None:
            return False
        seen = (store, store.change_counter(), sees_private)
        if seen != self._seen:
            self._found = sees_private and store.exists(SUCH_KEYS)
            self._seen = seen
        return self._found
