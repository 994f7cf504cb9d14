"""Thunderbird signs, encrypts and decrypts with keys on the token; OpenSSL reads its mail and writes mail to it."""

from __future__ import annotations

import email
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.interop.certificates import Authority
from tests.interop.gecko.profile import register_with_modutil
from tests.interop.programs import program, succeed
from tests.interop.thunderbird.mail import MailProgram, make_profile
from tests.interop.thunderbird.smtp_sink import SmtpSink
from tests.interop.tokens import Module, Token, make_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.interop.pkcs11_tool import Pkcs11Tool

pytestmark = pytest.mark.firefox

TEXT = "The key to this text is on the token."
WRONG_PIN = "not-the-PIN"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with a key of one kind on the token."""

    name: str
    address: str
    identifier: str
    key_type: str
    label: str


USERS = {
    "RSA": User("Rosa Example", "rosa@example.test", "01", "rsa:2048", "rosa"),
    "EC": User("Edda Example", "edda@example.test", "02", "EC:prime256v1", "edda"),
}
KINDS = pytest.mark.parametrize("user", USERS.values(), ids=USERS)


@dataclass(frozen=True, slots=True)
class Scene:
    """What every test here starts from: the authority, a token with two certified keys, a server that takes mail."""

    authority: Path
    """Folder with the authority's certificate `authority.pem` and those of the users, `rosa.pem` and `edda.pem`."""
    token: Token
    sink: SmtpSink
    folder: Path
    """For files of this test alone."""

    def thunderbird(self, user: User, *, with_module: bool = True) -> MailProgram:
        """Thunderbird with a fresh profile for `user`, which knows the module if `with_module`."""
        profile = self.folder / "profile"
        environment = self.token.environment()
        authority = self.authority / "authority.pem"
        port = self.sink.port
        make_profile(profile, authority, environment, name=user.name, address=user.address, smtp_port=port)
        if with_module:
            register_with_modutil(profile, "interop module", self.token.module.path, environment)
        return MailProgram(profile, environment, evidence=self.folder / "evidence", log=self.token.log_file())

    def nickname(self, user: User) -> str:
        """What NSS calls the user's certificate."""
        return f"{self.token.label}:{user.label}"

    def openssl(self, *words: str | Path) -> str:
        """What OpenSSL prints."""
        return succeed([program("openssl", "openssl"), *words], self.token.environment())

    def encrypted_by_openssl(self, user: User, *options: str) -> bytes:
        """A message to `user`, encrypted by OpenSSL for the key on the token."""
        text, message = self.folder / "text", self.folder / "message"
        text.write_text(f"Content-Type: text/plain; charset=utf-8\r\n\r\n{TEXT}\r\n")
        headers = ["-from", "openssl@example.test", "-to", user.address, "-subject", "For your key"]
        certificate = self.authority / f"{user.label}.pem"
        self.openssl(
            "cms", "-encrypt", "-aes-256-cbc", *headers, "-in", text, "-out", message, "-recip", certificate, *options
        )
        return message.read_bytes()

    def verified_by_openssl(self, message: bytes) -> str:
        """The text of a signed `message`, whose signature and signer's certificate OpenSSL has found good."""
        sent, content = self.folder / "signed.eml", self.folder / "content"
        sent.write_bytes(message)
        authority = self.authority / "authority.pem"
        self.openssl("cms", "-verify", "-in", sent, "-out", content, "-CAfile", authority)
        text = email.message_from_bytes(content.read_bytes()).get_payload(decode=True)
        assert isinstance(text, bytes)
        return text.decode()


