"""One run: a cluster, clients at work, one fault after the other, and in the end the judgement.

Owns the order of these, and how long anything may take to recover.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from replicad.configfile import load as load_config
from replicad.errors import ServiceError
from replicad.nodekeys import keyring_of
from replicad.storage.fsck import verify_folder
from replicad.wire.codec import decode_records
from tests.faults.cluster import FaultCluster
from tests.faults.history import History, Violation
from tests.faults.nemesis import FAULTS, Fault, Nemesis, possible, rolling_upgrade
from tests.faults.records import ids_of
from tests.faults.workload import Workload

START_S = 30.0
RECOVERED_S = 60.0  # from the end of a fault to a post that a majority has
OPERATOR_S = 10.0  # without a master, until an operator promotes somebody
SETTLED_S = 180.0  # from the last fault until all nodes have the same, looked over and whole
CALM_S = (0.2, 2.0)  # between two faults
UPGRADE = "rolling upgrade"
SAYS_A_BUG = (" exception=", "InvariantError", "event=fork")


@dataclass(frozen=True, slots=True)
class Window:
    """A fault and what it cost."""

    kind: str
    detail: str
    took_s: float
    gap_s: float  # the longest time without a post that a majority has


@dataclass(slots=True)
class Result:
    seed: int
    nodes: int
    seconds: float
    history: History
    windows: list[Window] = field(default_factory=list)
    records: int = 0
    operators: int = 0  # how often somebody had to be promoted, since no master came by itself

    def by_kind(self) -> dict[str, list[Window]]:
        kinds = Counter(window.kind for window in self.windows)
        return {
            kind: [each for each in self.windows if each.kind == kind] for kind in (UPGRADE, *FAULTS) if kind in kinds
        }


class Campaign:
    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        nodes: int,
        seconds: float,
        number: int,
        say: Callable[[str], None],
        previous: Path | None = None,
    ) -> None:
        """``say`` is told of each fault, when it is over. ``previous``: where the release before is, to begin with."""
        self._folder, self._seconds, self._say, self._previous = folder, seconds, say, previous
        self._number = number
        self._rng = random.Random(seed)
        self._history = History()
        self.result = Result(seed, nodes, seconds, self._history)

    def run(self) -> Result:
        """Raises Violation when a promise was broken; the cluster's folder stays for a look."""
        with FaultCluster(
            self._folder, nodes=self.result.nodes, number=self._number, previous=self._previous
        ) as cluster:
            for name in cluster.names:
                cluster.start(name)
            asyncio.run(self._work(cluster))
            self._judge(cluster)
        return self.result

    async def _work(self, cluster: FaultCluster) -> None:
        seed = self.result.seed
        nemesis = Nemesis(cluster, seed=seed + 1)
        try:
            async with asyncio.timeout(START_S + self._seconds + SETTLED_S + 2 * RECOVERED_S):
                async with Workload(cluster, self._history, seed=seed, seconds=self._seconds).running():
                    await self._posts_go_on(cluster, nemesis, "the start")
                    if self._previous is not None:
                        await self._one(cluster, nemesis, UPGRADE, rolling_upgrade)
                    await self._faults(cluster, nemesis)
                await self._settled(cluster)
        except ExceptionGroup as group:
            violations = group.subgroup(Violation)
            if violations is None:
                raise
            raise _first(violations) from group

    async def _faults(self, cluster: FaultCluster, nemesis: Nemesis) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._seconds
        faults = possible()
        kinds, weights = list(faults), [weight for _, weight in faults.values()]
        fresh = self._rng.sample(kinds, len(kinds))  # each once, before any comes again
        while loop.time() < end:
            kind = fresh.pop() if fresh else self._rng.choices(kinds, weights)[0]
            await self._one(cluster, nemesis, kind, faults[kind][0])
            await asyncio.sleep(self._rng.uniform(*CALM_S))

    async def _one(self, cluster: FaultCluster, nemesis: Nemesis, kind: str, fault: Fault) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        detail = await fault(nemesis)
        await asyncio.to_thread(cluster.network.heal)
        ended = loop.time()
        await self._posts_go_on(cluster, nemesis, f"{kind}: {detail}")
        gap_s = self._history.longest_gap_s(began, loop.time())
        self.result.windows.append(Window(kind, detail, ended - began, gap_s))
        self._say(f"{kind:<20} {ended - began:5.1f} s, {gap_s:5.2f} s without a post: {detail}")
        self._look_at_logs(cluster)

    async def _posts_go_on(self, cluster: FaultCluster, nemesis: Nemesis, what: str) -> None:
        """A post that was begun or answered after this has reached a majority."""
        loop, acknowledged = asyncio.get_running_loop(), self._history.acknowledged_at
        since, asked = loop.time(), False
        while not (acknowledged and acknowledged[-1] > since):
            waited_s = loop.time() - since
            if waited_s > OPERATOR_S and not asked and not await nemesis.master():
                asked = True
                self.result.operators += 1
                self._say(f"no master {waited_s:.0f} s after {what}: {await nemesis.promote_another(than='')}")
            if waited_s > RECOVERED_S:
                raise Violation(f"no post reached a majority within {RECOVERED_S:g} s after {what}")
            await asyncio.sleep(0.05)

    async def _settled(self, cluster: FaultCluster) -> None:
        """All nodes have the same log, all of it committed, and have looked it over since now."""
        for name in cluster.names:
            cluster.start(name)
        loop, now_ms = asyncio.get_running_loop(), time.time() * 1000
        deadline, why = loop.time() + SETTLED_S, ""
        while loop.time() < deadline:
            why = await self._unsettled(cluster, now_ms)
            if not why:
                return
            await asyncio.sleep(0.5)
        raise Violation(f"{SETTLED_S:g} s after the last fault the nodes are not the same and whole: {why}")

    async def _unsettled(self, cluster: FaultCluster, since_ms: float) -> str:
        states = []
        for name in cluster.names:
            try:
                async with cluster.client(name, timeout_s=2) as client:
                    states.append(await client.status())
            except ServiceError as error:
                return f"{name}: {error.message}"
        said = "; ".join(f"{s.node}: {s.state}, {s.size}, {s.commit_size}, {s.damage or s.detail}" for s in states)
        same = len({(s.size, s.commit_size, s.root) for s in states}) == 1 and states[0].size == states[0].commit_size
        looked_over = all(s.scrubbed_ms >= since_ms and not s.damage for s in states)
        return "" if same and looked_over else said

    # --- the judgement ----------------------------------------------------------------------------------------------

    def _judge(self, cluster: FaultCluster) -> None:
        """Stop all, prove each node's data folder, and hold all that clients were told against it."""
        for name in cluster.names:
            if cluster.stop(name) != 0:
                raise Violation(f"{name} did not stop as it should")
        self._look_at_logs(cluster)
        logs = {}
        for name, node in cluster.nodes.items():
            config = load_config(node.config_file, env={})
            report = verify_folder(
                node.data_dir, cluster=config.cluster, keyring=keyring_of(config), decode_records=decode_records
            )
            if not report.ok:
                raise Violation(f"the log of {name} does not prove: {report.fault}")
            logs[name] = ids_of(node.data_dir, name)
        self.result.records = len(logs[cluster.names[0]])
        self._history.judge(logs)

    def _look_at_logs(self, cluster: FaultCluster) -> None:
        for name in cluster.names:
            for line in cluster.log_text(name).splitlines():
                if any(word in line for word in SAYS_A_BUG):
                    raise Violation(f"{name} met what should not be: {line}")


def _first(group: BaseExceptionGroup[Violation]) -> Violation:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
