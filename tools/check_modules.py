"""Run `keyfob check` on keyfob and on other people's modules, each with a fresh token, and write docs/modules.md.

    python tools/check_modules.py                     every module that this machine has
    python tools/check_modules.py softhsm softoken    these; the page is printed, not written

What is not installed is named and left out of the page. It takes some minutes.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "modules.md"
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from keyfob import __version__  # noqa: E402  (the path must be known first)
from keyfob.nss.jobs import JobResult, Outcome, judge  # noqa: E402
from keyfob.nss.model import Report, RuleResult, Verdict  # noqa: E402
from tests.check.peers import KEYFOB, OTHERS, RACES, NotHere, Peer, check  # noqa: E402

WORDS = {Outcome.WORKS: "yes", Outcome.LOSS: "with loss", Outcome.NOT: "**no**", Outcome.UNKNOWN: "-"}
NUMBER = re.compile(r"\b(slots?) \[?\d{3,}\]?")
"""SoftHSM draws its slots' numbers by lot: the page would be another one each time."""


@dataclass(frozen=True)
class Checked:
    """A module and what the checker found."""

    peer: Peer
    report: Report

    @property
    def results(self) -> dict[str, RuleResult]:
        return self.report.results()


def run(peers: Iterable[Peer]) -> list[Checked]:
    done = []
    for peer in peers:
        print(f"{peer.title} ...", end=" ", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="keyfob-peer-") as folder:
            try:
                done.append(Checked(peer, check(peer.prepare(Path(folder)))))
            except NotHere as reason:
                print(reason, file=sys.stderr)
                continue
        print(f"{done[-1].report.seconds:.0f} s", file=sys.stderr)
    return done


def page(checked: list[Checked], date: str) -> str:
    """The page; `date` is the day of the run."""
    keyfob = [each for each in checked if each.peer in KEYFOB]
    others = [each for each in checked if each.peer in OTHERS]
    parts = [
        "# What NSS can do with which module",
        "",
        "<!-- Written by tools/check_modules.py (`make modules`): change that, not this. -->",
        "",
        f"`keyfob check` {__version__}, with `--write` and, where the token can be erased, `--init`, on {date}. Every module "
        "had a fresh token. What the rules mean: [rules.md](rules.md), what the checker does: [check.md](check.md).",
        "",
        *_versions(checked),
        "",
        "## Jobs",
        "",
        "*yes*: NSS can do it. *with loss*: it works, and a user will notice something. *no*: it does not work. -: not tested, "
        "or the token has no such job.",
        "",
        *_jobs(others),
        "",
        "keyfob in its four kinds, and without a PIN:",
        "",
        *_jobs(keyfob),
        "",
        *_absent(keyfob),
        "## What was found",
        "",
    ]
    for each in [*keyfob, *others]:
        parts += _found(each)
    return "\n".join(parts).rstrip() + "\n"


def _versions(checked: list[Checked]) -> list[str]:
    rows = ["| Module | Version | Says of itself | PKCS #11 | Rules |", "|---|---|---|---|---|"]
    for each in checked:
        info = each.report.facts.get("info", {})
        said = f"{info.get('description', '?')} {info.get('version', '')}"
        standard = f"{info.get('cryptoki', '?')}, {each.report.facts.get('entry point', '?')}"
        rows.append(f"| {each.peer.title} | {each.peer.version()} | {said} | {standard} | {_counts(each)} |")
    return rows


def _counts(each: Checked) -> str:
    verdicts = [result.verdict for result in each.results.values()]
    words = {Verdict.FAIL: "fail", Verdict.WARN: "warn", Verdict.PASS: "pass"}
    return ", ".join(f"{verdicts.count(verdict)} {word}" for verdict, word in words.items())


def _jobs(checked: list[Checked]) -> list[str]:
    if not checked:
        return ["None of them is on this machine."]
    judged = [judge(each.report) for each in checked]
    rows = [
        "| Job | " + " | ".join(each.peer.title.removeprefix("keyfob, ") for each in checked) + " |",
        "|---" * (len(checked) + 1) + "|",
    ]
    for results in zip(*judged, strict=True):
        rows.append(f"| {results[0].job.title} | " + " | ".join(map(_job, results)) + " |")
    return rows


def _job(result: JobResult) -> str:
    word = WORDS[result.outcome]
    if result.outcome == Outcome.LOSS or (result.outcome == Outcome.NOT and not result.lacks):
        return f"{word} ({', '.join(result.because)})"
    return f"{word} (not offered)" if result.outcome == Outcome.NOT else word


def _absent(keyfob: list[Checked]) -> list[str]:
    """Why a kind of keyfob's tokens cannot do a job: it is made so."""
    if any(result.lacks and result.outcome == Outcome.NOT for each in keyfob for result in judge(each.report)):
        return ["*Not offered*: a token of that kind has no mechanism for it, on purpose ([kinds.md](kinds.md)).", ""]
    return []


def _found(each: Checked) -> list[str]:
    lines = [f"### {each.peer.title}", ""]
    for verdict, head in ((Verdict.FAIL, "Fails"), (Verdict.WARN, "Warnings")):
        rows = [result for result in each.results.values() if result.verdict == verdict]
        if rows:
            lines += [f"{head}:", "", *(_line(result) for result in rows), ""]
    if len(lines) == 2:
        tested = sum(result.verdict == Verdict.PASS for result in each.results.values())
        lines += [f"Nothing: {tested} rules were tested.", ""]
    if not any(slot["token"] for slot in each.report.facts.get("slots", ())):
        lines += ["There was no token: what needs one was not tested.", ""]
    return lines


def _line(result: RuleResult) -> str:
    finding = next(finding for finding in result.findings if finding.verdict == result.verdict)
    saw = NUMBER.sub(r"its \1", finding.saw)
    # How a race ends is another matter each time.
    seen = "two threads that initialise it at once: a race, which it does not lose each time" if _races(result) else saw
    return f"- **{result.rule.id}** {result.rule.title}: {_plain(seen)}"


def _races(result: RuleResult) -> bool:
    return all(finding.scenario in RACES for finding in result.findings if finding.verdict == result.verdict)


def _plain(text: str) -> str:
    """A text of the module's in a line of Markdown."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", shown)


def main() -> int:
    parser = argparse.ArgumentParser(description="Check keyfob and other modules; write docs/modules.md.")
    every = (*KEYFOB, *OTHERS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(peer.name for peer in every)}")
    names = parser.parse_args().names
    unknown = set(names) - {peer.name for peer in every}
    if unknown:
        parser.error(f"no module is called {', '.join(sorted(unknown))}")
    text = page(run(peer for peer in every if not names or peer.name in names), f"{datetime.now(UTC):%Y-%m-%d}")
    if names:
        print(text)
    else:
        PAGE.write_text(text, encoding="utf-8")
        print(f"Wrote {PAGE.relative_to(ROOT)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
