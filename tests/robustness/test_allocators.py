"""Hosts whose allocator is not the C library's: what one has given out is given back to the same one.

A host may also bind the module to its own libraries first (RTLD_DEEPBIND). Then the module has the C library's
allocator, and what Python loads later has the host's.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.abi.stub_module import compiler
from tests.conftest import PIN, module_path
from tests.interop.programs import missing
from tests.robustness.conftest import Programs
from tests.robustness.hosts import HERE, run

# They allocate inside the C library what is freed outside of it.
ALLOCATING = {"strdup", "strndup", "asprintf", "vasprintf", "getline", "getdelim", "open_memstream", "scandir"}
OTHERS = {"libjemalloc2": "libjemalloc.so.2", "libtcmalloc-minimal4": "libtcmalloc_minimal.so.4"}  # by package


@pytest.fixture(scope="module")
def allocator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("allocator") / "allocator.so"
    flags = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-builtin", "-fPIC", "-shared"]
    subprocess.run([compiler(), *flags, "-o", library, HERE / "allocator.c", "-pthread"], check=True)
    return library


@pytest.mark.parametrize("binding", ["global", "deep"])
def test_a_host_with_another_allocator_signs(programs: Programs, key: Path, allocator: Path, binding: str) -> None:
    done = run(programs("binding"), PIN.decode(), binding, LD_PRELOAD=str(allocator))
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.parametrize("package", OTHERS)
@pytest.mark.parametrize("binding", ["global", "deep"])
def test_a_host_with_an_allocator_of_debians_signs(programs: Programs, key: Path, package: str, binding: str) -> None:
    found = sorted(Path("/usr/lib").glob(f"*/{OTHERS[package]}"))
    if not found:
        missing(f"{OTHERS[package]} is not here (apt-get install {package})")
    done = run(programs("binding"), PIN.decode(), binding, LD_PRELOAD=str(found[0]))
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_nothing_is_allocated_inside_the_c_library_and_freed_outside() -> None:
    """Where both are bound to the same allocator nobody would notice."""
    libraries = sorted(module_path().parent.rglob("*.so"))
    assert len(libraries) >= 5
    for library in libraries:
        listing = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
        symbols = [line.split()[-1].partition("@")[0] for line in listing.stdout.splitlines()]
        names = {symbol.strip("_").removesuffix("_chk") for symbol in symbols}
        assert "memcpy" in names
        assert names & ALLOCATING == set()
