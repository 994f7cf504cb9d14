"""What an attacker has and knows who may call everything (Delaune, Kremer, Steel 2008; Bortolozzo et al. 2010).

He drives keyfob's own functions (keyfob.functions) on a token of keyfob's own, so what decides is the rule code that
programs meet, with real AES: no rule is written down a second time here. Only what he computes by himself is modelled.

Nothing is ever lost to him: each state of a key stays beside what he turns it into, for he could have used it before
(`World.twin`). So his possessions only grow, and the search is over when they do not (search.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import NamedTuple

from keyfob.config import Config
from keyfob.functions import encryption, objects
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO
from keyfob.spec.errors import PKCS11Error
from keyfob.spec.traits import hides
from keyfob.token.object import FALSE, TRUE, Object, ulong
from keyfob.token.objects import new_handle
from keyfob.token.session import DECRYPT, ENCRYPT
from keyfob.token.token import Token

Attributes = dict[int, bytes]
Template = list[tuple[int, bytes]]

SIZE = 16
ROOM = 1 << 16
# Not of any rule: what differs between two keys that are the same to an attacker.
INDIFFERENT = (CKA.UNIQUE_ID, CKA.ID, CKA.LABEL, CKA.START_DATE, CKA.END_DATE)
# What can be found by trying all values.
GUESSABLE = 14
# Several keys side by side: with a few bytes of one known, or changed alone, it is found by itself. From the standard,
# not from the module, which says so of its key classes (PART_BITS).
DES_TYPES = tuple(map(ulong, (CKK.DES2, CKK.DES3)))
TYPES_IN_PARTS = (*DES_TYPES, ulong(CKK.AES_XTS))


class Fact(NamedTuple):
    """Something that he has, how he came to it (a line of the attack), and from what."""

    name: str
    how: str
    parents: tuple[Fact, ...]


class Key(NamedTuple):
    """A key on the token in one of its states."""

    fact: Fact
    handle: int
    attributes: Attributes

    @property
    def value(self) -> bytes:
        return self.attributes[CKA.VALUE]

    @property
    def is_secret(self) -> bool:
        return self.attributes[CKA.CLASS] == ulong(CKO.SECRET_KEY)


class Blob(NamedTuple):
    """What came out encrypted, and what the harness (not the attacker) knows about it."""

    fact: Fact
    data: bytes
    mechanism: int
    key_value: bytes
    plain: bytes


class Link(NamedTuple):
    """How a value follows from others: who knows all of `sources` computes `result`.

    `shows`: pieces (whole value, offset, piece) that whoever knows `result` knows.
    """

    fact: Fact
    sources: tuple[bytes, ...]
    result: bytes
    shows: tuple[tuple[bytes, int, bytes], ...]


def _no_store(label: str, pin: bytes) -> object:
    raise AssertionError("the attacker makes no token")


class World:
    """A token on which the user is logged in: the attacker has his session."""

    def __init__(self) -> None:
        config = Config("", "", "/nonexistent/keyfob.log")
        config.max_objects = 1 << 20
        self.token = Token(1, _no_store, config)  # type: ignore[arg-type]  # never called
        self.token.role = "user"
        self.session = self.token.open_session(CKF.SERIAL_SESSION | CKF.RW_SESSION)
        self.keys: dict[tuple[object, ...], Key] = {}
        self.known: dict[bytes, Fact] = {}
        self.blobs: dict[tuple[int, bytes], Blob] = {}
        self.links: dict[tuple[object, ...], Link] = {}
        self.pieces: dict[bytes, dict[int, Fact]] = {}  # by whole value: which of its bytes he knows
        self.decrypting: dict[bytes, Fact] = {}  # by a key's value: that C_Decrypt (ECB) is allowed with it
        self.encrypting: dict[bytes, Fact] = {}
        self.depth: dict[bytes, int] = {}  # of values that come from the target's: how many derivations from it
        self.generated: set[bytes] = set()
        self.wrapped: set[tuple[int, bytes, bytes]] = set()  # (mechanism, value of the wrapping key, wrapped value)
        self.targets: dict[bytes, str] = {}
        self.owned: dict[bytes, Attributes] = {}  # by a target's value: what its owner made it
        self.doubled: dict[bytes, Fact] = {}  # by a key's value: that there is a second object with it
        self.shown: set[bytes] = set()  # values with bytes of a target in them, of keys that hide it
        self.in_parts: dict[bytes, Fact] = {}  # by value: that the module uses it as several keys side by side
        self.calls = 0

    # Asking the module

    def attempt(self, call: Callable[[], int]) -> int | None:
        """The handle, or None where the module refuses."""
        self.calls += 1
        try:
            return call()
        except PKCS11Error:
            self.session.operations.clear()
            return None

    def attempt_bytes(self, call: Callable[[], bytes | int]) -> bytes | None:
        self.calls += 1
        try:
            data = call()
        except PKCS11Error:
            self.session.operations.clear()
            return None
        assert isinstance(data, bytes)
        return data

    def encrypt(self, key: Key, mechanism: int, parameter: object, data: bytes) -> bytes | None:
        def call() -> bytes | int:
            encryption.C_EncryptInit(self.session, (mechanism, parameter), key.handle)
            return encryption.C_Encrypt(self.session, data, ROOM)

        self.session.operations.pop(ENCRYPT, None)
        return self.attempt_bytes(call)

    def decrypt(self, key: Key, mechanism: int, parameter: object, data: bytes) -> bytes | None:
        def call() -> bytes | int:
            encryption.C_DecryptInit(self.session, (mechanism, parameter), key.handle)
            return encryption.C_Decrypt(self.session, data, ROOM)

        self.session.operations.pop(DECRYPT, None)
        return self.attempt_bytes(call)

    def read(self, key: Key, attribute: int) -> bytes | None:
        value, problem = objects.attribute_of(self.token.objects.get(key.handle), attribute)
        return value if problem == 0 else None

    def twin(self, key: Key) -> int:
        """The key as it is now, once more: he could have kept it so."""
        handle = new_handle()
        self.token.objects.in_memory.add([Object(self.token, handle, dict(key.attributes), owner=self.session.handle)])
        return handle

    # What he gains

    def gain_key(self, handle: int, name: str, how: str, parents: tuple[Fact, ...]) -> Key:
        """The key, or one just like it that he has already."""
        attributes = self.token.objects.get(handle).attributes
        state = tuple(sorted((a, v) for a, v in attributes.items() if a not in INDIFFERENT))
        if state in self.keys:
            self.token.objects.in_memory.drop(handle)
            return self.keys[state]
        key = self.keys[state] = Key(Fact(name, how, parents), handle, attributes)
        return key

    def learn(self, value: bytes, name: str, how: str, parents: tuple[Fact, ...]) -> bool:
        if value in self.known:
            return False
        self.known[value] = Fact(name, how, parents)
        return True

    def gain_blob(self, blob: Blob) -> None:
        self.blobs.setdefault((blob.mechanism, blob.data), blob)

    def link(self, link: Link) -> None:
        self.links.setdefault((link.sources, link.result, link.shows), link)

    def matters(self, value: bytes) -> bool:
        """Whether the value comes from the target's or was generated here.

        More values would be these over again: an unknown one behaves as a generated one, a known one as his own.
        """
        return value in self.depth or value in self.generated

    def name(self, value: bytes) -> str:
        return self.targets.get(value) or (self.known[value].name if value in self.known else "a secret value")

    # What is won

    def reached(self) -> Iterator[tuple[str, Fact]]:
        """The targets whose value he knows, and every key of which the token says that its value was always secret."""
        for value, name in self.targets.items():
            if value in self.known:
                yield f"knows {name}", self.known[value]

    def certified(self) -> Iterator[tuple[str, Fact]]:
        """Keys that are CKA_ALWAYS_SENSITIVE and whose value he knows."""
        for key in self.keys.values():
            if key.is_secret and key.attributes[CKA.ALWAYS_SENSITIVE] == TRUE and key.value in self.known:
                yield f"knows the value of {key.fact.name}, which is CKA_ALWAYS_SENSITIVE", self.known[key.value]

    def freed(self) -> Iterator[tuple[str, Fact]]:
        """Keys with a target's value that may do what its owner ruled out for good; and keys in parts of its bytes."""
        for value, made in self.owned.items():
            if made[CKA.COPYABLE] == FALSE and value in self.doubled:
                yield "has a copy of the target", self.doubled[value]
        for key in filter(attrgetter("is_secret"), self.keys.values()):
            target = self.owned.get(key.value)
            if target is not None:
                if target[CKA.PRIVATE] == TRUE and key.attributes[CKA.PRIVATE] != TRUE:
                    yield f"has {key.fact.name}, which is the target for all without a login", key.fact
                if target[CKA.MODIFIABLE] == FALSE:
                    if key.attributes[CKA.MODIFIABLE] != FALSE:
                        yield f"has {key.fact.name}, which is the target and can be modified", key.fact
                    if any(key.attributes.get(usage) == TRUE and target.get(usage) != TRUE for usage in ALL):
                        yield f"has {key.fact.name}, which is the target with another usage", key.fact
            if key.attributes[CKA.KEY_TYPE] in TYPES_IN_PARTS and key.value in self.shown:
                yield f"has {key.fact.name}, whose parts are found one by one", key.fact
            elif key.attributes[CKA.KEY_TYPE] in DES_TYPES and self.depth.get(key.value) and hides(key.attributes):
                yield f"has {key.fact.name}, which is another key as well, and found in parts", key.fact
            elif key.value in self.in_parts:
                yield f"has {key.fact.name}, which is used in parts", self.in_parts[key.value]


