"""The experiments find what they are for: each is run on a store with the defect (experiments/faulty.c)."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from dataclasses import replace
from pathlib import Path

import pytest

import keyfob
from bench.modules import Module, installed
from experiments.__main__ import catalogue
from experiments.outcome import Outcome
from experiments.subjects import SO_PIN, Subject, compiled, prepare
from tests.experiments.mutants import MUTANTS

QUICK, LONG = 4, 20
pytestmark = pytest.mark.long

DEFECTS = {
    "late": ["kill-create"],
    "half": ["kill-pair"],
    "rewrite": ["kill-login", "kill-pin", "kill-init"],
    "forget": ["kill-modify", "kill-copy", "kill-destroy", "sharing"],
    "unlimited": ["guess-online"],
    "same-random": ["fork"],
    "fork-lock": ["fork"],
    "erases": ["init-token"],
    "full": ["full-disk"],
    "impatient": ["starts"],
    "by-path": ["read-only", "permissions", "removed"],
    "by-clock": ["clock"],
}


@pytest.fixture(scope="module")
def module() -> Module:
    return next(each for each in installed()[0] if each.name == "keyfob")


@pytest.fixture(scope="module")
def template(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return prepare(module, tmp_path_factory.mktemp("template") / "token")


def run(name: str, subject: Subject, folder: Path, trials: int) -> Outcome:
    experiment = next(each for each in catalogue() if each.name == name)
    folder.mkdir()
    return experiment.run(subject, folder, trials)


def faulty(subject: Subject, defect: str) -> Subject:
    """The same token, used through a module with a defect."""
    variables = {"FAULTY": defect, "FAULTY_OF": str(subject.path), "FAULTY_SO_PIN": SO_PIN}
    variables["FAULTY_FILE"] = str(subject.files()[0])
    return replace(subject, path=compiled("faulty.c", "-shared", "-fPIC"), variables=variables)


def cases() -> list[object]:
    quick = {"late", "half", "unlimited", "erases", "same-random", "impatient", "by-path", "by-clock"}
    return [
        pytest.param(defect, name, marks=() if defect in quick else pytest.mark.long)
        for defect, names in DEFECTS.items()
        for name in names
    ]


@pytest.mark.parametrize(("defect", "name"), cases())
def test_an_experiment_finds_the_defect(defect: str, name: str, template: Subject, tmp_path: Path) -> None:
    found = run(name, faulty(template, defect), tmp_path / "work", LONG)
    assert found.bad > 0, found.cell()


def mutant(subject: Subject, folder: Path, name: str) -> Subject:
    """The same token, used through a copy of keyfob with a defect in a source of its."""
    package = folder / "code" / "keyfob"
    shutil.copytree(Path(keyfob.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    MUTANTS[name].apply(package)
    return replace(subject, path=package / "libkeyfob.so")


def test_a_store_without_macs_is_found_by_damage(template: Subject, tmp_path: Path) -> None:
    found = run("damage", mutant(template, tmp_path, "without MACs"), tmp_path / "work", 2 * LONG)
    assert found.bad > 0, found.cell()
    assert any("flags: wrong in silence" in line for line in found.details), found.details


def test_a_store_without_a_witness_is_found_by_damage_of_the_log(template: Subject, tmp_path: Path) -> None:
    found = run("damage-log", mutant(template, tmp_path, "without a witness"), tmp_path / "work", LONG)
    assert found.bad > 0, found.cell()


def test_weak_hardening_is_found_by_guessing(template: Subject, tmp_path: Path) -> None:
    subject = template.copy(tmp_path / "weak")
    connection = sqlite3.connect(subject.files()[0])
    [(wrapping,)] = connection.execute("SELECT value FROM meta WHERE name = 'user_wrapping'")
    weak = struct.pack("<III", 8, 1, 1) + wrapping[12:]  # KiB, passes, lanes
    connection.execute("UPDATE meta SET value = ? WHERE name = 'user_wrapping'", (weak,))
    connection.commit()
    connection.close()
    found = run("guess-offline", subject, tmp_path / "work", 1)
    assert found.bad > 0, found.cell()


def test_every_experiment_is_shown_to_find_its_defect() -> None:
    shown = {name for names in DEFECTS.values() for name in names} | {"damage", "damage-log", "guess-offline"}
    assert {each.name for each in catalogue()} == shown


@pytest.mark.parametrize(
    "name", ["kill-create", "kill-pair", "guess-online", "init-token", "damage", "damage-log", "removed", "clock"]
)
def test_keyfob_itself_shows_no_defect(name: str, template: Subject, tmp_path: Path) -> None:
    found = run(name, template, tmp_path / "work", QUICK if name != "guess-online" else LONG)
    assert found.bad == 0, found.cell()
