"""The process of one scenario: `python -m keyfob.nss.child FD`: its job on standard input, JSON lines to FD.

The job is {"place": Python module, "scenario": name, "options": {...}, "facts": {...}}. Nothing of it comes by the
command line or the environment, where others could read a PIN. Messages are documented in watch.py.
Only the module writes to standard output and error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from typing import Any

from keyfob.nss.client import Unusable
from keyfob.nss.context import Context, Usage
from keyfob.nss.driver import CallFailed, Module, Recorder
from keyfob.nss.options import Options
from keyfob.nss.scenario import Scenario

PIPE_LOST = 86
"""The exit code when the pipe to the runner is gone, which only the module can have closed."""


def main(descriptor: int) -> None:
    job = json.load(sys.stdin)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.set_inheritable(descriptor, False)

    def send(message: dict[str, Any]) -> None:
        data = json.dumps(message, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except OSError:
            os._exit(PIPE_LOST)

    _run(job["place"], job["scenario"], Options(**job["options"]), send, job["facts"])


def _run(place: str, name: str, options: Options, send: Any, facts: dict[str, Any]) -> None:
    scenario = next(each for each in vars(importlib.import_module(place)).values() if _is(each, name))
    recorder = Recorder(send)
    try:
        module = Module(options.module, recorder)
    except OSError as problem:
        send({"t": "usage", "text": f"the module cannot be loaded: {problem}"})
        return
    # What NSS takes for a module, without an entry point of any kind, is none.
    if not (module.symbols["C_GetInterface"] or module.symbols["C_GetFunctionList"]):
        send(
            {"t": "usage", "text": "it exports neither C_GetInterface nor C_GetFunctionList: it is no PKCS #11 module"}
        )
        return
    context = Context(scenario, options, module, recorder.send, facts)
    try:
        scenario.function(context)
    except Unusable as problem:
        send({"t": "gave up", "reason": str(problem)})
    except Usage as problem:
        send({"t": "usage", "text": str(problem)})
        return
    except CallFailed as failed:
        send({"t": "gave up", "reason": str(failed)})
    except Exception:
        send({"t": "fault", "text": traceback.format_exc()})
    for reply in module.overruns:
        send({"t": "overrun", "call": reply.call.number, "function": reply.call.function})
    context.finish()
    send({"t": "done"})


def _is(value: object, name: str) -> bool:
    return isinstance(value, Scenario) and value.name == name


if __name__ == "__main__":
    main(int(sys.argv[1]))
