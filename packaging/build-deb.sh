#!/usr/bin/env bash
# Build the Debian packages of the last commit, on each release in a clean root of its own, and let lintian look at them:
#
#   packaging/build-deb.sh [--suffix SUFFIX | --previous] [RELEASE...]  RELEASE: bookworm (12), trixie (13); default: both
#
# The packages come to build/deb/RELEASE/, and stay there until there is another commit. For tests of upgrades there are
# two more kinds, in whose builds no tests are run: those with a suffix behind their version come to
# build/deb/RELEASESUFFIX/, and those of the previous release, from its last commit, to build/deb/RELEASE-previous/.
#
# Any user may run it: mmdebstrap takes a user namespace where it is not root. The roots, with all that the build needs,
# are kept in build/roots and made anew when what they are made of changes. Debian's mirror is the one that this machine
# uses.
set -euo pipefail
cd "$(dirname "$0")/.."

suffix="" previous=""
case "${1-}" in
--suffix) suffix=$2 && shift 2 ;;
--previous) previous=yes && shift ;;
esac
[ $# -gt 0 ] || set -- bookworm trixie

build=$PWD/build
. packaging/debian-roots.sh

commit=$(git rev-parse HEAD)
[ -z "$previous" ] || commit=$(packaging/previous-release.sh)

# A source tree as dpkg-buildpackage wants it, from that commit alone: stage FOLDER
stage() {
    mkdir -p "$1"
    git archive "$commit" | tar --extract --directory "$1"
    mv "$1/packaging/debian" "$1/debian"
    if [ -n "$suffix" ]; then
        local log="$1/debian/changelog"
        { sed "1s/)/$suffix)/; /^ -- /q" "$log" && echo && cat "$log"; } >"$log.new"
        mv "$log.new" "$log"
    fi
}

build_in() { # build_in RELEASE ROOT-TAR OUT
    local work options="" command check="cd .. && lintian --fail-on error,warning ./*.changes"
    work=$(mktemp -d)
    chmod 755 "$work" # the user of a user namespace comes in here, too
    stage "$work/replicad"
    [ -z "$suffix$previous" ] || { options=nocheck && check=true; }
    command="cd /build/replicad && DEB_BUILD_OPTIONS='$options' dpkg-buildpackage --no-sign --build=full && $check"
    mkdir -p "$3"
    rm -f "$3"/*
    in_root "$1" "$2" \
        --customize-hook="mkdir \"\$1/build\"" \
        --customize-hook="copy-in '$work/replicad' /build" \
        --customize-hook="chroot \"\$1\" chown -R builder: /build" \
        --customize-hook="chroot \"\$1\" runuser -u builder -- sh -c \"$command\"" \
        --customize-hook="rm -r \"\$1/build/replicad\"" \
        --customize-hook="sync-out /build '$3'" || { rm -rf "$work"; return 1; }
    rm -rf "$work"
}

# root_for RELEASE: a release that needs the same to be built as this one shares its root.
root_for() {
    local debian status=0
    if git diff --quiet "$commit" HEAD -- packaging/debian/control; then
        build_root "$1"
        return
    fi
    debian=$(mktemp -d)
    git archive "$commit:packaging/debian" | tar --extract --directory "$debian"
    build_root "$1" "$debian" build-previous || status=$?
    rm -r "$debian"
    return "$status"
}

for release; do
    out=$build/deb/$release$suffix${previous:+-previous}
    root=$(root_for "$release")
    if [ "$(cat "$out/made-of" 2>/dev/null)" != "$commit $root" ]; then
        build_in "$release" "$root" "$out"
        echo "$commit $root" >"$out/made-of"
    fi
    echo "built: ${out#"$PWD"/}"
    (cd "$out" && ls -l --human-readable ./*.deb | awk '{ print "  " $5, $9 }')
done
