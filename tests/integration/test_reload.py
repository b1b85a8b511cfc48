"""SIGHUP: what is taken while the node runs, what needs a restart, and that a broken config changes nothing."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from replicad.dev import DevCluster
from replicad.errors import RateLimited, Unavailable, WriteConcernTimeout
from tests.support.daemon import Daemon
from tests.support.nodes import TOKEN, edit, running_cluster
from tests.support.rawlog import RawLog
from tests.support.waiting import eventually


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[DevCluster]:
    """A cluster's folders, of which nothing runs at first."""
    with running_cluster(tmp_path / "cluster", start=()) as made:
        yield made


@asynccontextmanager
async def master_of(cluster: DevCluster) -> AsyncIterator[tuple[Daemon, RawLog]]:
    """The master as a service of a manager, ready, beside one worker."""
    async with AsyncExitStack() as stack:
        await asyncio.to_thread(cluster.start, "node-2")
        daemon = stack.enter_context(Daemon(cluster.master.config_file, env={"AUTH_TOKEN": TOKEN}))
        await asyncio.to_thread(daemon.wait_ready)
        yield daemon, await stack.enter_async_context(RawLog(cluster.master.address, token=TOKEN))
        await asyncio.to_thread(daemon.terminate)
        assert daemon.process.returncode == 0


def logged(daemon: Daemon, event: str) -> list[str]:
    return [line for line in daemon.log.splitlines() if f" event={event} " in line]


async def test_what_is_live_holds_for_calls_that_are_open_already(idle: DevCluster) -> None:
    """On the very stream that was open before: min_nodes, the default write concern and its timeout, waiting_frames."""
    async with master_of(idle) as (daemon, log):
        await log.post(b"a majority is the default")

        edit(idle.master, min_nodes="all")
        await asyncio.to_thread(daemon.reload)
        with pytest.raises(Unavailable, match="min_nodes"):
            await log.post(b"with two of three")

        edit(idle.master, min_nodes=1, write_concern={"default": "all", "timeout": "50ms"})
        await asyncio.to_thread(daemon.reload)
        with pytest.raises(WriteConcernTimeout):
            await log.post(b"all is the default now")

        edit(idle.master, write_concern={"timeout": "60s"}, limits={"waiting_frames": 1})
        await asyncio.to_thread(daemon.reload)
        waiting = asyncio.create_task(log.post(b"until the third comes"))
        await eventually(lambda: _size_is(log, 4), within_s=10, what="it is in the log")
        with pytest.raises(RateLimited, match=r"limits\.waiting_frames"):
            await log.post(b"one too many")

        await asyncio.to_thread(idle.start, "node-3")
        assert (await waiting).nodes == 3
        assert daemon.names().count("RELOADING") == 3
        told = [re.search(r'taken=\d msg="(.*)"', line) for line in logged(daemon, "reloaded")]
        assert [match and match[1] for match in told] == [
            "min_nodes 1 -> all",
            "write_concern.default majority -> all, write_concern.timeout 5s -> 50ms, min_nodes all -> 1",
            "write_concern.timeout 50ms -> 1m, limits.waiting_frames 100000 -> 1",
        ]


async def _size_is(log: RawLog, size: int) -> bool:
    return (await log.status()).size == size


async def test_the_log_level_and_format_change_with_the_next_line(idle: DevCluster) -> None:
    async with master_of(idle) as (daemon, _):
        edit(idle.master, log={"level": "debug", "format": "json"})
        await asyncio.to_thread(daemon.reload)
        lines = daemon.log.splitlines()
        assert lines[-1].startswith('{"time":')
        assert '"msg":"log.level info -> debug, log.format text -> json"' in lines[-1]
        assert all(line.startswith("time=") for line in lines[:-1])

        edit(idle.master, log={"level": "warning", "format": "text"})
        await asyncio.to_thread(daemon.reload)
        assert daemon.log.splitlines() == lines


