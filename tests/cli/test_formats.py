"""Key files that hold more than is read of them: nobody may delete a file that was only half imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyfob.cli import formats
from keyfob.cli.errors import Refusal

# keytool's keystore of two P-256 keys, one after the other; the passphrase is "secret1".
TWO_KEYS = Path(__file__).parent / "files" / "two-keys.p12"


def test_a_pkcs12_file_of_several_keys_is_refused() -> None:
    with pytest.raises(Refusal, match="holds 2 keys, and only one can be read"):
        formats.bundle(TWO_KEYS.read_bytes(), lambda: b"secret1")


@pytest.mark.parametrize("kind", ["PRIVATE KEY", "CERTIFICATE", "ENCRYPTED PRIVATE KEY"])
@pytest.mark.parametrize("good_one_before", [True, False])
def test_a_pem_block_without_its_end_is_refused(kind: str, *, good_one_before: bool) -> None:
    block = formats.pem("SOMETHING ELSE", b"value")
    cut_off = formats.pem(kind, b"value").splitlines()[0] + b"\nAAAA\n"
    with pytest.raises(Refusal, match=f"its {kind} block has no end"):
        formats.bundle(block + cut_off if good_one_before else cut_off, lambda: b"")
