"""`keyfob backup` and `keyfob restore`: every object comes back, no changed file is believed, no half token is left."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keyfob import config
from keyfob.cli import backup_file
from keyfob.spec.constants import CKA, CKC, CKK, CKO, CKP
from keyfob.store import Hardening, SqliteStore
from keyfob.store.publish import give_name
from keyfob.token.object import FALSE, TRUE, ulong

if TYPE_CHECKING:
    from keyfob.store import Attributes
    from tests.cli.conftest import Run

PHRASE = "--passphrase long-enough"
PIN = "--pin 1234"
PINS = "--pin 4321 --so-pin 87654321"


REAL = backup_file.HARDENING


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passphrases are hardened with 256 MiB; here with 8 KiB. One test looks at the real number."""
    monkeypatch.setattr(backup_file, "HARDENING", Hardening.for_tests())


def home() -> Path:
    return Path(os.environ["KEYFOB_HOME"])


def contents(slot: int, pin: bytes) -> list[Attributes]:
    """Every object of a token file, by its CKA_UNIQUE_ID."""
    store = SqliteStore.open(home() / "tokens" / f"slot-{slot}.keyfob")
    store.configure(config.present())
    try:
        store.login("user", pin)
        assert store.verify() == []
        found = [store.get(number) for number in store.find(())]
        return sorted((each for each in found if each is not None), key=lambda each: each[CKA.UNIQUE_ID])
    finally:
        store.close()


def insert(*objects: Attributes) -> None:
    store = SqliteStore.open(home() / "tokens" / "slot-1.keyfob")
    store.login("user", b"1234")
    common = {CKA.TOKEN: TRUE, CKA.PRIVATE: FALSE}
    store.insert([{**common, CKA.UNIQUE_ID: os.urandom(16).hex().encode(), **each} for each in objects])
    store.close()


OTHERS: list[Attributes] = [
    {CKA.CLASS: ulong(CKO.DATA), CKA.LABEL: b"notes", CKA.APPLICATION: b"tests", CKA.VALUE: os.urandom(200_000)},
    {CKA.CLASS: ulong(CKO.DATA), CKA.LABEL: b"secret notes", CKA.PRIVATE: TRUE, CKA.VALUE: b"for me alone"},
    {CKA.CLASS: ulong(CKO.NSS_CRL), CKA.SUBJECT: b"0\0", CKA.VALUE: b"a list of revoked certificates"},
    {CKA.CLASS: ulong(CKO.NSS_TRUST), CKA.ISSUER: b"0", CKA.SERIAL_NUMBER: b"\2", CKA.NSS_TRUST_SERVER_AUTH: ulong(1)},
    {CKA.CLASS: ulong(CKO.TRUST), CKA.ISSUER: b"0\0", CKA.SERIAL_NUMBER: b"\2\1\7", CKA.TRUST_SERVER_AUTH: b"y" * 8},
    {CKA.CLASS: ulong(CKO.PROFILE), CKA.PROFILE_ID: ulong(CKP.BASELINE_PROVIDER)},
    {CKA.CLASS: ulong(CKO.CERTIFICATE), CKA.CERTIFICATE_TYPE: ulong(CKC.X_509), CKA.ID: b"", CKA.VALUE: b"0\3\2\1\1"},
    {
        CKA.CLASS: ulong(CKO.SECRET_KEY),
        CKA.KEY_TYPE: ulong(CKK.GENERIC_SECRET),
        CKA.PRIVATE: TRUE,
        CKA.ID: b"\1",
        CKA.VALUE: b"generic and secret",
        CKA.SENSITIVE: TRUE,
        CKA.EXTRACTABLE: FALSE,
    },
]  # fmt: skip


@pytest.fixture
def token(run: Run) -> None:
    """`work`, with one object of every class; its keys cannot be extracted."""
    run("init work --pin 1234 --so-pin 12345678")
    for kind in ("rsa:2048", "ec:p256", "ed25519", "aes:256"):
        run(f"key generate work --type {kind} --name {kind.replace(':', '-')} {PIN}")
    insert(*OTHERS)


