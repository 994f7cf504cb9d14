"""What keyfob opens, makes and believes in a file system that others write to as well (files.py, environment.py)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from keyfob import config, environment, files, log
from keyfob.spec.errors import PKCS11Error
from keyfob.store import secret_file
from keyfob.token import audit
from keyfob.token.library import Library
from keyfob.token.removable import Registration

STRANGER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def loaded() -> Iterator[None]:
    """The log goes nowhere after the test."""
    yield
    log.configure(None)


@pytest.fixture
def secure(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process counts as one with rights that its caller has not got."""
    monkeypatch.setattr(environment, "_secure", True)


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o777


def problems(home: Path) -> list[str]:
    found: list[str] = []
    config.load({"KEYFOB_HOME": str(home)}, found)
    return found


# What is made


@pytest.mark.parametrize("umask", [0, 0o002, 0o077, 0o777])
def test_folders_are_made_for_the_user_alone_with_their_parents_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.make_folder(str(tmp_path / "a" / "b" / "c"))
        config.load({"KEYFOB_HOME": str(tmp_path / "home")}).make_folders()
    finally:
        os.umask(before)
    made = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert len(made) == 5
    assert {mode(path) for path in made} == {0o700}


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        files.make_folder(str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"Not a directory|exists"):
        files.make_folder(str(tmp_path / "file" / "below"))


def test_what_is_replaced_is_whole_and_devices_and_links_are_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "file"
    before = os.umask(0o077)
    try:
        files.replace(str(target), b"one", files.PUBLIC)
        assert (target.read_bytes(), mode(target)) == (b"one", 0o644)
        files.replace(str(target), b"two", files.PUBLIC, exactly=False)
        assert (target.read_bytes(), mode(target)) == (b"two", 0o600)
    finally:
        os.umask(before)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "dangling").symlink_to("nothing")
    for place in (tmp_path / "fifo", tmp_path / "link", tmp_path / "dangling", Path("/dev/null"), tmp_path):
        with pytest.raises(OSError, match=r"it is (no file|a symbolic link)"):
            files.replace(str(place), b"three")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "fifo", "file", "link"]


# What is written to


def a_symbolic_link(path: Path, target: Path) -> str:
    path.symlink_to(target)
    return "it is a symbolic link"


def a_link_to_nothing(path: Path, target: Path) -> str:
    path.symlink_to(target.with_name("new"))
    return "it is a symbolic link"


def another_name(path: Path, target: Path) -> str:
    path.hardlink_to(target)
    return "it has another name as well"


def a_fifo(path: Path, target: Path) -> str:
    os.mkfifo(path)
    os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # somebody reads it
    return "it is no file"


@pytest.mark.parametrize("trap", [a_symbolic_link, a_link_to_nothing, another_name, a_fifo])
@pytest.mark.parametrize("opened", [files.append, files.keep])
def test_what_is_written_is_a_file_with_one_name_and_no_way_to_another(
    tmp_path: Path, trap: Callable[[Path, Path], str], opened: Callable[[str], int]
) -> None:
    target, path = tmp_path / "victim", tmp_path / "trap"
    target.write_text("precious")
    reason = trap(path, target)
    with pytest.raises(OSError, match=reason):
        opened(str(path))
    assert target.read_text() == "precious"
    assert not target.with_name("new").exists()


@pytest.mark.parametrize("name", ["keyfob.log", "keyfob-audit.jsonl"])
def test_logs_are_not_written_through_links(tmp_path: Path, name: str, loaded: None) -> None:
    target = tmp_path / "victim"
    (tmp_path / name).symlink_to(target)
    settings = config.load({"KEYFOB_HOME": str(tmp_path)})
    log.line("error", "a line")
    audit.write(settings, "login", {"slot": 1})
    assert not target.exists()


@as_root
def test_a_program_with_more_rights_writes_to_no_file_of_others(tmp_path: Path, secure: None) -> None:
    """Its caller could have led it there: those rights are not the caller's."""
    theirs = tmp_path / "theirs"
    theirs.touch()
    os.chown(theirs, STRANGER, -1)
    with pytest.raises(OSError, match=f"it belongs to the user {STRANGER}"):
        files.append(str(theirs))
    theirs.unlink()
    os.chown(tmp_path, STRANGER, -1)
    with pytest.raises(OSError, match="its folder belongs to the user"):
        files.append(str(theirs))
    assert not theirs.exists()


# Modes


def test_what_keyfob_made_is_closed_to_others(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "token").touch(0o666)
    (tmp_path / "token").chmod(0o666)
    (tmp_path / "folder").mkdir(0o755)
    for name in ("token", "folder", "missing"):
        files.close_to_others(str(tmp_path / name), said.append)
    assert (mode(tmp_path / "token"), mode(tmp_path / "folder")) == (0o600, 0o700)
    assert [line.rpartition(" (")[2] for line in said] == ["mode 0666): it is 0600 now", "mode 0755): it is 0700 now"]


