"""What an attacker can do: every call that makes a key or a value out of others, and what he computes by himself.

Each move is a generator function of the world; what it yields is only whether something was gained. A combination that
was tried once is not tried again (`Tried`): a refusal depends on the states of keys alone, and those are never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from hashlib import sha256

from keyfob.functions import digests, keys, objects, signing
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKP, CKZ
from keyfob.spec.parameters import (
    GcmParams,
    HkdfParams,
    KeyDerivationStringDataParams,
    Pkcs5Pbkd2Params,
    RsaPkcsOaepParams,
)
from keyfob.spec.traits import hides
from keyfob.token.object import FALSE, TRUE, ulong
from tests.policy.model import (
    ALL,
    CBC,
    CIPHER,
    DERIVATION,
    ECB,
    GCM,
    KEY_WRAP,
    MAC,
    PROTECTIONS,
    ROLES,
    ROOM,
    SIZE,
    WRAPPING,
    Attributes,
    Blob,
    Fact,
    Key,
    Link,
    World,
    described,
    guessable,
    secret,
)

ZEROS = bytes(SIZE)
INFO = b"info"
NAMES = {ECB: "CKM_AES_ECB", CBC: "CKM_AES_CBC", GCM: "CKM_AES_GCM", KEY_WRAP: "CKM_AES_KEY_WRAP"}
NAMES |= {
    CKM.RSA_PKCS_OAEP: "CKM_RSA_PKCS_OAEP",
    CKM.CONCATENATE_BASE_AND_KEY: "CKM_CONCATENATE_BASE_AND_KEY",
    CKM.CONCATENATE_BASE_AND_DATA: "CKM_CONCATENATE_BASE_AND_DATA",
    CKM.CONCATENATE_DATA_AND_BASE: "CKM_CONCATENATE_DATA_AND_BASE",
    CKM.XOR_BASE_AND_DATA: "CKM_XOR_BASE_AND_DATA",
    CKM.EXTRACT_KEY_FROM_KEY: "CKM_EXTRACT_KEY_FROM_KEY",
    CKM.AES_ECB_ENCRYPT_DATA: "CKM_AES_ECB_ENCRYPT_DATA",
    CKM.HKDF_DERIVE: "CKM_HKDF_DERIVE",
    CKM.HKDF_DATA: "CKM_HKDF_DATA",
}
# The templates that he asks for when a key is made: each role and all of them, each protection.
PALETTE = [
    secret(*usages, sensitive=sensitive, extractable=extractable)
    for usages in (ALL, *ROLES)
    for sensitive, extractable in PROTECTIONS
]
OAEP = RsaPkcsOaepParams(CKM.SHA_1, 1, 1, b"")


class Tried:
    """Combinations that were tried."""

    def __init__(self) -> None:
        self.seen: set[tuple[object, ...]] = set()

    def first(self, *combination: object) -> bool:
        if combination in self.seen:
            return False
        self.seen.add(combination)
        return True


def parameter_of(mechanism: int) -> object:
    if mechanism == GCM:
        return GcmParams(bytes(12), 96, b"", 128)
    return {CBC: ZEROS, CKM.RSA_PKCS_OAEP: OAEP}.get(mechanism)


def given(template: Attributes, **others: bytes) -> list[tuple[int, bytes]]:
    return list({**template, **{getattr(CKA, name): value for name, value in others.items()}}.items())


def protection(key: Key) -> tuple[bytes | None, ...]:
    return tuple(map(key.attributes.get, PROTECTION))


def secrets(world: World) -> list[Key]:
    return [key for key in world.keys.values() if key.is_secret]


# Calls


def create(world: World, tried: Tried) -> None:
    """C_CreateObject of a value that he chose."""
    for i, template in enumerate(PALETTE):
        if tried.first("create", i):
            handle = world.attempt(partial(objects.C_CreateObject, world.session, given(template, VALUE=OWN)))
            if handle is not None:
                how = f"C_CreateObject of a value of his own {described(template)}"
                world.gain_key(handle, f"the imported key i{i}", how, ())


def generate(world: World, tried: Tried) -> None:
    """C_GenerateKey, once for each template."""
    for i, template in enumerate(GENERATED):
        if tried.first("generate", i):
            asked = given(template, VALUE_LEN=ulong(SIZE))
            handle = world.attempt(partial(keys.C_GenerateKey, world.session, (CKM.AES_KEY_GEN, None), asked))
            if handle is not None:
                made = world.gain_key(handle, f"the generated key g{i}", f"C_GenerateKey {described(template)}", ())
                world.generated.add(made.value)


def generate_from_password(world: World, tried: Tried) -> None:
    """C_GenerateKey with CKM_PKCS5_PBKD2 and a password of his own: he can compute the value himself."""
    for i, template in enumerate(FROM_PASSWORD):
        if tried.first("password", i):
            asked = given(template, VALUE_LEN=ulong(SIZE))
            handle = world.attempt(partial(keys.C_GenerateKey, world.session, (CKM.PKCS5_PBKD2, PASSWORD), asked))
            if handle is not None:
                how = f"C_GenerateKey with CKM_PKCS5_PBKD2 and a password of his own {described(template)}"
                made = world.gain_key(handle, f"the key p{i} from a password", how, ())
                world.learn(made.value, f"the value of {made.fact.name}", "PBKDF2, computed by himself", ())


def wrap(world: World, tried: Tried) -> None:
    """C_WrapKey of everything under everything."""
    found = list(world.keys.values())
    targets = [(key, protection(key)) for key in found if key.is_secret and world.matters(key.value)]
    for wrapping in found:
        if wrapping.attributes.get(CKA.WRAP) != TRUE:  # no rule lets such a key wrap: policy.may_use, tested in tests/
            continue
        mechanisms = (ECB, CBC, GCM, KEY_WRAP) if wrapping.is_secret else (CKM.RSA_PKCS_OAEP,)
        of, state = wrapping.value if wrapping.is_secret else PUBLIC, protection(wrapping)
        for target, its_state in targets:
            if of in world.known and target.value in world.known:
                continue  # what he knows he can encrypt himself
            for mechanism in mechanisms:
                # Where the blob is there already another state of the two keys gives nothing new.
                if (len(target.value) % 8 and mechanism != GCM) or (mechanism, of, target.value) in world.wrapped:
                    continue
                if not tried.first("wrap", state, its_state, mechanism):
                    continue
                chosen = mechanism, parameter_of(mechanism)
                data = world.attempt_bytes(
                    partial(keys.C_WrapKey, world.session, chosen, wrapping.handle, target.handle, ROOM)
                )
                if data is None:
                    continue
                how = f"C_WrapKey of {target.fact.name} under {wrapping.fact.name} with {NAMES[mechanism]}"
                fact = Fact("a wrapped key", how, (wrapping.fact, target.fact))
                world.wrapped.add((mechanism, of, target.value))
                world.gain_blob(Blob(fact, data, mechanism, of, target.value))


def unwrap(world: World, tried: Tried) -> None:
    """C_UnwrapKey of all that is encrypted under a key's value, as whatever he likes, also as a part of it."""
    for key in secrets(world):
        if key.attributes.get(CKA.UNWRAP) != TRUE:
            continue
        state = protection(key)
        for blob in list(world.blobs.values()):
            if blob.key_value != key.value or not tried.first("unwrap", state, blob.mechanism, blob.plain):
                continue
            if blob.plain != OWN and (blob.plain in world.known or not world.matters(blob.plain)):
                continue  # what he knows he can import
            for template in UNWRAPPED:
                chosen = blob.mechanism, parameter_of(blob.mechanism)
                asked = list(template.items())
                handle = world.attempt(partial(keys.C_UnwrapKey, world.session, chosen, key.handle, blob.data, asked))
                if handle is None:
                    continue
                how = f"C_UnwrapKey of that with {key.fact.name} as {described(template)}"
                made = world.gain_key(handle, f"the unwrapped key u{len(world.keys)}", how, (key.fact, blob.fact))
                if blob.plain in world.shown:  # DES keys come with other parity bits
                    world.shown.add(made.value)
                if made.value != blob.plain:
                    world.link(Link(made.fact, (blob.plain,), made.value, ((blob.plain, 0, made.value),)))


