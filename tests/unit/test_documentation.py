"""What the pages say in tables and links is what the code says."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from replicad.core.record import LEAF_HEAD
from replicad.errors import SERVICE_ERRORS, ExitCode

ROOT = Path(__file__).resolve().parents[2]
#: As `python3 -c "importlib.metadata..."` says there.
DEBIAN_12 = {
    "grpcio": "1.51.1",
    "protobuf": "4.21.12",
    "cryptography": "38.0.4",
    "pyyaml": "6.0",
    "sdnotify": "0.3.1",
    "click": "8.1.3",
    "rich": "13.3.1",
    "uvloop": "0.17.0",
}
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def rows(page: str, first_column: str) -> list[list[str]]:
    """The body rows of the table in ``page`` whose first column is headed so."""
    lines = iter((ROOT / page).read_text().splitlines())
    for line in lines:
        if line.startswith(f"| {first_column} |"):
            next(lines)
            break
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_the_readme_has_every_exit_code() -> None:
    assert [int(row[0]) for row in rows("README.md", "exit code")] == [int(code) for code in ExitCode]


def test_the_readme_puts_every_status_code_at_its_exit_code() -> None:
    by_exit_code = {int(row[0]): row[1] for row in rows("README.md", "exit code")}
    for error in SERVICE_ERRORS.values():
        if error.code != 500:
            assert str(error.code) in by_exit_code[error.exit_code], error.name


def test_the_table_of_codes_is_that_of_the_errors() -> None:
    documented = {
        (row[0], row[1].split()[0], row[2], row[3]) for row in rows("docs/semantics.md", "code") if row[2] != "OK"
    }
    assert documented == {
        (str(error.code), error.name, error.grpc_status, error.applied.value) for error in SERVICE_ERRORS.values()
    }


def test_the_leaf_has_the_length_that_formats_says() -> None:
    sizes = [row[0] for row in rows("docs/formats.md", "bytes")]
    fixed = sizes[: sizes.index("1-128")]
    assert sum(int(size) for size in fixed) == LEAF_HEAD.size
    assert f"The head has {LEAF_HEAD.size} bytes" in (ROOT / "docs/formats.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_decision_is_in_the_list_of_decisions() -> None:
    decisions = {path.name for path in ROOT.glob("docs/adr/[0-9]*.md")}
    assert decisions == set(re.findall(r"\((\d{4}-[^)]+)\)", (ROOT / "docs/adr/README.md").read_text()))


@pytest.mark.parametrize("file", ["requirements-dev.txt", "requirements-test.txt"])
def test_every_requirement_is_pinned(file: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    wanted = [*groups["test"]]
    if file == "requirements-dev.txt":
        wanted += [*project["project"]["dependencies"], *(item for item in groups["dev"] if isinstance(item, str))]
    markers = {_name(item): Requirement(item).marker for item in wanted}
    pins = [line for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+(; [a-z_]+ .+)?", pin) for pin in pins)
    pinned = {_name(pin): Requirement(pin) for pin in pins}
    assert {name: pinned[name].marker for name in markers} == markers
    for item in wanted:
        assert Requirement(item).specifier.contains(str(pinned[_name(item)].specifier).removeprefix("=="))


def test_what_debian_12_ships_is_within_what_we_ask_for() -> None:
    """`make test-debian` runs on these; a lower bound that is raised past them would shut its packages out."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    shut_out = [item for item in map(Requirement, asked) if not item.specifier.contains(DEBIAN_12[_name(item.name)])]
    assert not shut_out
    assert len(asked) == len(DEBIAN_12)


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")
