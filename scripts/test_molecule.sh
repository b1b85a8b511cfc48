#!/usr/bin/env bash
# Run Molecule's scenarios, two side by side: test_molecule.sh [SCENARIO...]; without a name, all there are.
#
# To be run with the environment of `make molecule` on PATH. What a scenario says goes to build/molecule-logs; of one that
# failed, the tasks that failed are shown, at the very end. JOBS is how many run at once: each waits for its hosts most of
# the time.
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

scenario() {
    local began=$SECONDS log=$logs/$1.log
    rm -f "$log.failed"
    if molecule test -s "$1" >"$log" 2>&1; then
        echo "molecule $1: passed after $((SECONDS - began)) s"
    else
        echo "molecule $1: FAILED after $((SECONDS - began)) s" | tee "$log.failed"
        return 1
    fi
}
export -f scenario

# The tasks that failed, each with all it said; the log's end where none did.
failures() {
    {
        awk '/^(TASK|PLAY|RUNNING HANDLER) / { if (failed) printf "%s", text; text = ""; failed = 0 }
             { text = text $0 "\n" }
             /^(fatal|failed): / { failed = 1 }
             END { if (failed) printf "%s", text }' "$1"
        grep --quiet --extended-regexp '^(fatal|failed): ' "$1" || cat "$1"
    } | tail -n 100 | cut -c 1-4000
}

began=$SECONDS
status=0
printf '%s\0' "$@" | xargs --null --max-procs="${JOBS:-2}" -I '{}' bash -c 'scenario "$1"' bash '{}' || status=1
for name; do
    if [ -e "$logs/$name.log.failed" ]; then
        echo "== molecule $name failed, see build/molecule-logs/$name.log:"
        failures "$logs/$name.log"
    fi
done
echo "molecule: $# scenarios, $([ $status -eq 0 ] && echo all passed || echo not all passed), in $((SECONDS - began)) s"
exit $status
