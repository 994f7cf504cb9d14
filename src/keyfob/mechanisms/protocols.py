"""What the token asks of an operation that a mechanism's row names; for type checkers, never imported at run time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol


class Signer(Protocol):
    """`output_size` is the exact length of the signature, known before it is made."""

    output_size: int

    def sign(self, data: bytes) -> bytes: ...
    def update(self, part: bytes) -> None: ...
    def final(self) -> bytes: ...


class Verifier(Protocol):
    """Return means valid; raises CKR_SIGNATURE_INVALID or CKR_SIGNATURE_LEN_RANGE."""

    def verify(self, data: bytes, signature: bytes) -> None: ...
    def update(self, part: bytes) -> None: ...
    def final(self, signature: bytes) -> None: ...


class VerifyRecoverer(Protocol):
    output_size: int

    def recover(self, signature: bytes) -> bytes: ...


class Cipher(Protocol):
    """Encryption or decryption. The three `*_size` give an upper bound and never perform anything.

    `exact` says that `size(n)` is the exact length (so that a short buffer can be refused before the work is done).
    """

    exact: ClassVar[bool]

    def run(self, data: bytes) -> bytes: ...
    def size(self, length: int) -> int: ...
    def update(self, part: bytes) -> bytes: ...
    def update_size(self, length: int) -> int: ...
    def final(self) -> bytes: ...
    def final_size(self) -> int: ...


class Digester(Protocol):
    output_size: int

    def update(self, part: bytes) -> None: ...
    def final(self) -> bytes: ...
    def copy(self) -> Digester: ...


class Wrapper(Protocol):
    def wrap(self, data: bytes) -> bytes: ...
    def size(self, length: int) -> int: ...


class Unwrapper(Protocol):
    """`length` is that of the key to come, where the template tells it; `lengths` those that its type may have.

    A mechanism whose failure an attacker could use (PKCS #1 v1.5) gives that many bytes whatever it unwrapped.
    """

    def unwrap(self, data: bytes, length: int | None = None, lengths: Sequence[int] | None = None) -> bytes: ...
