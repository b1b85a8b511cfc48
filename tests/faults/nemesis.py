"""The faults: each is done to a node or two, lasts for a while, and is undone. Which ones, a seed says.

Owns what is done, and that it ends. Must not know what clients do meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress

from replicad import __version__
from replicad.client import AsyncClient
from replicad.errors import ExitCode, ServiceError
from tests.faults.cluster import FAKETIME, FaultCluster
from tests.faults.history import Violation

Fault = Callable[["Nemesis"], Awaitable[str]]

SHORT_S, LONG_S = (0.5, 3.0), (4.0, 8.0)  # of a fault: less than timeouts.unhealthy, and more
PROMOTE_S = 8.0
STATUS_S = 1.0
START_S = 15.0  # until a start that must fail has
REBUILT_S = 60.0
LEVEL_S = 30.0
CUT_TO = (0.4, 0.95)  # of a file: what a node has promised is near its beginning, and its newest records at its end


class Nemesis:
    """1. At most a minority of the nodes is hurt at a time, but for the network."""

    def __init__(self, cluster: FaultCluster, *, seed: int) -> None:
        self.cluster, self.rng = cluster, random.Random(seed)

    # --- whom and how long ------------------------------------------------------------------------------------------

    def victim(self) -> str:
        return self.rng.choice(self.cluster.names)

    async def wait(self) -> None:
        await asyncio.sleep(self.rng.uniform(*self.rng.choice((SHORT_S, LONG_S))))

    async def master(self) -> str:
        """The node that is open, of the highest epoch; "" for none that answers."""
        found: list[tuple[int, str]] = []

        async def ask(name: str) -> None:
            with suppress(ServiceError):
                async with self.cluster.client(name, timeout_s=STATUS_S) as client:
                    status = await client.status()
                    if (status.role, status.state) == ("master", "open"):
                        found.append((status.epoch, name))

        await asyncio.gather(*(ask(name) for name in self.cluster.names))
        return max(found, default=(0, ""))[1]

    async def master_or_any(self) -> str:
        """The master, more often than its share."""
        return (await self.master() or self.victim()) if self.rng.random() < 0.6 else self.victim()

    async def level(self, name: str) -> None:
        """Return when the node runs this release, and follows or leads."""
        loop = asyncio.get_running_loop()
        deadline, last = loop.time() + LEVEL_S, ""
        while loop.time() < deadline:
            try:
                async with self.cluster.client(name, timeout_s=STATUS_S) as client:
                    status = await client.status()
            except ServiceError as error:
                last = error.message
            else:
                if status.version == __version__ and status.state in ("open", "following"):
                    return
                last = f"version {status.version}, {status.state}"
            await asyncio.sleep(0.1)
        raise Violation(f"{name} was not level within {LEVEL_S:g} s: {last}")

    async def promote_another(self, than: str) -> str:
        """As an operator who takes the master for lost; what came of it, in words."""
        others = [name for name in self.cluster.names if name != than]
        name = self.rng.choice(others)
        try:
            async with self.cluster.client(name, timeout_s=PROMOTE_S) as client:
                leading = await client.promote(self.cluster.nodes[name].address, timeout_s=PROMOTE_S)
        except ServiceError as error:
            return f"{name} was not promoted: {error.message}"
        return f"{name} was promoted to epoch {leading.epoch}"

    async def perhaps_promote(self, than: str) -> str:
        if than and self.rng.random() < 0.5 and await self.master() in ("", than):
            return f"; {await self.promote_another(than)}"
        return ""

    async def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Something that blocks."""
        await asyncio.to_thread(function, *arguments)


# --- processes ------------------------------------------------------------------------------------------------------


async def kill(nemesis: Nemesis) -> str:
    name = await nemesis.master_or_any()
    await nemesis.call(nemesis.cluster.kill, name)
    promoted = await nemesis.perhaps_promote(name)
    await nemesis.wait()
    nemesis.cluster.start(name)
    return f"{name}{promoted}"


async def kill_all(nemesis: Nemesis) -> str:
    """The power of the whole building, for processes."""
    await nemesis.call(nemesis.cluster.kill_all)
    for name in nemesis.rng.sample(nemesis.cluster.names, len(nemesis.cluster.names)):
        nemesis.cluster.start(name)
        await asyncio.sleep(nemesis.rng.uniform(0, 1))
    return "all"


