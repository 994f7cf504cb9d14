"""What a scenario leaves on a token, told as search templates so that a later process can remove it after a crash.

NSS's templates for generated keys carry neither label nor ID: such keys are told as soon as the scenario reads or sets
something that names them. No secret attribute is ever told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from keyfob.nss.driver.values import Template, class_of, encoded
from keyfob.spec.constants import CKA, CKO

Tell = Callable[[list[tuple[int, bytes]]], None]
# What names an object by itself, the best first.
NAMING = (CKA.LABEL, CKA.ID, CKA.MODULUS, CKA.EC_POINT)


class Footprints:
    """Watches the creation of token objects; `tell` gets {CLASS, what names it}."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._unnamed: dict[int, int] = {}  # handle: class

    def created(self, template: Template | None) -> None:
        """An object is about to be made from this template."""
        values = {attribute: encoded(value) for attribute, value in template or ()}
        if values.get(CKA.TOKEN) != b"\x01":
            return
        object_class = class_of(template or ())
        head = [] if object_class is None else [(CKA.CLASS, encoded(object_class))]
        if CKA.ISSUER in values and CKA.SERIAL_NUMBER in values:
            self._tell([*head, *((name, values[name]) for name in (CKA.ISSUER, CKA.SERIAL_NUMBER))])
            return
        for name in NAMING:
            if values.get(name):
                self._tell([*head, (name, values[name])])
                return

    def generated(self, public: int, private: int) -> None:
        """A key pair exists whose templates named neither."""
        self._unnamed[public] = CKO.PUBLIC_KEY
        self._unnamed[private] = CKO.PRIVATE_KEY

    def named(self, handle: int, values: Iterable[tuple[int, bytes | None]]) -> None:
        """Attributes of an object were read or set."""
        if handle not in self._unnamed:
            return
        for attribute, value in values:
            if attribute in NAMING and value:
                self._tell([(CKA.CLASS, encoded(self._unnamed[handle])), (attribute, value)])
                if attribute == CKA.MODULUS:
                    self._tell([(CKA.CLASS, encoded(CKO.PRIVATE_KEY)), (attribute, value)])
