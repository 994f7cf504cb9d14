"""What `keyfob verify` tells of later: what was adopted without a login, and older copies that were put back.

One row each, with a MAC over its number; the state of the token (state.py) says which numbers there are, so that one
that is gone is missed. The oldest go when there are too many, all of them with `keyfob verify --accept`.
"""

from __future__ import annotations

import time
from struct import Struct, error

from keyfob.spec.constants import CKA
from keyfob.spec.errors import name_of
from keyfob.store.integrity import Hasher, same_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from keyfob.store.protocol import Database
    from keyfob.store.record import Attributes
    from keyfob.store.seal import Keys
    from keyfob.store.state import State

ADOPTED, TAMPERED = 0, 1
HEAD = Struct("<QB")  # seconds since 1970, kind
MOST = 200
MOST_NAMED = 10
MOST_OF_LABEL = 100


class Notice:
    """`text` is for the token alone, `line` for the log, which is told of no attribute."""

    __slots__ = ("kind", "line", "text")

    def __init__(self, kind: int, text: str, line: str = "") -> None:
        self.kind = kind
        self.text = text
        self.line = line or text

    @classmethod
    def of(cls, kind: int, what: str, objects: Mapping[int, Attributes | None]) -> Notice:
        """What happened to these objects."""
        numbers = list(objects)[:MOST_NAMED]
        more = f" and {len(objects) - MOST_NAMED} more" if len(objects) > MOST_NAMED else ""
        text = ", ".join(_described(number, objects[number]) for number in numbers)
        line = ", ".join(f"object {number}" for number in numbers)
        return cls(kind, f"{what}: {text}{more}", f"{what}, and counts from now on: {line}{more}")


def _described(number: int, attributes: Attributes | None) -> str:
    """A public object as people know it."""
    if attributes is None:
        return f"object {number}"
    object_class = name_of("CKO", int.from_bytes(attributes.get(CKA.CLASS, b""), "little"))
    label = attributes.get(CKA.LABEL, b"").decode(errors="replace")
    label = label if len(label) <= MOST_OF_LABEL else f"{label[:MOST_OF_LABEL]}..."
    return f"object {number} ({object_class} {label!r})"


def write(database: Database, found: Iterable[Notice], state: State, keys: Keys) -> None:
    """Add notices, within the caller's transaction, to those that `state` has."""
    mac = _hasher(keys)
    for notice in found:
        number, content = state.next_notice, HEAD.pack(int(time.time()), notice.kind) + notice.text.encode()
        database.run("DELETE FROM notice WHERE number = ?", (number,))
        database.run("INSERT INTO notice VALUES (?, ?, ?)", (number, content, _tag(mac, number, content)))
        state.next_notice += 1
    first = state.next_notice - MOST
    if first > state.first_notice:
        state.first_notice = first
        database.run("DELETE FROM notice WHERE number < ?", (first,))


def clear(database: Database, state: State) -> None:
    """Forget all that there are, within the caller's transaction."""
    state.first_notice = state.next_notice
    database.run("DELETE FROM notice")


def read(database: Database, state: State, keys: Keys) -> tuple[list[tuple[int, str]], int]:
    """The kind and text of each, oldest first, and how many are missing or not as they were written.

    Texts begin with the moment since when that is so.
    """
    mac, found = _hasher(keys), []
    statement = "SELECT number, content, mac FROM notice WHERE number >= ? AND number < ? ORDER BY number"
    for number, content, tag in database.rows(statement, (state.first_notice, state.next_notice)):
        try:
            if same_digest(_tag(mac, number, content), tag):
                seconds, kind = HEAD.unpack_from(content)
                since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
                found.append((kind, f"{since}: {content[HEAD.size :].decode()}"))
        except (TypeError, ValueError, OverflowError, error):
            continue
    return found, state.next_notice - state.first_notice - len(found)


def _hasher(keys: Keys) -> Hasher:
    return Hasher(b"keyfob notice", keys.roster)


def _tag(mac: Hasher, number: int, content: bytes) -> bytes:
    return mac(number.to_bytes(8, "little") + content)
