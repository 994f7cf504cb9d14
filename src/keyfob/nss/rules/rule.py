"""What a rule of the catalogue holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Today = Literal["same", "changed", "gone", "wrong"]
Severity = Literal["A", "B", "C"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that NSS expects of a module.

    `statement`: what the guide of 1998 says, or the pitfall, in our words.
    `today`: whether NSS still does what the guide says (None for pitfalls): "gone" is no longer
    true, "wrong" never was.
    `nss`: what NSS does at that point today, 3.87 to 3.124.
    `expects`: what the module must do. `user`: what the user of a module that does not do it would see.
    `where`: functions of NSS to read, as "pk11wrap/pk11load.c secmod_ModuleInit"; folders are below NSS's lib/ unless
    they start with cmd/.
    `standard`: where PKCS #11 v3.2 speaks of it; empty where it does not.
    `severity`: of a pitfall: A = the token is unusable or a usual task fails, B = one feature fails, C = an annoyance.
    `unchecked`: why a checker that only drives the module cannot test the rule; empty when it can.
    """

    id: str
    title: str
    statement: str
    nss: str
    expects: str
    user: str
    where: tuple[str, ...]
    today: Today | None = None
    standard: str = ""
    severity: Severity | None = None
    unchecked: str = ""

    @property
    def check(self) -> bool:
        """Whether a checker that drives the module can test the rule."""
        return not self.unchecked

    @property
    def group(self) -> str:
        """The letters of the ID: "G", "S", "SE", "O", "K", "I", "N" or "P"."""
        return self.id.rstrip("0123456789")
