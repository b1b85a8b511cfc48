"""sd_notify over a real datagram socket, and without one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicad.notify import STATUS_CHARS, Notifier, watchdog_interval_s


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What the service manager listens on."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield listener


def test_each_word_arrives_as_systemd_spells_it(systemd: socket.socket) -> None:
    notifier = Notifier()
    notifier.status("master, epoch 3, size 10")
    notifier.ready()
    notifier.watchdog()
    notifier.extend_timeout(2.5)
    notifier.stopping()
    assert [systemd.recv(4096) for _ in range(5)] == [
        b"STATUS=master, epoch 3, size 10",
        b"READY=1",
        b"WATCHDOG=1",
        b"EXTEND_TIMEOUT_USEC=2500000",
        b"STOPPING=1",
    ]


def test_a_reload_begins_with_both_its_lines_in_one_message(systemd: socket.socket) -> None:
    """Apart, systemd 253 and later would not take the second one for the first one's time."""
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Notifier().reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    first, second = systemd.recv(4096).decode().split("\n")
    name, _, microseconds = second.partition("=")
    assert (first, name) == ("RELOADING=1", "MONOTONIC_USEC")
    assert before <= int(microseconds) <= after


def test_a_status_is_one_line_of_utf_8_and_can_not_smuggle_in_other_words(systemd: socket.socket) -> None:
    notifier = Notifier()
    notifier.status("caf\u00e9 \u65e5\nREADY=1")
    assert systemd.recv(4096) == "STATUS=caf\u00e9 \u65e5 READY=1".encode()
    notifier.status("\ud800 odd")
    assert systemd.recv(4096) == b"STATUS=  odd"
    notifier.status("x" * 100_000)
    assert len(systemd.recv(200_000)) == len("STATUS=") + STATUS_CHARS


def test_an_abstract_socket_is_reached_too(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"replicad-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        Notifier().ready()
        assert listener.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", [None, "", "/nonexistent/notify"])
def test_without_a_service_manager_all_is_silent(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notifier = Notifier()
    notifier.ready()
    notifier.status("alone")
    notifier.watchdog()
    notifier.stopping()


def test_a_service_manager_that_goes_away_is_not_missed(systemd: socket.socket) -> None:
    notifier = Notifier()
    notifier.ready()
    assert systemd.recv(100) == b"READY=1"
    systemd.close()
    notifier.status("still here")
    notifier.stopping()


@pytest.mark.parametrize(
    ("env", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "42"}, 0.25),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": ""}, 0.25),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "9" * 5000}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_time_where_it_is_meant_for_us(
    env: dict[str, str], interval_s: float | None
) -> None:
    assert watchdog_interval_s(env, pid=42) == interval_s


def test_the_watchdogs_process_is_this_one_by_default() -> None:
    assert watchdog_interval_s({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}) == 1.0
