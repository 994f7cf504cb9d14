"""Which versions of others' packages the module needs, and the one place that looks whether they are those.

An interpreter of our own imports what keyfob was installed with. One that the host shares with us imports what the host
has: Debian 12's python3-cryptography, for one, is years too old, and would fail somewhere in the first login. So
abi/__init__.py looks before anything imports them, and the loader says why the module does not start.
"""

from __future__ import annotations

from importlib import import_module

# Name of the package: the module that tells its version, and the lower bound of pyproject.toml (a test compares).
NEEDED = {
    "apsw": ("apsw", (3, 46)),
    "cffi": ("_cffi_backend", (2,)),
    "cryptography": ("cryptography", (50,)),
    "psycopg": ("psycopg", (3, 3, 9)),
}
ALWAYS = ("apsw", "cffi", "cryptography")


def check(*packages: str) -> None:
    """ImportError that names those that are too old, their place, and what is needed."""
    old = []
    for package in packages:
        name, needed = NEEDED[package]
        module = import_module(name)
        found: str = module.apsw_version() if name == "apsw" else module.__version__
        if parsed(found) < needed:
            old.append(f"{package} {found} in {module.__file__} (keyfob needs {'.'.join(map(str, needed))} or newer)")
    if old:
        raise ImportError(
            f"this program's Python imports what is too old: {'; '.join(old)}. Give it newer ones, or run the "
            "module in a process of its own: `p11-kit server`"
        )


def parsed(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 50.0.2 of 50.0.2.dev1, 50 of 50rc1."""
    numbers = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if digits:
            numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)
