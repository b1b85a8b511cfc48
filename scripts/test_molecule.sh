#!/usr/bin/env bash
# Run Molecule's scenarios, two side by side: test_molecule.sh [SCENARIO...]; without a name, all there are.
#
# To be run with the environment of `make molecule` on PATH. What a scenario says goes to build/molecule-logs; of one that
# failed, the end is shown. JOBS is how many run at once: each waits for its hosts most of the time.
set -euo pipefail
cd "$(dirname "$0")/.."

export logs=$PWD/build/molecule-logs ANSIBLE_NOCOLOR=1 NO_COLOR=1
mkdir -p "$logs"
cd ansible
if [ $# -eq 0 ]; then
    for file in molecule/*/molecule.yml; do
        file=${file%/molecule.yml}
        set -- "$@" "${file##*/}"
    done
fi
for name; do
    shift
    # What there is to upgrade from is built from the history, which a shallow clone lacks.
    if [ "$name" = upgrade ] && ! ls ../build/deb/*-previous/*.deb >/dev/null 2>&1; then
        echo "molecule upgrade: LEFT OUT, there are no packages of the previous release: make molecule says why"
        continue
    fi
    set -- "$@" "$name"
done
[ $# -gt 0 ] || exit 0

# What it prints at the end comes in one piece: another one may end at the same time.
scenario() {
    local began=$SECONDS log=$logs/$1.log
    if molecule test -s "$1" >"$log" 2>&1; then
        echo "molecule $1: passed after $((SECONDS - began)) s"
    else
        printf '%s\n' "$(tail -n 200 "$log")" "molecule $1: FAILED after $((SECONDS - began)) s, see ${log#"${logs%/*/*}"/}"
        return 1
    fi
}
export -f scenario

began=$SECONDS
status=0
printf '%s\0' "$@" | xargs --null --max-procs="${JOBS:-2}" -I '{}' bash -c 'scenario "$1"' bash '{}' || status=1
echo "molecule: $# scenarios, $([ $status -eq 0 ] && echo all passed || echo not all passed), in $((SECONDS - began)) s"
exit $status
