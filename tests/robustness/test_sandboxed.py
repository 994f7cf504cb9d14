"""A host that the kernel forbids some system calls: services are told with which ones they get along."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyfob.spec.constants import CKR
from tests.conftest import PIN
from tests.robustness.conftest import Programs
from tests.robustness.hosts import run


def test_nss_makes_keys_from_passwords_in_a_service_without_calls_among_processes(
    home: Path, programs: Programs, token: Path
) -> None:
    answers = run(programs("sandboxed"), PIN.decode()).stdout.split("\n")[:-1]
    if answers == ["no filter"]:
        pytest.skip("no filter of system calls can be had here (seccomp)")
    assert [int(answer, 16) for answer in answers] == [CKR.OK, CKR.MECHANISM_PARAM_INVALID]
    assert "no address of a length" in (home / "keyfob.log").read_text()
