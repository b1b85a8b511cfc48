"""Many seeds, on all cores: what CI and ``make sim`` run.

Owns how seeds are spread over processes and timed. Must not know what a simulation does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

from tests.simulation.run import Outcome, Scenario, simulate

SEEDS_AT_ONCE = 10  # a process is handed so many: enough not to wait for the next, few enough to stop soon


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of many scenarios; ``failure`` is the first that failed, if any did."""

    seeds: int
    steps: int
    taken_s: float
    failure: Outcome | None = None

    def __str__(self) -> str:
        per_s = f"{self.steps / self.taken_s:,.0f} steps/s, {self.seeds / self.taken_s:.1f} seeds/s"
        return f"{self.seeds} seeds, {self.steps:,} steps in {self.taken_s:.1f} s: {per_s}"


def run_here(scenarios: Iterable[Scenario], *, stop_after_s: float = float("inf")) -> Tally:
    """One after the other in this process, to the first failure."""
    begun = time.perf_counter()
    seeds = steps = 0
    for scenario in scenarios:
        outcome = simulate(scenario)
        seeds, steps = seeds + 1, steps + outcome.steps
        taken_s = time.perf_counter() - begun
        if not outcome.ok or taken_s >= stop_after_s:
            return Tally(seeds, steps, taken_s, None if outcome.ok else outcome)
    return Tally(seeds, steps, time.perf_counter() - begun)


def run_spread(scenarios: Iterable[Scenario], *, stop_after_s: float = float("inf"), jobs: int | None = None) -> Tally:
    """On ``jobs`` processes (all cores), to the first failure or the end of the time."""
    begun, source = time.perf_counter(), iter(scenarios)
    seeds = steps = 0
    failure: Outcome | None = None
    jobs = jobs or os.cpu_count() or 1
    with ProcessPoolExecutor(jobs) as pool:
        waiting = {pool.submit(run_here, lot) for lot in islice(_lots(source), 2 * jobs)}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                tally = future.result()
                seeds, steps, failure = seeds + tally.seeds, steps + tally.steps, failure or tally.failure
            if failure is None and time.perf_counter() - begun < stop_after_s:
                waiting |= _more(pool, source, len(done))
    return Tally(seeds, steps, time.perf_counter() - begun, failure)


def _lots(source: Iterator[Scenario]) -> Iterator[list[Scenario]]:
    while lot := list(islice(source, SEEDS_AT_ONCE)):
        yield lot


def _more(pool: ProcessPoolExecutor, source: Iterator[Scenario], count: int) -> set[Future[Tally]]:
    return {pool.submit(run_here, lot) for lot in islice(_lots(source), count)}
