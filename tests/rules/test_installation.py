"""I1 and I2: where the library lies, and who loads it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.abi.stub_module import compiler
from tests.conftest import module_path

# Loads the module by the path it is given, initialises it and counts the slots, without any import of keyfob's. The
# host is a C program: a Python of its own would lend the module its interpreter.
HOST = r"""
#include <dlfcn.h>
#include <stdio.h>

typedef unsigned long (*get_list)(void ***);
typedef unsigned long (*initialize)(void *);
typedef unsigned long (*slot_list)(unsigned char, unsigned long *, unsigned long *);

int main(int count, char **arguments)
{
    void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    void **functions;
    unsigned long slots = 0;
    unsigned long rv = ((get_list)dlsym(library, "C_GetFunctionList"))(&functions);
    if (rv == 0)
        rv = ((initialize)functions[1])(NULL);
    if (rv == 0)
        rv = ((slot_list)functions[5])(0, NULL, &slots);
    printf("%lu %lu\n", rv, slots);
    return rv != 0;
}
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that loads the module named by its argument and prints CK_RV and number of slots."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "host.c").write_text(HOST)
    subprocess.run([compiler(), "-o", folder / "host", folder / "host.c", "-ldl"], check=True)
    return folder / "host"


def load(host: Path, library: Path, where: Path, environment: dict[str, str]) -> str:
    ran = subprocess.run([host, library], cwd=where, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.rule("I1")
def test_the_path_is_all_that_a_host_needs(host: Path, tmp_path: Path) -> None:
    """Loads by its absolute path from any folder, with an environment that holds nothing but HOME."""
    assert load(host, module_path(), Path("/"), {"HOME": str(tmp_path)}) == "0 1"


@pytest.mark.rule("I1")
def test_python_variables_of_the_host_do_not_matter(host: Path, tmp_path: Path) -> None:
    """Takes no notice of PYTHONHOME, PYTHONPATH and PATH of the program that loads it."""
    hostile = {"PYTHONHOME": str(tmp_path), "PYTHONPATH": str(tmp_path), "PATH": "", "HOME": str(tmp_path)}
    (tmp_path / "keyfob.py").write_text("raise SystemExit('imported from PYTHONPATH')")
    assert load(host, module_path(), tmp_path, hostile) == "0 1"


@pytest.mark.rule("I2")
def test_a_long_and_unusual_path_is_no_obstacle(host: Path, tmp_path: Path) -> None:
    """Loads through a path of more than a thousand bytes with blanks, quotes and letters of other scripts."""
    folder = tmp_path
    while len(os.fsencode(folder)) < 1000:
        folder = folder / "Schlüssel 'und' \"Anhänger\" = 鍵"
    folder.mkdir(parents=True)
    link = folder / module_path().name
    link.symlink_to(module_path())
    assert load(host, link, tmp_path, {"HOME": str(tmp_path)}) == "0 1"


@pytest.mark.rule("I1")
def test_the_program_names_the_path_to_give() -> None:
    """`keyfob module-path` prints the absolute path to give to modutil, Firefox or p11-kit."""
    ran = subprocess.run(
        [sys.executable, "-m", "keyfob.cli", "module-path"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == str(module_path())
