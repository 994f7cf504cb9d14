"""The HTML report: one file that needs nothing else, holds every finding with its calls, trusts no module's text."""

from __future__ import annotations

import json
import subprocess
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from keyfob.cli import keyfob
from keyfob.nss.model import Finding, ScenarioResult, Verdict
from keyfob.nss.report import html
from keyfob.nss.report.cards import anchor
from keyfob.nss.report.wording import MOST_CALLS
from tests.check.reports import hostile_report
from tests.interop.programs import program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.check.conftest import Build

VOID = {"meta", "input", "br", "img", "link"}


class Page(HTMLParser):
    """What a browser would see of a page: tags with their attributes, anchors, text by element."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        self.ids = [attributes["id"] for _tag, attributes in self.tags if "id" in attributes]
        self.links = [attributes["href"] for tag, attributes in self.tags if tag == "a"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


@pytest.fixture(scope="module")
def source() -> str:
    return html.render(hostile_report())


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_tags_are_balanced(page: Page) -> None:
    assert page.unbalanced == []
    assert page.open == []


def test_nothing_is_fetched(page: Page, source: str) -> None:
    for tag, attributes in page.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form", "use", "image"}
        assert not {"src", "srcset", "data", "action", "poster", "background", "xlink:href"} & set(attributes)
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in source
    assert "@import" not in source


def test_the_pages_own_policy_forbids_fetching(page: Page) -> None:
    policy = next(a["content"] for _tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_texts_of_the_module_stay_texts(page: Page, source: str) -> None:
    assert [tag for tag, _attributes in page.tags].count("script") == 1
    assert not [name for _tag, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "<script>alert" not in source
    assert "alert('module')" in page.text


def test_control_characters_and_turned_lines_are_not_shown(source: str) -> None:
    assert "\x1b" not in source
    assert "\u202e" not in source


def test_every_link_has_its_aim(page: Page) -> None:
    assert len(page.links) > 10
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


def test_no_two_elements_share_a_name(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.WARN])
def test_every_finding_is_there_with_links_to_its_calls(source: str, page: Page, verdict: Verdict) -> None:
    report = hostile_report()
    shown = [link for tag, a in page.tags if tag == "a" and a.get("class") == "evidence-call" for link in [a["href"]]]
    findings = [(s, f) for s in report.scenarios for f in s.findings if f.verdict == verdict]
    assert findings
    for scenario, finding in findings:
        for number in finding.calls[:MOST_CALLS]:
            assert shown.count(f"#{anchor(scenario)}-{number}") == 1
        if len(finding.calls) > MOST_CALLS:
            assert f"and {len(finding.calls) - MOST_CALLS} more" in source


def test_every_call_of_every_scenario_is_listed(page: Page) -> None:
    for scenario in hostile_report().scenarios:
        for each in scenario.calls:
            assert f"{anchor(scenario)}-{each['number']}" in page.ids


def test_a_finding_says_what_to_do(page: Page) -> None:
    report = hostile_report()
    for result in report.results().values():
        if result.verdict == Verdict.FAIL:
            for text in (result.rule.title, result.rule.expects, result.rule.user, ", ".join(result.rule.where)):
                assert text in page.text


def test_every_rule_is_in_the_table(page: Page) -> None:
    rows = {attributes["id"] for tag, attributes in page.tags if tag == "tr" and "data-verdict" in attributes}
    assert rows == {f"rule-{name}" for name in hostile_report().results()}


def test_nothing_is_hidden_from_readers_without_a_script(page: Page, source: str) -> None:
    assert not [tag for tag, attributes in page.tags if "hidden" in attributes]
    root = next(attributes for tag, attributes in page.tags if tag == "html")
    assert root["class"] == "no-script"
    style = source.partition("<style>")[2].partition("</style>")[0]
    hidden = [rule for rule in style.split("}") if "display: none" in rule and "@media" not in rule]
    assert [rule.partition("{")[0].strip() for rule in hidden if "thead" not in rule] == [".no-script .filters"]


def test_a_report_without_findings_or_calls_is_a_page_too() -> None:
    report = hostile_report()
    report.scenarios, report.facts = [ScenarioResult("load", "Load")], {}
    page = Page(html.render(report))
    assert page.unbalanced == []
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


def test_a_finding_whose_calls_were_only_counted_has_no_dead_link() -> None:
    report = hostile_report()
    report.scenarios[0].findings.append(Finding("G1", Verdict.FAIL, "slow", [4711], scenario="load: NULL"))
    page = Page(html.render(report))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


def test_the_command_writes_the_page(build: Build, tmp_path: Path) -> None:
    out, report = tmp_path / "report.html", tmp_path / "report.json"
    command = ["check", build("CRASH"), "--only", "load", "--html", str(out), "--json", str(report)]
    assert CliRunner().invoke(keyfob, command).exit_code == 1
    page = Page(out.read_text(encoding="utf-8"))
    failed = [rule for rule in json.loads(report.read_text())["rules"] if rule["verdict"] == "fail"]
    assert failed
    for rule in failed:
        for finding in rule["findings"]:
            if finding["verdict"] == "fail":
                assert finding["saw"] in page.text


def in_a_browser(source: str, folder: Path) -> Page:
    """The page after its script has run."""
    chromium = program("chromium", "chromium")
    path = folder / "report.html"
    path.write_text(source, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run([chromium, *flags, path.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    return Page(done.stdout)


def hidden_rules(page: Page) -> int:
    return len([tag for tag, attributes in page.tags if tag == "tr" and "hidden" in attributes])


@pytest.mark.interop
def test_a_browser_shows_every_rule(source: str, tmp_path: Path) -> None:
    seen = in_a_browser(source, tmp_path)
    rules = len(hostile_report().results())
    assert f"{rules} of {rules}" in seen.text
    assert hidden_rules(seen) == 0
    assert next(attributes for tag, attributes in seen.tags if tag == "html").get("class", "") == ""
    assert [tag for tag, _attributes in seen.tags].count("img") == 0


@pytest.mark.interop
def test_filters_hide_rules_and_a_link_to_a_hidden_one_shows_it(source: str, tmp_path: Path) -> None:
    results = hostile_report().results().values()
    failed = [result for result in results if result.verdict == Verdict.FAIL]
    click = "document.querySelector('.filters input[value=fail]').click()"
    seen = in_a_browser(source.replace("</body>", f"<script>{click}</script></body>"), tmp_path)
    assert hidden_rules(seen) == len(failed) > 0
    go = f"{click}; location.hash = 'rule-{failed[0].rule.id}'; dispatchEvent(new Event('hashchange'))"
    seen = in_a_browser(source.replace("</body>", f"<script>{go}</script></body>"), tmp_path)
    assert hidden_rules(seen) == len(failed) - 1