def secret(*usages: int, sensitive: bool, extractable: bool, kind: int = CKK.AES, **more: bytes) -> Attributes:
    """A template of a secret key with these usages and no other."""
    every = (
        *(CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY),
        *(CKA.WRAP, CKA.UNWRAP, CKA.DERIVE),
    )
    return {
        CKA.CLASS: ulong(CKO.SECRET_KEY),
        CKA.KEY_TYPE: ulong(kind),
        **{usage: TRUE if usage in usages else FALSE for usage in every},
        CKA.SENSITIVE: TRUE if sensitive else FALSE,
        CKA.EXTRACTABLE: TRUE if extractable else FALSE,
        **{getattr(CKA, name): value for name, value in more.items()},
    }


CIPHER, MAC, WRAPPING, DERIVATION = (
    (CKA.ENCRYPT, CKA.DECRYPT),
    (CKA.SIGN, CKA.VERIFY),
    (CKA.WRAP, CKA.UNWRAP),
    (CKA.DERIVE,),
)
ROLES = (CIPHER, MAC, WRAPPING, DERIVATION)
ALL = tuple(usage for role in ROLES for usage in role)
ROLE_NAMES = {CIPHER: "cipher", MAC: "MAC", WRAPPING: "wrapping", DERIVATION: "derivation", ALL: "every"}
PROTECTIONS = ((False, True), (True, True), (True, False))  # (sensitive, extractable)


def guessable(key: Key) -> bool:
    return key.is_secret and len(key.value) < GUESSABLE and hides(key.attributes)


def described(attributes: Attributes) -> str:
    """The attributes of a template that matter, in a line."""
    usages = tuple(usage for usage in ALL if attributes.get(usage) == TRUE)
    role = ROLE_NAMES.get(usages, "no" if not usages else "mixed")
    flags = [
        f"{name} {'TRUE' if attributes[attribute] == TRUE else 'FALSE'}"
        for attribute, name in (
            (CKA.SENSITIVE, "SENSITIVE"),
            (CKA.EXTRACTABLE, "EXTRACTABLE"),
            (CKA.WRAP_WITH_TRUSTED, "WRAP_WITH_TRUSTED"),
            (CKA.PRIVATE, "PRIVATE"),
            (CKA.MODIFIABLE, "MODIFIABLE"),
        )
        if attribute in attributes
    ]
    return f"{{{role} usage, {', '.join(flags)}}}" if flags else f"{{{role} usage}}"


ECB, CBC, GCM, KEY_WRAP = CKM.AES_ECB, CKM.AES_CBC, CKM.AES_GCM, CKM.AES_KEY_WRAP
