"""Some things of the process and the machine have one owner each in our sources: nothing else touches them.

What nobody has authenticated (an environment, a path, a file's mode) can then have an effect in two files only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "keyfob"
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "expanduser", "expandvars", "home"}
MAKES = {"mkdir", "makedirs", "mkfifo", "mknod", "chmod", "fchmod", "lchmod", "chown", "fchown", "lchown", "umask"}
WRITES = {"write_text", "write_bytes", "touch", "copyfile", "copy", "copy2", "copytree", "truncate"}
WRITES_BYTES = {f"os.{name}" for name in ("write", "writev", "pwrite", "pwritev", "posix_fallocate", "sendfile")}
TEMPORARY = {"NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory", "mkstemp", "mkdtemp", "gettempdir"}
COMMON = {"home", "copy", "truncate"}
MODULES = {"os", "shutil", "tempfile", "Path", "pathlib.Path", "posix"}
OURS = {"files", "environment", "profiles"}
# The module's own path, where every file that is read belongs to somebody who must be known.
OF_MODULE = ("abi", "functions", "mechanisms", "store", "token", "config.py", "log.py", "aside.py")

# Who else may, and why.
ALLOWED = {
    ("functions/random.py", "open"): "writes to /dev/urandom, whatever stands there",
    ("nss/child.py", "os.open"): "/dev/null",
    ("nss/watch.py", "tempfile.TemporaryFile"): "the checker's, without a name",
    ("nss/tracer/run.py", "lines.touch"): "in that folder",
    ("nss/tracer/run.py", "tempfile.TemporaryDirectory"): "the tracer's, which the person at the terminal started",
    ("cli/nss_database.py", "os.open"): "asks whether a browser holds the lock of its own profile",
}


def sources() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py"))


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def mentions(path: Path) -> Iterator[str]:
    """Every name that the source uses, with its module where that is written."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            yield dotted(node)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def opens(path: Path) -> Iterator[tuple[str, bool]]:
    """Every call that opens a file: as what, and whether for writing."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in ("open", "io.open", "os.open", "posix.open", "os.fdopen"):
            words = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "mode")]
            mode = "".join(
                word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)
            )
            if name != "os.fdopen":
                yield name, name in ("os.open", "posix.open") or bool(set(mode) & set("wax+"))
        elif name.endswith(".open") and any(
            isinstance(word, ast.Constant) and isinstance(word.value, str) and set(word.value) & set("wax+")
            for word in node.args[:1]
        ):
            yield name, True


def relative(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def users(names: set[str], owner: str) -> list[str]:
    return [
        f"{relative(path)}: {name}"
        for path in sources()
        if relative(path) != owner
        for name in mentions(path)
        if is_one_of(name, names) and (relative(path), name) not in ALLOWED
    ]


def is_one_of(name: str, names: set[str]) -> bool:
    """Our own functions may be called like that, and so may methods of other things than files."""
    module, _, last = name.rpartition(".")
    if last not in names or module in OURS or module.startswith("keyfob"):
        return False
    return last not in COMMON or module in MODULES


def test_the_environment_has_one_reader() -> None:
    assert not users(ENVIRONMENT, "environment.py")


def test_files_folders_and_modes_have_one_maker() -> None:
    assert not users(MAKES | WRITES | TEMPORARY, "files.py")


def test_files_are_opened_for_writing_in_one_place() -> None:
    wrong = [
        f"{relative(path)}: {name}"
        for path in sources()
        if relative(path) != "files.py"
        for name, writing in opens(path)
        if writing and (relative(path), name) not in ALLOWED
    ]
    assert not wrong


def test_the_module_writes_to_files_in_one_place() -> None:
    """Which lets no limit of a file's size end the host (RLIMIT_FSIZE)."""
    wrong = [
        f"{relative(path)}: {name}"
        for path in sources()
        if relative(path).startswith(OF_MODULE)
        for name in mentions(path)
        if name in WRITES_BYTES
    ]
    assert not wrong


def test_the_module_decodes_no_file_as_it_opens_it() -> None:
    """A codec is imported, and a server may have given up the right to read Python's library."""
    wrong = [
        f"{relative(path)}:{node.lineno}"
        for path in sources()
        if relative(path).startswith((*OF_MODULE, "files.py", "environment.py")) and path.name != "build.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and any(word.arg == "encoding" for word in node.keywords)
    ]
    assert not wrong


def test_the_module_opens_files_in_one_place() -> None:
    """Also for reading: a secret or an order may be in any of them."""
    wrong = [
        f"{relative(path)}: {name}"
        for path in sources()
        if relative(path).startswith(OF_MODULE)
        for name, _ in opens(path)
        if (relative(path), name) not in ALLOWED
    ]
    assert not wrong


def test_pins_and_passphrases_are_hardened_in_one_place() -> None:
    """Which takes a Hardening: what a file says becomes one through its ceiling only."""
    users = [relative(path) for path in sources() if re.search(r"\bArgon2id\(", path.read_text(encoding="utf-8"))]
    assert users == ["store/seal.py"]
    made = [relative(path) for path in sources() if re.search(r"_unchecked\(", path.read_text(encoding="utf-8"))]
    assert made == ["store/hardening.py"]


def test_exceptions_are_still_needed() -> None:
    for file, name in ALLOWED:
        path = SOURCE / file
        assert name in {*mentions(path), *(opened for opened, _ in opens(path))}, (file, name)


# It notes what the environment is and puts it back: it believes nothing in there.
KEEPER = "abi/process.h"


@pytest.mark.parametrize("suffix", ["*.c", "*.h", "build.py"])
def test_c_reads_the_environment_only_where_its_caller_may_choose_it(suffix: str) -> None:
    for path in SOURCE.rglob(suffix):
        if relative(path) != KEEPER:
            assert not re.findall(r"(?<!secure_)\bgetenv\b|\benviron\b", path.read_text(encoding="utf-8")), path
