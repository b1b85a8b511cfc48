"""One node's process on this machine: started, waited for until it is ready, signalled, seen off.

Owns the pid file and the one question that matters with pids: is it still that node? Must not know of clusters.

A pid in a file may since belong to another process. So a process is first held by a pidfd, then its command line is
compared with the node's config, and only then it is signalled through that pidfd: what was checked is what is hit.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import replicad
from replicad.dev.layout import DevNode
from replicad.errors import OperatorError

DATAGRAM_BYTES = 4096  # sd_notify messages are a few short lines
EXIT_TIMEOUT_S = 5.0  # a process that has let go of its memory needs milliseconds for the rest
LOG_LINES = 15  # of a node that did not come up: its last events and, if need be, a traceback's end

#: The daemon's own variables, and the service manager's: a node of ours must not take them from our environment.
NOT_INHERITED = (
    *("PORT", "MACHINE_ID", "AUTH_TOKEN", "CREDENTIALS_DIRECTORY"),  # a config of our own has its own
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
)


class Held(NamedTuple):
    """A node's running process; ``pidfd`` refers to it and no other, also after it has ended."""

    pid: int
    pidfd: int


@contextlib.contextmanager
def held(node: DevNode) -> Iterator[Held | None]:
    """Hold the node's process, for as long as the context lasts; None when it does not run."""
    pid, pidfd = 0, -1
    try:
        pid = int(node.pid_file.read_text())
        pidfd = os.pidfd_open(pid)
        command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
        if not command_line:  # on its way out; until it is gone, it still holds its port and its data folder
            readable([pidfd], timeout_s=EXIT_TIMEOUT_S)
    except (OSError, ValueError, OverflowError):  # no file, not a pid in it, or no such process
        command_line = b""
    try:
        yield Held(pid, pidfd) if os.fsencode(node.config_file) in command_line.split(b"\0") else None
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def pid_of(node: DevNode) -> int | None:
    """The node's pid while it runs."""
    with held(node) as process:
        return process.pid if process else None


def send(node: DevNode, number: signal.Signals) -> bool:
    """Signal the node's process; False when it does not run."""
    with held(node) as process, contextlib.suppress(ProcessLookupError):
        if process:
            signal.pidfd_send_signal(process.pidfd, number)
            return True
    return False


def end(nodes: Iterable[DevNode], *numbers: signal.Signals, timeout_s: float) -> list[DevNode]:
    """Signal the nodes and wait until they are gone, whoever's children they are; returns those that go on."""
    deadline = time.monotonic() + timeout_s
    with contextlib.ExitStack() as stack:
        found = [(node, stack.enter_context(held(node))) for node in nodes]
        left = {process.pidfd: node for node, process in found if process}
        for pidfd in left:
            for number in numbers:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, number)
        while left and (left_s := deadline - time.monotonic()) > 0:
            for pidfd in readable(left, timeout_s=left_s):
                del left[pidfd]
        return list(left.values())


def forget(node: DevNode) -> None:
    """Remove the pid file of a node that does not run: its pid may become another process's."""
    with _only_one_starts(node):
        if pid_of(node) is None:
            node.pid_file.unlink(missing_ok=True)


def readable(descriptors: Iterable[int], *, timeout_s: float | None) -> set[int]:
    """Wait until one of the descriptors has something to read (a pidfd: has ended) or the time is over."""
    poll = select.poll()  # select() refuses descriptors from 1024 on
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(None if timeout_s is None else timeout_s * 1000)}


@dataclass(slots=True)
class Starting:
    """A node that was started and has not yet said that it is ready."""

    node: DevNode
    child: subprocess.Popen[bytes]
    notifications: socket.socket
    log_start: int  # where this run begins in the log file
    ready: bool = False
    status: str = ""  # its last STATUS=
    deadline: float = 0.0  # by time.monotonic()

    def close(self) -> None:
        self.notifications.close()

    def take_notification(self) -> None:
        """Read one message of sd_notify(3): lines of NAME=VALUE."""
        for line in self.notifications.recv(DATAGRAM_BYTES).decode(errors="replace").splitlines():
            name, _, value = line.partition("=")
            if name == "READY":
                self.ready = value == "1"
            elif name == "STATUS":
                self.status = value
            elif name == "EXTEND_TIMEOUT_USEC" and value.isdigit():  # a long catch-up is no failure
                self.deadline = max(self.deadline, time.monotonic() + int(value) / 1e6)

    def log_end(self) -> str:
        """The last lines that this run logged."""
        with self.node.log_file.open("rb") as file:
            file.seek(self.log_start)
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-LOG_LINES:]) or "    (it logged nothing)"


