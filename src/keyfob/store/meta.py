"""The facts about a token: one row of the meta table each, guarded like objects, and the counters beside them.

Each row has its own checksum and its own MAC over its name and value, so that damage is named and what is undamaged
stays usable: with a spoilt label the keys still open. Every name is always there (an empty value says "none"), so that
a removed row is noticed too. The row `counters` alone has no MAC: it changes without login. The row `roster` binds all
others, so that none can be put back alone to an older value, which has the MAC of then (roster.py). It is rewritten by
every commit under a login:

    32 bytes      the roster's sum, masked
    8 bytes each  the beginnings of the MACs of the rows BOUND, in that order
    the rest      the token's state (state.py); schema 4 had none, and the sum in clear
"""

from __future__ import annotations

import struct

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store.counters import MOST_VERSIONS, ROLES, Counters
from keyfob.store.hardening import Hardening
from keyfob.store.info import DEFAULT_MAX_FAILURES, TokenInfo
from keyfob.store.integrity import META_CHECKSUM, same_digest, tag_of_meta
from keyfob.store.record import decode, encode
from keyfob.store.state import State, masked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyfob.store.protocol import Database
    from keyfob.store.seal import Keys
    from keyfob.store.state import Trace

COUNTERS = "counters"
WRAPPING_OF = {"user": "user_wrapping", "so": "so_wrapping", "file": "file_wrapping"}

# What each row holds. Numbers are 8 bytes little-endian, texts UTF-8.
GUARDED = (
    "adopted",  # until there is a state, which says it since: rows without a MAC are older, or not accepted (rows.py)
    "created",
    "epoch",  # grows with each C_InitToken
    "file_wrapping",
    "hardening",  # for the next PIN: memory in KiB, iterations, lanes
    "key_file",  # whether a key file is beside the token: anything but nothing (key_file.py)
    "key_id",
    "kind",
    "label",
    "max_failures",
    "roster",  # see above; empty: an older schema's, which the next login builds
    "serial",
    "settings",
    "so_key",  # what the first user PIN is sealed to for the SO, until there is one (handover.py)
    "so_wrapping",
    "user_wrapping",
)

# The setting of a token of general access whose user PIN is the empty one (TokenInfo.empty_pin).
USER_PIN, EMPTY = "user_pin", "empty"

ROSTER = "roster"
BOUND = tuple(name for name in GUARDED if name not in (ROSTER, "adopted"))
BOUND_MAC = 8
TOTAL = 32
STATE = TOTAL + BOUND_MAC * len(BOUND)  # where it begins
SPOILT = b"\xff" * TOTAL  # a total that no roster has: what stood there was not to be believed
# Behind the key ID in its row: the token has a roster, so one that is empty was emptied by somebody.
MARK = b"\x04"
KEY_ID = 16

SET = """
INSERT INTO meta (name, value, checksum, mac) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, checksum = excluded.checksum, mac = excluded.mac
"""
NUMBER = struct.Struct("<Q")
HARDENING = struct.Struct("<QQQ")


