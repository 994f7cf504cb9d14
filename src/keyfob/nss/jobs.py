"""The jobs that people have for a token, and whether NSS can do each of them with this one.

A job is judged by what the token says that it can do (its mechanisms and flags) and by the verdicts of the rules that
decide it: a failed rule of `must` stops it, a failed or warned one of `better` costs something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from keyfob.nss.driver.values import MECHANISM_FLAGS, flags_text, mechanism_name
from keyfob.nss.model import Report, RuleResult, Verdict
from keyfob.spec.constants import CKF, CKM


class Outcome(StrEnum):
    WORKS = "works"
    LOSS = "works with loss"
    NOT = "does not work"
    UNKNOWN = "not tested"


Ability = tuple[int, int]
"""(CKM_*, the CKF_* that it needs)."""

# Without these nothing works, whatever the job.
LOADING = ("G4", "G5", "G6", "P8", "S1", "S3", "S16")
# A breach of these costs every job something (costs_every_job).
CONDUCT = ("G1", "G2", "G3", "P9", "X1", "X2", "X3", "X5")
# Warnings of what programs other than NSS put on a token: NSS's own work suffers nothing.
OF_OTHER_PROGRAMS = ("P3",)
NOT_ASKED = "this run was not asked for it"
SIGN, DECRYPT, UNWRAP, DERIVE = CKF.SIGN, CKF.DECRYPT, CKF.UNWRAP, CKF.DERIVE


@dataclass(frozen=True, slots=True)
class Job:
    """`able`: alternatives, each a tuple of abilities needed together. `proof`: rules that must not be untested.

    `done`: the fact of a scenario that says whether just this was done, where `proof` speaks of RSA and EC together.
    """

    id: str
    title: str
    able: tuple[tuple[Ability, ...], ...]
    must: tuple[str, ...]
    better: tuple[str, ...] = ()
    proof: tuple[str, ...] = ()
    writes: bool = False
    done: str = ""


@dataclass(frozen=True, slots=True)
class JobResult:
    """A job's outcome, the rules and the missing abilities that decided it."""

    job: Job
    outcome: Outcome
    because: tuple[str, ...]
    lacks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.job.id,
            "title": self.job.title,
            "outcome": str(self.outcome),
            "because": list(self.because),
            "lacks": list(self.lacks),
        }


_LOGIN = ("S15", "SE11", "P11")
_OFFERED = ("P3", "N13", "N14", "N18", "O11", "O19", "P23", "P24")
"""Rules by which NSS finds a certificate and its key."""
_USE = (*_LOGIN, "SE3", "SE8", "N10", "P22", "P29")

_RSA_SIGNS, _EC_SIGNS = "signs with RSA", "signs with EC"

JOBS: tuple[Job, ...] = (
    Job(
        "tls12-rsa",
        "TLS 1.2 client authentication, RSA",
        (((CKM.RSA_PKCS, SIGN),), ((CKM.RSA_PKCS_PSS, SIGN),)),
        (*_USE, *_OFFERED),
        ("P7",),
        ("K3",),
        done=_RSA_SIGNS,
    ),
    Job(
        "tls12-ec",
        "TLS 1.2 client authentication, EC",
        (((CKM.ECDSA, SIGN),),),
        (*_USE, *_OFFERED),
        ("P7",),
        ("K3",),
        done=_EC_SIGNS,
    ),
    Job(
        "tls13-rsa",
        "TLS 1.3 client authentication, RSA",
        (((CKM.RSA_PKCS_PSS, SIGN),),),
        (*_USE, *_OFFERED, "P4"),
        ("P5", "P7"),
        ("K3", "P4"),
        done=_RSA_SIGNS,
    ),
    Job(
        "tls13-ec",
        "TLS 1.3 client authentication, EC",
        (((CKM.ECDSA, SIGN),),),
        (*_USE, *_OFFERED),
        ("P5", "P7"),
        ("K3",),
        done=_EC_SIGNS,
    ),
    Job(
        "tls13-eddsa",
        "Signatures with EdDSA",
        (((CKM.EDDSA, SIGN),),),
        (*_USE, *_OFFERED),
        ("P7",),
        ("K3",),
        done="signs with Ed25519",
    ),
    Job(
        "tls-server-rsa",
        "TLS server, RSA",
        (((CKM.RSA_PKCS_PSS, SIGN),), ((CKM.RSA_PKCS, SIGN),)),
        (*_USE, "P2", "O14"),
        ("P4",),
        ("O14",),
        done=_RSA_SIGNS,
    ),
    Job(
        "tls-server-ec",
        "TLS server, EC",
        (((CKM.ECDSA, SIGN),),),
        (*_USE, "O14"),
        (),
        ("O14",),
        done=_EC_SIGNS,
    ),
    Job(
        "smime-sign",
        "S/MIME and document signatures",
        (((CKM.RSA_PKCS, SIGN),), ((CKM.ECDSA, SIGN),)),
        (*_USE, *_OFFERED, "K3"),
        ("P7", "K9"),
        ("K3",),
    ),
    Job(
        "smime-decrypt-rsa",
        "S/MIME decryption, RSA",
        (((CKM.RSA_PKCS, UNWRAP),), ((CKM.RSA_PKCS, DECRYPT),)),
        (*_LOGIN, "O21", "N12"),
        ("K10", "N8", "P12", "P14"),
        ("K4",),
        done="decrypts with RSA",
    ),
    Job(
        "smime-decrypt-ec",
        "S/MIME decryption, EC",
        (((CKM.ECDH1_DERIVE, DERIVE),),),
        (*_LOGIN, "O21", "N12", "N8", "P12"),
        ("P13",),
        ("P13",),
        done="decrypts with EC",
    ),
    Job(
        "pkcs12-import",
        "PKCS #12 import",
        ((),),
        (*_LOGIN, "O3", "O9", "O18", "N1", "N11", "P19", "P20"),
        ("O1", "O2", "N9", "P1", "P33", "P34", "P38"),
        ("O3",),
        writes=True,
    ),
    Job(
        "pkcs12-export",
        "PKCS #12 export",
        (((CKM.AES_CBC_PAD, CKF.WRAP),), ((CKM.DES3_CBC_PAD, CKF.WRAP),)),
        (*_LOGIN, "P15"),
        (),
        ("P15",),
    ),
    Job(
        "keygen",
        "Key generation",
        (
            ((CKM.RSA_PKCS_KEY_PAIR_GEN, CKF.GENERATE_KEY_PAIR),),
            ((CKM.EC_KEY_PAIR_GEN, CKF.GENERATE_KEY_PAIR),),
        ),
        (*_LOGIN, "O13", "O18", "N1", "P20", "P21"),
        ("N17", "N18", "O10", "P22"),
        ("O13",),
        writes=True,
    ),
    Job("first-pin", "Setting the first PIN", ((),), ("P6", "P10", "S13", "N7"), ("S18",), ("P6",)),
    Job("change-pin", "Changing the PIN", ((),), (*_LOGIN, "S20", "N6", "SE14"), (), ("S20",)),
    Job("trust", "Trust settings on the token", ((),), ("P16",), (), ("P16",), writes=True),
    Job("friendly", "Certificates without a PIN prompt", ((),), ("P3", "N18"), ("P7",), ("P7",)),
)


