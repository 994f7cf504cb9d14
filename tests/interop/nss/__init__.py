"""Tests with Debian's NSS tools, which run the steps of the demo.

The demo is a program at the top of the repository, not an installed package: its folder is put on the path here.
"""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))
