"""Every command of replicad-cli against real nodes, in text and in json, and every exit code that can be had."""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from replicad.dev import DevCluster
from tests.support.commandline import PROGRAM, CommandLine, lines_from
from tests.support.ports import free_ports
from tests.support.waiting import eventually_true

MIB = 1 << 20
LEVEL_S = 30.0  # for a node to come level: the longest wait before it is dialled is 5 s


@pytest.fixture
def cli(cluster: DevCluster) -> CommandLine:
    """For the module's cluster, all of whose nodes run when the test begins."""
    for name in cluster.running():
        cluster.send_signal(name, signal.SIGCONT)
    stopped = [node.name for node in cluster.nodes if cluster.pid(node.name) is None]
    if stopped:
        cluster.start(*stopped)
    return CommandLine.of(cluster)


@pytest.fixture
def dead(cli: CommandLine) -> CommandLine:
    """For addresses where nobody listens."""
    first, second = free_ports(2)
    return cli.but(REPLICAD_ADDRESS=f"127.0.0.1:{first},127.0.0.1:{second}")


# --- posting and reading ----------------------------------------------------------------------------------------------


def test_a_message_is_posted_listed_and_found_again(cli: CommandLine) -> None:
    posted = cli.good("post", "-w", "all", "--id", "a-1", "--header", "kind=greeting", "hello, log").out
    match = re.fullmatch(r"offset (\d+)  id a-1  on 3 nodes\n", posted)
    assert match
    offset = match[1]

    fields = cli.good("list", "--from", offset, "--limit", "1").out.rstrip("\n").split("\t")
    assert [fields[0], *fields[2:]] == [offset, "committed", "a-1", "token", "kind=greeting", "hello, log"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields[1])
    assert cli.good("outcome", "a-1").out == f"offset {offset}  epoch 1  {fields[1]}  committed  on 3 nodes\n"


def test_json_has_every_field(cli: CommandLine) -> None:
    [posted] = cli.objects("post", "--header", "kind=greeting", "grüße")
    assert (posted["code"], posted["name"], posted["duplicate"]) == (200, "OK", False)
    assert posted["nodes"] >= 2

    [record] = cli.objects("list", "--from", str(posted["offset"]))
    time = record.pop("time")
    assert record == {
        "offset": posted["offset"],
        "epoch": 1,
        "id": posted["id"],
        "author": "token",
        "headers": {"kind": "greeting"},
        "committed": True,
        "encrypted": False,
        "decrypted": False,
        "payload": "Z3LDvMOfZQ==",
        "text": "grüße",
    }
    [outcome] = cli.objects("outcome", posted["id"])
    nodes = outcome.pop("nodes")
    assert outcome == {
        "id": posted["id"],
        "offset": posted["offset"],
        "epoch": 1,
        "time": time,
        "committed": True,
    }
    assert nodes >= 2


def test_output_and_address_may_stand_before_or_after_the_command(cli: CommandLine, cluster: DevCluster) -> None:
    nowhere = cli.but(REPLICAD_ADDRESS="")
    address = cluster.nodes[0].address
    before = nowhere.good("--address", address, "--output", "json", "list", "--limit", "1")
    after = nowhere.good("list", "--limit", "1", "--output", "json", "--address", address)
    assert before == after
    assert before.objects[0]["id"] == "replicad:epoch:1"


def test_the_payload_is_the_very_bytes_of_the_command_line_or_of_standard_input(cli: CommandLine) -> None:
    content = bytes(range(256)) + b"\n"
    cli.good("post", "--id", "stdin-dash", "-", stdin=content)
    cli.good("post", "--id", "stdin", stdin=content)
    subprocess.run([*PROGRAM, "post", "--id", "latin-1", b"gr\xfc\xdfe"], env=cli.env, check=True, capture_output=True)

    payloads = {record["id"]: record["payload"] for record in cli.objects("list")}
    assert payloads["stdin-dash"] == payloads["stdin"]
    assert payloads["latin-1"] == "Z3L832U="


def test_a_post_that_is_there_already_is_a_duplicate_and_no_error(cli: CommandLine) -> None:
    [first] = cli.objects("post", "--id", "d-1", "same")
    [second] = cli.objects("post", "--id", "d-1", "same")
    assert (second["code"], second["name"], second["duplicate"]) == (409, "DUPLICATE_RECEIVED", True)
    assert second["offset"] == first["offset"]
    assert "duplicate: it was in the log before" in cli.good("post", "--id", "d-1", "same").out


