"""`keyfob check`: whether a PKCS #11 module, any module, gets along with NSS."""

from __future__ import annotations

import os
import signal
import textwrap
from typing import TYPE_CHECKING, Any, NoReturn

import click

from keyfob.cli import files
from keyfob.cli.errors import Refusal
from keyfob.cli.pins import Secret, pin_option, secret_option

if TYPE_CHECKING:
    from rich.status import Status

    from keyfob.nss.model import Report, ScenarioResult
    from keyfob.nss.options import Options
    from keyfob.nss.scenario import Scenario

EPILOG = """\b
Examples:
  keyfob check $(keyfob module-path)
  keyfob check /usr/lib/softhsm/libsofthsm2.so --pin-file pin.txt --write
  keyfob check ./mine.so --only login --json report.json
  keyfob check ./mine.so --pin-file pin.txt --write --html report.html
  keyfob check --compare last-week.json today.json
  keyfob check --explain P6

Nothing is written to the token without --write, and it is not erased without --init. Exit code: 0 no rule fails, 1 some
rule fails (--compare: something got worse), 2 the module cannot be checked."""


class CannotCheckRefusal(Refusal):
    """The module cannot be checked. Exit code 2."""

    exit_code = 2


class SlotID(click.ParamType):  # type: ignore[type-arg,unused-ignore] # generic since click 8.2
    """A slot's ID, in decimal or 0x hexadecimal."""

    name = "ID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(value, 0) if isinstance(value, str) else int(value)
        except ValueError:
            self.fail(f"{value!r} is not the number of a slot", param, ctx)


@click.command(epilog=EPILOG)
@click.argument("module", required=False)
@pin_option
@secret_option("so-pin", "SO PIN")
@click.option("--slot", type=SlotID(), help="Check the token in this slot.")
@click.option("--token-label", metavar="LABEL", help="Check the token of this label.")
@click.option("--write", is_flag=True, help="Make objects on the token; they are removed afterwards.")
@click.option("--init", is_flag=True, help="ERASE the token, and set its PINs to the given ones.")
@click.option("--wrong-pins", is_flag=True, help="Try wrong PINs more often than once.")
@click.option("--pinpad", is_flag=True, help="Somebody is there to type the PIN on the token itself.")
@click.option("--eject", metavar="COMMAND", help="What takes the token out of its removable slot; with --insert.")
@click.option("--insert", metavar="COMMAND", help="What puts it back.")
@click.option("--parameters", metavar="TEXT", help="Module parameters, as `modutil -string` gives them.")
@click.option("--only", metavar="NAME", multiple=True, help="Only this scenario or rule; may come several times.")
@click.option("--skip", metavar="NAME", multiple=True, help="Not this scenario or rule; may come several times.")
@click.option(
    "--time-limit",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    help="How long one call of the module may take.",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write the report as JSON (-: standard output, instead of the text).",
)
@click.option("--junit", metavar="FILE", type=click.Path(dir_okay=False), help="Write the report as JUnit's XML.")
@click.option("--html", metavar="FILE", type=click.Path(dir_okay=False), help="Write the report as one HTML page.")
@click.option(
    "--compare",
    metavar="BEFORE AFTER",
    type=click.Path(exists=True, dir_okay=False),
    nargs=2,
    help="Compare two reports written by --json, and end.",
)
@click.option("--list-rules", is_flag=True, help="List the rules and end.")
@click.option("--explain", metavar="RULE", help="Say what a rule is about and end.")
def check(
    module: str | None,
    pin: Secret,
    so_pin: Secret,
    *,
    compare: tuple[str, str] | None,
    list_rules: bool,
    explain: str | None,
    **rest: Any,
) -> None:
    """Check that NSS, and so Firefox, gets along with the PKCS #11 MODULE (the path of a .so).

    The module is driven exactly as NSS drives it, each scenario in a process of its own.
    """
    if list_rules:
        _list_rules()
    elif explain is not None:
        _explain(explain)
    elif compare is not None:
        _compare(module, *compare, rest["json_file"])
    elif module is None:
        raise click.UsageError("name the MODULE to check")
    else:
        _check(module, pin, so_pin, **rest)


def _check(
    module: str,
    pin: Secret,
    so_pin: Secret,
    *,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    time_limit: float,
    json_file: str | None,
    junit: str | None,
    html: str | None,
    **rest: Any,
) -> None:
    from keyfob.nss.options import Options
    from keyfob.nss.runner import CannotCheck, select_scenarios
    from keyfob.nss.scenarios import scenarios

    if not os.path.isfile(module):
        raise click.UsageError(f"there is no file {module}")
    if rest["slot"] is not None and rest["token_label"] is not None:
        raise click.UsageError("give --slot or --token-label, not both")
    if (rest["eject"] is None) != (rest["insert"] is None):
        raise click.UsageError("--eject and --insert go together")
    options = Options(os.path.abspath(module), pin=_text(pin), so_pin=_text(so_pin), limit=time_limit, **rest)
    try:
        chosen, wanted = select_scenarios(scenarios(), only, skip)
    except KeyError as unknown:
        raise click.UsageError(f"{unknown.args[0]!r} is no scenario and no rule; --list-rules has them") from None
    for path in (json_file, junit, html):
        _expect_place(path)
    # What a run wrote is removed when it is ended, too (runner.run).
    signal.signal(signal.SIGTERM, _end)
    try:
        report = _run(chosen, options, wanted)
    except CannotCheck as problem:
        raise CannotCheckRefusal(str(problem)) from None
    _give(report, json_file, junit, html)
    if report.options.get("pin") and options.refused.get("pin"):
        raise CannotCheckRefusal(f"the PIN that was given is refused ({options.refused['pin']}); it was tried once")
    if report.failed:
        raise click.exceptions.Exit(1)