def confuse(world: World, tried: Tried) -> None:
    """C_UnwrapKey with another mechanism than wrapped it: where that succeeds it tells what the last byte is.

    For the other bytes he turns the key round (CKM_EXTRACT_KEY_FROM_KEY) and does the same again.
    """
    template = list(secret(*MAC, sensitive=True, extractable=True, kind=CKK.GENERIC_SECRET).items())
    for key in secrets(world):
        if key.attributes.get(CKA.UNWRAP) != TRUE:
            continue
        for blob in list(world.blobs.values()):
            if (
                blob.mechanism != KEY_WRAP
                or blob.key_value != key.value
                or blob.plain in world.known
                or not tried.first("confuse", protection(key), blob.plain)
            ):
                continue
            for mechanism in (CKM.AES_KEY_WRAP_PKCS7, CKM.AES_KEY_WRAP_PAD, CKM.AES_KEY_WRAP_KWP):
                chosen = mechanism, None
                handle = world.attempt(
                    partial(keys.C_UnwrapKey, world.session, chosen, key.handle, blob.data, template)
                )
                if handle is not None:
                    how = f"C_UnwrapKey of that with {key.fact.name} and another mechanism tells its last byte"
                    world.learn(blob.plain, f"what was in it ({world.name(blob.plain)})", how, (key.fact, blob.fact))


