"""Stock gRPC tools against a node: the health service and server reflection, by other people's stubs."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest
from grpc import aio

from replicad.dev import DevCluster
from replicad.wire.v1 import health_pb2 as pb
from tests.support import rawlog
from tests.support.nodes import TOKEN, running_cluster
from tests.support.rawlog import RawLog
from tests.support.waiting import eventually

STRANGER = Path(rawlog.__file__).with_name("stock_tools.py")
SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def settings() -> Mapping[str, object]:
    return {"timeouts": {"stop": "2s"}}


def stranger(address: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, str(STRANGER), address, TOKEN], capture_output=True, text=True, timeout=60, check=False
    )
    if "No module named 'grpc_health'" in done.stderr or "No module named 'grpc_reflection'" in done.stderr:
        pytest.skip("grpcio-health-checking and grpcio-reflection are not installed")
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_stock_stubs_find_health_and_services_and_post_by_reflection_alone(cluster: DevCluster) -> None:
    found = stranger(cluster.master.address)

    assert found["health of ''"] == found["health of 'replicad.wire.v1.Log'"] == "SERVING"
    assert found["watch of an unknown one"] == "SERVICE_UNKNOWN"
    assert {"replicad.wire.v1.Log", "replicad.wire.v1.Replication", "grpc.health.v1.Health"} <= set(found["services"])  # type: ignore[call-overload]
    assert found["methods"] == ["List", "Outcome", "Post", "PostStream", "Status", "Tail"]
    assert found["posted"] == [200, "OK", False]


async def test_a_watch_tells_when_a_master_opens_and_when_it_stops(
    cluster: DevCluster, logs: dict[str, RawLog]
) -> None:
    await asyncio.to_thread(cluster.kill)
    await asyncio.to_thread(cluster.start, "node-1", wait=False)
    async with aio.insecure_channel(cluster.master.address, options=rawlog.OPTIONS) as channel:
        watch: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/grpc.health.v1.Health/Watch")
        call = watch(b"", wait_for_ready=True, timeout=30)
        seen = [pb.HealthCheckResponse.FromString(await call.read()).status]  # type: ignore[arg-type]
        await asyncio.to_thread(cluster.start, "node-2")
        seen.append(pb.HealthCheckResponse.FromString(await call.read()).status)  # type: ignore[arg-type]
        # A post that waits keeps the node there, so that the watch sees it stop.
        waiting = asyncio.create_task(logs["node-1"].post(b"for all", w=3, timeout_s=60))
        await logs["node-1"].post(b"behind it", w=1)
        cluster.send_signal("node-1", signal.SIGTERM)
        seen.append(pb.HealthCheckResponse.FromString(await call.read()).status)  # type: ignore[arg-type]
        assert seen == [NOT_SERVING, SERVING, NOT_SERVING]
        await asyncio.wait([waiting])
        waiting.exception()
    await eventually(lambda: _gone(cluster), within_s=10, what="the master leaves")


async def _gone(cluster: DevCluster) -> bool:
    return cluster.pid("node-1") is None


async def test_reflection_can_be_turned_off(tmp_path: Path) -> None:
    with running_cluster(tmp_path, nodes=1, settings={"reflection": False}) as alone:
        async with aio.insecure_channel(alone.master.address) as channel:
            info: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
            )
            # Without a request: gRPC's client tells of its own failure where one meets a call that is refused already.
            assert await info().code() is grpc.StatusCode.UNIMPLEMENTED
