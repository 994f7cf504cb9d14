"""Key generation: NSS's templates with every usage written out, the ID set afterwards, keys used and found again."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes

from keyfob.nss import keys, material
from keyfob.nss.client import NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import Reply, Template
from keyfob.nss.driver.mechanism import Mechanism
from keyfob.nss.options import LABEL
from keyfob.nss.scenario import scenario
from keyfob.nss.scenarios.login import expect_session
from keyfob.nss.scenarios.transfer import KEEPS_ITS_KEYS, removing, wraps_private_keys
from keyfob.spec.constants import CKA, CKF, CKK, CKM, CKO, CKR
from keyfob.spec.errors import name_of

RULES = ("O10", "O13", "O18", "N15", "N17", "N18", "P15", "P20", "P21", "P22")
DATA = b"keyfob check signs this with a key that the token made"
OPEN = "can be exported unless their user forbids it"
CLOSED = "cannot be exported unless their user asks for it"
OWN_ID = b"check 15"
"""An ID that is not NSS's; short, so that a token that cuts long ones has no part in N15."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A kind of key pair. `asked` are the mechanisms whose flags become usages; `guess` is for modules that say none.

    `public` are the attributes of the public half, which the private key must show as well, the point apart.
    """

    name: str
    option: str
    mechanism: int
    key_type: int
    parameters: Template
    asked: tuple[int, ...]
    guess: int
    public: tuple[int, ...]
    signer: int


RSA = Pair(
    "RSA",
    "rsa",
    CKM.RSA_PKCS_KEY_PAIR_GEN,
    CKK.RSA,
    ((CKA.MODULUS_BITS, 2048), (CKA.PUBLIC_EXPONENT, b"\x01\x00\x01")),
    (CKM.RSA_PKCS,),
    CKF.SIGN | CKF.DECRYPT | CKF.WRAP | CKF.VERIFY_RECOVER | CKF.ENCRYPT,
    (CKA.MODULUS, CKA.PUBLIC_EXPONENT),
    CKM.RSA_PKCS,
)
EC = Pair(
    "EC",
    "ec",
    CKM.EC_KEY_PAIR_GEN,
    CKK.EC,
    ((CKA.EC_PARAMS, material.P256),),
    (CKM.ECDH1_DERIVE, CKM.ECDSA),
    CKF.DERIVE | CKF.SIGN | CKF.VERIFY,
    (CKA.EC_PARAMS, CKA.EC_POINT),
    CKM.ECDSA,
)


@scenario(
    "key generation", "Generate key pairs as certutil -G does, name them and use them", rules=RULES, needs=("write",)
)
def generation(context: Context) -> None:
    slot = context.ready()
    if slot.read_only:
        context.skip("the token is write-protected", *RULES, applicable=False)
        return
    offered = [pair for pair in (RSA, EC) if pair.mechanism in slot.mechanisms]
    if not offered:
        # akey:1406: a mechanism that is not listed is not tried.
        reason = "the token generates neither RSA nor EC keys: NSS makes them, and the import scenario brings them"
        context.skip(reason, *RULES, applicable=False)
        return
    for pair in offered:
        flags = _flags(context, slot, pair)
        with context.step(f"certutil -G -k {pair.option}"):
            _generate(context, slot, pair, flags)
    cheapest = offered[-1]
    flags = _flags(context, slot, cheapest)
    with context.step("keys of other programs"):
        _identifiers(context, slot, cheapest, flags)
    with context.step("certutil -G --keyAttrFlags"):
        _extractable(context, slot, cheapest, flags)
    with context.step("certutil -G --keyOpFlagsOn"):
        _impossible(context, slot, cheapest, flags)


def _flags(context: Context, slot: NssSlot, pair: Pair) -> int:
    """The usages that NSS writes; errors, or no flags at all, make it guess (akey:1775)."""
    flags = 0
    for mechanism in pair.asked:
        info = context.module.C_GetMechanismInfo(slot.id, mechanism)
        if info.is_ok:
            flags |= int(info.value.flags)
    return flags or pair.guess


def generate(
    context: Context, session: int, pair: Pair, templates: tuple[Template, Template]
) -> Reply[tuple[int, int]]:
    return context.module.C_GenerateKeyPair(session, Mechanism(pair.mechanism), *templates)


def _generate(context: Context, slot: NssSlot, pair: Pair, flags: int) -> None:
    nss = context.nss()
    with removing(context, slot) as made:
        session = nss.open_rw(slot)
        with context.checking("P21") as usages, context.checking("O13") as check:
            reply = generate(context, session, pair, material.pair_templates(pair.parameters, flags))
            if reply.is_ok:
                made.extend(reply.value)
            else:
                made.extend(_why_not(context, session, pair, flags, reply, check, usages))
        found = _named(context, slot, session, pair, reply.value) if reply.is_ok else None
        nss.close(slot, session)
        if found is not None:
            made.extend(_afterwards(context, slot, pair, *found, signs=bool(flags & CKF.SIGN)))


def _why_not(
    context: Context, session: int, pair: Pair, flags: int, refused: Reply[tuple[int, int]], check: Check, usages: Check
) -> tuple[int, ...]:
    """Which part of NSS's templates is refused: that they name no key (O13), or the usages (P21)."""
    public, private = material.pair_templates(pair.parameters, flags)
    named: Template = ((CKA.LABEL, LABEL), (CKA.ID, OWN_ID))
    what = f"to an {pair.name} pair"
    for better, judge, because in (
        (([*public, *named], [*private, *named]), check, "whose templates hold neither CKA_LABEL nor CKA_ID"),
        ((_without_false(public), _without_false(private)), usages, "because of usages that are FALSE"),
    ):
        reply = generate(context, session, pair, better)
        if reply.is_ok:
            judge.expect_rv(refused, CKR.OK, because=f"{what} {because}")
            return reply.value
    check.expect_rv(refused, CKR.OK, because=f"{what} with NSS's templates")
    return ()


