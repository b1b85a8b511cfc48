"""`replicad-cli post --lines` against real nodes: fast, prompt, and exact about how far it got."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from replicad.dev import DevCluster
from tests.support.commandline import PROGRAM, CommandLine, lines_from
from tests.support.waiting import eventually_true

MIB = 1 << 20
FIRST_ID = "01a207f3-5112-77b6-880f-00000000{:04x}"


@pytest.fixture
def cli(cluster: DevCluster) -> CommandLine:
    for name in cluster.running():
        cluster.send_signal(name, signal.SIGCONT)
    return CommandLine.of(cluster)


def payloads(cli: CommandLine, *, since: int = 0) -> list[bytes]:
    return [base64.b64decode(record["payload"]) for record in cli.objects("list", "--from", str(since))]


def size(cli: CommandLine) -> int:
    return int(cli.objects("status")[0]["commit_size"])


@pytest.mark.parametrize("headers", [[], ["--header", "source=test"]])
def test_20_000_lines_are_20_000_messages_in_their_order(cli: CommandLine, headers: list[str]) -> None:
    lines = [b"line %d" % number for number in range(20_000)]
    start = size(cli)
    out = cli.good("post", "--lines", *headers, stdin=b"\n".join(lines) + b"\n").out
    assert re.fullmatch(rf"posted 20000 lines  offsets {start} to {start + 19_999}  \d+ lines/s\n", out)
    assert payloads(cli, since=start) == lines
    last = cli.objects("list", "--from", str(start + 19_999))[0]
    assert last["headers"] == ({"source": "test"} if headers else {})


def test_json_has_an_object_for_each_line(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x\n" * 20_000)
    with (tmp_path / "file").open("rb") as file:
        done = subprocess.run(
            [*PROGRAM, "--output", "json", "post", "--lines"], stdin=file, capture_output=True, env=cli.env, check=True
        )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 20_000
    assert done.stderr == b""
    assert {result["duplicate"] for result in results} == {False}
    assert len({result["id"] for result in results}) == 20_000
    offsets = [result["offset"] for result in results]
    assert offsets == list(range(offsets[0], offsets[0] + 20_000))


def test_every_line_counts_also_an_empty_one_and_a_last_one_without_its_end(cli: CommandLine) -> None:
    start = size(cli)
    cli.good("post", "--lines", stdin=b"a\n\n\r\nlast")
    assert payloads(cli, since=start) == [b"a", b"", b"\r", b"last"]


def test_no_line_is_no_error(cli: CommandLine) -> None:
    assert cli.good("post", "--lines", stdin=b"").out == "posted 0 lines\n"


def test_a_line_is_posted_when_it_comes_not_when_the_input_ends(cli: CommandLine) -> None:
    with cli.started("post", "--lines", "--output", "json") as process:
        assert process.stdin
        for number in range(3):
            process.stdin.write(b"line %d\n" % number)
            process.stdin.flush()
            [line] = lines_from(process.stdout, 1)
            assert payloads(cli, since=json.loads(line)["offset"]) == [b"line %d" % number]
        process.stdin.close()
        assert process.wait(timeout=20) == 0


def test_the_same_run_again_with_its_first_id_adds_nothing(cli: CommandLine) -> None:
    lines = b"".join(b"line %d\n" % number for number in range(5000))
    first_id = FIRST_ID.format(0)
    cli.good("post", "--lines", "--id", first_id, stdin=lines[: len(lines) // 2])
    start = size(cli)
    kept = lines[: len(lines) // 2].count(b"\n")  # the last of the first half was cut
    lines = lines[: len(lines) // 2].rpartition(b"\n")[0] + b"\n"
    out = cli.good("post", "--lines", "--id", first_id, stdin=lines).out
    assert f"posted {kept} lines" in out
    assert f"{kept} duplicates" in out
    assert size(cli) == start


def test_a_line_that_is_refused_is_named_and_the_run_can_be_resumed(cli: CommandLine) -> None:
    good = [b"line %d" % number for number in range(1000)]
    bad = [*good[:700], b"x" * (MIB + 1), *good[701:]]
    start = size(cli)
    error = cli.run("post", "--lines", "--output", "json", stdin=b"\n".join(bad))
    assert error.code == 2
    told = error.error
    assert (told["code"], told["name"], told["applied"]) == (413, "TOO_LARGE", "no")
    assert (told["line"], told["lines_confirmed"]) == (701, 700)
    assert "lines 1 to 700 are confirmed" in told["message"]
    assert "message 0" not in told["message"]
    assert told["remedy"] == (
        "make that line shorter, or raise limits.payload in every node's config; "
        f"then run it again with --id {told['first_id']}, no line left out"
    )
    assert len(error.objects) == 700

    cli.good("post", "--lines", "--id", told["first_id"], stdin=b"\n".join(good))
    assert sorted(payloads(cli, since=start)) == sorted(good)


def test_other_content_under_a_lines_id_is_a_conflict_of_that_line(cli: CommandLine) -> None:
    first_id = FIRST_ID.format(0xA000)
    cli.good("post", "--lines", "--id", first_id, stdin=b"a\nb\nc\nd\n")
    told = cli.run("post", "--lines", "--id", first_id, "--output", "json", stdin=b"a\nb\nother\nd\n")
    assert told.code == 6
    assert (told.error["name"], told.error["line"], told.error["lines_confirmed"]) == ("ID_CONFLICT", 3, 2)
    assert [each["duplicate"] for each in told.objects] == [True, True]


def test_ctrl_c_tells_how_far_it_got_and_how_to_go_on(cli: CommandLine) -> None:
    with cli.started("post", "--lines", "--output", "json") as process:
        assert process.stdin
        process.stdin.write(b"one\ntwo\n")
        process.stdin.flush()
        lines_from(process.stdout, 2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    told = json.loads(err)
    assert (told["name"], told["line"], told["lines_confirmed"]) == ("INTERRUPTED", 3, 2)


def test_a_master_that_falls_silent_leaves_the_outcome_unknown(cli: CommandLine, cluster: DevCluster) -> None:
    with cli.started("post", "--lines", "--timeout", "2s", "--output", "json") as process:
        assert process.stdin
        process.stdin.write(b"one\n")
        process.stdin.flush()
        lines_from(process.stdout, 1)
        cluster.send_signal(cluster.master.name, signal.SIGSTOP)
        process.stdin.write(b"two\n")
        process.stdin.flush()
        _, err = process.communicate()
    assert process.returncode == 9
    told = json.loads(err)
    assert (told["name"], told["applied"], told["line"]) == ("OUTCOME_UNKNOWN", "unknown", 2)

    cluster.send_signal(cluster.master.name, signal.SIGCONT)
    cli.good("post", "--lines", "--id", told["first_id"], stdin=b"one\ntwo\n")
    found = eventually_true(
        lambda: [each for each in cli.objects("list") if each["id"] in (told["first_id"], told["id"])],
        within_s=20,
        what="both lines are in the log",
    )
    assert [each["text"] for each in found] == ["one", "two"]


def test_lines_go_on_over_a_restart_of_the_master(cli: CommandLine, cluster: DevCluster) -> None:
    start = size(cli)
    with cli.started("post", "--lines", "--timeout", "30s", "--output", "json") as process:
        assert process.stdin
        process.stdin.write(b"before\n")
        process.stdin.flush()
        lines_from(process.stdout, 1)
        cluster.kill(cluster.master.name)
        process.stdin.write(b"meanwhile\n")
        process.stdin.flush()
        cluster.start(cluster.master.name)
        lines_from(process.stdout, 1)
        process.stdin.close()
        assert process.wait(timeout=20) == 0
    texts = [each["text"] for each in cli.objects("list", "--from", str(start)) if each["author"] == "token"]
    assert texts == ["before", "meanwhile"]


def test_a_first_id_that_cannot_count_up_is_bad_usage(cli: CommandLine) -> None:
    assert "must be a UUID" in cli.fails(2, "post", "--lines", "--id", "order-7", stdin=b"x\n")["message"]
