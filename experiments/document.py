"""docs/experiments.md: the figures of a run beside how they were got."""

from __future__ import annotations

from typing import Any

from .subjects import HERE

DOCUMENT = HERE.parent / "docs" / "experiments.md"

HEAD = """# Experiments: what people fear of software tokens

`make experiments` runs all of this and writes this page; `EXPERIMENTS="--quick"` takes a minute,
`EXPERIMENTS="kill --trials 50"` chooses. Every host is a C program that uses the module through dlopen
(`experiments/host.c`). That each experiment finds what it is for is tested on deliberately faulty stores
(`experiments/faulty.c`, `tests/experiments/`).

A figure in **bold** has a defect in it.
"""


def document(results: dict[str, Any]) -> str:
    """The page of a run's results; "remark" is added by hand, where a run was put together from several."""
    modules = results["modules"]
    lines = [
        HEAD,
        _circumstances(results),
        *(["", results["remark"]] if "remark" in results else []),
        "",
        f"| | {' | '.join(each['title'] for each in modules.values())} |",
        f"|---|{'---|' * len(modules)}",
    ]
    for row in results["experiments"].values():
        cells = [row["modules"][name] for name in modules]
        shown = [f"**{cell['shown']}**" if cell["defects"] else cell["shown"] for cell in cells]
        lines.append(f"| {row['title']} | {' | '.join(shown)} |")
    lines += ["", "## Method", ""]
    said: set[str] = set()
    for row in results["experiments"].values():
        if row["method"] in said:
            continue
        said.add(row["method"])
        title = "kill -9" if row["title"].startswith("kill -9") else row["title"]
        lines += [f"**{title}.** {row['method']}", ""]
    lines += ["## Details", ""]
    for row in results["experiments"].values():
        for name, cell in row["modules"].items():
            if cell["details"]:
                lines.append(f"- {row['title']}, {modules[name]['title']}: {'; '.join(cell['details'])}")
    return "\n".join(lines) + "\n"


def _circumstances(results: dict[str, Any]) -> str:
    facts = results["machine"]
    versions = ", ".join(f"{each['title']} {each['version']}" for each in results["modules"].values())
    return (
        f"{results['date']}, {facts['cpu']}, {facts['cores']} cores, {facts['system']}, Linux {facts['kernel']}, "
        f"files on {facts['filesystem']}, load {facts['load_before'][0]} before the run. {versions}."
    )