def encrypt(world: World, tried: Tried) -> None:
    """C_Encrypt of what he knows; and he can then unwrap it, or derive keys that he knows."""
    for key in secrets(world):
        if key.attributes.get(CKA.ENCRYPT) != TRUE:
            continue
        for data in (ZEROS, OWN):
            for mechanism in (ECB, KEY_WRAP):
                if not tried.first("encrypt", key.value, key.handle, data, mechanism):
                    continue
                result = world.encrypt(key, mechanism, None, data)
                if result is None:
                    continue
                how = f"C_Encrypt of data of his own with {key.fact.name} and {NAMES[mechanism]}"
                fact = Fact("a ciphertext", how, (key.fact,))
                world.gain_blob(Blob(fact, result, mechanism, key.value, data))
                if mechanism == ECB:
                    world.learn(result, "that ciphertext", how, (key.fact,))
                    world.encrypting.setdefault(key.value, fact)


def decrypt(world: World, tried: Tried) -> None:
    """C_Decrypt; with ECB he takes every mode of AES apart block by block."""
    for key in secrets(world):
        if key.attributes.get(CKA.DECRYPT) != TRUE or not tried.first("decrypt", key.handle):
            continue
        if world.decrypt(key, ECB, None, ZEROS) is not None:
            how = f"C_Decrypt with {key.fact.name}, which shows everything that is encrypted under that value"
            world.decrypting.setdefault(key.value, Fact("a decryption", how, (key.fact,)))


def copy_and_set(world: World, tried: Tried) -> None:
    """C_CopyObject and C_SetAttributeValue: everything that would loosen a key, and every change of its role."""
    for key in secrets(world):
        if not world.matters(key.value) or not tried.first("set", key.handle):
            continue  # what he imported he can import in another state
        for changes in CHANGES:
            template = list(changes.items())
            how = f"of {key.fact.name} with {described(changes)}"
            handle = world.attempt(partial(objects.C_CopyObject, world.session, key.handle, template))
            if handle is not None:
                made = world.gain_key(handle, f"the copy c{len(world.keys)}", f"C_CopyObject {how}", (key.fact,))
                world.doubled.setdefault(key.value, Fact(made.fact.name, f"C_CopyObject {how}", (key.fact,)))
            twin = world.twin(key)

            def change(twin: int = twin, template: list[tuple[int, bytes]] = template) -> int:
                objects.C_SetAttributeValue(world.session, twin, template)
                return twin

            if world.attempt(change) is not None:
                world.gain_key(twin, f"the changed key s{len(world.keys)}", f"C_SetAttributeValue {how}", (key.fact,))
            else:
                world.token.objects.in_memory.drop(twin)


