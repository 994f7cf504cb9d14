"""What a scenario works with: the module, NSS on top of it, the options, and checks that make findings.

Lives in the scenario's own process. Everything that it learns is sent at once, so that a crash loses nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NoReturn, Self

from keyfob.nss.client import Nss, NssSlot, Unusable
from keyfob.nss.driver import Call, CallFailed, Module, Reply
from keyfob.nss.model import Finding, Verdict
from keyfob.nss.options import Options
from keyfob.nss.scenario import Scenario
from keyfob.spec.constants import CKF, CKR
from keyfob.spec.errors import name_of

Evidence = Reply[Any] | Call
START = "START"
"""The step of what every scenario does first."""


class EndOfCheck(Exception):  # noqa: N818 - no error: a way out
    """Ends a `checking` block early; its finding is made already. The argument is its Check."""


class Usage(Exception):  # noqa: N818 - the user's, not a fault of the program
    """What the user gave does not fit the module: an unknown slot, a wrong PIN."""


class Check:
    """One rule being checked. Failures do not end the block; `not_applicable` and `not_tested` do."""

    def __init__(self, context: Context, rule_id: str) -> None:
        self._context = context
        self.rule = rule_id
        self.first = context.module.recorder.last + 1
        self.judged = False
        self.reason = ""  # why it ended early

    def __enter__(self) -> Self:
        self._context.send({"t": "checking", "rule": self.rule})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Whether what was raised is dealt with: the end of this check, or a call that failed."""
        if isinstance(problem, CallFailed):
            self.fail(str(problem), problem.reply, expects=f"{problem.wanted} from {problem.reply.call.function}.")
        elif isinstance(problem, EndOfCheck) and not self.judged:
            # The block around this one ended before this rule was through.
            self._find(Verdict.NOT_TESTED, problem.args[0].reason, (), "", "", "")
        elif problem is None and not self.judged:
            self.passed()
        self._context.send({"t": "checked", "rule": self.rule})
        # Another block's end is not this one's: nested blocks end one by one.
        return isinstance(problem, CallFailed) or (isinstance(problem, EndOfCheck) and problem.args[0] is self)

    def fail(self, saw: str, *evidence: Evidence, nss: str = "", expects: str = "", user: str = "") -> None:
        """The module breaks the rule: `saw` says what happened, the evidence are the calls that show it."""
        self._find(Verdict.FAIL, saw, evidence, nss, expects, user)

    def warn(self, saw: str, *evidence: Evidence, nss: str = "", expects: str = "", user: str = "") -> None:
        """It works, but a user will notice."""
        self._find(Verdict.WARN, saw, evidence, nss, expects, user)

    def expect(self, condition: object, saw: str, *evidence: Evidence, nss: str = "", expects: str = "") -> bool:
        """Fail with `saw` unless the condition holds; whether it does."""
        if not condition:
            self.fail(saw, *evidence, nss=nss, expects=expects)
        return bool(condition)

    def expect_rv(self, reply: Reply[Any], *codes: int, because: str = "", user: str = "") -> bool:
        """Fail unless the call answered one of these codes."""
        if reply.rv in codes:
            return True
        wanted = " or ".join(name_of("CKR", code) for code in codes)
        saw = f"{reply.call.function} answered {reply.name}" + (f" {because}" if because else "")
        self.fail(saw, reply, expects=f"{wanted}.", user=user)
        return False

    def not_applicable(self, reason: str) -> NoReturn:
        """The rule does not concern this module. Ends the block, unless something was found already."""
        if not self.judged:
            self._find(Verdict.NOT_APPLICABLE, reason, (), "", "", "")
        self.reason = reason
        raise EndOfCheck(self)

    def not_tested(self, reason: str) -> NoReturn:
        """The rule could not be tested. Ends the block, unless something was found already."""
        if not self.judged:
            self._find(Verdict.NOT_TESTED, reason, (), "", "", "")
        self.reason = reason
        raise EndOfCheck(self)

    @contextmanager
    def setup(self, what: str) -> Iterator[None]:
        """Within, a call that fails, crashes or hangs leaves the rule untested: it is not what the rule speaks of."""
        self._context.send({"t": "checked", "rule": self.rule})
        try:
            yield
        except CallFailed as failed:
            self.not_tested(f"could not {what}: {failed}")
        finally:
            self._context.send({"t": "checking", "rule": self.rule})

    def passed(self, saw: str = "") -> None:
        """Say what was good about it; without it a block that found nothing passes silently."""
        if not self.judged:
            self._find(Verdict.PASS, saw, (), "", "", "")

    def _find(
        self, verdict: Verdict, saw: str, evidence: tuple[Evidence, ...], nss: str, expects: str, user: str
    ) -> None:
        self.judged = True
        calls = [item.call.number if isinstance(item, Reply) else item.number for item in evidence]
        span = (self.first, self._context.module.recorder.last)
        self._context.found(Finding(self.rule, verdict, saw, calls, span, nss, expects, user))


