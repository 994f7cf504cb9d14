"""`keyfob migrate` from real tokens: SoftHSM, NSS's own database, another keyfob; what arrives works in NSS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyfob.cli import migrate
from keyfob.cli.errors import Refusal
from tests.conftest import module_path
from tests.interop.programs import missing, program, run, succeed

pytestmark = pytest.mark.interop

CHEAP_PINS = "[pin]\nmemory_kib = 8192\niterations = 1\ndelay = false\n"
PIN, TARGET_PIN = "1111", "1234"


class Place:
    """A folder with a KEYFOB_HOME that has the empty token `work`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "KEYFOB_HOME": str(self.home("home")), "COLUMNS": "200"}
        self.keyfob("init", "work", "--pin", TARGET_PIN, "--so-pin", "12345678")

    def home(self, name: str) -> Path:
        (self.folder / name).mkdir()
        (self.folder / name / "config.toml").write_text(CHEAP_PINS)
        return self.folder / name

    def keyfob(self, *words: str, code: int = 0, home: str = "home") -> str:
        env = {**self.env, "KEYFOB_HOME": str(self.folder / home)}
        done = run([sys.executable, "-m", "keyfob.cli", *words], env)
        output = done.stdout.decode()
        assert done.returncode == code, output
        return output

    def migrate(self, *words: str, code: int = 0) -> str:
        return self.keyfob("migrate", *words, "--to", "work", "--pin", TARGET_PIN, code=code)

    def list(self) -> str:
        return self.keyfob("list", "work", "--pin", TARGET_PIN)

    def openssl(self, *words: str) -> None:
        succeed([program("openssl", "openssl"), *words], self.env)

    def path(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def library(names: tuple[str, ...], package: str) -> str:
    try:
        return migrate._found(names, package)
    except Refusal:
        missing(f"{package} is not installed (apt-get install {package})")


def results(output: str) -> dict[tuple[str, str], str]:
    """{(class, name): what came of it} from the table."""
    rows = {}
    for line in output.splitlines():
        for end in ("already there", "could not be moved", "would be moved", "moved"):
            head, found, reason = line.partition(f"  {end}")
            if found and line[0] != " ":
                words = head.split()
                rows[words[0], words[1] if len(words) > 1 else ""] = end + reason
                break
    return rows


# SoftHSM


@pytest.fixture
def softhsm(place: Place) -> str:
    """A token `old` with a certificate, imported and generated keys, all unextractable but two; gives the module."""
    module = library(migrate.SOFTHSM, "libsofthsm2")
    (place.folder / "tokens").mkdir()
    (place.folder / "softhsm2.conf").write_text(
        f"directories.tokendir = {place.folder}/tokens\nobjectstore.backend = file\n"
    )
    place.env["SOFTHSM2_CONF"] = place.path("softhsm2.conf")
    util, tool = program("softhsm2-util", "softhsm2"), program("pkcs11-tool", "opensc")
    succeed([util, *split("--init-token --free --label old --so-pin 22222222 --pin"), PIN], place.env)
    certificate(place, "rob")
    place.openssl(*split("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out"), place.path("eve.pem"))
    for name, identifier in (("rob", "aa11"), ("eve", "bb22")):
        words = ["--token", "old", "--label", name, "--id", identifier, "--pin", PIN]
        succeed([util, "--import", place.path(f"{name}.pem"), *words], place.env)
    p11 = [tool, "--module", module, "--token-label", "old", "--login", "--pin", PIN]
    words = ["--write-object", place.path("rob.der"), *split("--type cert --id aa11 --label rob")]
    succeed([*p11, *words], place.env)
    for line in (
        "--keypairgen --key-type EC:secp384r1 --id cc33 --label stays",
        "--keypairgen --key-type rsa:2048 --id cc44 --label leaves --extractable",
        "--keygen --key-type AES:32 --id dd44 --label aes --extractable",
        "--keygen --key-type AES:16 --id dd55 --label hidden --sensitive",
    ):
        succeed([*p11, *split(line)], place.env)
    (place.folder / "note").write_bytes(b"remember this")
    words = ["--write-object", place.path("note"), *split("--type data --label note --private")]
    succeed([*p11, *words], place.env)
    return module


def split(line: str) -> list[str]:
    return line.split()


def certificate(place: Place, name: str) -> None:
    place.openssl(
        *split("req -x509 -newkey rsa:2048 -nodes -days 30 -addext keyUsage=digitalSignature,keyCertSign -keyout"),
        *(place.path(f"{name}.pem"), "-subj", f"/CN={name}", "-out", place.path(f"{name}.crt")),
    )
    place.openssl("x509", "-in", place.path(f"{name}.crt"), "-outform", "DER", "-out", place.path(f"{name}.der"))


SOFTHSM_OBJECTS = {
    *(("certificate", "rob"), ("data", "note")),
    *(("private-key", name) for name in ("rob", "eve", "stays", "leaves")),
    *(("public-key", name) for name in ("rob", "eve", "stays", "leaves")),
    *(("secret-key", name) for name in ("aes", "hidden")),
}


@pytest.mark.usefixtures("softhsm")
def test_a_token_of_softhsm_moves_whole_and_once(place: Place) -> None:
    words = ("softhsm", "--from-label", "old", "--from-pin", PIN)
    tried = results(place.migrate(*words, "--dry-run"))
    assert tried == dict.fromkeys(SOFTHSM_OBJECTS, "would be moved")
    assert "private-key" not in place.list()
    moved = results(place.migrate(*words))
    assert moved == dict.fromkeys(SOFTHSM_OBJECTS, "moved")
    assert results(place.migrate(*words)) == dict.fromkeys(SOFTHSM_OBJECTS, "already there")
    assert "12 were there already" in place.migrate(*words)
    # What could not be extracted there cannot be here.
    lines = [line for line in place.list().splitlines() if line.startswith("private-key")]
    assert len(lines) == 4
    assert {line.split()[1]: "extractable" in line.split("; ")[1].split(", ") for line in lines} == {
        "rob": False,
        "eve": False,
        "stays": False,
        "leaves": True,
    }
    for name in ("rob", "eve", "stays", "leaves"):
        place.keyfob("cert", "self-sign", "work", name, "--subject", f"CN=moved {name}", "--pin", TARGET_PIN)


def test_through_the_module_alone_what_cannot_be_extracted_is_named(place: Place, softhsm: str) -> None:
    told = place.migrate("p11", softhsm, "--from-label", "old", "--from-pin", PIN, code=1)
    found = results(told)
    stays = {("private-key", "rob"), ("private-key", "eve"), ("private-key", "stays"), ("secret-key", "hidden")}
    reason = "could not be moved: it was made to stay on that token (CKA_EXTRACTABLE is false)"
    assert {each: result for each, result in found.items() if result != "moved"} == dict.fromkeys(stays, reason)
    assert "keyfob: 4 objects could not be moved" in told
    assert set(found) == SOFTHSM_OBJECTS


@pytest.mark.usefixtures("softhsm")
def test_a_wrong_pin_and_a_missing_token_are_said(place: Place) -> None:
    assert "was not taken: CKR_PIN_INCORRECT" in place.migrate("softhsm", "--from-pin", "9999", code=1)
    told = place.migrate("softhsm", "--from-label", "new", "--from-pin", PIN, code=1)
    assert "has no such token; it has 'old' (slot " in told
    assert "no PIN of 'old' was given and there is no terminal" in place.migrate("softhsm", code=1)


# NSS


def test_an_nss_database_moves_with_trust_and_nss_sees_the_same(place: Place) -> None:
    library(migrate.SOFTOKEN, "libnss3")
    certutil, pk12util = program("certutil", "libnss3-tools"), program("pk12util", "libnss3-tools")
    (place.folder / "db").mkdir()
    (place.folder / "password").write_text("db-password\n")
    (place.folder / "pin").write_text(TARGET_PIN + "\n")
    old = ["-d", f"sql:{place.folder}/db", "-f", place.path("password")]
    succeed([certutil, "-N", *old], place.env)
    certificate(place, "rob")
    place.openssl(
        *("pkcs12", "-export", "-inkey", place.path("rob.pem"), "-in", place.path("rob.crt"), "-name", "rob"),
        *("-passout", "pass:secret", "-out", place.path("rob.p12")),
    )
    words = ["-i", place.path("rob.p12"), "-W", "secret", "-d", f"sql:{place.folder}/db", "-k", place.path("password")]
    succeed([pk12util, *words], place.env)
    certificate(place, "authority")
    succeed([certutil, "-A", "-n", "authority", "-t", "CT,C,", "-i", place.path("authority.der"), *old], place.env)
    noise = place.path("rob.p12")
    ec = ["-S", "-n", "eve", "-s", "CN=eve", "-x", "-t", "u,u,u", "-k", "ec", "-q", "nistp256", "-z", noise]
    succeed([certutil, *ec, *old], place.env)

    before = Path(place.folder / "db" / "key4.db").read_bytes()
    words = ["nssdb", place.path("db"), "--from-pin", "db-password"]
    told = place.migrate(*words)
    assert "could not" not in told
    assert "0 were there already" in told
    found = results(told)
    assert {found["certificate", name] for name in ("rob", "eve", "authority")} == {"moved"}
    assert "Moved 0 objects" in place.migrate(*words)
    assert Path(place.folder / "db" / "key4.db").read_bytes() == before

    (place.folder / "new").mkdir()
    new = ["-d", f"sql:{place.folder}/new"]
    succeed([certutil, "-N", "--empty-password", *new], place.env)
    modutil = [program("modutil", "libnss3-tools"), "-dbdir", f"sql:{place.folder}/new", "-force"]
    succeed([*modutil, "-add", "keyfob", "-libfile", str(module_path())], place.env)
    token = ["-h", "work", "-f", place.path("pin"), *new]
    listed = succeed([certutil, "-L", *token], place.env)
    trust = {line.split()[0]: line.split()[-1] for line in listed.splitlines() if line.startswith("work:")}
    assert trust == {"work:rob": "u,u,u", "work:eve": "u,u,u", "work:authority": "CT,C,"}
    keys = succeed([certutil, "-K", *token], place.env)
    assert {line.split()[2]: line.split()[4].removeprefix("work:") for line in keys.splitlines()[1:]} == {
        "rsa": "rob",
        "ec": "eve",
    }
    for name in ("rob", "eve"):
        request = ["-R", "-k", f"work:{name}", "-s", f"CN={name}", "-a", "-o", place.path(f"{name}.csr")]
        succeed([certutil, *request, *token], place.env)
        place.openssl("req", "-in", place.path(f"{name}.csr"), "-noout", "-verify")


def test_a_database_without_password_asks_for_none(place: Place) -> None:
    library(migrate.SOFTOKEN, "libnss3")
    certutil = program("certutil", "libnss3-tools")
    (place.folder / "db").mkdir()
    old = ["-d", f"sql:{place.folder}/db"]
    succeed([certutil, "-N", "--empty-password", *old], place.env)
    place.openssl("rand", "-out", place.path("noise"), "64")
    words = ["-S", "-n", "eve", "-s", "CN=eve", "-x", "-t", "u,u,u", "-k", "rsa", "-z", place.path("noise")]
    succeed([certutil, *words, *old], place.env)
    told = place.migrate("nssdb", place.path("db"))
    assert results(told)["certificate", "eve"] == "moved"
    assert "private-key" in place.list()


# Another keyfob, and what is none


def test_a_keyfob_of_another_home_moves_its_extractable_keys(place: Place) -> None:
    place.home("other")
    place.keyfob("init", "other", "--pin", PIN, "--so-pin", "12345678", home="other")
    for kind in ("rsa:2048", "ec:p521", "ed25519", "x25519", "aes:256"):
        words = ("key", "generate", "other", "--type", kind, "--name", kind.replace(":", "-"), "--extractable")
        place.keyfob(*words, "--pin", PIN, home="other")
    place.keyfob(*split("key generate other --type ec:p256 --name stays --pin"), PIN, home="other")
    # KEYFOB_HOME says where both are; the source is told another one by a script of its own.
    source = subprocess.run(
        [sys.executable, "-c", MIGRATE_FROM, str(module_path()), place.path("other"), PIN, TARGET_PIN],
        env=place.env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert source.returncode == 0, source.stderr
    found = dict(line.split(" ", 1) for line in source.stdout.splitlines())
    kinds = ("rsa-2048", "ec-p521", "ed25519", "x25519", "aes-256")
    assert found.pop("private:stays").startswith("could not be moved: it was made to stay")
    assert found.pop("other") == "moved"  # public keys
    assert found == {f"private:{kind}": "moved" for kind in kinds}
    assert place.list().count("private-key") == 4


MIGRATE_FROM = """
import sys
from keyfob.cli import migration, tokens
from keyfob.spec.constants import CKA
module, home, pin, target = sys.argv[1:]
job = {"module": module, "parameters": None, "slot": None, "token": "other", "pin": pin.encode().hex()}
source = migration.read(job, {"KEYFOB_HOME": home})
from keyfob.cli.pins import Secret
with tokens.opened("work", Secret("PIN", "--pin", target, None), writing=True) as session:
    migration.prepare(source, session)
    migration.keep(source, session)
for one in source.arrivals:
    secret = one.object_class in (3, 4)
    name = "private:" + one.given[CKA.LABEL].decode() if secret else "other"
    print(name, one.result + (": " + one.reason if one.reason else ""))
"""


def test_a_library_that_is_no_module_and_one_that_crashes_harm_nothing(place: Place) -> None:
    compiler = program("cc", "gcc")
    for name, code in (
        ("none", "int nothing;"),
        ("crash", "unsigned long C_GetFunctionList(void **list) { *(volatile int *)0 = 1; return 0; }"),
        ("leave", "#include <stdlib.h>\nunsigned long C_GetFunctionList(void **list) { exit(3); }"),
    ):
        (place.folder / f"{name}.c").write_text(code + "\n")
        words = ["-shared", "-fPIC", "-o", place.path(f"{name}.so"), place.path(f"{name}.c")]
        succeed([compiler, *words], place.env)
    assert "it is no PKCS #11 module" in place.migrate("p11", place.path("none.so"), code=1)
    assert "ended the process that read it (SIGSEGV); nothing" in place.migrate("p11", place.path("crash.so"), code=1)
    assert "(exit code 3); nothing was moved" in place.migrate("p11", place.path("leave.so"), code=1)
    assert "work" in place.keyfob("list")
