"""A report made by hand, whose module has the worst names that one can think of."""

from __future__ import annotations

from typing import Any

from keyfob.nss.model import Ended, Finding, Report, ScenarioResult, Verdict

HOSTILE = "</style><script>alert('module')</script>\"'><img src=x onerror=alert(1)>\x1b[31m\u202eX"
SECONDS = 1.5


def call(number: int, function: str, rv: int | None, **more: Any) -> dict[str, Any]:
    names = {0: "CKR_OK", 5: "CKR_GENERAL_ERROR", None: None}
    arguments = [{"name": "pLabel", "text": HOSTILE}]
    out = [{"name": "pInfo", "text": HOSTILE}] if rv == 0 else []
    made = {"number": number, "function": function, "arguments": arguments, "rv": rv, "rv_name": names[rv], "out": out}
    return {**made, "step": HOSTILE if number > 2 else "START", "start": number, "us": number * 1000, **more}


def hostile_report() -> Report:
    """Failures, a warning, a crash, a skipped scenario, a forked process; module texts everywhere."""
    slots = [
        {"id": 1, "description": HOSTILE, "disabled": "", "token": {"label": HOSTILE}},
        {"id": 2, "description": "empty", "disabled": f"C_OpenSession answered {HOSTILE}", "token": None},
    ]
    info = {"cryptoki": "2.40", "manufacturer": HOSTILE, "description": HOSTILE, "version": "1.0"}
    report = Report(f"/tmp/{HOSTILE}.so", facts={"info": info, "slots": slots, "entry point": "C_GetInterface"})
    report.started, report.seconds = "2026-01-02T03:04:05+00:00", SECONDS
    report.options = {"pin": True, "write": True, "init": False, "parameters": HOSTILE}
    first = ScenarioResult("load: NULL", "Load", seconds=0.1, stdout=HOSTILE, stderr=HOSTILE)
    first.calls = [call(n, "C_GetInfo", 0 if n % 2 else 5) for n in range(1, 8)]
    first.calls.append(call(1_000_001, "C_GetSlotList", 0, process=1, note=HOSTILE))
    first.findings = [
        Finding("G6", Verdict.FAIL, HOSTILE, [1, 2, 3, 4, 5, 6], scenario="load: NULL", expects=HOSTILE, nss=HOSTILE),
        Finding("P7", Verdict.WARN, HOSTILE, [7, 1_000_001], scenario="load: NULL", user=HOSTILE),
        Finding("G7", Verdict.PASS, HOSTILE, scenario="load: NULL"),
        Finding("S15", Verdict.NOT_TESTED, HOSTILE, scenario="load: NULL"),
    ]
    second = ScenarioResult("load", "Load again", Ended.CRASHED, HOSTILE, seconds=0.2)
    second.calls = [call(1, "C_Finalize", None)]
    second.findings = [Finding("X1", Verdict.FAIL, "it crashed", [1], scenario="load")]
    skipped = ScenarioResult("login", "Log in", Ended.SKIPPED, HOSTILE)
    report.scenarios = [first, second, skipped]
    return report
