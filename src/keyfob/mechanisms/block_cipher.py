"""Block ciphers in the plain modes, for AES and triple DES: ECB, CBC, CBC with padding, CFB, OFB, CMAC and CBC-MAC.

Every operation is given `cipher_of`, which makes the library's cipher object of a key and refuses a key of wrong
length, and `mode_of`, which makes the mode of the mechanism's parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from cryptography.hazmat.decrepit.ciphers.modes import CFB, CFB8, OFB
from cryptography.hazmat.primitives.ciphers import BlockCipherAlgorithm, Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB, Mode
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.padding import PKCS7

from keyfob.mechanisms.base import Key, twin
from keyfob.mechanisms.secret_key import no_parameter, prepared
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.spec.parameters import AesCbcEncryptDataParams, DesCbcEncryptDataParams, KeyDerivationStringDataParams

if TYPE_CHECKING:
    from keyfob.mechanisms.mac import MacContext

CipherOf = Callable[[Key], BlockCipherAlgorithm]
ModeOf = Callable[[object, int], Mode]


def _vector(parameter: object, block: int) -> bytes:
    if not isinstance(parameter, bytes) or len(parameter) != block:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, f"the initialization vector must have {block} bytes")
    return parameter


def ecb(parameter: object, block: int) -> Mode:
    no_parameter(parameter)
    return ECB()  # noqa: S305 - the caller's choice


def cbc(parameter: object, block: int) -> Mode:
    return CBC(_vector(parameter, block))


def cfb(parameter: object, block: int) -> Mode:
    return CFB(_vector(parameter, block))


def cfb8(parameter: object, block: int) -> Mode:
    return CFB8(_vector(parameter, block))


def ofb(parameter: object, block: int) -> Mode:
    return OFB(_vector(parameter, block))


def encryptor(cipher: BlockCipherAlgorithm, mode: Mode) -> CipherContext:
    context: CipherContext = Cipher[Any](cipher, mode).encryptor()
    return context


def decryptor(cipher: BlockCipherAlgorithm, mode: Mode) -> CipherContext:
    context: CipherContext = Cipher[Any](cipher, mode).decryptor()
    return context


class WholeBlocks:
    """Cipher for data that must be a multiple of the block (ECB, CBC). Parts may have any length; their sum may not.

    The library's contexts cannot be copied, so what a new one would have to start from is kept: the last block of
    ciphertext (CBC), and the bytes given since.
    """

    __slots__ = ("_block", "_cipher", "_context", "_mode_of", "_pending", "_vector")

    exact: ClassVar[bool] = True
    WRONG_LENGTH: ClassVar[int]

    def __init__(self, cipher_of: CipherOf, mode_of: ModeOf, key: Key, parameter: object) -> None:
        self._cipher = cipher_of(key)
        self._block = self._cipher.block_size // 8
        self._mode_of = mode_of
        self._vector = parameter
        self._context = self.start(self._cipher, mode_of(parameter, self._block))
        self._pending = b""  # given, and not enough for a block yet; the context holds it too

    @staticmethod
    def start(cipher: BlockCipherAlgorithm, mode: Mode) -> CipherContext:
        raise NotImplementedError

    @staticmethod
    def ciphertext(data: bytes, output: bytes) -> bytes:
        """Which of what came in and what went out is the ciphertext."""
        raise NotImplementedError

    def run(self, data: bytes) -> bytes:
        if len(data) % self._block:
            raise self._wrong_length()
        return self._context.update(data)

    def size(self, length: int) -> int:
        return length

    def update(self, part: bytes) -> bytes:
        block = self._block
        data = self._pending + part if self._pending else part
        whole = len(data) - len(data) % block
        output = self._context.update(part)
        if whole:
            if self._vector:
                self._vector = self.ciphertext(data[whole - block : whole], output[-block:])
            data = data[whole:]
        self._pending = data
        return output

    def update_size(self, length: int) -> int:
        return (len(self._pending) + length) // self._block * self._block

    def final(self) -> bytes:
        if self._pending:
            raise self._wrong_length()
        return b""

    def final_size(self) -> int:
        return 0

    def copy(self) -> WholeBlocks:
        context = self.start(self._cipher, self._mode_of(self._vector, self._block))
        context.update(self._pending)
        return twin(self, _context=context)

    def _wrong_length(self) -> PKCS11Error:
        return PKCS11Error(self.WRONG_LENGTH, f"the data is no multiple of {self._block} bytes")


class BlocksEncrypt(WholeBlocks):
    __slots__ = ()
    start = staticmethod(encryptor)
    WRONG_LENGTH = CKR.DATA_LEN_RANGE

    @staticmethod
    def ciphertext(data: bytes, output: bytes) -> bytes:
        return output


class BlocksDecrypt(WholeBlocks):
    __slots__ = ()
    start = staticmethod(decryptor)
    WRONG_LENGTH = CKR.ENCRYPTED_DATA_LEN_RANGE

    @staticmethod
    def ciphertext(data: bytes, output: bytes) -> bytes:
        return data


class PaddedEncrypt(BlocksEncrypt):
    """Cipher that pads as PKCS #7 says: 1 to `block` bytes more."""

    __slots__ = ()

    def run(self, data: bytes) -> bytes:
        return self._context.update(data) + self._padding(len(data) % self._block)

    def size(self, length: int) -> int:
        return (length // self._block + 1) * self._block

    def final(self) -> bytes:
        return self._padding(len(self._pending))

    def final_size(self) -> int:
        return self._block

    def _padding(self, pending: int) -> bytes:
        missing = self._block - pending
        return self._context.update(bytes((missing,)) * missing)


class PaddedDecrypt:
    """Cipher that removes PKCS #7 padding. The last block is kept back until final(), which checks and strips it.

    One code and one reason for every wrong padding, and the check takes the same time for all of them; still, a caller
    who lets strangers send ciphertext to CBC without a MAC builds a padding oracle, whatever this class does.
    """

    __slots__ = ("_block", "_cipher", "_context", "_held", "_mode_of", "_vector")

    exact: ClassVar[bool] = False

    def __init__(self, cipher_of: CipherOf, mode_of: ModeOf, key: Key, parameter: object) -> None:
        self._cipher = cipher_of(key)
        self._block = self._cipher.block_size // 8
        self._mode_of = mode_of
        self._vector = parameter
        self._context = decryptor(self._cipher, mode_of(parameter, self._block))
        self._held = b""  # ciphertext not given to the context yet: 1 to `block` bytes once anything has come

    def run(self, data: bytes) -> bytes:
        return self.update(data) + self.final()

    def size(self, length: int) -> int:
        return length

    def update(self, part: bytes) -> bytes:
        ready = self.update_size(len(part))
        data = self._held + part
        self._held = data[ready:]
        if not ready:
            return b""
        self._vector = data[ready - self._block : ready]
        return self._context.update(data[:ready])

    def update_size(self, length: int) -> int:
        return max(len(self._held) + length - 1, 0) // self._block * self._block

    def final(self) -> bytes:
        if len(self._held) != self._block:
            raise PKCS11Error(CKR.ENCRYPTED_DATA_LEN_RANGE, f"the data is no positive multiple of {self._block} bytes")
        unpadder = PKCS7(self._block * 8).unpadder()
        last = self._context.update(self._held)
        try:
            return unpadder.update(last) + unpadder.finalize()
        except ValueError:
            raise PKCS11Error(CKR.ENCRYPTED_DATA_INVALID, "the padding is wrong") from None

    def final_size(self) -> int:
        return self._block

    def copy(self) -> PaddedDecrypt:
        return twin(self, _context=decryptor(self._cipher, self._mode_of(self._vector, self._block)))


class Stream:
    """Cipher whose output is as long as its input, byte by byte (CFB, OFB)."""

    __slots__ = ("_context",)

    exact: ClassVar[bool] = True

    def __init__(self, cipher_of: CipherOf, mode_of: ModeOf, key: Key, parameter: object) -> None:
        cipher = cipher_of(key)
        self._context = self.start(cipher, mode_of(parameter, cipher.block_size // 8))

    @staticmethod
    def start(cipher: BlockCipherAlgorithm, mode: Mode) -> CipherContext:
        raise NotImplementedError

    def run(self, data: bytes) -> bytes:
        return self._context.update(data)

    def size(self, length: int) -> int:
        return length

    def update(self, part: bytes) -> bytes:
        return self._context.update(part)

    def update_size(self, length: int) -> int:
        return length

    def final(self) -> bytes:
        return b""

    def final_size(self) -> int:
        return 0


class StreamEncrypt(Stream):
    __slots__ = ()
    start = staticmethod(encryptor)


class StreamDecrypt(Stream):
    __slots__ = ()
    start = staticmethod(decryptor)


class CmacEngine:
    """CMAC (NIST SP 800-38B); the keyed context is made once per key."""

    __slots__ = ("_cipher_of", "size")

    def __init__(self, cipher_of: CipherOf, size: int) -> None:
        self._cipher_of = cipher_of
        self.size = size

    def start(self, key: Key) -> MacContext:
        cipher = self._cipher_of(key)
        return prepared(key, self, lambda _: CMAC(cipher)).copy()


class CbcMacEngine:
    """CBC-MAC as in FIPS PUB 113: zero initialization vector, zero padding."""

    __slots__ = ("_cipher_of", "size")

    def __init__(self, cipher_of: CipherOf, size: int) -> None:
        self._cipher_of = cipher_of
        self.size = size

    def start(self, key: Key) -> MacContext:
        return CbcMac(self._cipher_of(key), self.size)


class CbcMac:
    """Context of a CBC-MAC. No data at all counts as one block of zeros, so that the code depends on the key."""

    __slots__ = ("_block", "_cipher", "_context", "_last", "_pending")

    def __init__(self, cipher: BlockCipherAlgorithm, block: int) -> None:
        self._cipher = cipher
        self._block = block
        self._context = encryptor(cipher, CBC(bytes(block)))
        self._pending = b""  # given, and not enough for a block yet; the context holds it too
        self._last = b""

    def update(self, data: bytes, /) -> None:
        output = self._context.update(data)
        waiting = self._pending + data
        self._pending = waiting[len(waiting) - len(waiting) % self._block :]
        if output:
            self._last = output[-self._block :]

    def finalize(self) -> bytes:
        if self._pending or not self._last:
            self.update(bytes(self._block - len(self._pending)))
        return self._last

    def copy(self) -> CbcMac:
        context = encryptor(self._cipher, CBC(self._last or bytes(self._block)))
        context.update(self._pending)
        return twin(self, _context=context)


def encrypt_data(cipher_of: CipherOf, key: Key, parameter: object, length: int | None) -> bytes:
    """CKM_*_ECB_ENCRYPT_DATA, CKM_*_CBC_ENCRYPT_DATA: the ciphertext's leading bytes are the new key (section 6.17)."""
    cipher = cipher_of(key)
    block = cipher.block_size // 8
    mode: Mode
    if isinstance(parameter, AesCbcEncryptDataParams | DesCbcEncryptDataParams):
        mode = CBC(_vector(parameter.iv, block))
    elif isinstance(parameter, KeyDerivationStringDataParams):
        mode = ecb(None, block)
    else:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, "the parameter is not the data to encrypt")
    if not parameter.data or len(parameter.data) % block:
        raise PKCS11Error(CKR.MECHANISM_PARAM_INVALID, f"the data must be a positive multiple of {block} bytes")
    if length is not None and length > len(parameter.data):
        raise PKCS11Error(CKR.DATA_LEN_RANGE, "the data is too short for the key asked for")
    return encryptor(cipher, mode).update(parameter.data)[:length]
