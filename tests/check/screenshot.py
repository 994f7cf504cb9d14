"""Take the picture of a report that docs/check.md shows: SoftHSM's, drawn by Chromium; for `make screenshots`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from keyfob.nss.report import html
from tests.check.peers import OTHERS, check
from tests.interop.programs import program

SIZE = "1000,1130"
"""Pixels: the verdict, the facts and most of the jobs."""


def take(picture: Path) -> None:
    """Check a fresh token of SoftHSM and write the top of its report as PNG."""
    softhsm = next(peer for peer in OTHERS if peer.name == "softhsm")
    with tempfile.TemporaryDirectory(prefix="keyfob-report-") as folder:
        home = Path(folder)
        (home / "token").mkdir()
        page = home / "report.html"
        page.write_text(html.render(check(softhsm, home / "token")), encoding="utf-8")
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={home / 'profile'}",
        ]
        command = [program("chromium", "chromium"), *flags, f"--window-size={SIZE}", f"--screenshot={picture}"]
        subprocess.run([*command, page.as_uri()], check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    take(Path(sys.argv[1]).resolve())
