"""The packages just installed, and nothing configured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.packaging.lab import Host, properties

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
IMPORT_ALL = (
    "import importlib, pkgutil, replicad;"
    "names = [found.name for found in pkgutil.walk_packages(replicad.__path__, 'replicad.')];"
    "names = [name for name in names if not name.endswith('__main__')];"
    "[importlib.import_module(name) for name in names];"
    "print(*names)"
)


def test_it_does_not_start_and_says_what_to_do_next(fresh: Host) -> None:
    unit = properties(fresh, "replicad")
    assert (unit["ActiveState"], unit["UnitFileState"], unit["Result"]) == ("inactive", "disabled", "success")
    said = (fresh.folder / "install.log").read_text()
    assert "replicad is not started" in said
    assert "replicad-cli keys generate NODE --out /etc/replicad/node.key" in said
    assert fresh.says("systemctl is-system-running; true") == "running"


def test_every_module_is_there_and_imports_with_debians_own_libraries(fresh: Host) -> None:
    files = [file.relative_to(ROOT).with_suffix("") for file in (ROOT / "replicad").rglob("*.py")]
    modules = {".".join(file.parts).removesuffix(".__init__") for file in files if file.name != "__main__"}
    assert set(fresh.says(f'cd / && python3 -c "{IMPORT_ALL}"').split()) == modules - {"replicad"}
    assert "python3-cryptography" in fresh.says("dpkg-query --show --showformat='${Depends}' python3-replicad")


def test_manual_examples_and_the_page_that_the_installation_names_are_there(fresh: Host) -> None:
    fresh.ssh(
        "cd /usr/share/man && test -s man8/replicad.8.gz -a -s man5/replicad.yaml.5.gz -a -s man1/replicad-cli.1.gz"
    )
    for example in (ROOT / "packaging/examples").iterdir():
        there = fresh.ssh(f"cat /usr/share/doc/replicad/examples/{example.name}").stdout
        assert there == example.read_text()
    named = re.search(r"/usr/share/doc/\S+\.gz", (fresh.folder / "install.log").read_text())
    assert named is not None
    assert fresh.ssh(f"zcat {named[0]}").stdout == (ROOT / "packaging/debian/replicad.README.Debian").read_text()


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
