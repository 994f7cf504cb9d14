"""`keyfob install nss` and `uninstall nss`, with NSS's own modutil and a module that stands in for libkeyfob.so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import keyfob
from tests.cli.conftest import Run

MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PKCS #11 module where `keyfob module-path` looks; modutil loads what it registers."""
    if shutil.which("modutil") is None:
        pytest.skip("modutil is not installed (apt-get install libnss3-tools)")
    found = next((Path(path) for path in MODULES if Path(path).exists()), None)
    if found is None:
        pytest.skip("SoftHSM is not installed (apt-get install softhsm2)")
    (tmp_path / "softhsm").mkdir()
    (tmp_path / "softhsm.conf").write_text(f"directories.tokendir = {tmp_path / 'softhsm'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm.conf"))
    path = tmp_path / "libkeyfob.so"
    shutil.copy(found, path)
    monkeypatch.setattr("keyfob.cli.link.library_path", lambda: path)
    return path


def listed(database: Path) -> str:
    command = ["modutil", "-dbdir", f"sql:{database}", "-list"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def link(library: Path) -> Path:
    """The path under which programs know the module (I2)."""
    return Path(os.environ["KEYFOB_HOME"]) / "libkeyfob.so"


@pytest.mark.rule("I1", "I2")
def test_install_registers_once_and_uninstall_undoes_it(run: Run, folder: Path, library: Path, link: Path) -> None:
    """keyfob install registers the module once, under a short link that stays the same, and uninstall undoes it all."""
    database = folder / "a database"
    refused = run("install nss 'a database'", code=1)
    assert refused.stderr == (
        "keyfob: a database has no NSS database (no cert9.db): check the folder, or make one with --create\n"
    )
    assert not database.exists()
    assert "Registered" in run("install nss 'a database' --create").output
    assert f"library name: {link}" in listed(database)
    assert link.readlink() == library
    assert "has the module already, as 'keyfob'" in run("install nss 'sql:a database'").output
    assert listed(database).count(str(link)) == 1
    assert "Took 'keyfob' out of" in run("uninstall nss 'a database'").output
    assert str(link) not in listed(database)
    assert not link.is_symlink()
    assert not link.with_name("registrations.json").exists()
    assert "there is nothing to undo" in run("uninstall nss 'a database'").output


@pytest.mark.rule("I2")
def test_install_points_the_link_to_a_newer_module(
    run: Run, folder: Path, library: Path, link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebuilt or moved keyfob is found under the same path after the next keyfob install."""
    run("install nss db --create")
    newer = library.with_name("newer.so")
    shutil.copy(library, newer)
    monkeypatch.setattr("keyfob.cli.link.library_path", lambda: newer)
    run("install nss db")
    assert link.readlink() == newer
    assert listed(folder / "db").count(str(link)) == 1


def test_install_replaces_an_older_path_of_the_module(run: Run, folder: Path, library: Path, link: Path) -> None:
    run("install nss db --create")
    run("uninstall nss db")
    older = library.with_name("older.so")
    shutil.copy(library, older)
    command = ["modutil", "-dbdir", f"sql:{folder / 'db'}", "-add", "keyfob", "-libfile", str(older), "-force"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    run("install nss db")
    assert str(link) in listed(folder / "db")
    assert str(older) not in listed(folder / "db")


def test_install_knows_the_module_under_another_name(run: Run, folder: Path, library: Path) -> None:
    run("install nss db --create")
    run("uninstall nss db")
    command = ["modutil", "-dbdir", f"sql:{folder / 'db'}", "-add", "mine", "-libfile", str(library), "-force"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert "has the module already, as 'mine'" in run("install nss db").output


HOLD = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
fcntl.lockf(lock, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.usefixtures("library")
def test_install_is_refused_while_firefox_has_the_profile_open(run: Run, folder: Path) -> None:
    run("install nss db --create")
    command = [sys.executable, "-c", HOLD, str(folder / "db" / ".parentlock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        assert run("uninstall nss db", code=1).stderr == (
            "keyfob: db is in use: close Firefox or Thunderbird, then try again\n"
        )
        holder.communicate()
    # The lock file of a Firefox that has ended does not matter.
    run("uninstall nss db")


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(("process", "code"), [("alive", 1), ("dead", 0)])
def test_where_files_cannot_be_locked_firefoxs_link_tells(run: Run, folder: Path, process: str, code: int) -> None:
    run("install nss db --create")
    ended = subprocess.Popen(["true"])
    ended.wait()
    (folder / "db" / "lock").symlink_to(f"192.0.2.7:+{os.getpid() if process == 'alive' else ended.pid}")
    run("uninstall nss db", code=code)


def test_install_without_modutil_names_the_package(
    run: Run, folder: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("install nss db --create")
    monkeypatch.setenv("PATH", str(folder))
    assert "modutil is not installed; it comes in the package libnss3-tools" in run("uninstall nss db", code=1).stderr


def test_install_without_the_module_says_how_to_build_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyfob, "__file__", str(tmp_path / "__init__.py"))
    assert "libkeyfob.so is not there: keyfob was not built here" in run("install nss db", code=1).stderr
    assert "`make build`" in run("module-path", code=1).stderr


def test_a_module_that_modutil_cannot_load_is_not_registered(run: Run, folder: Path, library: Path) -> None:
    library.write_bytes(b"no module")
    assert run("install nss db --create", code=1).stderr.startswith("keyfob: modutil failed: ")
    assert str(library) not in listed(folder / "db")


def test_a_failed_install_leaves_no_link(run: Run, library: Path, link: Path) -> None:
    library.write_bytes(b"no module")
    run("install nss db --create", code=1)
    assert not link.is_symlink()


@pytest.mark.usefixtures("library")
def test_a_read_only_database_is_named_and_nothing_is_changed(
    run: Run, folder: Path, link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("install nss db --create")
    run("uninstall nss db")
    closed = Path("db/cert9.db")  # root may write what nobody else may, so that it is os.access that says so
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode == os.W_OK and Path(path) == closed))
    assert run("install nss db", code=1).stderr == "keyfob: db/cert9.db is write-protected, so nothing was changed\n"
    assert not link.is_symlink()
