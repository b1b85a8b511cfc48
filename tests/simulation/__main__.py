"""``python -m tests.simulation``: simulate clusters until something breaks, or replay one seed exactly."""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from contextlib import nullcontext

from tests.simulation.broken import BREAKAGES
from tests.simulation.campaign import run_here, run_spread
from tests.simulation.profile import MIXED, WEATHERS
from tests.simulation.run import Scenario


def main() -> int:
    """0 when all seeds keep every promise; 1, with the transcript of the first that does not."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--seed", type=int, help="replay this one")
    what.add_argument("--seeds", type=int, metavar="N", help="run N seeds, from --first on")
    what.add_argument("--seconds", type=float, metavar="S", help="run seeds for so long (60), from --first on")
    parser.add_argument("--first", type=int, metavar="SEED", help="the first of many seeds; drawn unless given")
    parser.add_argument("--nodes", type=int, choices=range(1, 8), metavar="1..7", help="so many nodes in every seed")
    parser.add_argument("--weather", choices=[MIXED, *WEATHERS], default=MIXED, help="which faults (mixed)")
    parser.add_argument("--jobs", type=int, help="processes (all cores)")
    parser.add_argument("--broken", choices=sorted(BREAKAGES), metavar="NAME", help="break the core so, in one process")
    options = parser.parse_args()
    first = options.first if options.first is not None else random.SystemRandom().randrange(10**9)
    if options.seed is not None:
        first, count = options.seed, 1
    else:
        count = options.seeds
    numbers = itertools.count(first) if count is None else range(first, first + count)
    scenarios = (Scenario(number, options.nodes, options.weather) for number in numbers)
    stop_after_s = float("inf") if count is not None else options.seconds or 60.0
    print(f"seeds from {first} on", flush=True)
    here = options.seed is not None or options.broken
    with BREAKAGES[options.broken].applied() if options.broken else nullcontext():
        if here:
            tally = run_here(scenarios, stop_after_s=stop_after_s)
        else:
            tally = run_spread(scenarios, stop_after_s=stop_after_s, jobs=options.jobs)
    if tally.failure is not None:
        print(tally.failure.report)
    print(tally)
    return 1 if tally.failure is not None else 0


if __name__ == "__main__":
    sys.exit(main())