def _without_false(template: Template) -> Template:
    return [row for row in template if row[1] is not False]


def _named(
    context: Context, slot: NssSlot, session: int, pair: Pair, handles: tuple[int, int]
) -> tuple[int, int, keys.PublicKey] | None:
    """NSS reads the public key on its default session and names both; (public, private, public half) where it can."""
    nss, module = context.nss(), context.module
    public, private = handles
    half = None
    with context.checking("O13") as check:
        kind = nss.read_number(slot.session, public, CKA.CLASS)
        read = module.C_GetAttributeValue(slot.session, public, [(CKA.CLASS, 8)])
        if kind != CKO.PUBLIC_KEY:
            public, private = private, public
            if kind == CKO.PRIVATE_KEY:
                check.warn(
                    "C_GenerateKeyPair gives the private key's handle for the public one's, and the other way round",
                    read,
                    nss="NSS looks at CKA_CLASS and swaps them back.",
                    user="Nothing in NSS's programs; other programs publish or delete the wrong key.",
                )
        values = nss.read(slot.session, public, CKA.CLASS, CKA.KEY_TYPE, *pair.public)
        last = module.C_GetAttributeValue(slot.session, public, [(pair.public[1], 512)])
        half = keys.public_half(context, slot.session, public, pair.key_type) if all(values.values()) else None
        if half is None:
            check.fail(f"the public part of a new {pair.name} key cannot be read: NSS destroys the pair", read, last)
    if half is None:
        return None
    identifier = material.identifier_of(half)
    with context.checking("O18") as changes, context.checking("P20") as pitfall:
        replies = [module.C_SetAttributeValue(session, private, [(CKA.ID, identifier)])]
        if nss.read_flag(slot.session, public, CKA.TOKEN):
            replies.append(module.C_SetAttributeValue(session, public, [(CKA.ID, identifier)]))
        for reply in replies:
            for each in (changes, pitfall):
                each.expect_rv(reply, CKR.OK, because="to the CKA_ID of a new key: NSS destroys the pair")
    return (public, private, half) if all(reply.is_ok for reply in replies) else None