async def pause(nemesis: Nemesis) -> str:
    """SIGSTOP: it wakes up, and believes that no time has passed."""
    name = await nemesis.master_or_any()
    nemesis.cluster.signal(name, signal.SIGSTOP)
    try:
        promoted = await nemesis.perhaps_promote(name)
        await nemesis.wait()
    finally:
        nemesis.cluster.signal(name, signal.SIGCONT)
    return f"{name}{promoted}"


async def restart(nemesis: Nemesis) -> str:
    name = await nemesis.master_or_any()
    await nemesis.call(nemesis.cluster.stop, name)
    nemesis.cluster.start(name)
    return name


# --- the network ----------------------------------------------------------------------------------------------------


async def cut_off(nemesis: Nemesis) -> str:
    """One node from all others, and from the clients."""
    name = await nemesis.master_or_any()
    await nemesis.call(nemesis.cluster.network.pull, name)
    promoted = await nemesis.perhaps_promote(name)
    await nemesis.wait()
    return f"{name}{promoted}"


async def cut_in_two(nemesis: Nemesis) -> str:
    """A minority from the majority; clients reach both."""
    names, network = nemesis.cluster.names, nemesis.cluster.network
    few = nemesis.rng.sample(names, (len(names) - 1) // 2)
    if (master := await nemesis.master()) and nemesis.rng.random() < 0.5:
        few = [master, *(name for name in few if name != master)][: len(few)]
    for one in few:
        for other in names:
            if other not in few:
                await nemesis.call(network.drop, one, network.ip[other], "in", "out")
    promoted = await nemesis.perhaps_promote(few[0])
    await nemesis.wait()
    return f"{', '.join(few)}{promoted}"


async def one_way(nemesis: Nemesis) -> str:
    """A node hears nothing of another one, which hears it."""
    deaf, network = await nemesis.master_or_any(), nemesis.cluster.network
    others = [name for name in nemesis.cluster.names if name != deaf]
    unheard = nemesis.rng.sample(others, nemesis.rng.randint(1, len(others)))
    for name in unheard:
        await nemesis.call(network.drop, deaf, network.ip[name], "in")
    await nemesis.wait()
    return f"{deaf} does not hear {', '.join(unheard)}"


async def lossy(nemesis: Nemesis) -> str:
    name, share = await nemesis.master_or_any(), nemesis.rng.choice((0.05, 0.2, 0.5))
    await nemesis.call(nemesis.cluster.network.lose, name, share)
    await nemesis.wait()
    return f"{name} loses {share:.0%}"


async def slow(nemesis: Nemesis) -> str:
    name, kbit = await nemesis.master_or_any(), nemesis.rng.choice((200, 1000, 5000))
    await nemesis.call(nemesis.cluster.network.slow_down, name, kbit)
    await nemesis.wait()
    return f"{name} sends {kbit} kbit/s"


async def late(nemesis: Nemesis) -> str:
    """Delay, and with a jitter as long as that, packets that overtake each other, and some that come twice."""
    name, delay_s = await nemesis.master_or_any(), nemesis.rng.choice((0.005, 0.05, 0.2))
    await nemesis.call(lambda: nemesis.cluster.network.lengthen(name, delay_s=delay_s, jitter_s=delay_s, twice=0.01))
    await nemesis.wait()
    return f"{name} by {delay_s * 1000:.0f} to {delay_s * 2000:.0f} ms"


# --- disks ----------------------------------------------------------------------------------------------------------


async def power_loss(nemesis: Nemesis) -> str:
    name = await nemesis.master_or_any()
    await nemesis.call(nemesis.cluster.kill, name)
    await nemesis.call(nemesis.cluster.disks[name].take_power)
    promoted = await nemesis.perhaps_promote(name)
    nemesis.cluster.start(name)
    return f"{name}{promoted}"


async def power_loss_of_all(nemesis: Nemesis) -> str:
    await nemesis.call(nemesis.cluster.kill_all)
    for name in nemesis.cluster.names:
        await nemesis.call(nemesis.cluster.disks[name].take_power)
    for name in nemesis.rng.sample(nemesis.cluster.names, len(nemesis.cluster.names)):
        nemesis.cluster.start(name)
    return "all"


async def disk_full(nemesis: Nemesis) -> str:
    name = await nemesis.master_or_any()
    disk = nemesis.cluster.disks[name]
    await nemesis.call(disk.fill)
    try:
        promoted = await nemesis.perhaps_promote(name)
        await nemesis.wait()
    finally:
        await nemesis.call(disk.make_room)
    return f"{name}{promoted}"


async def sync_fails(nemesis: Nemesis) -> str:
    """EIO from fsync: a node must stop, for it does not know any more what is on its disk."""
    name = await nemesis.master_or_any()
    if not nemesis.cluster.runs(name):
        return f"{name} does not run"
    code = await asyncio.to_thread(_under_strace, nemesis.cluster, name, "error=EIO", 10.0)
    if code is None and await nemesis.master() == name:
        raise Violation(f"{name} went on as the master, though its fsync fails")
    if code is not None and code != ExitCode.STORAGE:
        raise Violation(f"{name} ended with {code} when its fsync failed")
    promoted = await nemesis.perhaps_promote(name)
    await nemesis.call(nemesis.cluster.kill, name)
    nemesis.cluster.start(name)
    return f"{name} {'went on, with nothing to write' if code is None else 'stopped'}{promoted}"


async def sync_is_slow(nemesis: Nemesis) -> str:
    name = await nemesis.master_or_any()
    if nemesis.cluster.runs(name):
        await asyncio.to_thread(_under_strace, nemesis.cluster, name, "delay_enter=300000", nemesis.rng.uniform(2, 6))
    return name


def _under_strace(cluster: FaultCluster, name: str, change: str, timeout_s: float) -> int | None:
    """Change the node's syncs for a while; its exit code, None when it goes on."""
    calls = "fsync,fdatasync"
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:{change}"]
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", *inject, "-p", str(cluster.pid(name))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return cluster.wait(name, timeout_s)
    finally:
        tracer.terminate()
        tracer.wait()


async def flipped_bit(nemesis: Nemesis) -> str:
    """In a record of a node's log, while it is away: in its payload, which is most of a log."""
    name, cluster = nemesis.victim(), nemesis.cluster
    await nemesis.call(cluster.stop, name)
    offset = await asyncio.to_thread(_flip, cluster, name, nemesis.rng)
    cluster.start(name)
    return f"{name} at offset {offset}"


def _flip(cluster: FaultCluster, name: str, rng: random.Random) -> int | None:
    from tests.faults.records import payload_places  # noqa: PLC0415 - it opens the log

    places = payload_places(cluster.nodes[name].data_dir, rng)
    if places is None:
        return None
    offset, at = places
    with (cluster.nodes[name].data_dir / "log.db").open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << rng.randrange(8))]))
    return offset


