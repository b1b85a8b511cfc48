"""Nodes as systemd runs them: one host, three instances of the template unit."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from replicad.logevents import EVENTS
from tests.packaging.cluster import MASTER, NAMES, WORKERS, Instances, listed, post
from tests.packaging.lab import properties
from tests.support.waiting import eventually_true

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

STOP_S = 10.0  # what the daemon promises
RESTART_S = 30.0  # RestartSec, a start, and a machine that boots other hosts meanwhile
WATCHDOG_S = 3
START_S = 3  # of TimeoutStartSec, for a start that takes longer


def state(single: Instances, name: str) -> str:
    return properties(single.host, single.unit(name))["ActiveState"]


def main_pid(single: Instances, name: str) -> int:
    return int(properties(single.host, single.unit(name))["MainPID"])


def restarted(single: Instances, name: str, *, was: int) -> int:
    """Wait until the node runs again, by itself, as another process than ``was``."""

    def look() -> int:
        unit = properties(single.host, single.unit(name))
        pid = int(unit["MainPID"])
        return pid if unit["ActiveState"] == "active" and pid not in (0, was) else 0

    return eventually_true(look, within_s=RESTART_S, what=f"restart of {name}")


def moment(single: Instances) -> str:
    """Now, to the second, for journalctl's --since. No cursor: after one, systemd 252 leaves out the first match."""
    return single.host.says("date +@%s")


@contextmanager
def file_changed(single: Instances, path: str, text: str) -> Iterator[None]:
    """Another content for a file on the host, for a while."""
    was = single.host.ssh(f"cat {path}").stdout
    single.host.write(path, text)
    try:
        yield
    finally:
        single.host.write(path, was)


def test_what_is_posted_with_w_2_is_listed_from_a_worker(single: Instances) -> None:
    post(single.host, "on two disks", w=2)
    post(single.host, "on three disks", w=3)
    for name in NAMES:
        assert listed(single.host, name, at_least=3) == ["on two disks", "on three disks"]


def test_start_returns_when_the_node_is_ready_and_not_before(single: Instances) -> None:
    units = " ".join(map(single.unit, NAMES))
    single.host.ssh(f"systemctl stop {units}")
    single.host.ssh(f"systemctl start --no-block {single.unit(MASTER)}")
    status = f"systemctl status {single.unit(MASTER)}; true"
    eventually_true(
        lambda: "asks 2 voters, itself counted" in single.host.says(status), within_s=RESTART_S, what="status"
    )
    assert state(single, MASTER) == "activating"  # alone it can't take posts

    single.host.ssh(f"systemctl start {single.unit(WORKERS[0])}")
    single.host.ssh(f"systemctl start {single.unit(MASTER)}")  # joins the start that is under way
    post(single.host, "ready", w=2)
    single.host.ssh(f"systemctl start {units}")


def test_a_start_that_waits_for_a_majority_outlasts_its_units_timeout(single: Instances) -> None:
    unit = single.unit(MASTER)
    drop_in = f"/run/systemd/system/{unit}.d/timeout.conf"
    single.host.ssh(f"systemctl stop {' '.join(map(single.unit, NAMES))}")
    single.host.write(drop_in, f"[Service]\nTimeoutStartSec={START_S}\n")
    single.host.ssh(f"systemctl daemon-reload && systemctl start --no-block {unit}")

    def waits_longer() -> bool:
        began_us = int(properties(single.host, unit)["InactiveExitTimestampMonotonic"])
        assert state(single, MASTER) == "activating"
        return time.clock_gettime(time.CLOCK_MONOTONIC) - began_us / 1e6 > 2 * START_S

    eventually_true(waits_longer, within_s=RESTART_S, what="a start of twice its timeout")
    single.host.ssh(f"rm {drop_in} && systemctl daemon-reload")
    single.host.ssh(f"systemctl start {' '.join(map(single.unit, WORKERS))}")
    single.host.ssh(f"systemctl start {unit}")  # joins the start that is under way
    assert properties(single.host, unit)["NRestarts"] == "0"
    post(single.host, "after a long start", w=3)


