"""PINs with NSS's own tools: the first one on each row of table 1.1, the protected path, keys that ask each time.

keyfob only: the states are its own (docs/pins.md).
"""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo import tokens
from demo.nss import Tools
from demo.stage import DATABASE, NOISE, open_stage
from keyfob.spec.constants import CKA, CKO, CKR, CKS, CKU
from keyfob.store import SqliteStore
from tests.client import ffi
from tests.conftest import CHEAP_PINS, Fob
from tests.interop.nss.stages import KIND
from tests.interop.nss.test_nss_tools import report
from tests.interop.programs import program
from tests.rules.pinentry import Fake, fake

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo.stage import Stage
    from tests.client import Client

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(KIND != "keyfob", reason="the states of table 1.1 are keyfob's"),
]

PIN, OTHER, SO_PIN = "first-pin-1", "second-pin-2", "so-pin-12345"
RECORD = "calls.txt"


class Person:
    """Somebody with an NSS database that knows keyfob, and a file for each PIN."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "keyfob-home"
        self.home.mkdir()
        self.configure("")
        program("certutil", "libnss3-tools")
        self.tools = Tools(folder, tokens.environment(folder, KEYFOB_HOME=str(self.home)))
        made = tokens.keyfob(folder, self.tools)
        self.keyfob, self.module = made.command, made.module
        for name, content in {"first": PIN, "second": OTHER, "none": ""}.items():
            (folder / name).write_text(content + "\n")
        (folder / NOISE).write_bytes(bytes(range(256)) * 2)
        (folder / DATABASE.removeprefix("sql:")).mkdir()
        self.tools.run("certutil", "-N", "-d", DATABASE, "--empty-password")
        self.tools.run("modutil", "-dbdir", DATABASE, "-add", "keyfob", "-libfile", made.module, "-force")

    def configure(self, more: str) -> None:
        (self.home / "config.toml").write_text(CHEAP_PINS + more)

    def certutil(self, *arguments: str, code: int | None = 0) -> str:
        return self.tools.run("certutil", *arguments[:1], "-d", DATABASE, *arguments[1:], code=code).output

    def modutil(self, *arguments: str, code: int | None = 0) -> str:
        return self.tools.run("modutil", "-dbdir", DATABASE, "-force", *arguments, code=code).output

    def pkcs11_tool(self, *arguments: str, code: int = 0) -> str:
        return self.tools.run("pkcs11-tool", "--module", self.module, *arguments, code=code).output

    def make_key(self, label: str, *arguments: str) -> str:
        """A self-signed certificate with a key on the token."""
        subject = ("-n", "me", "-s", "CN=me", "-x", "-t", ",,", "-k", "ec", "-q", "nistp256", "-z", NOISE)
        return self.certutil("-S", "-h", label, *subject, *arguments)

    def login_type(self, label: str) -> tuple[str, str]:
        """What `modutil -list` says of the token's row in table 1.1."""
        said = self.tools.run("modutil", "-dbdir", DATABASE, "-list", "keyfob").output
        part = said[said.index(f"Token Name: {label}") :]
        found = re.search(r"Login Type: (.*)\n.*User Pin: (.*)\n", part)
        assert found is not None, said
        return found[1], found[2]


INITIALISED = ("Login required", "Initialized")
UNINITIALISED = ("Login required", "NOT Initialized")
GENERAL_ACCESS = ("Public (no login required)", "NOT Initialized")
EMPTY_PIN = ("Public (no login required)", "Initialized")


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def keys(said: str) -> int:
    return len(re.findall(r"^<\s*\d+> ec ", said, re.MULTILINE))


# The first PIN of an uninitialised token (S13, P6)


@pytest.mark.rule("S13", "S19", "P6")
@pytest.mark.parametrize("tool", ["certutil -W", "certutil -S", "modutil -changepw", "pk12util -i"])
def test_nss_tools_set_the_first_pin(person: Person, tool: str) -> None:
    """certutil -W and -S, modutil -changepw and pk12util -i set the first PIN of a token that nobody initialised."""
    assert person.login_type("keyfob") == UNINITIALISED
    if tool == "certutil -W":
        person.certutil("-W", "-h", "keyfob", "-f", "first")
    elif tool == "certutil -S":
        person.make_key("keyfob", "-f", "first")
    elif tool == "modutil -changepw":
        person.modutil("-changepw", "keyfob", "-newpwfile", "first")
    else:
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "k.pem", "-out", "c.pem")
        person.tools.run("openssl", "req", "-x509", "-subj", "/CN=imported", "-days", "9", *new)
        export = ("-export", "-inkey", "k.pem", "-in", "c.pem", "-passout", "pass:file", "-out", "in.p12")
        person.tools.run("openssl", "pkcs12", *export)
        person.tools.run("pk12util", "-i", "in.p12", "-d", DATABASE, "-h", "keyfob", "-k", "first", "-W", "file")
    assert person.login_type("keyfob") == INITIALISED
    if tool not in ("certutil -S", "pk12util -i"):
        person.make_key("keyfob", "-f", "first")
    assert keys(person.certutil("-K", "-h", "keyfob", "-f", "first")) == 1
    assert "Incorrect password/PIN" in person.certutil("-K", "-h", "keyfob", "-f", "second", code=255)


