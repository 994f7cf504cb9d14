"""What `keyfob doctor` looks at: the module and its Python, configuration and folders, tokens, registrations."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keyfob import config, environment, files
from keyfob.cli import certificate_health, module, p11_kit, pin_health, registry, tokens
from keyfob.cli.errors import Refusal
from keyfob.spec.constants import CKU
from keyfob.spec.errors import PKCS11Error
from keyfob.token.library import Library
from keyfob.token.token import Token

OK, HINT, WRONG = "ok", "note", "wrong"
TIME_LIMIT = 60  # seconds
FEW_LEFT = 3
"""Wrong PINs before the lock."""

# Loads a module as a program does, in a process of its own: a crash there is a finding here.
LOAD = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
functions = ctypes.c_void_p()
rv = library.C_GetFunctionList(ctypes.byref(functions))
sys.exit(f"C_GetFunctionList answers 0x{rv:X}" if rv else 0)
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """`remedy` is what to do; empty where nothing is."""

    level: str
    about: str
    text: str
    remedy: str = ""


def everything(pin: bytes | None) -> list[Finding]:
    """All findings. `pin` is tried on a token only where exactly one token takes a PIN."""
    return [*module_findings(), *folder_findings(), *token_findings(pin), *registration_findings()]


def module_findings() -> Iterator[Finding]:
    try:
        library = module.library_path()
    except Refusal as problem:
        yield Finding(WRONG, "module", problem.message, "make build, or pip install . in the clone")
        return
    problem_text = loading_problem(library)
    if problem_text:
        yield Finding(WRONG, "module", f"{library} does not load: {problem_text}", "build it again: make build")
    else:
        version = ".".join(map(str, sys.version_info[:3]))
        yield Finding(OK, "module", f"{library} loads; it runs on Python {version} of {sys.prefix}")


def loading_problem(library: Path) -> str:
    """Why the module does not load in a fresh process; empty when it does."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", LOAD, str(library)],
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it did not answer within {TIME_LIMIT} seconds"
    if done.returncode == 0:
        return ""
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"the process ended with {done.returncode}"


def folder_findings() -> Iterator[Finding]:
    problems: list[str] = []
    settings = config.present(problems)
    for problem in problems:
        yield Finding(
            WRONG, "configuration", f"{settings.file}: {problem}", "correct the file; the default holds until then"
        )
    if os.path.exists(settings.file) and not problems:
        yield Finding(OK, "configuration", settings.file)
    if where := environment.get("KEYFOB_HOME"):
        text = f"is set here, to {where}: a program that starts without it sees other tokens, or none"
        yield Finding(HINT, "KEYFOB_HOME", text, "set it for your whole session, not in one terminal only")
    folder = Path(settings.tokens)
    if not folder.exists():
        return
    if doubted := settings.doubt():
        remedy = f"look what is in there, then: chown {os.geteuid()} {folder}; chmod 700 {folder}"
        yield Finding(WRONG, "tokens' folder", doubted, remedy)
    elif folder.stat().st_mode & files.OTHERS:
        remedy = f"chmod 700 {folder}"
        yield Finding(WRONG, "tokens' folder", f"{folder} is open to other users of this machine", remedy)
    for path in sorted(folder.iterdir()):
        if path.suffix in (".keyfob", ".key") and path.stat().st_mode & files.OTHERS:
            yield Finding(
                WRONG, "tokens' folder", f"{path} is open to other users of this machine", f"chmod 600 {path}"
            )
    if not os.access(folder, os.W_OK):
        yield Finding(HINT, "tokens' folder", f"{folder} cannot be written: its tokens can only be read")


def server_findings(library: Library) -> Iterator[Finding]:
    """About the PostgreSQL server that has the tokens, if one has."""
    settings = library.config
    if not settings.store:
        return
    remedy = "see docs/postgresql.md"
    try:
        shelf = library.shelf
        doubts = shelf.doubts()
    except PKCS11Error as problem:
        yield Finding(WRONG, "store", problem.reason or str(problem), remedy)
        return
    yield Finding(OK, "store", f"tokens are in {shelf.shown}")
    for doubt in doubts:
        yield Finding(HINT, "store", doubt, remedy)