@pytest.mark.usefixtures("token")
def test_every_object_of_every_class_comes_back_as_it_was(run: Run) -> None:
    made = run(f"backup work one.backup {PHRASE} {PIN}").output
    assert re.search(
        r"^Backed up 'work' to one.backup: 15 objects \(.*\); [\d,]+ bytes, read again and compared.$", made
    )
    assert Path("one.backup").stat().st_mode & 0o777 == 0o600
    assert b"for me alone" not in Path("one.backup").read_bytes()
    before = contents(1, b"1234")
    assert len(before) == 15
    run(f"restore one.backup {PHRASE} --label again {PINS}")
    assert contents(2, b"4321") == before
    # As the same token, serial number too, where the first is gone.
    (home() / "tokens" / "slot-1.keyfob").unlink()
    (home() / "tokens" / "slot-2.keyfob").unlink()
    told = run(f"restore one.backup {PHRASE} {PINS}").output
    assert "Made the token 'work' in slot 1: 15 objects" in told
    assert "serial" not in told
    assert contents(1, b"4321") == before
    log = (home() / "keyfob.log").read_text(encoding="utf-8")
    assert "older copy" not in log


@pytest.mark.usefixtures("token")
def test_restored_keys_sign(run: Run) -> None:
    run(f"backup work one.backup {PHRASE} {PIN}")
    run(f"restore one.backup {PHRASE} --label again {PINS}")
    for name in ("rsa-2048", "ec-p256", "ed25519"):
        run(f"cert self-sign again {name} --subject CN=me --pin 4321")


def test_kind_and_settings_come_back(run: Run) -> None:
    run("init mail --kind signing-decryption --pin 1234 --so-pin 12345678")
    store = SqliteStore.open(home() / "tokens" / "slot-1.keyfob")
    store.login("user", b"1234")
    store.set_setting("colour", "green")
    store.close()
    run(f"backup mail mail.backup {PHRASE} {PIN}")
    assert "(signing-decryption, serial number" in run(f"restore mail.backup --dry-run --label m2 {PHRASE}").output
    run(f"restore mail.backup {PHRASE} --label m2 {PINS}")
    store = SqliteStore.open(home() / "tokens" / "slot-2.keyfob")
    assert store.info().kind == "signing-decryption"
    assert store.info().settings == {"colour": "green"}
    store.close()


@pytest.mark.usefixtures("token")
def test_a_dry_run_makes_nothing(run: Run) -> None:
    run(f"backup work one.backup {PHRASE} {PIN}")
    told = run(f"restore one.backup {PHRASE} --dry-run --label again").output
    assert "It would become the token 'again': 15 objects" in told
    assert [each.name for each in (home() / "tokens").glob("*.keyfob")] == ["slot-1.keyfob"]
    told = run(f"restore one.backup {PHRASE} --dry-run --into work {PIN}").output
    assert told == "Would put 0 objects on 'work'; 15 were there already.\n"


@pytest.mark.usefixtures("token")
def test_merging_puts_each_object_there_once(run: Run) -> None:
    run(f"backup work one.backup {PHRASE} {PIN}")
    run("init other --pin 4321 --so-pin 12345678")
    into = f"restore one.backup --into other {PHRASE} --pin 4321"
    assert run(into).output.startswith("Put 15 objects (")
    assert run(into).output == "Put 0 objects on 'other'; 15 were there already.\n"
    assert contents(2, b"4321") == contents(1, b"1234")


@pytest.mark.usefixtures("token")
def test_merging_leaves_what_was_changed_since_and_shares_no_unique_id(run: Run) -> None:
    run(f"backup work one.backup {PHRASE} {PIN}")
    store = SqliteStore.open(home() / "tokens" / "slot-1.keyfob")
    store.login("user", b"1234")
    (number,) = store.find([(CKA.LABEL, b"notes")])
    changed = {**(store.get(number) or {}), CKA.VALUE: b"new notes"}
    store.update(number, changed)
    store.close()
    assert run(f"restore one.backup --into work {PHRASE} {PIN}").output.startswith("Put 1 object (1 data) on 'work'")
    notes = [each for each in contents(1, b"1234") if each.get(CKA.LABEL) == b"notes"]
    assert len(notes) == 2
    assert changed in notes
    assert len({each[CKA.UNIQUE_ID] for each in notes}) == 2


