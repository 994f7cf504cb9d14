"""`keyfob install` for Firefox, Thunderbird, Chromium, p11-kit and policies; `status` and `doctor` of what they did."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from keyfob.cli import policy, profiles
from keyfob.spec.constants import CKA, CKC, CKO
from tests.cli.conftest import Run
from tests.client import Client, Template, ffi
from tests.conftest import module_path

PINS = "--pin 1234 --so-pin 12345678"


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of its own."""
    if shutil.which("modutil") is None:
        pytest.skip("modutil is not installed (apt-get install libnss3-tools)")
    module_path()
    home = tmp_path / "user"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(policy, "FILES", {name: tmp_path / f"{name}.json" for name in policy.FILES})
    return home


def database(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["certutil", "-N", "-d", f"sql:{folder}", "--empty-password"], check=True, timeout=60)
    return folder


def firefox(user: Path, below: str = ".mozilla/firefox") -> Path:
    root = user / below
    folder = database(root / "abc.default")
    ini = "[Profile0]\nName=default\nIsRelative=1\nPath=abc.default\nDefault=1\n"
    (root / "profiles.ini").write_text(ini)
    return folder


def link() -> Path:
    return Path(os.environ["KEYFOB_HOME"]) / "libkeyfob.so"


@pytest.mark.rule("I1")
@pytest.mark.parametrize(("program", "below"), [("firefox", ".mozilla/firefox"), ("thunderbird", ".thunderbird")])
def test_install_finds_the_profile_and_uninstall_leaves_it_as_it_was(
    run: Run, user: Path, program: str, below: str
) -> None:
    """keyfob install firefox and thunderbird find the profiles; uninstall leaves pkcs11.txt as it was, byte by byte."""
    folder = firefox(user, below)
    before = (folder / "pkcs11.txt").read_bytes()
    assert "Registered the module in" in run(f"install {program}").output
    assert f"library={link()}" in (folder / "pkcs11.txt").read_text()
    assert "has the module already" in run(f"install {program} --profile default").output
    assert "Took 'keyfob' out of" in run(f"uninstall {program}").output
    assert (folder / "pkcs11.txt").read_bytes() == before
    assert not link().is_symlink()


@pytest.mark.rule("I1")
def test_a_profile_that_is_in_use_keeps_the_module_from_no_other(run: Run, user: Path) -> None:
    """One profile that is open in Firefox is refused by name; all others get the module, and lose it again."""
    names = ("a first", "b open", "c last")
    folders = [database(user / ".mozilla/firefox" / name) for name in names]
    sections = (f"[Profile{place}]\nName={name}\nIsRelative=1\nPath={name}\n" for place, name in enumerate(names))
    (user / ".mozilla/firefox/profiles.ini").write_text("\n".join(sections))
    (folders[1] / "lock").symlink_to(f"192.0.2.7:+{os.getpid()}")
    assert f"{folders[1]} is in use" in run("install firefox", code=1).stderr
    registered = [str(link()) in (folder / "pkcs11.txt").read_text() for folder in folders]
    assert registered == [True, False, True]
    (folders[1] / "lock").unlink()
    run("install firefox --profile 'b open'")
    run("uninstall firefox")
    assert not any(str(link()) in (folder / "pkcs11.txt").read_text() for folder in folders)
    assert not link().is_symlink()


@pytest.mark.parametrize("packaging", ["snap", "flatpak"])
def test_a_sandboxed_program_is_refused_with_the_reason(run: Run, user: Path, packaging: str) -> None:
    below = next(place for kind, place in profiles.PLACES[profiles.FIREFOX] if kind == packaging)
    firefox(user, below.format(config=user / ".config"))
    assert f"Firefox is a {packaging} here" in run("install firefox", code=1).stderr
    assert f"Firefox is a {packaging} here" in run("status").output


def test_without_a_profile_install_says_how_to_name_one(run: Run, user: Path) -> None:
    assert "no profile of Firefox was found" in run("install firefox", code=1).stderr
    firefox(user)
    assert "Firefox has no profile 'other'; there is 'default'" in run("install firefox --profile other", code=1).stderr


def test_chromiums_database_is_made_where_it_is_missing(run: Run, user: Path) -> None:
    run("install chromium")
    assert f"library={link()}" in (user / ".pki/nssdb/pkcs11.txt").read_text()
    run("uninstall chromium")
    assert "keyfob" not in (user / ".pki/nssdb/pkcs11.txt").read_text()


def test_p11_kit_gets_one_file_and_loses_it(run: Run, user: Path) -> None:
    run("install p11-kit")
    file = user / ".config/pkcs11/modules/keyfob.module"
    assert file.read_text().splitlines()[-1] == f"module: {link()}"
    assert "has the module already" in run("install p11-kit").output
    run("uninstall p11-kit")
    assert not file.exists()


OTHERS = {"policies": {"DisableTelemetry": True, "SecurityDevices": {"Add": {"card": "/usr/lib/card.so"}}}}


