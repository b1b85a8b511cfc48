"""The packages just installed, and nothing configured."""

from __future__ import annotations

import pytest

from tests.packaging.lab import Host, properties

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]


def test_it_does_not_start_and_says_what_to_do_next(fresh: Host) -> None:
    unit = properties(fresh, "replicad")
    assert (unit["ActiveState"], unit["UnitFileState"], unit["Result"]) == ("inactive", "disabled", "success")
    said = (fresh.folder / "install.log").read_text()
    assert "replicad is not started" in said
    assert "replicad-cli keys generate NODE --out /etc/replicad/node.key" in said
    assert fresh.says("systemctl is-system-running; true") == "running"


def test_a_start_with_the_example_config_fails_at_once_and_one_line_says_why(fresh: Host) -> None:
    assert fresh.ssh("systemctl start replicad", check=False).returncode != 0
    unit = properties(fresh, "replicad")
    assert (unit["ActiveState"], unit["ExecMainStatus"], unit["NRestarts"]) == ("failed", "3", "0")
    lines = fresh.says("journalctl --boot --output=cat SYSLOG_IDENTIFIER=replicad").splitlines()
    assert len(lines) == 1, lines
    assert "/etc/replicad.yaml: is still the example" in lines[0]
    assert "replicad-cli keys generate NODE" in lines[0]
    assert lines[0] in fresh.says("systemctl status --full --lines=20 replicad; true")


def test_the_units_are_valid_and_their_exposure_is_low(fresh: Host) -> None:
    verified = fresh.ssh("systemd-analyze verify replicad.service replicad@x.service", check=False)
    # There is no `man` on the host to show the pages that the units name.
    assert [line for line in verified.stderr.splitlines() if "Command 'man " not in line] == []
    for unit in ("replicad.service", "replicad@x.service"):
        fresh.ssh(f"systemd-analyze security --threshold=15 {unit}")


def test_the_daemons_user_is_its_own_and_can_do_nothing_else(fresh: Host) -> None:
    name, _, uid, _, _, home, shell = fresh.says("getent passwd replicad").split(":")
    assert (name, home, shell) == ("replicad", "/var/lib/replicad", "/usr/sbin/nologin")
    assert int(uid) < 1000


@pytest.mark.parametrize(
    "path",
    [
        "/usr/share/bash-completion/completions/replicad-cli",
        "/usr/share/zsh/vendor-completions/_replicad-cli",
        "/usr/share/fish/vendor_completions.d/replicad-cli.fish",
    ],
)
def test_words_are_completed_in_every_shell(fresh: Host, path: str) -> None:
    assert "_REPLICAD_CLI_COMPLETE" in fresh.says(f"cat {path}")


def test_bash_completes_a_command(fresh: Host) -> None:
    words = "_REPLICAD_CLI_COMPLETE=bash_complete COMP_WORDS='replicad-cli sta' COMP_CWORD=1 replicad-cli"
    assert fresh.says(words) == "plain,status"
