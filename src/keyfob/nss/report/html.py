"""The report as one self-contained page, to read and to send to whoever made the module."""

from __future__ import annotations

from keyfob import __version__
from keyfob.nss.jobs import JobResult, Outcome, costs_every_job, judge
from keyfob.nss.model import Ended, Report, RuleResult, ScenarioResult, Verdict
from keyfob.nss.report import page, timeline
from keyfob.nss.report.cards import anchor, card
from keyfob.nss.report.page import escape
from keyfob.nss.report.wording import same_for_all, verdict, worst_first

LOOKS = {
    Verdict.FAIL: "bad",
    Verdict.WARN: "care",
    Verdict.PASS: "good",
    Verdict.NOT_TESTED: "idle",
    Verdict.NOT_APPLICABLE: "idle",
}
OUTCOMES = {Outcome.WORKS: "good", Outcome.LOSS: "care", Outcome.NOT: "bad", Outcome.UNKNOWN: "idle"}
ENDED_WELL = (Ended.DONE, Ended.SKIPPED)
LEGEND = (
    '<p class="legend"><span><i style="background:var(--bar-ok)"></i>CKR_OK</span>'
    '<span><i style="background:var(--bar-other)"></i>another answer, often rightly</span>'
    '<span><i style="background:var(--bar-evidence)"></i>shows a failure, or what is warned of</span>'
    '<span><i style="background:var(--bar-lost)"></i>did not return</span>'
    "<span>A bar is a call, in order; its height is the logarithm of its time (1 us to 1 s). Click one to read it."
    "</span></p>"
)


def render(report: Report) -> str:
    """The page."""
    results = report.results()
    by_verdict = {verdict: [r for r in results.values() if r.verdict == verdict] for verdict in Verdict}
    jobs = judge(report)
    parts = [
        _head(report, by_verdict, jobs),
        _kinds(report),
        _jobs(report, jobs, results),
        _to_fix(report, by_verdict[Verdict.FAIL]),
        _cards(report, "Failures", by_verdict[Verdict.FAIL]),
        _cards(report, "Warnings", by_verdict[Verdict.WARN]),
        _rules(results),
        _scenarios(report),
    ]
    return page.page(
        f"NSS and {_name(report)}", "".join(parts), made_by=f"keyfob check {__version__}, {report.started}"
    )


def _name(report: Report) -> str:
    return report.module.rpartition("/")[2]


def _tag(text: str, look: str) -> str:
    return f'<span class="tag {look}">{escape(text)}</span>'


def _head(report: Report, by_verdict: dict[Verdict, list[RuleResult]], jobs: list[JobResult]) -> str:
    worst, sentence = verdict(report, [result for found in by_verdict.values() for result in found], jobs)
    lost = [result.job.title for result in jobs if result.outcome == Outcome.NOT and "not loaded" not in report.facts]
    lost_line = f"<p><b>Does not work:</b> {escape('; '.join(lost))}</p>" if lost else ""
    info = report.facts.get("info", {})
    facts = [("Module", report.module)]
    if info:
        facts.append(("Says of itself", f"{info['description']} {info['version']}, {info['manufacturer']}"))
        facts.append(("PKCS #11", f"{info['cryptoki']}, by {report.facts.get('entry point', '?')}"))
    for slot in report.facts.get("slots", ()):
        token = _token_name(slot["token"]["label"]) if slot["token"] else "no token"
        unused = f"; NSS does not use it: {slot['disabled']}" if slot["disabled"] else ""
        facts.append((f"Slot {slot['id']}", f"{token}, {slot['description']}{unused}"))
    facts.append(("Tested", f"{_moment(report)}, {report.seconds:.0f} s; {_allowed(report)}"))
    counts = "".join(_count(verdict, len(found)) for verdict, found in by_verdict.items())
    return (
        f"<h1>Does {escape(_name(report))} work with NSS?</h1>"
        f'<div class="verdict {LOOKS[worst]}">{page.paragraph(sentence, "lead")}{lost_line}</div>'
        f'<ul class="counts">{counts}</ul>{page.facts(facts)}'
    )