class Meta:
    """All rows as they were at one moment. `problems` names the rows that cannot be believed, with the reason.

    `state`: the token's, or what stands in its place while nobody has checked that; None for none.
    """

    __slots__ = ("_counted", "_info", "_macs", "_values", "counters", "problems", "state")

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._macs: dict[str, object] = {}
        self.state: State | None = None
        self._counted = (MOST_VERSIONS, MOST_VERSIONS)  # version and tries as the row has them
        self.problems: dict[str, str] = {}
        self.counters = Counters()
        self._info: TokenInfo | None = None

    @classmethod
    def load(cls, database: Database) -> Meta:
        """Read every row and check it as far as that goes without keys."""
        meta = cls()
        for encoded, value, checksum, mac in database.facts():
            name = encoded.decode(errors="backslashreplace") if isinstance(encoded, bytes) else "without a name"
            reason = _damage(name, value, checksum)
            if reason is None:
                assert isinstance(value, bytes)
                meta._values[name] = value
                meta._macs[name] = mac
            else:
                meta.problems[name] = reason
        for name in (*GUARDED, COUNTERS):
            if name not in meta._values:
                meta.problems.setdefault(name, "missing")
        meta._read_state()
        meta._read_counters(database)
        return meta

    def authenticate(self, keys: Keys) -> None:
        """Check the MACs too; what fails is a problem from now on. CKR_DEVICE_ERROR when `keys` are another token's."""
        if not self.belongs_to(keys):
            raise PKCS11Error(CKR.DEVICE_ERROR, "the wrapped master key is not this token's: it was tampered with")
        for name in GUARDED:
            value = self._values.get(name)
            if value is None:
                continue
            mac = self._macs[name]
            if name == "so_key" and not value and mac is None:
                continue  # as schema 3 added it: it lets nobody in
            if name == ROSTER and not value and mac is None and not self._is_marked(keys):
                continue  # as schema 4 added it
            if not isinstance(mac, bytes) or not same_digest(tag_of_meta(keys.mac_meta, name, value), mac):
                del self._values[name]
                self.problems[name] = "the MAC does not fit: it was tampered with"
        bound = self._values.get(ROSTER, b"")[TOTAL:STATE]
        for name, expected in zip(BOUND, struct.iter_unpack(f"{BOUND_MAC}s", bound), strict=False):
            if name in self._values and _beginning(self._macs[name]) != expected[0]:
                del self._values[name]
                self.problems[name] = "an older value was put back: it was tampered with"
        self._check_state()

    def _check_state(self) -> None:
        if ROSTER not in self._values:
            self.state = None
        if self.state is None:
            return
        version, tries = self._counted
        if version < self.state.version or tries < self.state.tries:
            self.problems[COUNTERS] = "an older value was put back: it was tampered with"

    def belongs_to(self, keys: Keys) -> bool:
        """Whether the token still has this master key, as far as a readable key ID can tell."""
        return self._values.get("key_id", keys.key_id)[:KEY_ID] == keys.key_id

    def _is_marked(self, keys: Keys) -> bool:
        """Whether the token is known to have a roster."""
        value, mac = self._values.get("key_id"), self._macs.get("key_id")
        if value is None or not isinstance(mac, bytes):
            return False
        return value != keys.key_id and same_digest(tag_of_meta(keys.mac_meta, "key_id", value), mac)

    @property
    def has_roster(self) -> bool:
        """False for a token of an older schema whose user has not logged in since."""
        return self._values.get(ROSTER) != b""

    @property
    def trace(self) -> Trace | None:
        """What tells which other states came before this one."""
        return None if self.state is None else self.state.trace

    def total(self, keys: Keys) -> bytes:
        """The roster's sum; of the tags in clear where there is no state; SPOILT when nobody knows it."""
        total = self._values.get(ROSTER, SPOILT)[:TOTAL]
        return total if self.state is None else masked(keys, self.state.trace.identity, total)

    def put_state(self, database: Database, total: bytes, state: State, keys: Keys) -> None:
        """Write the row `roster` for another total and state, binding what is bound now."""
        bound = self._values.get(ROSTER, b"")[TOTAL:STATE]
        bound = bound or b"".join(_beginning(self._macs.get(name)) for name in BOUND)
        value = _roster_row(total, bound, state, keys)
        put(database, {ROSTER: value}, keys)
        self._values[ROSTER] = value
        self.problems.pop(ROSTER, None)
        self.state = state

    def _read_state(self) -> None:
        value = self._values.get(ROSTER, b"")[STATE:]
        try:
            self.state = State.decode(value) if value else None
        except ValueError as problem:
            del self._values[ROSTER]
            self.problems[ROSTER] = str(problem)

    def _read_counters(self, database: Database) -> None:
        try:
            self.counters = Counters.decode(self.value(COUNTERS))
            self._counted = (self.counters.version, self.counters.tries)
        except (PKCS11Error, ValueError):
            # Assume the worst that still lets the right PIN in, and go on counting above every row.
            self.problems.setdefault(COUNTERS, "not understood")
            self.counters = Counters(database.number("SELECT max(version) FROM object"))
            self.counters.failed = dict.fromkeys(ROLES, self.max_failures - 1)
        if self.state is not None:
            self.counters.version = max(self.counters.version, min(self.state.version, MOST_VERSIONS))
            self.counters.tries = max(self.counters.tries, min(self.state.tries, MOST_VERSIONS))
        elif "adopted" in self._values:
            self.counters.version = max(self.counters.version, self.number("adopted"))

    def value(self, name: str) -> bytes:
        """The row's value; CKR_DEVICE_ERROR when it is damaged or was tampered with."""
        value = self._values.get(name)
        if value is None:
            raise PKCS11Error(CKR.DEVICE_ERROR, f"meta {name}: {self.problems.get(name, 'missing')}")
        return value

    def is_known_empty(self, name: str) -> bool:
        """Whether the row is to be believed and says "none"."""
        return self._values.get(name) == b""

    @property
    def awaits_first_pin(self) -> bool:
        """Whether the token is an uninitialised one of the guide's table 1.1 (S13)."""
        return self.is_known_empty(WRAPPING_OF["user"]) and self.is_known_empty(WRAPPING_OF["file"])

    @property
    def first_pin_key(self) -> bytes:
        """The SO's public key while NSS may set the first user PIN without the SO PIN (handover.py); else empty."""
        return self._values.get("so_key", b"") if self.awaits_first_pin else b""

    def number(self, name: str) -> int:
        value = self.value(name)
        if len(value) != NUMBER.size:
            raise PKCS11Error(CKR.DEVICE_ERROR, f"meta {name}: not a number")
        number: int = NUMBER.unpack(value)[0]
        return number

    @property
    def readable_serial(self) -> str | None:
        """The serial number; None where it is damaged."""
        try:
            return self.text("serial")
        except PKCS11Error:
            return None

    @property
    def readable_label(self) -> str:
        """The label; empty where it is damaged."""
        try:
            return self.text("label")
        except PKCS11Error:
            return ""

    @property
    def readable_settings(self) -> dict[str, str]:
        """The settings; none where they are damaged."""
        try:
            return self.settings
        except PKCS11Error:
            return {}

    def text(self, name: str) -> str:
        try:
            return self.value(name).decode()
        except UnicodeDecodeError:
            raise PKCS11Error(CKR.DEVICE_ERROR, f"meta {name}: not a text") from None

    @property
    def adopted(self) -> int:
        """As the state says, or the row; where neither can be believed, no row without a MAC can be either."""
        if self.state is not None:
            return self.state.adopted
        return self.number("adopted") if "adopted" in self._values and ROSTER in self._values else MOST_VERSIONS

    @property
    def max_failures(self) -> int:
        """Never more than tokens are made with: whoever can write the file could otherwise allow himself any number."""
        stated = self.number("max_failures") if "max_failures" in self._values else DEFAULT_MAX_FAILURES
        return min(stated, DEFAULT_MAX_FAILURES)

    @property
    def hardening(self) -> Hardening:
        try:
            return Hardening.stored(*HARDENING.unpack(self.value("hardening")))
        except struct.error:
            raise PKCS11Error(CKR.DEVICE_ERROR, "meta hardening: not understood") from None

    @property
    def settings(self) -> dict[str, str]:
        try:
            numbered = decode(self.value("settings"))
            return {numbered[i].decode(): numbered[i + 1].decode() for i in range(0, len(numbered), 2)}
        except (ValueError, KeyError):
            raise PKCS11Error(CKR.DEVICE_ERROR, "meta settings: not understood") from None

    def info(self, failed_here: Mapping[str, int]) -> TokenInfo:
        """What is told to everybody; CKR_DEVICE_ERROR when any of it cannot be believed.

        `failed_here`: wrong PINs, by role, that could not be written to the counters.
        """
        if self._info is None or any(failed_here.values()):
            self._info = self._make_info(failed_here)
        return self._info

    def _make_info(self, failed_here: Mapping[str, int]) -> TokenInfo:
        failed = {role: self.counters.failed[role] + failed_here[role] for role in ROLES}
        settings = self.settings
        general_access = bool(self.value("file_wrapping"))
        return TokenInfo(
            label=self.text("label"),
            serial=self.text("serial"),
            kind=self.text("kind"),
            epoch=self.number("epoch"),
            created=self.number("created"),
            general_access=general_access,
            user_pin_set=bool(self.value("user_wrapping")),
            so_pin_set=bool(self.value("so_wrapping")),
            failed_user=failed["user"],
            failed_so=failed["so"],
            max_failures=min(self.number("max_failures"), DEFAULT_MAX_FAILURES),
            settings=settings,
            empty_pin=general_access and settings.get(USER_PIN) == EMPTY,
        )


