#!/usr/bin/env bash
# Make a virtual environment with the pinned requirements and this project (editable) in it: make_venv.sh DIR
# Or with those of another file, and without this project: make_venv.sh DIR REQUIREMENTS
#
# PYTHON names the interpreter (default python3). Debian's python3 has neither pip nor venv's means to get it; they are
# in python3-venv. Where that is missing, the first of these that works is taken: root installs it; pip that is on
# the machine fills the environment from outside; pip's wheel is taken from Debian's package without installing that.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
requirements=${2:-requirements-dev.txt}
python=${PYTHON:-python3}

fail() {
    echo "make_venv: $*" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "there is no $python; install Python 3.11 or newer, or name one: make PYTHON=..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old, 3.11 or newer is needed; name another: make PYTHON=..."

has_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }
has_pip() { "$python" -m pip --version >/dev/null 2>&1; }

# An environment whose pip comes from Debian's package of pip's wheel, fetched and unpacked in a folder of our own with
# package lists of our own: that needs no right to install anything.
venv_with_debians_pip() {
    local work status=0
    work=$(mktemp -d)
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    local apt=(apt-get --quiet -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache")
    (cd "$work" && "${apt[@]}" update && "${apt[@]}" download python3-pip-whl && dpkg-deb --extract ./*.deb .) \
        >/dev/null 2>&1 &&
        "$python" -m venv --without-pip "$venv" &&
        "$venv/bin/python" "$(echo "$work"/usr/share/python-wheels/pip-*.whl)/pip" install --quiet pip || status=1
    rm -rf "$work"
    return $status
}

echo "making $venv with $("$python" --version) ..."
rm -rf "$venv"
if ! has_venv && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    scripts/apt_install.sh python3-venv || true # what follows tells whether that was enough
fi
if has_venv; then
    "$python" -m venv "$venv"
elif has_pip; then
    "$python" -m venv --without-pip "$venv"
    "$python" -m pip --python "$venv/bin/python" install --quiet pip
elif ! venv_with_debians_pip; then
    rm -rf "$venv"
    fail "$python can make no virtual environment: please run  sudo apt install python3-venv"
fi

"$venv/bin/python" -m pip install -qq --requirement "$requirements"
[ "$requirements" = requirements-dev.txt ] || exit 0
# Nothing is left to resolve or to download here: the build backend is among the pinned requirements.
"$venv/bin/python" -m pip install -qq --no-deps --no-build-isolation --editable .
