#!/usr/bin/env bash
# Write requirements-test.txt, requirements-dev.txt and requirements-ansible.txt anew: the newest releases that fit pyproject.toml today.
#
# Plain exact pins, no hashes: one file serves every platform and Python that we run on.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Where there is a wheel of it: as pyproject.toml says.
atheris="python_version < '3.14' and platform_machine == 'x86_64'"

lock() { # lock FILE TITLE PIP-ARGUMENTS...
    local file=$1 title=$2
    shift 2
    "${PYTHON:-python3}" -m venv "$work/$file"
    "$work/$file/bin/pip" install --quiet --upgrade pip # --group came with pip 25.1
    "$work/$file/bin/pip" install --quiet "$@"
    {
        printf '# %s Made by `make lock`; do not edit.\n' "$title"
        "$work/$file/bin/pip" freeze | sed "s/^\(atheris==.*\)/\1; $atheris/" # pip's freeze leaves markers out
    } >"$work/$file.txt"
    mv "$work/$file.txt" "$file"
}

"${PYTHON:-python3}" - >"$work/runtime.txt" <<'PYTHON'
import tomllib
with open("pyproject.toml", "rb") as file:
    print("\n".join(tomllib.load(file)["project"]["dependencies"]))
PYTHON
lock requirements-test.txt "What runs the tests, and no runtime dependency: for a machine that brings its own." --group test
lock requirements-dev.txt "All that develops, checks and runs replicad." --group dev --requirement "$work/runtime.txt"
lock requirements-ansible.txt "What runs ansible/ and its tests, in an environment of its own." --group ansible