def test_list_takes_ranges_of_offsets_and_of_times(cli: CommandLine) -> None:
    cli.good("post", "one")
    cli.good("post", "two")
    records = cli.objects("list")
    offsets = [record["offset"] for record in records]
    assert offsets == list(range(len(offsets)))

    assert [each["offset"] for each in cli.objects("list", "--from", "1", "--limit", "1")] == [1]
    time = records[-1]["time"]
    since = cli.objects("list", "--since", time)
    assert [each["offset"] for each in since] == [each["offset"] for each in records if each["time"] >= time]
    until = cli.objects("list", "--until", time)
    assert [each["offset"] for each in until] == [each["offset"] for each in records if each["time"] < time]
    assert cli.objects("list", "--from", str(len(offsets))) == []
    assert cli.objects("list", "--limit", "0") == []


def test_a_client_reads_its_own_write_on_any_node(cli: CommandLine, cluster: DevCluster) -> None:
    [posted] = cli.objects("post", "-w", "1", "mine")
    for node in cluster.nodes:
        at = ("--address", node.address, "--min-offset", str(posted["offset"]))
        assert cli.objects("list", *at)[-1]["id"] == posted["id"]


def test_the_other_levels_show_the_same_when_all_is_committed(cli: CommandLine) -> None:
    cli.good("post", "-w", "all", "level")
    committed = cli.good("list").out
    assert cli.good("list", "--level", "linearizable").out == committed
    assert cli.good("list", "--level", "local", "--address", cli.env["REPLICAD_ADDRESS"]).out == committed


def test_what_is_not_committed_is_listed_as_such_at_level_local_only(cli: CommandLine, cluster: DevCluster) -> None:
    for name in ("node-2", "node-3"):
        cluster.send_signal(name, signal.SIGSTOP)
    [posted] = cli.objects("post", "-w", "1", "alone")
    master = ("--address", cluster.master.address)
    assert cli.objects("list", *master)[-1]["offset"] < posted["offset"]
    assert cli.objects("list", *master, "--level", "local")[-1]["committed"] is False
    assert "\tuncommitted\t" in cli.good("list", *master, "--level", "local").out.splitlines()[-1]
    [outcome] = cli.objects("outcome", posted["id"], *master)
    assert (outcome["committed"], outcome["nodes"]) == (False, 1)