@pytest.mark.rule("S13", "S19", "P6")
@pytest.mark.parametrize("tool", ["certutil -W", "certutil -S", "modutil -changepw"])
def test_nss_tools_set_the_first_pin_beside_an_so_pin(person: Person, tool: str) -> None:
    """After pkcs11-tool --init-token --so-pin NSS's tools set the first PIN, and that SO PIN still unblocks it."""
    person.pkcs11_tool("--init-token", "--label", "made", "--so-pin", SO_PIN)
    assert person.login_type("made") == UNINITIALISED
    if tool == "certutil -W":
        person.certutil("-W", "-h", "made", "-f", "first")
    elif tool == "modutil -changepw":
        person.modutil("-changepw", "made", "-newpwfile", "first")
    person.make_key("made", "-f", "first")
    assert person.login_type("made") == INITIALISED
    for _ in range(2):
        so = ("--login", "--login-type", "so", "--so-pin")
        assert "CKR_PIN_INCORRECT" in person.pkcs11_tool(*so, "not-the-so-pin", "--init-pin", "--pin", OTHER, code=1)
        person.pkcs11_tool(*so, SO_PIN, "--init-pin", "--pin", OTHER)
        assert keys(person.certutil("-K", "-h", "made", "-f", "second")) == 1
    assert "Incorrect password/PIN" in person.certutil("-K", "-h", "made", "-f", "first", code=255)


@pytest.mark.rule("S18", "S13", "P6")
def test_an_erased_token_gets_its_first_pin_from_nss_again_and_again(person: Person) -> None:
    """A token erased with its SO PIN has no keys and takes its first PIN from certutil -W, also the second time."""
    person.tools.run(person.keyfob, "init", "work", "--pin", PIN, "--so-pin", SO_PIN)
    for _ in range(2):  # by pkcs11-tool: certutil -T locks itself out in NSS, after C_InitToken
        person.make_key("work", "-f", "first")
        person.pkcs11_tool("--init-token", "--slot", "1", "--label", "work", "--so-pin", SO_PIN)
        assert person.login_type("work") == UNINITIALISED
        person.certutil("-W", "-h", "work", "-f", "first")
        assert person.login_type("work") == INITIALISED
        assert "no keys found" in person.certutil("-K", "-h", "work", "-f", "first", code=None)


@pytest.mark.rule("S20")
@pytest.mark.parametrize("tool", ["certutil", "modutil"])
def test_nss_tools_change_a_pin(person: Person, tool: str) -> None:
    """certutil -W and modutil -changepw change the PIN, when they are given the right old one."""
    person.certutil("-W", "-h", "keyfob", "-f", "first")
    person.make_key("keyfob", "-f", "first")
    if tool == "certutil":
        assert "Invalid password" in person.certutil("-W", "-h", "keyfob", "-f", "second", "-@", "first", code=None)
        person.certutil("-W", "-h", "keyfob", "-f", "first", "-@", "second")
    else:
        wrong = ("-pwfile", "second", "-newpwfile", "first")
        assert "Incorrect password" in person.modutil("-changepw", "keyfob", *wrong, code=None)
        person.modutil("-changepw", "keyfob", "-pwfile", "first", "-newpwfile", "second")
    assert keys(person.certutil("-K", "-h", "keyfob", "-f", "second")) == 1


# General access (S12, S14)


@pytest.mark.rule("S12", "P30")
def test_nss_tools_use_a_token_of_general_access(person: Person) -> None:
    """On a token made with `--no-pin` certutil makes keys and certificates and lists them as the user's, unasked."""
    person.tools.run(person.keyfob, "init", "open", "--no-pin")
    assert person.login_type("open") == GENERAL_ACCESS
    person.make_key("open")
    assert keys(person.certutil("-K", "-h", "open")) == 1
    assert re.search(r"open:me\s+u,u,u", person.certutil("-L", "-h", "open"))
    assert "Unable to change password" in person.modutil("-changepw", "open", "-newpwfile", "first", code=None)
    assert person.login_type("open") == GENERAL_ACCESS


