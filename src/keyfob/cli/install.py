"""`keyfob install` and `keyfob uninstall`: register the module where other programs look for theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from keyfob import environment
from keyfob.cli import link, nss_database, p11_kit, policy, profiles, registry
from keyfob.cli.errors import Refusal
from keyfob.cli.profiles import FIREFOX, THUNDERBIRD, Profile

EPILOG = """\b
Examples:
  keyfob install firefox               every profile of yours
  keyfob install firefox --profile work
  keyfob install nss ~/db --create     any other program on NSS
  sudo keyfob install policy           every Firefox of the machine
  keyfob uninstall firefox
  keyfob status

Programs must not run meanwhile. Tokens and keys are not touched by any of this."""


@click.group(epilog=EPILOG)
def install() -> None:
    """Register the module with other programs."""
    link.require_module()


@click.group(epilog=EPILOG)
def uninstall() -> None:
    """Undo `keyfob install`."""


# NSS databases


def _add(database: nss_database.Database, place: str) -> None:
    """Register the module once, under the link, in place of an older registration of ours."""
    path = link.link_path()
    known = database.registrations()
    others = [name for name, library in known.items() if link.is_ours(library) and name != nss_database.NAME]
    if known.get(nss_database.NAME) == str(path) and path.exists():
        link.point()
        click.echo(f"{place} has the module already, as {nss_database.NAME!r}.")
        return
    if others:
        click.echo(f"{place} has the module already, as {others[0]!r}.")
        return
    database.require_change()
    link.point()
    try:
        if nss_database.NAME in known:  # an older build, somewhere else
            database.remove(nss_database.NAME)
        database.add(path)
    except Refusal:
        registry.remove_link_if_unused()
        raise
    click.echo(f"Registered the module in {place} as {nss_database.NAME!r}.")


def _remove(database: nss_database.Database, place: str) -> None:
    if nss_database.NAME not in database.registrations():
        click.echo(f"{place} does not have the module: there is nothing to undo.")
        return
    database.require_change()
    database.remove(nss_database.NAME)
    registry.forget(registry.DATABASES, database.folder)
    registry.remove_link_if_unused()
    click.echo(f"Took {nss_database.NAME!r} out of {place}.")


@install.command(name="nss")
@click.argument("directory", metavar="DIR")
@click.option("--create", is_flag=True, help="Make the database, with an empty password, where DIR has none.")
def install_nss(directory: str, create: bool) -> None:
    """Register the module in the NSS database of DIR: of any program on NSS."""
    database = nss_database.Database(directory)
    database.require(create=create)
    _add(database, str(database.folder))
    registry.remember(registry.DATABASES, database.folder)


@uninstall.command(name="nss")
@click.argument("directory", metavar="DIR")
def uninstall_nss(directory: str) -> None:
    """Take the module out of the NSS database of DIR."""
    database = nss_database.Database(directory)
    database.require(create=False)
    _remove(database, str(database.folder))


# Firefox, Thunderbird, Chromium

PROFILE_HELP = "Only this profile, by its name or folder."
profile_option = click.option("--profile", metavar="NAME|DIR", help=PROFILE_HELP)


def _chosen(program: str, wanted: str | None) -> list[Profile]:
    """The profiles that are meant; those that a sandbox closes are named, and refused when nothing is left."""
    known = profiles.profiles(program)
    if wanted is not None:
        hits = [
            each
            for each in known
            if each.name == wanted or each.folder == Path(environment.expanded(wanted)).absolute()
        ]
        if not hits and Path(environment.expanded(wanted)).is_dir():
            hits = [Profile(program, Path(wanted).name, Path(environment.expanded(wanted)))]
        if not hits:
            names = ", ".join(repr(each.name) for each in known) or "none"
            raise Refusal(f"{program} has no profile {wanted!r}; there is {names}")
        known = hits
    if not known:
        raise Refusal(
            f"no profile of {program} was found: start {program} once, or name a profile's folder with --profile"
            " (about:support shows it)"
        )
    closed = [each for each in known if each.forbidden]
    usable = [each for each in known if not each.forbidden]
    if not usable:
        raise Refusal(closed[0].forbidden)
    for each in closed:
        click.echo(f"Left out {each.title}. {each.forbidden}", err=True)
    return usable


def _for_each(chosen: list[Profile], act: Callable[[Profile], None]) -> None:
    """Do it with every profile: what one refuses must not keep it from the others."""
    refusals: list[Refusal] = []
    for profile in chosen:
        try:
            act(profile)
        except Refusal as problem:
            refusals.append(problem)
    for refusal in refusals[:-1]:
        refusal.show()
    if refusals:
        raise refusals[-1]


def _install_profiles(program: str, wanted: str | None) -> None:
    def add(profile: Profile) -> None:
        database = nss_database.Database(str(profile.folder))
        if wanted is None and not (profile.folder / "cert9.db").is_file():
            click.echo(f"Left out {profile.title}: {program} was never started with it.")
            return
        database.require(create=False)
        _add(database, profile.title)

    _for_each(_chosen(program, wanted), add)


def _uninstall_profiles(program: str, wanted: str | None) -> None:
    def remove(profile: Profile) -> None:
        _remove(nss_database.Database(str(profile.folder)), profile.title)

    _for_each(_chosen(program, wanted), remove)


@install.command(name="firefox")
@profile_option
def install_firefox(profile: str | None) -> None:
    """Register the module in your Firefox profiles."""
    _install_profiles(FIREFOX, profile)


@uninstall.command(name="firefox")
@profile_option
def uninstall_firefox(profile: str | None) -> None:
    """Take the module out of your Firefox profiles."""
    _uninstall_profiles(FIREFOX, profile)


@install.command(name="thunderbird")
@profile_option
def install_thunderbird(profile: str | None) -> None:
    """Register the module in your Thunderbird profiles."""
    _install_profiles(THUNDERBIRD, profile)


@uninstall.command(name="thunderbird")
@profile_option
def uninstall_thunderbird(profile: str | None) -> None:
    """Take the module out of your Thunderbird profiles."""
    _uninstall_profiles(THUNDERBIRD, profile)


@install.command(name="chromium")
def install_chromium() -> None:
    """Register the module for Chromium, Chrome and what else uses ~/.pki/nssdb; it is made where it is missing."""
    for profile in profiles.chromium():
        if profile.forbidden:
            click.echo(f"Left out {profile.title}. {profile.forbidden}", err=True)
            continue
        database = nss_database.Database(str(profile.folder))
        database.require(create=True)
        _add(database, str(profile.folder))


@uninstall.command(name="chromium")
def uninstall_chromium() -> None:
    """Take the module out of ~/.pki/nssdb."""
    for profile in profiles.chromium():
        if not profile.forbidden and profile.folder.exists():
            _remove(nss_database.Database(str(profile.folder)), str(profile.folder))


# p11-kit and policies

system_option = click.option("--system", is_flag=True, help="For every user of the machine (as root).")
thunderbird_option = click.option("--thunderbird", is_flag=True, help="Thunderbird's policy instead of Firefox's.")
file_option = click.option(
    "--file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Another policies.json."
)


@install.command(name="p11-kit")
@system_option
def install_p11_kit(system: bool) -> None:
    """Register the module with p11-kit: for GnuTLS, GNOME and programs that load p11-kit-proxy."""
    file = p11_kit.module_file(system=system)
    path = link.for_everybody() if system else link.point()
    if p11_kit.registered(file) == str(path):
        click.echo(f"p11-kit has the module already ({file}).")
        return
    p11_kit.register(file, path)
    click.echo(f"Registered the module with p11-kit ({file}).")
    why, remedy = p11_kit.ignored(system=system)
    if why:
        click.echo(f"But p11-kit takes no notice of it: {why}. What helps: {remedy}", err=True)


@uninstall.command(name="p11-kit")
@system_option
def uninstall_p11_kit(system: bool) -> None:
    """Take the module out of p11-kit."""
    file = p11_kit.module_file(system=system)
    if not p11_kit.remove(file):
        click.echo("p11-kit does not have the module: there is nothing to undo.")
        return
    registry.remove_link_if_unused()
    click.echo(f"Took the module out of p11-kit ({file}).")


def _policy_file(file: Path | None, *, thunderbird: bool) -> Path:
    return file or policy.FILES[THUNDERBIRD if thunderbird else FIREFOX]


@install.command(name="policy")
@thunderbird_option
@file_option
def install_policy(thunderbird: bool, file: Path | None) -> None:
    """Register the module by policies.json: in every profile of every user (as root)."""
    place = _policy_file(file, thunderbird=thunderbird)
    path = link.for_everybody() if file is None else link.point()
    if policy.registered(place) == str(path):
        click.echo(f"{place} has the module already.")
        return
    policy.register(place, path)
    if file is not None:
        registry.remember(registry.POLICIES, file)
    click.echo(f"Registered the module in {place}.")


@uninstall.command(name="policy")
@thunderbird_option
@file_option
@click.option("--from-profiles", is_flag=True, help="Have every profile drop the module, too, when it next starts.")
def uninstall_policy(thunderbird: bool, file: Path | None, from_profiles: bool) -> None:
    """Take the module out of policies.json; other policies stay.

    Profiles that started with the policy keep the module until --from-profiles or `keyfob uninstall firefox`.
    """
    place = _policy_file(file, thunderbird=thunderbird)
    if not policy.remove(place, from_profiles=from_profiles):
        click.echo(f"{place} does not have the module: there is nothing to undo.")
        return
    if file is not None:
        registry.forget(registry.POLICIES, file)
    registry.remove_link_if_unused()
    click.echo(f"Took the module out of {place}.")
