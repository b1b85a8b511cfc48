"""``replicad-cli bench``: which workloads, on what, and the table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from replicad.cli.bench import workloads
from replicad.cli.bench.report import TITLES, Report, size_text
from replicad.cli.bench.rig import Rig, own_rig
from replicad.cli.bench.workloads import Measured
from replicad.cli.connect import node_addresses, run
from replicad.cli.options import (
    Duration,
    FilePath,
    Offset,
    Session,
    Size,
    address_option,
    epilog,
    output_option,
    tls_options,
)

DEFAULT_DIR = Path("/var/tmp")  # noqa: S108 - /tmp is memory on many machines; our folder there is for us alone
KIB = 1 << 10


class _Workload(click.Choice):  # type: ignore[type-arg,unused-ignore]  # generic in newer releases only
    """W1, or w1. A choice without case of click's would tell of all in lower case."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(str(value).upper(), param, ctx)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]  # bytes of payload
    seconds: float  # of W1 and W2
    messages: int  # of W3 and W4
    missed: int  # of W5


@click.command(
    "bench",
    epilog=epilog(
        """\
Workloads, all with write concern majority, everything synced and signed:
  W1  one client, one message in flight
  W2  64 concurrent calls of post in one process
  W3  bulk, batching allowed
  W4  read the whole log from one node
  W5  one worker is stopped for 200,000 messages: the time from its start
      until it is level
A warm-up of each is not counted. A percentile is a latency that was seen.
Json, a line each: workload, size, messages, seconds, msg_per_s, p50_ms and
  p99_ms (null where messages are not waited for one by one), mb_per_s
  (payload, in 10^6 bytes), rss_mib (by node, afterwards), filesystem.""",
        """\
Examples:
  replicad-cli bench
  replicad-cli bench --workload W1 --workload W3 --size 100 --output json
  replicad-cli bench --workload W3 --messages 1000000 --dir /srv/ssd
  replicad-cli --address 127.0.0.1:50052 bench --workload W1""",
    ),
)
@click.option(
    "--workload",
    "names",
    type=_Workload(tuple(TITLES)),
    multiple=True,
    metavar="W1|W2|W3|W4|W5",
    help="Only this; more than one may be given.  [default: all]",
)
@click.option(
    "--size",
    "sizes",
    type=Size(),
    multiple=True,
    metavar="BYTES",
    help="Payload of a message; more than one may be given.  [default: 100 and 1KiB]",
)
@click.option(
    "--seconds", type=Duration(), default="5s", show_default=True, metavar="DURATION", help="How long W1 and W2 go on."
)
@click.option(
    "--messages",
    type=Offset("a count", at_least=workloads.WARM_UP_PART),
    default=200_000,
    show_default=True,
    metavar="N",
    help="How many W3 posts, and W4 reads at the least.",
)
@click.option(
    "--missed",
    type=Offset("a count", at_least=1),
    default=200_000,
    show_default=True,
    metavar="N",
    help="How many the worker of W5 misses.",
)
@click.option(
    "--dir",
    "parent",
    type=FilePath(folder=True),
    default=DEFAULT_DIR,
    show_default=True,
    metavar="DIR",
    help="Where the cluster's data go: a real disk, not tmpfs, where a sync costs nothing.",
)
@click.option("--tls", is_flag=True, help="With TLS between the nodes and to them, to see what it costs.")
@tls_options
@address_option(
    "Measure the cluster of this node instead; more than one may be given.  [default: a cluster of its own]"
)
@output_option
@click.pass_obj
def command(
    session: Session,
    *,
    names: tuple[str, ...],
    sizes: tuple[int, ...],
    seconds: float,
    messages: int,
    missed: int,
    parent: Path,
    tls: bool,
) -> None:
    """Measure five workloads, at 100 bytes and 1 KiB a message; takes one to two minutes.

    Starts a cluster of three nodes on this machine in a folder of its own, for each size anew, and removes it in the
    end. With --address it measures the cluster there instead: what it posts STAYS in that log, and W5 is left out,
    for it stops a node. (REPLICAD_ADDRESS alone is not taken: that would be too easily done.)
    """
    plan = Plan(
        names=tuple(name for name in TITLES if not names or name in names),
        sizes=tuple(dict.fromkeys(sizes)) or (100, KIB),
        seconds=seconds,
        messages=messages,
        missed=missed,
    )
    run(_bench(session, plan, parent, tls=tls))


async def _bench(session: Session, plan: Plan, parent: Path, *, tls: bool) -> None:
    """All of the plan, in one loop: gRPC's event thread does not survive a second one."""
    report = Report(session)
    for size in plan.sizes:
        with _rig(session, parent, report, tls=tls) as rig:
            report.begin(rig.filesystem)
            await _measure(rig, plan, size, report)


@contextmanager
def _rig(session: Session, parent: Path, report: Report, *, tls: bool) -> Iterator[Rig]:
    if session.addresses:
        yield Rig(node_addresses(session), None, None, "", (session.ca, session.certificate, session.key))
        return
    with ExitStack() as stack:
        with report.busy("starting a cluster of three nodes"):
            rig = stack.enter_context(own_rig(parent, tls=tls))
        yield rig


async def _measure(rig: Rig, plan: Plan, size: int, report: Report) -> None:
    """All workloads at one size."""
    payload = bytes(32 + n % 95 for n in range(size))
    for name in plan.names:
        if name == "W5" and rig.cluster is None:
            report.skipped(name)
            continue
        with report.busy(f"{name} {TITLES[name]}, {size_text(size)}"):
            measured = await _drive(name, rig, plan, payload)
            rss_mib = await rig.rss_mib()
        report.result(name, size, measured, rss_mib)


async def _drive(name: str, rig: Rig, plan: Plan, payload: bytes) -> Measured:
    if name == "W5":
        return await rig.catch_up(payload, messages=plan.missed)
    if name == "W4":
        await _fill(rig, payload, plan.messages)
    async with rig.client(*rig.addresses[:1] if name == "W4" else ()) as client:
        match name:
            case "W1":
                return await workloads.one_at_a_time(client, payload, seconds=plan.seconds)
            case "W2":
                return await workloads.many_callers(client, payload, seconds=plan.seconds)
            case "W3":
                return await workloads.bulk(client, payload, messages=plan.messages)
            case _:
                return await workloads.read_all(client)


async def _fill(rig: Rig, payload: bytes, messages: int) -> None:
    """See to a log of at least so many messages, without measuring."""
    async with rig.client() as client:
        missing = messages - (await client.status()).commit_size
        if missing > 0:
            await workloads.bulk(client, payload, messages=missing, warm_up=False)
        end = (await client.status()).size
    async with rig.client(rig.addresses[0]) as client:
        await workloads.wait_for_size(client, end)
