#!/usr/bin/env bash
# Print the last commit of the previous release: the parent of the one that brought the newest entry of Debian's changelog.
#
# Where the clone is too shallow to have it, the rest of the history is fetched. Owns what "the previous release" is; must
# not know what is built from it.
set -euo pipefail
cd "$(dirname "$0")/.."
log=packaging/debian/changelog

# The package and version at the top of a commit's changelog: "replicad (1.2.3)".
newest_in() {
    git show "$1:$log" | sed -n '1s/).*/)/p'
}

# -S: only commits in which there are more or fewer of it than before; the first of them brought it.
previous() {
    local brought before
    brought=$(git log --format=%H -S"$newest" -- "$log" | tail -n 1)
    before=$(git rev-parse --quiet --verify "$brought^1^{commit}") || return 1
    [ "$(newest_in "$before")" != "$newest" ] && echo "$before"
}

newest=$(newest_in HEAD)
if commit=$(previous); then
    echo "$commit"
    exit
fi
if [ "$(git rev-parse --is-shallow-repository)" != true ]; then
    echo "there is no release before $newest in this history: nothing changed the top of $log since its first commit" >&2
    exit 1
fi
remote=$(git remote | sed -n 1p)
if [ -n "$remote" ]; then
    echo "this clone is shallow: fetching its history from $remote, for the release before $newest" >&2
    if GIT_TERMINAL_PROMPT=0 git fetch --quiet --unshallow "$remote" >&2 && commit=$(previous); then
        echo "$commit"
        exit
    fi
fi
echo "this clone is shallow, and the release before $newest is not in it${remote:+ nor to be had from $remote}:" \
    "take a full clone, or git fetch --unshallow from one" >&2
exit 1