@pytest.mark.parametrize("before", [None, OTHERS, {"policies": {"SecurityDevices": {"card": "/usr/lib/card.so"}}}])
def test_a_policy_joins_those_of_others_and_leaves_them_as_they_were(
    run: Run, user: Path, tmp_path: Path, before: dict[str, object] | None
) -> None:
    file = tmp_path / "policies.json"
    if before is not None:
        file.write_text(json.dumps(before, indent=4))
    run(f"install policy --file {file}")
    assert policy.registered(file) == str(link())
    if before is not None:
        assert "/usr/lib/card.so" in file.read_text()
    run(f"uninstall policy --file {file}")
    assert json.loads(file.read_text()) == before if before is not None else not file.exists()
    assert not link().is_symlink()


def test_a_damaged_policy_file_is_not_touched(run: Run, user: Path, tmp_path: Path) -> None:
    file = tmp_path / "policies.json"
    file.write_text("{ not JSON")
    assert "was not touched" in run(f"install policy --file {file}", code=1).stderr
    assert file.read_text() == "{ not JSON"


def test_status_names_every_registration_and_how_to_undo_it(run: Run, user: Path, tmp_path: Path) -> None:
    assert "registered nowhere" in run("status").output
    firefox(user)
    database(tmp_path / "mine")
    run("install firefox")
    run(f"install nss {tmp_path / 'mine'}")
    found = json.loads(run("status --json").output)
    assert [each["undo"] for each in found["registered"]] == [
        "keyfob uninstall firefox --profile default",
        f"keyfob uninstall nss {tmp_path / 'mine'}",
    ]
    assert all(each["current"] for each in found["registered"])


# The doctor


@pytest.fixture
def client(user: Path) -> Iterator[Client]:
    """The module on the tokens of the commands."""
    loaded = Client(str(module_path()))
    loaded.call("C_Finalize", ffi.NULL)
    loaded.initialize()
    yield loaded
    loaded.call("C_Finalize", ffi.NULL)


def wrong(run: Run, *options: str) -> list[str]:
    found = json.loads(run(f"doctor --json {' '.join(options)}", code=None).output)["findings"]
    return [f"{each['about']}: {each['text']}" for each in found if each["level"] == "wrong"]


def test_the_doctor_finds_nothing_wrong_with_a_good_installation(run: Run, user: Path) -> None:
    folder = firefox(user)
    run(f"init work {PINS}")
    run("key generate work --type ec:p256 --name me --pin 1234")
    run("cert self-sign work me --subject CN=Me --pin 1234")
    run("install firefox")
    assert "Nothing is wrong." in run("doctor --pin 1234").output
    assert f"library={link()}" in (folder / "pkcs11.txt").read_text()


