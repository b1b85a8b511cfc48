#!/usr/bin/env bash
# Make what test hosts boot from, where it is missing or old:
#
#   packaging/make-test-images.sh host|ansible RELEASE...      host: to test the packages on; ansible: to be deployed to
#
# Prints the tar file of each.
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/debian-roots.sh
scripts/apt_install.sh systemd-container iptables iproute2 openssh-client procps >&2

kind=$1
shift
for release; do
    "${kind}_root" "$release"
done
