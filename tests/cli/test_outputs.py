"""Every command that writes where people say: links, pipes, devices and open descriptors stay what they are."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from keyfob.cli import files, keyfob
from keyfob.cli.errors import Refusal
from tests.cli.conftest import Run
from tests.conftest import module_path

STRANGER = 12345
KEYFOB = Path(sys.executable).with_name("keyfob")


def opened(out: str, data: bytes) -> None:
    with os.fdopen(files.opened(out), "wb") as file:
        file.write(data)


def written(out: str, data: bytes) -> None:
    files.write(out, data, force=True)


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """/dev/null; of the test's own where this user could take the machine's away."""
    if os.geteuid() != 0:
        return Path("/dev/null")
    own = tmp_path / "device"
    try:
        os.mknod(own, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        own.write_bytes(b"")
    except OSError as problem:
        pytest.skip(f"no device can be made here: {problem.strerror}")
    return own


WAYS = pytest.mark.parametrize("put", [opened, written])
Put = Callable[[str, bytes], None]


@WAYS
def test_a_link_stays_and_leads_to_what_is_written(tmp_path: Path, put: Put) -> None:
    (tmp_path / "old").write_bytes(b"old")
    for number, target in enumerate(("old", "new", f"{tmp_path}/sub/../newer")):
        (tmp_path / "sub").mkdir(exist_ok=True)
        link, again = tmp_path / f"link{number}", tmp_path / "sub" / f"again{number}"
        link.symlink_to(target)
        again.symlink_to(f"../link{number}")
        put(str(again), b"data")
        assert link.is_symlink()
        assert again.is_symlink()
        assert link.read_bytes() == b"data"
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


@WAYS
def test_links_in_a_circle_and_folders_are_refused(tmp_path: Path, put: Put) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for name in ("a", ".", "", "c/d"):
        with pytest.raises(Refusal, match="cannot be written"):
            put(f"{tmp_path}/{name}", b"data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@WAYS
def test_a_strangers_link_leads_nowhere(tmp_path: Path, put: Put) -> None:
    """In /tmp anybody can make one, to a file of the user's."""
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "link").symlink_to("mine")
    os.chown(tmp_path / "link", STRANGER, -1, follow_symlinks=False)
    with pytest.raises(Refusal, match=f"a symbolic link that belongs to the user {STRANGER}"):
        put(str(tmp_path / "link"), b"data")
    assert (tmp_path / "mine").read_bytes() == b"mine"


@WAYS
def test_a_pipe_and_a_device_are_written_to_and_stay(tmp_path: Path, put: Put, device: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "link").symlink_to("fifo")
    reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    for name in ("fifo", "link"):
        put(str(tmp_path / name), b"data")
        assert os.read(reader, 99) == b"data"
    os.close(reader)
    (tmp_path / "null").symlink_to(device)
    before = device.lstat()
    put(str(tmp_path / "null"), b"data")
    assert os.path.samestat(device.lstat(), before)
    assert (tmp_path / "null").is_symlink()


@WAYS
@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"])
def test_an_open_descriptor_is_written_to_where_it_is(tmp_path: Path, put: Put, folder: str) -> None:
    """Also where it leads to a file, whose name would not be in the place of the descriptor's."""
    descriptor = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    try:
        os.write(descriptor, b"before ")
        (tmp_path / "link").symlink_to(f"{folder}/{descriptor}")
        for name in (f"{folder}/{descriptor}", str(tmp_path / "link")):
            put(name, b"data ")
        os.write(descriptor, b"after")
        assert os.fstat(descriptor).st_ino == (tmp_path / "file").stat().st_ino
    finally:
        os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == b"before data data after"
    assert (tmp_path / "link").is_symlink()