def test_the_doctor_names_a_home_that_other_programs_may_not_know(
    run: Run, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"note   KEYFOB_HOME: is set here, to {link().parent}: " in run("doctor", code=1).stdout
    monkeypatch.delenv("KEYFOB_HOME")
    assert "KEYFOB_HOME" not in run("doctor", code=1).stdout


def test_the_doctor_misses_a_token(run: Run, user: Path) -> None:
    assert wrong(run) == ["tokens: there is no token yet"]
    assert "-> keyfob init LABEL" in run("doctor", code=1).output


def test_the_doctor_names_a_registration_that_leads_nowhere(run: Run, user: Path) -> None:
    run(f"init work {PINS}")
    firefox(user)
    run("install firefox")
    link().unlink()
    (found,) = wrong(run)
    assert found.endswith(f"names a module that is not there any more: {link()}")
    run("install firefox")
    assert wrong(run) == []


def test_the_doctor_names_another_keyfob(run: Run, user: Path, tmp_path: Path) -> None:
    run(f"init work {PINS}")
    folder = firefox(user)
    shutil.copy(module_path(), tmp_path / "libkeyfob.so")
    text = (folder / "pkcs11.txt").read_text()
    (folder / "pkcs11.txt").write_text(f"{text}\nlibrary={tmp_path}/libkeyfob.so\nname=keyfob\n\n")
    assert any("has another keyfob" in each for each in wrong(run))


def test_the_doctor_names_what_is_wrong_with_the_configuration_and_the_folders(run: Run, user: Path) -> None:
    run(f"init work {PINS}")
    home = Path(os.environ["KEYFOB_HOME"])
    with (home / "config.toml").open("a") as file:
        file.write("\n[sessions]\nmax = 0\n")
    (home / "tokens").chmod(0o755)
    (home / "tokens/slot-1.keyfob").chmod(0o644)
    found = wrong(run)
    assert any("sessions.max must be a whole number" in each for each in found)
    assert sum("is open to other users" in each for each in found) == 2


def test_the_doctor_names_a_token_without_pin_and_a_locked_one(run: Run, user: Path, client: Client) -> None:
    client.ok("C_InitToken", 1, b"so-pin-12345", 12, b"fresh".ljust(32))
    run(f"init work {PINS}")
    client.ok("C_Finalize", ffi.NULL)
    client.initialize()
    session = client.open(2)
    for _ in range(10):
        client.call("C_Login", session, 1, b"wrong", 5)
    found = wrong(run)
    assert "token 'fresh': it has no user PIN yet" in found
    assert "token 'work': its PIN is locked after too many wrong ones" in found


def certificate(days: int, purpose: x509.ObjectIdentifier | None = None) -> bytes:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    end = datetime.now(UTC) + timedelta(days=days)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(end - timedelta(days=9)).not_valid_after(end)
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


CERTIFICATE: Template = [(CKA.CLASS, CKO.CERTIFICATE), (CKA.TOKEN, True), (CKA.CERTIFICATE_TYPE, CKC.X_509)]


@pytest.mark.rule("P3")
@pytest.mark.parametrize(
    ("template", "text"),
    [
        ([(CKA.VALUE, certificate(-1))], "expired on"),
        ([(CKA.VALUE, certificate(20))], "is not valid before"),
        ([(CKA.VALUE, certificate(3)), (CKA.PRIVATE, True)], "is private: nobody sees it"),
        ([(CKA.VALUE, b"nonsense"), (CKA.ID, b"1"), (CKA.SUBJECT, b"s")], "has no issuer and no serial number"),
        ([(CKA.VALUE, b"nonsense"), (CKA.SUBJECT, b"s")], "has no ID"),
    ],
)
def test_the_doctor_names_why_a_certificate_is_not_seen(
    run: Run, user: Path, client: Client, template: Template, text: str
) -> None:
    """keyfob doctor says why NSS does not see a certificate or does not find its key."""
    run(f"init work {PINS}")
    client.ok("C_Finalize", ffi.NULL)
    client.initialize()
    session = client.open(1)
    client.login(session, b"1234")
    client.create(session, [*CERTIFICATE, (CKA.LABEL, "mine"), *template])
    assert any(text in each for each in wrong(run, "--pin 1234"))


@pytest.mark.rule("P3", "N14")
def test_the_doctor_names_a_certificate_whose_id_is_not_its_keys(run: Run, user: Path, client: Client) -> None:
    """A certificate that has another CKA_ID than its key is named by keyfob doctor."""
    run(f"init work {PINS}")
    run("key generate work --type rsa:2048 --name me --pin 1234")
    run("cert self-sign work me --subject CN=Me --pin 1234")
    client.ok("C_Finalize", ffi.NULL)
    client.initialize()
    session = client.open(1)
    client.login(session, b"1234")
    (found,) = client.find(session, [(CKA.CLASS, CKO.CERTIFICATE)])
    assert client.set(session, found, [(CKA.ID, b"another")]) == 0
    assert "token 'work': certificate 'me' has another ID than its private key 'me'" in wrong(run, "--pin 1234")

    # What the doctor advises helps; without the PIN nobody can know.
    run("cert export work me --out me.pem")
    assert run("cert import work me.pem").stdout == "'work' has 'Me' already.\n"
    repaired = run("cert import work me.pem --pin 1234").stdout
    assert "Gave the certificate 'me' the ID of its private key" in repaired
    assert wrong(run, "--pin 1234") == []
    assert run("cert import work me.pem --pin 1234").stdout == "'work' has 'Me' already.\n"


@pytest.mark.rule("P3", "N18")
@pytest.mark.parametrize("key_type", ["rsa:2048", "ec:p256", "ed25519"])
def test_the_doctor_misses_a_public_key_and_its_advice_makes_one(
    run: Run, user: Path, client: Client, key_type: str
) -> None:
    """A private key without a public one is named; keyfob cert import with the PIN makes that of the private key."""
    run(f"init work {PINS}")
    run(f"key generate work --type {key_type} --name me --pin 1234")
    run("cert self-sign work me --subject CN=Me --pin 1234 --out me.pem")
    client.ok("C_Finalize", ffi.NULL)
    client.initialize()
    session = client.open(1)
    client.login(session, b"1234")
    (public,) = client.find(session, [(CKA.CLASS, CKO.PUBLIC_KEY)])
    whole = (CKA.ID, CKA.KEY_TYPE, CKA.PUBLIC_KEY_INFO, CKA.VERIFY, CKA.LABEL)
    before = client.get(session, public, *whole)
    client.ok("C_DestroyObject", session, public)
    about = "certificate 'me' has no public key object: before the PIN is given NSS does not take it for the user's own"
    assert f"token 'work': {about}" in wrong(run, "--pin 1234")

    assert "Put the public key of 'me'" in run("cert import work me.pem --pin 1234").stdout
    assert wrong(run, "--pin 1234") == []
    client.call("C_Finalize", ffi.NULL)
    client.initialize()
    session = client.open(1)
    (again,) = client.find(session, [(CKA.CLASS, CKO.PUBLIC_KEY)])
    assert client.get(session, again, *whole) == before
