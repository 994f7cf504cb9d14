"""What a reader of the figures must know about the machine. No host names, no paths: the results are published."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cryptography
from cryptography.hazmat.backends.openssl import backend


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 and done.stdout.strip() else None


def _field(file: str, name: str) -> str | None:
    """The first `name: value` or `name=value` line of a file under /proc or /etc."""
    try:
        text = Path(file).read_text(errors="replace")
    except OSError:
        return None
    found = re.search(rf"^{re.escape(name)}\s*[:=]\s*\"?(.*?)\"?$", text, re.MULTILINE)
    return found.group(1) if found else None


def package_version(package: str) -> str | None:
    """The version of an installed Debian package; None elsewhere."""
    return _output("dpkg-query", "-W", "-f", "${Version}", package)


def filesystem(folder: Path) -> str:
    """The kind of file system that a folder is on, e.g. "ext4"."""
    return _output("stat", "-f", "-c", "%T", str(folder)) or "unknown"


def facts() -> dict[str, Any]:
    """Processor, memory, system and the versions that matter for the figures."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "system": _field("/etc/os-release", "PRETTY_NAME") or platform.system(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "python_compiler": platform.python_compiler(),
        "cryptography": cryptography.__version__,
        "openssl_of_cryptography": backend.openssl_version_text(),
        "gcc": _output("gcc", "-dumpfullversion"),
        "libc": " ".join(platform.libc_ver()),
    }


def slug(machine: dict[str, Any]) -> str:
    """A short name of the kind of machine for a file name, e.g. "amd-epyc-2-cores"."""
    words = re.sub(r"\(r\)|\(tm\)|@.*|\bcpu\b|\bprocessor\b", " ", machine["cpu"].lower())
    return "-".join([*re.findall(r"[a-z0-9]+", words), str(machine["cores"]), "cores", f"py{sys.version_info.minor}"])