def test_the_journal_has_fields_to_search_by(single: Instances) -> None:
    name, since = WORKERS[1], moment(single)
    single.host.ssh(f"systemctl restart {single.unit(name)}")
    post(single.host, "the worker follows again", w=3)

    def found(unit: str, *matches: str) -> list[dict[str, str]]:
        search = f"journalctl --unit {unit} --since='{since}' --output=json {' '.join(matches)}"
        return [json.loads(line) for line in single.host.says(search).splitlines()]

    def on_the_master() -> list[dict[str, str]]:
        lost = found(single.unit(MASTER), f"MESSAGE_ID={EVENTS['lost'].message_id}")
        follows = found(single.unit(MASTER), f"PEER={name}", "EVENT=follows")
        return [*lost, follows[-1]] if lost and follows else []

    # what was within the same second as the restart may stand before
    *_, lost, follows = eventually_true(on_the_master, within_s=RESTART_S, what="the master's lines about its worker")
    assert (lost["EVENT"], lost["PEER"], lost["PRIORITY"]) == ("lost", name, "4")
    assert (follows["PEER"], follows["PRIORITY"]) == (name, "6")
    assert follows["MESSAGE_ID"] == EVENTS["follows"].message_id
    *_, following = found(single.unit(name), "EVENT=following")
    assert (following["PEER"], int(following["EPOCH"]) > 0) == (MASTER, True)
    assert found(single.unit(MASTER), "--priority=err") == []


@pytest.mark.parametrize(
    ("name", "line"), [(MASTER, 'Status: "master open, epoch '), (WORKERS[0], 'Status: "worker following, epoch ')]
)
def test_status_has_the_daemons_own_line(single: Instances, name: str, line: str) -> None:
    status = f"systemctl status {single.unit(name)}"
    eventually_true(lambda: line in single.host.says(status), within_s=RESTART_S, what=line)  # a new one every second


@pytest.mark.parametrize("name", [MASTER, WORKERS[1]])
def test_a_node_killed_with_kill_9_is_back_by_itself_with_nothing_lost(single: Instances, name: str) -> None:
    post(single.host, f"before {name} dies", w=3)
    before = listed(single.host, name)
    pid = main_pid(single, name)
    single.host.ssh(f"kill -9 {pid}")
    restarted(single, name, was=pid)
    assert listed(single.host, name)[: len(before)] == before
    post(single.host, f"after {name} died", w=3)


def test_a_daemon_that_hangs_is_killed_by_the_watchdog_and_started_again(single: Instances) -> None:
    name = WORKERS[0]
    unit = single.unit(name)
    drop_in = f"/run/systemd/system/{unit}.d/watchdog.conf"
    single.host.write(drop_in, f"[Service]\nWatchdogSec={WATCHDOG_S}\n")
    single.host.ssh(f"systemctl daemon-reload && systemctl restart {unit}")
    pid = main_pid(single, name)
    single.host.ssh(f"kill -STOP {pid}")
    restarted(single, name, was=pid)
    assert "Watchdog timeout" in single.host.says(f"journalctl --output=cat --unit {unit}")
    post(single.host, "after the hang", w=3)
    single.host.ssh(f"rm {drop_in} && systemctl daemon-reload && systemctl restart {unit}")


def test_a_stop_is_clean_and_takes_less_than_10_s(single: Instances) -> None:
    post(single.host, "before the stop", w=3)
    began = time.monotonic()
    single.host.ssh(f"systemctl stop {' '.join(map(single.unit, NAMES))}")
    assert time.monotonic() - began < STOP_S
    for name in NAMES:
        unit = properties(single.host, single.unit(name))
        assert (unit["ActiveState"], unit["Result"], unit["ExecMainStatus"]) == ("inactive", "success", "0")
    single.start()
    assert "before the stop" in listed(single.host, MASTER)


def test_a_broken_config_gives_one_clear_line_and_no_further_try(single: Instances) -> None:
    name = WORKERS[1]
    path = f"/etc/replicad/{name}.yaml"
    good = single.host.ssh(f"cat {path}").stdout
    single.host.ssh(f"systemctl stop {single.unit(name)}")
    since = moment(single)
    with file_changed(single, path, good.replace("role: worker", "role: wroker")):
        assert single.host.ssh(f"systemctl start {single.unit(name)}", check=False).returncode != 0
        unit = properties(single.host, single.unit(name))
    said = f"journalctl --output=cat --since='{since}' SYSLOG_IDENTIFIER=replicad | grep {path}; true"
    eventually_true(lambda: single.host.says(said), within_s=RESTART_S, what="the config's fault")
    lines, status = single.host.says(said).splitlines(), single.host.says(f"systemctl status {single.unit(name)}; true")
    single.host.ssh(f"systemctl start {single.unit(name)}")
    assert (unit["ActiveState"], unit["ExecMainStatus"], unit["NRestarts"]) == ("failed", "3", "0")
    assert len(lines) == 1, lines
    assert f"{path}:3: role: " in lines[0]
    assert f"{path}:3: role: " in status


