"""Every figure: its name, what the table calls it, and how p11bench is asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from keyfob.spec.constants import CKA, CKM, CKO

from . import keys
from .keys import ulong, words

if TYPE_CHECKING:
    from collections.abc import Callable

    from .maths import Unit

Stage = Literal["start", "main", "few", "many"]
FEW = 100
BEYOND = 1 << 24  # CKA_IDs from here on belong to no population


@dataclass(frozen=True)
class Target:
    """A worker process's objects that commands refer to. `handles` by the names of `Figure.needs`."""

    handles: dict[str, int]
    population: int = 0


@dataclass(frozen=True)
class Figure:
    """`command` gives p11bench's figure and its arguments; None where the runner measures by itself (stage "start").

    `needs` names the object without which the figure cannot be measured; `budget` multiplies the time of a batch;
    `baseline` is the key that `bench.bare` signs with for comparison.
    """

    name: str
    title: str
    section: str
    stage: Stage
    command: Callable[[Target], tuple[str, str]] | None = None
    needs: str = ""
    lanes: int = 1
    unit: Unit = "time"
    budget: float = 1
    baseline: str = ""


def _sign(mechanism: int, key: str, data: bytes) -> Callable[[Target], tuple[str, str]]:
    return lambda target: ("sign", f"{mechanism} {target.handles[key]} {data.hex()}")


def _gcm(length: int) -> Callable[[Target], tuple[str, str]]:
    return lambda target: ("encrypt-gcm", f"{CKM.AES_GCM} {target.handles['aes']} {length}")


def _digest(length: int) -> Callable[[Target], tuple[str, str]]:
    return lambda _: ("digest", f"{CKM.SHA256} {length}")


def _generate(mechanism: int, parameters: keys.Template) -> Callable[[Target], tuple[str, str]]:
    templates = f"{words(keys.generated_public(parameters))} / {words(keys.generated_private())}"
    return lambda _: ("generate-key-pair", f"{mechanism} {templates}")


def _attributes(target: Target) -> tuple[str, str]:
    buffers = {CKA.CLASS: ulong(0), CKA.KEY_TYPE: ulong(0), CKA.ID: bytes(len(keys.EC_ID))}
    return "attributes", f"{target.handles['ec']} {words(buffers)}"


def _find_public(target: Target) -> tuple[str, str]:
    return "find", f"{target.population} {words({CKA.CLASS: ulong(CKO.PUBLIC_KEY)})}"


def _find_private(_: Target) -> tuple[str, str]:
    return "find", f"0 {words(keys.key_of_id(keys.EC_ID))}"


def figures(material: keys.Keys, many: int) -> tuple[Figure, ...]:
    """All figures in the order of the table. `material` gives the objects they create; `many` is the population."""
    rsa_sign = _sign(CKM.RSA_PKCS, "rsa", keys.DIGEST_INFO)
    ec_sign = _sign(CKM.ECDSA, "ec", keys.DIGEST)
    rsa_parameters = {CKA.MODULUS_BITS: ulong(2048), CKA.PUBLIC_EXPONENT: b"\x01\x00\x01"}
    create = f"{BEYOND} {words(material.ec_public())}"
    return (
        Figure("start", "dlopen to first C_GetInfo", "Start", "start"),
        Figure("login", "first C_Login", "Start", "start"),
        Figure("first-sign", "first ECDSA signature after it", "Start", "start", needs="ec"),
        Figure("session-info", "C_GetSessionInfo", "Objects", "main", lambda _: ("session-info", "")),
        Figure("attributes", "C_GetAttributeValue, 3 values", "Objects", "main", _attributes, "ec"),
        Figure("find-few", f"find by CKA_ID among {FEW:,}", "Objects", "few", _find_public),
        Figure("find-many", f"find by CKA_ID among {many:,}", "Objects", "many", _find_public),
        Figure("find-private", f"find private key beside {many:,}", "Objects", "many", _find_private, "ec"),
        Figure(
            "create",
            "C_CreateObject, EC public key",
            "Objects",
            "main",
            lambda _: ("create-object", create),
            budget=2,
        ),
        Figure("sign-rsa", "RSA-2048 sign", "Signatures", "main", rsa_sign, "rsa", budget=2, baseline="rsa"),
        Figure(
            "sign-rsa-2", "RSA-2048 sign, 2 threads", "Signatures", "main", rsa_sign, "rsa", 2, unit="rate", budget=2
        ),
        Figure(
            "sign-rsa-session",
            "RSA-2048 sign, session key",
            "Signatures",
            "main",
            _sign(CKM.RSA_PKCS, "rsa-session", keys.DIGEST_INFO),
            "rsa-session",
        ),
        Figure("sign-ec", "ECDSA P-256 sign", "Signatures", "main", ec_sign, "ec", baseline="ec"),
        Figure("sign-ec-2", "ECDSA P-256 sign, 2 threads", "Signatures", "main", ec_sign, "ec", 2, unit="rate"),
        Figure(
            "sign-ec-session",
            "ECDSA P-256 sign, session key",
            "Signatures",
            "main",
            _sign(CKM.ECDSA, "ec-session", keys.DIGEST),
            "ec-session",
        ),
        Figure("gcm-64", "AES-128-GCM encrypt, 64 bytes", "Data", "main", _gcm(64), "aes"),
        Figure("gcm-16k", "AES-128-GCM encrypt, 16 KiB", "Data", "main", _gcm(16384), "aes"),
        Figure("sha256-64", "SHA-256, 64 bytes", "Data", "main", _digest(64)),
        Figure("sha256-16k", "SHA-256, 16 KiB", "Data", "main", _digest(16384)),
        Figure(
            "generate-rsa",
            "key pair on token, RSA-2048",
            "Key generation",
            "main",
            _generate(CKM.RSA_PKCS_KEY_PAIR_GEN, rsa_parameters),
            budget=8,
        ),
        Figure(
            "generate-ec",
            "key pair on token, P-256",
            "Key generation",
            "main",
            _generate(CKM.EC_KEY_PAIR_GEN, {CKA.EC_PARAMS: keys.P256}),
            budget=2,
        ),
    )
