"""Compiles what cannot be said in pyproject.toml.

keyfob._abi (cffi), libkeyfob.so, which hosts open, libkeyfob-trace.so, which `keyfob trace` puts between them,
RSA's modular powers (keyfob.mechanisms._rsa), and the place where secrets are held (keyfob._held).
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "scripts"))
import interpreter  # noqa: E402  scripts/ is no package

LOADER = "keyfob.libkeyfob"
TRACER = "keyfob.libkeyfob-trace"
RSA = "keyfob.mechanisms._rsa"
HELD = "keyfob._held"
HARDENING = ["-O2", "-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
# Errors by default since gcc 14 and clang 16: errors with every compiler, in generated sources too.
STRICT = [
    f"-Werror={kind}"
    for kind in ("implicit-function-declaration", "implicit-int", "incompatible-pointer-types", "int-conversion")
]
WARNINGS = ["-Wall", "-Wextra"]
SAFE_LINK = ["-Wl,-z,relro,-z,now"]

loader = Extension(
    LOADER,
    sources=[f"src/keyfob/abi/{name}.c" for name in ("loader", "interpreter", "memory", "libraries", "folders")],
    depends=[
        "src/keyfob/abi/door.h",
        "src/keyfob/abi/memory.h",
        "src/keyfob/abi/process.h",
        "scripts/interpreter.py",
        "setup.py",
    ],
    # -pthread and -ldl: part of the C library since glibc 2.34.
    extra_compile_args=[*HARDENING, *WARNINGS, "-std=gnu11", "-fvisibility=hidden", "-pthread"],
    # nodelete: hosts dlclose the module, and an interpreter cannot be unloaded. defs: nothing may need libpython.
    extra_link_args=[*SAFE_LINK, "-Wl,-z,nodelete,-z,defs", "-pthread", "-ldl", "-lm"],
)

tracer = Extension(
    TRACER,
    sources=[f"src/keyfob/nss/tracer/{name}.c" for name in ("tracer", "record", "calls")],
    depends=[f"src/keyfob/nss/tracer/{name}.h" for name in ("cryptoki", "record", "tables")],
    extra_compile_args=[*WARNINGS, "-std=gnu11", "-fvisibility=hidden", "-pthread"],
    extra_link_args=["-Wl,-z,nodelete,-z,defs", "-pthread", "-ldl"],
)

# unroll-loops: its inner loops are a few instructions long; a tenth faster.
rsa = Extension(
    RSA,
    sources=[f"src/keyfob/mechanisms/{name}.c" for name in ("rsa_module", "rsa_power")],
    depends=["src/keyfob/mechanisms/rsa_power.h"],
    extra_compile_args=[*WARNINGS, "-std=gnu11", "-fvisibility=hidden", "-funroll-loops"],
)

held = Extension(
    HELD, sources=["src/keyfob/held.c"], extra_compile_args=[*WARNINGS, "-std=gnu11", "-fvisibility=hidden"]
)


class BuildExt(build_ext):
    """Builds for exactly the Python that runs it, and stops with plain words where that one cannot carry keyfob."""

    def run(self) -> None:
        """Look at the Python, note in loader_config.h what loader.c must know of it, then compile."""
        problem = interpreter.problem()
        if problem is not None:
            sys.exit(f"keyfob cannot be built: {problem}")
        build_folder = Path(self.build_temp)
        build_folder.mkdir(parents=True, exist_ok=True)
        header = build_folder / "loader_config.h"
        text = interpreter.loader_config()
        if not header.exists() or header.read_text(encoding="ascii") != text:
            header.write_text(text, encoding="ascii")
        loader.include_dirs = [str(build_folder)]
        loader.depends = [*loader.depends, str(header)]
        for extension in self.extensions:
            # All is made for one version of Python; with its suffix, in-place builds of several of them live together.
            extension.py_limited_api = False
            extension.extra_compile_args = [*extension.extra_compile_args, *STRICT]
            if extension is not loader:
                extension.extra_compile_args = [*extension.extra_compile_args, *HARDENING]
                extension.extra_link_args = [*extension.extra_link_args, *SAFE_LINK]
        super().run()

    def get_ext_filename(self, fullname: str) -> str:
        """A host is given this path by hand: libkeyfob.so, without the suffix of extension modules."""
        if fullname.rpartition(".")[2] in {name.rpartition(".")[2] for name in (LOADER, TRACER)}:
            return fullname.replace(".", "/") + ".so"
        return str(super().get_ext_filename(fullname))


setup(
    cffi_modules=["src/keyfob/abi/build.py:ffibuilder"],
    ext_modules=[loader, tracer, rsa, held],
    cmdclass={"build_ext": BuildExt},
)
