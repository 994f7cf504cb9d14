"""Where the library lies."""

from __future__ import annotations

from keyfob.nss.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        id="I1",
        title="The library is loaded by its path, wherever it is",
        statement="The module may be installed anywhere; the user gives a name and the full path.",
        today="changed",
        nss=(
            "By modutil -add NAME -libfile PATH, the module database, Firefox's Security Devices, policies and "
            "extensions, or p11-kit; the path is kept in the database."
        ),
        expects=(
            "dlopen by an absolute path is enough: no working directory, no environment variable, no second file to "
            "name."
        ),
        user="The module works in the terminal and not in the browser that the desktop started.",
        where=("pk11wrap/pk11load.c secmod_LoadPKCS11Module", "cmd/modutil/pk11.c AddModule"),
    ),
    Rule(
        id="I2",
        title="A long path is no obstacle",
        statement="The guide warns of paths that are too deep.",
        today="gone",
        nss="Nothing limits the path but the file system.",
        expects="The library loads from any path that the system can open, also with blanks and non-ASCII letters.",
        user="The module that was installed in a home directory with an unusual name does not load.",
        where=("pk11wrap/pk11load.c secmod_LoadPKCS11Module", "pk11wrap/pk11pars.c SECMOD_CreateModuleEx"),
        unchecked="The path is the choice of whoever installs the module; the checker loads it from where it lies.",
    ),
)
