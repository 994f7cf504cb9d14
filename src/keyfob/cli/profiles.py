"""Where Firefox, Thunderbird and Chromium keep their profiles, and which of them no module can reach.

Firefox keeps a list of them in profiles.ini, and the default of each installed Firefox in installs.ini beside it. From
version 147 on, a Firefox without a folder of the old kind uses $XDG_CONFIG_HOME/mozilla/firefox.
"""

from __future__ import annotations

import configparser
import shlex
from dataclasses import dataclass
from pathlib import Path

from keyfob import environment

FIREFOX, THUNDERBIRD, CHROMIUM = "Firefox", "Thunderbird", "Chromium"
SNAP, FLATPAK = "snap", "flatpak"
# (how the program was installed, its folder with profiles.ini below the home folder); {config}: $XDG_CONFIG_HOME.
PLACES = {
    FIREFOX: (
        ("", ".mozilla/firefox"),
        ("", "{config}/mozilla/firefox"),
        (SNAP, "snap/firefox/common/.mozilla/firefox"),
        (FLATPAK, ".var/app/org.mozilla.firefox/.mozilla/firefox"),
        (FLATPAK, ".var/app/org.mozilla.firefox/config/mozilla/firefox"),
    ),
    THUNDERBIRD: (
        ("", ".thunderbird"),
        (SNAP, "snap/thunderbird/common/.thunderbird"),
        (FLATPAK, ".var/app/org.mozilla.Thunderbird/.thunderbird"),
        (FLATPAK, ".var/app/net.thunderbird.Thunderbird/.thunderbird"),
    ),
}
# Chromium, Chrome and what else is made of them share one database of the user.
DATABASES = (
    ("", ".pki/nssdb"),
    (SNAP, "snap/chromium/current/.pki/nssdb"),
    (FLATPAK, ".var/app/org.chromium.Chromium/.pki/nssdb"),
    (FLATPAK, ".var/app/com.google.Chrome/.pki/nssdb"),
)

SANDBOXES = {
    SNAP: (
        "{program} is a snap here. Its sandbox lets it load no library from outside of the snap, and keyfob's module "
        "and Python are outside; nothing that is registered can change that. Use the {program} of a .deb, .rpm or "
        "archive, for instance Mozilla's own."
    ),
    FLATPAK: (
        "{program} is a flatpak here. Its sandbox has files of its own, without keyfob's module and Python, so it "
        "cannot load the module. Use the {program} of your distribution or of Mozilla, or put `p11-kit server` between "
        "them (docs/install.md)."
    ),
}


@dataclass(frozen=True, slots=True)
class Profile:
    """A folder with an NSS database. `packaging` is "", "snap" or "flatpak"."""

    program: str
    name: str
    folder: Path
    packaging: str = ""
    default: bool = False

    @property
    def forbidden(self) -> str:
        """Why no module can be loaded there; empty where one can."""
        name = "Mozilla" if self.program != CHROMIUM else "Google"
        return SANDBOXES.get(self.packaging, "").format(program=self.program).replace("Mozilla", name)

    @property
    def title(self) -> str:
        if self.program == CHROMIUM:
            return f"{self.program} ({self.folder})"
        return f"{self.program} profile {self.name!r} ({self.folder})"

    @property
    def command(self) -> str:
        """What comes after `keyfob install` and `keyfob uninstall` for it."""
        if self.program == CHROMIUM:
            return CHROMIUM.lower()
        return f"{self.program.lower()} --profile {shlex.quote(self.name)}"


def home() -> Path:
    return Path(environment.home(environment.several(("HOME",))))


def config_folder() -> Path:
    return Path(environment.get("XDG_CONFIG_HOME") or home() / ".config")


def profiles(program: str) -> list[Profile]:
    """Every profile of the program, those of sandboxes too."""
    found: list[Profile] = []
    for packaging, below in PLACES[program]:
        found += _listed(program, home() / below.format(config=config_folder()), packaging)
    return found


def _listed(program: str, root: Path, packaging: str) -> list[Profile]:
    """The profiles of one profiles.ini, and those that only installs.ini names."""
    listed, installs = _read(root / "profiles.ini"), _read(root / "installs.ini")
    defaults = [
        section["Default"]
        for parser in (listed, installs)
        for name, section in parser.items()
        if "Default" in section and not name.startswith("Profile")
    ]
    found: dict[Path, Profile] = {}
    for name, section in listed.items():
        path = section.get("Path", "")
        if not name.startswith("Profile") or not path:
            continue
        folder = root / path if section.get("IsRelative", "1") == "1" else Path(path)
        default = path in defaults or (not defaults and section.get("Default") == "1")
        found[folder] = Profile(program, section.get("Name", folder.name), folder, packaging, default)
    for path in defaults:
        folder = root / path
        found.setdefault(folder, Profile(program, folder.name, folder, packaging, default=True))
    return list(found.values())


def _read(file: Path) -> configparser.RawConfigParser:
    """The file's sections; none where it is missing or damaged."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(file.read_text(encoding="utf-8", errors="replace"))
    except (OSError, configparser.Error):
        parser.clear()
    return parser


def chromium() -> list[Profile]:
    """The databases of Chromium and its kin; the first one need not exist yet."""
    found = [Profile(CHROMIUM, "nssdb", home() / below, packaging) for packaging, below in DATABASES]
    return [profile for profile in found if not profile.packaging or profile.folder.exists()]
