"""Whether a Python can carry keyfob, and what loader.c must know of it.

    PYTHON scripts/interpreter.py          prints nothing and exits 0, or says what is missing and exits 1

libkeyfob.so starts the very interpreter that built it, from its shared library. setup.py asks here before it compiles,
and writes the findings into loader_config.h; bootstrap.sh asks every Python that it finds. Python 3.7 can run this file
too, so that one that is too old gets a sentence, not a SyntaxError.
"""

from __future__ import annotations

import os
import platform
import site
import sys
import sysconfig

OLDEST = (3, 11)


def minor() -> str:
    """For example "3.11"."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def shared_library_name() -> str:
    """For example "libpython3.11.so.1.0", whether or not this Python has one."""
    return f"libpython{sysconfig.get_config_var('LDVERSION') or minor()}.so.1.0"


def shared_library() -> str | None:
    """The absolute path of this Python's own shared library; None where there is none.

    Debian's python3 is linked statically, yet package libpython3.x holds the same interpreter as a library in LIBDIR.
    A library of the same version elsewhere on the system is another build and does not count.
    """
    name = shared_library_name()
    mapped = [line.split(maxsplit=5)[5].strip() for line in _mapped_files() if line.rstrip().endswith("/" + name)]
    library_dir = sysconfig.get_config_var("LIBDIR") or ""
    folders = [library_dir, os.path.join(library_dir, sysconfig.get_config_var("MULTIARCH") or "")]
    folders += [os.path.join(sys.base_prefix, folder) for folder in ("lib", "lib64")]
    for candidate in mapped + [os.path.join(folder, name) for folder in folders]:
        if os.path.isfile(candidate):
            return os.path.realpath(candidate)
    return None


def _mapped_files() -> list[str]:
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            return [line for line in maps if "libpython" in line]
    except OSError:
        return []


def standard_library() -> list[str]:
    """The folders of the standard library: its Python files, then its compiled modules."""
    folder = os.path.dirname(os.path.realpath(os.__file__))
    compiled = [entry for entry in sys.path if os.path.basename(entry) == "lib-dynload"]
    compiled.append(sysconfig.get_config_var("DESTSHARED") or os.path.join(folder, "lib-dynload"))
    return [folder, os.path.realpath(compiled[0])]


def site_folders() -> list[str]:
    """Where this environment keeps installed packages: keyfob's dependencies may be there and not beside keyfob."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return list(dict.fromkeys(os.path.abspath(folder) for folder in folders))


def executable() -> str:
    """The interpreter below any virtual environment, by its real name (/usr/bin/python3 may change its mind)."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def has_headers() -> bool:
    return os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h"))


def problem() -> str | None:
    """Why this Python cannot carry keyfob, with the way out; None if it can."""
    return _unsuitable() or _incomplete()


def _myself() -> str:
    return f"{sys.executable} ({platform.python_implementation()} {platform.python_version()})"


def _unsuitable() -> str | None:
    if sys.platform != "linux":
        return f"keyfob works on Linux; this is {sys.platform}"
    if platform.python_implementation() != "CPython":
        return f"keyfob needs CPython; this is {_myself()}"
    if sys.version_info < OLDEST:
        return f"keyfob needs Python {OLDEST[0]}.{OLDEST[1]} or later; this is {_myself()}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return f"keyfob needs a Python with the GIL; {_myself()} is a free-threaded build"
    return None


def _incomplete() -> str | None:
    if shared_library() is None:
        return (
            f"{_myself()} has no shared library {shared_library_name()}, which keyfob starts inside other programs."
            f" Install it:\n"
            f"  Debian, Ubuntu   apt install libpython{minor()}\n"
            f"  Fedora           dnf install python{minor()}-libs, or python3-libs for the system's Python\n"
            f"  pyenv            PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install -f {platform.python_version()}\n"
            f"  from source      ./configure --enable-shared"
        )
    if not has_headers():
        return (
            f"{_myself()} has no header files (Python.h). Install them:\n"
            f"  Debian, Ubuntu   apt install python{minor()}-dev, or python3-dev for the system's Python\n"
            f"  Fedora           dnf install python{minor()}-devel, or python3-devel for the system's Python"
        )
    return None


def loader_config() -> str:
    """The text of loader_config.h for this Python, which must have no problem()."""
    library = shared_library()
    if library is None:
        raise LookupError(shared_library_name())
    rows = {
        "LIBPYTHON": _literal(library),
        "LIBPYTHON_NAME": _literal(shared_library_name()),
        "PYTHON": _literal(executable()),
        "PYTHON_HOME": _literal(sys.base_prefix + _exec_prefix()),
        "STANDARD_LIBRARY": _list(standard_library()),
        "SITE_FOLDERS": _list(site_folders()),
    }
    lines = ["/* Written by setup.py. */"] + [f"#define KEYFOB_{name} {value}" for name, value in rows.items()]
    return "\n".join(lines) + "\n"


def _exec_prefix() -> str:
    return "" if sys.base_exec_prefix == sys.base_prefix else ":" + sys.base_exec_prefix


def _literal(text: str) -> str:
    """A C string literal with the bytes of a path. Octal escapes of three digits cannot swallow what follows."""
    quoted = "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in os.fsencode(text))
    return f'"{quoted}"'


def _list(texts: list[str]) -> str:
    return "{" + ", ".join([_literal(text) for text in texts] + ["0"]) + "}"


if __name__ == "__main__":
    sys.exit(problem())