@pytest.mark.rule("S14")
@pytest.mark.parametrize("tool", ["certutil", "modutil", "modutil, empty file"])
def test_nss_tools_replace_the_empty_pin(person: Person, tool: str) -> None:
    """On a token made with `--empty-pin` certutil -W and modutil -changepw set a PIN, which all then ask for."""
    person.tools.run(person.keyfob, "init", "kiosk", "--empty-pin", "--so-pin", SO_PIN)
    assert person.login_type("kiosk") == EMPTY_PIN
    person.make_key("kiosk")
    assert re.search(r"kiosk:me\s+u,u,u", person.certutil("-L", "-h", "kiosk"))
    if tool == "certutil":
        assert "Invalid password" in person.certutil("-W", "-h", "kiosk", "-f", "second", "-@", "first", code=None)
        person.certutil("-W", "-h", "kiosk", "-f", "none", "-@", "first")
    else:
        given = ("-pwfile", "none") if "file" in tool else ()
        person.modutil("-changepw", "kiosk", *given, "-newpwfile", "first")
    assert person.login_type("kiosk") == INITIALISED
    assert not list((person.home / "tokens").glob("*.key"))
    assert keys(person.certutil("-K", "-h", "kiosk", "-f", "first")) == 1
    assert keys(person.certutil("-K", "-h", "kiosk", "-f", "second", code=255)) == 0
    person.certutil("-W", "-h", "kiosk", "-f", "first", "-@", "second")
    person.tools.run(person.keyfob, "pin", "unblock", "kiosk", "--so-pin", SO_PIN, "--new-pin", PIN)


# Short PINs


@pytest.mark.rule("S19", "S20")
def test_nss_tools_cannot_set_a_pin_that_is_too_short(person: Person) -> None:
    """A first PIN below `[pin] min_length` is refused, and the token goes on waiting for one."""
    person.configure("min_length = 12\n")
    assert "Unable to change password" in person.modutil("-changepw", "keyfob", "-newpwfile", "first", code=None)
    assert person.login_type("keyfob") == UNINITIALISED


# The protected authentication path (P31)


@pytest.fixture
def protected(person: Person) -> Fake:
    """The pinentry program of the person's token "safe"."""
    person.tools.run(person.keyfob, "init", "safe", "--pin", PIN, "--so-pin", SO_PIN)
    made = fake(person.folder)
    program = f'[pinentry]\nprogram = "{made.program}"\n'
    protected_path = "".join(f'[token."{label}"]\nprotected_path = true\n' for label in ("safe", "keyfob"))
    person.configure(program + protected_path)
    return made


@pytest.mark.rule("P31")
def test_certutil_lets_the_token_ask(person: Person, protected: Fake) -> None:
    """certutil says "Press Enter, then enter PIN", and keyfob's pinentry program asks for it."""
    protected.answer(PIN, "wrong", "cancel", PIN)
    key_list = ("certutil", "-K", "-d", DATABASE, "-h", "safe")
    new_key = ("certutil", "-G", "-d", DATABASE, "-h", "safe", "-k", "ec", "-q", "nistp256", "-z", NOISE)
    said = converse(person, *new_key)
    assert 'Press Enter, then enter PIN for "safe"' in said
    assert "Incorrect password/PIN entered" in converse(person, *key_list, code=255)
    assert "Incorrect" not in converse(person, *key_list, code=255)
    assert keys(converse(person, *key_list)) == 1
    assert len(protected.processes) == 4


def converse(person: Person, *command: str, code: int = 0) -> str:
    """Run a tool on a terminal of its own, where Enter is pressed when it asks for that."""
    import pty
    import subprocess

    outer, inner = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *command],
        cwd=person.folder,
        env=person.tools.environment,
        stdin=inner,
        stdout=inner,
        stderr=inner,
    )
    os.close(inner)
    said = b""
    end = time.monotonic() + 30
    try:
        while time.monotonic() < end:
            try:
                part = os.read(outer, 4096)
            except OSError:
                break
            if not part:
                break
            said += part
            if b"Press Enter" in part:
                time.sleep(0.1)  # until it reads
                os.write(outer, b"\n")
        assert process.wait(10) == code, said.decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(outer)
    return said.decode(errors="replace").replace("\r\n", "\n")


@pytest.mark.rule("P31", "S20")
def test_modutil_changes_the_pin_on_the_protected_path(person: Person, protected: Fake) -> None:
    """modutil -changepw on a protected path: C_Login, then C_SetPIN, ask for the old PIN and twice for the new one."""
    protected.answer(PIN, PIN, OTHER, OTHER)
    person.modutil("-changepw", "safe", "-pwfile", "none", "-newpwfile", "none")
    assert [text for text in protected.arguments("SETDESC") if "new" in text] == ['A new PIN for the token "safe"']
    assert keys(person.certutil("-K", "-h", "safe", "-f", "none", code=None)) == 0
    person.configure("")
    person.certutil("-G", "-h", "safe", "-f", "second", "-k", "ec", "-q", "nistp256", "-z", NOISE)


