"""The Assuan protocol that pinentry programs speak, as far as no real or scripted dialog shows it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from keyfob import environment
from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.token.pinentry import Pinentry, Question, _terminal, escaped, open_descriptors, options, unescaped

QUESTION = Question("The PIN", "PIN:")


def answering(folder: Path, *lines: str) -> str:
    """A program that greets, agrees to everything, and answers GETPIN with these lines of Python."""
    path = folder / "program"
    body = "\n        ".join(lines)
    path.write_text(
        f"#!{sys.executable} -I\nimport os, sys\n"
        "def say(text):\n    os.write(1, text)\n"
        "say(b'OK\\n')\nfor line in sys.stdin:\n"
        f"    if line.startswith('GETPIN'):\n        {body}\n    else:\n        say(b'OK\\n')\n"
    )
    path.chmod(0o755)
    return str(path)


def refusal(program: str, seconds: int = 10) -> PKCS11Error:
    with pytest.raises(PKCS11Error) as problem:
        Pinentry(program, seconds).ask(QUESTION)
    return problem.value


def test_lines_are_escaped_and_back() -> None:
    text = 'all of "100%"\r\nand \u00e4'
    assert escaped(text) == 'all of "100%25"%0D%0Aand \u00e4'
    assert unescaped(escaped(text).encode()) == text.encode()
    assert unescaped(b"") == b""


@pytest.mark.parametrize("faulty", [b"%", b"%4", b"1%zz2", b"%%"])
def test_a_faulty_escape_is_refused(faulty: bytes) -> None:
    with pytest.raises(PKCS11Error) as problem:
        unescaped(faulty)
    assert problem.value.rv == CKR.FUNCTION_FAILED


def test_an_answer_in_pieces_is_one(tmp_path: Path) -> None:
    program = answering(tmp_path, "for piece in (b'D on', b'e\\nD ', b'two\\nO', b'K\\n'): say(piece)")
    assert Pinentry(program, 10).ask(QUESTION) == b"onetwo"


@pytest.mark.parametrize("endless", ["say(b'D ' + b'x' * 900 + b'\\n')", "say(b'x' * 1000)", "say(b'# more\\n' * 9)"])
def test_an_answer_without_end_is_refused(tmp_path: Path, endless: str) -> None:
    problem = refusal(answering(tmp_path, f"while True: {endless}"), seconds=1)
    assert problem.rv in (CKR.FUNCTION_FAILED, CKR.FUNCTION_CANCELED)


@pytest.mark.parametrize("line", ["ERR", "ERR what", "ERR 1 general"])
def test_an_error_without_a_known_code_is_a_failure(tmp_path: Path, line: str) -> None:
    assert refusal(answering(tmp_path, f"say(b'{line}\\n')")).rv == CKR.FUNCTION_FAILED


def test_a_dialog_that_was_ended_before_it_began_never_begins(tmp_path: Path) -> None:
    dialog = Pinentry(answering(tmp_path, "say(b'OK\\n')"), 10)
    dialog.end()
    with pytest.raises(PKCS11Error) as problem:
        dialog.ask(QUESTION)
    assert problem.value.rv == CKR.FUNCTION_CANCELED


def test_nothing_stays_open(tmp_path: Path) -> None:
    program = answering(tmp_path, "say(b'D 1234\\nOK\\n')")
    before = len(open_descriptors())
    for _ in range(5):
        assert Pinentry(program, 10).ask(QUESTION) == b"1234"
    assert len(open_descriptors()) == before


def test_none_is_started_in_a_program_with_more_rights_than_its_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = answering(tmp_path, "say(b'D 1234\\nOK\\n')")
    assert Pinentry(program, 10).ask(QUESTION) == b"1234"
    monkeypatch.setattr(environment, "_secure", True)
    problem = refusal(program)
    assert problem.rv == CKR.FUNCTION_FAILED
    assert "is not started in a program with rights" in problem.reason
    assert options() == ([f"ttyname={terminal}"] if (terminal := _terminal()) else [])
