"""A start that cannot succeed: CKR_GENERAL_ERROR from every entry, one line on stderr, no crash, no second try."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.abi.conftest import Host
from tests.abi.stub_module import START, compile_loader, library_of_python, make_package


def fails_with(host: Host, module: Path, *words: str) -> None:
    """All six calls answer CKR_GENERAL_ERROR (5), and the one line on stderr has these words."""
    done = host("calls", module)
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["5"] * 6
    assert done.stderr.startswith("keyfob: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def test_a_missing_libpython_names_the_package(host: Host, tmp_path: Path) -> None:
    loader = compile_loader(tmp_path / "loader", LIBPYTHON='"/nowhere/libpython.so"', LIBPYTHON_NAME='"libnone.so"')
    fails_with(host, make_package(tmp_path, loader), "/nowhere/libpython.so", "package libpython3.")


def test_libpython_is_found_by_name_when_it_has_moved(host: Host, tmp_path: Path) -> None:
    loader = compile_loader(tmp_path / "loader", LIBPYTHON='"/nowhere/libpython.so"')
    done = host("calls", make_package(tmp_path, loader), LD_LIBRARY_PATH=str(library_of_python().parent))
    assert done.stdout.count(" 0\n") == 6


def test_a_missing_standard_library_is_named(host: Host, tmp_path: Path) -> None:
    loader = compile_loader(tmp_path / "loader", STANDARD_LIBRARY='{"/nowhere/python", 0}')
    fails_with(host, make_package(tmp_path, loader), "standard library", "/nowhere/python")


def test_an_empty_standard_library_does_not_end_the_host(host: Host, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    loader = compile_loader(tmp_path / "loader", STANDARD_LIBRARY=f'{{"{empty}", 0}}')
    done = host("calls", make_package(tmp_path, loader))
    assert done.stdout.count(" 5\n") == 6
    assert "does not start" in done.stderr


@pytest.mark.parametrize(
    ("start", "word"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise OSError('two\\nlines')", "OSError: two lines"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("def tables(): return 0", "no tables"),
        ("def tables(): return 'text'", "no tables"),
        ("def tables(): raise KeyError(1)", "KeyError: 1"),
        ("def broken(:", "SyntaxError"),
        ("", "AttributeError"),
    ],
)
def test_a_start_that_raises_is_reported(host: Host, tmp_path: Path, loader: Path, start: str, word: str) -> None:
    fails_with(host, make_package(tmp_path, loader, start), word)


def test_a_start_that_calls_back_into_the_module_gets_an_error_and_no_hang(
    host: Host, tmp_path: Path, loader: Path
) -> None:
    call = "import ctypes\nfrom pathlib import Path\nLIBRARY = str(Path(__file__).parent.parent / 'libkeyfob.so')\n"
    check = "assert ctypes.CDLL(LIBRARY).C_GetFunctionList(None) == 5\n"
    done = host("calls", make_package(tmp_path, loader, call + check + START))
    assert done.stdout.count(" 0\n") == 6


def test_a_copy_outside_the_package_is_refused(host: Host, stub: Path, tmp_path: Path) -> None:
    fails_with(host, Path(shutil.copy(stub, tmp_path / "copy.so")), "must stay in the package", "link")


def test_a_missing_package_is_named(host: Host, stub: Path) -> None:
    shutil.rmtree(stub.parent / "abi")
    fails_with(host, stub, "ModuleNotFoundError", str(stub.parent.parent))


def test_a_folder_that_others_may_write_to_is_not_searched(host: Host, tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    (open_to_all / "only_there.py").touch()
    loader = compile_loader(tmp_path / "loader", SITE_FOLDERS=f'{{"{open_to_all}", 0}}')
    module = make_package(tmp_path, loader, "import only_there\n" + START)
    assert host("calls", module).stdout.count(" 0\n") == 6
    open_to_all.chmod(0o777)
    fails_with(host, module, "only_there")
