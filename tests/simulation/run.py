"""One simulation from its seed: a storm, calm with a minority dead, calm with all; then everything has to add up.

Owns the course of a run and the report of a failure.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, fields
from random import Random

from replicad.core.check import check_batch
from replicad.core.tree import Tree
from replicad.wire.codec import decode_records
from tests.simulation.clients import LinearizableReader, Poster, Tail
from tests.simulation.cluster import Cluster
from tests.simulation.describe import describe
from tests.simulation.faults import Storm
from tests.simulation.profile import NEVER, Profile, draw
from tests.simulation.world import World

CALM_S = 20.0  # of simulated time; a cluster without faults needs a fraction of one second
TEND_S = 2.0  # the operator looks after the master so often
CALM_POSTS = 3  # of each client
CALM_ACTIONS = 60_000  # beyond that it does not come to rest


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a seed; ``report`` is empty when all was well."""

    seed: int
    steps: int
    records: int
    report: str = ""

    @property
    def ok(self) -> bool:
        return not self.report


def simulate(seed: int, *, nodes: int | None = None) -> Outcome:
    """Run a seed to its end, or to the first broken promise."""
    profile = draw(Random(f"profile {seed}"), nodes=nodes)
    world = World(seed)
    cluster = Cluster(world, profile)
    try:
        _run(cluster)
    except Exception as exc:  # whatever it is, it is a failure of this seed
        return Outcome(seed, world.actions, cluster.checker.committed.size, _report(seed, nodes, cluster, exc))
    return Outcome(seed, world.actions, cluster.checker.committed.size)


def _run(cluster: Cluster) -> None:
    world, profile = cluster.world, cluster.profile
    for name in cluster.nodes:
        cluster.start(name)
    posters = [Poster(cluster, number) for number in range(profile.clients)]
    Tail(cluster)
    Tail(cluster)
    LinearizableReader(cluster)
    storm = Storm(cluster)
    world.run(profile.duration_s)
    storm.end()
    minority = _minority(cluster)
    if minority:
        _calm(cluster, posters, "a minority dead", dead=minority)
    _calm(cluster, posters, "all nodes well", dead=frozenset())
    _all_adds_up(cluster)


def _minority(cluster: Cluster) -> frozenset[str]:
    """As many workers as may be dead while w <= W goes on."""
    others = [name for name in cluster.nodes if name != cluster.appointed]
    count = cluster.profile.nodes - cluster.checker.commit_quorum
    return frozenset(cluster.world.rng.sample(others, count)) if cluster.world.chance(0.5) else frozenset()


def _calm(cluster: Cluster, posters: list[Poster], what: str, *, dead: frozenset[str]) -> None:
    """No more faults, some nodes dead: within a bounded time posts are answered and all others are level."""
    world = cluster.world
    world.log("operator", "REPAIRS ALL;", what, sorted(dead))
    cluster.repair(but=dead)
    for poster in posters:
        poster.finish(CALM_POSTS)
    stop = world.actions + CALM_ACTIONS

    def done() -> bool:
        return all(poster.idle for poster in posters) and cluster.level(but=dead)

    calm_until = world.now + CALM_S
    while not done() and world.now < calm_until and world.actions < stop:
        cluster.tend()
        world.run(min(world.now + TEND_S, calm_until), done)
    if not done():
        sizes = {
            name: (node.machine.state.value, node.machine.log.tip, node.machine.log.commit_size, node.machine.detail)
            for name, node in cluster.nodes.items()
            if node.machine is not None
        }
        world.fail(f"invariant 17, with {what}: the cluster does not become level: {sizes}")


def _all_adds_up(cluster: Cluster) -> None:
    """Every log is the committed one and proves; every acknowledged id is at its offset; nothing refused is there."""
    checker, world = cluster.checker, cluster.world
    for name, log in checker.logs.items():
        if log.batches != checker.committed.batches:
            world.fail(f"{name}'s log is not the committed one in the end")
        stored = cluster.nodes[name].platter.store.read(0, max_bytes=1 << 62)
        if stored != log.batches:
            world.fail(f"{name}'s store is not what was stored in it")
    for message_id, (offset, _) in checker.answered_offsets.items():
        if not cluster.checker.moved and checker.committed_ids.get(message_id) != offset:
            world.fail(f"{message_id} was answered with offset {offset}, is at {checker.committed_ids.get(message_id)}")
    _verify(cluster)


def _verify(cluster: Cluster) -> None:
    """What an audit does: every leaf, root and signature, from the first on."""
    tree, last_epoch, ids = Tree(), 0, set()
    for batch in cluster.checker.committed.batches:
        append, tree = check_batch(
            batch,
            tree=tree,
            last_epoch=last_epoch,
            cluster="simulated",
            verifiers=cluster.verifiers,
            decode=decode_records,
        )
        last_epoch = batch.epoch
        ids.update(append.ids)
    if len(ids) != tree.size:
        cluster.world.fail("an id stands twice in the log")
    posted = [content for content, message in cluster.history.messages.items() if not message.may_be_applied]
    for content in posted:
        if content in cluster.checker._committed_contents(content[0]):
            cluster.world.fail(f"{content[0]} was refused, and is in the log")


def _report(seed: int, nodes: int | None, cluster: Cluster, exc: Exception) -> str:
    world = cluster.world
    storm = {
        field.name: value
        for field in fields(Profile)
        if (value := getattr(cluster.profile, field.name)) not in (NEVER, 0.0)
    }
    option = f" --nodes {nodes}" if nodes else ""
    lines = [
        f"seed {seed} fails after {world.actions} steps at {world.now:.6f} s",
        f"profile: {describe(storm)}",
        *world.transcript(describe),
        "",
        *traceback.format_exception(exc)[-4:],
        f"seed {seed}: {type(exc).__name__}: {exc}",
        f"replay: python -m tests.simulation --seed {seed}{option}",
    ]
    return "\n".join(lines)


def first_failure(seeds: Iterable[int], *, nodes: int | None = None) -> tuple[Outcome | None, int, int]:
    """The first seed that fails, if any, how many seeds were run, and their steps."""
    steps = count = 0
    for seed in seeds:
        outcome = simulate(seed, nodes=nodes)
        steps += outcome.steps
        count += 1
        if not outcome.ok:
            return outcome, count, steps
    return None, count, steps


def timed(seeds: Iterable[int], *, nodes: int | None = None) -> tuple[Outcome | None, str]:
    """As :func:`first_failure`, with a line that says how fast it went."""
    begun = time.perf_counter()
    failure, count, steps = first_failure(seeds, nodes=nodes)
    taken_s = time.perf_counter() - begun
    return failure, f"{count} seeds, {steps} steps, {steps / taken_s:.0f} steps/s, {count / taken_s:.1f} seeds/s"
