"""What the packaging says again, it says as the code does."""

import re
from pathlib import Path

from replicad import __version__
from replicad.errors import ExitCode

PACKAGING = Path(__file__).parents[2] / "packaging"
UNIT = (PACKAGING / "systemd/replicad.service").read_text()
TEMPLATE = (PACKAGING / "systemd/replicad@.service").read_text()

#: A line of the unit that the template has otherwise, and how.
START = "ExecStart=/usr/bin/replicad --config /etc/replicad"
OTHERWISE = {
    f"{START}.yaml": f"{START}/%i.yaml",
    "Description=replicad, a replicated message log": "Description=replicad, a replicated message log: %i",
    "StateDirectory=replicad": "StateDirectory=replicad@%i",
    "LoadCredential=node.key:replicad.key": "LoadCredential=node.key:replicad@%i.key",
    "LoadCredential=tls.key:replicad.tls.key": "LoadCredential=tls.key:replicad@%i.tls.key",
    "EnvironmentFile=-/etc/replicad/node.env": "EnvironmentFile=-/etc/replicad/%i.env",
}


def directives(unit: str) -> list[str]:
    return [line for line in unit.splitlines() if line and not line.startswith("#")]


def test_the_template_unit_is_the_unit_but_for_its_names() -> None:
    assert set(OTHERWISE) <= set(directives(UNIT))
    assert directives(TEMPLATE) == [OTHERWISE.get(line, line) for line in directives(UNIT)]


def test_what_only_a_person_can_mend_is_not_started_again() -> None:
    assert f"RestartPreventExitStatus={ExitCode.USAGE} {ExitCode.CONFIG}" in directives(UNIT)


def test_the_package_has_the_projects_version() -> None:
    newest = re.match(r"replicad \((.+?)\) ", (PACKAGING / "debian/changelog").read_text())
    assert newest is not None
    assert newest[1] == __version__


def test_what_the_packages_build_tests_needs_no_more_than_the_build_has() -> None:
    """A module that can't be imported there fails the build; hypothesis is none of its dependencies."""
    rules = (PACKAGING / "debian/rules").read_text()
    places = [PACKAGING.parent / place for place in re.findall(r"\{dir\}/(\S+)", rules)]
    modules = [module for place in places for module in ([place] if place.is_file() else place.rglob("*.py"))]
    assert len(modules) > 20
    assert [
        module.name for module in modules if re.search(r"^(from|import) hypothesis", module.read_text(), re.M)
    ] == []
