"""A pepper: PINs cannot be guessed at, nor used, without a file that is not kept with the token."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import pytest

from keyfob import config
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import Hardening, MemoryStore, SqliteStore, meta, pepper, seal
from tests.store.samples import CHEAP, SERIAL, SO_PIN, USER_PIN, make, private_key, refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyfob.store import Shelf

NEW_PIN = b"another secret"
PINS = {"user": USER_PIN, "so": SO_PIN}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return pepper_file(tmp_path / "secrets" / "pepper")


def pepper_file(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(os.urandom(32))
    path.chmod(0o600)
    return path


def create(
    path: Path,
    file: Path | str,
    so_pin: bytes = SO_PIN,
    settings: config.Config | None = None,
    log: Callable[[str], None] = print,
    **more: Any,
) -> SqliteStore:
    """A token with a pepper that waits for its user PIN."""
    made = SqliteStore.create(
        path,
        label="a token",
        serial=SERIAL,
        kind="multipurpose",
        so_pin=so_pin,
        hardening=CHEAP,
        pepper=pepper.Peppers(settings, log).new(str(file)),
        log=log,
        **more,
    )
    made.configure(settings or configured(path.parent, str(file)))
    return made


def opened(path: Path, settings: config.Config) -> SqliteStore:
    store = SqliteStore.open(path)
    store.configure(settings)
    return store


def make_peppered(path: Path, file: Path | str, **more: Any) -> SqliteStore:
    """Both PINs set, with a private object; locked."""
    store = create(path, file, **more)
    store.login("so", SO_PIN)
    store.set_pin("user", USER_PIN)
    store.logout()
    store.login("user", USER_PIN)
    store.insert([private_key(1)])
    store.logout()
    return store


def wrapping(path: Path, role: str) -> bytes:
    connection = apsw.Connection(str(path))
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (meta.WRAPPING_OF[role],)).fetchall()[0]
    connection.close()
    assert isinstance(row[0], bytes)
    return row[0]


def roles(store: SqliteStore) -> tuple[str, ...]:
    state = store.pepper_state()
    assert state is not None
    assert state.problem == ""
    return state.roles


def configured(folder: Path, location: str, **environment: str) -> config.Config:
    (folder / "config.toml").write_text(f'[token."a token"]\npepper = "{location}"\n')
    return config.load({"KEYFOB_HOME": str(folder)} | environment)


# What it is good for


def test_a_stolen_token_does_not_tell_the_right_pin_from_a_wrong_one(path: Path, file: Path) -> None:
    """Without the pepper the right PIN opens neither wrapping, however the marks in them are set."""
    make_peppered(path, file).close()
    content = file.read_bytes()
    for role, pin in PINS.items():
        stolen = wrapping(path, role)
        identity = seal.pepper_identity(stolen)
        assert seal.unwrap(stolen, role, pin, pepper.Pepper(content, "", identity)) is not None
        guessed = pepper.Pepper(b"a guess at the pepper", "")
        assert seal.unwrap(stolen, role, pin, guessed) is None
        assert seal.unwrap(stolen, role, pin) is None
        memory, passes, lanes, *rest = seal.WRAPPING.unpack_from(stolen)
        unmarked = seal.WRAPPING.pack(memory, passes, lanes & ~seal.PEPPERED, *rest)
        assert seal.unwrap(unmarked, role, pin) is None


def test_two_tokens_with_one_pepper_do_not_look_alike(tmp_path: Path, file: Path) -> None:
    found = set()
    for name in ("one", "two"):
        create(tmp_path / name, file).close()
        found.add(seal.pepper_identity(wrapping(tmp_path / name, "so")))
    assert len(found) == 2
    assert all(len(each) == pepper.IDENTITY for each in found)


def test_the_pins_open_the_token_where_the_pepper_is(path: Path, file: Path) -> None:
    make_peppered(path, file).close()
    store = opened(path, configured(path.parent, str(file)))
    assert roles(store) == ("user", "so")
    store.login("user", USER_PIN)
    assert store.find(()) == [1]
    assert store.verify() == []
    store.verify_pin("so", SO_PIN)
    with refused(CKR.PIN_INCORRECT):
        store.verify_pin("user", b"wrong")
    assert store.info().failed_user == 1
    store.set_pin("user", NEW_PIN)
    store.logout()
    store.login("so", SO_PIN)
    store.set_pin("user", USER_PIN)
    assert roles(store) == ("user", "so")
    store.close()


def test_a_keyfob_that_knows_no_peppers_refuses_the_wrapping(path: Path, file: Path) -> None:
    create(path, file).close()
    with refused(CKR.DEVICE_ERROR):
        Hardening.stored(*seal.WRAPPING.unpack_from(wrapping(path, "so"))[:3])


# Where it is missing


def missing(file: Path) -> str:
    file.unlink()
    return "cannot be read: No such file or directory"


def another(file: Path) -> str:
    file.write_bytes(os.urandom(32))
    return "is not the pepper that the token's PINs were made with"


def too_short(file: Path) -> str:
    file.write_bytes(b"x" * 15)
    return "a pepper has 16 to 4096 bytes"


def too_long(file: Path) -> str:
    file.write_bytes(bytes(4097))
    return "a pepper has 16 to 4096 bytes"


def a_fifo(file: Path) -> str:
    """Nobody waits for somebody to write to it."""
    file.unlink()
    os.mkfifo(file)
    return "is no file"


def a_folder(file: Path) -> str:
    file.unlink()
    file.mkdir()
    return "is no file"


@pytest.mark.parametrize("spoil", [missing, another, too_short, too_long, a_fifo, a_folder])
def test_without_its_pepper_a_pin_is_not_called_wrong(path: Path, file: Path, spoil: Callable[[Path], str]) -> None:
    """CKR_DEVICE_ERROR names the file and the reason, and nothing is counted; a token is not erased either."""
    store = make_peppered(path, file)
    content, text = file.read_bytes(), spoil(file)
    for _ in range(12):
        with pytest.raises(PKCS11Error) as problem:
            store.login("user", USER_PIN)
        assert problem.value.rv == CKR.DEVICE_ERROR
        assert str(file) in problem.value.reason
        assert text in problem.value.reason
    with refused(CKR.DEVICE_ERROR):
        store.verify_pin("so", SO_PIN)
    with refused(CKR.DEVICE_ERROR):
        store.reset("new", SO_PIN)
    assert (store.info().failed_user, store.info().failed_so) == (0, 0)
    state = store.pepper_state()
    assert state is not None
    assert text in state.problem
    if file.is_dir():
        file.rmdir()
    else:
        file.unlink(missing_ok=True)
    file.write_bytes(content)
    store.login("user", USER_PIN)
    assert store.find(()) == [1]
    store.close()


def test_no_pin_is_set_without_the_tokens_pepper(path: Path, file: Path) -> None:
    """It would be one that can be guessed at, or one that the file of tomorrow does not open."""
    store = make_peppered(path, file)
    store.login("user", USER_PIN)
    another(file)
    with refused(CKR.DEVICE_ERROR):
        store.set_pin("user", NEW_PIN)
    missing(file)
    with refused(CKR.DEVICE_ERROR):
        store.set_pin("so", NEW_PIN)
    assert store.find(()) == [1]  # what is open stays open
    store.close()


def test_no_token_is_made_without_the_pepper_that_it_shall_have(path: Path, tmp_path: Path) -> None:
    with refused(CKR.DEVICE_ERROR):
        create(path, tmp_path / "missing")
    assert not path.exists()


# Setting, replacing and removing it


def test_a_token_gets_a_pepper_later(path: Path, file: Path) -> None:
    store = make(path)
    assert store.pepper_state() is None
    store.login("user", USER_PIN)
    store.set_pepper(str(file), PINS)
    store.close()
    store = opened(path, configured(path.parent, str(file)))
    assert roles(store) == ("user", "so")
    store.login("user", USER_PIN)
    assert store.verify() == []
    file.unlink()
    with refused(CKR.DEVICE_ERROR):
        store.verify_pin("so", SO_PIN)
    store.close()


def test_a_pin_that_was_not_given_gets_the_pepper_at_its_next_login(path: Path, file: Path) -> None:
    store = make(path)
    store.login("user", USER_PIN)
    store.set_pepper(str(file), {"user": USER_PIN})
    assert roles(store) == ("user",)
    store.logout()
    store.login("so", SO_PIN)
    assert store.raise_hardening("so", SO_PIN, CHEAP)
    assert roles(store) == ("user", "so")
    assert not store.raise_hardening("so", SO_PIN, CHEAP)
    store.close()


def test_a_wrong_pin_counts_and_changes_nothing(path: Path, file: Path) -> None:
    store = make(path)
    store.login("user", USER_PIN)
    with refused(CKR.PIN_INCORRECT):
        store.set_pepper(str(file), PINS | {"so": b"wrong"})
    assert store.info().failed_so == 1
    assert store.pepper_state() is None
    store.close()


def test_another_pepper_needs_every_pin_that_has_the_present_one(path: Path, file: Path, tmp_path: Path) -> None:
    """Else that PIN would be lost with the old file."""
    store = make_peppered(path, file)
    store.login("user", USER_PIN)
    other = pepper_file(tmp_path / "secrets" / "other")
    for location in (str(other), None):
        with refused(CKR.ARGUMENTS_BAD):
            store.set_pepper(location, {"user": USER_PIN})
    store.set_pepper(str(other), PINS)
    file.unlink()
    store.verify_pin("user", USER_PIN)
    store.verify_pin("so", SO_PIN)
    state = store.pepper_state()
    assert state is not None
    assert state.location == str(other)
    store.set_pepper(None, PINS)
    other.unlink()
    assert store.pepper_state() is None
    store.verify_pin("user", USER_PIN)
    store.set_pin("user", NEW_PIN)
    store.close()


def test_it_is_set_by_somebody_who_is_logged_in(path: Path, file: Path) -> None:
    store = make(path)
    with refused(CKR.USER_NOT_LOGGED_IN):
        store.set_pepper(str(file), PINS)
    assert store.pepper_state() is None
    store.close()


def test_a_failure_on_the_way_leaves_the_old_pepper(path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise PKCS11Error(CKR.DEVICE_MEMORY)

    store = make(path)
    store.login("user", USER_PIN)
    with monkeypatch.context() as patched:
        patched.setattr(meta, "write", full)
        with refused(CKR.DEVICE_MEMORY):
            store.set_pepper(str(file), PINS)
    assert store.pepper_state() is None
    store.verify_pin("user", USER_PIN)
    store.close()


def test_a_pin_that_another_process_changed_meanwhile_is_not_set_back(
    path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = make(path), SqliteStore.open(path)
    store.login("user", USER_PIN)
    other.login("user", USER_PIN)
    wrap = seal.wrap

    def meanwhile(*arguments: Any) -> bytes:
        monkeypatch.setattr(seal, "wrap", wrap)
        other.set_pin("user", NEW_PIN)
        return wrap(*arguments)

    monkeypatch.setattr(seal, "wrap", meanwhile)
    with refused(CKR.FUNCTION_FAILED):
        store.set_pepper(str(file), {"user": USER_PIN})
    store.verify_pin("user", NEW_PIN)
    store.close()
    other.close()


def test_a_pin_is_not_set_without_the_pepper_that_another_process_set_meanwhile(
    path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = make(path), SqliteStore.open(path)
    store.login("user", USER_PIN)
    other.login("user", USER_PIN)
    wrap = seal.wrap

    def meanwhile(*arguments: Any) -> bytes:
        monkeypatch.setattr(seal, "wrap", wrap)
        other.set_pepper(str(file), PINS)
        return wrap(*arguments)

    monkeypatch.setattr(seal, "wrap", meanwhile)
    with refused(CKR.FUNCTION_FAILED):
        store.set_pin("user", NEW_PIN)
    store.configure(configured(path.parent, str(file)))
    store.verify_pin("user", USER_PIN)
    store.close()
    other.close()


def test_a_wrapping_from_before_the_pepper_that_is_put_back_is_noticed(path: Path, file: Path) -> None:
    """Else whoever has the old file, too, could make the PIN guessable again."""
    store = make(path)
    row = apsw.Connection(str(path)).execute("SELECT * FROM meta WHERE name = 'user_wrapping'").fetchall()[0]
    store.login("user", USER_PIN)
    store.set_pepper(str(file), PINS)
    store.close()
    connection = apsw.Connection(str(path))
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?, ?)", row)
    connection.close()
    store = SqliteStore.open(path)
    with refused(CKR.DEVICE_ERROR):
        store.login("user", USER_PIN)
    store.close()


# The other ways of a token


def test_a_token_that_is_initialised_anew_keeps_its_pepper(path: Path, file: Path) -> None:
    store = make_peppered(path, file)
    store.reset("a token", SO_PIN)
    assert roles(store) == ("so",)
    store.login("so", SO_PIN)
    store.set_pin("user", NEW_PIN)
    assert roles(store) == ("user", "so")
    store.close()


def test_a_token_is_not_initialised_under_a_label_for_which_no_pepper_is_named(path: Path, file: Path) -> None:
    """Its PINs could not be used afterwards, or would be made without."""
    store = make_peppered(path, file)
    with pytest.raises(PKCS11Error, match=r'\[token."new"\] pepper'):
        store.reset("new", SO_PIN)
    store.login("user", USER_PIN)
    assert store.find(()) == [1]
    with (path.parent / "config.toml").open("a") as settings:
        settings.write(f'[token."new"]\npepper = "{file}"\n')
    store.reset("new", SO_PIN)
    store.login("so", SO_PIN)
    store.close()


def test_the_first_pin_that_nss_sets_gets_the_pepper_and_so_does_the_so(path: Path, file: Path) -> None:
    """P6: the SO PIN was not given; the wrapping then has the pepper's identity and what is sealed for the SO."""
    store = create(path, file)
    store.login("so", b"")
    store.set_pin("user", USER_PIN)
    assert roles(store) == ("user", "so")
    store.logout()
    assert seal.is_handed_over(wrapping(path, "so"), "so")
    store.login("so", SO_PIN)
    assert not seal.is_handed_over(wrapping(path, "so"), "so")
    assert roles(store) == ("user", "so")
    store.login("user", USER_PIN)
    assert store.verify() == []
    store.close()


