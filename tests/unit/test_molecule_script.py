"""What scripts/test_molecule.sh says at the end, of a scenario that failed; Molecule is a program that prints a log."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "test_molecule.sh"

LOG = """PLAY [Deploy] ****

TASK [a task that went through] ****
ok: [log-1]

TASK [the task that failed] ****
fatal: [log-2]: FAILED! =>
    msg: no space left

PLAY RECAP ****
log-2                      : ok=1 failed=1
"""
DESTROY = "TASK [Kill and remove the hosts, however many there are] ****\nchanged: [localhost]\n" + "a line\n" * 300


def test_of_a_scenario_that_failed_the_last_words_are_why(tmp_path: Path) -> None:
    for name in ("scripts", "ansible", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "scripts" / SCRIPT.name).write_bytes(SCRIPT.read_bytes())
    (tmp_path / "log").write_text(LOG + DESTROY)
    (tmp_path / "bin" / "molecule").write_text(f"#!/bin/sh\ncat {tmp_path}/log\nexit 1\n")
    (tmp_path / "bin" / "molecule").chmod(0o755)
    ran = subprocess.run(
        ["bash", str(tmp_path / "scripts" / SCRIPT.name), "default"],
        env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    failed, _, task, fatal, message, _, summary = ran.stdout.splitlines()
    assert failed.startswith("molecule default: FAILED after"), failed
    assert [task, fatal, message] == LOG.splitlines()[5:8]
    assert summary.startswith("molecule: 1 scenarios, not all passed"), summary
