"""What follows a change that has been committed: nothing in there can turn it into an error.

Past a commit a call has happened. Were an error answered, because the audit log has no room, a module that is needed
there cannot be read, or no descriptor is free, its caller would do it again. So whatever remains to be done, to note,
to tell or to tidy up stands in `with SETTLED: ...`: what goes wrong there is a line in the log. So does what only
accompanies a call that has failed, or has yet to do its work: it must not give that call another answer. What must be
done for the process to know what it has done needs no such help: it changes a few variables, and comes first.

tests/robustness/test_after_commit.py lets everything fail that comes after the last commit of each call.
"""

from __future__ import annotations

from keyfob import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class Settled:
    """A context manager that holds nothing: one serves all threads."""

    __slots__ = ()

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(problem, Exception):  # nothing; or somebody ends the program, which no call can go on after
            return False
        try:
            log.line("error", f"beside what the call did: {place(problem)}")
        except Exception:  # no memory for the line: the change is made all the same
            return True
        return True


SETTLED = Settled()


def place(problem: BaseException) -> str:
    """An unexpected exception's type and the place it came from; its text is left out, it could hold a secret."""
    places = []
    trace = problem.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"unexpected {type(problem).__name__} at {' > '.join(places)}"