async def cut_file(nemesis: Nemesis) -> str:
    """A node's file ends too early: it does not start on it, and an operator rebuilds it."""
    cluster, name = nemesis.cluster, nemesis.victim()
    await nemesis.call(cluster.stop, name)
    log = cluster.nodes[name].data_dir / "log.db"
    share = nemesis.rng.uniform(*CUT_TO)
    os.truncate(log, int(log.stat().st_size * share))
    cluster.start(name)
    code = await asyncio.to_thread(cluster.wait, name, START_S)
    if code is None:
        raise Violation(f"{name} started on a file that was cut to {share:.0%}")
    if code != ExitCode.STORAGE:
        raise Violation(f"{name} ended with {code} when its file was cut to {share:.0%}")
    promoted = ""
    deadline = asyncio.get_running_loop().time() + REBUILT_S
    while said := await asyncio.to_thread(cluster.rebuild, name):
        if asyncio.get_running_loop().time() > deadline:
            raise Violation(f"{name}, its file cut to {share:.0%}, was not rebuilt within {REBUILT_S:g} s: {said}")
        if not await nemesis.master():
            promoted = f"; {await nemesis.promote_another(than=name)}"
    for kept in cluster.nodes[name].data_dir.glob("log.db.damaged-*"):
        kept.unlink()
    cluster.start(name)
    return f"{name}, to {share:.0%}{promoted}"


