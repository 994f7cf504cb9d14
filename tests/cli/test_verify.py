"""`keyfob verify`: what was tampered with is named, and accepted when somebody says so."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from tests.cli.conftest import Run


def test_what_was_removed_from_the_file_is_complained_of_until_it_is_accepted(run: Run) -> None:
    run("init work --pin 1234 --so-pin 12345678")
    for name in ("mary", "paul"):
        run(f"key generate work --type ec:p256 --name {name} --pin 1234")
    connection = apsw.Connection(str(Path(os.environ["KEYFOB_HOME"]) / "tokens" / "slot-1.keyfob"))
    connection.execute("DELETE FROM object WHERE id = 1; DELETE FROM lookup WHERE object = 1").fetchall()
    connection.close()
    assert "all checksums hold" in run("verify work").output.replace(
        "(the PIN would check against tampering, too) ", ""
    )
    for _ in range(2):
        assert "object 1: it is gone" in run("verify work --pin 1234", code=1).output
    assert "all checksums and MACs hold" in run("verify work --pin 1234 --accept").output
    run("verify work --pin 1234")
