"""Our two programs as commands for a shell, run by this test's interpreter from this checkout, installed or not."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_MODULES = {"replicad": "replicad", "replicad-cli": "replicad.cli"}
#: A client's settings: a test's programs must not find somebody's own cluster.
_NOT_INHERITED = ("REPLICAD_ADDRESS", "AUTH_TOKEN", "REPLICAD_CA", "REPLICAD_CERTIFICATE", "REPLICAD_KEY")


def programs_env(folder: Path) -> dict[str, str]:
    """An environment whose PATH begins with ``folder``, where the programs are put."""
    folder.mkdir(exist_ok=True)
    for name, module in _MODULES.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {module} "$@"\n')
        script.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    path = f"{folder}{os.pathsep}{env.get('PATH', os.defpath)}"
    return env | {"PATH": path, "PYTHONPATH": str(ROOT)}
