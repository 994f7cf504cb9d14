"""The report as one self-contained page, to read and to send to whoever made the module."""

from __future__ import annotations

from keyfob import __version__
from keyfob.nss.driver.record import call_text
from keyfob.nss.jobs import JobResult, Outcome, judge
from keyfob.nss.model import Ended, Finding, Report, RuleResult, ScenarioResult, Verdict
from keyfob.nss.report import page, timeline
from keyfob.nss.report.page import escape
from keyfob.nss.report.wording import MOST_CALLS, expectation

LOOKS = {
    Verdict.FAIL: "bad",
    Verdict.WARN: "care",
    Verdict.PASS: "good",
    Verdict.NOT_TESTED: "idle",
    Verdict.NOT_APPLICABLE: "idle",
}
OUTCOMES = {Outcome.WORKS: "good", Outcome.LOSS: "care", Outcome.NOT: "bad", Outcome.UNKNOWN: "idle"}
SEVERITIES = {"A": "makes the token unusable, or a usual task fails", "B": "one feature fails", "C": "an annoyance"}
LEGEND = (
    '<p class="legend"><span><i style="background:var(--bar-ok)"></i>CKR_OK</span>'
    '<span><i style="background:var(--bar-other)"></i>another answer, often rightly</span>'
    '<span><i style="background:var(--bar-evidence)"></i>shows a failure</span>'
    '<span><i style="background:var(--bar-lost)"></i>did not return</span>'
    "<span>A bar is a call, in order; its height is the logarithm of its time (1 us to 1 s). Click one to read it."
    "</span></p>"
)


def render(report: Report) -> str:
    """The page."""
    results = report.results()
    by_verdict = {verdict: [r for r in results.values() if r.verdict == verdict] for verdict in Verdict}
    parts = [
        _head(report, by_verdict),
        _kinds(report),
        _jobs(judge(report), results),
        _findings(report, "Failures", by_verdict[Verdict.FAIL], Verdict.FAIL),
        _findings(report, "Warnings", by_verdict[Verdict.WARN], Verdict.WARN),
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


def _head(report: Report, by_verdict: dict[Verdict, list[RuleResult]]) -> str:
    failures = len(by_verdict[Verdict.FAIL])
    if failures:
        sentence = f"{failures} of NSS's rules are broken: {_name(report)} will not do everything in Firefox."
    elif by_verdict[Verdict.WARN]:
        sentence = "No rule is broken; users will notice what the warnings say."
    else:
        sentence = "Everything that was tested is as NSS expects it."
    info = report.facts.get("info", {})
    facts = [("Module", report.module)]
    if info:
        facts.append(("Says of itself", f"{info['description']} {info['version']}, {info['manufacturer']}"))
        facts.append(("PKCS #11", f"{info['cryptoki']}, by {report.facts.get('entry point', '?')}"))
    for slot in report.facts.get("slots", ()):
        token = f"token {slot['token']['label']!r}" if slot["token"] else "no token"
        unused = f"; NSS does not use it: {slot['disabled']}" if slot["disabled"] else ""
        facts.append((f"Slot {slot['id']}", f"{token}, {slot['description']}{unused}"))
    facts.append(("Tested", f"{report.started}, {report.seconds:.0f} s; {_allowed(report)}"))
    counts = "".join(_count(verdict, len(found)) for verdict, found in by_verdict.items())
    return (
        f"<h1>Does {escape(_name(report))} work with NSS?</h1>{page.paragraph(sentence, 'lead')}"
        f'{page.facts(facts)}<ul class="counts">{counts}</ul>'
    )


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
        f"<td><b>{escape(kind['name'])}</b><br><span class=soft>{escape(kind['meaning'])}</span></td>"
        f"<td>{escape('lacks ' + ', '.join(kind['lacks'])) if kind['lacks'] else ''}</td></tr>"
        for kind in kinds
    )
    return f"<h2>NSS can use it as</h2><table><tbody>{rows}</tbody></table>"


