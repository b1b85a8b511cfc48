#!/usr/bin/env bash
# Look the pinned requirements over: audit.sh VENV
#
# What needs no network comes first: the environment is what the pins say, and its parts fit together. Whether a release
# is known to be vulnerable is in a database on the Internet, which pip-audit asks; where it can't be asked, that is said,
# and the status is 75 (EX_TEMPFAIL): not asked is not passed.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$venv/bin/python" -m pip check
"$venv/bin/python" -m pip install --quiet --no-deps --no-index --dry-run --requirement requirements-dev.txt

"$venv/bin/python" -m venv "$work/venv" # of its own: what audits is not among what is audited
if ! "$work/venv/bin/python" -m pip install --quiet pip-audit 2>"$work/errors"; then
    echo "audit: NOT ASKED whether a pin is known to be vulnerable: pip-audit can't be had (no network?)" >&2
    exit 75
fi
status=0
timeout 120 "$work/venv/bin/pip-audit" --requirement requirements-dev.txt --no-deps --disable-pip --format json \
    --output "$work/report.json" 2>"$work/errors" || status=$?
if [ ! -s "$work/report.json" ]; then
    echo "audit: NOT ASKED whether a pin is known to be vulnerable: no answer from the database (no network?)" >&2
    tail -n 1 "$work/errors" >&2
    exit 75
fi
cat "$work/errors" >&2
"$venv/bin/python" - "$work/report.json" <<'PYTHON'
import json
import sys

with open(sys.argv[1]) as file:
    for package in json.load(file)["dependencies"]:
        for fault in package.get("vulns", []):
            print(f"{package['name']} {package['version']}: {fault['id']}, mended in {fault['fix_versions'] or 'none'}")
PYTHON
exit $status
