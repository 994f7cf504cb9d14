"""What a run may do and with what: made by the command line, handed to every scenario's process."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

LABEL = "keyfob check"
"""The label of every object that the checker makes (rule of the house: it removes them, too)."""


@dataclass(slots=True)
class Options:
    """`module` is an absolute path. PINs are text. `limit` is in seconds, for one call.

    `eject` and `insert` are commands that take the token out of its slot and put it back.

    The last fields are what the run itself learns on its way: whether the one wrong PIN was spent, which PINs were
    refused (they are not tried again: three tries lock many tokens), what is left to remove, whether the token is out.
    """

    module: str
    parameters: str | None = None
    slot: int | None = None
    token_label: str | None = None
    pin: str | None = None
    so_pin: str | None = None
    write: bool = False
    init: bool = False
    wrong_pins: bool = False
    pinpad: bool = False
    limit: float = 60.0
    eject: str | None = None
    insert: str | None = None
    wrong_pin_spent: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    made: list[list[list[Any]]] = field(default_factory=list)
    ejected: bool = False
    before: list[str] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def public(self) -> dict[str, Any]:
        """What a report may say of them: everything but PINs."""
        return {
            "parameters": self.parameters,
            "slot": self.slot,
            "token_label": self.token_label,
            "pin": self.pin is not None,
            "so_pin": self.so_pin is not None,
            "write": self.write,
            "init": self.init,
            "wrong_pins": self.wrong_pins,
            "pinpad": self.pinpad,
            "removal": self.eject is not None,
            "time_limit": self.limit,
        }
