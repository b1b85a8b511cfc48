"""What a run has shown, for a person to read. Owns the words."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.campaign import Result


def lines(result: Result, *, broken: bool = False) -> Iterator[str]:
    """``broken``: it came to no judgement."""
    history = result.history
    yield f"seed {result.seed}, {result.nodes} nodes, {result.seconds:g} s: {len(result.windows)} faults"
    yield ""
    yield f"{'fault':<22}{'times':>6}{'longest s':>11}{'longest without a post':>24}{'median':>9}"
    for kind, windows in result.by_kind().items():
        gaps = sorted(window.gap_s for window in windows)
        longest = max(window.took_s for window in windows)
        yield f"{kind:<22}{len(windows):>6}{longest:>11.1f}{gaps[-1]:>22.2f} s{gaps[len(gaps) // 2]:>7.2f} s"
    yield ""
    for outcome, count in history.outcomes.most_common():
        yield f"{count:>8} posts {outcome}"
    yield f"{len(history.seen):>8} offsets read as committed"
    yield f"{result.operators:>8} times no master came by itself, and one was promoted"
    yield f"{max(history.rss_mib.values(), default=0):>8} MiB of memory at the most, of any node"
    if broken:
        return
    yield f"{result.records:>8} records in each log"
    yield (
        f"every one of {len(history.safe)} messages that a majority acknowledged stands once, at its offset, in all "
        f"{result.nodes} logs; none of {len(history.refused)} refused ones is there"
    )