def test_a_token_under_the_empty_so_pin_stays_open_to_nss(path: Path, file: Path) -> None:
    """The empty PIN is nobody's secret, so it has no pepper; the PIN that takes its place has."""
    store = create(path, file, b"")
    assert roles(store) == ()
    store.login("so", b"")
    store.set_pin("user", USER_PIN)
    assert roles(store) == ("user",)
    store.close()


def test_a_pepper_can_be_set_while_the_first_pin_is_waited_for(path: Path, file: Path, tmp_path: Path) -> None:
    store = create(path, file)
    other = pepper_file(tmp_path / "secrets" / "other")
    store.login("so", SO_PIN)
    store.set_pepper(str(other), {"so": SO_PIN})
    store.logout()
    store.login("so", b"")
    with refused(CKR.USER_NOT_LOGGED_IN):  # a stand-in sets the first PIN and does nothing else
        store.set_pepper(None, {})
    store.set_pin("user", USER_PIN)
    store.logout()
    store.login("so", SO_PIN)
    assert roles(store) == ("user", "so")
    store.close()


def test_a_key_file_opens_without_the_pepper_and_the_first_pin_does_not(path: Path, file: Path, tmp_path: Path) -> None:
    key = tmp_path / "slot-1.key"
    store = create(path, file, general_access=True)
    assert roles(store) == ("so",)
    store.unlock_with_key_file()
    store.set_pin("user", USER_PIN)
    assert roles(store) == ("user", "so")
    assert not key.exists()
    missing(file)
    store.logout()
    with refused(CKR.DEVICE_ERROR):
        store.login("user", USER_PIN)
    store.close()