def _afterwards(
    context: Context, slot: NssSlot, pair: Pair, public: int, private: int, half: keys.PublicKey, *, signs: bool
) -> list[int]:
    """The session that made them is closed: the keys are there, known by their ID, and work.

    The handles that they got by another login, which ends those of private objects (SE12).
    """
    nss, module = context.nss(), context.module
    with context.checking("O13") as check:
        is_private = nss.read_flag(slot.session, private, CKA.PRIVATE)
        on_token = nss.read_flag(slot.session, private, CKA.TOKEN)
        read = module.C_GetAttributeValue(slot.session, private, [(CKA.TOKEN, 1)])
        if not read.is_ok:
            check.fail(f"the private {pair.name} key is gone when the session that made it is closed", read)
            return []
        check.expect(on_token, f"the private {pair.name} key, made with CKA_TOKEN = TRUE, is no token object", read)
        check.expect(is_private, f"the private {pair.name} key, made with CKA_PRIVATE = TRUE, is not private", read)
        if signs and keys.may_sign(context, pair.key_type):
            _sign(context, slot, pair, private, half, check)
    with context.checking("P22") as check:
        for attribute in pair.public:
            if attribute != CKA.EC_POINT:
                mine, other = (nss.read_one(slot.session, key, attribute) for key in (private, public))
                read = module.C_GetAttributeValue(slot.session, private, [(attribute, 512)])
                name = name_of("CKA", attribute)
                check.expect(mine, f"{name} of a private {pair.name} key cannot be read", read)
                check.expect(not mine or mine == other, f"{name} of the private key is not the public key's", read)
    identifier = material.identifier_of(half)
    with context.checking("O10") as check, context.checking("N17") as orphan:
        _identified(context, slot, private, identifier, "", check, orphan)
    stored = nss.read_one(slot.session, private, CKA.ID) or b""
    if not slot.needs_login or slot.protected_path:
        with context.checking("N18") as check:
            _find_public(context, slot, stored, public, "", check)
        return []
    with context.step("after C_Logout and another login"):
        module.C_Logout(slot.session).ok()
        expect_session(context, slot)
        with context.checking("N18") as check:
            _find_public(context, slot, stored, public, " before a login", check)
        context.login(slot).must_be(CKR.OK, CKR.USER_ALREADY_LOGGED_IN)
        again: list[int] = []
        with context.checking("O10") as check:
            again += nss.find(slot.session, [(CKA.CLASS, CKO.PRIVATE_KEY), (CKA.TOKEN, True), (CKA.ID, identifier)])
            _identified(context, slot, again[0] if again else private, identifier, " after another login", check)
    return again


def _identified(context: Context, slot: NssSlot, private: int, identifier: bytes, when: str, *checks: Check) -> None:
    """The ID that NSS set is there byte for byte, and finds the key."""
    stored = context.nss().read_one(slot.session, private, CKA.ID)
    read = context.module.C_GetAttributeValue(slot.session, private, [(CKA.ID, 64)])
    search: Template = [(CKA.ID, identifier), (CKA.CLASS, CKO.PRIVATE_KEY)]
    reply, found = context.nss().search(slot.session, search)
    for check in checks:
        if check.expect(stored == identifier, f"CKA_ID of a private key is not the one that NSS set{when}", read):
            check.expect(found == [private], f"a private key is not found by the ID that NSS set{when}", reply)


def _find_public(context: Context, slot: NssSlot, identifier: bytes, public: int, when: str, check: Check) -> None:
    reply, found = context.nss().search(slot.session, [(CKA.ID, identifier), (CKA.CLASS, CKO.PUBLIC_KEY)])
    check.expect(found == [public], f"the public key is not found by its private key's CKA_ID{when}", reply)


def _sign(context: Context, slot: NssSlot, pair: Pair, private: int, half: keys.PublicKey, check: Check) -> None:
    session = context.nss().open_ro(slot)
    context.module.C_SignInit(session, Mechanism(pair.signer), private)
    data = keys.digest_info(DATA) if pair is RSA else keys.digest(hashes.SHA256(), DATA)
    reply = context.module.C_Sign(session, data, 256 if pair is RSA else 64)
    context.nss().close(slot, session)
    if check.expect_rv(reply, CKR.OK, because=f"with a new {pair.name} key"):
        right = keys.verifies(half, reply.value, DATA)
        check.expect(right, f"a new {pair.name} key signs, and its public key does not verify it", reply)


def _in_order(context: Context, slot: NssSlot, handles: tuple[int, int]) -> tuple[int, int]:
    """(public, private), which NSS tells by CKA_CLASS."""
    first, second = handles
    is_public = context.nss().read_number(slot.session, first, CKA.CLASS) == CKO.PUBLIC_KEY
    return (first, second) if is_public else (second, first)