class Context:
    """`module` (driver), `options`, `known` (facts of earlier scenarios), `pin`, `so_pin`, and what is below."""

    def __init__(
        self,
        scenario: Scenario,
        options: Options,
        module: Module,
        send: Callable[[dict[str, Any]], None],
        known: dict[str, Any],
    ) -> None:
        self.scenario = scenario
        self.options = options
        self.module = module
        self.known = known  # the facts of the scenarios before
        self._send = send
        self._nss: Nss | None = None

    # Findings

    def found(self, finding: Finding) -> None:
        """Report a finding; the rule must be one of the scenario's."""
        if finding.rule not in self.scenario.rules:
            raise LookupError(f"scenario {self.scenario.name!r} does not name the rule {finding.rule}")
        self._send(
            {
                "t": "finding",
                "rule": finding.rule,
                "verdict": str(finding.verdict),
                "saw": finding.saw,
                "calls": finding.calls,
                "span": list(finding.span),
                "nss": finding.nss,
                "expects": finding.expects,
                "user": finding.user,
            }
        )

    def checking(self, rule_id: str) -> Check:
        """A block that checks one rule: it passes when nothing in it failed.

        A CallFailed within it (a `.ok()` on another CK_RV) fails the rule with that call; a crash or a hang within it
        fails the rule, too. The scenario goes on after the block.
        """
        return Check(self, rule_id)

    def send(self, message: dict[str, Any]) -> None:
        """To the runner, which documents the messages."""
        self._send(message)

    def skip(self, reason: str, *rule_ids: str, applicable: bool = True) -> None:
        """Rules that are not tested, or that do not apply, for one reason."""
        verdict = Verdict.NOT_TESTED if applicable else Verdict.NOT_APPLICABLE
        for rule_id in rule_ids:
            self.found(Finding(rule_id, verdict, reason))

    def give_up(self, reason: str) -> NoReturn:
        """End the scenario: the rules that have no finding yet are not tested, for this reason."""
        raise Unusable(reason)

    def fact(self, name: str, value: Any) -> None:
        """Something that the report says of the module, and that the jobs are judged by; JSON-ready."""
        self._send({"t": "fact", "name": name, "value": value})

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Names a stretch of calls in the timeline: `START`, `certutil -G`, `sign`."""
        recorder = self.module.recorder
        before, recorder.step = recorder.step, title
        try:
            yield
        finally:
            recorder.step = before

    # NSS on top of the module

    def nss(self) -> Nss:
        """The module as NSS has loaded it: START was done, once. Its slots say which of them NSS would use."""
        if self._nss is None:
            self._nss = Nss(self.module, self.options.parameters)
            with self.step(START):
                try:
                    self._nss.start()
                except CallFailed as failed:
                    self.give_up(f"NSS could not load the module: {failed}")
        return self._nss

    def slot(self) -> NssSlot:
        """The slot of --slot or --token-label, else the likeliest; ends the scenario when NSS would use none."""
        slot = chosen(self.nss(), self.options)
        if slot is None:
            self.give_up("there is no token in any slot")
        if slot.disabled:
            self.give_up(f"NSS does not use slot {slot.id}: {slot.disabled}")
        return slot

    def finish(self) -> None:
        """END, unless the scenario did it."""
        if self._nss is not None and self._nss.loaded:
            with self.step("END"):
                self._nss.end()

    # PINs

    @property
    def pin(self) -> bytes | None:
        return None if self.options.pin is None else self.options.pin.encode()

    @property
    def so_pin(self) -> bytes | None:
        return None if self.options.so_pin is None else self.options.so_pin.encode()

    def why_no_pin(self, which: str = "pin") -> str:
        """Why `pin` or `so_pin` is None."""
        name = "PIN" if which == "pin" else "SO PIN"
        refused = self.options.refused.get(which)
        return f"the {name} that was given is refused: {refused}" if refused else f"no {name} was given"

    def login(self, slot: NssSlot) -> Reply[None]:
        """NSS's login with the user's PIN. A PIN that is wrong is never tried again in the whole run."""
        pin = self._pin_for(slot)
        with self.step("LOGIN"):
            reply = self.nss().login(slot, pin, on_device=pin is None)
        self.judge_pin(reply, "pin")
        return reply

    def _pin_for(self, slot: NssSlot) -> bytes | None:
        if slot.protected_path:
            if not self.options.pinpad:
                self.give_up("the token asks for its PIN itself (--pinpad says that somebody will type it)")
            return None
        if self.pin is None:
            self.give_up(self.why_no_pin())
        return self.pin

    def judge_pin(self, reply: Reply[None], which: str) -> None:
        """To be called after every use of a PIN that the user gave: a refused one is not tried again."""
        wrong = (CKR.PIN_INCORRECT, CKR.PIN_LOCKED, CKR.PIN_EXPIRED, CKR.PIN_INVALID, CKR.PIN_LEN_RANGE)
        if reply.rv in wrong:
            self._send({"t": "refused", "pin": which, "answer": reply.name})
            raise Unusable(f"the {'PIN' if which == 'pin' else 'SO PIN'} that was given is refused: {reply.name}")

    def ready(self) -> NssSlot:
        """The slot, with the user logged in where that is needed: how most scenarios start."""
        slot = self.slot()
        if not slot.needs_login and self.known.get("hidden login"):
            self.give_up("the token needs a login, though CKF_LOGIN_REQUIRED is clear: see P30")
        if slot.needs_login:
            if not slot.pin_initialized:
                self.give_up("the token has no user PIN yet")
            self.login(slot).must_be(CKR.OK, CKR.USER_ALREADY_LOGGED_IN)
        return slot

    def wrong_pin(self, slot: NssSlot) -> tuple[bytes | None, str]:
        """(a PIN that is wrong, "") at most once in a run, else (None, why not). The right one must follow."""
        if self.pin is None:
            return None, self.why_no_pin()
        if self.options.wrong_pin_spent and not self.options.wrong_pins:
            return None, "a wrong PIN is tried only once (--wrong-pins)"
        low = CKF.USER_PIN_COUNT_LOW | CKF.USER_PIN_FINAL_TRY | CKF.USER_PIN_LOCKED
        token = self.module.C_GetTokenInfo(slot.id).ok()
        # As it was found, too: a right login may have cleared the flag since.
        if (token.flags | slot.flags) & low:
            return None, "a wrong PIN was tried already, and few tries are left (CKF_USER_PIN_COUNT_LOW or worse)"
        self._send({"t": "wrong pin"})
        wrong = bytearray(self.pin)
        # Of the same length and kind, so that only its value is wrong.
        wrong[-1] = (ord("0") + (wrong[-1] - ord("0") + 1) % 10) if chr(wrong[-1]).isdigit() else wrong[-1] ^ 1
        return bytes(wrong), ""

    # Processes

    def forked(self, function: Callable[[], None], process: int = 1) -> int:
        """Run a function in a forked process, whose calls are recorded as of `process`; its exit status, or -signal.

        For how a module behaves after a fork. The function must not report findings: it ends with an exit code by
        raising SystemExit(code); 0 without.
        """
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self.module.recorder = self.module.recorder.forked(process)
                function()
                code = 0
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
            except BaseException as problem:  # the twin of this process must end here
                self.module.recorder.send({"t": "log", "text": f"in the forked process: {problem!r}"})
            finally:
                os._exit(code)
        _pid, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)


def chosen(nss: Nss, options: Options) -> NssSlot | None:
    """The slot that the options name (Usage when there is none such), else the best that NSS would use."""
    if options.slot is not None:
        found = [slot for slot in nss.slots if slot.id == options.slot]
        if not found:
            raise Usage(f"the module has no slot {options.slot}; it has {', '.join(str(s.id) for s in nss.slots)}")
        return found[0]
    if options.token_label is not None:
        found = [slot for slot in nss.slots if slot.token is not None and slot.label == options.token_label]
        if not found:
            labels = ", ".join(repr(s.label) for s in nss.slots if s.token is not None)
            raise Usage(f"no token is called {options.token_label!r}; there is {labels or 'none'}")
        return found[0]
    present = [slot for slot in nss.slots if slot.present]
    return max(present, key=_usefulness, default=None)


def _usefulness(slot: NssSlot) -> tuple[bool, bool, bool, bool]:
    return (
        not slot.disabled,
        slot.pin_initialized,
        not slot.read_only,
        bool(slot.flags & CKF.TOKEN_INITIALIZED),
    )