def test_ctrl_c_in_a_post_leaves_the_id_by_which_its_outcome_is_learnt(cli: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        nobody = cli.but(REPLICAD_ADDRESS=f"127.0.0.1:{silent.getsockname()[1]}")
        with nobody.started("post", "--output", "json", "x") as process:
            silent.accept()[0].close()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate()
    told = json.loads(err)
    assert (process.returncode, out, told["name"], told["applied"]) == (130, b"", "INTERRUPTED", "unknown")
    assert f"replicad-cli outcome {told['id']}" in told["remedy"]


# --- tail -------------------------------------------------------------------------------------------------------------


def test_tail_prints_each_record_when_it_comes_and_ctrl_c_ends_it(cli: CommandLine) -> None:
    cli.good("post", "before")
    listed = cli.good("list").out.splitlines()
    with cli.started("tail") as tail:
        assert lines_from(tail.stdout, len(listed)) == listed
        [posted] = cli.objects("post", "--id", "tail-1", "and now")
        [line] = lines_from(tail.stdout, 1)
        assert line.split("\t")[0] == str(posted["offset"])
        assert line.endswith("\ttail-1\ttoken\t-\tand now")

        tail.send_signal(signal.SIGINT)
        out, err = tail.communicate()
        assert (tail.returncode, out, err) == (130, b"", b"")


def test_tail_from_the_end_prints_only_what_is_new(cli: CommandLine) -> None:
    [before] = cli.objects("post", "before")
    offsets: list[int] = []

    def seen() -> bool:
        """Post again and again: a message may come before the tail has found where the end is."""
        offsets.append(cli.objects("post", "new")[0]["offset"])
        return readable(tail)

    with cli.started("tail", "--from", "end", "--output", "json") as tail:
        eventually_true(seen, within_s=20, what="tail printed a record")
        [line] = lines_from(tail.stdout, 1)
    assert json.loads(line)["offset"] in offsets
    assert before["offset"] not in offsets


def test_tail_goes_on_where_it_was_when_its_node_restarts(cli: CommandLine, cluster: DevCluster) -> None:
    node = cluster.nodes[1]
    size = len(cli.good("list").out.splitlines())
    with cli.started("tail", "--address", node.address) as tail:
        lines = lines_from(tail.stdout, size)
        cluster.kill(node.name)
        for number in range(5):
            cli.good("post", "-w", "2", f"while away {number}")
        cluster.start(node.name)
        cli.good("post", "back")
        lines += lines_from(tail.stdout, 6)
    assert [int(line.split("\t")[0]) for line in lines] == list(range(size + 6))
    assert lines[-1].endswith("\tback")


def test_tail_ends_at_once_and_silently_when_its_reader_goes(cli: CommandLine) -> None:
    with cli.started("tail") as tail:
        lines_from(tail.stdout, 1)
        assert tail.stdout
        tail.stdout.close()
        assert tail.stderr
        assert tail.wait(timeout=20) == 141
        assert tail.stderr.read() == b""


def readable(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has written something that nobody has read."""
    assert process.stdout
    return bool(select.select([process.stdout], [], [], 0)[0])


# --- status -----------------------------------------------------------------------------------------------------------


def test_status_shows_all_nodes_whichever_is_asked(cli: CommandLine, cluster: DevCluster) -> None:
    cli.good("post", "-w", "all", "x")
    size = len(cli.good("list").out.splitlines())
    for node in cluster.nodes:
        alone = cli.but(REPLICAD_ADDRESS=node.address)

        def level(alone: CommandLine = alone) -> list[dict[str, object]]:
            rows = alone.objects("status")
            return rows if all(row["commit_size"] == size for row in rows) else []

        rows = eventually_true(level, within_s=LEVEL_S, what="all nodes know that all is committed")
        assert [row["node"] for row in rows] == ["node-1", "node-2", "node-3"]
        assert [row["role"] for row in rows] == ["master", "worker", "worker"]
        assert [row["state"] for row in rows] == ["open", "following", "following"]
        assert [row["lag"] for row in rows] == [0, 0, 0]
        assert [row["health"] for row in rows] == ["HEALTHY"] * 3
        assert {row["size"] for row in rows} == {size}
        assert len({row["root"] for row in rows}) == 1
        assert all(isinstance(row["rss_bytes"], int) and row["rss_bytes"] > MIB for row in rows)

    lines = cli.good("status").out.splitlines()
    assert [line.split()[0] for line in lines] == ["NODE", "node-1", "node-2", "node-3"]
    assert {len(line.split()) for line in lines} == {12}


def test_status_shows_a_dead_node_and_why(cli: CommandLine, cluster: DevCluster) -> None:
    cluster.kill("node-3")
    rows = cli.objects("status")
    assert [row["reachable"] for row in rows] == [True, True, False]
    assert "Connection refused" in rows[2]["error"]
    assert re.search(r"^node-3 .* unreachable ", cli.good("status").out, re.MULTILINE)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_no_node_at_all_is_told_with_what_to_do(dead: CommandLine) -> None:
    error = dead.fails(7, "post", "--timeout", "1s", "x")
    assert (error["code"], error["name"], error["applied"]) == (503, "UNAVAILABLE", "no")
    assert "Connection refused" in error["message"]
    assert "REPLICAD_ADDRESS" in error["remedy"]
    assert dead.fails(7, "status")["name"] == "UNAVAILABLE"
    for command in (["list"], ["tail"], ["outcome", "x"]):
        assert dead.fails(7, *command, "--timeout", "300ms")["applied"] == "-"

    ran = dead.run("list", "--timeout", "300ms")
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert "\ntry: check that the nodes run" in ran.err


@pytest.mark.parametrize("token", ["wrong", ""])
def test_no_or_a_wrong_token_is_refused_by_every_command(cli: CommandLine, token: str) -> None:
    stranger = cli.but(AUTH_TOKEN=token)
    for command in (["post", "x"], ["post", "--lines"], ["list"], ["tail"], ["outcome", "x"], ["status"]):
        error = stranger.fails(4, *command, stdin=b"a line\n")
        assert (error["code"], error["name"]) == (401, "UNAUTHORIZED")
        assert "AUTH_TOKEN" in error["remedy"]
        assert cli.env["AUTH_TOKEN"] not in str(error)


def test_an_id_that_is_not_there_is_not_found(cli: CommandLine) -> None:
    assert cli.fails(5, "outcome", "never-posted")["name"] == "NOT_FOUND"


def test_an_id_with_other_content_is_a_conflict(cli: CommandLine) -> None:
    [posted] = cli.objects("post", "--id", "c-1", "one")
    error = cli.fails(6, "post", "--id", "c-1", "other")
    assert (error["code"], error["name"], error["applied"]) == (409, "ID_CONFLICT", "no")
    assert error["offset"] == posted["offset"]


def test_a_write_concern_that_is_not_met_in_time_says_where_the_record_is(
    cli: CommandLine, cluster: DevCluster
) -> None:
    cluster.send_signal("node-3", signal.SIGSTOP)
    error = cli.fails(8, "post", "-w", "all", "--timeout", "500ms", "--id", "late-1", "x")
    assert (error["code"], error["name"], error["applied"]) == (504, "WRITE_CONCERN_TIMEOUT", "yes")
    assert (error["nodes"], error["id"]) == (2, "late-1")
    assert cli.objects("list", "--from", str(error["offset"]))[0]["id"] == "late-1"

    text = cli.run("post", "-w", "all", "--timeout", "500ms", "--id", "late-1", "x").err
    assert f"applied: yes, at offset {error['offset']}, on 2 nodes\n" in text
    assert "--id late-1" in text

    cluster.send_signal("node-3", signal.SIGCONT)
    [posted] = cli.objects("post", "-w", "all", "--id", "late-1", "x")
    assert (posted["duplicate"], posted["offset"], posted["nodes"]) == (True, error["offset"], 3)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-w", "9", "x"], "this cluster has 3 voters"),
        (["--id", "replicad:epoch:9", "x"], "reserved"),
        (["--id", "ü", "x"], "printable ASCII"),
        (["--header", f"{'k' * 300}=v", "x"], "header key"),
    ],
)
def test_a_request_that_can_never_work_is_told_in_words(cli: CommandLine, arguments: list[str], told: str) -> None:
    error = cli.fails(2, "post", *arguments)
    assert (error["code"], error["name"], error["applied"]) == (400, "BAD_REQUEST", "no")
    assert told in error["message"]


def test_a_message_that_is_too_large_is_refused(cli: CommandLine) -> None:
    error = cli.fails(2, "post", "-", stdin=b"x" * (MIB + 1))
    assert (error["code"], error["name"], error["applied"]) == (413, "TOO_LARGE", "no")


def test_no_error_that_somebody_expected_shows_a_traceback(cli: CommandLine, dead: CommandLine) -> None:
    runs = [
        cli.run("outcome", "never-posted"),
        cli.but(AUTH_TOKEN="wrong").run("list"),
        dead.run("status"),
        cli.run("verify", "/nowhere", "--cluster", "c", "--key", "x"),
        cli.run("list", "--from", "x"),
    ]
    for ran in runs:
        assert ran.code
        assert "Traceback" not in ran.err


# --- outputs that end ------------------------------------------------------------------------------------------------


def test_list_into_head_is_silent(cli: CommandLine) -> None:
    cli.good("post", "--lines", stdin=b"%s\n" % (b"x" * 100) * 10_000)  # more than a pipe holds
    with cli.started("list") as process:
        assert process.stdout
        assert process.stderr
        lines_from(process.stdout, 1)
        process.stdout.close()
        assert process.wait(timeout=20) == 141
        assert process.stderr.read() == b""


def test_a_full_disk_under_standard_output_is_an_error(cli: CommandLine) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*PROGRAM, "list"], env=cli.env, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 11
    assert done.stderr == b"error: standard output cannot be written: No space left on device\n"


def test_a_closed_standard_input_is_bad_usage(cli: CommandLine) -> None:
    for words in ("post", "post --lines"):
        shell = ["sh", "-c", f"exec {PROGRAM[0]} -m replicad.cli {words} <&-"]
        done = subprocess.run(shell, env=cli.env, capture_output=True, check=False)
        assert done.returncode == 2, done
        assert b"closed" in done.stderr


def test_what_a_terminal_lacks_is_escaped_and_no_error(cli: CommandLine) -> None:
    [posted] = cli.objects("post", "grüße")
    ascii_only = cli.but(PYTHONIOENCODING="ascii:strict")
    assert ascii_only.good("list", "--from", str(posted["offset"])).out.endswith("\tgr\\xfc\\xdfe\n")


def test_text_and_json_tell_the_same_of_a_record(cli: CommandLine) -> None:
    cli.good("post", "--header", "a=b", "tab\there")
    record = cli.objects("list")[-1]
    assert cli.good("list").out.splitlines()[-1].split("\t") == [
        str(record["offset"]),
        record["time"],
        "committed",
        record["id"],
        record["author"],
        "a=b",
        "tab\\there",
    ]
