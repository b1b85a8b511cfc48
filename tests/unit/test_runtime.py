"""The runtime around a machine, with a real disk thread and a store that the test makes fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from replicad import runtime
from replicad.core.effects import Event, FrameArrived, PeerDown, PeerUp, Tick
from replicad.core.frames import Align, Fetch, Hello, MasterFrame, RootQuery, WorkerFrame
from replicad.errors import DamagedError, DiskFullError
from replicad.storage.memory import MemoryStore
from replicad.wire.codec import decode_records
from tests.support.builders import CLUSTER, LogBuilder
from tests.support.script import stored
from tests.support.waiting import eventually
from tests.support.worker_runtime import worker_runtime

RETRY_S = 0.05


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "RETRY_S", RETRY_S)


class Link:
    """A stream, with what was sent on it."""

    def __init__(self) -> None:
        self.sent: list[MasterFrame | WorkerFrame] = []
        self.ended = ""

    def send(self, frame: MasterFrame | WorkerFrame) -> None:
        self.sent.append(frame)

    def hang_up(self, reason: str) -> None:
        self.ended = reason


class Node:
    """A worker at work."""

    def __init__(self, store: MemoryStore) -> None:
        self.faults: list[BaseException] = []
        self.runtime = worker_runtime(store, fatal=self.faults.append)

    def calls(self, peer: str, frame: MasterFrame) -> Link:
        """A master's first frame, on a stream of its own."""
        link = self.runtime.links[peer] = Link()
        self.runtime.feed(PeerUp(peer))
        self.runtime.feed(FrameArrived(peer, frame))
        return link

    def ends(self, peer: str) -> None:
        del self.runtime.links[peer]
        self.runtime.feed(PeerDown(peer, "gone"))


@asynccontextmanager
async def running(store: MemoryStore) -> AsyncIterator[Node]:
    node = Node(store)
    node.runtime.start()
    yield node
    await node.runtime.close()
    assert node.faults == []


async def until(look: Callable[[], bool], what: str) -> None:
    async def seen() -> bool:
        return look()

    await eventually(seen, within_s=5, what=what)


def failing(function: Callable[..., object], fails: Callable[..., Exception | None]) -> Callable[..., object]:
    def call(*arguments: object, **named: object) -> object:
        if (error := fails(*arguments)) is not None:
            raise error
        return function(*arguments, **named)

    return call


async def test_a_promise_that_waits_for_room_is_dropped_once_a_higher_one_was_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore(decode_records)
    tries: list[int] = []

    def fails(epoch: int, _: str) -> Exception | None:
        tries.append(epoch)
        return DiskFullError("no room") if epoch == 5 else None

    monkeypatch.setattr(store, "set_promise", failing(store.set_promise, fails))
    async with running(store) as node:
        first = node.calls("n1#1", Hello(CLUSTER, "n1", 5))
        await until(lambda: tries == [5], "the promise is tried")
        second = node.calls("n3#1", Hello(CLUSTER, "n3", 6))
        await until(lambda: bool(second.sent), "the higher one is made")
        await asyncio.sleep(3 * RETRY_S)  # the time of what must not happen
        assert (tries, first.sent) == ([5, 6], [])
        assert (store.load().promised_epoch, store.load().promised_to) == (6, "n3")


def damaged_log(monkeypatch: pytest.MonkeyPatch, method: str, broken: list[bool]) -> tuple[MemoryStore, LogBuilder]:
    """Three batches; what reads by ``method`` meets damage while ``broken`` is not empty."""
    log = LogBuilder()
    for _ in range(3):
        log.add()
    store = stored(log)
    original = getattr(store, method)
    monkeypatch.setattr(
        store, method, failing(original, lambda *_: DamagedError("damaged", offset=1) if broken else None)
    )
    return store, log


async def greeted(node: Node, peer: str, epoch: int) -> Link:
    link = node.calls(peer, Hello(CLUSTER, "n1", epoch))
    await until(lambda: bool(link.sent), "the worker says Welcome")
    return link


async def test_a_root_that_could_not_be_read_for_a_stream_that_ended_holds_up_no_later_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = [True]
    store, log = damaged_log(monkeypatch, "root_at", broken)
    async with running(store) as node:
        await greeted(node, "n1#1", 5)
        node.runtime.feed(FrameArrived("n1#1", RootQuery(2)))
        await until(lambda: node.runtime.machine.log.roots_asked == 1, "it is asked")
        node.ends("n1#1")
        broken.clear()
        await until(lambda: node.runtime.machine.log.roots_asked == 0, "it is given up")
        await greeted(node, "n1#2", 5)
        node.runtime.feed(FrameArrived("n1#2", Align(log.size - 1)))
        await until(lambda: store.load().size == log.size - 1, "the surplus is put aside")


@pytest.mark.parametrize(("method", "question"), [("read", Fetch(0, 1 << 20)), ("root_at", RootQuery(2))])
async def test_who_wants_to_be_the_master_is_not_kept_waiting_for_what_is_damaged_here(
    monkeypatch: pytest.MonkeyPatch, method: str, question: Fetch | RootQuery
) -> None:
    store, _ = damaged_log(monkeypatch, method, [True])
    async with running(store) as node:
        link = await greeted(node, "n1#1", 5)
        node.runtime.feed(FrameArrived("n1#1", question))
        await until(lambda: link.ended == "damaged", "another node is left to be asked")


async def test_a_timer_asks_the_machine_only_when_something_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every post moves what is due on; the timer stays where it was, and comes too early."""
    async with running(MemoryStore(decode_records)) as node:
        await greeted(node, "n1#1", 1)
        machine, events = node.runtime.machine, list[object]()
        step = machine.step

        def noting(event: Event, **clocks: Any) -> Any:
            events.append(event)
            due[:] = [float("inf")]
            return step(event, **clocks)

        due = [asyncio.get_running_loop().time() + 60]
        monkeypatch.setattr(machine, "step", noting)
        monkeypatch.setattr(machine, "wake_at", lambda: due[0])
        node.runtime._tick()
        assert events == []
        due[0] = 0.0
        node.runtime._tick()
        assert events == [Tick()]


async def test_a_bug_met_by_the_timer_stops_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose timer has gone would only seem to live."""
    async with running(MemoryStore(decode_records)) as node:
        bug = AssertionError("a bug")

        def wake_at() -> float:
            raise bug

        monkeypatch.setattr(node.runtime.machine, "wake_at", wake_at)
        node.runtime._tick()
        assert node.faults == [bug]
        node.faults.clear()