def _token_name(label: str) -> str:
    return f"token {label!r}" if label else "a token without a name"


def _moment(report: Report) -> str:
    return report.started.replace("T", " ").replace("+00:00", " UTC")


def _count(verdict: Verdict, number: int) -> str:
    place = {Verdict.FAIL: "failures", Verdict.WARN: "warnings"}.get(verdict, "rules") if number else "rules"
    return f'<li class="{LOOKS[verdict]}"><a href="#{place}"><b>{number}</b>{escape(str(verdict))}</a></li>'


def _allowed(report: Report) -> str:
    """What the run was allowed to do, and with which PINs."""
    options = report.options
    words = ["with the PIN" if options.get("pin") else "without a PIN"]
    words.append("writing to the token" if options.get("write") else "without writing to the token")
    if options.get("init"):
        words.append("erasing it")
    return ", ".join(words)


def _kinds(report: Report) -> str:
    kinds = report.facts.get("kinds")
    if not kinds:
        return ""
    rows = "".join(
        f"<tr><td>{_tag('yes', 'good') if kind['usable'] else _tag('no', 'bad')}</td>"
        f"<td><b>{escape(kind['name'])}</b>: <span class='soft'>{escape(kind['meaning'])}</span>"
        f"{escape('; lacks ' + ', '.join(kind['lacks'])) if kind['lacks'] else ''}</td></tr>"
        for kind in kinds
    )
    return f'<h2>NSS can use it as</h2><table class="kinds"><tbody>{rows}</tbody></table>'


def _jobs(report: Report, jobs: list[JobResult], results: dict[str, RuleResult]) -> str:
    rows = [
        f"<tr><td>{escape(result.job.title)}</td><td>{_tag(str(result.outcome), OUTCOMES[result.outcome])}</td>"
        f"<td>{_because(result, results)}</td></tr>"
        for result in jobs
    ]
    head = "<tr><th>Job</th><th>In NSS and Firefox</th><th>Because of</th></tr>"
    every = ""
    conduct = costs_every_job(report)
    if conduct:
        links = "".join(f"<div>{_link(results[name])}</div>" for name in conduct)
        every = f'<div class="verdict bad"><b>Whatever the job, a user may meet with</b>{links}</div>'
    if "not loaded" in report.facts or same_for_all(jobs):
        return every
    table = f'<table class="stacked"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    return f"<h2>Jobs</h2>{table}{every}"


def _link(result: RuleResult) -> str:
    """To the card of a rule, or to its row where it has none."""
    place = "finding" if result.verdict in (Verdict.FAIL, Verdict.WARN) else "rule"
    return f'<a href="#{place}-{result.rule.id}">{result.rule.id}</a> {escape(result.rule.title)}'


def _because(result: JobResult, results: dict[str, RuleResult]) -> str:
    """The rules that decided a job, on a line each; where many are untested for one reason, in one line."""
    if result.outcome == Outcome.UNKNOWN or result.lacks:
        links = ", ".join(f'<a href="#rule-{name}">{name}</a>' for name in result.because)
        word = "lacks " if result.outcome == Outcome.NOT else ""
        return f"{links} {escape(word + ' or '.join(result.lacks))}"
    return "".join(f"<div>{_link(results[name])}</div>" for name in result.because)


def _to_fix(report: Report, failed: list[RuleResult]) -> str:
    """The failures in a line each, the worst first: what a maintainer would make a list of."""
    if not failed:
        return ""
    rows = "".join(
        f'<tr><td><a href="#finding-{result.rule.id}">{result.rule.id}</a></td>'
        f'<td class="soft">{result.rule.severity or ""}</td>'
        f"<td>{escape(result.reason)}{escape(_cut_short(report, result))}</td></tr>"
        for result in worst_first(failed)
    )
    head = "<tr><th>Rule</th><th>Severity</th><th>What is wrong</th></tr>"
    return f'<h2 id="fix">What to fix</h2><table class="fix stacked"><thead>{head}</thead><tbody>{rows}</tbody></table>'


