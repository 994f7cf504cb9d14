"""The pepper: a file that every check of a PIN needs beside the PIN, so that a stolen token alone cannot be guessed at.

    content of the file --BLAKE2b--> 32 bytes, which are Argon2id's secret K (RFC 9106, 3.1) beside PIN and salt

The token says in its settings that its PINs are made with a pepper, and by what to tell the right one, but not where it
is: that is the configuration's to say, since whoever can write the token could name any file. Each wrapping of the
master key says so for itself (seal.py), since the PINs of user and SO come to another pepper one after the other:

    identity  8 random bytes, 4 bytes of BLAKE2b over them, keyed with those 32

Four bytes are enough to notice a wrong file before a PIN is called wrong, and of little help to somebody who guesses
at a pepper that was not drawn at random. The random ones keep two tokens with one pepper from looking alike.
"""

from __future__ import annotations

import os
from _blake2 import blake2b

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import secret_file
from keyfob.store.integrity import same_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from keyfob.config import Config

LEAST, MOST = 16, 4096  # bytes
SALT, TAG = 8, 4
IDENTITY = SALT + TAG
# The token's settings (TokenInfo.settings), as text. No identity: PINs are made without a pepper. Where the file was is
# what older versions wrote; it counts for nothing.
SETTING, FILE_SETTING = "pepper", "pepper_file"
LONGEST_SHOWN = 200


class Pepper:
    """`identity` tells it from others, `location` is where its file is (secret_file.py)."""

    __slots__ = ("identity", "location", "secret")

    def __init__(self, content: bytes, location: str, identity: bytes | None = None) -> None:
        """`identity`: None for a token that gets this pepper now. CKR_DEVICE_ERROR when it is another pepper's."""
        if not LEAST <= len(content) <= MOST:
            raise PKCS11Error(CKR.DEVICE_ERROR, f"{location}: a pepper has {LEAST} to {MOST} bytes")
        self.location = location
        self.secret = blake2b(content, digest_size=32, person=b"keyfob pepper").digest()
        self.identity = self._identity(os.urandom(SALT)) if identity is None else identity
        if not same_digest(self._identity(self.identity[:SALT]), self.identity):
            raise PKCS11Error(CKR.DEVICE_ERROR, f"{location} is not the pepper that the token's PINs were made with")

    def _identity(self, salt: bytes) -> bytes:
        return salt + blake2b(salt, digest_size=TAG, key=self.secret, person=b"keyfob pepper id").digest()


class PepperState:
    """For people. `location`: where it was found; `problem`: why it was not; `roles`: whose PINs need it."""

    __slots__ = ("location", "problem", "roles")

    def __init__(self, location: str, problem: str, roles: tuple[str, ...]) -> None:
        self.location = location
        self.problem = problem
        self.roles = roles


class Peppers:
    """Where a token's pepper is looked for: where `[token."..."] pepper` of the configuration says, only there."""

    __slots__ = ("_config", "_given", "_tell")

    def __init__(self, config: Config | None, tell: Callable[[str], None]) -> None:
        self._config = config
        self._given: tuple[str, ...] = ()  # by whoever has set it in this process
        self._tell = tell

    def new(self, location: str) -> Pepper:
        """What a token gets from now on."""
        made = Pepper(self._read(location), secret_file.written(location))
        self._given = (made.location, *self._given)
        return made

    def known(self, identity: bytes, label: str, settings: Mapping[str, str]) -> Pepper:
        """The one that was used; CKR_DEVICE_ERROR when its file is missing, unreadable or another one.

        A program that has been running for a while looks at the configuration again before it says so.
        """
        problem: PKCS11Error | None = None
        for location in self._locations(label):
            try:
                return Pepper(self._read(location), location, identity)
            except PKCS11Error as found:
                problem = problem or found
        raise problem or PKCS11Error(CKR.DEVICE_ERROR, self._nowhere(label, settings))

    def _locations(self, label: str) -> Iterator[str]:
        config = self._config
        if config is None:
            yield from self._given
            return
        known = tuple(dict.fromkeys((*config.token(label).peppers, *self._given)))
        yield from known
        yield from (location for location in config.again().token(label).peppers if location not in known)

    def _nowhere(self, label: str, settings: Mapping[str, str]) -> str:
        place = "config.toml" if self._config is None else self._config.file
        text = f'the PIN was made with a pepper; where that is belongs into {place}: [token."{label}"] pepper'
        old = settings.get(FILE_SETTING, "")[:LONGEST_SHOWN]
        return f"{text} (the token says {old}, which counts for nothing)" if old else text

    def _read(self, location: str) -> bytes:
        credentials = self._config.credentials if self._config is not None else ""
        try:
            return secret_file.read(location, credentials, MOST, self._tell)
        except PKCS11Error as problem:
            raise PKCS11Error(problem.rv, f"the pepper {problem.reason}") from None


def identity_in(settings: Mapping[str, str]) -> bytes:
    """Of the pepper that new PINs get; empty for none. CKR_DEVICE_ERROR when it is not understood."""
    try:
        identity = bytes.fromhex(settings.get(SETTING, ""))
    except ValueError:
        identity = b"?"
    if len(identity) not in (0, IDENTITY):
        raise PKCS11Error(CKR.DEVICE_ERROR, "meta settings: the pepper is not understood")
    return identity


def kept(settings: Mapping[str, str]) -> dict[str, str]:
    """What C_InitToken leaves of the settings."""
    return {name: value for name, value in settings.items() if name == SETTING}


def with_pepper(settings: Mapping[str, str], pepper: Pepper | None) -> dict[str, str]:
    """The settings of a token whose PINs are made with this one from now on; None: with none."""
    others = {name: value for name, value in settings.items() if name not in (SETTING, FILE_SETTING)}
    return others if pepper is None else others | {SETTING: pepper.identity.hex()}
