#!/usr/bin/env bash
# Install the Debian packages that are missing: apt_install.sh PACKAGE...
#
# Only root does, on Debian and its kin; anyone else is told the one command to type, and gets status 1.
set -euo pipefail

missing=()
for package in "$@"; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: please run  sudo apt install ${missing[*]}" >&2
    exit 1
fi
echo "installing by apt-get: ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() { apt-get install --yes --quiet --no-install-recommends "${missing[@]}"; }
# A fresh machine has no package lists, an old one has stale ones: either way the second try is with new lists.
if ! install >"$log" 2>&1 && ! { apt-get update --quiet && install; } >>"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
