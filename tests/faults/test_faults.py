"""The faults do what they say, the judge sees what he should, and a short run of all of it, with real daemons."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from replicad.errors import Applied, OutcomeUnknown, StorageFull
from replicad.files import sync_folder
from tests.faults.campaign import Campaign
from tests.faults.disks import Disk
from tests.faults.history import History, Violation
from tests.faults.network import Network
from tests.faults.release import ROOT, previous_release
from tests.faults.report import lines

RUN_S = 40.0
NETWORK, CAMPAIGN = 250, 251  # one number a test: they may run side by side

root_only = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("mkfs.ext4") is None,
    reason="network namespaces and disks need root, iproute2 and e2fsprogs",
)


# --- the judge --------------------------------------------------------------------------------------------------


def told() -> History:
    """Two messages that a majority has, one that one node has, one of which nothing is known, one that was refused."""
    history = History()
    history.acknowledged("a", 1, by_majority=True, now=1.0)
    history.acknowledged("b", 2, by_majority=True, now=2.0)
    history.acknowledged("weak", 3, by_majority=False, now=2.5)
    history.failed("unknown", OutcomeUnknown("the master is gone"))
    history.failed("refused", StorageFull("full"))
    history.read(1, "a")
    return history


GOOD = ["replicad:epoch:1", "a", "b"]


@pytest.mark.parametrize("more", [[], ["weak"], ["unknown"], ["unknown", "weak"]])
def test_what_may_be_or_may_not_be_is_good_both_ways(more: list[str]) -> None:
    told().judge({"n1": [*GOOD, *more], "n2": [*GOOD, *more]})


@pytest.mark.parametrize(
    ("log", "text"),
    [
        (["replicad:epoch:1", "a"], "1 acknowledged messages are lost or moved"),
        (["replicad:epoch:1", "a", "weak", "b"], "lost or moved"),
        ([*GOOD, "a"], "more than once"),
        ([*GOOD, "refused"], "were refused are in the log"),
        ([*GOOD, "stranger"], "nobody posted"),
    ],
)
def test_what_must_not_be_is_seen(log: list[str], text: str) -> None:
    with pytest.raises(Violation, match=text):
        told().judge({"n1": log, "n2": log})


def test_nodes_that_differ_and_reads_that_were_taken_back_are_seen() -> None:
    with pytest.raises(Violation, match="n1 and n2 differ at offset 3"):
        told().judge({"n1": [*GOOD, "weak"], "n2": [*GOOD, "unknown"]})
    history = told()
    with pytest.raises(Violation, match="offset 1 was read as a, and then as b"):
        history.read(1, "b")
    history.read(3, "weak")
    with pytest.raises(Violation, match="not there any more"):
        history.judge({"n1": GOOD, "n2": GOOD})


def test_two_masters_of_an_epoch_and_a_commit_size_that_falls_are_seen() -> None:
    history = told()
    history.status("n1", epoch=4, commit_size=10, is_open=True)
    history.status("n2", epoch=4, commit_size=9, is_open=False)
    with pytest.raises(Violation, match="both open in epoch 4"):
        history.status("n2", epoch=4, commit_size=9, is_open=True)
    with pytest.raises(Violation, match="commit size of n1 fell from 10 to 9"):
        history.status("n1", epoch=5, commit_size=9, is_open=False)


def test_an_error_that_says_not_applied_is_a_promise_and_others_are_none() -> None:
    history = told()
    assert (history.refused, history.unknown) == ({"refused"}, {"unknown"})
    assert StorageFull.applied is Applied.NO


def test_a_gap_is_the_longest_time_without_an_acknowledgement_around_a_fault() -> None:
    history = History()
    for at in (1.0, 2.0, 7.0, 7.5):
        history.acknowledged(f"at {at}", 1, by_majority=True, now=at)
    assert history.longest_gap_s(3.0, 6.0) == 5.0
    assert history.longest_gap_s(7.1, 7.2) == 0.5


# --- the faults -------------------------------------------------------------------------------------------------


@root_only
def test_a_power_loss_takes_what_was_not_synced_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    disk = Disk(tmp_path / "disk.img", folder, megabytes=64)
    try:
        for name in ("synced", "canary"):
            with (folder / name).open("wb") as file:
                file.write(bytes(100_000))
                if name == "synced":
                    file.flush()
                    os.fsync(file.fileno())
                    sync_folder(folder)
        disk.take_power()
        assert (folder / "synced").read_bytes() == bytes(100_000)
        canary = folder / "canary"
        assert not canary.exists() or canary.stat().st_size == 0, "the stand-in for a power loss loses nothing"
        disk.fill()
        assert disk.free_bytes < 1 << 20
        disk.make_room()
        assert disk.free_bytes > 32 << 20
    finally:
        disk.unmount()


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(["n1", "n2"], number=NETWORK) as made:
        yield made


ECHO = """import socket, sys
server = socket.create_server((sys.argv[1], 9))
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""
TIMED_CALL = """import socket, sys, time
began = time.monotonic()
socket.create_connection((sys.argv[1], 9), timeout=5)
print(time.monotonic() - began)
"""
CALL = "import socket, sys; socket.create_connection((sys.argv[1], 9), timeout=0.5)"