def test_an_open_token_gets_a_pepper_without_any_pin(path: Path, file: Path, tmp_path: Path) -> None:
    store = SqliteStore.create(
        path,
        label="a token",
        serial=SERIAL,
        kind="multipurpose",
        so_pin=b"",
        hardening=CHEAP,
        general_access=True,
        empty_pin=True,
    )
    store.unlock_with_key_file()
    store.set_pepper(str(file), {})
    assert store.info().empty_pin
    assert roles(store) == ()
    store.set_pin("user", USER_PIN)
    assert roles(store) == ("user",)
    store.close()


def test_a_token_in_memory_has_none(file: Path) -> None:
    store = MemoryStore(label="a token", serial=SERIAL, so_pin=SO_PIN)
    with refused(CKR.FUNCTION_NOT_SUPPORTED):
        store.set_pepper(str(file), {})


# Where it is


def test_the_configuration_says_where_the_pepper_is_on_this_machine(path: Path, file: Path, tmp_path: Path) -> None:
    make_peppered(path, file).close()
    moved = tmp_path / "elsewhere"
    file.rename(moved)
    store = opened(path, configured(tmp_path, "elsewhere"))
    store.login("user", USER_PIN)
    state = store.pepper_state()
    assert state is not None
    assert state.location == str(moved)
    store.close()


