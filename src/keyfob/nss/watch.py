"""One scenario's process, watched: what it sends, how long each call takes, what it prints, and how it ends.

A child sends JSON lines over a pipe of its own:

    {"t": "begin" | "end" | "call"}     a call, before and after; a counted stretch of calls (driver/record.py)
    {"t": "quiet", "step", "on"}        calls are only counted from here to there
    {"t": "checking" | "checked"}       a rule is being checked: what goes wrong now, it fails
    {"t": "finding"}, {"t": "fact"}     what was found
    {"t": "made", "template"}           an object will be on the token: to be removed
    {"t": "refused"}, {"t": "wrong pin"}   a PIN that must not be tried again
    {"t": "ejected", "on"}              the token was taken out of its slot, or put back
    {"t": "overrun"}                    the module wrote behind a buffer
    {"t": "gave up", "reason"}          the scenario cannot go on
    {"t": "usage"}, {"t": "fault"}      the user's mistake; the checker's own
    {"t": "log", "text"}                a remark for the report's scenario
    {"t": "done"}                       the end; what comes after is the end of the process

A crash, a hang, an exit() and output on stdout become findings of the rules X (conduct.py), and of the rule that was
being checked.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import IO, Any, Protocol

from keyfob.nss import conduct
from keyfob.nss.child import PIPE_LOST
from keyfob.nss.context import START
from keyfob.nss.driver.record import NO_ANSWER, call_text
from keyfob.nss.model import Ended, Finding, Report, ScenarioResult, Verdict
from keyfob.nss.options import Options
from keyfob.nss.scenario import Scenario
from keyfob.spec.constants import CKR

MOST_OUTPUT = 64 * 1024
"""Bytes of a module's output that are kept."""
FLOOD = 64 * 1024 * 1024
"""Bytes of output after which a scenario is ended."""
PATIENCE = 10
"""A whole scenario may take so many times the limit of one call."""
FIRST = "load"
"""The scenario that shows whether NSS loads the module at all."""
_POLL = 0.05


class Progress(Protocol):
    """What a run tells while it goes on."""

    def started(self, scenario: Scenario) -> None: ...

    def calling(self, scenario: Scenario, function: str) -> None: ...

    def ended(self, scenario: Scenario, result: ScenarioResult) -> None: ...


def untested(scenario: Scenario, result: ScenarioResult, reason: str) -> None:
    have = {finding.rule for finding in result.findings}
    for rule_id in scenario.rules:
        if rule_id not in have:
            result.findings.append(Finding(rule_id, Verdict.NOT_TESTED, reason, scenario=scenario.name))