def test_a_reload_takes_what_may_change_live_and_leaves_a_broken_config_alone(single: Instances) -> None:
    name = WORKERS[0]
    path, unit, pid = f"/etc/replicad/{name}.yaml", single.unit(name), main_pid(single, name)
    good = single.host.ssh(f"cat {path}").stdout
    with file_changed(single, path, f"{good}log: {{level: debug}}\n"):
        single.host.ssh(f"systemctl reload {unit}")
        post(single.host, "after a reload", w=3)
    with file_changed(single, path, good.replace("role: worker", "role: wroker")):
        since = moment(single)
        single.host.ssh(f"systemctl reload {unit}", check=False)
        said = f"journalctl --output=cat --since='{since}' --unit {unit}"
        eventually_true(lambda: "role: " in single.host.says(said), within_s=RESTART_S, what="the config's fault")
        post(single.host, "after a reload of a broken config", w=3)
    assert (state(single, name), main_pid(single, name)) == ("active", pid)
    single.host.ssh(f"systemctl reload {unit}")


def test_a_missing_key_gives_one_clear_line_and_no_further_try(single: Instances) -> None:
    name = WORKERS[1]
    key = f"/etc/credstore/replicad@{name}.key"
    single.host.ssh(f"systemctl stop {single.unit(name)} && mv {key} {key}.away")
    try:
        assert single.host.ssh(f"systemctl start {single.unit(name)}", check=False).returncode != 0
        unit = properties(single.host, single.unit(name))
        assert (unit["ActiveState"], unit["ExecMainStatus"], unit["NRestarts"]) == ("failed", "3", "0")
        assert f"{key}: " in single.host.says(f"systemctl status {single.unit(name)}; true")
    finally:
        single.host.ssh(f"mv {key}.away {key}")
    single.host.ssh(f"systemctl start {single.unit(name)}")


def test_the_key_is_its_own_and_no_other_users(single: Instances) -> None:
    """The file is root's; the daemon's copy of it is on no disk, and only the daemon's user and root may read that."""
    key = f"/etc/credstore/replicad@{MASTER}.key"
    assert single.host.says(f"stat -c '%U %a' {key}") == "root 600"
    copy = f"/run/credentials/{single.unit(MASTER)}/node.key"
    assert single.host.says(f"cat {copy}") == single.host.says(f"cat {key}")
    assert single.host.ssh(f"setpriv --reuid=nobody --clear-groups cat {copy}", check=False).returncode != 0


@pytest.mark.parametrize(
    "path", ["/usr/x", "/etc/x", "/etc/replicad/x", "/var/lib/x", f"/var/lib/replicad@{WORKERS[0]}/x"]
)
def test_a_write_outside_the_sandbox_fails(single: Instances, path: str) -> None:
    inside = f"nsenter --target {main_pid(single, MASTER)} --mount --"
    refused = single.host.ssh(f"{inside} touch {path}", check=False)
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stderr
    single.host.ssh(f"{inside} touch /var/lib/replicad@{MASTER}/written && rm /var/lib/replicad@{MASTER}/written")


def test_what_is_others_is_not_seen_in_the_sandbox(single: Instances) -> None:
    pid = main_pid(single, MASTER)
    inside = f"nsenter --target {pid} --mount --"
    assert single.host.says(f"ls -A /root {'; '}{inside} ls -A /root; true").count(".ssh") == 1
    assert single.host.says(f"{inside} ls -A /tmp") == ""
    assert single.host.says(f"grep ^CapBnd /proc/{pid}/status").split()[1] == "0" * 16
    assert single.host.says(f"grep ^Seccomp: /proc/{pid}/status").split()[1] == "2"