def test_what_is_there_is_written_over_only_when_that_is_asked_for(tmp_path: Path, device: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        for put in (lambda path: files.write(path, b"new"), lambda path: files.place(path, force=False)):
            with pytest.raises(Refusal, match="is there already"):
                put(str(tmp_path / name))
    assert (tmp_path / "file").read_bytes() == b"old"
    assert files.place(str(tmp_path / "link"), force=True) == str(tmp_path / "file")
    files.write(str(device), b"new")  # which is always there


# Each command, by the option or argument that names its output.
COMMANDS = {
    "backup file": "backup work OUT --force --passphrase long-enough --pin 1234",
    "cert export --out": "cert export work me --out OUT --force",
    "cert request --out": "cert request work me --subject CN=Me --out OUT --force --pin 1234",
    "cert self-sign --out": "cert self-sign work me --subject CN=Me --out OUT --force --pin 1234",
    "cert sign --out": "cert sign work me me.csr --out OUT --force --pin 1234",
    "check --html": "check MODULE --only P6 --html OUT",
    "check --json": "check MODULE --only P6 --json OUT",
    "check --junit": "check MODULE --only P6 --junit OUT",
    "export --out": "export work me --out OUT --force --passphrase secret --pin 1234",
    "install policy --file": "install policy --file OUT",
    "trace --html": "trace --output calls.jsonl --html OUT -- true",
    "trace --output": "trace --output OUT -- true",
}
# What names a file that is read, and what is checked to be there.
READ = {
    *("cert import file", "cert sign file", "import file", "init --pepper", "pin pepper --set", "restore --pepper"),
    "uninstall policy --file",  # takes out what `install policy` put in
}


def named_by_people() -> set[str]:
    """Every option and argument of every command that names a file or folder which need not be there."""
    found: set[str] = set()

    def walk(command: click.Command, name: str) -> None:
        if isinstance(command, click.Group):
            context = click.Context(command)
            for below in command.list_commands(context):
                if one := command.get_command(context, below):
                    walk(one, f"{name} {below}".strip())
            return
        for each in command.params:
            is_path = isinstance(each.type, (click.Path, click.File)) or "FILE" in (each.metavar or "")
            if (is_path or each.name in ("file", "out", "output")) and not getattr(each.type, "exists", False):
                found.add(f"{name} {each.opts[0]}")

    walk(keyfob, "")
    return found


def test_every_output_of_every_command_is_tried_here() -> None:
    assert named_by_people() - READ == set(COMMANDS)


@pytest.fixture
def commands(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """With what they need: a token, a key, a certificate and a request."""
    monkeypatch.setenv("HOME", str(folder))
    run("init work --pin 1234 --so-pin 12345678")
    run("key generate work --type ec:p256 --name me --extractable --pin 1234")
    run("cert self-sign work me --subject CN=Me --ca --out me.pem --pin 1234")
    run("cert request work me --subject CN=Me --out me.csr --pin 1234")
    return run


def test_no_command_replaces_a_link_or_a_device(commands: Run, folder: Path, device: Path) -> None:
    (folder / "null").symlink_to(device)
    before = device.lstat()
    for number, (name, line) in enumerate(COMMANDS.items()):
        link, target = folder / f"link{number}", folder / f"target{number}"
        link.symlink_to(target.name)
        for out in (link.name, "null"):
            words = line.replace("OUT", out).replace("MODULE", shlex.quote(str(module_path())))
            said = commands(words, code=None)
            assert isinstance(said.exception, SystemExit | None), (name, said.exception)
        assert link.is_symlink(), name
        assert target.is_file(), name
        assert os.path.samestat(device.lstat(), before), name
    assert (folder / "null").is_symlink()


def test_standard_output_that_leads_to_a_file_stays_what_it_is(folder: Path) -> None:
    """As a shell has it with `>>`; /dev/stdout is such a link."""
    (folder / "stdout").symlink_to("/proc/self/fd/1")
    (folder / "log").write_text("before\n")
    with (folder / "log").open("a") as log:
        command = [str(KEYFOB), "trace", "--output", "stdout", "--", "echo", "between"]
        subprocess.run(command, stdout=log, stderr=subprocess.PIPE, check=True)
        subprocess.run(["echo", "after"], stdout=log, check=True)
    assert (folder / "log").read_text() == "before\nbetween\nafter\n"
    assert (folder / "stdout").is_symlink()