@root_only
def test_the_network_does_what_it_is_told(network: Network) -> None:
    def hears(caller: str, callee: str) -> bool:
        command = [sys.executable, "-c", CALL, network.ip[callee]]
        return subprocess.run(network.command(caller, *command), stderr=subprocess.DEVNULL, check=False).returncode == 0

    def hears_client(callee: str) -> bool:
        with suppress(OSError), socket.create_connection((network.ip[callee], 9), timeout=0.5):
            return True
        return False

    with ExitStack() as stack:
        for name in ("n1", "n2"):
            command = network.command(name, sys.executable, "-c", ECHO, network.ip[name])
            server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(server.kill)
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
        assert hears("n1", "n2")
        assert hears_client("n1")
        network.drop("n1", network.ip["n2"], "in")
        assert not hears("n1", "n2"), "no answer comes back"
        assert hears_client("n1")
        network.heal()
        assert hears("n1", "n2")
        network.pull("n2")
        assert not hears("n1", "n2")
        assert not hears_client("n2")
        network.heal()
        assert hears_client("n2")
        network.lose("n2", 1.0)
        assert not hears("n1", "n2")
        network.heal()
        network.slow_down("n1", 1000)
        assert hears("n1", "n2")


SERVE_BYTES = """import hashlib, socket, sys
server = socket.create_server((sys.argv[1], 9))
print("ready", flush=True)
caller, _ = server.accept()
got = hashlib.sha256()
while data := caller.recv(1 << 16):
    got.update(data)
caller.sendall(got.digest())
"""
SEND_BYTES = """import os, socket, sys
data = bytes(range(256)) * (8 << 10)
with socket.create_connection((sys.argv[1], 9), timeout=20) as server:
    server.sendall(data)
    server.shutdown(socket.SHUT_WR)
    print(server.recv(32).hex())
"""


@root_only
def test_a_long_cable_brings_all_late_out_of_order_and_whole(network: Network) -> None:
    delay_s, sent = 0.05, bytes(range(256)) * (8 << 10)
    with ExitStack() as stack:
        for name, program in (("n1", SERVE_BYTES), ("n2", ECHO)):
            command = network.command(name, sys.executable, "-c", program, network.ip[name])
            server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(server.kill)
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
        network.lengthen("n1", delay_s=delay_s, jitter_s=delay_s, twice=0.05)
        command = network.command("n2", sys.executable, "-c", SEND_BYTES, network.ip["n1"])
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
        assert answer == hashlib.sha256(sent).hexdigest()

        def took_s() -> float:
            command = network.command("n1", sys.executable, "-c", TIMED_CALL, network.ip["n2"])
            return float(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)

        assert took_s() >= 2 * delay_s, "there and back"
        network.heal()
        assert took_s() < delay_s


# --- the release before -----------------------------------------------------------------------------------------


def test_the_release_before_is_unpacked_or_it_is_said_why_not(tmp_path: Path) -> None:
    why = previous_release(tmp_path / "previous")
    assert (tmp_path / "previous/replicad/__main__.py").is_file() == (why == "")
    if (ROOT / ".git").exists():
        assert not why or "shallow" in why


# --- a short run ------------------------------------------------------------------------------------------------


@root_only
@pytest.mark.timeout(400)
def test_a_short_run_of_faults_loses_nothing(tmp_path: Path) -> None:
    """Another one each time: `make faults SEED=...` does the same faults again."""
    seed = random.SystemRandom().randrange(1 << 31)
    print(f"seed {seed}")
    why = previous_release(tmp_path / "previous")
    print(f"without a rolling upgrade: {why}" if why else "with a rolling upgrade")
    previous = None if why else tmp_path / "previous"
    folder = tmp_path / "cluster"
    result = Campaign(folder, seed=seed, nodes=3, seconds=RUN_S, number=CAMPAIGN, say=print, previous=previous).run()
    print("\n".join(lines(result)))
    assert len(result.windows) > 2
    assert len(result.history.safe) > 100
