"""python-pkcs11 in a process of its own: the module shares the interpreter of a host that is itself Python."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.interop.programs import missing, run
from tests.interop.python_pkcs11_client import TOKEN_TASKS
from tests.interop.python_pkcs11_tasks import SESSION_TASKS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.interop.tokens import Token

pytestmark = pytest.mark.interop

REPOSITORY = Path(__file__).parents[2]
TWO_PROCESSES = ("key_is_left_for_the_next_process", "key_of_the_last_process_signs")
BEYOND_SOFTHSM = {
    "rsa_oaep_with_label": "OAEP with a label or SHA-256 (C_DecryptInit: CKR_ARGUMENTS_BAD)",
    "ec_signs_messages": "CKM_ECDSA_SHA512",
    "ecdh_with_kdf": "ECDH with a KDF",
    "threads_work_side_by_side": "threads after C_Initialize(NULL), as python-pkcs11 calls it (crashes now and then)",
    "forked_child_works": "a forked child (CKR_CRYPTOKI_ALREADY_INITIALIZED, and it may hang)",
    "private_keys_are_wrapped": "C_WrapKey with AES_CBC_PAD (CKR_MECHANISM_INVALID)",
}
PROBE = """
import ctypes, sys
module = ctypes.CDLL(sys.argv[1])
functions = ctypes.c_void_p()
module.C_GetFunctionList.restype = ctypes.c_ulong
rv = module.C_GetFunctionList(ctypes.byref(functions))
print("rv=%d list=%d" % (rv, functions.value or 0))
"""
"""A host in any Python 3: all it does is ask for the function list."""
CKR_GENERAL_ERROR = 5


def work(token: Token, task: str) -> None:
    """Run one task of python_pkcs11_client in a process of its own; AssertionError with all it said when it fails."""
    arguments = (token.module.path, token.label, token.pin, task)
    command: list[str | Path] = [sys.executable, "-m", "tests.interop.python_pkcs11_client", *arguments]
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = run(command, token.environment(PYTHONPATH=path, PYTHONFAULTHANDLER="1"), timeout=60)
    output = done.stdout.decode(errors="replace")
    told = f"{task} ended with {done.returncode}:\n{output}\n{token.last_words()}"
    assert done.returncode == 0, told
    assert output.endswith("done\n"), told


@pytest.mark.parametrize("task", [name for name in (*SESSION_TASKS, *TOKEN_TASKS) if name not in TWO_PROCESSES])
def test_python_host(token: Token, task: str) -> None:
    """See python_pkcs11_tasks.py and python_pkcs11_client.py for what each task shows."""
    if task in BEYOND_SOFTHSM:
        token.softhsm_cannot(BEYOND_SOFTHSM[task])
    work(token, task)


def test_key_of_one_process_signs_in_the_next(token: Token) -> None:
    for task in TWO_PROCESSES:
        work(token, task)


def other_pythons() -> Sequence[Path]:
    """Python 3 programs of this machine with another minor version than the running one."""
    places = [*Path.home().glob(".pyenv/versions/3.*/bin/python3")]
    names = (f"python3.{minor}" for minor in range(8, 20))
    places += [Path(found) for name in names if (found := shutil.which(name, path="/usr/bin:/usr/local/bin"))]
    others: dict[int, Path] = {}
    for place in places:
        version = run([place, "-c", "import sys; print(sys.version_info[1])"], os.environ)
        minor = version.stdout.decode().strip()
        if version.returncode == 0 and minor.isdigit() and int(minor) != sys.version_info.minor:
            others.setdefault(int(minor), place)
    return [others[minor] for minor in sorted(others)]


def test_host_of_another_python_version_is_refused_plainly(token: Token) -> None:
    """Without the check such a process hangs (HOUSE.md, fact 4): CKR_GENERAL_ERROR and one line on stderr."""
    token.softhsm_cannot("be refused: it is not written in Python")
    hosts = other_pythons()
    if not hosts:
        missing("no Python of another version is on this machine")
    for host in hosts:
        done = run([host, "-c", PROBE, token.module.path], token.environment(), timeout=30)
        output = done.stdout.decode()
        assert done.returncode == 0, f"{host}: {done.returncode}\n{output}"
        assert f"rv={CKR_GENERAL_ERROR} list=0" in output, f"{host}:\n{output}"
        assert re.search(r"keyfob: .*3\.\d+", output), f"{host} is told nothing:\n{output}"


def test_host_of_the_same_version_elsewhere_is_served_or_refused(token: Token) -> None:
    """The system's own Python of the same minor version, another build than ours: never a hang, never a crash."""
    token.softhsm_cannot("fail here: it is not written in Python")
    host = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin")
    if host is None or Path(host).resolve() == Path(sys.executable).resolve():
        pytest.skip("the system has no other Python of this version")
    done = run([host, "-c", PROBE, token.module.path], token.environment(), timeout=30)
    output = done.stdout.decode()
    assert done.returncode == 0, f"{host}: {done.returncode}\n{output}"
    assert re.search(rf"rv=0 list=[1-9]|rv={CKR_GENERAL_ERROR} list=0", output), output