# --- clocks and operators -------------------------------------------------------------------------------------------


async def clock_jump(nemesis: Nemesis) -> str:
    """While the node is at work. It gets a clock that can be set by a start, and the machine's again by another."""
    cluster, name = nemesis.cluster, await nemesis.master_or_any()
    cluster.set_clock(name, 0)
    await nemesis.call(cluster.kill, name)
    cluster.start(name, with_clock=True)
    promoted = await nemesis.perhaps_promote(name)
    await nemesis.wait()
    ahead_s = nemesis.rng.choice((-86_400, -60, -1, 1, 60, 86_400))
    cluster.set_clock(name, ahead_s)
    await nemesis.wait()
    await nemesis.call(cluster.kill, name)
    cluster.start(name)
    return f"{name} by {ahead_s} s{promoted}"


async def switchover(nemesis: Nemesis) -> str:
    to = nemesis.rng.choice(["", *nemesis.cluster.names])
    try:
        async with nemesis.cluster.client(timeout_s=PROMOTE_S) as client:
            leading = await client.switchover(to, timeout_s=PROMOTE_S)
    except ServiceError as error:
        return f"to {to or 'any'}: {error.message}"
    return f"to {leading.node}, epoch {leading.epoch}"


async def promotion(nemesis: Nemesis) -> str:
    """Of a node while a master is there, which it refuses; or while there is none."""
    return await nemesis.promote_another(than="")


async def killed_switchover(nemesis: Nemesis) -> str:
    """The master, or the one that is to follow, is killed in the midst of it."""
    master = await nemesis.master()
    others = [name for name in nemesis.cluster.names if name != master]
    to = nemesis.rng.choice(others)

    async def switch(client: AsyncClient) -> None:
        with suppress(ServiceError):
            await client.switchover(to, timeout_s=PROMOTE_S)

    async with nemesis.cluster.client(timeout_s=PROMOTE_S) as client:
        switching = asyncio.create_task(switch(client))
        await asyncio.sleep(nemesis.rng.uniform(0, 0.06))
        killed = nemesis.rng.choice([name for name in (master, to) if name])
        await nemesis.call(nemesis.cluster.kill, killed)
        promoted = await nemesis.perhaps_promote(killed)
        nemesis.cluster.start(killed)
        await switching
    return f"{master} to {to}, {killed} killed{promoted}"


async def rolling_upgrade(nemesis: Nemesis) -> str:
    """From the release before to this one, workers first, as the playbook does it."""
    cluster, master = nemesis.cluster, await nemesis.master()
    for name in [*(each for each in cluster.names if each != master), master]:
        await nemesis.call(cluster.stop, name)
        cluster.upgrade(name)
        cluster.start(name)
        await nemesis.level(name)
    return f"of {len(cluster.names)} nodes, {master} last"


#: By name, with how often it is chosen.
FAULTS: dict[str, tuple[Fault, int]] = {
    "kill -9": (kill, 4),
    "kill -9 of all": (kill_all, 1),
    "SIGSTOP": (pause, 3),
    "restart": (restart, 2),
    "node cut off": (cut_off, 3),
    "network cut in two": (cut_in_two, 3),
    "one-way partition": (one_way, 3),
    "packets lost": (lossy, 2),
    "slow link": (slow, 2),
    "late packets": (late, 2),
    "power loss": (power_loss, 4),
    "power loss of all": (power_loss_of_all, 1),
    "disk full": (disk_full, 2),
    "fsync fails (EIO)": (sync_fails, 2),
    "fsync is slow": (sync_is_slow, 2),
    "flipped bit": (flipped_bit, 2),
    "file cut off": (cut_file, 2),
    "clock jumps": (clock_jump, 2),
    "switchover": (switchover, 3),
    "promotion": (promotion, 1),
    "killed switchover": (killed_switchover, 3),
}


def possible() -> dict[str, tuple[Fault, int]]:
    """Those that this machine can do: some need a program that may not be there."""
    missing = set()
    if shutil.which("strace") is None:
        missing |= {"fsync fails (EIO)", "fsync is slow"}
    if not FAKETIME.exists():
        missing.add("clock jumps")
    return {name: fault for name, fault in FAULTS.items() if name not in missing}
