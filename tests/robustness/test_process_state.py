"""The host's process stays as it was: signals, mask, stack, floating point, umask, locale, environment, threads."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from keyfob.mechanisms import INDEX
from tests.abi.stub_module import compiler
from tests.conftest import PIN, module_path
from tests.robustness.conftest import Programs
from tests.robustness.hosts import REPOSITORY, environment, run

RUDE = Path(__file__).with_name("rude.c")
LOADING = """
import ctypes, json, locale, sys
from tests.client import Client
import keyfob.functions.random as random

c = ctypes.CDLL(None)
m = ctypes.CDLL("libm.so.6")
c.getenv.restype = ctypes.c_char_p

def state():
    names = ("SigBlk", "SigIgn", "SigCgt", "Umask")
    lines = dict(line.split(":\\t") for line in open("/proc/self/status") if line.startswith(names))
    stack = (ctypes.c_char * 24)()
    c.sigaltstack(None, stack)
    environment = [str(c.getenv(name)) for name in (b"RUDE", b"KEPT", b"GONE")]
    return [lines, bytes(stack).hex(), m.fegetround(), locale.setlocale(locale.LC_ALL), environment]

client = Client(sys.argv[1])
client.initialize()
session = client.open(client.slots()[0])
for name in ("KEPT", "GONE"):
    c.setenv(name.encode(), b"1", 1)

def random_bytes(*_):
    import rude
    return b"12345678"

random.C_GenerateRandom = random_bytes
before = state()
if sys.argv[2] == "inside":
    held = bytes(8)
    client.ok("C_GenerateRandom", session, held, 8)
else:
    random_bytes()
assert "rude" in sys.modules
print(json.dumps([before, state()]))
"""


@pytest.mark.parametrize("where", ["inside", "outside"])
@pytest.mark.usefixtures("home")
def test_what_a_library_changes_when_a_call_loads_it_is_put_back(tmp_path: Path, where: str) -> None:
    """And what a Python host loads for itself is its own business: there everything changes."""
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{sysconfig.get_path('include')}"]
    subprocess.run([compiler(), *flags, "-o", tmp_path / "rude.so", RUDE, "-lm", "-pthread"], check=True)
    ran = subprocess.run(
        [sys.executable, "-c", LOADING, module_path(), where],
        cwd=REPOSITORY,
        env=environment(PYTHONPATH=f"{REPOSITORY}:{tmp_path}", LC_ALL="C"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    before, after = json.loads(ran.stdout)
    if where == "inside":
        assert after == before
    else:
        assert all(one != other for one, other in zip(before, after, strict=True))


@pytest.mark.usefixtures("token")
def test_no_mechanism_and_no_function_changes_the_hosts_process(programs: Programs) -> None:
    ran = run(programs("process_state"), PIN.decode(), timeout=300)
    *complaints, last = ran.stdout.splitlines()
    assert complaints == []
    mechanisms, functions = int(last.split()[0]), int(last.split()[3])
    assert mechanisms > len(INDEX) // 2
    assert functions > 90
