"""The order of a whole run: what needs no cluster first; then real clusters, a module's tests one after another.

Owns that order, and what ``auto`` is in ``pytest -n auto``, which ``make test`` runs.
"""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent

#: Long tests first, so that all processors end together. Folders that are named nowhere come behind these.
EARLY = ("simulation", "property", "unit")
CLUSTERS = ("integration", "faults")
PACKAGING, RELEASES = "packaging", ("bookworm", "trixie")


def _rank(item: pytest.Item) -> int:
    folder = item.path.relative_to(HERE).parts[0]
    if folder == PACKAGING:
        return 0  # alone, and in the alphabet's order: see tests/packaging/conftest.py
    if folder in CLUSTERS:
        return len(EARLY) + 1
    return EARLY.index(folder) if folder in EARLY else len(EARLY)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_rank)  # a stable sort: within a folder the order stays


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A process more than there are processors: who tests a cluster waits most of the time."""
    del config
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With ``-n``: the cluster tests of a module are one piece of work, all packaging tests of a release are one, and
    every other test is one."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - there only where this hook is called

    class Pieces(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(f"{HERE.name}/{PACKAGING}/"):
                return next((name for name in RELEASES if name in nodeid), nodeid)  # a lab each, two at a time
            of_cluster = nodeid.startswith(tuple(f"{HERE.name}/{name}/" for name in CLUSTERS))
            return nodeid.partition("::")[0] if of_cluster else nodeid

    config.option.loadscopereorder = False  # it would take the piece of many tests first
    return Pieces(config, log)
