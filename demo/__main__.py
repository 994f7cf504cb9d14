"""``python -m demo``: run the demo's steps, tell what happened, and end with exit code 0 only if all is well."""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console

from demo import tokens
from demo.account import Account, write_json
from demo.nss import StepFailedError, Tools
from demo.stage import open_stage
from demo.steps import Step, all_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from demo.stage import Stage

# What the steps run, and the Debian packages that bring it.
NEEDED = {
    "libnss3-tools": "certutil modutil cmsutil signtool signver p7sign pk1sign pk12util crlutil symkeyutil selfserv "
    "tstclnt strsclnt",
    "openssl": "openssl",
    "opensc": "pkcs11-tool",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; gives the exit code: 0 all passed, 1 a step failed, 2 it could not begin."""
    options = parse(arguments)
    steps = all_steps(kind_of(options))
    if options.list:
        for step in steps.values():
            print(f"{step.name:<20} {step.sentence}")
        return 0
    missing = [package for package, names in NEEDED.items() if not all(map(shutil.which, names.split()))]
    if missing:
        return refuse(f"missing packages: apt install {' '.join(missing)}")
    if unknown := set(options.only) - set(steps):
        return refuse(f"no such step: {', '.join(sorted(unknown))} (--list shows them all)")
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with open_stage(token_maker(options), keep=options.keep) as stage:
            return 0 if perform(stage, options) else 1
    except StepFailedError as error:
        return refuse(str(error))
    except KeyboardInterrupt:
        return refuse("interrupted", 130)
    finally:
        signal.signal(signal.SIGTERM, before)


def perform(stage: Stage, options: argparse.Namespace) -> bool:
    """Run the steps chosen, and tell what happened; gives whether all is as it should be."""
    console = Console(emoji=False, markup=False, highlight=False)
    chosen = with_needs(stage.steps, options.only)
    console.print(f"keyfob demo: {stage.token.title} in NSS's own tools", style="bold")
    console.print(f"{len(chosen)} steps; module {stage.token.module}", soft_wrap=True)
    if not options.brief:
        console.print("Commands are shown without database, password file and module.")
        console.print("[Rules] are those of NSS.md: what NSS expects of a module.")
    account = Account(console, stage, again=again(options), brief=options.brief)
    start = time.monotonic()
    results = []
    for step in chosen:
        with account.running(step):
            results.append(stage.show(step.name))
        account.tell(results[-1])
    seconds = time.monotonic() - start
    passed = account.conclude(results, seconds)
    if options.json:
        write_json(options.json, stage, results, seconds, passed=passed)
    if options.keep:
        console.print(f"kept: cd {stage.folder} && . ./environment", soft_wrap=True)
    return passed


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Does a whole job with NSS's own tools and keys that never leave the token: keys, certificates, "
        "mail, signed files, TLS and PKCS #12. Uses keyfob unless another module is named.",
    )
    parser.add_argument("--only", metavar="STEP", action="append", default=[], help="run this step and those it needs")
    parser.add_argument("--list", action="store_true", help="list the steps and end")
    parser.add_argument("--keep", action="store_true", help="keep the folder, to repeat commands by hand")
    parser.add_argument("--brief", action="store_true", help="one line for each step that passes")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the results as JSON")
    parser.add_argument("--spy", metavar="FILE", type=Path, help="record every call into the module there (with PINs)")
    parser.add_argument("--keyfob", metavar="COMMAND", default="", help="keyfob's command, if not beside this Python")
    parser.add_argument("--store", metavar="URL", default="", help="keep keyfob's token in this PostgreSQL database")
    peer = parser.add_mutually_exclusive_group()
    peer.add_argument("--softhsm", action="store_true", help="use SoftHSM 2 instead, as a yardstick")
    peer.add_argument("--softoken", action="store_true", help="use NSS's own softoken instead, as a yardstick")
    peer.add_argument("--module", metavar="PATH", help="use an existing, empty token of this module")
    parser.add_argument("--token", metavar="LABEL", default=tokens.LABEL, help="label of that token")
    parser.add_argument("--pin", metavar="PIN", default=tokens.PIN, help="PIN of that token")
    return parser.parse_args(arguments)


def kind_of(options: argparse.Namespace) -> str:
    """Give the kind of token that the options ask for."""
    chosen = {"softhsm": options.softhsm, "softoken": options.softoken, "module": options.module}
    return next((kind for kind, wanted in chosen.items() if wanted), "keyfob")


def token_maker(options: argparse.Namespace) -> Callable[[Path, Tools], tokens.Token]:
    """Give the function that makes the token which the options ask for."""
    if options.spy:
        make = unspied_maker(options)
        return lambda folder, tools: tokens.spied(make(folder, tools), options.spy.resolve())
    return unspied_maker(options)


def unspied_maker(options: argparse.Namespace) -> Callable[[Path, Tools], tokens.Token]:
    """The same, whatever --spy says."""
    if options.softhsm:
        return lambda folder, _: tokens.softhsm(folder)
    if options.softoken:
        return lambda folder, _: tokens.softoken(folder)
    if options.module:
        return lambda folder, _: tokens.given(folder, options.module, options.token, options.pin)
    return lambda folder, tools: tokens.keyfob(folder, tools, options.keyfob, options.store)


def with_needs(steps: dict[str, Step], names: Sequence[str]) -> list[Step]:
    """Give the named steps (no names: all) and those that they need, in the order of the account."""
    wanted = set(names) or set(steps)
    for step in reversed(steps.values()):
        if step.name in wanted:
            wanted.update(step.needs)
    return [step for step in steps.values() if step.name in wanted]


def again(options: argparse.Namespace) -> str:
    """Give the command that runs the demo on the same kind of token."""
    kind = kind_of(options)
    peer = "" if kind == "keyfob" else f"--{kind}"
    if options.module:
        peer = shlex.join(["--module", options.module, "--token", options.token])
    return " ".join(word for word in (Path(sys.executable).name, "-m demo", peer) if word)


def refuse(message: str, code: int = 2) -> int:
    """Say why the demo cannot run."""
    print(f"demo: {message}", file=sys.stderr)
    return code


def stop(number: int, _frame: object) -> NoReturn:
    """End in an orderly way when terminated: servers are stopped and the folder is removed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