def test_a_mode_is_changed_of_nothing_that_a_name_leads_to(tmp_path: Path) -> None:
    said: list[str] = []
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.touch()
    victim.chmod(0o644)
    folder.mkdir()
    folder.chmod(0o755)
    (tmp_path / "to-file").symlink_to(victim)
    (tmp_path / "to-folder").symlink_to(folder)
    (tmp_path / "name").hardlink_to(victim)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "fifo").chmod(0o644)
    for name in ("to-file", "to-folder", "name", "fifo"):
        files.close_to_others(str(tmp_path / name), said.append)
    assert (mode(victim), mode(folder), mode(tmp_path / "fifo")) == (0o644, 0o755, 0o644)
    assert [line.rpartition(": ")[2] for line in said] == ["it has another name as well", "it is no file"]


@as_root
def test_a_mode_is_changed_of_nothing_that_belongs_to_others(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "theirs").touch()
    (tmp_path / "theirs").chmod(0o644)
    os.chown(tmp_path / "theirs", STRANGER, -1)
    files.close_to_others(str(tmp_path / "theirs"), said.append)
    assert mode(tmp_path / "theirs") == 0o644
    assert said[0].endswith(f"it belongs to the user {STRANGER}")


# What is believed

SETTINGS = "[sessions]\nmax = 7\n"


@pytest.fixture
def home(tmp_path: Path, loaded: None) -> Path:
    (tmp_path / "config.toml").write_text(SETTINGS)
    (tmp_path / "config.toml").chmod(0o644)
    return tmp_path


def test_a_configuration_of_the_users_own_is_read_also_through_a_link(home: Path) -> None:
    (home / "config.toml").rename(home / "elsewhere.toml")
    (home / "config.toml").symlink_to("elsewhere.toml")
    assert config.load({"KEYFOB_HOME": str(home)}).max_sessions == 7


def test_a_configuration_that_others_can_write_is_refused_with_a_line(home: Path) -> None:
    (home / "config.toml").chmod(0o646)
    assert problems(home) == ["not read: it can be written by everybody (mode 0646)"]
    assert config.load({"KEYFOB_HOME": str(home)}).max_sessions == 1024
    assert f"{home}/config.toml: not read: it can be written by everybody" in (home / "keyfob.log").read_text()


def test_a_configuration_in_a_folder_that_others_can_write_is_refused_with_a_line(home: Path) -> None:
    home.chmod(0o777)
    assert problems(home) == [f"not read: {home} can be written by everybody (mode 0777)"]
    home.chmod(0o1777)  # others may add to it, and what they add is theirs
    assert problems(home) == []


def test_a_configuration_that_is_no_file_holds_nobody_up(home: Path) -> None:
    (home / "config.toml").unlink()
    os.mkfifo(home / "config.toml")
    assert problems(home) == ["not read: it is no file"]


@as_root
@pytest.mark.parametrize("what", ["config.toml", "."])
def test_a_configuration_of_another_user_is_refused_with_a_line(home: Path, what: str) -> None:
    os.chown(home / what, STRANGER, -1)
    (found,) = problems(home)
    assert found.startswith("not read: ")
    assert f"belongs to the user {STRANGER}, not to 0" in found