# A real pinentry


@pytest.mark.rule("P31")
def test_a_real_pinentry_asks_on_a_terminal(home: Path, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """pinentry-curses, on the terminal that GPG_TTY names, asks for the PIN; Ctrl-C there cancels."""
    import pty

    found = program("pinentry-curses", "pinentry-curses")
    fob = Fob(client)
    client.ok("C_Finalize", ffi.NULL)
    settings = f'[pinentry]\nprogram = "{found}"\ntimeout = 20\n[token."test"]\nprotected_path = true\n'
    (home / "config.toml").write_text(CHEAP_PINS + settings)
    client.initialize()
    session = client.open(fob.slot)
    outer, inner = pty.openpty()
    monkeypatch.setenv("GPG_TTY", os.ttyname(inner))
    monkeypatch.setenv("TERM", "xterm")
    shown: list[bytes] = []

    def ask(answers: list[int]) -> None:
        answers.append(client.call("C_Login", session, CKU.USER, ffi.NULL, 0))

    for typed, rv in ((b"wrong-pin\r", CKR.PIN_INCORRECT), (b"\x03", CKR.FUNCTION_CANCELED), (b"user-pin-1\r", CKR.OK)):
        answers: list[int] = []
        call = threading.Thread(target=ask, args=(answers,))
        call.start()
        screen = b""
        while b"PIN" not in screen or b"Cancel" not in screen:
            screen += os.read(outer, 4096)
        time.sleep(0.2)  # the dialog reads keys once it is drawn
        os.write(outer, typed)
        while call.is_alive():
            call.join(0.05)
            os.set_blocking(outer, False)
            with suppress(BlockingIOError):
                screen += os.read(outer, 4096)
            os.set_blocking(outer, True)
        shown.append(screen)
        assert answers == [rv]
    os.close(outer)
    os.close(inner)
    assert client.state(session) == CKS.RW_USER_FUNCTIONS
    assert b"tries are left" in shown[1]
    assert not any(b"user-pin-1" in screen for screen in shown)


# Keys that ask each time (P5)


@pytest.fixture(scope="module")
def asking() -> Iterator[Stage]:
    """A stage on which Alice's and Bob's keys ask for the PIN at each use, with a record of NSS's calls."""

    def make(folder: Path, tools: Tools) -> tokens.Token:
        token = tokens.keyfob(folder, tools)
        (folder / "keyfob-home").mkdir()
        (folder / "keyfob-home" / "config.toml").write_text(CHEAP_PINS)
        token.environment |= {
            "NSS_DEBUG_PKCS11_MODULE": "keyfob-demo",
            "NSPR_LOG_MODULES": "nss_mod_log:4,append",
            "NSPR_LOG_FILE": str(folder / RECORD),
            "NSS_OUTPUT_FILE": str(folder / "statistics.txt"),
        }
        return token

    with open_stage(make) as stage:
        for step in ("alice", "bob", "web-ec"):
            result = stage.show(step)
            assert result.state == "passed", report(result)
        store = SqliteStore.open(stage.folder / "keyfob-home" / "tokens" / "slot-1.keyfob")
        store.login("user", stage.token.pin.encode())
        for name in ("alice", "bob"):
            label = stage.nick(name).partition(":")[2].encode()
            [certificate] = store.find([(CKA.CLASS, CKO.CERTIFICATE.to_bytes(8, "little")), (CKA.LABEL, label)])
            identity = (store.get(certificate) or {})[CKA.ID]
            [key] = store.find([(CKA.CLASS, CKO.PRIVATE_KEY.to_bytes(8, "little")), (CKA.ID, identity)])
            store.update(key, {**(store.get(key) or {}), CKA.ALWAYS_AUTHENTICATE: b"\x01"})
        store.close()
        yield stage


@pytest.mark.rule("P5", "K9")
@pytest.mark.parametrize("step", ["tls13-rsa-client", "tls13-ec-client", "tls12-rsa-client", "sign-rsa", "sign-ec"])
def test_nss_tools_sign_with_keys_that_ask_each_time(asking: Stage, step: str) -> None:
    """TLS 1.3, TLS 1.2 and mail are signed by keys that ask each time: NSS gives the PIN for each signature."""
    record = asking.folder / RECORD
    before = len(record.read_text())
    result = asking.show(step)
    assert result.state == "passed", report(result)
    calls = record.read_text()[before:]
    assert re.search(r"C_Login\n(?:.*\n)*?.*userType = 0x2\b", calls), "no context-specific login was made"
