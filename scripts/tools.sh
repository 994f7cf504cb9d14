#!/bin/sh
# See that the programs of other projects are here which a task needs: scripts/tools.sh test|interop|demo|bench|firefox
#
# On Debian and Ubuntu root gets what is missing from apt. Otherwise it is named, and the task says itself what it can do
# without: tests are skipped, the demo refuses.
set -eu
cd "$(dirname "$0")/.."

# A program that shows that a package is here, or the path of a file (which may have wildcards), and the package.
nss="certutil:libnss3-tools"
openssl="openssl:openssl"
test="$nss $openssl pkcs11-tool:opensc softhsm2-util:softhsm2 p11-kit:p11-kit p11tool:gnutls-bin readelf:binutils"
test="$test pinentry-curses:pinentry-curses nss-config:libnss3-dev pkg-config:pkg-config pg_lsclusters:postgresql"
test="$test /usr/lib/*/libjemalloc.so.2:libjemalloc2 /usr/lib/*/libtcmalloc_minimal.so.4:libtcmalloc-minimal4"
case ${1:-} in
    test) wanted="$test" ;;
    interop)
        wanted="$test ssh-agent:openssh-client stunnel4:stunnel4 keytool:default-jre-headless"
        wanted="$wanted /usr/lib/*/engines-3/pkcs11.so:libengine-pkcs11-openssl"
        ;;
    demo) wanted="$nss $openssl pkcs11-tool:opensc" ;;
    bench) wanted="$nss softhsm2-util:softhsm2 gcc:gcc" ;;
    firefox)
        wanted="$nss $openssl pkcs11-tool:opensc firefox-esr:firefox-esr thunderbird:thunderbird"
        wanted="$wanted chromium:chromium Xvfb:xvfb xdotool:xdotool openbox:openbox"
        ;;
    *) echo "usage: scripts/tools.sh test|interop|demo|bench|firefox" >&2; exit 2 ;;
esac

is_here() {
    case $1 in
        */*) (set +f && set -- $1 && [ -e "$1" ]) ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

missing=
set -f # a path's wildcards are looked at by is_here
for pair in $wanted; do
    is_here "${pair%%:*}" || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing with apt:$missing" >&2
    # shellcheck disable=SC2086  one word per package
    exec scripts/apt.sh $missing
fi
echo "Not here:$missing (Debian, Ubuntu: apt install$missing)" >&2
