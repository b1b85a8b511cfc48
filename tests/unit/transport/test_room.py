"""Who waits for room, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from replicad.transport.room import Room, Share


async def asks(share: Share, size_bytes: int) -> asyncio.Task[None]:
    task = asyncio.create_task(share.take(size_bytes))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_a_principal_waits_for_its_own_calls_and_for_nobody_elses() -> None:
    room = Room(10)
    with room.share("a") as first, room.share("a") as second, room.share("b") as other:
        assert (await asks(first, 6)).done()
        waits = await asks(second, 6)
        assert (await asks(other, 6)).done()
        assert not waits.done()
        first.give(2)
        await asyncio.sleep(0)
        await waits
        assert (first.held_bytes, second.held_bytes) == (4, 6)


async def test_room_is_given_in_the_order_in_which_it_was_asked_for() -> None:
    room = Room(10)
    shares = [room.share("a") for _ in range(4)]
    asked = [await asks(share, size_bytes) for share, size_bytes in zip(shares, (8, 9, 1, 1), strict=True)]
    assert [task.done() for task in asked] == [True, False, False, False]
    with shares[0]:
        pass  # it is over
    await asyncio.sleep(0)
    assert [task.done() for task in asked] == [True, True, True, False]
    for share in shares:
        with share:
            pass
    await asyncio.gather(*asked, return_exceptions=True)


async def test_what_is_larger_than_the_room_goes_alone_and_what_turns_out_larger_counts() -> None:
    room = Room(10)
    with room.share("a") as large, room.share("a") as small:
        assert (await asks(large, 50)).done()
        waits = await asks(small, 1)
        large.give(45)
        large.give(-6)
        await waits
        assert (large.held_bytes, small.held_bytes) == (11, 1)


async def test_who_leaves_waits_no_more_and_leaves_nothing_behind() -> None:
    room = Room(10)
    with room.share("a") as first, room.share("a") as third:
        assert (await asks(first, 10)).done()
        with room.share("a") as second:
            left = await asks(second, 5)
        waits = await asks(third, 5)
        with pytest.raises(asyncio.CancelledError):
            await left
        with pytest.raises(asyncio.CancelledError):
            await second.take(1)
        second.give(-3)
        first.give(5)
        await waits
    assert (room._held, room._waiting) == ({}, {})
