"""The file of `keyfob backup`: one token under a passphrase, in pieces that fit no other place (docs/backup.md).

    head      8 bytes "KFBACKUP", 1 byte version (1), Argon2id's memory in KiB, iterations and lanes (4 bytes each),
              16 bytes salt; all numbers little-endian
    32 bytes  keyed BLAKE2b of the head: tells a wrong passphrase before anything is opened, and commits to the key
    chunks    64 KiB of records each, the last one 1 byte to 64 KiB: AES-256-GCM, 16 bytes of tag behind it

Argon2id makes 64 bytes of passphrase and salt: the key of the chunks, the key of the head. A chunk's nonce is its
number (11 bytes, big-endian) and 1 for the last one, 0 for others (the STREAM construction): a chunk that is missing,
doubled, moved or appended does not open. The key is new with each file, so no nonce is ever used twice.

    record    1 byte kind, 4 bytes length, body
      "T"     first: the facts of the token, JSON
      "O"     one object each, as store/record.py writes it
      "E"     last: the number of objects, 8 bytes
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import IO, TYPE_CHECKING, Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyfob.cli.errors import Refusal
from keyfob.spec.errors import PKCS11Error
from keyfob.store import seal
from keyfob.store.hardening import Hardening
from keyfob.store.record import decode, encode

if TYPE_CHECKING:
    from keyfob.store import Attributes

MAGIC, VERSION = b"KFBACKUP", 1
HEAD = Struct("<8sBIII16s")
PROOF = 32
CHUNK = 64 * 1024
TAG = 16
RECORD = Struct("<cI")
COUNT = Struct("<Q")
FACTS, OBJECT, END = b"T", b"O", b"E"
# A passphrase is guessed at leisure, on a copy: four times the memory of a PIN, which a token also counts.
HARDENING = Hardening(memory_kib=256 * 1024, iterations=3)
DAMAGED = "{} is damaged, or was changed: nothing of it was taken"


class Writer:
    """Writes a backup to an open file; `finish` must be the end."""

    def __init__(self, file: IO[bytes], passphrase: bytes, facts: dict[str, Any]) -> None:
        self._file = file
        self._pending = bytearray()
        self._number = 0
        self._objects = 0
        salt = os.urandom(16)
        hardening = HARDENING
        head = HEAD.pack(MAGIC, VERSION, hardening.memory_kib, hardening.iterations, hardening.lanes, salt)
        self._aead, proof = _keys(head, passphrase, hardening, salt)
        file.write(head + proof)
        self._record(FACTS, json.dumps(facts, sort_keys=True).encode())

    def add(self, attributes: Attributes) -> None:
        self._record(OBJECT, encode(attributes))
        self._objects += 1

    def finish(self) -> None:
        self._record(END, COUNT.pack(self._objects))
        self._seal(len(self._pending), last=True)

    def _record(self, kind: bytes, body: bytes) -> None:
        self._pending += RECORD.pack(kind, len(body)) + body
        while len(self._pending) > CHUNK:  # a full one may be the last, so it waits for more
            self._seal(CHUNK, last=False)

    def _seal(self, length: int, *, last: bool) -> None:
        self._file.write(self._aead.encrypt(_nonce(self._number, last=last), bytes(self._pending[:length]), None))
        del self._pending[:length]
        self._number += 1


class Backup:
    """A backup that is there, opened with its passphrase; Refusal for what is wrong. Its file stays open until `close`.

    `facts` are the token's; `count` its objects, as the file says.
    """

    def __init__(self, path: str, passphrase: bytes) -> None:
        self.path = path
        self._file: IO[bytes] = open(path, "rb")  # noqa: SIM115 - closed by `close`
        try:
            self._drop_from_memory()
            self._aead = self._unlock(passphrase)
            self.facts: dict[str, Any] = json.loads(next(self._records())[1])
            self.count = int(self.facts["objects"])
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def objects(self) -> Iterator[Attributes]:
        """Every object in order. Refusal at the first piece that does not fit: only then is the file known to be whole.

        Nothing may be kept of a first pass that did not come to its end.
        """
        seen = 0
        for kind, body in self._records():
            if kind == OBJECT:
                yield self._decoded(body)
                seen += 1
            elif kind == END and body != COUNT.pack(seen):
                raise self._damaged()
        if seen != self.count:
            raise self._damaged()

    def _drop_from_memory(self) -> None:
        """What is read comes from the disk, not from what the system remembers of writing it."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def _unlock(self, passphrase: bytes) -> AESGCM:
        head = self._file.read(HEAD.size)
        if len(head) < HEAD.size or not head.startswith(MAGIC):
            raise Refusal(f"{self.path} is no backup of keyfob's")
        _, version, memory_kib, iterations, lanes, salt = HEAD.unpack(head)
        if version != VERSION:
            raise Refusal(f"{self.path} has version {version} of the format, made by a newer keyfob; this one reads 1")
        try:
            hardening = Hardening.stored(memory_kib, iterations, lanes)
        except PKCS11Error:
            raise self._damaged() from None
        aead, proof = _keys(head, passphrase, hardening, salt)
        if not hmac.compare_digest(self._file.read(PROOF), proof):
            raise Refusal(
                f"{self.path} does not open: the passphrase is wrong, or the beginning of the file is damaged"
            )
        return aead

    def _chunks(self) -> Iterator[bytes]:
        rest = os.fstat(self._file.fileno()).st_size - HEAD.size - PROOF
        self._file.seek(HEAD.size + PROOF)
        number = 0
        while True:
            last = rest <= CHUNK + TAG
            sealed = self._file.read(CHUNK + TAG)
            try:
                yield self._aead.decrypt(_nonce(number, last=last), sealed, None)
            except (InvalidTag, ValueError):
                raise self._damaged() from None
            if last:
                return
            number += 1
            rest -= len(sealed)

    def _records(self) -> Iterator[tuple[bytes, bytes]]:
        pending = bytearray()
        chunks = self._chunks()
        kind = b""
        while kind != END:
            while len(pending) < RECORD.size or len(pending) < RECORD.size + RECORD.unpack_from(pending)[1]:
                pending += next(chunks, b"") or self._raise_damaged()
            kind, length = RECORD.unpack_from(pending)
            end = RECORD.size + length
            body = bytes(pending[RECORD.size : end])
            del pending[:end]
            if kind == END and (pending or next(chunks, None) is not None):
                raise self._damaged()
            yield kind, body

    def _decoded(self, body: bytes) -> Attributes:
        try:
            return decode(body)
        except ValueError:
            raise self._damaged() from None

    def _damaged(self) -> Refusal:
        return Refusal(DAMAGED.format(self.path))

    def _raise_damaged(self) -> bytes:
        raise self._damaged()


