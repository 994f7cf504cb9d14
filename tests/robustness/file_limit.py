"""A host whose files may have no more than so many bytes, and that SIGXFSZ ends: `file_limit MODULE PIN`.

Makes objects until that is refused, goes on without the limit, and prints as JSON what happened.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, setrlimit
from typing import Any

from keyfob import files
from keyfob.spec.constants import CKR
from tests.client import Client, ffi
from tests.robustness.full_disk import create

MOST = 500
LIMIT = 1 << 17  # bytes; a token with one pair has less


def limit(size: int) -> None:
    setrlimit(RLIMIT_FSIZE, (size, RLIM_INFINITY))


def problem_of(folder: Path) -> list[int]:
    """What each way to write answers beyond the limit."""
    found = []
    descriptor = files.new(str(folder / "written"))
    for call, *arguments in (
        (files.write, b"a"),
        (files.write_at, b"a", 5),
        (files.reserve, 4096),
    ):
        try:
            call(descriptor, *arguments)
        except OSError as problem:
            found.append(problem.errno or 0)
    os.close(descriptor)
    return found


def main(module: str, pin_text: str) -> None:
    home, pin = Path(os.environ["KEYFOB_HOME"]), pin_text.encode()
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    client = Client(module)
    client.initialize()
    session = client.open(client.slots()[0])
    client.login(session, pin)
    handle = ffi.new("CK_ULONG *")
    seen: dict[str, Any] = {"made": 0}
    limit(LIMIT)
    while (rv := create(client, session, f"object {seen['made']}", handle)) == CKR.OK and seen["made"] < MOST:
        seen["made"] += 1
    seen["refused"] = rv
    limit(0)
    seen["without any"] = create(client, session, "no room", handle)
    seen["problems"] = problem_of(home)
    seen["waiting"] = list(signal.sigpending())
    seen["blocked"] = list(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGXFSZ,))  # the host's own signal is the host's
    signal.raise_signal(signal.SIGXFSZ)
    create(client, session, "no room", handle)
    seen["kept"] = list(signal.sigpending())
    seen["wait"] = signal.sigtimedwait((signal.SIGXFSZ,), 0) is not None
    limit(RLIM_INFINITY)
    seen["later"] = create(client, session, "there is room again", handle)
    seen["finalize"] = client.call("C_Finalize", ffi.NULL)
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