def judge(report: Report) -> list[JobResult]:
    """Every job's outcome."""
    results = report.results()
    return [_judge(job, results, report.facts) for job in JOBS]


def costs_every_job(report: Report) -> tuple[str, ...]:
    """The broken rules that belong to no job and hurt all of them: said once, they would else hide what differs."""
    return _having(report.results(), CONDUCT, Verdict.FAIL)


def _having(results: Mapping[str, RuleResult], names: tuple[str, ...], *verdicts: Verdict) -> tuple[str, ...]:
    return tuple(name for name in names if name in results and results[name].verdict in verdicts)


def _judge(job: Job, results: Mapping[str, RuleResult], facts: Mapping[str, Any]) -> JobResult:
    obstacle = _obstacle(job, results, facts)
    if obstacle is not None:
        return obstacle
    if "mechanisms" not in facts:
        reason = "no token was looked at" if "S16" in results else NOT_ASKED
        return JobResult(job, Outcome.UNKNOWN, ("S16",), (reason,))
    left_out = tuple(name for name in job.proof if name not in results)
    if left_out:
        return JobResult(job, Outcome.UNKNOWN, left_out, (NOT_ASKED,))
    # Setting a PIN or trust may not concern a token: then there is no such job.
    unknown = _having(results, job.proof, Verdict.NOT_TESTED, Verdict.NOT_APPLICABLE)
    if unknown:
        return JobResult(job, Outcome.UNKNOWN, unknown, (results[unknown[0]].reason,))
    if job.done and job.done not in facts:
        return JobResult(job, Outcome.UNKNOWN, job.proof, ("there was no key to try it with",))
    loss = (
        *_having(results, job.better, Verdict.FAIL, Verdict.WARN),
        *(name for name in _having(results, job.must, Verdict.WARN) if name not in OF_OTHER_PROGRAMS),
    )
    return JobResult(job, Outcome.LOSS if loss else Outcome.WORKS, loss)


def _obstacle(job: Job, results: Mapping[str, RuleResult], facts: Mapping[str, Any]) -> JobResult | None:
    """What keeps NSS from doing it: a broken rule, a mechanism that is not there, or that it was tried and failed."""
    broken = _having(results, (*LOADING, *job.must), Verdict.FAIL)
    if broken:
        return JobResult(job, Outcome.NOT, broken)
    if "not loaded" in facts:
        return JobResult(job, Outcome.NOT, _having(results, (*LOADING, "G2"), Verdict.FAIL))
    if "mechanisms" in facts:
        lacks = _lacks(job, {row["number"]: row["flags"] for row in facts["mechanisms"]})
        if lacks:
            return JobResult(job, Outcome.NOT, ("S17",), lacks)
    if job.done and facts.get(job.done) is False:
        return JobResult(job, Outcome.NOT, _having(results, job.proof, Verdict.FAIL, Verdict.WARN) or job.proof)
    return None


def _lacks(job: Job, flags: Mapping[int, int]) -> tuple[str, ...]:
    """The mechanisms that would do, with their uses, when the token has none of them; every alternative is one."""
    if any(all(flags.get(mechanism, 0) & flag for mechanism, flag in able) for able in job.able):
        return ()
    wanted: dict[int, list[str]] = {}
    for able in job.able:
        for mechanism, flag in able:
            wanted.setdefault(mechanism, []).append(flags_text(flag, MECHANISM_FLAGS))
    return tuple(f"{mechanism_name(mechanism)} ({' or '.join(uses)})" for mechanism, uses in wanted.items())