def derive(world: World, tried: Tried) -> None:
    """C_DeriveKey with all mechanisms that take secret keys; two values deep, and for keys in parts three."""
    bases = [
        key
        for key in secrets(world)
        if key.attributes.get(CKA.DERIVE) == TRUE and world.depth.get(key.value, 0) < DEPTH
    ]
    for base in bases:
        if not tried.first("derive", protection(base)):
            continue
        for mechanism, parameter, made_of in derivations(base.value):
            # Of keys that have nothing to do with the target's a new value is enough.
            if base.value in world.depth:
                for template in DERIVED[mechanism]:
                    _derive(world, base, mechanism, parameter, made_of, template, ())
            elif mechanism == CKM.AES_ECB_ENCRYPT_DATA and world.matters(base.value):
                _derive(world, base, mechanism, parameter, made_of, DERIVED[mechanism][0], ())
                _derive(world, base, mechanism, parameter, made_of, DERIVED[mechanism][4], ())
    for base in bases:
        for other in bases:
            related = sum(one.value in world.depth for one in (base, other))
            own = sum(one.value == OWN for one in (base, other))
            if related == 0 or related + own < 2 or not tried.first("pair", protection(base), protection(other)):
                continue
            made_of = ((base.value, 0, 0, len(base.value)), (other.value, len(base.value), 0, len(other.value)))
            for template in DERIVED[CKM.CONCATENATE_BASE_AND_KEY]:
                mechanism = CKM.CONCATENATE_BASE_AND_KEY
                _derive(world, base, mechanism, ulong(other.handle), made_of, template, (other,))
    fill_up(world, tried)


def fill_up(world: World, tried: Tried) -> None:
    """What was made of a target's bytes and his own gets more of his own, so that they stand where he wants them."""
    for base in secrets(world):
        size = len(base.value)
        if (
            base.value not in world.shown
            or world.depth[base.value] != DEPTH
            or base.attributes.get(CKA.DERIVE) != TRUE
            or not tried.first("fill", protection(base))
        ):
            continue
        for template, whole in ((XTS, 32), (AS_DES, 24)):
            if size < whole:
                data = KeyDerivationStringDataParams(ZEROS[: whole - size])
                made_of = ((base.value, 0, 0, size),)
                _derive(world, base, CKM.CONCATENATE_BASE_AND_DATA, data, made_of, template, ())


def use_in_parts(world: World, tried: Tried) -> None:
    """C_EncryptInit with a mechanism of keys in parts, and a key that is not called one."""
    for key in secrets(world):
        if key.value not in world.shown or key.attributes.get(CKA.ENCRYPT) != TRUE or not hides(key.attributes):
            continue
        if tried.first("in parts", key.handle) and world.encrypt(key, CKM.DES3_ECB, None, ZEROS) is not None:
            how = f"C_Encrypt with {key.fact.name} and CKM_DES3_ECB"
            world.in_parts.setdefault(key.value, Fact(key.fact.name, how, (key.fact,)))


def _derive(
    world: World,
    base: Key,
    mechanism: int,
    parameter: object,
    made_of: tuple[tuple[bytes, int, int, int], ...],
    template: Attributes,
    others: tuple[Key, ...],
) -> None:
    asked = list(template.items())
    handle = world.attempt(partial(keys.C_DeriveKey, world.session, (mechanism, parameter), base.handle, asked))
    if handle is None:
        return
    facts = (base.fact, *(other.fact for other in others))
    length = f", {int.from_bytes(template[CKA.VALUE_LEN], 'little')} bytes" if CKA.VALUE_LEN in template else ""
    how = (
        f"C_DeriveKey from {' and '.join(f.name for f in facts)} with {NAMES[mechanism]}{length} {described(template)}"
    )
    made = world.gain_key(handle, f"the derived key d{len(world.keys)}", how, facts)
    value = made.value
    if value == base.value:
        world.doubled.setdefault(value, Fact(made.fact.name, how, facts))
    if made_of and any(one.value in world.shown and hides(one.attributes) for one in (base, *others)):
        world.shown.add(value)
    related = [world.depth[key.value] for key in (base, *others) if key.value in world.depth]
    if related:
        world.depth.setdefault(value, max(related) + 1)
    sources = (base.value, *(other.value for other in others))
    # (whole value, where in the result, where in the whole, how many bytes); what XOR mixed in is known to him.
    shown = tuple(
        (whole, start, whole[start : start + min(size, max(0, len(value) - at))])
        for whole, at, start, size in made_of
        if len(value) > at
    )
    world.link(Link(Fact(made.fact.name, how, facts), sources, value, shown))