def test_a_pepper_that_was_just_set_works_before_the_configuration_knows(
    path: Path, file: Path, tmp_path: Path
) -> None:
    make_peppered(path, file).close()
    other = pepper_file(tmp_path / "secrets" / "other")
    store = opened(path, configured(tmp_path, str(file)))
    store.login("user", USER_PIN)
    store.set_pepper(str(other), PINS)
    store.verify_pin("user", USER_PIN)
    other.unlink()
    with pytest.raises(PKCS11Error) as problem:
        store.verify_pin("user", USER_PIN)
    assert str(file) in problem.value.reason  # what the configuration says is what a person looks at first
    store.close()


def test_a_program_that_runs_looks_at_the_configuration_again(path: Path, file: Path, tmp_path: Path) -> None:
    """`keyfob pin pepper --set` names both peppers while the PINs come from one to the other."""
    make_peppered(path, file).close()
    running, other = opened(path, configured(tmp_path, str(file))), opened(path, configured(tmp_path, str(file)))
    other.login("user", USER_PIN)
    new = pepper_file(tmp_path / "secrets" / "new")
    (tmp_path / "config.toml").write_text(f'[token."a token"]\npepper = ["{new}", "{file}"]\n')
    other.set_pepper(str(new), PINS)
    running.login("user", USER_PIN)
    running.close()
    other.close()


