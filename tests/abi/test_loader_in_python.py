"""libkeyfob.so in hosts that run Python themselves: the same version is shared, another is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import pythons
from tests.abi.conftest import Host
from tests.abi.stub_module import START, library_of_python, make_package
from tests.conftest import module_path


def python_host(source: str, *arguments: str | Path, executable: str = sys.executable) -> tuple[str, str]:
    """Standard output and error of a Python program that has `module` (a path) and `library` (its CDLL).

    It runs without site-packages, where an installed keyfob would stand in for the stub.
    """
    prologue = "import ctypes, os, sys, threading\nmodule = sys.argv[1]\nlibrary = ctypes.CDLL(module)\n"
    command = [executable, "-I", "-S", "-c", prologue + source, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


CALL = "print(library.C_GetFunctionList(None))\n"


def test_the_same_version_shares_its_interpreter(stub: Path) -> None:
    source = CALL + "import keyfob\nprint(os.path.dirname(keyfob.__file__) == os.path.dirname(module))\n"
    assert python_host(source, stub) == ("0\nTrue\n", "")


def test_sys_path_grows_only_at_its_end(stub: Path) -> None:
    source = "before = list(sys.path)\n" + CALL + "print(sys.path[:len(before)] == before, len(sys.path) > len(before))"
    assert python_host(source, stub)[0] == "0\nTrue True\n"


def test_sys_path_stays_where_keyfob_is_importable(stub: Path) -> None:
    source = "sys.path.insert(0, sys.argv[2])\nbefore = list(sys.path)\n" + CALL + "print(sys.path == before)"
    assert python_host(source, stub, stub.parent.parent)[0] == "0\nTrue\n"


def test_a_failure_leaves_the_hosts_interpreter_alone(tmp_path: Path, loader: Path) -> None:
    module = make_package(tmp_path, loader, "raise KeyboardInterrupt\n")
    out, err = python_host(CALL + CALL + "print('goes on')", module)
    assert out == "5\n5\ngoes on\n"
    assert err.count("\n") == 1
    assert "KeyboardInterrupt" in err


def test_calls_with_and_without_the_gil_at_once_do_not_lock_each_other_out(tmp_path: Path, loader: Path) -> None:
    module = make_package(tmp_path, loader, "import time\ntime.sleep(0.3)\n" + START)
    source = """
holding = ctypes.PyDLL(module)
answers = []
def call(library): answers.append(library.C_GetFunctionList(None))
threads = [threading.Thread(target=call, args=(one,)) for one in (library, holding, library, holding)]
for thread in threads: thread.start()
for thread in threads: thread.join(20)
print(answers)
"""
    assert python_host(source, module) == ("[0, 0, 0, 0]\n", "")


def test_a_child_forked_by_python_during_the_start_fails_and_does_not_hang(tmp_path: Path, loader: Path) -> None:
    module = make_package(tmp_path, loader, "import time\ntime.sleep(0.5)\n" + START)
    source = """
import time, signal, warnings
warnings.simplefilter("ignore")
starter = threading.Thread(target=library.C_GetFunctionList, args=(None,))
starter.start()
time.sleep(0.1)
child = os.fork()
if child == 0:
    signal.alarm(10)
    os._exit(library.C_GetFunctionList(None))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
starter.join()
print(library.C_GetFunctionList(None))
"""
    out, err = python_host(source, module)
    assert out == "5\n0\n"
    assert "forked" in err


def test_a_child_forked_by_python_after_the_start_works(stub: Path) -> None:
    source = """
library.C_GetFunctionList(None)
child = os.fork()
if child == 0:
    os._exit(library.C_GetInterfaceList(None, None))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert python_host(source, stub)[0] == "0\n"


def other_versions() -> list[pythons.Python]:
    return [python for python in pythons.every() if python.version != sys.version_info[:2]]


def test_another_version_is_refused_with_a_line_that_says_what_to_do(stub: Path) -> None:
    others = other_versions()
    if not others:
        pytest.skip("this machine has only one version of Python")
    for other in (others[0], others[-1]):
        out, err = python_host(CALL + CALL + "print('goes on')", stub, executable=other.executable)
        assert out == "5\n5\ngoes on\n"
        assert err.count("\n") == 1
        assert f"Python {other.version[0]}.{other.version[1]}." in err
        assert f"built for Python {sys.version_info[0]}.{sys.version_info[1]}:" in err
        assert "p11-kit server" in err


def test_another_build_of_the_same_version_is_shared(stub: Path) -> None:
    others = [other for other in pythons.every() if other.version == sys.version_info[:2]]
    others = [other for other in others if Path(other.prefix) != Path(sys.base_prefix)]
    if not others:
        pytest.skip("this machine has one build of this version of Python")
    assert python_host(CALL, stub, executable=others[0].executable) == ("0\n", "")


@pytest.mark.parametrize("scenario", ["with-python", "with-idle-python"])
def test_a_libpython_that_the_host_loaded_for_itself_is_used(host: Host, stub: Path, scenario: str) -> None:
    done = host(scenario, stub, str(library_of_python()), PYTHONHOME=sys.base_prefix)
    assert done.stdout == "0\ninitialized 1\n"
    assert done.stderr == ""


def test_a_libpython_of_another_version_is_refused_even_before_it_runs(host: Host, stub: Path) -> None:
    libraries = [lib for other in other_versions() for lib in Path(other.prefix, "lib").glob("libpython3.*.so.1.0")]
    if not libraries:
        pytest.skip("no other version of Python has a shared library here")
    done = host("with-idle-python", stub, str(libraries[-1]))
    assert done.stdout == "5\ninitialized 0\n"
    assert "built for Python" in done.stderr


def test_finalize_after_pythons_end_is_survived(home: Path) -> None:
    """Exit handlers of the C library run when a Python host has ended its interpreter already."""
    source = """
address = ctypes.c_void_p()
print(library.C_GetFunctionList(ctypes.byref(address)))
slots = ctypes.cast(address, ctypes.POINTER(ctypes.c_void_p))
print(ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)(slots[1])(None))
register = ctypes.CDLL(None).__cxa_atexit
register.argtypes = [ctypes.c_void_p] * 3
register(slots[2], None, None)
"""
    assert home.is_dir()  # the module must not use the user's own tokens
    assert python_host(source, module_path()) == ("0\n0\n", "")


@pytest.mark.parametrize("wish", ["enable", "disable"])
def test_no_garbage_of_the_host_is_collected_during_the_start_and_the_end(home: Path, wish: str) -> None:
    """PyKCS11's finalisers take the lock that it holds during these calls. And the collector stays as it was."""
    source = """
import gc
inside = []
def collection(phase, info, folder=os.path.dirname(module), here=sys._getframe):
    frame = here(1)
    while frame is not None and not frame.f_code.co_filename.startswith(folder):
        frame = frame.f_back
    if frame is not None and os.path.basename(frame.f_code.co_filename) != "filling.py":  # it may collect as it comes
        inside.append(frame.f_code.co_filename)
address = ctypes.c_void_p()
gc.callbacks.append(collection)
gc.set_threshold(1)
getattr(gc, sys.argv[2])()
print(library.C_GetFunctionList(ctypes.byref(address)))
slots = ctypes.cast(address, ctypes.POINTER(ctypes.c_void_p))
call = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)
print(call(slots[1])(None), call(slots[2])(None), gc.isenabled())
gc.callbacks.clear()
print(inside)
"""
    assert home.is_dir()
    assert python_host(source, module_path(), wish) == (f"0\n0 0 {wish == 'enable'}\n[]\n", "")
