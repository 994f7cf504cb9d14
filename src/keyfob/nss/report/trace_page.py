"""A trace as a page: `keyfob trace --html`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from keyfob.nss.report import page, timeline
from keyfob.nss.report.page import escape

MOST = 20_000
"""Calls that a page shows; a browser session makes more, and the JSON lines have them all."""

LEGEND = (
    '<p class="legend"><span><i style="background:var(--bar-ok)"></i>CKR_OK</span>'
    '<span><i style="background:var(--bar-other)"></i>another answer</span>'
    "<span>A bar is a call, in order; its height is the logarithm of its time (1 us to 1 s). Click one to read it."
    "</span></p>"
)
HEAD = "<tr><th>Function</th><th>Calls</th><th>Time</th><th>Answers other than CKR_OK</th></tr>"


def with_session(call: dict[str, Any]) -> dict[str, Any]:
    """The call with its session as its step, so that the picture shows which calls belong together."""
    session = next((item["text"] for item in call["arguments"] if item["name"] == "hSession"), "")
    return {**call, "step": f"session {session}"} if session else call


def render(calls: Sequence[dict[str, Any]], *, program: Sequence[str], module: str, made_by: str) -> str:
    """The page of a trace; `calls` as `keyfob trace` writes them."""
    shown = [with_session(call) for call in calls[:MOST]]
    total = sum(call["us"] for call in calls)
    by_name = Counter(call["function"] for call in calls)
    times: Counter[str] = Counter()
    for call in calls:
        times[call["function"]] += call["us"]
    failed = Counter((call["function"], call["rv_name"]) for call in calls if call["rv"] != 0)
    body = [
        f"<h1>{escape(' '.join(program))}</h1>",
        page.paragraph(f"{len(calls)} calls of {module}, {timeline.time_text(total)} in the module", "lead"),
        f"<h2>The calls in order</h2>{LEGEND}",
        f'<div class="picture">{timeline.svg(shown, "call")}</div>',
        f"<h2>By function</h2><table><thead>{HEAD}</thead><tbody>",
    ]
    for name, count in by_name.most_common():
        others = ", ".join(f"{rv} ({n})" for (function, rv), n in failed.items() if function == name)
        body.append(
            f"<tr><td><code>{escape(name)}</code></td><td>{count}</td><td>{timeline.time_text(times[name])}</td>"
            f"<td><code>{escape(others)}</code></td></tr>"
        )
    body.append("</tbody></table><h2>Every call</h2>")
    if len(calls) > MOST:
        body.append(page.paragraph(f"The first {MOST} of {len(calls)}; the JSON lines have them all.", "soft"))
    body.append(timeline.table(shown, "call"))
    return page.page(f"Trace of {program[0]}", "".join(body), made_by=made_by)
