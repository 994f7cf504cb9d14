"""How well the PINs of a token keep what they shall, for `keyfob doctor`: offline guessing, peppers, PIN files."""

from __future__ import annotations

import os
from collections.abc import Iterator

from keyfob.cli.pepper_setting import quoted
from keyfob.spec.errors import PKCS11Error
from keyfob.store import calibration, secret_file
from keyfob.store.hardening import least
from keyfob.store.pepper import PepperState
from keyfob.token.token import Token

OK, HINT, WRONG = "ok", "note", "wrong"
NAMES = {"user": "user PIN", "so": "SO PIN"}

Result = Iterator[tuple[str, str, str]]


def of_token(token: Token) -> Result:
    """(level, what, what to do)."""
    store, info = token.store, token.info
    if store is None or info is None:
        return
    try:
        state, hardening = store.pepper_state(), store.hardening("user")
        rate = calibration.guesses_per_second(hardening) if hardening is not None else 0.0
    except PKCS11Error as problem:
        yield WRONG, f"its PIN's hardening cannot be read: {problem.reason}", "keyfob verify"
        return
    if state is not None:
        yield from _pepper(token, state, info.label)
    elif token.settings.pepper:
        yield (
            HINT,
            f"the configuration names a pepper ({token.settings.pepper}), and its PINs are made without one",
            f"keyfob pin pepper {info.label} --set {token.settings.pepper}",
        )
    yield from _pin_file(token)
    if hardening is None:
        return
    weak = hardening.raised_to(least()) is not hardening
    text = (
        f"one core of this machine tries {rate:,.0f} PINs a second on a copy of its file; a random PIN of 6 digits"
        f" lasts about {lasting(500_000 / rate)}"
    )
    if state is not None and "user" in state.roles:
        text = f"who copies its file cannot try PINs without the pepper, too; with it, {text}"
    yield HINT if weak else OK, text, "the next login hardens it more" if weak else ""


def _pepper(token: Token, state: PepperState, label: str) -> Result:
    info = token.info
    assert info is not None  # of_token
    if state.problem:
        yield (
            WRONG,
            f"its pepper is of no use, so no PIN opens it: {state.problem}",
            f"put the file there, or say where it is: [token.{quoted(label)}] pepper in {token.config.file}",
        )
        return
    yield OK, f"its PINs are made with the pepper {state.location}", ""
    there = {"user": info.user_pin_set and not info.general_access, "so": info.so_pin_set}
    lacking = [role for role, is_set in there.items() if is_set and role not in state.roles]
    for role in lacking:
        yield (
            HINT,
            f"its {NAMES[role]} has not got the pepper yet, and can be guessed at on a copy of the token's file",
            f"the {NAMES[role]}'s next login gives it, or keyfob pin pepper {label} --set {state.location}",
        )
    if _lies_beside(token, state.location):
        yield HINT, "its pepper lies beside it: who copies the one copies the other", "keep it somewhere else"


def _pin_file(token: Token) -> Result:
    location = token.pin_file.location
    if not location:
        return
    token.use_pin_file()
    if token.pin_file.problem:
        remedy = "put the PIN into the file's first line; until then programs are asked for it"
        yield WRONG, f"its PIN file does not open it: {token.pin_file.problem}", remedy
        return
    yield OK, f"its PIN comes from {location}: programs are not asked for it", ""
    if _lies_beside(token, location):
        yield HINT, "its PIN file lies beside it: who copies the one copies the other", "keep it somewhere else"


def _lies_beside(token: Token, location: str) -> bool:
    path = secret_file.path_of(location, token.config.credentials)
    return os.path.dirname(os.path.realpath(path)) == os.path.realpath(token.config.tokens)


def lasting(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} seconds"