def encode_settings(settings: Mapping[str, str]) -> bytes:
    """Names and values in turn, as a record."""
    texts = [text for name in sorted(settings) for text in (name, settings[name])]
    return encode({i: text.encode() for i, text in enumerate(texts)})


def key_id(keys: Keys) -> bytes:
    """The row `key_id` of a token that has a roster."""
    return keys.key_id + MARK


def write(database: Database, values: Mapping[str, bytes], total: bytes, state: State, keys: Keys) -> None:
    """Set guarded rows and bind them, within the caller's transaction. `total`: the roster's; `state`: a new one."""
    put(database, values, keys)
    macs: dict[str, object] = dict(database.rows("SELECT name, mac FROM meta"))
    bound = b"".join(_beginning(macs.get(name)) for name in BOUND)
    put(database, {ROSTER: _roster_row(total, bound, state, keys)}, keys)


def put(database: Database, values: Mapping[str, bytes], keys: Keys) -> None:
    """Set guarded rows and bind none, within the caller's transaction: where the token has a roster, use `write`."""
    database.run_each(
        SET,
        [
            (name, value, tag_of_meta(META_CHECKSUM, name, value), tag_of_meta(keys.mac_meta, name, value))
            for name, value in values.items()
        ],
    )


def _roster_row(total: bytes, bound: bytes, state: State, keys: Keys) -> bytes:
    return masked(keys, state.trace.identity, total) + bound + state.encode()


def _beginning(mac: object) -> bytes:
    return mac[:BOUND_MAC] if isinstance(mac, bytes) else bytes(BOUND_MAC)


def write_counters(database: Database, counters: Counters) -> None:
    """Set the counters, within the caller's transaction."""
    value = counters.encode()
    database.run(SET, (COUNTERS, value, tag_of_meta(META_CHECKSUM, COUNTERS, value), None))


def _damage(name: str, value: object, checksum: object) -> str | None:
    """What is wrong with a row, as far as anybody can tell."""
    if not isinstance(value, bytes) or not isinstance(checksum, bytes):
        return "a value of the wrong type"
    if name not in GUARDED and name != COUNTERS:
        return "not a name of this schema"
    if not same_digest(tag_of_meta(META_CHECKSUM, name, value), checksum):
        return "the checksum does not fit"
    return None