class Chosen(Sequence["Attributes"]):
    """Some of a backup's objects for Store.insert, read from the file each time that they are gone through.

    `places` are their numbers in the file, ascending; `changes`: attributes that some of them get instead, by place.
    """

    def __init__(self, backup: Backup, places: list[int], changes: dict[int, Attributes]) -> None:
        self._backup = backup
        self._places = places
        self._changes = changes

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Attributes]:
        wanted = iter(self._places)
        place = next(wanted, None)
        for i, attributes in enumerate(self._backup.objects()):
            if i == place:
                yield attributes | self._changes.get(i, {})
                place = next(wanted, None)

    def __getitem__(self, index: Any) -> Any:
        raise TypeError("the objects of a backup are read in their order")


def _keys(head: bytes, passphrase: bytes, hardening: Hardening, salt: bytes) -> tuple[AESGCM, bytes]:
    """What opens the chunks, and the proof that belongs to the head."""
    try:
        made = seal.harden(passphrase, salt, hardening, length=64)
    except PKCS11Error:
        raise Refusal(f"there are no {hardening.memory_kib // 1024} MiB of memory for the passphrase") from None
    return AESGCM(made[:32]), hashlib.blake2b(head, key=made[32:], digest_size=PROOF, person=b"keyfob backup").digest()


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes((last,))
