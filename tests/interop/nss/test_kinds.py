"""The four kinds of tokens, and tokens of few sessions, with NSS's tools: by NSS's fall-backs where it must be.

The steps are those of the demo, on a token of each kind. Some tokens hide mechanisms (hide_mechanisms in config.toml),
so that NSS makes keys elsewhere, or unwraps by decrypting; NSS's own log of its calls (NSS_DEBUG_PKCS11_MODULE) tells
that it really did. keyfob only: no other module has kinds.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from demo import tokens
from demo.stage import open_stage
from tests.interop.nss.stages import KIND
from tests.interop.nss.test_nss_tools import report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from demo.nss import Tools
    from demo.stage import Stage

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(KIND != "keyfob", reason="only keyfob's tokens have kinds"),
]

RECORD = "calls.txt"  # NSS's log of the calls to the module, in the stage's folder
KEY_GENERATION = (
    "CKM_RSA_PKCS_KEY_PAIR_GEN",
    "CKM_EC_KEY_PAIR_GEN",
    "CKM_EC_EDWARDS_KEY_PAIR_GEN",
    "CKM_EC_MONTGOMERY_KEY_PAIR_GEN",
)
CONTENT_CIPHERS = ("CKM_AES_CBC", "CKM_AES_CBC_PAD", "CKM_DES3_CBC", "CKM_DES3_CBC_PAD")


@dataclass(frozen=True, slots=True)
class Setting:
    """A token: its kind, the mechanisms that its configuration hides, and the sessions that it has."""

    name: str
    kind: str
    hidden: tuple[str, ...] = ()
    sessions: int = 1024


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("signing", "signing"),
        Setting("signing-decryption", "signing-decryption"),
        Setting("key-distribution", "key-distribution"),
        Setting("signing, keys from elsewhere", "signing", KEY_GENERATION),
        Setting("multipurpose, keys from elsewhere", "multipurpose", KEY_GENERATION),
        Setting("signing-decryption, no content ciphers", "signing-decryption", CONTENT_CIPHERS),
        Setting("one session", "multipurpose", sessions=1),
        Setting("two sessions", "multipurpose", sessions=2),
        Setting("three sessions", "multipurpose", sessions=3),
    )
}
KEYS = ("rsa-key", "ec-key", "list-keys", "request", "request-again")
CERTIFICATES = ("ca", "certify", "add", "linked", "list-without-pin", "validate", "trust", "trust-changed", "rename")
SIGNATURES = ("sign-rsa", "sign-ec", "sign-detached", "jar", "raw")
TLS = (
    "tls12-rsa-client",
    "tls13-rsa-client",
    "tls12-ec-client",
    "tls13-ec-client",
    "tls13-rsa-server",
    "tls13-ec-server",
    "tls12-static-rsa",
)
IMPORTS = ("import-rsa", "import-ec", "import-3des")
MAIL = ("encrypt-rsa", "encrypt-openssl")
UPKEEP = ("delete-certificate", "delete-key", "delete-orphan", "pin-change", "nowhere-else")
ALL = (*KEYS, *CERTIFICATES, *SIGNATURES, *TLS, *IMPORTS, *MAIL, *UPKEEP)
FALL_BACKS = ("rsa-key", "ec-key", "ca", "certify", "sign-rsa", "sign-ec", "tls13-ec-client", *IMPORTS, *MAIL)
STEPS: dict[str, tuple[str, ...]] = {name: FALL_BACKS if setting.hidden else ALL for name, setting in SETTINGS.items()}
# NSS holds one session for each symmetric key and one by default; none is left for writing what it imports.
STEPS["two sessions"] = tuple(step for step in ALL if step not in IMPORTS)


def make(setting: Setting) -> Callable[[Path, Tools], tokens.Token]:
    """Give the way to make a stage's token, with a record of what NSS calls."""

    def make_token(folder: Path, tools: Tools) -> tokens.Token:
        token = tokens.keyfob(folder, tools)
        home = folder / "keyfob-home"
        home.mkdir()
        names = ", ".join(f'"{name}"' for name in setting.hidden)
        settings = f'[token."{token.label}"]\nhide_mechanisms = [{names}]\nmax_sessions = {setting.sessions}\n'
        (home / "config.toml").write_text(f"[pin]\nmemory_kib = 8192\niterations = 1\n{settings}")

        def init(tools: Tools, token: tokens.Token) -> None:
            pins = ("--pin", token.pin, "--so-pin", tokens.SO_PIN)
            tools.run(token.command, "init", token.label, "--kind", setting.kind, *pins, principal=True)

        token.make = init
        token.environment |= {
            "NSS_DEBUG_PKCS11_MODULE": "keyfob-demo",
            "NSPR_LOG_MODULES": "nss_mod_log:4,append",
            "NSPR_LOG_FILE": str(folder / RECORD),
            "NSS_OUTPUT_FILE": str(folder / "statistics.txt"),  # else on stdout, behind the text of a mail
        }
        return token

    return make_token


@pytest.fixture(scope="module")
def stages() -> Iterator[Callable[[str], Stage]]:
    """Give the stage of a setting; each is opened once."""
    with ExitStack() as stack:
        opened: dict[str, Stage] = {}

        def stage_of(name: str) -> Stage:
            if name not in opened:
                opened[name] = stack.enter_context(open_stage(make(SETTINGS[name])))
            return opened[name]

        yield stage_of


