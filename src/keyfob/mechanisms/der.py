"""The little of DER (X.690) that keys need: writing elements, and reading them strictly.

Reading refuses whatever DER forbids (indefinite and padded lengths, anything left over), with ValueError; the texts of
these errors never hold content.
"""

from __future__ import annotations

INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
NULL = 0x05
OBJECT_IDENTIFIER = 0x06
PRINTABLE_STRING = 0x13
SEQUENCE = 0x30
CONTEXT_0 = 0xA0
CONTEXT_1 = 0xA1


def element(tag: int, *contents: bytes) -> bytes:
    """One element of the one-byte `tag`, holding the contents one after the other."""
    content = b"".join(contents)
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content


def integer(value: int) -> bytes:
    """INTEGER of a number that is not negative."""
    return element(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def bit_string(content: bytes) -> bytes:
    """BIT STRING of whole bytes."""
    return element(BIT_STRING, b"\0", content)


def object_identifier(dotted: str) -> bytes:
    """OBJECT IDENTIFIER from its dotted form, e.g. "1.2.840.10045.2.1"."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    content = bytearray()
    for arc in (40 * first + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | (arc & 0x7F))
        content += bytes(reversed(groups))
    return element(OBJECT_IDENTIFIER, bytes(content))


class Reader:
    """Reads the elements of one DER value one after the other."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.end = len(data)

    def next_tag(self) -> int | None:
        """The tag of the element to come; None at the end."""
        return self.data[self.position] if self.position < self.end else None

    def read(self, tag: int) -> bytes:
        """The content of the next element, which must have this tag."""
        return self._next(tag)[1]

    def read_whole(self, tag: int) -> bytes:
        """The next element, tag and length included."""
        return self._next(tag)[0]

    def read_integer(self) -> int:
        """An INTEGER that is not negative."""
        content = self.read(INTEGER)
        if not content or content[0] & 0x80 or (len(content) > 1 and content[0] == 0 and not content[1] & 0x80):
            raise ValueError("not a DER number of zero or more")
        return int.from_bytes(content, "big")

    def read_bit_string(self) -> bytes:
        """A BIT STRING of whole bytes."""
        content = self.read(BIT_STRING)
        if not content or content[0] != 0:
            raise ValueError("not a bit string of whole bytes")
        return content[1:]

    def enter(self, tag: int) -> Reader:
        """A reader over the content of the next element."""
        return Reader(self.read(tag))

    def finish(self) -> None:
        """Nothing may follow."""
        if self.position != self.end:
            raise ValueError("bytes are left over at the end of a DER value")

    def _next(self, tag: int) -> tuple[bytes, bytes]:
        start = self.position
        if self.next_tag() != tag:
            raise ValueError(f"no DER element of tag 0x{tag:02X} where one must be")
        header = self.data[start + 1 : start + 6]
        if not header:
            raise ValueError("a DER element is cut short")
        length, size = header[0], 0
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(header[1 : 1 + size], "big")
            if not 1 <= size <= 4 or len(header) < 1 + size or length < 0x80 or header[1] == 0:
                raise ValueError("the length of a DER element is malformed")
        content = start + 2 + size
        if content + length > self.end:
            raise ValueError("a DER element is cut short")
        self.position = content + length
        return self.data[start : self.position], self.data[content : self.position]