def test_a_token_does_not_say_where_its_pepper_is(path: Path, file: Path) -> None:
    """What an older keyfob wrote counts for nothing, whatever it names; who has such a token is told what to do."""
    store = make_peppered(path, file)
    assert pepper.FILE_SETTING not in store.info().settings
    store.login("user", USER_PIN)
    store.set_setting(pepper.FILE_SETTING, str(file))
    store.close()
    store = SqliteStore.open(path)
    with pytest.raises(PKCS11Error) as problem:
        store.login("user", USER_PIN)
    assert problem.value.rv == CKR.DEVICE_ERROR
    assert problem.value.reason == (
        'the PIN was made with a pepper; where that is belongs into config.toml: [token."a token"] pepper'
        f" (the token says {file}, which counts for nothing)"
    )
    assert store.info().failed_user == 0
    store.close()


def test_a_credential_is_looked_for_in_the_folder_of_credentials(path: Path, file: Path, tmp_path: Path) -> None:
    settings = configured(tmp_path, "credential:pepper", CREDENTIALS_DIRECTORY=str(file.parent))
    store = create(path, "credential:pepper", settings=settings)
    store.configure(settings)
    store.login("so", SO_PIN)
    store.set_pin("user", USER_PIN)
    store.close()
    assert str(tmp_path) not in path.read_bytes().decode(errors="replace")
    store = opened(path, settings)
    store.login("user", USER_PIN)
    store.close()
    store = opened(path, configured(tmp_path, "credential:pepper"))
    with pytest.raises(PKCS11Error) as problem:
        store.login("user", USER_PIN)
    assert problem.value.rv == CKR.DEVICE_ERROR
    assert "$CREDENTIALS_DIRECTORY is not set" in problem.value.reason
    store.close()


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc/passwd"])
def test_a_credential_is_a_file_of_that_folder(path: Path, tmp_path: Path, name: str) -> None:
    settings = configured(tmp_path, "", CREDENTIALS_DIRECTORY=str(tmp_path))
    with refused(CKR.DEVICE_ERROR):
        create(path, f"credential:{name}", settings=settings)


