"""min_nodes: with too few nodes in reach the master refuses posts before it appends anything, and serves reads."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from replicad.dev import DevCluster
from replicad.errors import Applied, Unavailable
from tests.support.nodes import all_level
from tests.support.rawlog import Posted, RawLog, new_id
from tests.support.waiting import eventually

Logs = dict[str, RawLog]


@pytest.fixture(scope="module")
def settings() -> Mapping[str, object]:
    return {"min_nodes": "majority"}


async def in_reach(master: RawLog, wanted: int) -> bool:
    return sum(node.health in ("self", "HEALTHY") for node in (await master.status()).nodes) == wanted


async def test_with_a_majority_out_of_reach_posts_are_refused_unapplied_and_reads_go_on(
    cluster: DevCluster, logs: Logs
) -> None:
    master, refused = logs["node-1"], new_id()
    posted = await master.post(b"with all", w=3)
    level = await all_level(logs, size=posted.offset + 1)
    await asyncio.to_thread(cluster.kill, "node-2", "node-3")
    await eventually(lambda: in_reach(master, 1), within_s=10, what="the master knows that both are gone")

    for w in (1, 2):
        with pytest.raises(Unavailable) as caught:
            await master.post(b"with nobody", id=refused, w=w)
        assert (caught.value.code, caught.value.applied) == (503, Applied.NO)
    state = await master.status()
    assert (state.size, state.root) == (level.size, level.root)
    assert (await master.list(posted.offset)).records[0].payload == b"with all"

    await asyncio.to_thread(cluster.start, "node-3")
    await eventually(lambda: in_reach(master, 2), within_s=15, what="one is back")
    accepted = await eventually(lambda: _accepted(master, refused), within_s=15, what="posts are taken again")
    assert (accepted.offset, accepted.duplicate) == (level.size, False)


async def test_with_one_of_three_out_of_reach_posts_go_on(cluster: DevCluster, logs: Logs) -> None:
    await all_level(logs)
    await asyncio.to_thread(cluster.kill, "node-2")
    assert (await logs["node-1"].post(b"with a majority", w=2)).nodes == 2


async def _accepted(master: RawLog, message_id: str) -> Posted | None:
    try:
        return await master.post(b"with one", id=message_id, w=2)
    except Unavailable:
        return None
