"""Profiles of Firefox and Thunderbird: certificate database, preferences, list of modules."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeAlias

from tests.interop.programs import program, succeed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Preferences: TypeAlias = "Mapping[str, bool | int | str]"

_PREFERENCES: Preferences = {
    "marionette.port": 0,  # an ephemeral port; the program writes it into the profile's MarionetteActivePort
    # Everything but loopback goes to a proxy that is not there: nothing leaves the machine.
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "app.update.disabledForTesting": True,
    "datareporting.policy.dataSubmissionEnabled": False,
    "security.OCSP.enabled": 0,
}


def make_profile(
    folder: Path, authority_pem: Path, environment: Mapping[str, str], preferences: Preferences, *, name: str
) -> None:
    """Make a profile that trusts the authority `name` for servers and e-mail, and knows no module yet."""
    folder.mkdir(parents=True)
    database = f"sql:{folder}"
    certutil = program("certutil", "libnss3-tools")
    succeed([certutil, "-N", "-d", database, "--empty-password"], environment)
    succeed([certutil, "-A", "-d", database, "-n", name, "-t", "C,C,", "-i", authority_pem], environment)
    write_preferences(folder, preferences)


def write_preferences(folder: Path, preferences: Preferences) -> None:
    """Write what every profile here needs and `preferences` into the profile's user.js."""
    both = {**_PREFERENCES, **preferences}
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in both.items()]
    (folder / "user.js").write_text("".join(lines))


def register_with_modutil(folder: Path, name: str, module: Path, environment: Mapping[str, str]) -> None:
    """Write `module` into the profile's list of modules, as `modutil -add` of any NSS does."""
    modutil = program("modutil", "libnss3-tools")
    command: list[str | Path] = [modutil, "-dbdir", f"sql:{folder}", "-add", name, "-libfile", module, "-force"]
    succeed(command, environment)
