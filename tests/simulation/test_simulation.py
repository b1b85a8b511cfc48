"""Thousands of seeds in CI, and that a seed is all there is to a run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from replicad.errors import InvariantError
from tests.simulation.campaign import run_spread
from tests.simulation.node import Node
from tests.simulation.profile import WEATHERS
from tests.simulation.run import Scenario, simulate
from tests.simulation.world import World

SEEDS_A_TEST = 300  # well within the time limit of a test, on one slow core too


def assert_all_keep_their_promises(scenarios: list[Scenario]) -> None:
    tally = run_spread(scenarios)
    print(tally)
    assert tally.failure is None, f"\n{tally.failure.report}"
    assert tally.seeds == len(scenarios)


@pytest.mark.parametrize("lot", range(6))
def test_clusters_of_any_size_keep_every_promise_in_any_weather(lot: int) -> None:
    first = 1 + lot * SEEDS_A_TEST
    assert_all_keep_their_promises([Scenario(seed) for seed in range(first, first + SEEDS_A_TEST)])


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("weather", WEATHERS)
def test_three_and_five_nodes_keep_every_promise_in_each_weather(nodes: int, weather: str) -> None:
    first = 100_000 * nodes
    assert_all_keep_their_promises([Scenario(first + n, nodes, weather) for n in range(SEEDS_A_TEST // 3)])


def test_a_single_node_keeps_every_promise() -> None:
    assert_all_keep_their_promises([Scenario(200_000 + n, nodes=1) for n in range(SEEDS_A_TEST // 2)])


def test_a_seed_is_the_same_run_in_every_process() -> None:
    scenario = Scenario(7)
    here = simulate(scenario)
    program = (
        "from tests.simulation.run import Scenario, simulate\n"
        "o = simulate(Scenario(7)); print(o.steps, o.records, o.root.hex())"
    )
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [str(here.steps), str(here.records), here.root.hex()]


def test_seeds_are_not_all_the_same_run() -> None:
    roots = {simulate(Scenario(seed)).root for seed in range(1, 6)}
    assert len(roots) == 5


def test_a_failure_tells_its_story_and_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: Node) -> None:
        raise InvariantError("for this test")

    monkeypatch.setattr(Node, "crash", crash)
    failure = next(o for seed in range(1, 50) if not (o := simulate(Scenario(seed, nodes=3))).ok)
    lines = failure.report.splitlines()
    assert lines[0].startswith(f"seed {failure.scenario.seed} fails after ")
    assert any(("Hello(" in line or "Inquiry(" in line) and "node-1" in line for line in lines)
    assert lines[-2] == f"seed {failure.scenario.seed}: InvariantError: for this test"
    assert lines[-1] == f"replay: python -m tests.simulation --seed {failure.scenario.seed} --nodes 3"


def test_actions_happen_in_the_order_of_their_times_and_of_their_asking() -> None:
    world, order = World(1), list[str]()
    world.after(0.2, order.append, "late")
    world.after(0.1, order.append, "first of two")
    world.after(0.1, order.append, "second of two")
    world.run(1.0)
    assert (order, world.now) == (["first of two", "second of two", "late"], 1.0)
