#!/bin/sh
# Install Debian packages without questions: scripts/apt.sh PACKAGE... (as root). Quiet unless it fails.
set -eu
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if { apt-get install -y --no-install-recommends "$@" || { apt-get update && apt-get install -y --no-install-recommends "$@"; }
} >"$log" 2>&1; then
    exit 0
fi
tail -n 15 "$log" >&2
echo "apt could not install: $*" >&2
exit 1