def _cut_short(report: Report, result: RuleResult) -> str:
    """Where a process ended early: its last call tells little without what was being tried."""
    names = [finding.scenario for finding in result.findings if finding.verdict == result.verdict][:1]
    tried = [each.title for each in report.scenarios if each.name in names and each.ended not in ENDED_WELL]
    return f"; tried was: {tried[0]}" if tried else ""


def _cards(report: Report, title: str, results: list[RuleResult]) -> str:
    if not results:
        return ""
    return f'<h2 id="{title.lower()}">{title}</h2>' + "".join(card(report, result) for result in worst_first(results))


def _rules(results: dict[str, RuleResult]) -> str:
    boxes = "".join(
        f'<label><input type="checkbox" value="{verdict}" checked> {escape(str(verdict))}</label>'
        for verdict in Verdict
    )
    rows = "".join(_rule(result) for result in results.values())
    head = "<tr><th>Rule</th><th>Verdict</th><th>What it says, and what was found</th></tr>"
    search = '<input type="search" placeholder="words, or a rule" aria-label="words to look for">'
    return (
        f'<h2 id="rules">Every rule</h2><div class="filters">{search}{boxes}<span id="shown"></span></div>'
        f'<table class="stacked"><thead>{head}</thead><tbody>{rows}</tbody></table>'
    )


def _rule(result: RuleResult) -> str:
    rule = result.rule
    words = f"{rule.id} {rule.title} {rule.statement} {rule.expects} {result.reason}".lower()
    reason = f'<div class="soft">{escape(result.reason)}</div>' if result.reason else ""
    return (
        f'<tr id="rule-{rule.id}" data-verdict="{result.verdict}" data-text="{escape(words)}"><td><b>{rule.id}</b></td>'
        f"<td>{_tag(str(result.verdict), LOOKS[result.verdict])}</td>"
        f"<td><b>{escape(rule.title)}</b><div>{escape(rule.expects)}</div>{reason}</td></tr>"
    )


def _scenarios(report: Report) -> str:
    parts = ['<h2 id="scenarios">Scenarios</h2>', LEGEND]
    parts.extend(_scenario(scenario) for scenario in report.scenarios)
    return "".join(parts)


def _scenario(scenario: ScenarioResult) -> str:
    marked = {number for f in scenario.findings if f.verdict in (Verdict.FAIL, Verdict.WARN) for number in f.calls}
    place = anchor(scenario)
    if scenario.ended == Ended.SKIPPED:
        return (
            f'<details id="{place}"><summary><h3>{escape(scenario.title)}</h3> {_tag("not run", "idle")}</summary>'
            f"{page.paragraph(scenario.detail)}</details>"
        )
    failed = any(f.verdict == Verdict.FAIL for f in scenario.findings)
    warned = any(f.verdict == Verdict.WARN for f in scenario.findings)
    look = _tag("failures", "bad") if failed else _tag("warnings", "care") if warned else _tag("as expected", "good")
    picture = f'<div class="picture">{timeline.svg(scenario.calls, place, marked)}</div>'
    output = "".join(
        f"<p>On standard {name}:</p><pre>{escape(text)}</pre>"
        for name, text in (("output", scenario.stdout), ("error", scenario.stderr))
        if text.strip()
    )
    ended = "" if scenario.ended == Ended.DONE else f"{scenario.ended}: "
    return (
        f'<h3 id="{place}">{escape(scenario.title)} {look} '
        f'<span class="soft">{len(scenario.calls)} calls, {scenario.seconds:.1f} s</span></h3>{picture}'
        f"{page.paragraph(ended + scenario.detail) if scenario.detail else ''}{output}"
        f"<details><summary>The calls of “{escape(scenario.title)}”</summary>"
        f"{timeline.table(scenario.calls, place, marked)}</details>"
    )
