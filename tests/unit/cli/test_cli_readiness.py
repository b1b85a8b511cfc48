"""Descriptors that are watched on the loop that the CLI runs on, and left as they were."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import pytest

from replicad import eventloop
from replicad.cli.lines import read_chunks
from replicad.cli.readiness import told_once

Pipe = tuple[FileIO, FileIO]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """The reading end and the writing end."""
    reading, writing = os.pipe()
    with FileIO(reading, "r") as reader, FileIO(writing, "w") as writer:
        yield reader, writer


async def told_after(descriptor: int, events: int, does: Callable[[], object]) -> int:
    """How often it is told of, once ``does`` was done."""
    ready = asyncio.Event()
    told: list[None] = []

    def note() -> None:
        told.append(None)
        ready.set()

    with told_once(descriptor, events, note):
        await asyncio.sleep(0.01)
        assert told == []
        does()
        async with asyncio.timeout(5):
            await ready.wait()
        await asyncio.sleep(0.01)  # what is ready stays so
    return len(told)


def test_what_can_be_read_is_told_once(pipe: Pipe) -> None:
    reading, writing = pipe
    assert eventloop.run(told_after(reading.fileno(), select.EPOLLIN, lambda: writing.write(b"x"))) == 1


@pytest.mark.parametrize("closed_first", ["reading", "writing"])
def test_that_the_other_end_is_closed_is_told_once(pipe: Pipe, closed_first: str) -> None:
    reading, writing = pipe
    watched, closed = (writing, reading) if closed_first == "reading" else (reading, writing)
    events = 0 if watched is writing else select.EPOLLIN
    assert eventloop.run(told_after(watched.fileno(), events, closed.close)) == 1


def test_a_regular_file_lets_nobody_wait(tmp_path: Path) -> None:
    async def watch() -> None:
        with (tmp_path / "file").open("w") as file, told_once(file.fileno(), select.EPOLLIN, lambda: None):
            raise AssertionError("it was watched")

    with pytest.raises(PermissionError):
        eventloop.run(watch())


def test_what_others_share_stays_blocking(pipe: Pipe) -> None:
    """A file description that one program makes non-blocking is so for all that have it: they lose what they write."""
    reading, writing = pipe
    eventloop.run(told_after(reading.fileno(), select.EPOLLIN, lambda: writing.write(b"x")))
    assert os.get_blocking(reading.fileno())

    async def read() -> list[bytes]:
        asyncio.get_running_loop().call_later(0.01, writing.close)
        return [chunk async for chunk in read_chunks(reading.fileno())]

    assert eventloop.run(read()) == [b"x"]
    assert os.get_blocking(reading.fileno())