def derivations(value: bytes) -> Iterable[tuple[int, object, tuple[tuple[bytes, int, int, int], ...]]]:
    """(mechanism, parameter, which bytes of the base stand where in the result)."""
    whole = len(value)
    data = KeyDerivationStringDataParams(ZEROS)
    yield CKM.CONCATENATE_BASE_AND_DATA, data, ((value, 0, 0, whole),)
    yield CKM.CONCATENATE_DATA_AND_BASE, data, ((value, SIZE, 0, whole),)
    yield CKM.CONCATENATE_DATA_AND_BASE, KeyDerivationStringDataParams(ZEROS[:15]), ((value, 15, 0, whole),)
    for size in (1, SIZE):
        yield CKM.XOR_BASE_AND_DATA, KeyDerivationStringDataParams(bytes(size)), ((value, 0, 0, min(size, whole)),)
    padded = bytes(whole - 1) + bytes([value[-1] ^ 1])  # so that the result ends as padding does: he tries all 256
    yield CKM.XOR_BASE_AND_DATA, KeyDerivationStringDataParams(padded), ((value, 0, 0, whole),)
    for at in range(whole):
        yield CKM.EXTRACT_KEY_FROM_KEY, ulong(8 * at), ((value, 0, at, whole - at),)
    yield CKM.AES_ECB_ENCRYPT_DATA, data, ()
    yield CKM.HKDF_DERIVE, HkdfParams(False, True, CKM.SHA256, CKF.HKDF_SALT_NULL, b"", 0, INFO), ()
    yield CKM.HKDF_DATA, HkdfParams(False, True, CKM.SHA256, CKF.HKDF_SALT_NULL, b"", 0, INFO), ()


def read(world: World, tried: Tried) -> None:
    """C_GetAttributeValue of the value."""
    for key in list(world.keys.values()):
        if tried.first("read", key.handle):
            value = world.read(key, CKA.VALUE)
            if value is not None:
                world.learn(
                    value, f"the value of {key.fact.name}", f"C_GetAttributeValue of {key.fact.name}", (key.fact,)
                )


def guess(world: World, tried: Tried) -> None:
    """All values of a short key are tried against whatever the token computes with it."""
    for key in secrets(world):
        if not guessable(key) or not tried.first("guess", key.handle):
            continue
        oracle = _oracle(world, key)
        if oracle:
            how = f"{oracle} of {key.fact.name} tells its {len(key.value)} bytes: he tries them all"
            world.learn(key.value, f"the value of {key.fact.name}", how, (key.fact,))


def _oracle(world: World, key: Key) -> str:
    def sign() -> bytes | int:
        signing.C_SignInit(world.session, (CKM.SHA256_HMAC, None), key.handle)
        return signing.C_Sign(world.session, b"x", ROOM)

    def digest() -> bytes | int:
        digests.C_DigestInit(world.session, (CKM.SHA256, None))
        digests.C_DigestKey(world.session, key.handle)
        return digests.C_DigestFinal(world.session, ROOM)

    if world.read(key, CKA.CHECK_VALUE):
        return "CKA_CHECK_VALUE"
    for name, call in (("C_Sign", sign), ("C_DigestKey", digest)):
        if world.attempt_bytes(call) is not None:
            return name
    return ""


def mac(world: World, tried: Tried) -> None:
    """C_Sign: an HMAC is what HKDF expands with."""
    for key in secrets(world):
        if key.attributes.get(CKA.SIGN) != TRUE or not tried.first("mac", key.handle):
            continue

        def sign(key: Key = key) -> bytes | int:
            signing.C_SignInit(world.session, (CKM.SHA256_HMAC, None), key.handle)
            return signing.C_Sign(world.session, INFO + b"\x01", ROOM)

        tag = world.attempt_bytes(sign)
        if tag is not None:
            how = f"C_Sign with {key.fact.name} of what HKDF would expand"
            world.learn(tag[:SIZE], "the beginning of that HMAC", how, (key.fact,))


# What he computes by himself


