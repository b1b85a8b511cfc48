"""A cluster of real daemons, each on a host, a disk and a clock of its own.

Owns the processes, and what is made for them. Must not know which faults there are, nor what clients do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from replicad import pki
from replicad.client import AsyncClient
from replicad.dev import layout
from replicad.dev.layout import DevNode
from tests.faults.disks import Disk
from tests.faults.network import Network

ROOT = Path(__file__).parents[2]
DISK_MB = 2048  # sparse: it takes what is written
PORT, MUTUAL_PORT = 50052, 50053
TOKEN = "fault-token-c0ffee"
STOP_S = 15.0
REBUILD_S = 120.0
FAKETIME = Path("/usr/lib") / f"{os.uname().machine}-linux-gnu/faketime/libfaketime.so.1"
# Short patience, so that a fault of some seconds is longer than any of it.
SETTINGS: dict[str, dict[str, object]] = {"timeouts": {"suspect": "1s", "unhealthy": "2s", "reconnect_max": "1s"}}
#: What the previous release does not know.
NEW_SETTINGS: dict[str, dict[str, object]] = {
    "timeouts": {"scrub_interval": "30s"},
    "limits": {"disk_reserve": "16MiB", "scrub_rate": "64MiB"},
}


class FaultCluster:
    """1. A node that was killed, or has ended, stays so until it is started."""

    def __init__(self, folder: Path, *, nodes: int, number: int, previous: Path | None = None) -> None:
        """``previous`` holds the package of the release before, which nodes run until they are upgraded."""
        self.folder = folder
        self.names = [f"node-{each}" for each in range(1, nodes + 1)]
        self.network = Network(self.names, number=number)
        self._code = dict.fromkeys(self.names, previous or ROOT)
        self._stack = ExitStack()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.disks: dict[str, Disk] = {}
        self.nodes: dict[str, DevNode] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.network)
            self._make()
            for name in self.names:
                node = self.nodes[name]
                self.disks[name] = Disk(self.folder / f"{name}.img", node.data_dir, megabytes=DISK_MB)
                stack.callback(self.disks[name].unmount)
            stack.callback(self.kill_all)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _make(self) -> None:
        """Keys, certificates and configs, as for a cluster on one host; then each node gets an address of its own."""
        ports = range(20_001, 20_001 + len(self.names))
        mutual_ports = range(21_001, 21_001 + len(self.names))
        layout.create(self.folder, ports=ports, mutual_ports=mutual_ports, token=TOKEN, settings=SETTINGS)
        now = datetime.now(UTC)
        authority, _ = pki.Authority.create(self.folder / layout.PKI, name="", days=1, now=now)
        for name in self.names:
            hosts = [self.network.ip[name], "localhost"]
            authority.issue(name, kind=pki.NODE, hosts=hosts, days=pki.LEAF_DAYS, now=now, force=True)
            file = self.folder / name / "replicad.yaml"
            text = file.read_text()
            for other, port, mutual_port in zip(self.names, ports, mutual_ports, strict=True):
                text = text.replace(f"127.0.0.1:{port}", f"{self.network.ip[other]}:{PORT}")
                text = text.replace(f"127.0.0.1:{mutual_port}", f"{self.network.ip[other]}:{MUTUAL_PORT}")
            file.write_text(text)
            self._clock(name).write_text("+0\n")
        self.nodes = {node.name: node for node in layout.load(self.folder).nodes}
        for name, code in self._code.items():
            if code == ROOT:
                self._configure_newly(name)

    def upgrade(self, name: str) -> None:
        """Let the node run this checkout from its next start on."""
        self._code[name] = ROOT
        self._configure_newly(name)

    def _configure_newly(self, name: str) -> None:
        file = self.nodes[name].config_file
        config = yaml.safe_load(file.read_text())
        for section, keys in NEW_SETTINGS.items():
            config[section] = config.get(section, {}) | keys
        file.write_text(yaml.safe_dump(config, sort_keys=False))

    def client(self, *names: str, timeout_s: float) -> AsyncClient:
        """Of all nodes, or those named, in that order."""
        addresses = [self.nodes[name].address for name in names or self.names]
        return AsyncClient(addresses, token=TOKEN, ca=str(self.folder / layout.PKI / "ca.crt"), timeout_s=timeout_s)

    # --- processes ------------------------------------------------------------------------------------------------

    def start(self, name: str, *, with_clock: bool = False) -> None:
        """Start the node, unless it runs; ``with_clock``, so that its clock can be set. That slows it down: libfaketime
        is in the way of all that waits."""
        if self.runs(name):
            return
        node = self.nodes[name]
        env = os.environ | {"PYTHONPATH": str(self._code[name]), "AUTH_TOKEN": TOKEN}
        if with_clock:
            clock = {"FAKETIME_TIMESTAMP_FILE": str(self._clock(name)), "FAKETIME_CACHE_DURATION": "1"}
            env |= {"LD_PRELOAD": str(FAKETIME), "FAKETIME_DONT_FAKE_MONOTONIC": "1", **clock}
        with node.log_file.open("ab") as log:
            self._processes[name] = subprocess.Popen(
                self.network.command(name, sys.executable, "-m", "replicad", "--config", str(node.config_file)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=node.folder,
                env=env,
                start_new_session=True,
            )

    def rebuild(self, name: str) -> str:
        """`replicad-cli rebuild` on the node's host; "" when it was done, else what it said."""
        command = [sys.executable, "-m", "replicad.cli", "rebuild", "--config", str(self.nodes[name].config_file)]
        done = subprocess.run(
            self.network.command(name, *command),
            env=os.environ | {"PYTHONPATH": str(ROOT), "AUTH_TOKEN": TOKEN},
            capture_output=True,
            text=True,
            timeout=REBUILD_S,
            check=False,
        )
        return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"

    def runs(self, name: str) -> bool:
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def signal(self, name: str, number: signal.Signals) -> None:
        if self.runs(name):
            self._processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        """kill -9, and wait until it is gone."""
        self.signal(name, signal.SIGKILL)
        self.wait(name)

    def stop(self, name: str) -> int | None:
        """SIGTERM, and the exit code; kill -9 where it hangs, and None."""
        self.signal(name, signal.SIGCONT)
        self.signal(name, signal.SIGTERM)
        code = self.wait(name)
        if code is None:
            self.kill(name)
        return code

    def wait(self, name: str, timeout_s: float = STOP_S) -> int | None:
        """The exit code of a node that is about to end; None when it goes on."""
        process = self._processes.get(name)
        try:
            return process.wait(timeout_s) if process else 0
        except subprocess.TimeoutExpired:
            return None

    def kill_all(self) -> None:
        for name in self.names:
            self.kill(name)

    # --- clocks -----------------------------------------------------------------------------------------------------

    def _clock(self, name: str) -> Path:
        return self.folder / name / "clock"

    def set_clock(self, name: str, ahead_s: int) -> None:
        """Let the node's wall clock go ahead of the real one by so much, or behind."""
        draft = self._clock(name).with_suffix(".new")
        draft.write_text(f"{ahead_s:+d}\n")
        draft.replace(self._clock(name))

    # --- looking ----------------------------------------------------------------------------------------------------

    def log_text(self, name: str) -> str:
        file = self.nodes[name].log_file
        return file.read_text(errors="replace") if file.exists() else ""

    def wait_ready(self, name: str, timeout_s: float) -> bool:
        """Whether the node still runs after a while; for a start that may be refused."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.runs(name):
            time.sleep(0.05)
        return self.runs(name)
