#!/usr/bin/env bash
# Make an environment that tests replicad on Debian's own runtime: make_debian_venv.sh DIR
#
# The interpreter and every library that replicad runs on are the distribution's; only pytest and its plugins come
# from the pins, so that the tests mean the same on both runtimes.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1

scripts/apt_install.sh python3-venv python3-grpcio python3-protobuf python3-cryptography python3-yaml \
    python3-sdnotify python3-click python3-rich python3-uvloop
rm -rf "$venv"
/usr/bin/python3 -m venv --system-site-packages "$venv"
"$venv/bin/python" -m pip install -qq --requirement requirements-test.txt
# A pin that pulled in a library of its own would test that one instead: fail here rather than mislead.
"$venv/bin/python" - <<'PYTHON'
import platform

import click, cryptography, google.protobuf, grpc, rich, sdnotify, uvloop, yaml

for module in (click, cryptography, google.protobuf, grpc, rich, sdnotify, uvloop, yaml):
    if not module.__file__.startswith("/usr/lib/python3/"):
        raise SystemExit(f"{module.__name__} is not Debian's: {module.__file__}")
print(f"Debian's runtime: Python {platform.python_version()}, grpcio {grpc.__version__}, "
      f"protobuf {google.protobuf.__version__}, cryptography {cryptography.__version__}")
PYTHON
