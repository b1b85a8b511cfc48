"""What the lab of test hosts says of a host that does not come; no host is started."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.packaging import lab as lab_module
from tests.packaging import labctl
from tests.packaging.lab import Failed, Host

#: In place of SSH to a host: its shell is one here, and its systemd waits for a service that never is ready.
SSH = '#!/bin/sh\nfor command; do :; done\nexec sh -c "$command"\n'
SYSTEMCTL = """#!/bin/sh
case $1 in
is-system-running) exec sleep 30 ;;
list-jobs) echo "71 replicad.service start running" ;;
esac
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    for name, text in (("ssh", SSH), ("systemctl", SYSTEMCTL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(Host, "_answers", lambda _: True)
    monkeypatch.setattr(lab_module, "RUN_S", 2.0)
    monkeypatch.setattr(lab_module, "BOOT_S", 0.3)
    return Host("n1", "rl1-n1", "198.18.1.11", tmp_path, [])


def test_a_host_whose_boot_waits_for_a_service_says_for_which(host: Host) -> None:
    with pytest.raises(Failed, match=r"rl1-n1 to have booted: not within 0\.3 s.*\n.*replicad\.service start running"):
        host.wait()


def test_a_command_that_does_not_end_is_told(host: Host) -> None:
    with pytest.raises(Failed, match=r"^rl1-n1: no end within 2 s of: sleep 30$"):
        host.ssh("sleep 30")


@pytest.mark.parametrize(
    ("name", "told"), [("n1", "rl1-n1 has no root in .*: .*make the lab anew"), ("n9", "no host n9 in .*; it has n1")]
)
def test_of_a_host_that_is_not_there_labctl_says_so(
    name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = {"n1": {"address": "198.18.1.11", "release": "13"}}
    (tmp_path / labctl.SPECIFICATION).write_text(json.dumps({"number": 1, "hosts": hosts}))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(SystemExit, match=told):
        labctl.main(["boot", str(tmp_path), name])


def test_a_command_of_this_machine_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hangs(*_: object) -> None:
        raise subprocess.TimeoutExpired(["umount", "/x"], 180.0)

    monkeypatch.setattr(labctl, "destroy", hangs)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(SystemExit, match=r"'umount', '/x'.*timed out after 180"):
        labctl.main(["destroy", str(tmp_path)])
