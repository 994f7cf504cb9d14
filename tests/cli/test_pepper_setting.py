"""Where a pepper is, put into config.toml: nothing else in there changes, and what fails changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyfob import config, log
from keyfob.cli import pepper_setting
from keyfob.cli.errors import Refusal

OTHERS = """# mine
[pin]
memory_kib = 8192

[token."other"]
pepper = "/media/other"   # stays
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    log.configure(None)


def settings(home: Path, text: str | None) -> config.Config:
    if text is not None:
        (home / "config.toml").write_text(text)
    return config.load({"KEYFOB_HOME": str(home)})


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        OTHERS,
        OTHERS + '[token."work"]\nprotected_path = true\n',
        OTHERS + '[token.work]  # mine\nprotected_path = true\n[log]\nlevel = "off"\n',
        "[token.'work']\npepper = \"/old\"\nmax_sessions = 1\n" + OTHERS,
        '[token.work]\npepper = ["/old", "older"]\n\n' + OTHERS,
    ],
)
def test_only_the_tokens_pepper_changes(home: Path, text: str | None) -> None:
    settled = settings(home, text)
    before = (text or "").splitlines()
    old = settled.token("work").peppers
    with pepper_setting.named(settled, "work", "/media/new"):
        assert settled.token("work").peppers == ("/media/new", *old), "both, while PINs come from one to the other"
        assert config.load({"KEYFOB_HOME": str(home)}).token("work").peppers == ("/media/new", *old)
    assert settled.token("work").peppers == ("/media/new",)
    found = (home / "config.toml").read_text().splitlines()
    assert [line for line in found if line and line in before] == [
        line for line in before if line and "old" not in line
    ]
    with pepper_setting.named(settled, "work", None):
        assert settled.token("work").peppers == ("/media/new",)
    assert settled.token("work").peppers == ()
    assert settled.token("other").peppers == (("/media/other",) if OTHERS in (text or "") else ())


def test_what_fails_changes_nothing(home: Path) -> None:
    settled = settings(home, OTHERS)
    with pytest.raises(ZeroDivisionError), pepper_setting.named(settled, "work", "/media/new"):
        raise ZeroDivisionError
    assert (home / "config.toml").read_text() == OTHERS
    assert settled.token("work").peppers == ()


def test_a_pepper_that_is_named_already_may_be_named_in_another_way(home: Path) -> None:
    text = '[token."work"]\npepper = "pepper"\n'
    settled = settings(home, text)
    with pepper_setting.named(settled, "work", str(home / "pepper")):
        pass
    assert (home / "config.toml").read_text() == text


@pytest.mark.parametrize("text", ["token.work = {protected_path = true}\n", "[token\n", "token = {}\n"])
def test_what_keyfob_cannot_change_is_for_people_and_nothing_else_happens(home: Path, text: str) -> None:
    settled = settings(home, text)
    advice = r'let it say: \[token."work"\] with pepper = "/media/new"'
    with pytest.raises(Refusal, match=advice), pepper_setting.named(settled, "work", "/media/new"):
        pytest.fail("nothing else may happen")
    assert (home / "config.toml").read_text() == text


LABELS = (
    'a "b" \\ \u00e4',
    "M\u00fcller",
    "\U0001f511 key",
    "\u2028a\u0085b\x0bc\x1cd",  # line ends to Python, not to TOML
    "tab\t, delete\x7f, escape\x1b",
    "]# '''",
)


@pytest.mark.parametrize("label", LABELS)
def test_labels_and_places_are_written_as_they_are(home: Path, label: str) -> None:
    settled = settings(home, OTHERS)
    place = f"/media/{label}"
    for new in (place, f"{place}2", None, place):
        with pepper_setting.named(settled, label, new):
            pass
        assert settled.token(label).peppers == (() if new is None else (new,))
    text = (home / "config.toml").read_bytes().decode()
    assert text.startswith(OTHERS), "nothing else may change"
    assert text.count("[token.") == 2, "one table, found again"
    if label.isprintable() and not set('\\"') & set(label):
        assert f'[token."{label}"]\npepper = "{place}"\n' in text


@pytest.mark.parametrize(
    "header",
    [
        '[token."M\u00fcller"]',
        '[ token . "M\\u00fcller" ] # mine',
        "['token'.'M\u00fcller']\r",
        '\t["token"."M\\U000000fcller"]',
    ],
)
def test_a_table_is_found_however_its_name_is_written(home: Path, header: str) -> None:
    text = f"# \u2028 \x85\n{header}\nprotected_path = true\n\n{OTHERS}"
    (home / "config.toml").write_bytes(text.encode())
    settled = settings(home, None)
    with pepper_setting.named(settled, "M\u00fcller", "/media/new"):
        pass
    found = (home / "config.toml").read_bytes().decode()
    assert found == text.replace(header, f'{header}\npepper = "/media/new"')


def test_a_place_that_no_toml_can_name_is_refused(home: Path) -> None:
    """A file's name need not be UTF-8."""
    settled = settings(home, OTHERS)
    with (
        pytest.raises(Refusal, match="cannot be changed by keyfob"),
        pepper_setting.named(settled, "work", "/media/\udcff"),
    ):
        pytest.fail("nothing else may happen")
    assert (home / "config.toml").read_text() == OTHERS


def test_a_link_and_the_mode_of_the_file_stay(home: Path) -> None:
    (home / "dotfiles.toml").write_text(OTHERS)
    (home / "dotfiles.toml").chmod(0o640)
    (home / "config.toml").symlink_to("dotfiles.toml")
    settled = settings(home, None)
    with pepper_setting.named(settled, "work", "credential:pepper"):
        pass
    assert (home / "config.toml").is_symlink()
    assert (home / "dotfiles.toml").stat().st_mode & 0o777 == 0o640
    assert settled.token("work").peppers == ("credential:pepper",)


def test_a_file_that_is_not_believed_is_not_written_either(home: Path) -> None:
    settled = settings(home, OTHERS)
    (home / "config.toml").chmod(0o666)
    with pytest.raises(Refusal, match="cannot be read"), pepper_setting.named(settled, "work", "/media/new"):
        pytest.fail("nothing else may happen")
    assert os.stat(home / "config.toml").st_mode & 0o777 == 0o666
