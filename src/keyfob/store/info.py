"""What anybody may know of a token without a PIN."""

from __future__ import annotations

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error

MIN_PIN, MAX_PIN = 4, 255  # bytes of UTF-8
MAX_LABEL = 32  # bytes, as in CK_TOKEN_INFO
DEFAULT_MAX_FAILURES = 10


class TokenInfo:
    """A snapshot; `settings` is for the rooms above, by name.

    `epoch` grows with each C_InitToken: (serial, epoch) names one incarnation of the token. `failed_user` and
    `failed_so` count wrong PINs since the last right one and attempts that are under way or were cut short. `created`
    is in seconds since 1970. `so_pin_set` is False where nobody can log in as SO (see Store.set_pin on empty SO PINs).

    `login_required` and `user_pin_set` are the flags of the guide's table 1.1. `empty_pin`: general access whose user
    PIN counts as set, to the empty one, so that any client can change it into a real one (S14).
    """

    __slots__ = (
        "created",
        "empty_pin",
        "epoch",
        "failed_so",
        "failed_user",
        "general_access",
        "kind",
        "label",
        "login_required",
        "max_failures",
        "max_pin",
        "min_pin",
        "serial",
        "settings",
        "so_pin_set",
        "user_pin_set",
    )

    def __init__(
        self,
        *,
        label: str,
        serial: str,
        kind: str,
        epoch: int,
        created: int,
        general_access: bool,
        user_pin_set: bool,
        so_pin_set: bool,
        failed_user: int,
        failed_so: int,
        max_failures: int,
        settings: dict[str, str],
        empty_pin: bool = False,
    ) -> None:
        self.label = label
        self.serial = serial
        self.kind = kind
        self.epoch = epoch
        self.created = created
        self.general_access = general_access
        self.login_required = not general_access
        self.empty_pin = empty_pin
        self.user_pin_set = user_pin_set or empty_pin
        self.so_pin_set = so_pin_set
        self.failed_user = failed_user
        self.failed_so = failed_so
        self.max_failures = max_failures
        self.min_pin = MIN_PIN
        self.max_pin = MAX_PIN
        self.settings = settings


def check_label(label: str) -> None:
    """CKR_ARGUMENTS_BAD for a label that CK_TOKEN_INFO cannot hold."""
    if len(label.encode()) > MAX_LABEL:
        raise PKCS11Error(CKR.ARGUMENTS_BAD, f"a label has at most {MAX_LABEL} bytes")


def check_pin_length(pin: bytes) -> None:
    """CKR_PIN_LEN_RANGE for a PIN that must not be set."""
    if not MIN_PIN <= len(pin) <= MAX_PIN:
        raise PKCS11Error(CKR.PIN_LEN_RANGE, f"a PIN has {MIN_PIN} to {MAX_PIN} bytes")
