#!/bin/sh
# Pin what requirements/*.in name, with the hashes of every file of each release, so that one lock serves CPython 3.11 to
# 3.14 on every platform. `make lock` keeps the pins that still fit; `make lock UPGRADE=1` takes the newest of all.
set -eu
cd "$(dirname "$0")/.."
python=${1:?usage: scripts/lock.sh PYTHON}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check pip-tools
cd requirements
for name in runtime postgresql build dev; do
    echo "locking requirements/$name.txt"
    "$scratch/venv/bin/pip-compile" --quiet ${UPGRADE:+--upgrade} --generate-hashes --allow-unsafe --strip-extras \
        --no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file "$name.txt" "$name.in"
done
vectors=$(sed -n 's/^cryptography-vectors==\([^ ]*\).*/\1/p' dev.txt)
grep -q "^cryptography==$vectors " runtime.txt || {
    echo "cryptography-vectors $vectors must have the version of cryptography: pin both in requirements/*.in" >&2
    exit 1
}
