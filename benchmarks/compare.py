"""Is this checkout faster than that one? ``python benchmarks/compare.py OLD [NEW] [--rounds N] [-- options of bench]``

Runs `replicad-cli bench` of two checkouts by turns and prints, for each figure, the median of both, their ratio (new to
old, the median over the rounds), and the lowest and highest ratio of a round. Owns that arithmetic; what is measured,
bench owns. Runs on this script's interpreter and the libraries there.

By turns, because the same code gives other figures an hour later: other load, other disk, other temperature. Within a
round both sides have about the same luck, and every other round begins with the other side.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_ROUNDS = 5  # chance alone puts five rounds on one side once in 16 times

#: What is compared, as bench's lines name it, and whether more of it is better.
METRICS = {"msg_per_s": True, "p50_ms": False, "p99_ms": False, "rss_mib": False}

#: A figure is named by workload, size in bytes, metric.
Key = tuple[str, int, str]
Figures = Mapping[Key, float]


class CompareError(Exception):
    """There is nothing to compare; the text says why."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of both sides; the ratios are new to old, of one round each."""

    key: Key
    old: float
    new: float
    ratio: float
    lowest: float
    highest: float

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` when all rounds agree, else ``-``."""
        if self.lowest <= 1 <= self.highest:
            return "-"
        return "better" if (self.lowest > 1) == METRICS[self.key[2]] else "worse"


def figures(lines: str) -> dict[Key, float]:
    """The figures in the lines that ``bench --output json`` printed; of a cluster's memory, the largest node's."""
    found: dict[Key, float] = {}
    for line in lines.splitlines():
        row = json.loads(line)
        for metric in METRICS:
            value = max(row[metric].values(), default=None) if metric == "rss_mib" else row[metric]
            if value:
                found[row["workload"], row["size"], metric] = float(value)
    return found


def compare(rounds: Sequence[tuple[Figures, Figures]]) -> list[Comparison]:
    """A comparison for each figure that both sides gave in every round; ``rounds`` are pairs of old and new."""
    common = [key for key in rounds[0][0] if all(key in side for pair in rounds for side in pair)]
    made = []
    for key in common:
        ratios = [new[key] / old[key] for old, new in rounds]
        made.append(
            Comparison(
                key,
                median(old[key] for old, _ in rounds),
                median(new[key] for _, new in rounds),
                median(ratios),
                min(ratios),
                max(ratios),
            )
        )
    return made


@contextmanager
def checkout(what: str) -> Iterator[Path]:
    """A folder with the checkout: ``what`` itself, or a git worktree of that revision for as long as this lasts."""
    folder = Path(what)
    if (folder / "replicad").is_dir():
        yield folder.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="replicad-compare-") as parent:
        tree = Path(parent) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        try:
            added = subprocess.run([*git, "add", "--quiet", "--detach", str(tree), what], check=False).returncode == 0
        except FileNotFoundError:  # no git here
            added = False
        if not added:
            raise CompareError(f"{what} is neither a checkout's folder nor a revision that git finds")
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=False)


def bench(tree: Path, options: Sequence[str]) -> dict[Key, float]:
    """Run the checkout's own bench with its own nodes. Raises CompareError."""
    # `python -m` looks into the working folder first, then there; both hold for the nodes that bench starts, too.
    env = os.environ | {"PYTHONPATH": str(tree)}
    command = [sys.executable, "-m", "replicad.cli", "bench", "--output", "json", *options]
    ran = subprocess.run(command, cwd=tree, env=env, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode:
        raise CompareError(f"bench of {tree} ended with exit code {ran.returncode}")
    return figures(ran.stdout)


def report(comparisons: Sequence[Comparison]) -> str:
    """The table."""
    lines = [f"{'WORKLOAD':8} {'SIZE':>6}  {'FIGURE':9} {'OLD':>12} {'NEW':>12}  {'RATIO':>6}  LOWEST-HIGHEST"]
    for each in comparisons:
        workload, size, metric = each.key
        lines.append(
            f"{workload:8} {size:>6}  {metric:9} {each.old:>12,.2f} {each.new:>12,.2f}  {each.ratio:>6.3f}  "
            f"{each.lowest:.3f}-{each.highest:.3f}  {each.verdict}"
        )
    return "\n".join(lines)


def run(trees: Sequence[Path], *, rounds: int, options: Sequence[str]) -> list[Comparison]:
    """Measure both, ``rounds`` times by turns. Raises CompareError."""
    pairs = []
    for number in range(rounds):
        print(f"round {number + 1} of {rounds} ...", file=sys.stderr, flush=True)
        if number % 2 == 0:
            old, new = bench(trees[0], options), bench(trees[1], options)
        else:
            new, old = bench(trees[1], options), bench(trees[0], options)
        pairs.append((old, new))
    return compare(pairs)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Compare the speed and memory of two checkouts, side by side.",
        epilog="What follows -- goes to `replicad-cli bench`: -- --workload W3 --size 100 --messages 1000000",
    )
    parser.add_argument("old", metavar="OLD", help="a git revision, or the folder of a checkout")
    parser.add_argument("new", metavar="NEW", nargs="?", default=str(ROOT), help="the same; default: this checkout")
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS, metavar="N", help="default: %(default)s")
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:cut])
    if options.rounds < 1:
        parser.error("--rounds: at least one")
    try:
        with ExitStack() as stack:
            trees = [stack.enter_context(checkout(what)) for what in (options.old, options.new)]
            print(report(run(trees, rounds=options.rounds, options=sys.argv[cut + 1 :])))
    except CompareError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
