"""`keyfob doctor`: what is wrong with an installation, in plain words, and what to do."""

from __future__ import annotations

import click

from keyfob.cli import diagnosis, tables
from keyfob.cli.pins import Secret, pin_option

EPILOG = """\b
Examples:
  keyfob doctor                      everything but private objects
  keyfob doctor --pin-file pin.txt   also whether certificates find their private keys

Exit code: 0 nothing is wrong, 1 something is."""

MARKS = {diagnosis.OK: "ok", diagnosis.HINT: "note", diagnosis.WRONG: "WRONG"}


@click.command(epilog=EPILOG)
@pin_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def doctor(pin: Secret, as_json: bool) -> None:
    """Say what is wrong with this installation: the module, its tokens, its registrations, its certificates."""
    findings = diagnosis.everything(pin.read() if pin.given else None)
    wrong = [each for each in findings if each.level == diagnosis.WRONG]
    if as_json:
        tables.show_json(
            {"findings": [{"level": f.level, "about": f.about, "text": f.text, "do": f.remedy} for f in findings]}
        )
    else:
        for each in findings:
            click.echo(f"{MARKS[each.level]:6} {tables.printable(each.about)}: {tables.printable(each.text)}")
            if each.remedy:
                click.echo(f"       -> {tables.printable(each.remedy)}")
        click.echo(
            f"\n{len(wrong)} thing{'s are' if len(wrong) != 1 else ' is'} wrong." if wrong else "\nNothing is wrong."
        )
    if wrong:
        raise click.exceptions.Exit(1)