def pieces(data: bytes) -> tuple[bytes, list[bytes]]:
    start, size = backup_file.HEAD.size + backup_file.PROOF, backup_file.CHUNK + backup_file.TAG
    return data[:start], [data[at : at + size] for at in range(start, len(data), size)]


@pytest.mark.usefixtures("token")
def test_a_file_that_was_changed_anywhere_is_refused(run: Run) -> None:
    run(f"backup work one.backup {PHRASE} {PIN}")
    good = Path("one.backup").read_bytes()
    head, chunks = pieces(good)
    assert len(chunks) >= 4
    dice = random.Random(2026)
    places = [*range(len(head) + 4), *(dice.randrange(len(good)) for _ in range(50)), len(good) - 1]
    changed = [good[:at] + bytes([good[at] ^ (1 << dice.randrange(8))]) + good[at + 1 :] for at in places]
    changed += [good[:length] for length in (0, 5, len(head), len(head) + 1, len(good) - 1, len(good) - 16)]
    changed += [head + b"".join(chunks[:n]) for n in range(len(chunks))]
    changed += [good + b"x", good + chunks[-1], good + bytes(64)]
    changed += [
        head + b"".join([chunks[1], chunks[0], *chunks[2:]]),
        head + b"".join([chunks[0], chunks[0], *chunks[1:]]),
        head + b"".join([chunks[0], *chunks[2:]]),
        head + b"".join([*chunks[:-2], chunks[-1]]),
    ]
    for data in changed:
        Path("bad.backup").write_bytes(data)
        refused = run(f"restore bad.backup {PHRASE} --dry-run --label again", code=1).output
        assert re.search(
            r"is no backup of keyfob's|is damaged, or was changed: nothing of it was taken"
            r"|has version \d+ of the format"
            r"|does not open: the passphrase is wrong, or the beginning of the file is damaged",
            refused,
        ), refused
        assert "Traceback" not in refused
    # Whatever the first pass lets through, nothing was made, and nothing is with the other commands.
    Path("bad.backup").write_bytes(changed[-1])
    run(f"restore bad.backup {PHRASE} --label again {PINS}", code=1)
    run(f"restore bad.backup {PHRASE} --into work {PIN}", code=1)
    assert [each.name for each in (home() / "tokens").glob("*.keyfob")] == ["slot-1.keyfob"]
    assert len(contents(1, b"1234")) == 15


@pytest.mark.usefixtures("token")
def test_a_chunk_of_another_backup_of_the_same_token_does_not_fit(run: Run) -> None:
    for name in ("one", "two"):
        run(f"backup work {name}.backup {PHRASE} {PIN}")
    (head, chunks), (_, others) = (pieces(Path(f"{name}.backup").read_bytes()) for name in ("one", "two"))
    Path("bad.backup").write_bytes(head + b"".join([chunks[0], others[1], *chunks[2:]]))
    assert "is damaged, or was changed" in run(f"restore bad.backup {PHRASE} --dry-run --label x", code=1).output


@pytest.mark.usefixtures("token")
def test_a_wrong_passphrase_is_said_to_be_one(run: Run) -> None:
    run(f"backup work one.backup {PHRASE} {PIN}")
    refused = run("restore one.backup --passphrase other-one --dry-run", code=1).output
    assert "does not open: the passphrase is wrong" in refused


