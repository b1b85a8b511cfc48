"""A master that is left behind puts its tail aside, and `replicad-cli quarantine` brings it back: real nodes."""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicad.dev import DevCluster
from tests.support.commandline import CommandLine
from tests.support.nodes import running_cluster, verified
from tests.support.waiting import eventually_true

KEPT = 20  # what a majority has
LOST = 300  # what the old master alone has: more than one batch
KEY = "bOYbM4qT3ZX7mUSrSLQJQmXyyOAaXtGWbJh1Ynm0YfE="


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DevCluster]:
    with running_cluster(tmp_path / "cluster", settings={"timeouts": {"reconnect_max": "300ms"}}) as made:
        yield made


def left_behind(cluster: DevCluster, cli: CommandLine) -> None:
    """node-1 takes posts that nobody else gets; node-2 is made the master, and node-1 follows it."""
    cli.good("post", "-w", "all", "--lines", stdin=b"kept\n" * KEPT)
    cluster.kill("node-2", "node-3")
    cli.good("post", "-w", "1", "--lines", stdin=b"".join(b"lost %d\n" % n for n in range(LOST)))
    cli.good("post", "-w", "1", "--id", "order-7", "--header", "kind=order", "seven")
    cli.good("post", "-w", "1", "--id", "order-8", "eight")
    cli.but(FERNET_KEY=KEY).good("post", "-w", "1", "--id", "secret", "--encrypt", "--header", "a=b", "for us")
    cluster.kill("node-1")
    cluster.start("node-2", "node-3")
    cli.good("promote", "node-2")
    cli.good("post", "--id", "order-7", "--header", "kind=order", "seven")  # its client did not give up
    cli.good("post", "--id", "order-8", "nine")  # another took the id
    cluster.start("node-1")
    eventually_true(lambda: is_level(cluster, cli), within_s=30, what="node-1 level with node-2")


def is_level(cluster: DevCluster, cli: CommandLine) -> bool:
    roots = {(row["size"], row["root"]) for row in cli.objects("status")}
    return len(roots) == 1 and None not in next(iter(roots))


def ids(cli: CommandLine) -> Counter[str]:
    return Counter(record["id"] for record in cli.objects("list"))


def test_what_a_left_behind_master_alone_had_is_listed_shown_exported_and_posted_again(
    cluster: DevCluster, tmp_path: Path
) -> None:
    cli = CommandLine.of(cluster)
    left_behind(cluster, cli)
    config = str(cluster.node("node-1").config_file)
    (entry,) = cli.objects("quarantine", "list", "--config", config)
    assert (entry["state"], entry["node"], entry["records"]) == ("proven", "node-1", LOST + 3)
    assert entry["first_offset"] == KEPT + 1  # behind the epoch's first record
    name = entry["entry"]
    table = cli.good("quarantine", "list", "--config", config).out
    assert name in table
    assert "proven" in table

    shown = cli.objects("quarantine", "show", name, "--config", config)
    assert [record["offset"] for record in shown] == list(range(entry["first_offset"], entry["end"]))
    assert [record.get("text") for record in shown[:LOST]] == [f"lost {n}" for n in range(LOST)]
    opened = cli.but(FERNET_KEY=KEY).objects("quarantine", "show", name, "--config", config)
    assert (opened[-1]["text"], opened[-1]["headers"]) == ("for us", {"a": "b"})

    out = tmp_path / "lost.jsonl"
    cli.good("quarantine", "export", name, "--config", config, "--out", str(out))
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [json.loads(line) for line in out.read_text().splitlines()] == shown
    again = cli.run("quarantine", "export", name, "--config", config, "--out", str(out), "--output", "json")
    assert (again.code, again.error["exit_code"]) == (3, 3)

    alone = CommandLine({"AUTH_TOKEN": cli.env["AUTH_TOKEN"]})  # the config says where the nodes are
    for posted, present in ((LOST + 1, 1), (0, LOST + 2)):
        ran = alone.run("quarantine", "resubmit", name, "--config", config, "-w", "all", "--output", "json")
        assert (ran.code, ran.error["name"]) == (6, "CONFLICT")
        results = Counter(each["result"] for each in ran.objects)
        assert results == Counter({"posted": posted, "present": present, "conflict": 1})
        (conflict,) = (each for each in ran.objects if each["result"] == "conflict")
        assert conflict["id"] == "order-8"

    counted = ids(cli)
    assert set(counted.values()) == {1}
    assert {record["id"] for record in shown} <= set(counted)
    secret = next(each for each in cli.but(FERNET_KEY=KEY).objects("list") if each["id"] == "secret")
    assert (secret["text"], secret["headers"], secret["decrypted"]) == ("for us", {"a": "b"}, True)
    cluster.stop()
    for node in cluster.nodes:
        verified(cluster, node)


def test_what_is_asked_of_a_quarantine_that_has_it_not_is_answered_with_what_to_do(
    cluster: DevCluster, tmp_path: Path
) -> None:
    cli = CommandLine.of(cluster)
    config = str(cluster.node("node-1").config_file)
    assert cli.good("quarantine", "list", "--config", config).out == "nothing is in quarantine\n"
    assert cli.objects("quarantine", "list", "--config", config) == []
    ran = cli.run("quarantine", "show", "1-2-3-0", "--config", config, "--output", "json")
    assert (ran.code, ran.out) == (5, "")
    assert "1-2-3-0" in ran.error["message"]
    missing = cli.run("quarantine", "list", "--config", str(tmp_path / "none.yaml"), "--output", "json")
    assert missing.code == 3


def test_a_damaged_entry_is_told_of_and_nothing_of_it_is_posted(cluster: DevCluster) -> None:
    cli = CommandLine.of(cluster)
    left_behind(cluster, cli)
    node = cluster.node("node-1")
    config = str(node.config_file)
    (entry,) = cli.objects("quarantine", "list", "--config", config)
    file = node.data_dir / "quarantine" / f"{entry['entry']}.batches"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    before = ids(cli)
    listed = cli.run("quarantine", "list", "--config", config, "--output", "json")
    assert (listed.code, listed.objects[0]["state"]) == (10, "damaged")
    for command in ("show", "resubmit"):
        ran = cli.run("quarantine", command, entry["entry"], "--config", config, "--output", "json")
        assert (ran.code, ran.out) == (10, "")
    assert ids(cli) == before


def test_a_resubmission_that_is_refused_says_so_and_is_finished_by_the_next(cluster: DevCluster) -> None:
    cli = CommandLine.of(cluster)
    left_behind(cluster, cli)
    config = str(cluster.node("node-1").config_file)
    (entry,) = cli.objects("quarantine", "list", "--config", config)
    stranger = cli.but(AUTH_TOKEN="wrong-token").run("quarantine", "resubmit", entry["entry"], "--config", config)
    assert stranger.code == 4
    assert "posted 0" in stranger.err
    ran = cli.run("quarantine", "resubmit", entry["entry"], "--config", config)
    assert ran.code == 6  # order-8
    assert f"posted {LOST + 1}, in the log already 1, in conflict 1" in ran.out
