"""`keyfob status`: where the module is registered."""

from __future__ import annotations

import click

from keyfob.cli import link, module, registry, tables

EPILOG = """\b
Looked at are the profiles of Firefox, Thunderbird and Chromium, p11-kit, the
policies of the machine, and what was named to `keyfob install` by its path."""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def status(as_json: bool) -> None:
    """Show where the module is registered, and whether it is the one of this installation."""
    found = registry.everything()
    library, path = module.library_path(), link.link_path()
    closed = [profile for profile in registry.every_profile() if profile.forbidden]
    if as_json:
        tables.show_json(
            {
                "module": str(library),
                "link": str(path) if path.is_symlink() else None,
                "registered": [
                    {
                        "place": each.place,
                        "name": each.name,
                        "library": each.library,
                        "current": each.current,
                        "undo": each.undo,
                    }
                    for each in found
                ],
                "closed": [{"place": profile.title, "reason": profile.forbidden} for profile in closed],
            }
        )
        return
    click.echo(f"Module: {library}")
    if path.is_symlink():
        click.echo(f"Link:   {path} -> {path.readlink()}")
    click.echo()
    if found:
        state = {True: "this installation's", False: "NOT this installation's (keyfob doctor)"}
        tables.show(("REGISTERED IN", "AS", "MODULE"), [(each.place, each.name, state[each.current]) for each in found])
    else:
        click.echo("The module is registered nowhere: keyfob install --help")
    for profile in closed:
        click.echo(f"\n{profile.title}: {profile.forbidden}")
