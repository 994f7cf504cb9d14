#!/bin/sh
# Make a virtual environment that can build and run keyfob: scripts/bootstrap.sh DIRECTORY [requirements.txt ...]
#
# The Python is $PYTHON, or that of the environment if it is there already, or the first fitting one of this machine. On
# Debian and Ubuntu root gets what is missing from apt; everybody else is told what to install.
set -eu
cd "$(dirname "$0")/.."
environment=${1:?usage: scripts/bootstrap.sh DIRECTORY [requirements.txt ...]}
shift
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

say() { printf '%s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

can_use_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# Whether a Python fits; its complaint, if any, is kept in $complaint.
fits() { complaint=$("$1" scripts/interpreter.py 2>&1); }

# The real program behind a name: pyenv's shims, for one, answer differently from folder to folder.
real() { "$1" -c 'import os, sys; print(os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable))'; }

find_python() {
    for name in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if command -v "$name" >/dev/null 2>&1 && fits "$name"; then
            real "$name"
            return 0
        fi
    done
    return 1
}

python_from_apt() {
    say "No Python 3.11 or later with headers and a shared library here: installing it with apt"
    scripts/apt.sh python3 python3-venv python3-dev || return 1
    fits /usr/bin/python3 && real /usr/bin/python3
}

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" >/dev/null || fail "There is no $PYTHON"
        fits "$PYTHON" || fail "$complaint"
        real "$PYTHON"
    elif [ -x "$environment/bin/python" ] && fits "$environment/bin/python"; then
        real "$environment/bin/python"
    else
        find_python || { can_use_apt && python_from_apt; } || fail "keyfob needs Python 3.11 or later with its headers" \
            "and its shared library (Debian, Ubuntu: apt install python3 python3-venv python3-dev). Last seen:
${complaint:-no Python at all}"
    fi
}

need_compiler() {
    command -v gcc >/dev/null || command -v cc >/dev/null && return
    can_use_apt || fail "A C compiler is needed (Debian, Ubuntu: apt install gcc libc6-dev)"
    say "No C compiler here: installing gcc with apt"
    scripts/apt.sh gcc libc6-dev
}

make_environment() {
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        can_use_apt || fail "$python cannot make virtual environments (Debian, Ubuntu: apt install $package)"
        say "$python cannot make virtual environments: installing $package with apt"
        scripts/apt.sh "$package"
    fi
    say "Making $environment with $("$python" --version) ($python)"
    rm -rf "$environment"
    "$python" -m venv "$environment"
}

need_compiler
python=$(choose_python)
if ! [ -x "$environment/bin/python" ] || [ "$(real "$environment/bin/python")" != "$python" ]; then
    make_environment
fi
for file in "$@"; do
    say "Installing $file"
    "$environment/bin/python" -m pip install --quiet --require-hashes --requirement "$file" || fail \
        "pip could not install $file. Without a network, put the files into a folder and say PIP_NO_INDEX=1" \
        "PIP_FIND_LINKS=FOLDER make build"
done
