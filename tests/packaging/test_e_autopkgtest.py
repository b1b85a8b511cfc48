"""The package's own tests (packaging/debian/tests), as autopkgtest runs them on a machine of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.lab import Host, ReleaseLab

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

TESTS = Path(__file__).parents[2] / "packaging/debian/tests"


def test_the_packages_own_tests_pass(lab: ReleaseLab, used: Host) -> None:
    host = lab.boot("own", on=used)
    host.write("/srv/cluster", (TESTS / "cluster").read_text(), mode=0o755)
    command = next(line for line in (TESTS / "control").read_text().splitlines() if line.startswith("Test-Command: "))
    for test in ("/srv/cluster", command.removeprefix("Test-Command: ")):
        host.ssh(f"export AUTOPKGTEST_TMP=$(mktemp -d); {test}")
    host.die()
