"""`python -m keyfob.cli`: the command-line tool without its installed entry point."""

from __future__ import annotations

from keyfob.cli import main

main()
