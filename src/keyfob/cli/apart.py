"""Opening a file with keys in a process of its own, which has a limit: how much that costs is what the file says.

A file can ask for two thousand million rounds before its passphrase turns out to be wrong, and have a second request of
that kind inside what the first one opens. The libraries compute all of it, deaf to Ctrl-C.

`python -m keyfob.cli.apart` is that process. It reads what is to be done from its standard input and writes what came
of it to its standard output, as marshal has it, so that no secret is in an argument or the environment.
"""

from __future__ import annotations

import marshal
import resource
import signal
import subprocess
import sys
from typing import Any

from keyfob import environment
from keyfob.cli.errors import Refusal, unexpected

SECONDS = 60  # of computing
MEMORY = 4 << 30  # bytes


def opened(kind: str, data: bytes, secret: bytes | None) -> Any:
    """What formats.opened answers; Refusal where the file asks for too much, or where that refuses."""
    memory = _allowed(resource.RLIMIT_AS, MEMORY)
    seconds = max(
        _allowed(resource.RLIMIT_CPU, SECONDS + 1) - 1, 1
    )  # the last one ends in SIGKILL, which tells nothing
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "keyfob.cli.apart"],
            input=marshal.dumps((kind, data, secret, seconds, memory)),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment.whole(),
            check=False,
        )
    except OSError as problem:
        raise Refusal(f"no process that opens the file can be started: {problem.strerror}") from None
    if done.returncode == -signal.SIGXCPU:
        raise Refusal(f"opening the file takes more than {seconds} seconds of computing, which it asks for itself")
    if done.returncode != 0:
        raise Refusal(f"the process that opens the file {_ended(done.returncode)}")
    refusal, found = marshal.loads(done.stdout)  # noqa: S302 - our own process wrote it
    if refusal:
        raise Refusal(refusal)
    return found


def _allowed(limit: int, wanted: int) -> int:
    """What we allow the file, or less where this process itself has less (ulimit)."""
    return min([wanted, *(each for each in resource.getrlimit(limit) if each != resource.RLIM_INFINITY)])


def _ended(code: int) -> str:
    if code > 0:
        return f"did not start, or failed (exit code {code}): see ulimit -a for what it may use here"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    reason = ", as the kernel does where memory runs out" if code == -signal.SIGKILL else ""
    return f"was ended by {name}{reason}"


def main() -> None:
    kind, data, secret, seconds, memory = marshal.loads(sys.stdin.buffer.read())  # noqa: S302 - our own process wrote it
    from cryptography.exceptions import InternalError

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, _allowed(resource.RLIMIT_CPU, seconds + 1)))
    refusal, found = "", None
    try:
        from keyfob.cli import formats

        found = formats.opened(kind, data, secret)
    except Refusal as refused:
        refusal = refused.message
    except (MemoryError, InternalError):  # the second: OpenSSL's, where it gets none
        refusal = f"opening the file takes more than {memory >> 20} MiB of memory, or what OpenSSL does not do"
    except Exception as problem:
        refusal = f"the file cannot be opened: {unexpected(problem)}"
    sys.stdout.buffer.write(marshal.dumps((refusal, found)))


if __name__ == "__main__":
    main()
