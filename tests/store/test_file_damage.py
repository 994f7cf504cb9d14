"""Bytes of the file change behind SQLite's back: never a crash, never a wrong value, and the rest stays usable.

KEYFOB_DAMAGE_TRIALS=N for more than the quick run's trials.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from keyfob.spec.errors import PKCS11Error
from keyfob.store import SqliteStore
from tests.store.samples import USER_PIN, certificate, make, private_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keyfob.store import Attributes

TRIALS = int(os.environ.get("KEYFOB_DAMAGE_TRIALS", "80"))
PAGE = 4096


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[int, Attributes]]:
    """A token's file, and what is in it."""
    path = tmp_path_factory.mktemp("original") / "token"
    store = make(path)
    store.login("user", USER_PIN)
    objects = [sample(i) for i in range(12) for sample in (private_key, certificate)]
    numbers = store.insert(objects)
    store.close()
    return path.read_bytes(), dict(zip(numbers, objects, strict=True))


def look(path: Path, objects: dict[int, Attributes]) -> tuple[list[str], int]:
    """Open, log in, read and find everything: what was said, and how many objects were there. No wrong one may be."""
    said: list[str] = []
    there = 0
    try:
        store = SqliteStore.open(path, log=said.append)
    except PKCS11Error as problem:
        return [problem.reason], 0

    def attempt(step: Callable[[], object]) -> object:
        try:
            return step()
        except PKCS11Error as problem:
            said.append(problem.reason)
            return None

    label = attempt(lambda: store.info().label)
    assert label in (None, "a token")
    attempt(lambda: store.login("user", USER_PIN))
    for number, attributes in objects.items():
        found = attempt(lambda number=number: store.get(number))  # type: ignore[misc]
        assert found in (None, attributes)
        there += found is not None
        hits = attempt(lambda attributes=attributes: store.find(list(attributes.items())))  # type: ignore[misc]
        assert hits in (None, [], [number])
    said += store.verify()
    attempt(store.close)
    return said, there


def test_the_undamaged_file_is_fine(tmp_path: Path, original: tuple[bytes, dict[int, Attributes]]) -> None:
    content, objects = original
    (tmp_path / "token").write_bytes(content)
    (tmp_path / "token").chmod(0o600)
    assert look(tmp_path / "token", objects) == ([], len(objects))


def test_a_changed_byte_is_noticed_or_harmless(tmp_path: Path, original: tuple[bytes, dict[int, Attributes]]) -> None:
    content, objects = original
    chance = random.Random(1)
    noticed = 0
    for trial in range(TRIALS):
        damaged = bytearray(content)
        at = chance.randrange(PAGE) + PAGE * (trial % (len(content) // PAGE))
        damaged[at] ^= 1 << chance.randrange(8)
        path = tmp_path / f"token-{trial}"
        path.write_bytes(damaged)
        said, there = look(path, objects)
        assert said or there == len(objects), f"byte {at}: {len(objects) - there} objects missing without a word"
        noticed += bool(said)
    assert noticed > TRIALS / 4  # the rest hit unused bytes


@pytest.mark.parametrize("pages", [0, 1, 2, 3, -2, -1])
def test_a_truncated_file_is_noticed(tmp_path: Path, original: tuple[bytes, dict[int, Attributes]], pages: int) -> None:
    content, objects = original
    for cut in (0, 1, 517):
        size = (pages % (len(content) // PAGE)) * PAGE + cut
        path = tmp_path / f"token-{cut}"
        path.write_bytes(content[:size])
        said, _ = look(path, objects)
        assert said


def test_a_zeroed_page_is_noticed(tmp_path: Path, original: tuple[bytes, dict[int, Attributes]]) -> None:
    content, objects = original
    for page in range(len(content) // PAGE):
        path = tmp_path / f"token-{page}"
        path.write_bytes(content[: page * PAGE] + bytes(PAGE) + content[(page + 1) * PAGE :])
        said, _ = look(path, objects)
        assert said