@as_root
def test_a_link_of_another_user_leads_to_nothing_that_is_believed(home: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(home)
    assert files.doubt(str(link)) == ""
    os.chown(link, STRANGER, -1, follow_symlinks=False)
    assert files.doubt(str(link / "below")) == f"{link}, a symbolic link, belongs to the user {STRANGER}, not to 0"


@as_root
def test_only_a_group_that_is_the_users_alone_may_write(home: Path) -> None:
    """umask 002 is the default where each user has a group of the same name."""
    (home / "config.toml").chmod(0o664)
    os.chown(home / "config.toml", -1, 0)
    assert problems(home) == []
    os.chown(home / "config.toml", -1, 1)
    assert problems(home) == ["not read: it can be written by the group 1 (mode 0664)"]


def test_a_group_is_private_that_has_the_users_name_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    import grp
    import pwd

    groups = {0: ("root", []), 7: ("me", ["me"]), 8: ("me", ["me", "you"]), 9: ("staff", [])}
    monkeypatch.setattr(grp, "getgrgid", lambda gid: SimpleNamespace(gr_name=groups[gid][0], gr_mem=groups[gid][1]))
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    for primary in groups:
        user = SimpleNamespace(pw_gid=primary, pw_name="me")
        monkeypatch.setattr(pwd, "getpwuid", lambda _, user=user: user)
        assert [gid for gid in groups if files._is_private(gid)] == ([0, 7] if primary == 7 else [0])
    assert not files._is_private(10)


@as_root
def test_a_program_with_more_rights_than_its_caller_takes_no_orders_of_roots_files(home: Path, secure: None) -> None:
    """The caller may have led it to one. Here the caller's rights are a stranger's, and the file is root's."""
    status = (home / "config.toml").stat()
    assert files.stranger(status) == ""
    os.seteuid(STRANGER)
    try:
        assert files.stranger(status) == f"belongs to the user 0, not to {STRANGER}"
    finally:
        os.seteuid(0)


@as_root
def test_root_uses_what_belongs_to_a_services_user_and_nobody_else_does(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers start as root. An order is another thing: see above."""
    settings = config.load({"KEYFOB_HOME": str(home)})
    settings.make_folders()
    secret = tmp_path / "secret"
    secret.write_bytes(b"1234")
    secret.chmod(0o644)
    for path in (secret, Path(settings.tokens)):
        os.chown(path, STRANGER, -1)
    assert settings.doubt() == ""
    assert secret_file.read(str(secret), "", 8, print) == b"1234"
    assert secret_file.read_own(str(secret), 8) == b"1234"
    seen = tmp_path / "seen"
    seen.mkdir()
    os.chown(seen, STRANGER, -1)
    os.close(files.keep(str(seen / "token")))
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER + 1)
    with pytest.raises(OSError, match=f"belongs to the user {STRANGER}"):
        files.keep(str(seen / "token"))
    assert settings.doubt().endswith(f"belongs to the user {STRANGER}, not to {STRANGER + 1}")
    with pytest.raises(PKCS11Error, match=f"not believed: it belongs to the user {STRANGER}"):
        secret_file.read(str(secret), "", 8, print)


def test_a_folder_of_tokens_that_others_can_write_is_not_believed_until_it_is_mended(home: Path) -> None:
    settings = config.load({"KEYFOB_HOME": str(home)})
    settings.make_folders()
    Path(settings.tokens).chmod(0o777)
    library = Library(settings)
    problem = library.tokens[1].broken
    assert problem is not None
    assert problem.reason == (
        f"the folder of tokens is not believed: {settings.tokens} can be written by everybody (mode 0777)"
    )
    with pytest.raises(PKCS11Error):
        library.make_store(1, "label", b"12345678")
    assert mode(Path(settings.tokens)) == 0o777, "that somebody could write it must not be forgotten"
    Path(settings.tokens).chmod(0o700)
    library.rescan()
    assert library.tokens[1].broken is None
    library.close()


def test_a_registration_of_a_removable_token_is_read_only_if_nobody_else_can_have_written_it(tmp_path: Path) -> None:
    registration = Registration(str(tmp_path / "slot-2.removable"))
    registration.write("/media/stick", ejected=False)
    assert mode(tmp_path / "slot-2.removable") == 0o600
    assert registration.read() is not None
    assert registration.folder == "/media/stick"
    (tmp_path / "slot-2.removable").chmod(0o666)
    assert Registration(registration.path).read() is None
    (tmp_path / "slot-2.removable").rename(tmp_path / "elsewhere")
    (tmp_path / "slot-2.removable").symlink_to("elsewhere")
    assert Registration(registration.path).read() is None


def test_what_this_machine_remembers_is_not_kept_where_others_can_write(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()
    seen.chmod(0o777)
    with pytest.raises(OSError, match="can be written by everybody"):
        files.keep(str(seen / "token"))
    assert list(seen.iterdir()) == []


# The environment


def test_no_variable_counts_in_a_program_with_more_rights(monkeypatch: pytest.MonkeyPatch, secure: None) -> None:
    monkeypatch.setenv("KEYFOB_HOME", "/tmp")
    monkeypatch.setenv("HOME", "/tmp")
    assert environment.get("KEYFOB_HOME") == ""
    assert environment.several(("KEYFOB_HOME", "HOME")) == {}
    assert environment.whole() == {}
    settings = config.present()
    assert settings.tokens == f"{environment.home_in_database()}/.local/share/keyfob/tokens"
    assert environment.expanded("~/x") == f"{environment.home_in_database()}/x"
    log.configure(None)


def test_no_database_is_asked_in_a_program_with_more_rights(secure: None, tmp_path: Path) -> None:
    """libpq would take hosts and files from the environment."""
    from keyfob.store import open_shelf

    with pytest.raises(PKCS11Error, match="uses no database"):
        open_shelf("postgresql:///keyfob", str(tmp_path))


def test_the_kernel_says_that_this_program_has_no_more_rights_than_its_caller() -> None:
    assert not environment._asked_of_the_kernel()
    assert environment.expanded("~root/x").endswith("/x")
    assert environment.expanded("~nobody-has-this-name/x") == "~nobody-has-this-name/x"
    assert environment.expanded("/a/~") == "/a/~"
