"""What the token says that it can do, as NSS asks for it, and what NSS can use it for."""

from __future__ import annotations

from typing import Any

from keyfob.nss.client import NssSlot
from keyfob.nss.context import Check, Context
from keyfob.nss.driver import NO_MECHANISM, Reply
from keyfob.nss.driver.values import MECHANISM_FLAGS, flags_text, mechanism_name
from keyfob.nss.kinds import kinds_of
from keyfob.nss.scenario import scenario
from keyfob.spec.constants import CKA, CKF, CKM, CKO, CKR

# What NSS looks for in the flags of a mechanism: at least one of these is set when it is listed.
USES: dict[int, int] = {
    CKM.RSA_PKCS: CKF.SIGN | CKF.VERIFY | CKF.ENCRYPT | CKF.DECRYPT | CKF.WRAP | CKF.UNWRAP,
    CKM.RSA_PKCS_PSS: CKF.SIGN | CKF.VERIFY,
    CKM.RSA_PKCS_OAEP: CKF.ENCRYPT | CKF.DECRYPT | CKF.WRAP | CKF.UNWRAP,
    CKM.ECDSA: CKF.SIGN | CKF.VERIFY,
    CKM.EDDSA: CKF.SIGN | CKF.VERIFY,
    CKM.ECDH1_DERIVE: CKF.DERIVE,
    CKM.AES_CBC: CKF.ENCRYPT | CKF.DECRYPT | CKF.WRAP | CKF.UNWRAP,
    CKM.AES_CBC_PAD: CKF.ENCRYPT | CKF.DECRYPT | CKF.WRAP | CKF.UNWRAP,
    CKM.DES3_CBC_PAD: CKF.ENCRYPT | CKF.DECRYPT | CKF.WRAP | CKF.UNWRAP,
    CKM.AES_KEY_GEN: CKF.GENERATE,
    **dict.fromkeys((CKM.SHA_1, CKM.SHA224, CKM.SHA256, CKM.SHA384, CKM.SHA512, CKM.MD5), CKF.DIGEST),
    **dict.fromkeys(
        (CKM.RSA_PKCS_KEY_PAIR_GEN, CKM.EC_KEY_PAIR_GEN, CKM.EC_EDWARDS_KEY_PAIR_GEN, CKM.EC_MONTGOMERY_KEY_PAIR_GEN),
        CKF.GENERATE_KEY_PAIR,
    ),
}

# NSS asks for these without looking into the list (sgn:149,386), and signs the whole data when the flags say SIGN.
COMBINED = (
    *(CKM.SHA256_RSA_PKCS, CKM.SHA384_RSA_PKCS, CKM.SHA512_RSA_PKCS, CKM.SHA224_RSA_PKCS),
    *(CKM.SHA256_RSA_PKCS_PSS, CKM.SHA384_RSA_PKCS_PSS, CKM.SHA512_RSA_PKCS_PSS, CKM.SHA224_RSA_PKCS_PSS),
    *(CKM.ECDSA_SHA1, CKM.ECDSA_SHA224, CKM.ECDSA_SHA256, CKM.ECDSA_SHA384, CKM.ECDSA_SHA512),
)