def _expect_place(path: str | None) -> None:
    """A report that cannot be written is known before the run, which takes a while."""
    if path is None or path == "-":
        return
    if not files.may_write(path):
        raise click.UsageError(f"{path} cannot be written")


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _text(secret: Secret) -> str | None:
    if not secret.given:
        return None
    try:
        return secret.read().decode()
    except UnicodeDecodeError:
        raise click.UsageError(f"the {secret.what} is not UTF-8") from None


class _Progress:
    """One line on standard error that says what is going on; it is gone at the end."""

    def __init__(self, status: Status, total: int) -> None:
        self._status = status
        self._total = total
        self._number = 0

    def started(self, scenario: Scenario) -> None:
        self._number += 1
        self._say(scenario)

    def calling(self, scenario: Scenario, function: str) -> None:
        self._say(scenario, function)

    def ended(self, scenario: Scenario, result: ScenarioResult) -> None:
        self._say(scenario)

    def _say(self, scenario: Scenario, function: str = "") -> None:
        self._status.update(f"{min(self._number, self._total)}/{self._total} {scenario.name}: {function}")


def _run(chosen: list[Scenario], options: Options, wanted: frozenset[str] | None) -> Report:
    from rich.console import Console

    from keyfob.nss.runner import run

    console = Console(stderr=True)
    if not console.is_terminal:
        return run(chosen, options, wanted=wanted)
    with console.status("") as status:
        return run(chosen, options, _Progress(status, len(chosen)), wanted)


def _give(report: Report, json_file: str | None, junit: str | None, html: str | None) -> None:
    from keyfob.nss.report import as_json
    from keyfob.nss.report import html as as_html
    from keyfob.nss.report import junit as as_junit

    if json_file != "-":
        from rich.console import Console

        from keyfob.nss.report import terminal

        terminal.show(report, Console(highlight=False))
    if html is not None:
        _write(html, as_html.render(report))
    if junit is not None:
        _write(junit, as_junit.text(report))
    if json_file is not None:
        _write(json_file, as_json.text(report))


def _write(path: str, text: str) -> None:
    try:
        files.write(path, text.encode(), force=True)
    except Refusal as refused:
        raise CannotCheckRefusal(refused.message) from None


def _compare(module: str | None, before: str, after: str, json_file: str | None) -> None:
    from keyfob.nss.report import compare

    if module is not None:
        raise click.UsageError("--compare takes two reports, and no MODULE")
    try:
        found = compare.compare(compare.load(before), compare.load(after))
    except compare.CannotCompare as problem:
        raise CannotCheckRefusal(str(problem)) from None
    if json_file is not None:
        _write(json_file, compare.text(found))
    if json_file != "-":
        from rich.console import Console

        compare.show(found, Console(highlight=False))
    if found.worse:
        raise click.exceptions.Exit(1)


def _list_rules() -> None:
    from keyfob.nss.model import rules
    from keyfob.nss.scenarios import scenarios

    tested = {rule for scenario in scenarios() for rule in scenario.rules}
    for rule in rules():
        mark = (
            ""
            if rule.id in tested or rule.group == "X"
            else f" (not tested{': ' * bool(rule.unchecked)}{rule.unchecked})"
        )
        click.echo(f"{rule.id:5} {rule.title}{mark}")
    click.echo("\nScenarios:")
    for scenario in scenarios():
        click.echo(f"  {scenario.name}: {scenario.title} ({', '.join(scenario.rules)})")


def _explain(rule_id: str) -> None:
    from keyfob.nss.model import rule
    from keyfob.nss.scenarios import scenarios

    try:
        known = rule(rule_id.upper())
    except KeyError:
        raise click.UsageError(f"there is no rule {rule_id!r}; --list-rules has them") from None
    names = [scenario.name for scenario in scenarios() if known.id in scenario.rules]
    parts = {
        "Rule": known.statement,
        "NSS today": known.nss,
        "The module": known.expects,
        "A user of one that does not": known.user,
        "In NSS": ", ".join(known.where),
        "In the standard": known.standard,
        "Tested by": ", ".join(names)
        or known.unchecked
        or ("every scenario" if known.group == "X" else "no scenario yet"),
    }
    click.echo(f"{known.id}  {known.title}" + (f"  (severity {known.severity})" if known.severity else ""))
    for head, text in parts.items():
        if text:
            click.echo(textwrap.fill(f"{head}: {text}", 80, initial_indent="  ", subsequent_indent="    "))
