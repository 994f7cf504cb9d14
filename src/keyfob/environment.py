"""The environment of the process, and who its user is: nothing else reads them (tests/test_owners.py).

A program that has rights which its caller has not got (setuid, setgid, file capabilities) is marked by the kernel
(AT_SECURE of getauxval(3)). Its environment is its caller's word, so there no variable counts, and the user is the
effective one as the password database knows it.
"""

from __future__ import annotations

import os
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

AT_SECURE = 23  # elf.h
ENTRY = Struct("@LL")

_read: Callable[[str], str | None] = os.environ.get
_secure: bool | None = None


def use(read: Callable[[str], str | None], *, secure: bool | None) -> None:
    """Of a module in its host: the C library's secure_getenv, so that a host's setenv() counts, and its AT_SECURE."""
    global _read, _secure  # there is one environment
    _read, _secure = read, secure


def is_secure() -> bool:
    """Whether this process has rights that its caller has not got."""
    global _secure
    if _secure is None:
        _secure = _asked_of_the_kernel()
    return _secure


def get(name: str) -> str:
    """A variable; empty where it is not set, or must not count."""
    return "" if is_secure() else _read(name) or ""


def several(names: Iterable[str]) -> dict[str, str]:
    """Those of the variables that are set."""
    return {name: value for name in names if (value := get(name))}


def whole() -> dict[str, str]:
    """All of it, for a program that is started."""
    return {} if is_secure() else dict(os.environ)


def home(variables: Mapping[str, str]) -> str:
    """The user's folder: $HOME of these variables, else what the password database says; `/` where it says nothing."""
    return variables.get("HOME") or home_in_database() or "/"


def home_in_database() -> str:
    """The effective user's folder; empty for one whom the password database does not know."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return ""


def expanded(path: str) -> str:
    """`~` at the beginning as the user's folder, `~name` as another user's."""
    first, slash, rest = path.partition("/")
    if not first.startswith("~"):
        return path
    if first == "~":
        return home(several(("HOME",))) + slash + rest
    import pwd

    try:
        return pwd.getpwnam(first[1:]).pw_dir + slash + rest
    except KeyError:
        return path


def _asked_of_the_kernel() -> bool:
    """For Python programs, as the commands are. What may not be read belongs to a process with more rights."""
    try:
        with open("/proc/self/auxv", "rb") as file:
            entries = dict(ENTRY.iter_unpack(file.read()))
    except PermissionError:
        return True
    except OSError:  # no /proc here
        return os.getuid() != os.geteuid() or os.getgid() != os.getegid()
    return bool(entries.get(AT_SECURE, 0))
