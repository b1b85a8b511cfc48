"""Reading lines from whatever standard input is, and the ids that they get."""

import asyncio
import fcntl
import os
import termios
import uuid
from collections.abc import Coroutine
from functools import partial
from pathlib import Path

import click
import pytest

from replicad.cli import lines as lines_module
from replicad.cli.errors import Failure, Interrupted
from replicad.cli.lines import LineIds, read_lines
from replicad.cli.main import main
from tests.support.waiting import eventually


async def all_lines(descriptor: int) -> list[bytes]:
    return [line async for some in read_lines(descriptor) for line in some]


async def is_empty(pipe: int) -> bool:
    return fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4) == b"\0" * 4


async def lines_of_pipe(*writes: bytes) -> list[bytes]:
    """What a reader makes of these writes into a pipe, each written when the one before it has been read."""
    reading, writing = os.pipe()
    reader = asyncio.create_task(all_lines(reading))
    try:
        for data in writes:
            os.write(writing, data)
            await eventually(partial(is_empty, reading), within_s=10, what="the pipe was read")
    finally:
        os.close(writing)
    try:
        return await reader
    finally:
        os.close(reading)


async def test_lines_are_parted_by_line_feeds_and_by_nothing_else() -> None:
    assert await lines_of_pipe(b"a\r\nb\x0b\n\n \xff\n") == [b"a\r", b"b\x0b", b"", b" \xff"]


async def test_the_last_line_may_lack_its_line_feed() -> None:
    assert await lines_of_pipe(b"a\nb") == [b"a", b"b"]
    assert await lines_of_pipe(b"a\n") == [b"a"]
    assert await lines_of_pipe() == []


async def test_a_line_comes_together_from_many_reads() -> None:
    assert await lines_of_pipe(b"a", b"b", b"c\nd", b"e\n", b"\nf") == [b"abc", b"de", b"", b"f"]


async def test_a_file_is_read_as_a_pipe_is(tmp_path: Path) -> None:
    content = b"".join(b"line %d\n" % number for number in range(50_000))
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as file:
        assert await all_lines(file.fileno()) == content.split(b"\n")[:-1]


async def test_dev_null_has_no_line() -> None:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    try:
        assert await all_lines(descriptor) == []
    finally:
        os.close(descriptor)


async def test_lines_are_there_before_the_writer_ends() -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"first\nsec")
        chunks = read_lines(reading)
        assert await anext(chunks) == [b"first"]
        os.write(writing, b"ond\n")
        assert await anext(chunks) == [b"second"]
        await chunks.aclose()
    finally:
        os.close(writing)
        os.close(reading)


async def test_a_reader_that_waits_can_be_cancelled() -> None:
    reading, writing = os.pipe()
    try:
        reader = asyncio.create_task(all_lines(reading))
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
    finally:
        os.close(writing)
        os.close(reading)


async def test_a_line_that_no_log_takes_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_module, "MAX_PAYLOAD_BYTES", 1 << 20)
    (tmp_path / "file").write_bytes(b"good\n" + b"x" * (2 << 20))
    with (tmp_path / "file").open("rb") as file, pytest.raises(Failure, match="a line is longer than 1 MiB"):
        await all_lines(file.fileno())


def test_a_line_that_no_log_takes_is_to_be_made_shorter_whatever_the_nodes_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lines_module, "MAX_PAYLOAD_BYTES", 1 << 20)
    (tmp_path / "file").write_bytes(b"x" * (2 << 20))
    first_id = "01a207f3-5112-77b6-880f-0000000000fe"
    with (tmp_path / "file").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert main(["--address", "127.0.0.1:1", "post", "--lines", "--id", first_id]) == 2
    assert capsys.readouterr().err == (
        "error: line 1: a line is longer than 1 MiB, which no log takes; no line is confirmed (413 TOO_LARGE)\n"
        "applied: no\n"
        f"try: make that line shorter; then run it again with --id {first_id}, no line left out\n"
    )


def test_ctrl_c_before_any_line_leaves_nothing_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(work: Coroutine[object, object, None]) -> None:
        work.close()
        raise Interrupted

    monkeypatch.setattr(lines_module, "run", run)
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert main(["post", "--lines"]) == 130
    assert capsys.readouterr().err == "error: line 1: interrupted; no line is confirmed\napplied: no\n"


def test_ids_count_up_from_the_first_lines() -> None:
    ids = LineIds("01a207f3-5112-77b6-880f-0000000000fe")
    assert ids.of(1) == ["01a207f3-5112-77b6-880f-0000000000fe"]
    assert ids.of(2, 2) == ["01a207f3-5112-77b6-880f-0000000000ff", "01a207f3-5112-77b6-880f-000000000100"]


def test_ids_are_uuids_of_the_7th_version_where_none_is_given() -> None:
    ids = LineIds(None)
    first, second = ids.of(1, 2)
    assert uuid.UUID(first).version == uuid.UUID(second).version == 7
    assert first < second
    assert ids.first == first


def test_ids_do_not_run_out_at_the_end_of_their_counter() -> None:
    assert LineIds("01a207f3-5112-77b6-880f-ffffffffffff").of(1, 2) == [
        "01a207f3-5112-77b6-880f-ffffffffffff",
        "01a207f3-5112-77b6-880f-000000000000",
    ]


def test_a_first_id_that_cannot_count_up_is_refused() -> None:
    with pytest.raises(click.UsageError, match="must be a UUID"):
        LineIds("order-7")
