"""The calls of a scenario or a trace as a picture: one bar for each call, in order, as high as its time's logarithm.

Time itself is no axis: one login takes as long as ten thousand reads. The colour is the answer: CKR_OK, another code,
evidence of a finding, no answer at all. Steps (START, LOGIN, ...) are bands below the bars; threads and forked
processes have rows of their own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from keyfob.nss.driver.record import call_text
from keyfob.nss.report.page import escape

Call = dict[str, Any]

HEIGHT = 46
"""Pixels that the longest bars have."""
LONGEST = 1e6
"""Microseconds of a bar that fills the height."""
STEP_HEIGHT = 16
LABEL = 6.2
"""Pixels of a letter of a step's label, roughly."""
WIDEST = 1100
"""Pixels of the picture: many calls have narrow bars, and beyond NARROWEST it scrolls."""
BROADEST, NARROWEST = 14.0, 3.0


@dataclass(frozen=True, slots=True)
class Band:
    """Calls of one step that follow each other: the index of the first, and how many."""

    title: str
    first: int
    count: int


def bands(calls: Sequence[Call]) -> list[Band]:
    found: list[Band] = []
    for i, call in enumerate(calls):
        title = call.get("step", "")
        if found and found[-1].title == title:
            found[-1] = Band(title, found[-1].first, found[-1].count + 1)
        else:
            found.append(Band(title, i, 1))
    return found


def rows(calls: Iterable[Call]) -> dict[tuple[int, int], int]:
    """(process, thread): the number of its row, in the order of their first calls."""
    found: dict[tuple[int, int], int] = {}
    for call in calls:
        found.setdefault(lane(call), len(found))
    return found


def lane(call: Call) -> tuple[int, int]:
    return (call.get("process", 0), call.get("thread", 0))


def kind(call: Call, marked: Collection[int]) -> str:
    """The bar's class: "evidence", "lost" (it never returned), "ok" or "other"."""
    if call["number"] in marked:
        return "evidence"
    if call.get("rv") is None and not call.get("repeated"):
        return "lost"
    return "ok" if call.get("rv") == 0 else "other"


def bar_height(call: Call) -> float:
    us = call.get("us") or 0
    share = math.log10(us + 1) / math.log10(LONGEST)
    return round(4 + (HEIGHT - 4) * min(share, 1.0), 1)


def time_text(us: int) -> str:
    """`12 us`, `3.4 ms`, `1.2 s`."""
    if us < 1000:
        return f"{us} us"
    return f"{us / 1000:.1f} ms" if us < 1_000_000 else f"{us / 1_000_000:.1f} s"


def svg(calls: Sequence[Call], anchor: str, marked: Collection[int] = ()) -> str:
    """The picture; bars link to `#ANCHOR-NUMBER`, where the page lists the call. Empty without calls."""
    if not calls:
        return ""
    step = max(NARROWEST, min(BROADEST, WIDEST / len(calls)))
    gap = 1 if step < 6 else 2
    lanes = rows(calls)
    bottom = len(lanes) * (HEIGHT + 4)
    size = f'width="{round(step * len(calls) + 2)}" height="{bottom + STEP_HEIGHT}"'
    parts = [f'<svg class="timeline" {size} role="img" aria-label="{len(calls)} calls in order">']
    for i, call in enumerate(calls):
        high = bar_height(call)
        top = (lanes[lane(call)] + 1) * (HEIGHT + 4) - 4 - high
        answer = "did not return" if call.get("rv_name") is None else call["rv_name"]
        tip = f"{call['number']}: {call['function']}, {answer}, {time_text(call.get('us') or 0)}"
        place = f'x="{i * step + 1:.1f}" y="{top:.1f}" width="{step - gap:.1f}" height="{high}"'
        bar = f'<rect class="{kind(call, marked)}" {place}><title>{escape(tip)}</title></rect>'
        parts.append(f'<a href="#{anchor}-{call["number"]}">{bar}</a>')
    for number, band in enumerate(bands(calls)):
        parts.append(_band(band, number, step, bottom))
    parts.append("</svg>")
    return "".join(parts)


def _band(band: Band, number: int, step: float, top: float) -> str:
    left, wide = band.first * step + 1, band.count * step - 1
    title = escape(band.title)
    shape = f'<rect class="band{number % 2}" x="{left:.1f}" y="{top}" width="{wide:.1f}" height="{STEP_HEIGHT}">'
    text = ""
    if len(band.title) * LABEL < wide:
        text = f'<text x="{left + 4:.1f}" y="{top + STEP_HEIGHT - 4}">{title}</text>'
    return f"{shape}<title>{title}</title></rect>{text}"


def table(calls: Sequence[Call], anchor: str, marked: Collection[int] = ()) -> str:
    """The calls one below the other, with what went in and what came out."""
    lines = ['<table class="calls"><thead><tr><th>#</th><th>Call</th><th>Answer</th><th>Time</th></tr></thead><tbody>']
    step = None
    many = len(rows(calls)) > 1
    for call in calls:
        if call.get("step", "") != step:
            step = call.get("step", "")
            if step:
                lines.append(f'<tr class="step"><th colspan="4">{escape(step)}</th></tr>')
        lines.append(_row(call, anchor, kind(call, marked), many=many))
    lines.append("</tbody></table>")
    return "".join(lines)


def _row(call: Call, anchor: str, css: str, *, many: bool) -> str:
    name = call["function"]
    given = call_text(name, call.get("arguments", []), call.get("rv")).rpartition(" -> ")[0].removeprefix(name)
    if call.get("repeated"):
        given = f" {call['repeated']} times"
    out = "".join(
        f'<div class="out">{escape(item["name"])} = {escape(item["text"])}</div>' for item in call.get("out", [])
    )
    note = f'<div class="note">{escape(call["note"])}</div>' if call.get("note") else ""
    process, thread = lane(call)
    who = f'<div class="who">process {process}, thread {thread}</div>' if many else ""
    answer = call.get("rv_name") or "did not return"
    return (
        f'<tr id="{anchor}-{call["number"]}" class="{css}"><td>{call["number"]}</td>'
        f"<td><code><b>{escape(name)}</b>{escape(given)}</code>{out}{note}{who}</td>"
        f"<td><code>{escape(answer)}</code></td><td>{time_text(call.get('us') or 0)}</td></tr>"
    )