def spawn(node: DevNode, *, command: Sequence[str], token: str) -> Starting:
    """Start the node's process, detached from our terminal, and write its pid. OperatorError when it runs already."""
    notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        # An abstract address: a path in a deep folder may be longer than the 107 bytes that a socket's may have.
        address = f"replicad-dev-{secrets.token_hex(16)}"
        notifications.bind(f"\0{address}")
        env = _node_env(os.environ, token=token) | {"NOTIFY_SOCKET": f"@{address}"}
        with _only_one_starts(node), node.log_file.open("ab") as log:
            if (pid := pid_of(node)) is not None:
                raise OperatorError(f"{node.name} is running already (pid {pid})")
            _check_ports(node)
            log_start = log.tell()
            child = subprocess.Popen(
                [*command, "--config", str(node.config_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=node.folder,
                env=env,
                start_new_session=True,  # Ctrl-C is for us, who then stop the nodes in order
            )
            draft = node.pid_file.with_name(".pid")
            draft.write_text(f"{child.pid}\n")
            draft.replace(node.pid_file)
    except BaseException:
        notifications.close()
        raise
    return Starting(node, child, notifications, log_start)


def wait_ready(starting: Sequence[Starting], *, timeout_s: float, interrupt_fd: int | None = None) -> bool:
    """Wait until all nodes are ready; False when ``interrupt_fd`` became readable first.

    Raises OperatorError, with the end of its log, for a node that ended or is not ready after ``timeout_s``.
    """
    for each in starting:
        each.deadline = time.monotonic() + timeout_s
    with contextlib.ExitStack() as stack:
        ends = {}
        for each in starting:
            pidfd = os.pidfd_open(each.child.pid)  # our child, not yet reaped: the pid is its own
            stack.callback(os.close, pidfd)
            ends[pidfd] = each
        interrupts = [] if interrupt_fd is None else [interrupt_fd]
        while waiting := [each for each in starting if not each.ready]:
            sockets = {each.notifications.fileno(): each for each in waiting}
            left_s = max(0.0, min(each.deadline for each in waiting) - time.monotonic())
            said = readable([*sockets, *ends, *interrupts], timeout_s=left_s)
            if interrupt_fd in said:
                return False
            for descriptor in said & sockets.keys():
                sockets[descriptor].take_notification()
            for descriptor in said & ends.keys():
                raise _ended(ends[descriptor])
            for each in waiting:
                if not each.ready and time.monotonic() >= each.deadline:
                    raise _not_ready(each, timeout_s)
    return True


def how_it_ended(returncode: int) -> str:
    """In words, what Popen.returncode says."""
    return f"was killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"ended with status {returncode}"


def node_command() -> list[str]:
    """How a node is started: by this interpreter, from this very package."""
    return [sys.executable, "-m", "replicad"]


def _ended(starting: Starting) -> OperatorError:
    how = how_it_ended(starting.child.wait())
    return OperatorError(f"{starting.node.name} {how} before it was ready; its log's end:\n{starting.log_end()}")


def _not_ready(starting: Starting, timeout_s: float) -> OperatorError:
    status = f" (it says: {starting.status})" if starting.status else ""
    name, pid = starting.node.name, starting.child.pid
    return OperatorError(
        f"{name} (pid {pid}) is not ready after {timeout_s:g} s{status}; its log's end:\n{starting.log_end()}"
    )


def _node_env(env: Mapping[str, str], *, token: str) -> dict[str, str]:
    inherited = {name: value for name, value in env.items() if name not in NOT_INHERITED}
    package = str(Path(replicad.__file__).resolve().parent.parent)  # also where replicad is not installed
    paths = [package, *filter(None, [env.get("PYTHONPATH", "")])]
    return inherited | {"PYTHONPATH": os.pathsep.join(paths)} | ({"AUTH_TOKEN": token} if token else {})


def _check_ports(node: DevNode) -> None:
    """Say it before the daemon does, and in the words of this command."""
    for address in filter(None, (node.address, node.mutual_address)):
        _check_port(node, address)


def _check_port(node: DevNode, address: str) -> None:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as exc:
            raise OperatorError(
                f"{node.name} can't listen on {address} ({exc.strerror}); is another cluster there? Stop it, or "
                "make this one in another --dir with another --base-port"
            ) from exc


@contextlib.contextmanager
def _only_one_starts(node: DevNode) -> Iterator[None]:
    """Two who start the same node at once would each find that it does not run."""
    descriptor = os.open(node.folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
