"""The stable path under which other programs know the module (I2).

Registrations outlive builds: a virtual environment is moved, rebuilt, made for a newer Python. So programs are given a
link, `libkeyfob.so` beside the folder of tokens, which `keyfob install` points to the module of today; the loader
follows it to the Python that it belongs to. What is registered for every user of the machine gets the module's own
path: other users cannot follow a link through somebody's home.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
from pathlib import Path

from keyfob import config, environment, files
from keyfob.cli.errors import Refusal
from keyfob.cli.module import LIBRARY, library_path


def link_path() -> Path:
    """Where the link is: below KEYFOB_HOME or the user's data folder."""
    return data_folder() / LIBRARY


def data_folder() -> Path:
    """The folder that holds the folder of tokens; absolute."""
    return _data_folder(tuple(environment.several(config.VARIABLES).items()), os.getcwd())


@functools.cache
def _data_folder(variables: tuple[tuple[str, str], ...], working_directory: str) -> Path:
    return Path(working_directory, config.load(dict(variables)).tokens).parent


def require_module() -> None:
    """Refuse at once where the module was not built."""
    library_path()


def point() -> Path:
    """Make the link point to the module of this installation, and give its path."""
    link, library = link_path(), library_path()
    if target() == library:
        return link
    if link.exists() and not link.is_symlink():
        raise Refusal(f"{link} is in the way: it is not a link that keyfob made")
    try:
        files.make_folder(str(link.parent))
        new = link.with_name(f".{LIBRARY}.{os.getpid()}")
        new.unlink(missing_ok=True)
        new.symlink_to(library)
        new.replace(link)
    except OSError as problem:
        raise Refusal(f"{link} cannot be made: {problem.strerror}") from None
    return link


def target() -> Path | None:
    """Where the link leads; None where there is none."""
    try:
        return link_path().readlink()
    except OSError:
        return None


def remove() -> None:
    """Take the link away; for when nothing is registered any more."""
    if target() is not None:
        link_path().unlink()


def is_ours(library: str) -> bool:
    """Whether a registered path is the link, or the module of this installation by whatever path."""
    if not library:
        return False
    path = Path(library)
    if path == link_path():
        return True
    try:
        return path.resolve(strict=True) == library_path()
    except (OSError, Refusal):
        return False


def for_everybody() -> Path:
    """The module's own path, for registrations that hold for all users; refused where others cannot read it."""
    library = library_path()
    python = Path(sys.base_prefix).resolve()
    folders = dict.fromkeys((*library.parents, python, *python.parents))
    closed = [str(each) for each in folders if not each.stat().st_mode & stat.S_IXOTH]
    if not library.stat().st_mode & stat.S_IROTH:
        closed.append(str(library))
    if closed:
        raise Refusal(
            f"other users cannot read {closed[0]}, so the module would not load for them: install keyfob where they"
            " can, for instance in a virtual environment below /opt that is made with the system's Python"
        )
    return library