def token_findings(pin: bytes | None) -> Iterator[Finding]:
    with tokens.library() as library:
        yield from server_findings(library)
        for slot_id, reason in tokens.broken(library).items():
            yield Finding(
                WRONG, f"slot {slot_id}", f"its token cannot be opened: {reason}", f"keyfob verify {slot_id}, on a copy"
            )
        for each in library.removables():
            if each.absent:
                why = "it was ejected" if each.registration.ejected else f"{each.registration.folder} is not there"
                remedy = f"keyfob insert {each.slot_id}" if each.registration.ejected else "plug the stick in"
                yield Finding(HINT, f"slot {each.slot_id}", f"there is no token: {why}", remedy)
        known = tokens.stored(library)
        if not known and not tokens.broken(library):
            yield Finding(WRONG, "tokens", "there is no token yet", "keyfob init LABEL")
        taking = [token for token in known if not token.general_access]
        for token in known:
            yield from one_token(token, pin if taking == [token] else None)


def one_token(token: Token, pin: bytes | None) -> Iterator[Finding]:
    info = token.info
    assert info is not None  # only stored tokens are looked at
    about, in_shell = f"token {info.label!r}", shlex.quote(info.label)
    yield Finding(OK, about, f"slot {token.slot_id}, {info.kind}" + (", read-only" if token.write_protected else ""))
    left = info.max_failures - info.failed_user
    if not info.user_pin_set and not info.general_access:
        yield Finding(
            WRONG,
            about,
            "it has no user PIN yet",
            f"set one in Firefox, with certutil -W, or: keyfob pin unblock {in_shell}",
        )
    elif left <= 0:
        yield Finding(WRONG, about, "its PIN is locked after too many wrong ones", f"keyfob pin unblock {in_shell}")
    elif left <= FEW_LEFT:
        tries = "try is" if left == 1 else "tries are"
        yield Finding(HINT, about, f"{left} {tries} left before its PIN locks", "the right PIN sets the count back")
    for level, text, remedy in pin_health.of_token(token):
        yield Finding(level, about, text, remedy)
    if not info.so_pin_set:
        yield Finding(
            HINT, about, "it has no SO PIN: a locked PIN could not be unblocked", f"keyfob pin change {in_shell} --so"
        )
    try:
        session = token.open_session(tokens.READ_ONLY)
        if pin is not None and not info.general_access and info.user_pin_set:
            token.login(session, CKU.USER, pin)
    except PKCS11Error as problem:
        yield Finding(WRONG, about, f"it does not open: {problem.reason or problem}", "see keyfob.log")
        return
    for level, text, remedy in certificate_health.of_token(token):
        yield Finding(level, about, text, remedy)
    yield from _as_it_was_left(token, about, in_shell)


def _as_it_was_left(token: Token, about: str, in_shell: str) -> Iterator[Finding]:
    """What `keyfob verify` says, in one line: damaged and refused objects are met by no search."""
    store = token.store
    found = [] if store is None else list(dict.fromkeys([*store.verify(), *store.complaints()]))
    if found:
        more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
        yield Finding(WRONG, about, f"it is not as it was left: {found[0]}{more}", f"keyfob verify {in_shell}")


def registration_findings() -> Iterator[Finding]:
    found = registry.everything()
    yield from (_registration(each) for each in found)
    for place in dict.fromkeys(each.place for each in found):
        names = [each.name for each in found if each.place == place]
        if len(names) > 1:
            text = f"has the module more than once: {', '.join(names)}"
            yield Finding(WRONG, place, text, "modutil -delete NAME, all but one")
    if not found:
        yield Finding(HINT, "registrations", "no program knows the module yet", "keyfob install --help")
    for profile in registry.every_profile():
        if profile.forbidden:
            yield Finding(HINT, profile.title, profile.forbidden)
    for system in (False, True):
        why, remedy = p11_kit.ignored(system=system)
        if why and p11_kit.registered(p11_kit.module_file(system=system)) is not None:
            yield Finding(WRONG, "p11-kit", f"it takes no notice of the registration: {why}", remedy)


def _registration(each: registry.Registration) -> Finding:
    if not Path(each.library).exists():
        return Finding(WRONG, each.place, f"names a module that is not there any more: {each.library}", each.redo)
    if not each.current:
        return Finding(WRONG, each.place, f"has another keyfob: {each.library}", each.redo)
    problem = loading_problem(Path(each.library))
    if problem:
        return Finding(WRONG, each.place, f"the module does not load from {each.library}: {problem}", "make build")
    return Finding(OK, each.place, f"has the module ({each.library})")