def _jobs(jobs: list[JobResult], results: dict[str, RuleResult]) -> str:
    rows = [
        f"<tr><td>{escape(result.job.title)}</td><td>{_tag(str(result.outcome), OUTCOMES[result.outcome])}</td>"
        f"<td>{_because(result, results)}</td></tr>"
        for result in jobs
    ]
    head = "<tr><th>Job</th><th>In NSS and Firefox</th><th>Because of</th></tr>"
    return f'<h2>Jobs</h2><table class="stacked"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'


def _because(result: JobResult, results: dict[str, RuleResult]) -> str:
    """The rules that decided a job, on a line each; where many are untested for one reason, in one line."""
    links = [(f'<a href="#rule-{name}">{name}</a>', escape(results[name].rule.title)) for name in result.because]
    if result.outcome == Outcome.UNKNOWN or result.lacks:
        word = "lacks " if result.outcome == Outcome.NOT else ""
        lacks = escape(word + " or ".join(result.lacks))
        return f"{', '.join(link for link, _title in links)} {lacks}"
    return "".join(f"<div>{link} {title}</div>" for link, title in links)


def _findings(report: Report, title: str, results: list[RuleResult], verdict: Verdict) -> str:
    if not results:
        return ""
    cards = [_card(report, result, verdict) for result in sorted(results, key=lambda r: r.rule.severity or "B")]
    return f'<h2 id="{title.lower()}">{title}</h2>{"".join(cards)}'


def _card(report: Report, result: RuleResult, verdict: Verdict) -> str:
    rule = result.rule
    severity = f" {_tag(f'severity {rule.severity}', 'idle')}" if rule.severity else ""
    title = f'<h3><a href="#rule-{rule.id}">{rule.id}</a> {escape(rule.title)}{severity}</h3>'
    found = "".join(_finding(report, result, finding) for finding in result.findings if finding.verdict == verdict)
    return f'<section class="card {verdict}">{title}{found}</section>'


def _finding(report: Report, result: RuleResult, finding: Finding) -> str:
    rule = result.rule
    scenario = next((each for each in report.scenarios if each.name == finding.scenario), None)
    rows = [
        ("Found", f"<b>{escape(finding.saw)}</b>"),
        ("Calls", _evidence(scenario, finding) if scenario else ""),
        ("What NSS does", escape(finding.nss or rule.nss)),
        ("What it expects", escape(expectation(finding))),
        ("What a user sees", escape(finding.user or rule.user)),
        ("Where in NSS", f"<code>{escape(', '.join(rule.where))}</code>"),
        ("Standard", escape(rule.standard)),
    ]
    if rule.severity:
        rows.append(("Severity", f"{rule.severity}: {SEVERITIES[rule.severity]}"))
    if scenario is not None:
        rows.append(("Scenario", f'<a href="#{anchor(scenario)}">{escape(scenario.title)}</a>'))
    items = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows if value)
    return f"<dl>{items}</dl>"


def anchor(scenario: ScenarioResult) -> str:
    """The name of a scenario's place on the page; its calls are at NAME-NUMBER."""
    return "call-" + "".join(letter if letter.isalnum() else "-" for letter in scenario.name)


def _evidence(scenario: ScenarioResult, finding: Finding) -> str:
    lines = []
    for number in finding.calls[:MOST_CALLS]:
        call = scenario.call(number)
        if call is not None:
            text = call_text(call["function"], call["arguments"], call["rv"])
            given = "; ".join(f"{item['name']}={item['text']}" for item in call["out"] if call["rv"] == 0)
            shown = escape(text + (f" [{given}]" if given else ""))
            lines.append(f'<a class="evidence-call" href="#{anchor(scenario)}-{number}"><code>{shown}</code></a>')
    if len(finding.calls) > MOST_CALLS:
        lines.append(f'<span class="soft">and {len(finding.calls) - MOST_CALLS} more</span>')
    return "".join(lines)


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
        f'<h3 id="{place}">{escape(scenario.title)} {look}</h3>'
        f'<p class="soft">{len(scenario.calls)} calls, {scenario.seconds:.1f} s</p>{picture}'
        f"{page.paragraph(ended + scenario.detail) if scenario.detail else ''}{output}"
        f"<details><summary>The calls of “{escape(scenario.title)}”</summary>"
        f"{timeline.table(scenario.calls, place, marked)}</details>"
    )
