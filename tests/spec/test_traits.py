"""The short lists in spec/traits.py say what the standard's tables say, also of key types that are still to come."""

from __future__ import annotations

import json
from pathlib import Path

from keyfob.spec.errors import name_of
from keyfob.spec.traits import SECRETS

FACTS = Path(__file__).resolve().parents[2] / "facts" / "attribute_tables.json"
HIDDEN = "7"


def test_the_secrets_are_what_footnote_7_names() -> None:
    tables = [table for chapter in json.loads(FACTS.read_text()).values() for table in chapter]
    named = {row["attribute"] for table in tables for row in table["rows"] if HIDDEN in row["footnotes"].split(",")}
    assert named == {name_of("CKA", attribute) for attribute in SECRETS}