def calls_of(stage: Stage, step: str) -> list[str]:
    """Run a step, and give the functions of the module that it called, each with its answer: `C_Sign=CKR_OK`."""
    for need in stage.steps[step].needs:
        stage.show(need)
    record = stage.folder / RECORD
    before = len(record.read_text()) if record.exists() else 0
    assert step not in stage.results, "a step shown before has left no record"
    result = stage.show(step)
    assert result.state == "passed", report(result)
    calls: list[str] = []
    for line in record.read_text()[before:].splitlines():
        said = line.partition("]: ")[2]  # behind the thread's number
        if said.startswith("C_"):
            calls.append(said)
        elif said.startswith("  rv = ") and calls:
            calls[-1] += said.replace("  rv = ", "=")
    return calls


def case(name: str, step: str) -> object:
    group = pytest.mark.xdist_group(f"kinds: {name}")
    return pytest.param(name, step, marks=group, id=f"{name}: {step}")


# First, because they look at what a step that has not been shown yet calls.


@pytest.mark.rule("K8", "O2")
@pytest.mark.parametrize(
    ("name", "step"),
    [case(n, s) for n in SETTINGS if SETTINGS[n].hidden == KEY_GENERATION for s in ("rsa-key", "ec-key")],
)
def test_nss_makes_keys_elsewhere_and_writes_them(stages: Callable[[str], Stage], name: str, step: str) -> None:
    """Where no key pair generation is offered NSS makes the pair itself and writes it with C_CreateObject."""
    calls = calls_of(stages(name), step)
    assert calls.count("C_CreateObject=CKR_OK") >= 2
    assert not any(call.startswith("C_GenerateKeyPair") for call in calls)


@pytest.mark.rule("K10", "O2")
@pytest.mark.parametrize(("name", "step"), [case(n, "import-rsa") for n in ("signing", "key-distribution")])
def test_nss_imports_a_key_that_it_may_not_unwrap(stages: Callable[[str], Stage], name: str, step: str) -> None:
    """Where C_UnwrapKey refuses the cipher of a PKCS #12 file NSS opens it itself and writes the key's components."""
    calls = calls_of(stages(name), step)
    refused = calls.index("C_UnwrapKey=CKR_MECHANISM_INVALID")
    assert "C_CreateObject=CKR_OK" in calls[refused:]


@pytest.mark.rule("K4", "K12")
@pytest.mark.parametrize(("name", "step"), [case("signing-decryption", "encrypt-rsa")])
def test_nss_unwraps_the_key_of_a_mail(stages: Callable[[str], Stage], name: str, step: str) -> None:
    """The key of an encrypted mail is unwrapped on the token, and decrypts the mail there."""
    calls = calls_of(stages(name), step)
    assert calls.index("C_UnwrapKey=CKR_OK") < calls.index("C_DecryptInit=CKR_OK")
    assert "C_Decrypt=CKR_OK" not in calls


@pytest.mark.rule("K12")
@pytest.mark.parametrize(("name", "step"), [case("signing-decryption, no content ciphers", "encrypt-rsa")])
def test_nss_decrypts_the_key_that_it_cannot_use_here(stages: Callable[[str], Stage], name: str, step: str) -> None:
    """Where the content's cipher is missing NSS gets the mail's key with C_Decrypt instead of C_UnwrapKey."""
    calls = calls_of(stages(name), step)
    assert calls.index("C_DecryptInit=CKR_OK") < calls.index("C_Decrypt=CKR_OK")
    assert not any(call.startswith("C_UnwrapKey") for call in calls)


@pytest.mark.rule("SE5", "SE3")
@pytest.mark.parametrize(("name", "step"), [case("one session", "encrypt-rsa"), case("two sessions", "encrypt-rsa")])
def test_nss_shares_its_last_session(stages: Callable[[str], Stage], name: str, step: str) -> None:
    """Out of sessions NSS saves the state of what it decrypts after each step, and restores it before the next."""
    calls = calls_of(stages(name), step)
    begun = calls.index("C_DecryptInit=CKR_OK")
    saved = calls.index("C_GetOperationState=CKR_OK", begun)
    restored = calls.index("C_SetOperationState=CKR_OK", saved)
    assert "C_DecryptUpdate=CKR_OK" in calls[restored:]


@pytest.mark.rule("P26")
@pytest.mark.parametrize(("name", "step"), [case("two sessions", "import-rsa")])
def test_nss_cannot_import_with_two_sessions(stages: Callable[[str], Stage], name: str, step: str) -> None:
    """With two sessions NSS itself lacks one to write a PKCS #12 key with, and says so; with one or three it works."""
    result = stages(name).show(step)
    assert result.state == "failed", "this NSS can: the list of steps is to be changed"
    assert result.culprit is not None, report(result)
    assert result.culprit.command[0] == "pk12util"


@pytest.mark.rule("K1", "K2", "K3", "K4", "K7", "K9")
@pytest.mark.parametrize(("name", "step"), [case(name, step) for name, steps in STEPS.items() for step in steps])
def test_nss_tools_do_on_each_kind(stages: Callable[[str], Stage], name: str, step: str) -> None:
    """On a token of each kind NSS's tools do all that the kind is for: keys, certificates, signatures, TLS, imports."""
    result = stages(name).show(step)
    assert result.state == "passed", report(result)


@pytest.mark.rule("K3", "K5", "K11")
@pytest.mark.parametrize(
    ("name", "step"),
    [case(n, s) for n in ("signing", "signing-decryption", "key-distribution") for s in ("secret-key", "export-aes")],
)
def test_only_multipurpose_tokens_make_and_wrap_keys_for_others(
    stages: Callable[[str], Stage], name: str, step: str
) -> None:
    """Secret keys on the token and the export of private keys are for multipurpose tokens; NSS is told cleanly."""
    result = stages(name).show(step)
    assert result.state == "failed", "a kind does what it does not offer"
    assert result.culprit is not None, report(result)
    assert result.culprit.command[0] == {"secret-key": "symkeyutil", "export-aes": "pk12util"}[step], report(result)
