"""One daemon as a service manager sees it: started with an environment, told by signals, heard by sd_notify(3).

Owns the process and its notification socket. Must not know of clusters; for those see tests/support/nodes.py.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import replicad
from replicad.dev.process import NOT_INHERITED, node_command, readable

DATAGRAM_BYTES = 4096
START_S = 20.0  # for whatever a test waits for at a start; it takes less than one
LEAVE_S = 10.0  # a node leaves within this of its SIGTERM


def run(*arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> tuple[int, str, str]:
    """Run ``replicad`` to its end: exit status, standard output, standard error."""
    done = subprocess.run(
        [*node_command(), *arguments],
        env=_environment(env or {}),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


class Daemon:
    """A running ``replicad --config FILE``. Leaving the context kills it, if it still runs."""

    def __init__(
        self,
        config_file: Path,
        *,
        env: Mapping[str, str] | None = None,
        watchdog_s: float = 0.0,
        command: Sequence[str] | None = None,
    ) -> None:
        """``command`` runs another program than ``replicad``, with the same arguments."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = f"replicad-test-{secrets.token_hex(16)}"
        self._socket.bind(f"\0{address}")
        self.told: list[tuple[str, str]] = []  # all that it has said, in order: NAME and VALUE
        self.log_file = config_file.with_name(f"log-{secrets.token_hex(4)}")
        variables = {"NOTIFY_SOCKET": f"@{address}", **(env or {})}
        if watchdog_s:
            variables["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*(command or node_command()), "--config", str(config_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(variables),
            )
        self._pidfd = os.pidfd_open(self.process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._pidfd)
        self._socket.close()

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def wait_for(self, is_it: Callable[[str, str], bool], *, within_s: float = START_S, what: str) -> tuple[str, str]:
        """The next thing told that is what is waited for. AssertionError when it does not come."""
        deadline = time.monotonic() + within_s
        while (left_s := deadline - time.monotonic()) > 0:
            said = readable([self._socket.fileno(), self._pidfd], timeout_s=left_s)
            if self._socket.fileno() not in said:
                break  # the time is over, or the process is
            lines = self._socket.recv(DATAGRAM_BYTES).decode().splitlines()
            found = None
            for line in lines:
                name, _, value = line.partition("=")
                self.told.append((name, value))
                if found is None and is_it(name, value):
                    found = (name, value)
            if found:
                return found
        ended = self.process.poll()
        how = f"not told within {within_s:g} s" if ended is None else f"ended with {ended} before"
        raise AssertionError(f"{what}: {how}; told: {self.told[-5:]}; log:\n{self.log}")

    def wait_ready(self) -> None:
        self.wait_for(lambda name, value: (name, value) == ("READY", "1"), what="ready")

    def wait_hung(self, watchdog_s: float) -> None:
        """Return when there was no sign of life for as long as the service manager waits, which then kills."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                self.wait_for(lambda name, _: name == "WATCHDOG", within_s=watchdog_s, what="a sign of life")
            except AssertionError:
                assert self.process.poll() is None, f"it has ended; log:\n{self.log}"
                return
        raise AssertionError(f"it goes on saying that it is well; told: {self.told[-5:]}")

    def wait_status(self, *parts: str) -> str:
        """The next status line that has all these parts."""
        has = lambda name, value: name == "STATUS" and all(part in value for part in parts)  # noqa: E731
        return self.wait_for(has, what=f"a status with {parts}")[1]

    def names(self) -> list[str]:
        """The names of all that was told, in order, what waits in the socket included."""
        self._socket.settimeout(0)
        while True:
            try:
                data = self._socket.recv(DATAGRAM_BYTES)
            except BlockingIOError:
                return [name for name, _ in self.told]
            self.told += [
                (name, value) for name, _, value in (line.partition("=") for line in data.decode().splitlines())
            ]

    def reload(self) -> None:
        """What the unit's ExecReload does, until the daemon says that it is done. AssertionError when it does not."""
        self.process.send_signal(signal.SIGHUP)
        self.wait_for(lambda name, _: name == "RELOADING", what="that a reload has begun")
        self.wait_ready()

    def wait_end(self) -> tuple[int, str]:
        """How a daemon that ends by itself has ended: its exit status, and the last status line that it told."""
        self.process.wait(START_S)
        self.names()
        return self.process.returncode, [value for name, value in self.told if name == "STATUS"][-1]

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Send the signal and wait for the end: the seconds it took. AssertionError when that is too long."""
        began = time.monotonic()
        self.process.send_signal(number)
        try:
            self.process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there {LEAVE_S:g} s after {number.name}; log:\n{self.log}") from None
        return time.monotonic() - began


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what a daemon takes from it, and with these."""
    package = str(Path(replicad.__file__).resolve().parent.parent)
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    return inherited | {"PYTHONPATH": package} | dict(variables)
