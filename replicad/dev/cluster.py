"""The nodes of a folder together: started, killed, stopped, and what a client needs to reach them.

Owns the order in which nodes stop. Blocking, for tests, benchmarks and ``replicad dev`` alike; an asyncio test calls
it by ``asyncio.to_thread``.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from replicad.dev import layout, process
from replicad.dev.layout import DevNode
from replicad.errors import OperatorError

READY_TIMEOUT_S = 60.0  # a start after kill -9 replays a write-ahead log; nothing there takes a minute
STOP_TIMEOUT_S = 10.0  # a node leaves within 10 s of SIGTERM; what is still there hangs


class DevCluster:
    """The cluster in a folder. As a context manager, it stops all nodes at the end.

    1. What runs is known by the nodes' pid files, not by who started it: nodes started from another terminal count,
       and are stopped too.
    2. A node that was killed stays dead until it is started again.
    """

    def __init__(self, found: layout.Layout, *, command: Sequence[str] | None = None) -> None:
        """``command`` starts a node when ``--config FILE`` follows it; None: this interpreter and package."""
        self.layout = found
        self._command = list(command or process.node_command())
        self._children: dict[int, subprocess.Popen[bytes]] = {}  # by pid: for reaping, and for how they ended

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        ports: Sequence[int],
        mutual_ports: Sequence[int] = (),
        token: str | None = None,
        settings: Mapping[str, object] | None = None,
        command: Sequence[str] | None = None,
    ) -> Self:
        """A new cluster of ``len(ports)`` nodes, node-1 the master; see :func:`replicad.dev.layout.create`."""
        made = layout.create(folder, ports=ports, mutual_ports=mutual_ports, token=token, settings=settings)
        return cls(made, command=command)

    @classmethod
    def open(cls, folder: Path, *, command: Sequence[str] | None = None) -> Self:
        """The cluster that was made in ``folder``. OperatorError when there is none."""
        return cls(layout.load(folder), command=command)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def nodes(self) -> tuple[DevNode, ...]:
        return self.layout.nodes

    @property
    def master(self) -> DevNode:
        """The node that is master by its config."""
        return next(node for node in self.nodes if node.role == "master")

    def node(self, name: str) -> DevNode:
        """OperatorError, with the names there are, for a name that is none of them."""
        for node in self.nodes:
            if node.name == name:
                return node
        names = ", ".join(node.name for node in self.nodes)
        raise OperatorError(f"there is no {name} in {self.layout.folder}; its nodes are {names}")

    def client_env(self) -> dict[str, str]:
        """The variables by which a client finds this cluster and is let in."""
        return self.layout.client_env()

    def pid(self, name: str) -> int | None:
        """The node's pid while it runs, else None."""
        self._reap()
        return process.pid_of(self.node(name))

    def running(self) -> dict[str, int]:
        """The pids of the nodes that run, by name."""
        return {node.name: pid for node in self.nodes if (pid := self.pid(node.name)) is not None}

    def start(
        self, *names: str, timeout_s: float = READY_TIMEOUT_S, wait: bool = True, interrupt_fd: int | None = None
    ) -> bool:
        """Start the nodes named (all: none named) together; with ``wait``, return when all are really ready.

        False when ``interrupt_fd`` became readable before. OperatorError when one runs already, has ended, or is not
        ready in time; nodes that run by then go on running.
        """
        starting: list[process.Starting] = []
        try:
            for node in self._named(names):
                starting.append(process.spawn(node, command=self._command, token=self.layout.token))
                self._children[starting[-1].child.pid] = starting[-1].child
            return not wait or process.wait_ready(starting, timeout_s=timeout_s, interrupt_fd=interrupt_fd)
        finally:
            for each in starting:
                each.close()

    def send_signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal (SIGSTOP, SIGCONT ...). OperatorError when the node does not run."""
        if not process.send(self.node(name), number):
            raise OperatorError(f"{name} does not run")

    def kill(self, *names: str) -> None:
        """kill -9 the nodes named (all: none named) and wait until they are gone."""
        self._end(self._named(names), signal.SIGKILL, timeout_s=STOP_TIMEOUT_S)

    def stop(self, *names: str, timeout_s: float = STOP_TIMEOUT_S, say: Callable[[str], None] | None = None) -> None:
        """Stop the nodes named (all: none named) in order; those that do not run are left alone.

        The master first: it answers what is under way, for which it needs its workers. A node that is still there
        ``timeout_s`` after its SIGTERM is killed, and ``say`` is told.
        """
        nodes = self._named(names)
        for role in ("master", "worker"):
            group = [node for node in nodes if node.role == role]
            # SIGCONT: a process that was stopped (SIGSTOP) would never see its SIGTERM
            for node in self._end(group, signal.SIGTERM, signal.SIGCONT, timeout_s=timeout_s):
                if say:
                    say(f"{node.name} has not ended {timeout_s:g} s after SIGTERM: killing it")
                self.kill(node.name)

    def restart(self, name: str, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Stop the node, if it runs, and start it again."""
        self.stop(name)
        self.start(name, timeout_s=timeout_s)

    def how_it_ended(self, pid: int) -> str:
        """How the process with this pid, which one of our nodes was, came to its end; in words."""
        child = self._children.get(pid)
        returncode = child.poll() if child else None
        return "has ended" if returncode is None else process.how_it_ended(returncode)

    def _named(self, names: Sequence[str]) -> list[DevNode]:
        return [self.node(name) for name in names] if names else list(self.nodes)

    def _end(self, nodes: Sequence[DevNode], *numbers: signal.Signals, timeout_s: float) -> list[DevNode]:
        """Signal all and wait for all to end, ``timeout_s`` in all; returns those that have not."""
        left = process.end(nodes, *numbers, timeout_s=timeout_s)
        self._reap()
        for node in nodes:
            process.forget(node)
        return left

    def _reap(self) -> None:
        """Let those of our children that have ended leave the process table, as everybody expects of a dead pid."""
        for child in self._children.values():
            child.poll()