async def test_what_needs_a_restart_is_told_key_by_key_and_the_rest_is_taken(idle: DevCluster) -> None:
    async with master_of(idle) as (daemon, log):
        listen = idle.master.address
        edit(idle.master, listen="127.0.0.1:1", reflection=False, limits={"payload": "2MiB"}, min_nodes="all")
        await asyncio.to_thread(daemon.reload)

        told = logged(daemon, "needs_restart")
        assert [re.findall(r" key=(\S+) ", line) for line in told] == [["listen"], ["limits.payload"], ["reflection"]]
        assert f"listen is 127.0.0.1:1 in the file, and stays {listen} until a restart" in told[0]
        assert all("level=warning" in line for line in told)
        with pytest.raises(Unavailable, match="min_nodes"):
            await log.post(b"the rest is taken")
        statuses = [value for name, value in daemon.told if name == "STATUS"]
        assert statuses[-1].endswith("; reload: listen, limits.payload, reflection needs a restart")

        edit(idle.master, listen=listen, reflection=True, limits={"payload": "1MiB"}, min_nodes=1)
        await asyncio.to_thread(daemon.reload)
        statuses = [value for name, value in daemon.told if name == "STATUS"]
        assert "reload" not in statuses[-1]
        assert (await log.post(b"as before")).nodes == 2


async def test_a_broken_config_leaves_the_node_as_it_was_and_each_fault_is_logged(idle: DevCluster) -> None:
    async with master_of(idle) as (daemon, log):
        good = idle.master.config_file.read_text()
        edit(idle.master, min_nodes="all", colour="red", limits={"queue": "soon"})
        await asyncio.to_thread(daemon.reload)

        assert [re.findall(r": ([a-z.]+): ", line) for line in logged(daemon, "reload_refused")] == [
            ["colour"],
            ["limits.queue"],
        ]
        statuses = [value for name, value in daemon.told if name == "STATUS"]
        assert "; reload refused, nothing of it taken: 2 faults, first: " in statuses[-1]
        assert "colour: no such key" in statuses[-1]
        assert (await log.post(b"min_nodes is as it was")).nodes == 2

        for content in (b"", b"\xff\x00", b"cluster: [", b"- 1"):
            idle.master.config_file.write_bytes(content)
            await asyncio.to_thread(daemon.reload)
        idle.master.config_file.unlink()
        await asyncio.to_thread(daemon.reload)
        assert (await log.post(b"still as it was")).nodes == 2
        assert not logged(daemon, "reloaded")

        idle.master.config_file.write_text(good)
        await asyncio.to_thread(daemon.reload)
        assert len(logged(daemon, "reloaded")) == 1


async def test_a_master_that_waits_for_its_workers_reloads_but_does_not_say_that_it_is_ready(idle: DevCluster) -> None:
    with Daemon(idle.master.config_file, env={"AUTH_TOKEN": TOKEN}) as master:
        await asyncio.to_thread(master.wait_status, "opening")
        edit(idle.master, listen="127.0.0.1:1")
        master.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(master.wait_status, "reload: listen needs a restart")
        assert not {"READY", "RELOADING"} & set(master.names())


@pytest.mark.parametrize("at", ["grpctuning.tune", "startfiles.load_all", "eventloop.run"])
async def test_a_node_survives_a_reload_that_is_asked_for_while_it_starts_and_does_it(
    at: str, idle: DevCluster
) -> None:
    """Before anything is imported, while it reads its key, and before its loop runs."""
    module, function = at.split(".")
    asks_meanwhile = (
        "import os, signal, sys\n"
        "from replicad import __main__, eventloop, grpctuning, startfiles\n"
        f"go_on = {at}\n"
        "def asked(*arguments, **named):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    return go_on(*arguments, **named)\n"
        f"setattr({module}, '{function}', asked)\n"
        "sys.exit(__main__.main())\n"
    )
    await asyncio.to_thread(idle.start, "node-2")
    command = [sys.executable, "-c", asks_meanwhile]
    with Daemon(idle.master.config_file, env={"AUTH_TOKEN": TOKEN}, command=command) as daemon:
        await asyncio.to_thread(daemon.wait_ready)
        await eventually(lambda: _has_reloaded(daemon), within_s=10, what="the config is read once more")
        await asyncio.to_thread(daemon.reload)
        assert len(logged(daemon, "reloaded")) == 2
        await asyncio.to_thread(daemon.terminate)


async def _has_reloaded(daemon: Daemon) -> bool:
    return bool(logged(daemon, "reloaded"))


async def test_reloads_asked_for_at_once_end_with_the_last_config(idle: DevCluster) -> None:
    async with master_of(idle) as (daemon, log):
        for level in ("debug", "warning", "debug", "info"):
            edit(idle.master, log={"level": level})
            daemon.process.send_signal(signal.SIGHUP)
        edit(idle.master, min_nodes="all")
        daemon.process.send_signal(signal.SIGHUP)
        await eventually(lambda: _refuses(log), within_s=10, what="all are asked for")


async def _refuses(log: RawLog) -> bool:
    try:
        await log.post(b"all are asked for, soon")
    except Unavailable:
        return True
    return False
