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
from keyfob.cli.errors import Refusal

SECONDS = 60  # of computing
MEMORY = 4 << 30  # bytes


def opened(kind: str, data: bytes, secret: bytes | None) -> Any:
    """What formats.opened answers; Refusal where the file asks for too much, or where that refuses."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "keyfob.cli.apart"],
        input=marshal.dumps((kind, data, secret, SECONDS)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment.whole(),
        check=False,
    )
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise Refusal(f"opening the file takes more than {SECONDS} seconds of computing, which it asks for itself")
    if done.returncode != 0:
        raise Refusal("opening the file takes more memory than it should, or it is damaged")
    refusal, found = marshal.loads(done.stdout)  # noqa: S302 - our own process wrote it
    if refusal:
        raise Refusal(refusal)
    return found


def main() -> None:
    kind, data, secret, seconds = marshal.loads(sys.stdin.buffer.read())  # noqa: S302 - our own process wrote it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    from keyfob.cli import formats

    refusal, found = "", None
    try:
        found = formats.opened(kind, data, secret)
    except Refusal as refused:
        refusal = refused.message
    sys.stdout.buffer.write(marshal.dumps((refusal, found)))


if __name__ == "__main__":
    main()
