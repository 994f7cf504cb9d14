"""A token that lives as long as its process: for tests, and for tokens that leave no trace. Nothing is sealed."""

from __future__ import annotations

import time
from _operator import _compare_digest as same_bytes
from _thread import RLock

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import search
from keyfob.store.counters import ROLES, Counters
from keyfob.store.info import DEFAULT_MAX_FAILURES, TokenInfo, check_label, check_pin_length
from keyfob.store.rows import is_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keyfob.config import Config
    from keyfob.store.hardening import Hardening
    from keyfob.store.pepper import PepperState
    from keyfob.store.protocol import Database
    from keyfob.store.record import Attributes

STAND_IN = "stand-in"  # see ledger.py


class MemoryStore:
    """See the Store protocol. `general_access`: a token without PIN, which `unlock_with_key_file` opens at once.

    `empty_pin`: its user PIN counts as set, see TokenInfo.
    """

    __slots__ = (
        "_counter",
        "_created",
        "_empty_pin",
        "_epoch",
        "_label",
        "_last",
        "_lock",
        "_objects",
        "_open",
        "_pins",
        "_role",
        "_settings",
        "_tries",
        "kind",
        "serial",
    )

    def __init__(
        self,
        *,
        label: str,
        serial: str,
        kind: str = "multipurpose",
        so_pin: bytes = b"",
        general_access: bool = False,
        empty_pin: bool = False,
    ) -> None:
        if so_pin:
            check_pin_length(so_pin)
        if empty_pin and not general_access:
            raise PKCS11Error(CKR.ARGUMENTS_BAD, "only a token of general access has the empty user PIN")
        check_label(label)
        self._label = label
        self.serial = serial
        self.kind = kind
        self._lock = RLock()
        self._open = True
        self._objects: dict[int, Attributes] = {}
        self._settings: dict[str, str] = {}
        self._tries = Counters()
        self._empty_pin = empty_pin
        self._pins: dict[str, bytes] = {"file": b""} if general_access else {}
        if so_pin or not general_access:
            self._pins["so"] = so_pin
        self._role: str | None = None
        self._counter = 1
        self._created = int(time.time())
        self._epoch = 1
        self._last = 0

    @property
    def read_only(self) -> bool:
        return False

    @property
    def unlocked(self) -> bool:
        return self._role is not None

    def info(self) -> TokenInfo:
        self._check_open()
        return TokenInfo(
            label=self._label,
            serial=self.serial,
            kind=self.kind,
            epoch=self._epoch,
            created=self._created,
            general_access="file" in self._pins,
            user_pin_set="user" in self._pins,
            so_pin_set="so" in self._pins,
            failed_user=self._tries.failed["user"],
            failed_so=self._tries.failed["so"],
            max_failures=DEFAULT_MAX_FAILURES,
            settings=dict(self._settings),
            empty_pin=self._empty_pin and "file" in self._pins,
        )

    # Logins and PINs

    def login(self, role: str, pin: bytes) -> None:
        with self._lock:
            self._check_open()
            if role == "so" and not pin and self._pins.get("so") and not self._pins.keys() & {"user", "file"}:
                self._role = STAND_IN
                return
            self.verify_pin(role, pin)
            self._role = role

    def verify_pin(self, role: str, pin: bytes) -> None:
        with self._lock:
            self._check_open()
            if role not in ROLES:
                raise PKCS11Error(CKR.USER_TYPE_INVALID, f"{role} has no PIN")
            if role not in self._pins:
                rv = CKR.USER_PIN_NOT_INITIALIZED if role == "user" else CKR.PIN_INCORRECT
                raise PKCS11Error(rv, f"the token has no {role} PIN")
            self._tries.refuse_if_locked(role, DEFAULT_MAX_FAILURES)
            if not same_bytes(self._pins[role], pin):
                self._tries.fail(role)
                raise PKCS11Error(CKR.PIN_INCORRECT, f"the {role} PIN is wrong")
            self._tries.succeed(role)

    def unlock_with_key_file(self) -> None:
        with self._lock:
            self._check_open()
            if "file" not in self._pins:
                raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "this token is opened by a PIN")
            self._role = "file"

    def logout(self) -> None:
        self._role = None

    def set_pin(self, role: str, new_pin: bytes) -> None:
        with self._lock:
            if role not in ROLES:
                raise PKCS11Error(CKR.USER_TYPE_INVALID, f"{role} has no PIN")
            check_pin_length(new_pin)
            self._check_login()
            if role == "so" and self._role == STAND_IN:
                raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "the SO PIN is changed after a login with it")
            if role == "user":
                self._pins.pop("file", None)
                if self._role == "file":
                    self._role = "user"
            if self._pins.get("so") == b"":
                del self._pins["so"]
            self._pins[role] = new_pin
            self._tries.succeed(role)
            self._counter += 1

    def raise_hardening(self, role: str, pin: bytes, least: Hardening) -> bool:
        return False  # nothing is at rest

    def hardening(self, role: str) -> Hardening | None:
        return None

    def pin_generation(self, role: str) -> bytes:
        return f"{self._counter}".encode()

    def pin_mark(self, role: str, pin: bytes) -> bytes:
        raise PKCS11Error(CKR.FUNCTION_NOT_SUPPORTED, "nothing is at rest")

    def configure(self, config: Config) -> None:
        """Nothing is looked for."""

    def pepper_state(self) -> PepperState | None:
        return None

    def set_pepper(self, location: str | None, pins: Mapping[str, bytes]) -> None:
        raise PKCS11Error(CKR.FUNCTION_NOT_SUPPORTED, "nothing is at rest that a pepper could keep")

    def reset(self, label: str, so_pin: bytes) -> None:
        with self._lock:
            check_label(label)
            self.verify_pin("so", so_pin)
            self._label = label
            self._objects.clear()
            self._settings.clear()
            self._pins = {"so": so_pin}
            for role in ROLES:
                self._tries.succeed(role)
            self._role = None
            self._epoch += 1
            self._counter += 1

    def set_label(self, label: str) -> None:
        with self._lock:
            check_label(label)
            self._check_login()
            self._check_no_stand_in()
            self._label = label
            self._counter += 1

    def set_setting(self, key: str, value: str) -> None:
        with self._lock:
            self._check_login()
            self._check_no_stand_in()
            self._settings[key] = value
            self._counter += 1

    # Objects

    def insert(self, objects: Sequence[Attributes], *, replacing: Sequence[int] = ()) -> list[int]:
        with self._lock:
            for object_id in replacing:
                self._visible(object_id)
            for attributes in objects:
                self._check_may_write(attributes)
            for object_id in replacing:
                self._objects.pop(object_id, None)
            numbers = list(range(self._last + 1, self._last + 1 + len(objects)))
            self._last += len(objects)
            self._objects.update((i, dict(attributes)) for i, attributes in zip(numbers, objects, strict=True))
            self._counter += 1
            return numbers

    def update(self, object_id: int, attributes: Attributes, *, instead_of: Attributes | None = None) -> bool:
        with self._lock:
            self._visible(object_id)
            if instead_of is not None and self._objects[object_id] != instead_of:
                return False
            self._check_may_write(attributes)
            self._objects[object_id] = dict(attributes)
            self._counter += 1
            return True

    def delete(self, object_ids: Sequence[int]) -> None:
        with self._lock:
            for object_id in object_ids:
                self._visible(object_id)
            for object_id in object_ids:
                self._objects.pop(object_id, None)
            self._counter += 1

    def get(self, object_id: int) -> Attributes | None:
        self._check_open()
        found = self._objects.get(object_id)
        return found if found is not None and (self._sees_private or not is_private(found)) else None

    def find(self, template: Sequence[tuple[int, bytes]]) -> list[int]:
        with self._lock:
            self._check_open()
            values = search.wanted(template)
            if values is None:
                return []
            return [
                object_id
                for object_id, attributes in self._objects.items()
                if search.matches(values, attributes) and (self._sees_private or not is_private(attributes))
            ]

    def find_some(
        self, template: Sequence[tuple[int, bytes]], after: int = 0, most: int = 64
    ) -> tuple[list[int], int | None]:
        hits = [object_id for object_id in self.find(template) if object_id > after]
        return hits[:most], hits[most - 1] if len(hits) > most else None

    def exists(self, template: Sequence[tuple[int, bytes]]) -> bool:
        return bool(self.find(template))

    def change_counter(self) -> int:
        return self._counter

    def verify(self) -> list[str]:
        return []

    def remarks(self) -> list[str]:
        return []

    def complaints(self) -> list[str]:
        return []

    def accept(self) -> None:
        self._check_login()

    def copy_to(self, target: Database) -> None:
        raise PKCS11Error(CKR.FUNCTION_NOT_SUPPORTED, "nothing is at rest that could be copied")

    def fingerprint(self) -> tuple[int, bytes]:
        raise PKCS11Error(CKR.FUNCTION_NOT_SUPPORTED, "nothing is at rest that could be compared")

    def close(self) -> None:
        with self._lock:
            self.logout()
            self._open = False
            self._objects.clear()

    def abandon(self) -> None:
        self._lock = RLock()
        self.close()

    # Rules

    @property
    def _sees_private(self) -> bool:
        return self._role in ("user", "file")

    def _check_open(self) -> None:
        if not self._open:
            raise PKCS11Error(CKR.CRYPTOKI_NOT_INITIALIZED, "the store is closed")

    def _check_login(self) -> None:
        self._check_open()
        if self._role is None:
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "this needs a login")

    def _check_no_stand_in(self) -> None:
        if self._role == STAND_IN and "user" not in self._pins:
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "the SO PIN was not given")

    def _check_may_write(self, attributes: Attributes) -> None:
        self._check_open()
        if is_private(attributes) and not self._sees_private:
            raise PKCS11Error(CKR.USER_NOT_LOGGED_IN, "private objects need the user's login")

    def _visible(self, object_id: int) -> Attributes:
        found = self.get(object_id)
        if found is None:
            raise PKCS11Error(CKR.OBJECT_HANDLE_INVALID, f"there is no object {object_id}")
        return found
