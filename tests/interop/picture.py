"""Pictures of a screen: read from an X server's framebuffer, cut, and written as PNG."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

_XWD_VERSION = 7
_BYTES_PER_PIXEL = 4
_COLOUR_ENTRY = 12
"""Bytes of one entry of an XWD file's colour map."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Rows of pixels, three bytes (red, green, blue) each."""

    width: int
    rows: list[bytes]

    def cut(self, left: int, top: int, width: int, height: int) -> Picture:
        """The part of this size that begins at (`left`, `top`)."""
        return Picture(width, [row[3 * left : 3 * (left + width)] for row in self.rows[top : top + height]])

    def png(self) -> bytes:
        """The picture as a PNG file: with a palette where 256 colours do, which a window's flat areas mostly allow."""
        colours = sorted({row[at : at + 3] for row in self.rows for at in range(0, len(row), 3)})
        header = struct.pack(">II", self.width, len(self.rows))
        if len(colours) <= 256:
            index = {colour: bytes([number]) for number, colour in enumerate(colours)}
            rows = [b"".join(index[row[at : at + 3]] for at in range(0, len(row), 3)) for row in self.rows]
            chunks = [(b"IHDR", header + b"\x08\x03\0\0\0"), (b"PLTE", b"".join(colours))]
        else:
            rows = self.rows
            chunks = [(b"IHDR", header + b"\x08\x02\0\0\0")]
        plain = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
        above = bytes(len(rows[0]))
        differences = []
        for row in rows:
            differences.append(b"\2" + bytes((new - old) & 0xFF for new, old in zip(row, above, strict=True)))
            above = row
        chunks += [(b"IDAT", min(plain, zlib.compress(b"".join(differences), 9), key=len)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def read_xwd(dump: bytes) -> Picture:
    """The picture in an X window dump (XWDFile.h) of 32-bit pixels in the order blue, green, red, unused."""
    size, version, _format, _depth, width, height, _offset, little_endian = struct.unpack_from(">8I", dump)
    bits_per_pixel, line = struct.unpack_from(">2I", dump, 44)
    colours = struct.unpack_from(">I", dump, 76)[0]
    assert (version, bits_per_pixel, little_endian) == (_XWD_VERSION, 8 * _BYTES_PER_PIXEL, 0), "not the dump expected"
    start = size + _COLOUR_ENTRY * colours
    rows = []
    for number in range(height):
        row = dump[start + number * line : start + number * line + _BYTES_PER_PIXEL * width]
        pixels = bytearray(3 * width)
        pixels[0::3], pixels[1::3], pixels[2::3] = row[2::4], row[1::4], row[0::4]
        rows.append(bytes(pixels))
    return Picture(width, rows)