@pytest.fixture(scope="module")
def token(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Token:
    """A token as users have it, with all the work that goes into the PIN."""
    return make_token(module, tmp_path_factory.mktemp("token"), cheap_pins=False)


@pytest.fixture(scope="module")
def certified(tool: Pkcs11Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Put an RSA and an EC key with certificates for e-mail on the token; the folder of the authority's files."""
    folder = tmp_path_factory.mktemp("authority")
    authority = Authority()
    authority.write(folder / "authority.pem")
    for user in USERS.values():
        key = tool.generate(user.key_type, user.identifier, user.label)
        certificate = authority.mail(user.name, user.address, key)
        (folder / f"{user.label}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        tool.write_certificate(certificate, user.identifier, user.label)
    return folder


@pytest.fixture(scope="module")
def sink() -> Iterator[SmtpSink]:
    """The server that takes all mail of this file's tests."""
    with SmtpSink() as server:
        yield server


@pytest.fixture
def scene(certified: Path, token: Token, sink: SmtpSink, tmp_path: Path) -> Scene:
    """The scene of one test; ends the test early where Thunderbird is not installed."""
    program("thunderbird", "thunderbird")
    sink.messages.clear()
    return Scene(certified, token, sink, tmp_path)


@pytest.mark.rule("K3", "K4")
@KINDS
def test_mail_is_signed_then_signed_and_encrypted_and_read_back(scene: Scene, user: User) -> None:
    """Thunderbird finds the account's certificate, asks for the PIN once, signs, encrypts, verifies and decrypts."""
    with scene.thunderbird(user) as thunderbird:
        offered = thunderbird.choose_certificate(scene.nickname(user))
        assert [label.partition(" [")[0] for label in offered] == [scene.nickname(user)]

        dialogs = thunderbird.send(user.address, "Signed", TEXT, sign=True, encrypt=False, pins=[scene.token.pin])
        assert [(dialog["kind"], dialog["answer"]) for dialog in dialogs] == [("promptPassword", "PIN")]
        assert scene.token.label in dialogs[0]["text"]
        assert list(thunderbird.send(user.address, "Encrypted", TEXT, sign=True, encrypt=True)) == []
        signed, encrypted = scene.sink.messages

        assert scene.verified_by_openssl(signed).strip() == TEXT
        assert TEXT.encode() not in encrypted
        assert b"enveloped-data" in encrypted

        shown = thunderbird.show(signed)
        assert (shown.text, shown.encrypted, shown.signed) == (TEXT, None, "ok")
        shown = thunderbird.show(encrypted)
        assert (shown.text, shown.encrypted, shown.signed) == (TEXT, "ok", "ok")
        assert thunderbird.quit() == 0


ENVELOPES = {
    "RSA": (USERS["RSA"], ()),
    "RSA-OAEP": (USERS["RSA"], ("-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256")),
    "EC": (USERS["EC"], ("-keyopt", "ecdh_kdf_md:sha256")),
}


@pytest.mark.rule("K4")
@pytest.mark.parametrize("envelope", ENVELOPES)
def test_mail_of_another_program_is_decrypted_once_the_pin_is_given(scene: Scene, envelope: str) -> None:
    """An encrypted message asks for the PIN when opened; the key on the token then unwraps, or derives, its key."""
    user, options = ENVELOPES[envelope]
    message = scene.encrypted_by_openssl(user, *options)
    with scene.thunderbird(user) as thunderbird:
        shown = thunderbird.show(message, pins=[scene.token.pin])
        assert [dialog["kind"] for dialog in shown.dialogs] == ["promptPassword"]
        assert (shown.text, shown.encrypted) == (TEXT, "ok")


@KINDS
def test_wrong_pin_leaves_mail_undecrypted_and_unsent(scene: Scene, user: User) -> None:
    """Without the PIN nothing is read and nothing goes out; the message is then read with the right one."""
    message = scene.encrypted_by_openssl(user)
    with scene.thunderbird(user) as thunderbird:
        shown = thunderbird.show(message, pins=[WRONG_PIN])
        assert {dialog["kind"] for dialog in shown.dialogs} == {"promptPassword"}
        assert [dialog["answer"] for dialog in shown.dialogs][:2] == ["PIN", "cancel"]
        assert TEXT not in shown.text
        assert shown.encrypted == "notok"

        thunderbird.choose_certificate(scene.nickname(user))
        dialogs = thunderbird.send(user.address, "Signed", TEXT, sign=True, encrypt=False, pins=[WRONG_PIN])
        assert [dialog["kind"] for dialog in dialogs][-1] == "alert"
        assert scene.sink.messages == []

        shown = thunderbird.show(message, pins=[scene.token.pin])
        assert (shown.text, shown.encrypted) == (TEXT, "ok")


def test_absent_module_leaves_mail_undecrypted(scene: Scene) -> None:
    """The control for all tests above: certificates and keys come from the token and from nowhere else."""
    user = USERS["RSA"]
    with scene.thunderbird(user, with_module=False) as thunderbird:
        assert list(thunderbird.choose_certificate(scene.nickname(user))) == []
        shown = thunderbird.show(scene.encrypted_by_openssl(user), pins=[scene.token.pin])
        assert list(shown.dialogs) == []
        assert TEXT not in shown.text
        assert shown.encrypted == "notok"
