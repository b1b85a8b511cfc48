"""The test of the test: each deliberately broken core is caught within the seeds stated for it, and put back after."""

from __future__ import annotations

import pytest

from tests.simulation.broken import BREAKAGES, Breakage
from tests.simulation.campaign import run_here
from tests.simulation.run import Scenario, simulate

pytestmark = pytest.mark.timeout(600)  # a matter of processor time alone; many minutes where much else runs


@pytest.mark.parametrize("broken", BREAKAGES.values(), ids=lambda broken: broken.name)
def test_a_broken_core_is_caught(broken: Breakage) -> None:
    with broken.applied():
        tally = run_here(broken.scenarios())
    assert tally.failure is not None, f"{broken.name} was not noticed in {tally.seeds} seeds"
    print(tally.failure.report.splitlines()[-2])


def test_a_core_is_whole_again_after_it_was_broken() -> None:
    for broken in BREAKAGES.values():
        with broken.applied():
            pass
    assert simulate(Scenario(1)).ok