def test_spoilt_settings_do_not_keep_the_configured_pepper_from_opening(path: Path, file: Path, tmp_path: Path) -> None:
    make_peppered(path, file).close()
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE meta SET value = x'00' WHERE name = 'settings'")
    connection.close()
    store = opened(path, configured(tmp_path, str(file)))
    store.login("user", USER_PIN)
    assert store.find(()) == [1]
    store.close()


def test_a_pepper_that_others_can_read_is_named_and_left_as_it_is(path: Path, file: Path) -> None:
    """keyfob did not make it."""
    file.chmod(0o644)
    log: list[str] = []
    create(path, file, log=log.append).close()
    assert file.stat().st_mode & 0o777 == 0o644
    assert any(f"{file} is open to other users" in line for line in log)


def test_the_mode_of_a_credential_is_the_systems_matter(path: Path, file: Path, tmp_path: Path) -> None:
    file.chmod(0o440)
    log: list[str] = []
    settings = configured(tmp_path, "", CREDENTIALS_DIRECTORY=str(file.parent))
    create(path, "credential:pepper", log=log.append, settings=settings).close()
    assert file.stat().st_mode & 0o777 == 0o440
    assert log == []


def test_no_pepper_is_in_the_token_or_in_what_is_said(path: Path, file: Path) -> None:
    log: list[str] = []
    store = make_peppered(path, file, log=log.append)
    content = file.read_bytes()
    another(file)
    with pytest.raises(PKCS11Error) as problem:
        store.login("user", USER_PIN)
    store.close()
    for secret in (content, content.hex().encode(), pepper.Pepper(content, "").secret):
        for kept in path.parent.glob("slot-1.keyfob*"):
            assert secret not in kept.read_bytes()
        assert secret.decode(errors="replace") not in f"{log} {problem.value}"


# On a server


@pytest.mark.interop
def test_a_token_on_a_server_has_its_pepper_where_it_is_used(shelf: Shelf, file: Path, tmp_path: Path) -> None:
    """Two hosts with the file in different places; a third without it gets nowhere, and nothing is counted."""
    made_with = pepper.Peppers(None, print).new(str(file))
    store = shelf.create(
        1,
        print,
        label="a token",
        serial=SERIAL,
        kind="multipurpose",
        so_pin=SO_PIN,
        hardening=CHEAP,
        pepper=made_with,
    )
    store.configure(configured(tmp_path, str(file)))
    store.login("so", SO_PIN)
    store.set_pin("user", USER_PIN)
    store.logout()
    file.rename(tmp_path / "elsewhere")
    store.configure(configured(tmp_path, str(file)))
    other = shelf.open(1, print)
    with refused(CKR.DEVICE_ERROR):
        store.login("user", USER_PIN)
    other.configure(configured(tmp_path, "elsewhere"))
    other.login("user", USER_PIN)
    assert other.info().failed_user == 0
    new = pepper_file(tmp_path / "new")
    other.set_pepper(str(new), PINS)
    store.configure(configured(tmp_path, "new"))
    store.login("user", USER_PIN)
    state = store.pepper_state()
    assert state is not None
    assert (state.location, state.roles) == (str(new), ("user", "so"))
    store.close()
    other.close()