def _identifiers(context: Context, slot: NssSlot, pair: Pair, flags: int) -> None:
    """N15: keys with an ID that is not NSS's, and keys whose maker gave none."""
    nss, module = context.nss(), context.module
    public, private = material.pair_templates(pair.parameters, flags)
    label: Template = ((CKA.LABEL, LABEL),)
    identifier: Template = ((CKA.ID, OWN_ID),)
    with context.checking("N15") as check, removing(context, slot) as made:
        session = nss.open_rw(slot)
        pairs = []
        for more in ([*label, *identifier], label):
            reply = generate(context, session, pair, ([*public, *more], [*private, *more]))
            with check.setup("generate a pair"):
                made.extend(reply.ok())
            pairs.append(_in_order(context, slot, reply.value))
        (_public, named), (nameless_public, nameless) = pairs
        searched, found = nss.search(slot.session, [(CKA.ID, OWN_ID), (CKA.CLASS, CKO.PRIVATE_KEY)], 16)
        check.expect(named in found, "a key is not found by the CKA_ID that its template gave it", searched)
        given = nss.read_one(slot.session, nameless, CKA.ID)
        read = module.C_GetAttributeValue(slot.session, nameless, [(CKA.ID, 64)])
        half = keys.public_half(context, slot.session, nameless_public, pair.key_type)
        if half is None or given != material.identifier_of(half):
            kind = "a CKA_ID that is not NSS's" if given else "no CKA_ID"
            check.warn(
                f"a key pair that is made without a CKA_ID gets {kind}",
                read,
                user="A key that another program made so has no certificate, though certutil stored one for it.",
            )
        nss.close(slot, session)


def _extractable(context: Context, slot: NssSlot, pair: Pair, flags: int) -> None:
    """What a user asks for by --keyAttrFlags decides whether a generated key can ever be exported (section 3.12)."""
    nss, module = context.nss(), context.module
    with context.checking("P15") as check, removing(context, slot) as made:
        if not wraps_private_keys(context, slot):
            check.not_applicable(KEEPS_ITS_KEYS)
        session = nss.open_rw(slot)
        found: dict[bool | None, bool] = {}
        for asked in (None, False, True):
            more = () if asked is None else ((CKA.EXTRACTABLE, asked),)
            public, private = material.pair_templates(pair.parameters, flags, *more)
            label: Template = ((CKA.LABEL, LABEL),)
            reply = generate(context, session, pair, ([*public, *label], [*private, *label]))
            if not reply.is_ok:
                if asked:
                    check.warn(f"a key that may be exported is refused: {reply.name}", reply)
                continue
            made.extend(reply.value)
            key = _in_order(context, slot, reply.value)[1]
            found[asked] = nss.read_flag(slot.session, key, CKA.EXTRACTABLE)
            read = module.C_GetAttributeValue(slot.session, key, [(CKA.EXTRACTABLE, 1)])
            if asked is False and found[asked]:
                check.fail(
                    "a key that was made with CKA_EXTRACTABLE = FALSE is extractable",
                    read,
                    expects="CKA_EXTRACTABLE as the template gives it.",
                    user="A key that must not leave the token can be copied from it.",
                )
            if asked and not found[asked]:
                check.warn("a key that was made with CKA_EXTRACTABLE = TRUE is not extractable", read)
        nss.close(slot, session)
        if None in found:
            check.passed(f"keys that NSS generates {OPEN if found[None] else CLOSED}")


def _impossible(context: Context, slot: NssSlot, pair: Pair, flags: int) -> None:
    """Usages that a user asks for and the key's type cannot have."""
    nss = context.nss()
    more = CKF.WRAP | CKF.UNWRAP | CKF.ENCRYPT | CKF.DECRYPT if pair is EC else CKF.DERIVE
    public, private = material.pair_templates(pair.parameters, flags | more)
    label: Template = ((CKA.LABEL, LABEL),)
    with context.checking("P21") as check, removing(context, slot) as made:
        session = nss.open_rw(slot)
        plain = generate(context, session, pair, ([*public, *label], [*private, *label]))
        nss.close(slot, session)
        if plain.is_ok:
            made.extend(plain.value)
        else:
            check.warn(
                f"C_GenerateKeyPair answered {plain.name} to an {pair.name} pair with usages that it cannot have",
                plain,
                user="certutil -G --keyOpFlagsOn fails for such usages.",
            )