@scenario(
    "mechs", "The list of mechanisms, their flags, and what NSS can make of them", rules=("S16", "S17", "P4", "K1")
)
def mechs(context: Context) -> None:
    context.nss()
    slot = context.slot()
    with context.step("C_GetMechanismList"):
        listed = _list(context, slot)
    with context.step("C_GetMechanismInfo"):
        flags = _infos(context, slot, listed)
    context.fact(
        "mechanisms",
        [
            {"mechanism": mechanism_name(mechanism), "number": mechanism, "flags": flags.get(mechanism, 0)}
            for mechanism in listed
        ],
    )
    with context.checking("P4") as check:
        if not any(flags.get(mechanism, 0) & CKF.SIGN for mechanism in (CKM.RSA_PKCS, CKM.SHA256_RSA_PKCS_PSS)):
            check.not_applicable("the token does not sign with RSA")
        info = context.module.C_GetMechanismInfo(slot.id, CKM.RSA_PKCS_PSS)
        check.expect(CKM.RSA_PKCS_PSS in listed, "CKM_RSA_PKCS_PSS is not listed", info)
        check.expect(
            info.is_ok and info.value.flags & CKF.SIGN,
            "C_GetMechanismInfo does not give SIGN for CKM_RSA_PKCS_PSS",
            info,
        )
    with context.checking("K1") as check:
        kinds = kinds_of(flags, slot.flags)
        context.fact("kinds", [kind.to_json() for kind in kinds])
        usable = [kind.name for kind in kinds if not kind.lacks]
        roots = context.nss().search(slot.session, [(CKA.CLASS, CKO.NSS_BUILTIN_ROOT_LIST)])[1]
        context.fact("root certificates", bool(roots))
        if roots and not usable:
            check.not_applicable("the token brings root certificates and their trust, and no keys")
        check.expect(usable, "NSS can use the token as none of the four kinds: it neither signs nor decrypts")
        check.passed(f"NSS can use it as: {', '.join(usable)}")


def _list(context: Context, slot: NssSlot) -> list[int]:
    module = context.module
    listed: list[int] = []
    with context.checking("S16") as check:
        counted = module.C_GetMechanismList(slot.id, None)
        filled = module.C_GetMechanismList(slot.id, counted.ok())
        given = filled.ok()
        listed = given if isinstance(given, list) else []
        # NSS takes a list that is shorter than counted, but never a longer one.
        check.expect(
            isinstance(given, list),
            f"C_GetMechanismList counted {counted.value} and then gave {given}",
            counted,
            filled,
        )
        twice = sorted({mechanism for mechanism in listed if listed.count(mechanism) > 1})
        if twice:
            check.warn(f"{mechanism_name(twice[0])} is listed more than once", filled)
        again = module.C_GetMechanismList(slot.id, len(listed) + 16).ok()
        check.expect(set(again) == set(listed), "the list is another one each time", filled)
    return listed


def _infos(context: Context, slot: NssSlot, listed: list[int]) -> dict[int, int]:
    module = context.module
    flags: dict[int, int] = {}
    with context.checking("S17") as check:
        for mechanism in listed:
            reply = module.C_GetMechanismInfo(slot.id, mechanism)
            if check.expect_rv(reply, CKR.OK, because=f"for {mechanism_name(mechanism)}, which is listed"):
                flags[mechanism] = int(reply.value.flags)
                _judge(check, mechanism, reply)
        unlisted = module.C_GetMechanismInfo(slot.id, NO_MECHANISM)
        check.expect_rv(unlisted, CKR.MECHANISM_INVALID, because="for a mechanism that does not exist")
        for mechanism in COMBINED:
            if mechanism not in listed:
                reply = module.C_GetMechanismInfo(slot.id, mechanism)
                check.expect(
                    not (reply.is_ok and reply.value.flags & CKF.SIGN),
                    f"{mechanism_name(mechanism)} is not listed, but C_GetMechanismInfo says SIGN: NSS will use it",
                    reply,
                )
    return flags


def _judge(check: Check, mechanism: int, reply: Reply[Any]) -> None:
    flags = int(reply.value.flags)
    # CKF_HW alone says nothing of what it can do.
    if not flags & ~CKF.HW:
        check.fail(f"{mechanism_name(mechanism)} is listed, but its flags say that it can do nothing", reply)
        return
    wanted = USES.get(mechanism)
    if wanted is not None and not flags & wanted:
        has = flags_text(flags, MECHANISM_FLAGS)
        check.fail(
            f"{mechanism_name(mechanism)} has the flags {has}",
            reply,
            expects=f"One of {flags_text(wanted, MECHANISM_FLAGS)}.",
        )