@pytest.mark.usefixtures("token")
def test_what_is_asked_of_a_backup(run: Run) -> None:
    assert "at least 8 characters" in run(f"backup work one.backup --passphrase short {PIN}", code=1).output
    assert not Path("one.backup").exists()
    Path("one.backup").write_bytes(b"mine")
    assert "is there already" in run(f"backup work one.backup {PHRASE} {PIN}", code=1).output
    assert Path("one.backup").read_bytes() == b"mine"
    run(f"backup work one.backup --force {PHRASE} {PIN}")
    assert Path("one.backup").read_bytes().startswith(b"KFBACKUP\1")
    assert sorted(each.name for each in Path().iterdir()) == ["one.backup"]
    assert "there is a token 'work' already" in run(f"restore one.backup {PHRASE} {PINS}", code=1).output
    assert "wrong; 9 attempts are left" in run(f"backup work two.backup {PHRASE} --pin 9999", code=1).output


def test_a_backup_that_comes_out_wrong_gets_no_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that writes something else than it was given."""
    run("init work --pin 1234 --so-pin 12345678")
    run(f"key generate work --type ec:p256 --name me {PIN}")
    real = backup_file.Writer.finish

    def spoilt(writer: backup_file.Writer) -> None:
        real(writer)
        file = writer._file
        file.flush()
        file.seek(backup_file.HEAD.size + backup_file.PROOF + 7)
        file.write(b"\0\0\0\0")

    monkeypatch.setattr(backup_file.Writer, "finish", spoilt)
    assert "is damaged" in run(f"backup work one.backup {PHRASE} {PIN}", code=1).output
    assert list(Path().iterdir()) == []


def test_a_token_without_pin_comes_back_with_one_or_without(run: Run) -> None:
    run("init open --no-pin")
    run("key generate open --type ec:p256 --name me")
    run(f"backup open open.backup {PHRASE}")
    run(f"restore open.backup {PHRASE} --label shut {PINS}")
    assert len(contents(2, b"4321")) == 2
    run(f"restore open.backup {PHRASE} --label open-2 --no-pin")
    assert "private-key" in run("list open-2").output


def test_a_damaged_token_is_backed_up_on_request_only(run: Run) -> None:
    run("init work --pin 1234 --so-pin 12345678")
    run(f"key generate work --type aes:256 --name a {PIN}")
    run(f"key generate work --type aes:256 --name b {PIN}")
    import apsw

    connection = apsw.Connection(str(home() / "tokens" / "slot-1.keyfob"))
    connection.execute("UPDATE object SET record = zeroblob(length(record)) WHERE id = 1")
    connection.close()
    assert "is damaged: object 1" in run(f"backup work one.backup {PHRASE} {PIN}", code=1).output
    assert not Path("one.backup").exists()
    told = run(f"backup work one.backup --skip-damaged {PHRASE} {PIN}", code=1).output
    assert "1 object (1 secret-key)" in told
    assert "1 object" in run(f"restore one.backup {PHRASE} --dry-run --label x").output


@pytest.mark.long
def test_a_restore_that_is_killed_leaves_no_half_token(run: Run) -> None:
    run("init work --pin 1234 --so-pin 12345678")
    insert(*({CKA.CLASS: ulong(CKO.DATA), CKA.LABEL: b"%d" % i, CKA.VALUE: os.urandom(400)} for i in range(3000)))
    run(f"backup work one.backup {PHRASE} {PIN}")
    whole = contents(1, b"1234")
    command = [sys.executable, "-m", "keyfob.cli", "restore", "one.backup", *f"{PHRASE} --label two {PINS}".split()]
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    took = time.monotonic() - begun
    made = home() / "tokens" / "slot-2.keyfob"
    killed = complete = 0
    dice = random.Random(5)
    for _ in range(25):
        made.unlink(missing_ok=True)
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(took * dice.uniform(0.3, 1.0))
        child.send_signal(signal.SIGKILL)
        killed += child.wait(timeout=60) == -signal.SIGKILL
        if made.exists():
            complete += 1
            assert contents(2, b"4321") == whole
    assert killed >= 5
    made.unlink(missing_ok=True)
    run(f"restore one.backup {PHRASE} --label two {PINS}")
    assert contents(2, b"4321") == whole
    assert list((home() / "tokens").glob(".*")) == []  # what the killed ones left


def test_passphrases_are_hardened_with_at_least_64_mib() -> None:
    assert REAL.memory_kib >= 64 * 1024
    assert REAL.iterations >= 2


# Peppers


@pytest.mark.usefixtures("token")
def test_a_backup_needs_no_pepper_and_leads_to_a_token_with_one_or_without(run: Run) -> None:
    """Whoever has lost the pepper still has the backup; where the old pepper was is not in it."""
    pepper, other = Path("pepper"), Path("other")
    for each in (pepper, other):
        each.write_bytes(os.urandom(32))
        each.chmod(0o600)
    run(f"pin pepper work --set pepper {PIN} --so-pin 12345678")
    run(f"backup work work.backup {PHRASE} {PIN}")
    with backup_file.Backup("work.backup", b"long-enough") as found:
        assert "pepper" not in str(found.facts)
    before = contents(1, b"1234")
    pepper.unlink()
    run(f"restore work.backup --label plain {PHRASE} {PINS}")
    assert contents(2, b"4321") == before
    assert "no pepper" in run("pin pepper plain").output
    run(f"restore work.backup --label peppered --pepper other {PHRASE} {PINS}")
    assert contents(3, b"4321") == before
    assert "needed by: user PIN and SO PIN" in run("pin pepper peppered").output
    other.unlink()
    assert "cannot be read" in run("list peppered --pin 4321", code=1).output
    refused = run(f"restore work.backup --label third --pepper other {PHRASE} {PINS}", code=1)
    assert "the pepper other cannot be read" in refused.output
    assert "third" not in run("list").output


@pytest.mark.usefixtures("token")
def test_the_configuration_gives_a_restored_token_its_pepper(run: Run) -> None:
    run(f"backup work work.backup {PHRASE} {PIN}")
    (home() / "pepper").write_bytes(os.urandom(32))
    (home() / "pepper").chmod(0o600)
    with (home() / "config.toml").open("a") as file:
        file.write('[token."again"]\npepper = "pepper"\n')
    run(f"restore work.backup --label again {PHRASE} {PINS}")
    assert "needed by: user PIN and SO PIN" in run("pin pepper again").output


# Trials and traces


@pytest.mark.usefixtures("token")
def test_a_trial_of_a_backup_writes_nothing_and_asks_for_no_passphrase(run: Run) -> None:
    said = run(f"backup work work.backup --dry-run {PIN}").output
    made = run(f"backup work real.backup {PHRASE} {PIN}").output
    assert said.startswith("Would back up 'work' to work.backup: ")
    assert said.split(": ", 1)[1].removesuffix(".\n") in made
    assert not Path("work.backup").exists()


@pytest.mark.usefixtures("token")
def test_backup_and_restore_are_in_the_audit_log(run: Run) -> None:
    run(f"backup work work.backup {PHRASE} {PIN}")
    run(f"restore work.backup --label again {PHRASE} {PINS}")
    run("delete again aes-256 --pin 4321 --yes")
    run(f"restore work.backup --into again {PHRASE} --pin 4321")
    said = run("audit").output
    assert re.search(r"  backup  slot 1 'work'  objects=\d+", said)
    assert re.search(r"  restored  slot 2 'again'  by", said)
    assert re.search(r"  restored  slot 2 'again'  objects=1  by", said)


@pytest.mark.usefixtures("token")
def test_a_stick_whose_file_system_knows_no_links_takes_backups_and_tokens(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT answers link(2) with EPERM. What is there already stays as it is there, too."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    run(f"backup work work.backup {PHRASE} {PIN}")
    written = Path("work.backup").read_bytes()
    with pytest.raises(FileExistsError):
        give_name("work.backup", "work.backup")
    assert Path("work.backup").read_bytes() == written
    run(f"restore work.backup --label again {PHRASE} {PINS}")
    assert contents(2, b"4321") == contents(1, b"1234")
    run(f"restore work.backup --label open --no-pin {PHRASE}")
    Path("stick").mkdir()
    run("init travel --removable stick --pin 1234 --so-pin 12345678")
    assert [each.name for each in Path("stick").iterdir() if not each.name.startswith("slot")] == ["token.keyfob"]
    assert not list(Path().glob(".*"))
