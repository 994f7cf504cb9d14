"""What the tests with Firefox start from: an authority's files, and a profile that knows the module."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.interop.certificates import Authority
from tests.interop.firefox.browser import Browser, make_profile
from tests.interop.gecko.profile import register_with_modutil
from tests.interop.pkcs11_tool import Pkcs11Tool
from tests.interop.tls_server import TlsServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.gecko.profile import Preferences
    from tests.interop.tokens import Token

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class Stage:
    """An authority, whose files are in `folder`; profiles are made there, too."""

    authority: Authority
    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Stage:
        """Make the authority's files, and those of its server."""
        stage = cls(Authority(), folder)
        folder.mkdir(parents=True, exist_ok=True)
        stage.authority.write(stage.authority_pem)
        stage.authority.write_server(stage.server_pem)
        return stage

    @property
    def authority_pem(self) -> Path:
        """The authority's certificate."""
        return self.folder / "authority.pem"

    @property
    def server_pem(self) -> Path:
        """The server's key and certificate."""
        return self.folder / "server.pem"

    @property
    def profile(self) -> Path:
        """Where the profile is."""
        return self.folder / "profile"

    def server(self, version: str = "TLSv1.3") -> TlsServer:
        """A TLS server of that version only."""
        return TlsServer(VERSIONS[version], self.server_pem, self.authority_pem)

    def make_profile(self, token: Token, preferences: Preferences | None = None) -> None:
        """Make a profile that knows no module yet."""
        make_profile(self.profile, self.authority_pem, token.environment(), preferences)

    def browser(
        self,
        token: Token,
        *,
        keep_profile: bool = False,
        display: str | None = None,
        preferences: Preferences | None = None,
        executable: Path | None = None,
    ) -> Browser:
        """A browser with the profile as it is, or with a fresh one that knows the module where there is none."""
        if not self.profile.exists():
            self.make_profile(token, preferences)
            register_with_modutil(self.profile, "keyfob", token.module.path, token.environment())
        return Browser(
            self.profile,
            token.environment(),
            evidence=self.folder / "evidence",
            log=token.log_file(),
            keep_profile=keep_profile,
            display=display,
            executable=executable,
        )

    def certify(self, token: Token, name: str, key_type: str, identifier: str, *options: str) -> None:
        """Make a key on the token, with `options` of pkcs11-tool, and put a certificate for TLS clients beside it."""
        tool = Pkcs11Tool(token, self.folder)
        key = tool.generate(key_type, identifier, name, *options)
        tool.write_certificate(self.authority.client(name, key), identifier, name)