def compute(world: World, tried: Tried) -> None:
    """He decrypts with what he knows or may use, undoes reused nonces, puts pieces together, derives from the known."""
    while True:
        before = len(world.known), sum(len(pieces) for pieces in world.pieces.values())
        for blob in world.blobs.values():
            _open(world, blob)
        for link in world.links.values():
            if all(source in world.known for source in link.sources):
                parents = (link.fact, *(world.known[source] for source in link.sources))
                world.learn(link.result, "what was derived from known values", "computed by himself", parents)
            if link.result in world.known:
                for whole, start, piece in link.shows:
                    fact = world.known[link.result]
                    found = world.pieces.setdefault(whole, {})
                    for i in range(len(piece)):
                        found.setdefault(
                            start + i, Fact("a piece", f"a piece of it: {link.fact.how}", (*link.fact.parents, fact))
                        )
        for whole, pieces in world.pieces.items():
            if len(pieces) == len(whole):
                facts = tuple(dict.fromkeys(pieces.values()))
                world.learn(whole, world.name(whole), "put together from its pieces", facts)
        if before == (len(world.known), sum(len(pieces) for pieces in world.pieces.values())):
            return


def _open(world: World, blob: Blob) -> None:
    if blob.plain in world.known:
        return
    name, parents = f"what was in it ({world.name(blob.plain)})", (blob.fact,)
    if blob.key_value in world.known:
        world.learn(blob.plain, name, "decrypted by himself", (*parents, world.known[blob.key_value]))
    elif blob.key_value in world.decrypting and blob.mechanism != CKM.RSA_PKCS_OAEP:
        fact = world.decrypting[blob.key_value]
        world.learn(blob.plain, name, fact.how, (*parents, *fact.parents))
    elif blob.mechanism == GCM:
        if blob.key_value in world.encrypting:
            fact = world.encrypting[blob.key_value]
            world.learn(
                blob.plain, name, f"undone with the key stream that C_Encrypt shows: {fact.how}", (*parents, fact)
            )
        for other in world.blobs.values():
            same = other.mechanism == GCM and other.key_value == blob.key_value and len(other.plain) >= len(blob.plain)
            if same and other.plain in world.known:
                how = "undone with the key stream of another key that was wrapped with the same nonce"
                world.learn(blob.plain, name, how, (*parents, other.fact, world.known[other.plain]))


OWN = sha256(b"the attacker's own key").digest()[:SIZE]
PUBLIC = b"what only the attacker's own RSA key decrypts"
DEPTH = 1
# What a rule of wrapping, unwrapping and deriving may ask of a key, beside the usage that the call needs.
PROTECTION = (
    *(CKA.CLASS, CKA.KEY_TYPE, CKA.VALUE, CKA.MODULUS, CKA.TRUSTED, CKA.SENSITIVE, CKA.EXTRACTABLE),
    *(CKA.PRIVATE, CKA.MODIFIABLE, CKA.COPYABLE),
    *(CKA.WRAP_WITH_TRUSTED, CKA.LOCAL, CKA.ALWAYS_SENSITIVE, CKA.NEVER_EXTRACTABLE, CKA.ALLOWED_MECHANISMS),
)


# They stay as they are, so that the search is not about their copies.
DES3 = secret(CKA.ENCRYPT, CKA.DERIVE, sensitive=True, extractable=False, kind=CKK.DES3, MODIFIABLE=FALSE)
DES2 = {**DES3, CKA.KEY_TYPE: ulong(CKK.DES2)}
XTS = {**DES3, CKA.KEY_TYPE: ulong(CKK.AES_XTS), CKA.VALUE_LEN: ulong(32)}
LONG = {**DES3, CKA.KEY_TYPE: ulong(CKK.GENERIC_SECRET)}
AS_DES = {**LONG, CKA.VALUE_LEN: ulong(24)}


