"""libkeyfob.so in hosts that are C programs: what it must not touch, threads, unloading, exit, fork."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.abi.conftest import Host
from tests.abi.stub_module import START, compiler, make_package
from tests.conftest import module_path

ENTRIES = ["C_GetFunctionList", "C_GetInterface", "C_GetInterfaceList"]


@pytest.fixture
def module(home: Path) -> Path:
    """The built module; `home`, so that it does not use the user's own tokens."""
    return module_path()


def test_it_exports_the_three_entries_and_nothing_else(module: Path) -> None:
    symbols = subprocess.run(["nm", "-D", "--defined-only", module], capture_output=True, text=True, check=True).stdout
    assert sorted(line.split()[-1] for line in symbols.splitlines()) == ENTRIES


def test_it_is_not_linked_with_python_and_stays_loaded(module: Path) -> None:
    dynamic = subprocess.run(["readelf", "-d", module], capture_output=True, text=True, check=True).stdout
    assert "libpython" not in dynamic
    assert "NODELETE" in dynamic
    assert "BIND_NOW" in dynamic


def test_every_entry_works(host: Host, module: Path) -> None:
    done = host("calls", module)
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["0"] * 6
    assert done.stderr == ""


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C.UTF-8", "HOST_SETS_LOCALE": "1"},
        {"LC_ALL": "no_SUCH", "HOST_SETS_LOCALE": "1"},
        {},
    ],
)
def test_locale_environment_signals_and_streams_of_the_host_stay(
    host: Host, module: Path, environment: dict[str, str]
) -> None:
    done = host("differences", module, **environment)
    assert done.stdout == "not flushed yet compared\n"
    assert done.stderr == ""


@pytest.mark.rule("I1")
def test_python_variables_of_the_host_are_not_obeyed(host: Host, stub: Path, tmp_path: Path) -> None:
    """Starts its own Python whatever PYTHON* variables the host has."""
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "sitecustomize.py").write_text("print('planted')")
    (planted / "ctypes.py").write_text("print('planted')")
    variables = {"PYTHONPATH": str(planted), "PYTHONHOME": str(planted), "PYTHONSTARTUP": str(planted / "ctypes.py")}
    done = host("calls", stub, **variables, PYTHONVERBOSE="1", PYTHONINSPECT="1", PYTHONFAULTHANDLER="1")
    assert "planted" not in done.stdout
    assert done.stderr == ""
    assert done.stdout.count(" 0\n") == 6


@pytest.mark.rule("P9", "G4")
def test_first_calls_of_many_threads_at_once_agree(host: Host, module: Path) -> None:
    """Gives the same function list to threads that load it at the same moment."""
    assert host("threads", module).stdout == "0 same\n" * 9


@pytest.mark.rule("G1")
def test_dlclose_and_dlopen_start_no_second_interpreter(host: Host, module: Path) -> None:
    """Survives being unloaded and loaded again."""
    assert host("reopened", module).stdout == "0 same\n" * 3 + "0\n"


@pytest.mark.rule("I1")
def test_it_starts_through_a_symbolic_link(host: Host, stub: Path, tmp_path: Path) -> None:
    """Loads through a symbolic link."""
    link = tmp_path / "elsewhere.so"
    link.symlink_to(stub)
    assert host("calls", link).stdout.count(" 0\n") == 6


@pytest.mark.rule("G3")
def test_finalize_from_exit_handlers_and_destructors_is_survived(host: Host, module: Path) -> None:
    """Survives C_Finalize from exit handlers and destructors."""
    lines = host("finalized-at-exit", module).stdout.split("\n")
    assert lines[:2] == ["initialize 0", "finalize 0"]
    assert lines[2:4] == [f"finalize {0x190}"] * 2  # CKR_CRYPTOKI_NOT_INITIALIZED


def test_forks_while_two_threads_work_leave_children_that_work(host: Host, module: Path) -> None:
    lines = host("forked-at-work", module).stdout.splitlines()
    assert lines == ["initialize 0", *["child 0"] * 30, "finalize 0"]


def test_a_fork_waits_for_a_start_in_another_thread(host: Host, tmp_path: Path, loader: Path) -> None:
    module = make_package(tmp_path, loader, "import time\ntime.sleep(0.5)\n" + START)
    done = host("forked-while-starting", module)
    assert done.stdout == "child 0\nparent 0\n"
    assert done.stderr == ""


def test_a_child_of_a_start_that_takes_too_long_fails_and_the_parent_does_not(
    host: Host, tmp_path: Path, loader: Path
) -> None:
    module = make_package(tmp_path, loader, "import time\ntime.sleep(3)\n" + START)
    done = host("forked-while-starting", module)
    assert done.stdout == "child 5\nparent 0\n"
    assert done.stderr.count("\n") == 1
    assert "forked" in done.stderr


def test_a_fork_waits_for_an_import_in_another_thread(host: Host, stub: Path) -> None:
    assert host("forked-while-importing", stub).stdout == "child 0\nparent 0\n"


def test_a_program_without_python_symbols_can_link_with_it(stub: Path, tmp_path: Path) -> None:
    program = tmp_path / "linked"
    source = "unsigned long C_GetFunctionList(void **); int main(void) { void *l; return (int)C_GetFunctionList(&l); }"
    link = [f"-L{stub.parent}", "-l:libkeyfob.so", f"-Wl,-rpath,{stub.parent}"]
    subprocess.run([compiler(), "-x", "c", "-", "-o", program, *link], input=source, text=True, check=True)
    assert subprocess.run([program], timeout=30, check=False).returncode == 0
