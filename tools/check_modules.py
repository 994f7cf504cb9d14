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
from keyfob.nss.jobs import JobResult, Outcome, costs_every_job, judge  # noqa: E402
from keyfob.nss.model import Report, RuleResult, Verdict  # noqa: E402
from tests.check.peers import KEYFOB, OTHERS, RACE, NotHere, Peer, check  # noqa: E402

WORDS = {Outcome.WORKS: "yes", Outcome.LOSS: "with loss", Outcome.NOT: "**no**", Outcome.UNKNOWN: "-"}
NUMBER = re.compile(r"\b(slots?) \[?\d{3,}\]?")
"""SoftHSM draws its slots' numbers by lot: the page would be another one each time."""
RACED = "two threads initialise the module at once: a race, which it does not lose each time"
HEAD = """\
# What NSS can do with which module

<!-- Written by tools/check_modules.py (`make modules`): change that, not this. -->

`keyfob check` {version}, with `--write` and, where the token can be erased, `--init`, on {date}. Every module had a
fresh token. What the rules mean: [rules.md](rules.md); what the checker does: [check.md](check.md).
"""
LEGEND = """\
*yes*: NSS can do it. *with loss*: it works, and a user will notice the rules that are named. *no*: it does not work,
for the reason that is named. -: not tested, or the token has no such job."""
NOT_OFFERED = """\
*Not offered*: a token of that kind has no mechanism for it, on purpose ([kinds.md](kinds.md)). A token for general
access has no PIN to set or to change, and certificates never wait for one.
"""
EMULATED = """\
softoken is NSS's own token, for which NSS has ways that other modules do not get; here it is loaded like any other. The
proxy of p11-kit passes on what SoftHSM answers, and adds little of its own. NSS's root certificates and p11-kit's trust
module bring certificates and no keys; they are checked as they are, without `--write`.
"""


@dataclass(frozen=True)
class Checked:
    """A module and what the checker found."""

    peer: Peer
    report: Report

    @property
    def results(self) -> dict[str, RuleResult]:
        return self.report.results()

    def having(self, verdict: Verdict) -> list[RuleResult]:
        return [result for result in self.results.values() if result.verdict == verdict]


def run(peers: Iterable[Peer]) -> list[Checked]:
    done = []
    for peer in peers:
        print(f"{peer.title} ...", end=" ", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="keyfob-peer-") as folder:
            try:
                done.append(Checked(peer, check(peer, Path(folder))))
            except NotHere as reason:
                print(reason, file=sys.stderr)
                continue
        print(f"{done[-1].report.seconds:.0f} s", file=sys.stderr)
    return done


def page(checked: list[Checked], date: str) -> str:
    """The page; `date` is the day of the run."""
    keyfob = [each for each in checked if each.peer in KEYFOB]
    others = [each for each in checked if each.peer in OTHERS]
    parts = [HEAD.format(version=__version__, date=date), *_versions(checked), "", "## Jobs", "", LEGEND, ""]
    if others:
        parts += [*_jobs(others), "", EMULATED]
    if keyfob:
        parts += ["keyfob in its four kinds, without a PIN, and as it is before its first use:", "", *_jobs(keyfob), ""]
        parts += [NOT_OFFERED]
    parts += ["## What was found", ""]
    for each in [*others, *keyfob]:
        parts += _found(each)
    return "\n".join(parts).rstrip() + "\n"


def _versions(checked: list[Checked]) -> list[str]:
    rows = [
        "| Module | Version | Says of itself | PKCS #11 | Fails | Warns | Passes |",
        "|---|---|---|---|--:|--:|--:|",
    ]
    for each in checked:
        info = each.report.facts.get("info", {})
        said = f"{info.get('description', '?')} {info.get('version', '')}"
        standard = f"{info.get('cryptoki', '?')}, {each.report.facts.get('entry point', '?')}"
        counts = " | ".join(str(len(each.having(verdict))) for verdict in (Verdict.FAIL, Verdict.WARN, Verdict.PASS))
        rows.append(f"| {each.peer.title} | {each.peer.version()} | {said} | {standard} | {counts} |")
    return rows


def _jobs(checked: list[Checked]) -> list[str]:
    judged = [judge(each.report) for each in checked]
    titles = [each.peer.title.removeprefix("keyfob, ") for each in checked]
    rows = [f"| Job | {' | '.join(titles)} |", "|---" * (len(checked) + 1) + "|"]
    rows += [f"| {results[0].job.title} | {' | '.join(map(_job, results))} |" for results in zip(*judged, strict=True)]
    every = [costs_every_job(each.report) for each in checked]
    if any(every):
        rows.append(f"| *Whatever the job* | {' | '.join(', '.join(names) for names in every)} |")
    return rows


def _job(result: JobResult) -> str:
    word = WORDS[result.outcome]
    if result.outcome == Outcome.LOSS or (result.outcome == Outcome.NOT and not result.lacks):
        return f"{word} ({', '.join(result.because)})"
    return f"{word} (not offered)" if result.outcome == Outcome.NOT else word


def _found(each: Checked) -> list[str]:
    lines = [f"### {each.peer.title}", ""]
    for verdict, head in ((Verdict.FAIL, "Fails"), (Verdict.WARN, "Warnings")):
        rows = each.having(verdict)
        if rows:
            lines += [f"{head}:", "", *(_line(result) for result in rows), ""]
    if len(lines) == 2:
        lines += [f"Nothing: {len(each.having(Verdict.PASS))} rules were tested.", ""]
    if not any(slot["token"] for slot in each.report.facts.get("slots", ())):
        lines += ["There was no token: what needs one was not tested.", ""]
    return lines


def _line(result: RuleResult) -> str:
    finding = next(finding for finding in result.findings if finding.verdict == result.verdict)
    saw = NUMBER.sub(r"its \1", finding.saw)
    # How a race ends is another matter each time.
    seen = RACED if _races(result) else saw
    user = finding.user or result.rule.user
    return f"- **{result.rule.id}** {result.rule.title}: {_plain(seen)}. *{_plain(user)}*"


def _races(result: RuleResult) -> bool:
    return all(finding.scenario == RACE for finding in result.findings if finding.verdict == result.verdict)


def _plain(text: str) -> str:
    """A text of the module's in a line of Markdown."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    # Within a word an underscore is none of Markdown's signs.
    return re.sub(r"([\\`*<>|\[\]])", r"\\\1", shown)


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
