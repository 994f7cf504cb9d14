"""docs/firefox.md, followed step by step in a new home: it ends at a page that says who one is."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.interop.firefox import guide
from tests.interop.firefox.browser import PREFERENCES, Browser
from tests.interop.firefox.security_windows import DeviceManager
from tests.interop.gecko.application import START_TIMEOUT, wait_until
from tests.interop.gecko.profile import write_preferences
from tests.interop.programs import program
from tests.interop.tokens import Module, clean_environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.firefox

PIN, SO_PIN = "Alices-2941", "Officer-5518"
ANSWERS = {"User PIN: ": PIN, "SO PIN: ": SO_PIN, "Repeat for confirmation: ": ""}
SERVE = "python -m demo.who_are_you serve"
INSTALL = "keyfob install firefox"
UNINSTALL = "keyfob uninstall firefox"


class Person:
    """Somebody with an empty home, who has a clone of keyfob and types what the page says."""

    def __init__(self, home: Path, module: Module) -> None:
        self.home = home
        home.mkdir()
        repository = guide.GUIDE.parents[1]
        own = clean_environment()
        kept = {name: value for name, value in own.items() if not name.startswith("XDG_")}
        path = f"{module.command.parent}:{own['PATH']}"
        self.environment = kept | {"HOME": str(home), "PATH": path, "PYTHONPATH": str(repository), "TERM": "xterm"}

    def type(self, step: guide.Step) -> None:
        """Do a step, and see what the page shows."""
        printed = guide.typed(step.command, self.home, self.environment, ANSWERS)
        shown = "\n".join(step.shown)
        assert step.agrees_with(printed), f"$ {step.command}\nprints\n{printed}\nand the page shows\n{shown}"

    def start_firefox_once(self) -> Path:
        """Start Firefox and close it; the profile that it made."""

        def profiles() -> list[Path]:
            return [file.parent for file in self.home.glob(".*/**/pkcs11.txt") if (file.parent / "cert9.db").exists()]

        process = subprocess.Popen(
            [program("firefox-esr", "firefox-esr"), "--headless", "--no-remote"],
            env=self.environment | {"MOZ_CRASHREPORTER_DISABLE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_until(lambda: bool(profiles()), START_TIMEOUT, "a profile of Firefox")
            time.sleep(2)  # it writes the list of profiles a little later
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(START_TIMEOUT)
        (profile,) = profiles()
        return profile

    def serve(self, step: guide.Step) -> subprocess.Popen[str]:
        """Start the server of the page, and see where it says that it is."""
        server = subprocess.Popen(
            step.command.split(), cwd=self.home, env=self.environment, stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        assert [server.stdout.readline().rstrip() for _ in step.shown] == list(step.shown)
        return server


@pytest.fixture
def person(module: Module, tmp_path: Path) -> Person:
    if module.kind != "keyfob":
        pytest.skip("the page is about keyfob")
    program("firefox-esr", "firefox-esr")
    program("modutil", "libnss3-tools")
    return Person(tmp_path / "home", module)


@pytest.mark.rule("I1", "P3", "P7")
def test_who_follows_the_page_gets_to_a_page_that_says_who_they_are(person: Person, tmp_path: Path) -> None:
    """Every command of docs/firefox.md prints what the page shows; Firefox shows who one is, and is then as before."""
    steps = guide.steps(guide.GUIDE.read_text(encoding="utf-8"))
    commands = [step.command for step in steps]
    place_of_install, place_of_serve = commands.index(INSTALL), commands.index(SERVE)
    for step in steps[:place_of_install]:
        person.type(step)
    profile = person.start_firefox_once()
    before = (profile / "pkcs11.txt").read_bytes()
    for step in steps[place_of_install:place_of_serve]:
        person.type(step)

    write_preferences(profile, PREFERENCES)
    server = person.serve(steps[place_of_serve])
    try:
        evidence = tmp_path / "evidence"
        environment = person.environment
        with Browser(profile, environment, evidence=evidence, keep_profile=True, home=person.home) as browser:
            devices = DeviceManager(browser)
            assert devices.details("keyfob slot 1")["tok_label"] == "alice"
            devices.close()
            address, authority = (line.split()[-1] for line in steps[place_of_serve].shown)
            assert browser.import_authority(person.home / authority)["answer"] == "trusted for websites"
            visit = browser.visit(address, pins=[PIN], certificate="Alice Example")
            assert visit.kinds() == ["certificate", "promptPassword"]
            assert visit.title == "You are Alice Example"
            assert browser.quit() == 0
    finally:
        server.terminate()
        server.communicate(timeout=30)

    (profile / "user.js").unlink()
    for step in steps[place_of_serve + 1 :]:
        person.type(step)
    assert commands[-1] == UNINSTALL
    assert (profile / "pkcs11.txt").read_bytes() == before
