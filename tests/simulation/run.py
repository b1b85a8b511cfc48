"""One simulation from its seed: a storm, calm with a minority dead, calm with all; then everything has to add up.

Owns the course of a run and the report of a failure.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, fields
from random import Random

from replicad.core.check import check_batch
from replicad.core.tree import Tree
from replicad.core.voters import commit_quorum
from replicad.wire.codec import decode_records
from tests.simulation.clients import LinearizableReader, Poster, Tail
from tests.simulation.cluster import CLUSTER, Cluster
from tests.simulation.describe import describe
from tests.simulation.faults import Storm
from tests.simulation.profile import MIXED, NEVER, Profile, draw
from tests.simulation.world import World

TEND_S = 2.0  # the operator looks after the master so often
CALM_S = 60.0  # of simulated time; a cluster without faults needs a fraction of one second
CALM_POSTS = 3  # of each client
CALM_ACTIONS = 60_000  # beyond that it does not come to rest


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a replay needs to be told."""

    seed: int
    nodes: int | None = None
    weather: str = MIXED

    @property
    def command(self) -> str:
        """The command that runs exactly this again."""
        nodes = f" --nodes {self.nodes}" if self.nodes else ""
        weather = f" --weather {self.weather}" if self.weather != MIXED else ""
        return f"python -m tests.simulation --seed {self.seed}{nodes}{weather}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a scenario; ``report`` is empty when all was well."""

    scenario: Scenario
    steps: int
    records: int  # committed
    root: bytes  # of the committed log
    report: str = ""

    @property
    def ok(self) -> bool:
        return not self.report


def simulate(scenario: Scenario) -> Outcome:
    """Run a scenario to its end, or to the first broken promise."""
    profile = draw(Random(f"profile {scenario.seed}"), nodes=scenario.nodes, weather=scenario.weather)
    world = World(scenario.seed)
    cluster = Cluster(world, profile)
    report = ""
    try:
        _run(cluster)
    except Exception as exc:  # whatever it is, it is a failure of this seed
        report = _report(scenario, cluster, exc)
    committed = cluster.checker.committed
    root = committed.batches[-1].root if committed.batches else b""
    return Outcome(scenario, world.actions, committed.size, root, report)


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
    if profile.changes_nodes:  # nodes may be dead again once the lists before are replaced for good
        _calm(cluster, posters, "all nodes in the config", dead=frozenset())
    minority = _minority(cluster)
    if minority:
        _calm(cluster, posters, "a minority dead", dead=minority)
    _calm(cluster, posters, "all nodes well", dead=frozenset())
    _all_adds_up(cluster)


def _minority(cluster: Cluster) -> frozenset[str]:
    """As many voters as may be dead while w <= W goes on; none in half of the runs."""
    others = [name for name in cluster.members.voters if name != cluster.appointed]
    count = (len(others) + 1) - commit_quorum(len(others) + 1)
    return frozenset(cluster.world.rng.sample(others, count)) if cluster.world.chance(0.5) else frozenset()


def _calm(cluster: Cluster, posters: list[Poster], what: str, *, dead: frozenset[str]) -> None:
    """No more faults, some nodes dead: within a bounded time all posts are answered and all other nodes are level."""
    world = cluster.world
    world.log("operator", "REPAIRS ALL;", what, sorted(dead))
    cluster.repair(but=dead)
    for poster in posters:
        poster.finish(CALM_POSTS)

    def done() -> bool:
        return all(poster.idle for poster in posters) and cluster.level(but=dead)

    calm_until, last_action = world.now + CALM_S, world.actions + CALM_ACTIONS
    while not done() and world.now < calm_until and world.actions < last_action:
        cluster.tend()
        world.run(min(world.now + TEND_S, calm_until), done)
    if not done():
        machines = {name: node.machine for name, node in cluster.nodes.items() if node.machine is not None}
        sizes = {name: (m.state.value, m.log.tip, m.log.commit_size, m.detail) for name, m in machines.items()}
        world.fail(f"invariant 17, with {what}: the cluster does not become level: {sizes}")


def _all_adds_up(cluster: Cluster) -> None:
    """Every log is the committed one and proves; every acknowledged id is at its offset; nothing refused is there."""
    checker, world = cluster.checker, cluster.world
    for name, log in checker.logs.items():
        if log.batches != checker.committed.batches:
            world.fail(f"{name}'s log is not the committed one in the end")
        if cluster.nodes[name].platter.store.read(0, max_bytes=1 << 62) != log.batches:
            world.fail(f"{name}'s store is not what was stored in it")
    for node in cluster.running:
        checker.ends(node)
    checker.check_answers()
    _audit(cluster)


def _audit(cluster: Cluster) -> None:
    """What anybody can check with public keys alone: every leaf, root and signature, from the first on."""
    tree, last_epoch, ids = Tree(), 0, list[str]()
    keyring = cluster.keys.retired()
    for batch in cluster.checker.committed.batches:
        append, tree = check_batch(
            batch,
            tree=tree,
            last_epoch=last_epoch,
            cluster=CLUSTER,
            keyring=keyring,
            decode=decode_records,
        )
        last_epoch = batch.epoch
        ids += append.ids
    if len(set(ids)) != tree.size:
        cluster.world.fail("an id stands twice in the log")


def _report(scenario: Scenario, cluster: Cluster, exc: Exception) -> str:
    """The whole story: what kind of seed it is, the last steps, the failure, and how to see it again."""
    world = cluster.world
    weather = {
        field.name: value
        for field in fields(Profile)
        if (value := getattr(cluster.profile, field.name)) not in (NEVER, 0.0)
    }
    lines = [
        f"seed {scenario.seed} fails after {world.actions} steps at {world.now:.6f} s",
        f"profile: {describe(weather)}",
        *world.transcript(describe),
        "",
        *traceback.format_exception(exc)[-4:],
        f"seed {scenario.seed}: {type(exc).__name__}: {exc}",
        f"replay: {scenario.command}",
    ]
    return "\n".join(lines)
