"""The same steps with keyfob as NSS's default for every class of mechanisms ("modutil -default", rule N4).

NSS then hashes, draws random numbers, encrypts, and makes the secrets of its TLS handshakes on the token, also those
that are about keys of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from demo.account import verdict_on
from demo.stage import DATABASE, Stage, open_stage
from demo.steps import all_steps
from tests.interop.nss.stages import KIND, make_token
from tests.interop.nss.test_nss_tools import report

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.interop, pytest.mark.rule("N4"), pytest.mark.xdist_group("nss-default")]

CLASSES = "RSA:DSA:ECC:DH:RC2:RC4:RC5:DES:AES:CAMELLIA:SEED:SHA1:SHA256:SHA512:MD5:MD2:SSL:TLS:RANDOM:FRIENDLY"
CHAPTERS = ("tls", "mail", "pkcs12", "keys", "files")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A stage whose database has the token under test as its default for all."""
    with open_stage(make_token) as own:
        assert own.show("add-module").state == "passed"
        own.run("modutil", "-dbdir", DATABASE, "-force", "-default", "keyfob-demo", "-mechanisms", CLASSES)
        yield own


def test_it_is_the_default(stage: Stage) -> None:
    """modutil shows it as the default."""
    listed = stage.run("modutil", "-dbdir", DATABASE, "-list", "keyfob-demo").output
    assert "Default Mechanism Flags: RSA:ECC:" in listed


@pytest.mark.parametrize("name", [name for name, step in all_steps(KIND).items() if step.chapter in CHAPTERS])
def test_nss_tools_do_with_it(stage: Stage, name: str) -> None:
    """NSS's tools do their work when the token is NSS's default for everything."""
    result = stage.show(name)
    assert verdict_on(result, stage) in {"ok", "known"}, report(result)
