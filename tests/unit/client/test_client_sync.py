"""The blocking client, called from threads as its users do, against a real gRPC server in the test's loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from itertools import islice

import pytest

from replicad.client import Client, NewMessage, Record
from replicad.errors import Applied, BadRequest, IdConflict, OutcomeUnknown, Unavailable
from replicad.wire.codec import PostFrame, PostFrameResult
from replicad.wire.v1 import log_pb2
from tests.support.builders import LogBuilder
from tests.support.commandline import ROOT
from tests.support.scripted_server import PostCall, ScriptedServer, forever, listing, soon

THREADS = 8


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as made:
        yield made


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[Client]:
    made = Client(server.address, token="")
    yield made
    await asyncio.to_thread(made.close)


class Log:
    """Accepts every frame at the next offsets."""

    def __init__(self, server: ScriptedServer) -> None:
        self.frames: list[PostFrame] = []
        self.size = 0
        server.on_frame = self.accept

    def accept(self, call: PostCall, frame: PostFrame) -> None:
        self.frames.append(frame)
        call.accept(frame, first_offset=self.size)
        self.size += len(frame.messages)


async def test_a_post_blocks_until_it_is_answered(server: ScriptedServer, client: Client) -> None:
    Log(server)
    first = await asyncio.to_thread(client.post, "x", id="a", headers={"k": "v"}, write_concern=2, timeout_s=5)
    second = await asyncio.to_thread(client.post, b"y")
    assert (first.id, first.offset, second.offset) == ("a", 0, 1)


async def test_a_record_is_posted_again_under_its_id(server: ScriptedServer, client: Client) -> None:
    log = Log(server)
    record = Record(7, 1, 1, "a", "someone", {"k": "v"}, b"x", committed=False)
    again = await asyncio.to_thread(client.repost, record, write_concern=2, timeout_s=5)
    assert (again.id, again.offset) == ("a", 0)
    assert [frame.write_concern for frame in log.frames] == ["2"]


async def test_posts_of_many_threads_each_get_their_own_answer(server: ScriptedServer, client: Client) -> None:
    Log(server)
    results: dict[str, int] = {}

    def work(thread: int) -> None:
        for index in range(20):
            message_id = f"{thread}-{index}"
            results[message_id] = client.post("x", id=message_id).offset

    await asyncio.gather(*(asyncio.to_thread(work, thread) for thread in range(THREADS)))
    assert len(results) == THREADS * 20
    assert sorted(results.values()) == list(range(THREADS * 20))


async def test_an_error_is_raised_in_the_thread_that_called(server: ScriptedServer, client: Client) -> None:
    server.on_frame = lambda call, frame: call.answer(
        PostFrameResult(frame.sequence, errors=((0, IdConflict("taken", offset=3)),))
    )
    with pytest.raises(IdConflict, match="taken"):
        await asyncio.to_thread(client.post, "x")


async def test_bulk_results_come_in_order(server: ScriptedServer, client: Client) -> None:
    log = Log(server)
    messages = [b"%d" % index for index in range(10_000)]
    batches = await asyncio.to_thread(lambda: list(client.post_many(messages)))
    assert [posted.offset for batch in batches for posted in batch] == list(range(10_000))
    assert [payload for frame in log.frames for payload in frame.messages.payloads] == messages


async def test_a_bulk_error_names_how_many_were_confirmed(server: ScriptedServer, client: Client) -> None:
    def answer(call: PostCall, frame: PostFrame) -> None:
        if "bad" in frame.messages.ids:
            call.refuse(frame, IdConflict("taken"))
        else:
            call.accept(frame)

    server.on_frame = answer
    messages = [NewMessage(bytes(1 << 19), id=name) for name in ("a", "b", "bad", "c")]
    confirmed = []

    def work() -> None:
        for batch in client.post_many(messages):
            confirmed.extend(batch)

    with pytest.raises(IdConflict, match=r"the first 2 messages are confirmed"):
        await asyncio.to_thread(work)
    assert [each.id for each in confirmed] == ["a", "b"]


async def test_a_list_and_the_head_of_a_tail_are_plain_iterators(server: ScriptedServer, client: Client) -> None:
    builder = LogBuilder()
    bodies = [builder.add(3).batch.body, builder.add(2).batch.body]
    left = asyncio.Event()

    async def follow(request: object) -> AsyncIterator[bytes]:
        try:
            yield listing(*bodies)
            await forever()
        finally:
            left.set()

    server.scripts += [[listing(bodies[0]), listing(bodies[1])], [listing(*bodies)], follow]
    assert await asyncio.to_thread(lambda: [each.offset for each in client.list()]) == [0, 1, 2, 3, 4]
    assert await asyncio.to_thread(lambda: [len(each) for each in client.list_batches()]) == [3, 2]
    assert await asyncio.to_thread(lambda: [each.offset for each in islice(client.tail(), 4)]) == [0, 1, 2, 3]
    await soon(left.wait())


async def test_status_and_outcome_are_asked(server: ScriptedServer, client: Client) -> None:
    def unary(request: object) -> object:
        if isinstance(request, log_pb2.StatusRequest):
            return log_pb2.StatusResponse(node="n1", master_address=server.address)
        return log_pb2.OutcomeResponse(offset=4)

    server.unary = unary
    assert (await asyncio.to_thread(client.status)).node == "n1"
    assert (await asyncio.to_thread(client.outcome, "x")).offset == 4


async def test_a_closed_client_ends_its_thread_and_takes_no_more(server: ScriptedServer) -> None:
    client = Client(server.address, token="")
    posting = asyncio.create_task(asyncio.to_thread(client.post, "x"))
    await (await server.call()).frame()
    await asyncio.to_thread(client.close)
    with pytest.raises(OutcomeUnknown):
        await posting
    with pytest.raises(Unavailable, match="closed") as caught:
        client.post("y")
    assert caught.value.applied is Applied.NO
    client.close()
    assert "replicad-client" not in {thread.name for thread in threading.enumerate()}


async def test_it_works_as_a_context_manager(server: ScriptedServer) -> None:
    Log(server)

    def work() -> int:
        with Client(server.address, token="") as client:
            return client.post("x").offset

    assert await asyncio.to_thread(work) == 0


async def test_an_error_of_the_input_comes_out_after_what_was_posted(server: ScriptedServer, client: Client) -> None:
    log = Log(server)

    def work() -> int:
        confirmed = 0
        try:
            for posted in client.post_many([*[bytes(100)] * 5000, 7]):  # type: ignore[list-item]
                confirmed += len(posted)
        except BadRequest as error:
            told.append(error.message)
        return confirmed

    told: list[str] = []
    assert 0 < await asyncio.to_thread(work) == log.size
    assert f"the first {log.size} messages are confirmed" in told[0]


async def test_readers_of_a_client_that_another_thread_closes_are_told(server: ScriptedServer) -> None:
    server.scripts.append(lambda _: _one_and_no_more())
    client = Client(server.address, token="")

    def follow() -> list[int]:
        offsets = []
        try:
            for record in client.tail():
                offsets.append(record.offset)
                read.set()
        except Unavailable as error:
            told.append(error.message)
        return offsets

    read, told = threading.Event(), list[str]()
    following = asyncio.create_task(asyncio.to_thread(follow))
    await asyncio.to_thread(read.wait, 10)
    await asyncio.to_thread(client.close)
    assert await soon(following) == [0]
    assert told == ["the client was closed"]


async def _one_and_no_more() -> AsyncIterator[bytes]:
    yield listing(LogBuilder().add(1).batch.body)
    await forever()


async def test_an_iterator_that_nobody_reads_to_its_end_holds_up_nothing(server: ScriptedServer) -> None:
    """The garbage collector ends it in whichever thread it runs, and an interpreter's exit as well."""
    server.scripts += [lambda _: _one_and_no_more()] * 2
    program = (
        "import gc, sys, threading\n"
        "from replicad.client import Client\n"
        "client = Client(sys.argv[1], token='')\n"
        "cycle = [client.tail()]\n"
        "next(cycle[0]); cycle.append(cycle); del cycle\n"
        "client._loop.call_soon_threadsafe(gc.collect)\n"
        "client.status()\n"
        "left = client.tail()\n"
        "print(next(left).offset)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, server.address, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    out, _ = await soon(process.communicate())
    assert (process.returncode, out) == (0, b"0\n")


def test_a_forked_process_is_told_that_the_client_is_not_its_own() -> None:
    program = (
        "import os\n"
        "from replicad.client import Client\n"
        "client = Client('127.0.0.1:1', token='')\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        client.status()\n"
        "    except RuntimeError as error:\n"
        "        client.close()\n"
        "        os._exit(7 if 'make one in each' in str(error) else 8)\n"
        "    os._exit(9)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        "client.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=20, check=False)
    assert done.stdout == b"7\n", done.stderr


def test_what_is_called_while_the_interpreter_ends_does_not_wait_for_a_thread_that_stands_still() -> None:
    program = (
        "from replicad.client import Client, Unavailable\n"
        "class Reporter:\n"
        "    def __init__(self):\n"
        "        self.client = Client('127.0.0.1:1', token='')\n"
        "    def __del__(self):\n"
        "        try:\n"
        "            self.client.post('bye')\n"
        "        except Unavailable as error:\n"
        "            print(error.applied, error)\n"
        "        self.client.close()\n"
        "        print('closed')\n"
        "reporter = Reporter()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (
        0,
        b"no the interpreter is at its end, and the client with it\nclosed\n",
    ), done.stderr


async def test_a_post_many_whose_client_is_closed_says_that_the_outcome_is_unknown(server: ScriptedServer) -> None:
    frames: list[PostFrame] = []

    def answer_the_first(call: PostCall, frame: PostFrame) -> None:
        frames.append(frame)
        if len(frames) == 1:
            call.accept(frame)

    server.on_frame = answer_the_first

    def work() -> None:
        client = Client(server.address, token="")
        posting = client.post_many([bytes(1 << 20)] * 20)
        next(posting)
        client.close()
        with pytest.raises(OutcomeUnknown):
            next(posting)

    await soon(asyncio.to_thread(work))
