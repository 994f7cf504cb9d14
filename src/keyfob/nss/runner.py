"""Runs scenarios, each in a fresh process (watch.py), cleans up after them, and selects which to run.

A crash, a hang, an exit() and output on stdout become findings, and the run goes on.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from keyfob.nss import conduct
from keyfob.nss.cleanup import clean_up, inventory
from keyfob.nss.model import Ended, Report, ScenarioResult, rules
from keyfob.nss.options import Options
from keyfob.nss.scenario import Need, Scenario
from keyfob.nss.watch import Progress, Watch, untested

MOST_HANGS = 3
"""Scenarios that may hang in one function before any work: the others would hang there, too."""


class CannotCheck(Exception):  # noqa: N818 - told to the user, not a fault of the program
    """The run cannot be made: the module does not load, or the user's options do not fit it. Exit code 2."""


def run(
    scenarios: Sequence[Scenario],
    options: Options,
    progress: Progress | None = None,
    wanted: frozenset[str] | None = None,
) -> Report:
    """Run the scenarios in order, report the `wanted` rules (None: all).

    Raises CannotCheck; anything that the module does is in the report.
    """
    report = Report(options.module, options=options.public(), wanted=wanted)
    report.started = datetime.now(UTC).isoformat(timespec="seconds")
    begun = time.monotonic()
    if options.write:
        # Never mistake what a user has for what a run left.
        before = _run_one(inventory, options, report, progress)
        options.before = report.facts.pop("objects before", None)
        report.scenarios = [before] if before.ended != Ended.DONE or before.detail else []
    try:
        for scenario in scenarios:
            lacks = scenario.lacks(_given(options)) or _hopeless(scenario, report)
            if lacks:
                report.scenarios.append(_skipped(scenario, lacks))
            else:
                report.scenarios.append(_run_one(scenario, options, report, progress))
    finally:
        if options.ejected and options.insert is not None:
            # Its process ended before it could.
            subprocess.run(
                ["/bin/sh", "-c", options.insert], stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
        # Also when a user has had enough of waiting.
        if options.write and options.made:
            report.scenarios.append(_run_one(clean_up, options, report, progress))
    report.seconds = round(time.monotonic() - begun, 3)
    return report


def _given(options: Options) -> list[Need]:
    given: list[Need] = []
    if options.pin is not None or options.pinpad:
        given.append("pin")
    if options.so_pin is not None:
        given.append("so_pin")
    if options.write:
        given.append("write")
    if options.init:
        given.append("init")
    return given


def _hopeless(scenario: Scenario, report: Report) -> str:
    """Why it is not worth its time: the module does not load, or hangs again and again in what comes first."""
    if scenario.function.__module__.endswith(".load"):
        return ""
    if "not loaded" in report.facts:
        return f"NSS does not load the module: {report.facts['not loaded']}"
    hangs = Counter(each.hung_in for each in report.scenarios if each.hung_in)
    function, times = hangs.most_common(1)[0] if hangs else ("", 0)
    return f"{function} hung in {times} scenarios before" if times >= MOST_HANGS else ""


def _skipped(scenario: Scenario, reason: str) -> ScenarioResult:
    result = ScenarioResult(scenario.name, scenario.title, Ended.SKIPPED, reason)
    untested(scenario, result, reason)
    return result


def _run_one(scenario: Scenario, options: Options, report: Report, progress: Progress | None) -> ScenarioResult:
    watch = Watch(scenario, options, report, progress)
    if progress is not None:
        progress.started(scenario)
    watch.run()
    if watch.usage:
        raise CannotCheck(watch.usage)
    if progress is not None:
        progress.ended(scenario, watch.result)
    return watch.result


def select_scenarios(
    every: Iterable[Scenario], only: Sequence[str], skip: Sequence[str]
) -> tuple[list[Scenario], frozenset[str] | None]:
    """(the scenarios to run, the rules to report: None for all). Names are of scenarios, of their files, or rule IDs.

    KeyError for a name that is none of these.
    """
    scenarios = list(every)
    known = {name for each in scenarios for name in (each.name, _file(each))} | {rule.id for rule in rules()}
    for name in (*only, *skip):
        if name not in known:
            raise KeyError(name)
    chosen = [each for each in scenarios if not only or _named(each, only) or set(each.rules) & set(only)]
    chosen = [each for each in chosen if not _named(each, skip) and not (each.rules and set(each.rules) <= set(skip))]
    if not only and not skip:
        return chosen, None
    wanted = set(only) | {rule for each in chosen if not only or _named(each, only) for rule in each.rules}
    return chosen, frozenset((wanted | {rule.id for rule in conduct.RULES}) - set(skip))


def _file(scenario: Scenario) -> str:
    """`load` of `load: NULL`."""
    return scenario.name.split(":", 1)[0]


def _named(scenario: Scenario, names: Sequence[str]) -> bool:
    return scenario.name in names or _file(scenario) in names
