"""How hard PINs are made to guess: measured for new tokens, raised at a login, never lowered."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyfob.spec.constants import CKR
from keyfob.spec.errors import PKCS11Error
from keyfob.store import Hardening, SqliteStore, calibration, hardening
from tests.store.samples import CHEAP, USER_PIN, make

MORE = Hardening(8192, 2)


def figures(hardening: Hardening | None) -> tuple[int, int]:
    assert hardening is not None
    return hardening.memory_kib, hardening.iterations


def of_user(store: SqliteStore) -> tuple[int, int]:
    return figures(store.hardening("user"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "token.keyfob"


def test_a_slow_machine_gets_the_floor() -> None:
    assert figures(calibration.fitting(1.0, 3.0)) == (64 * 1024, 2)


def test_a_fast_machine_gets_a_third_pass_and_then_more_memory() -> None:
    assert figures(calibration.fitting(0.008, 0.024)) == (64 * 1024, 3)
    assert figures(calibration.fitting(0.004, 0.012)) == (128 * 1024, 3)
    assert figures(calibration.fitting(0.0001, 0.0003)) == (256 * 1024, 3)


def test_runs_that_were_held_up_end_in_sane_parameters() -> None:
    assert figures(calibration.fitting(0.2, 0.001)) == (64 * 1024, 2)
    assert figures(calibration.fitting(0.0, 0.0)) == (256 * 1024, 3)


def test_what_is_measured_here_is_never_below_the_floor() -> None:
    memory_kib, iterations = figures(calibration.chosen(None))
    assert memory_kib >= 64 * 1024
    assert iterations >= 2


def test_nothing_is_measured_where_the_configuration_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(calibration, "seconds_per_guess")
    assert figures(calibration.chosen((8192, 1))) == (8192, 1)


def test_raised_has_the_memory_and_the_work_of_both() -> None:
    much_memory = Hardening(128 * 1024, 2)
    assert much_memory.raised_to(Hardening(64 * 1024, 3)) is much_memory
    assert figures(Hardening(8192, 9).raised_to(Hardening(64 * 1024, 2))) == (64 * 1024, 2)
    assert figures(Hardening(8192, 64).raised_to(Hardening(64 * 1024, 2))) == (64 * 1024, 8)
    assert figures(Hardening(96 * 1024, 1).raised_to(Hardening(64 * 1024, 2))) == (96 * 1024, 2)
    assert Hardening(64 * 1024, 2, 4).raised_to(Hardening()).lanes == 1


def test_a_login_hardens_the_pin_anew(path: Path) -> None:
    make(path).close()
    store = SqliteStore.open(path)
    store.login("user", USER_PIN)
    assert store.raise_hardening("user", USER_PIN, MORE)
    assert of_user(store) == (8192, 2)
    assert not store.raise_hardening("user", USER_PIN, MORE)
    store.close()
    again = SqliteStore.open(path)
    assert of_user(again) == (8192, 2)
    again.login("user", USER_PIN)
    again.set_pin("user", b"another-pin")
    assert of_user(again) == (8192, 2)  # the next PIN, too
    assert again.verify() == []
    again.close()


def test_hardening_is_never_lowered(path: Path) -> None:
    store = make(path)
    store.login("user", USER_PIN)
    store.raise_hardening("user", USER_PIN, MORE)
    assert not store.raise_hardening("user", USER_PIN, CHEAP)
    assert of_user(store) == (8192, 2)
    store.close()


def test_nothing_is_hardened_without_a_login(path: Path) -> None:
    store = make(path)
    assert not store.raise_hardening("user", USER_PIN, MORE)
    store.close()


def test_a_pin_that_another_process_changed_meanwhile_stays_changed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keyfob.store import seal

    make(path).close()
    store, other = SqliteStore.open(path), SqliteStore.open(path)
    store.login("user", USER_PIN)
    wrap = seal.wrap

    def changed_meanwhile(master: bytes, role: str, pin: bytes, hardening: Hardening, pepper: None) -> bytes:
        monkeypatch.setattr(seal, "wrap", wrap)
        other.login("user", USER_PIN)
        other.set_pin("user", b"another-pin")
        return wrap(master, role, pin, hardening, pepper)

    monkeypatch.setattr(seal, "wrap", changed_meanwhile)
    with pytest.raises(PKCS11Error) as refused:
        store.raise_hardening("user", USER_PIN, MORE)
    assert refused.value.rv == CKR.FUNCTION_FAILED
    other.logout()
    other.login("user", b"another-pin")
    store.close()
    other.close()


def test_a_guess_is_measured() -> None:
    assert calibration.seconds_per_guess(Hardening(8192, 20), 2) > calibration.seconds_per_guess(Hardening(8192, 1), 2)
    assert calibration.guesses_per_second(CHEAP) > calibration.guesses_per_second(Hardening(8192, 8))


def test_doctor_tells_how_fast_pins_are_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    from keyfob import config
    from keyfob.cli import pin_health
    from keyfob.token.token import Token

    def findings() -> list[tuple[str, str, str]]:
        return list(pin_health.of_token(token))

    store = make(path)
    hardening.agree(None)
    token = Token(1, lambda label, pin: store, config.load({"KEYFOB_HOME": str(tmp_path)}))
    token.attach(store)
    monkeypatch.setattr(calibration, "guesses_per_second", lambda hardening: 5.0)
    weak = findings()
    assert "tries 5 PINs a second" in weak[0][1]
    assert "about 28 hours" in weak[0][1]
    assert weak[0][0] == pin_health.HINT  # made with less than this version's floor
    hardening.agree((8192, 1))
    store.login("user", USER_PIN)
    assert store.raise_hardening("user", USER_PIN, hardening.least())
    assert findings()[0][0] == pin_health.OK
    store.close()


def test_a_login_through_the_token_hardens_and_tells(tmp_path: Path, path: Path) -> None:
    from keyfob import config
    from keyfob.spec.constants import CKF, CKU
    from keyfob.token.token import Token

    store = make(path)
    hardening.agree((8192, 2))
    token = Token(1, lambda label, pin: store, config.load({"KEYFOB_HOME": str(tmp_path)}))
    token.attach(store)
    session = token.open_session(CKF.SERIAL_SESSION | CKF.RW_SESSION)
    for _ in range(2):
        token.login(session, CKU.USER, USER_PIN)
        token.logout()
    assert of_user(store) == (8192, 2)
    assert (tmp_path / "keyfob.log").read_text().count("hardened anew") == 1
    assert (tmp_path / "keyfob-audit.jsonl").read_text().count('"pin-hardened"') == 1
    token.close()
