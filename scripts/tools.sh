#!/bin/sh
# See that the programs of other projects are here which a task needs: scripts/tools.sh test|demo|bench|firefox
#
# On Debian and Ubuntu root gets what is missing from apt. Otherwise it is named, and the task says itself what it can do
# without: tests are skipped, the demo refuses.
set -eu
cd "$(dirname "$0")/.."

# A program that shows that a package is here, and the package.
nss="certutil:libnss3-tools"
openssl="openssl:openssl"
case ${1:-} in
    test) wanted="$nss $openssl pkcs11-tool:opensc softhsm2-util:softhsm2 p11-kit:p11-kit readelf:binutils p11tool:gnutls-bin pinentry-curses:pinentry-curses nss-config:libnss3-dev pkg-config:pkg-config pg_lsclusters:postgresql" ;;
    demo) wanted="$nss $openssl pkcs11-tool:opensc" ;;
    bench) wanted="$nss softhsm2-util:softhsm2 gcc:gcc" ;;
    firefox)
        wanted="$nss $openssl pkcs11-tool:opensc firefox-esr:firefox-esr thunderbird:thunderbird"
        wanted="$wanted chromium:chromium Xvfb:xvfb xdotool:xdotool openbox:openbox"
        ;;
    *) echo "usage: scripts/tools.sh test|demo|bench|firefox" >&2; exit 2 ;;
esac

missing=
for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing with apt:$missing" >&2
    # shellcheck disable=SC2086  one word per package
    exec scripts/apt.sh $missing
fi
echo "Not here:$missing (Debian, Ubuntu: apt install$missing)" >&2
