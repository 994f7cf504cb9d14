"""Guesses of a PIN: on a stolen file, and through the module; C_InitToken without the SO PIN."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from keyfob.spec.errors import name_of
from keyfob.store.seal import harden, hardening_of

from .outcome import Experiment, Outcome, objects
from .subjects import PIN, Subject

LEAST_TIME = 2.0
"""Seconds of guessing for a rate."""
SLOW_ENOUGH = 100
"""Guesses a second on one core: more is a defect."""
SOFTHSM_ROUNDS = 1500
"""Of SHA-256, and up to 255 more, by the last byte of the salt (SoftHSM 2.6.1, RFC4880.cpp)."""
WRONG_PINS = 100


def _keyfob_guess(subject: Subject) -> tuple[Callable[[bytes], bytes], str]:
    connection = sqlite3.connect(subject.files()[0])
    [(wrapping,)] = connection.execute("SELECT value FROM meta WHERE name = 'user_wrapping'").fetchall()
    connection.close()
    found = hardening_of(wrapping)
    return (
        lambda guess: harden(guess, bytes(16), found),
        f"Argon2id, {found.memory_kib // 1024} MiB, {found.iterations} passes",
    )


def _softoken_guess(subject: Subject) -> tuple[Callable[[bytes], bytes], str]:
    """The DER of the password check holds OID, salt and the number of iterations."""
    connection = sqlite3.connect(subject.folder / "key4.db")
    [(check,)] = connection.execute("SELECT item2 FROM metaData WHERE id = 'password'").fetchall()
    connection.close()
    iterations = _iterations(check)
    return (
        lambda guess: hashlib.pbkdf2_hmac("sha256", guess, bytes(32), iterations),
        f"PBKDF2-HMAC-SHA256, {iterations} iterations",
    )


def _iterations(der: bytes) -> int:
    """The INTEGER behind the salt of 32 bytes (RFC 8018, PBKDF2-params)."""
    at = der.index(b"\x04\x20") + 2 + 32
    if der[at] != 2:
        raise ValueError("key4.db's password check is not understood")
    return int.from_bytes(der[at + 2 : at + 2 + der[at + 1]], "big")


def _softhsm(guess: bytes) -> bytes:
    for _ in range(SOFTHSM_ROUNDS + 128):
        guess = hashlib.sha256(guess).digest()
    return guess


def offline(template: Subject, folder: Path, trials: int) -> Outcome:
    """Guesses a second on one core, with what this machine has; an attacker has more."""
    subject = template.copy(folder / "token")
    guess: Callable[[bytes], bytes]
    if subject.name == "softhsm":
        guess, how = _softhsm, f"SHA-256, {SOFTHSM_ROUNDS} to {SOFTHSM_ROUNDS + 255} times"
    elif subject.name == "softoken":
        guess, how = _softoken_guess(subject)
    else:
        guess, how = _keyfob_guess(subject)
    done, began = 0, time.process_time()
    while (taken := time.process_time() - began) < LEAST_TIME / (1 if trials > 1 else 4):
        guess(b"guess %d" % done)
        done += 1
    rate = done / taken
    if subject.name == "softhsm":
        rate, how = max(rate, _rate_of_logins(subject)), how + " (C_Login's own rate where that is faster)"
    figures: dict[str, int | float | str] = {"guesses a second": round(rate, 1)}
    return Outcome(done, int(rate > SLOW_ENOUGH), figures, [how])


def _rate_of_logins(subject: Subject) -> float:
    began = time.monotonic()
    subject.run("guess", PIN, "not-this-one", "2000")
    return 2000 / (time.monotonic() - began)


def online(template: Subject, folder: Path, trials: int) -> Outcome:
    seen = template.copy(folder / "token").run("guess", PIN, "not-this-one", str(trials), limit=300)
    answers = [name_of("CKR", int(line.split()[1])) for line in seen.lines if line.startswith("guess ")]
    taken = next((number for number, rv in enumerate(answers) if rv == "CKR_PIN_LOCKED"), len(answers))
    locked = seen.rv("right") == "CKR_PIN_LOCKED"
    figures: dict[str, int | float | str] = {"wrong PINs taken": taken, "then the right PIN:": seen.rv("right")}
    return Outcome(trials, 0 if locked else 1, figures)


def init_wrong(template: Subject, folder: Path, trials: int) -> Outcome:
    subject = template.copy(folder / "token")
    before = len(objects(subject.run("look", PIN)))
    answer = subject.run("init-wrong", "not-the-so-pin").rv("init")
    after = subject.run("look", PIN)
    kept = len([each for each in objects(after) if each.values.get("sign", ("", "0"))[1] == "0"])
    kept = kept if after.rv("login") == "CKR_OK" else 0
    figures: dict[str, int | float | str] = {"C_InitToken:": answer, "keys before": before, "usable after": kept}
    return Outcome(1, int(kept < before), figures, [f"C_Login: {after.rv('login')}"])


def experiments() -> list[Experiment]:
    return [
        Experiment(
            "guess-offline",
            "PIN guesses on a stolen file, one core",
            "keyfob: Argon2id with the parameters stored in the token, as `keyfob init` makes it. SoftHSM: its chain "
            "of SHA-256 computed in Python, or C_Login's rate where that is faster: a lower bound. softoken: "
            "PBKDF2 with "
            "the iterations stored in key4.db. More than 100 a second count as a defect.",
            offline,
            full=2,
            peers=2,
            cheap=False,
        ),
        Experiment(
            "guess-online",
            "Wrong PINs through C_Login",
            "100 wrong PINs, then the right one. A token that takes the right one then does not lock.",
            online,
            full=WRONG_PINS,
            quick=20,
            peers=WRONG_PINS,
        ),
        Experiment(
            "init-token",
            "C_InitToken with a wrong SO PIN",
            "Whether the keys are there afterwards and the user's PIN opens them.",
            init_wrong,
        ),
    ]
