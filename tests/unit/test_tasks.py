"""A task that is cancelled ends as one, whatever a gRPC call that it waits for makes of that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from grpc.aio import AioRpcError

from replicad.tasks import next_message
from tests.support.ending_call import EndingCall, broken, well
from tests.support.scripted_server import soon

ENDS = pytest.mark.parametrize("end", [well, broken])


@ENDS
async def test_who_reads_a_call_that_ends_while_it_is_cancelled_is_cancelled(end: Callable[[], Exception]) -> None:
    call = EndingCall(end)
    task = asyncio.create_task(next_message(call))
    await soon(call.waited_for.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)


@ENDS
async def test_a_time_limit_on_a_read_is_told_as_one(end: Callable[[], Exception]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await next_message(EndingCall(end))


async def test_the_end_of_a_call_is_told_to_who_goes_on() -> None:
    class Broken:
        async def read(self) -> bytes:
            raise broken()

    with pytest.raises(AioRpcError):
        await next_message(Broken())