class Watch:
    """One child: reads what it sends, watches over its time, and judges its end."""

    def __init__(self, scenario: Scenario, options: Options, report: Report, progress: Progress | None) -> None:
        self.scenario = scenario
        self.options = options
        self.report = report
        self.progress = progress
        self.result = ScenarioResult(scenario.name, scenario.title)
        self.usage = ""
        self._pending: dict[int, tuple[float, dict[str, Any]]] = {}
        self._checking: list[str] = []
        self._quiet = ""
        self._done = False
        self._reason = ""
        self._last_sign = 0.0
        self._flooded = False

    def run(self) -> None:
        begun = time.monotonic()
        reader, writer = os.pipe()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "keyfob.nss.child", str(writer)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                pass_fds=(writer,),
                start_new_session=True,
            )
            os.close(writer)
            try:
                self._give_job(child)
                hung = self._listen(child, reader, begun, (out, err))
            finally:
                # Whatever the module started belongs to this session; nothing of it may outlive the scenario.
                _kill(child)
                os.close(reader)
            self.result.stdout, self.result.stderr = _kept(out), _kept(err)
        self.result.seconds = round(time.monotonic() - begun, 3)
        self._judge(child.returncode, hung)

    def _give_job(self, child: subprocess.Popen[bytes]) -> None:
        job = {
            "place": self.scenario.function.__module__,
            "scenario": self.scenario.name,
            "options": self.options.to_json(),
            "facts": self.report.facts,
        }
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(job).encode())
            child.stdin.close()
        except BrokenPipeError:
            return  # it ended at once; its end tells more

    def _listen(self, child: subprocess.Popen[bytes], reader: int, begun: float, output: tuple[IO[bytes], ...]) -> str:
        """Until the child ends; what hung, if anything did."""
        buffer = b""
        self._last_sign = begun
        while True:
            ended = child.poll() is not None
            ready, _, _ = select.select([reader], [], [], 0 if ended else _POLL)
            if ready:
                data = os.read(reader, 1 << 16)
                *lines, buffer = (buffer + data).split(b"\n")
                self._last_sign = time.monotonic()
                for line in lines:
                    self._take(json.loads(line))
                if data:
                    continue
                # The pipe is closed: only the end of the process is left to wait for.
                try:
                    child.wait(timeout=self.options.limit)
                except subprocess.TimeoutExpired:
                    return "the end of the process"
                return ""
            if ended:
                return ""
            self._flooded = any(os.fstat(file.fileno()).st_size > FLOOD for file in output)
            hung = self._overdue(begun)
            if hung or self._flooded:
                return hung

    def _overdue(self, begun: float) -> str:
        now = time.monotonic()
        for since, call in self._pending.values():
            if now - since > self.options.limit and not call.get("blocks"):
                return str(call["function"])
        if self._quiet and now - self._last_sign > self.options.limit * PATIENCE:
            return self._quiet
        blocked = any(call.get("blocks") for _since, call in self._pending.values())
        if not self._pending and not self._quiet and now - self._last_sign > self.options.limit:
            between = "the module between two calls" if self.result.calls else "loading the library"
            return "the end of the process" if self._done else between
        if now - begun > self.options.limit * PATIENCE and not (blocked and self.options.pinpad):
            return "the scenario"
        return ""

    # Messages

    def _take(self, message: dict[str, Any]) -> None:
        kind = message.pop("t").replace(" ", "_")
        getattr(self, f"_on_{kind}")(message)

    def _on_begin(self, call: dict[str, Any]) -> None:
        self._pending[call["number"]] = (time.monotonic(), call)
        self.result.calls.append(call)
        call.update(rv=None, rv_name=None, us=0, out=[])
        if self.progress is not None:
            self.progress.calling(self.scenario, call["function"])

    def _on_end(self, end: dict[str, Any]) -> None:
        _since, call = self._pending.pop(end["number"])
        call.update(end)

    def _on_call(self, call: dict[str, Any]) -> None:
        self.result.calls.append(call)

    def _on_quiet(self, message: dict[str, Any]) -> None:
        self._quiet = message["step"] if message["on"] else ""

    def _on_checking(self, message: dict[str, Any]) -> None:
        self._checking.append(message["rule"])

    def _on_checked(self, message: dict[str, Any]) -> None:
        self._checking.remove(message["rule"])

    def _on_finding(self, message: dict[str, Any]) -> None:
        message["verdict"] = Verdict(message["verdict"])
        message["span"] = tuple(message["span"])
        self.result.findings.append(Finding(scenario=self.scenario.name, **message))

    def _on_fact(self, message: dict[str, Any]) -> None:
        self.report.facts[message["name"]] = message["value"]

    def _on_made(self, message: dict[str, Any]) -> None:
        if message["template"] not in self.options.made:
            self.options.made.append(message["template"])

    def _on_refused(self, message: dict[str, Any]) -> None:
        which = message["pin"]
        self.options.refused[which] = message["answer"]
        setattr(self.options, which, None)

    def _on_wrong_pin(self, message: dict[str, Any]) -> None:
        self.options.wrong_pin_spent = True

    def _on_ejected(self, message: dict[str, Any]) -> None:
        self.options.ejected = message["on"]

    def _on_overrun(self, message: dict[str, Any]) -> None:
        saw = f"{message['function']} wrote behind the end of the buffer that it was given"
        self._found(conduct.MEMORY, saw, [message["call"]])

    def _on_gave_up(self, message: dict[str, Any]) -> None:
        self._reason = self.result.detail = message["reason"]

    def _on_usage(self, message: dict[str, Any]) -> None:
        self.usage = message["text"]

    def _on_fault(self, message: dict[str, Any]) -> None:
        self.result.ended = Ended.FAULT
        self.result.detail = message["text"]
        self._reason = "a fault of the checker itself"

    def _on_log(self, message: dict[str, Any]) -> None:
        self.result.detail = f"{self.result.detail}\n{message['text']}".strip()

    def _on_done(self, message: dict[str, Any]) -> None:
        self._done = True

    # The end

    def _found(self, rule_id: str, saw: str, calls: list[int], verdict: Verdict = Verdict.FAIL) -> None:
        self.result.findings.append(Finding(rule_id, verdict, saw, calls, scenario=self.scenario.name))

    def _judge(self, code: int, hung: str) -> None:
        if self.usage:
            return
        calls = [call for _since, call in self._pending.values()]
        where, numbers = self._where(calls)
        if self._flooded:
            saw = f"it printed more than {FLOOD >> 20} MiB {where}"
            self._ended_badly(Ended.HUNG, conduct.OUTPUT, saw, numbers)
        elif hung:
            self._ended_badly(Ended.HUNG, conduct.HANG, self._hung_saw(hung, calls), numbers)
            self._remember_hang(calls)
        elif code == PIPE_LOST:
            saw = f"it closed files of its host, the pipe to the checker among them, {where}"
            self._ended_badly(Ended.EXITED, conduct.EXIT, saw, numbers)
        elif code < 0:
            self._ended_badly(Ended.CRASHED, conduct.CRASH, f"the process got {_signal_name(code)} {where}", numbers)
        elif not self._done and self.result.ended != Ended.FAULT:
            self._ended_badly(Ended.EXITED, conduct.EXIT, f"the process ended with exit code {code} {where}", numbers)
        if self.result.stdout and not self._flooded:
            first = self.result.stdout.strip().splitlines()[:1] or ["blank lines"]
            self._found(conduct.OUTPUT, f"it printed on standard output: {first[0][:100]!r}", [])
        self._pass_conduct()
        untested(self.scenario, self.result, self._reason or "the scenario did not come to it")

    def _remember_hang(self, calls: list[dict[str, Any]]) -> None:
        if calls and calls[-1]["step"] in ("", START):
            self.result.hung_in = calls[-1]["function"]

    def _hung_saw(self, hung: str, calls: list[dict[str, Any]]) -> str:
        limit = f"{self.options.limit:g} s"
        if calls:
            function = next((call["function"] for call in calls if call["function"] == hung), calls[0]["function"])
            return f"{function} did not come back within {limit}"
        return f"{hung} took longer than {limit}"

    def _where(self, calls: list[dict[str, Any]]) -> tuple[str, list[int]]:
        if calls:
            text = call_text(calls[-1]["function"], calls[-1]["arguments"], None)
            return f"in {text.removesuffix(f' -> {NO_ANSWER}')}", [call["number"] for call in calls]
        if self._quiet:
            return f"while it was asked to {self._quiet}", []
        if self._done:
            return "at the end of the process, after C_Finalize", []
        last = self.result.calls[-1] if self.result.calls else None
        return (f"after {last['function']}", [last["number"]]) if last else ("while it was being loaded", [])

    def _ended_badly(self, ended: Ended, rule_id: str, saw: str, numbers: list[int]) -> None:
        self.result.ended = ended
        self.result.detail = saw
        self._found(rule_id, saw, numbers)
        if self._checking:
            self._found(self._checking[-1], saw, numbers)
        self._reason = f"the module {'hung' if ended == Ended.HUNG else 'ended the process'} before: {saw}"
        loaded = any(call["function"] == "C_GetInfo" and call["rv"] == CKR.OK for call in self.result.calls)
        if self.scenario.name == FIRST and not loaded:
            self.report.facts["not loaded"] = saw

    def _pass_conduct(self) -> None:
        broken = {finding.rule for finding in self.result.findings}
        # After a fault of the checker nothing is said of the module.
        if self.result.ended != Ended.FAULT:
            for rule in conduct.RULES:
                if rule.id not in broken:
                    self._found(rule.id, "", [], Verdict.PASS)


def _signal_name(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _kept(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MOST_OUTPUT).decode(errors="replace")


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the child and every process of its session; a child that has ended keeps its exit status."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
