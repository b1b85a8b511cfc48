"""The cluster of a test module: three real processes over loopback, used by one test after the other."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Mapping

import pytest

from replicad.dev import DevCluster
from tests.support.nodes import raw_logs, running_cluster
from tests.support.rawlog import RawLog


@pytest.fixture(scope="module")
def settings() -> Mapping[str, object]:
    """More keys for every node's config; a module that wants some overrides this."""
    return {}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, settings: Mapping[str, object]) -> Iterator[DevCluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), settings=settings) as made:
        yield made


@pytest.fixture
async def logs(cluster: DevCluster) -> AsyncIterator[dict[str, RawLog]]:
    """A connection to every node of the module's cluster; all of them run when the test begins."""
    for name in cluster.running():
        cluster.send_signal(name, signal.SIGCONT)
    stopped = [node.name for node in cluster.nodes if cluster.pid(node.name) is None]
    if stopped:
        await asyncio.to_thread(cluster.start, *stopped)
    async with raw_logs(cluster) as connections:
        yield connections
