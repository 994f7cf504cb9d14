"""What the checker says of real modules: nothing against keyfob, and of others only what is true of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from keyfob.nss.model import Report, Verdict
from tests.check.peers import KEYFOB, OTHERS, NotHere, Peer, check
from tests.interop.programs import missing

if TYPE_CHECKING:
    from pathlib import Path

SOFTHSM = {
    "N4": "ECDH gives no key for HKDF: as the default for ECC it ends every handshake of TLS 1.3",
    "P1": "it knows no CKA_DECAPSULATE, and unwraps no private key, so that NSS creates it",
    "P2": "C_CopyObject wants a template: selfserv does not start with its RSA key",
    "P5": "signing in parts waits for a PIN that NSS does not give there",
    "P6": "the SO cannot log in beside NSS's read-only session",
    "P10": "its free slot opens no session",
    "P13": "ECDH has no key derivation function",
    "P14": "OAEP has SHA-1 only",
    "P15": "AES-CBC-PAD wraps nothing: pk12util -o fails",
    "P16": "it keeps certificates, and refuses their trust",
    "P33": "a private key has no CKA_EC_POINT: pk12util -i refuses a key bag",
}
SOFTHSM_WARNS = {
    "O5": "unwrapped session keys can neither be read nor wrapped",
    "N15": "a generated pair has no CKA_ID unless it is given",
    "P3": "a certificate lacks what its maker left out",
    "P7": "it has no profile object",
}
ITSELF = {"G2": "no module parameters", "P39": "a forked child is not told from its parent"}
"""What the proxy of p11-kit makes good."""
RACES = {"P9": "it initialises itself twice at once", "X1": "and crashes of it"}
"""Lost now and then: they may be missing."""

FAILS: dict[str, dict[str, str]] = {
    "softhsm": SOFTHSM,
    "softoken": {
        "O17": "C_GetAttributeValue never looks at the length of a buffer (lib/softoken/pkcs11.c)",
        "X5": "and so writes behind it",
    },
    "opensc": {},
    "p11-kit-proxy": SOFTHSM,
    "nssckbi": {"G3": "C_GetInfo after C_Finalize reads through NULL (lib/ckfw/wrap.c)", "X1": "and crashes"},
    "p11-kit-trust": {},
}
WARNS: dict[str, dict[str, str]] = {
    "softhsm": {**SOFTHSM_WARNS, **ITSELF},
    "softoken": {
        "G3": "C_GetSlotList and C_GetInfo work after C_Finalize",
        "O3": "EC keys are unwrapped only with NSS's private CKA_NSS_DB",
        "N15": "a generated pair has no CKA_ID unless it is given",
        "P1": "its database has no CKA_DECAPSULATE (3.87)",
        "P7": "it has no profile object",
        "P15": "a CKK_GENERIC_SECRET is no key for AES",
        "P21": "an EC pair that shall decrypt fails its own test: certutil -G --keyOpFlagsOn decrypt does so",
        "P33": "the raw point does not find the key",
        "P39": "a forked child is not told from its parent",
    },
    "opensc": {"G2": "no module parameters", "P28": "without PC/SC the wait for a card is an error"},
    "p11-kit-proxy": SOFTHSM_WARNS,
    "nssckbi": {
        "SE1": "C_GetSessionInfo says slot 0 of a session in slot 1",
        "SE2": "it counts its sessions below nothing",
        "SE7": "C_CloseAllSessions closes none",
        "P39": "a forked child is not told from its parent",
    },
    "p11-kit-trust": {"P39": "a forked child is not told from its parent"},
}


def checked(peer: Peer, folder: Path) -> Report:
    try:
        return check(peer, folder)
    except NotHere as reason:
        missing(str(reason))


def found(report: Report, verdict: Verdict) -> dict[str, str]:
    return {name: result.reason for name, result in report.results().items() if result.verdict == verdict}


@pytest.mark.interop
@pytest.mark.parametrize("peer", KEYFOB, ids=[peer.name for peer in KEYFOB])
def test_keyfob_breaks_no_rule_and_warns_of_nothing(peer: Peer, tmp_path: Path) -> None:
    report = checked(peer, tmp_path)
    assert found(report, Verdict.FAIL) == {}
    assert found(report, Verdict.WARN) == {}
    assert len(found(report, Verdict.PASS)) > 100
    print(f"{peer.title}: a whole run took {report.seconds:.0f} s")


@pytest.mark.interop
@pytest.mark.parametrize("peer", OTHERS, ids=lambda peer: peer.name)
def test_of_other_modules_the_checker_says_what_is_known_to_be_true(peer: Peer, tmp_path: Path) -> None:
    report = checked(peer, tmp_path)
    fails = found(report, Verdict.FAIL)
    assert set(fails) - set(peer.loses) == set(FAILS[peer.name]), fails
    assert set(peer.loses) <= set(RACES)
    warns = found(report, Verdict.WARN)
    assert set(warns) == set(WARNS[peer.name]), warns
