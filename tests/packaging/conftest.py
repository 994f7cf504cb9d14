"""The C hosts of the loader's tests, for installed modules."""

from __future__ import annotations

from tests.abi.conftest import host, host_program

__all__ = ["host", "host_program"]