def _derived(mechanism: int) -> list[Attributes]:
    """The templates of derived keys: the palette, and generic secrets of all lengths for what shows its base."""
    if mechanism == CKM.HKDF_DATA:
        return [{CKA.CLASS: ulong(CKO.DATA), CKA.VALUE_LEN: ulong(SIZE)}]
    whole = [
        {**secret(*usages, sensitive=sensitive, extractable=extractable), CKA.VALUE_LEN: ulong(SIZE)}
        for usages, sensitive, extractable in (
            (ALL, False, True),
            (ALL, True, True),
            *((r, True, False) for r in ROLES),
        )
    ]
    if mechanism in (CKM.AES_ECB_ENCRYPT_DATA, CKM.HKDF_DERIVE):
        return [*whole, DES2]
    strict = secret(*MAC, sensitive=True, extractable=False, kind=CKK.GENERIC_SECRET)
    loose = secret(*MAC, sensitive=False, extractable=True, kind=CKK.GENERIC_SECRET)
    short = [{**form, CKA.VALUE_LEN: ulong(size)} for form in (strict, loose) for size in (1, 17)]
    # The base again as everybody's, or as what can be modified; and as a key in parts of which he knows one.
    again = secret(sensitive=True, extractable=False, PRIVATE=FALSE), secret(sensitive=True, extractable=False)
    same = [*({**form, CKA.VALUE_LEN: ulong(SIZE)} for form in again)]
    if mechanism == CKM.EXTRACT_KEY_FROM_KEY:
        return [*whole[:2], *short[::2], *same]
    return [*whole, *short, strict, *same, DES3, XTS, AS_DES, LONG]


DERIVED = {mechanism: _derived(mechanism) for mechanism in NAMES}
UNWRAPPED = [
    *PALETTE,
    secret(*ALL, sensitive=True, extractable=True, PRIVATE=FALSE),
    secret(*CIPHER, sensitive=True, extractable=True, kind=CKK.DES2),
    secret(*CIPHER, sensitive=True, extractable=True, kind=CKK.GENERIC_SECRET),
    {**secret(*MAC, sensitive=False, extractable=True, kind=CKK.GENERIC_SECRET), CKA.VALUE_LEN: ulong(1)},
    {**secret(*MAC, sensitive=True, extractable=True, kind=CKK.GENERIC_SECRET), CKA.VALUE_LEN: ulong(1)},
]
GENERATED = [
    *(secret(*ALL, sensitive=sensitive, extractable=extractable) for sensitive, extractable in PROTECTIONS),
    secret(*WRAPPING, sensitive=True, extractable=True),
    secret(*WRAPPING, sensitive=True, extractable=False),
]
FROM_PASSWORD = [secret(*role, sensitive=True, extractable=False) for role in (WRAPPING, DERIVATION)]
PASSWORD = Pkcs5Pbkd2Params(CKZ.SALT_SPECIFIED, b"salt", 1, CKP.PKCS5_PBKD2_HMAC_SHA256, b"", b"password")
NO_USAGE = dict.fromkeys(ALL, FALSE)
CHANGES: list[Attributes] = [
    {},
    {CKA.SENSITIVE: FALSE},
    {CKA.SENSITIVE: TRUE},
    {CKA.EXTRACTABLE: TRUE},
    {CKA.EXTRACTABLE: FALSE},
    {CKA.WRAP_WITH_TRUSTED: FALSE},
    {CKA.TRUSTED: TRUE},
    {CKA.PRIVATE: FALSE},
    {CKA.MODIFIABLE: TRUE},
    dict.fromkeys(ALL, TRUE),
    *({**NO_USAGE, **dict.fromkeys(role, TRUE)} for role in (CIPHER, MAC, WRAPPING, DERIVATION)),
]

Move = Callable[[World, Tried], None]
MOVES: tuple[Move, ...] = (
    *(create, generate, generate_from_password, read, decrypt, encrypt, mac, guess, wrap, compute),
    *(unwrap, confuse, read, compute, copy_and_set, derive, use_in_parts, guess, compute),
)


def known_rsa(world: World) -> None:
    """He imports a public key whose private key he has, to wrap with it."""
    modulus = (2**1023 + 2**511 + 1).to_bytes(128, "big")  # never decrypted: `PUBLIC` stands for his private key
    template = [
        (CKA.CLASS, ulong(CKO.PUBLIC_KEY)),
        (CKA.KEY_TYPE, ulong(CKK.RSA)),
        (CKA.MODULUS, modulus),
        (CKA.PUBLIC_EXPONENT, b"\x01\x00\x01"),
        (CKA.WRAP, TRUE),
    ]
    handle = world.attempt(partial(objects.C_CreateObject, world.session, template))
    if handle is not None:
        world.gain_key(handle, "an RSA public key of his own", "C_CreateObject of an RSA public key", ())
    world.learn(PUBLIC, "his RSA private key", "made at home", ())
