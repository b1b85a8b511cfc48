#!/usr/bin/env bash
# Make what test hosts boot from, where it is missing or old: make-test-images.sh RELEASE...
# Prints the tar file of each.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/debian-roots.sh
scripts/apt_install.sh systemd-container iptables iproute2 openssh-client procps >&2

for release; do
    host_root "$release"
done
