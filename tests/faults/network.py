"""Hosts on one machine: a network namespace for each node, joined by a bridge, with cables that can be pulled.

Owns what is made of the kernel's network, and takes it away again. Needs root. Must not know what runs on a host.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self

from tests.faults.cable import Cable

Direction = Literal["in", "out"]
_CHAINS = {"in": ("INPUT", "-s"), "out": ("OUTPUT", "-d")}


def run(*command: str) -> str:
    """Run a command of the system's administration. Raises CalledProcessError."""
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


class Network:
    """1. Clients are on this machine's own end of the bridge, ``client_ip``."""

    def __init__(self, names: Sequence[str], *, number: int) -> None:
        """``number``, 0 to 255, keeps networks apart that are there at the same time."""
        self._bridge, self._prefix = f"rfault{number}", f"10.87.{number}"
        self.client_ip = f"{self._prefix}.254"
        self.ip = {name: f"{self._prefix}.{index}" for index, name in enumerate(names, start=1)}
        self._namespace = {name: f"rfault{number}-{name}" for name in names}
        self._cable = {name: f"rf{number}-{index}" for index, name in enumerate(names, start=1)}
        self._long: dict[str, Cable] = {}

    def __enter__(self) -> Self:
        self._remove()  # what a run that was killed has left
        run("ip", "link", "add", self._bridge, "type", "bridge")
        run("ip", "addr", "add", f"{self.client_ip}/24", "dev", self._bridge)
        run("ip", "link", "set", self._bridge, "up")
        for name, namespace in self._namespace.items():
            run("ip", "netns", "add", namespace)
            run("ip", "link", "add", self._cable[name], "type", "veth", "peer", "name", "eth0", "netns", namespace)
            run("ip", "link", "set", self._cable[name], "master", self._bridge, "up")
            run("ip", "-n", namespace, "addr", "add", f"{self.ip[name]}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                run("ip", "-n", namespace, "link", "set", link, "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        for name in list(self._long):
            self._shorten(name)
        for cable in self._cable.values():
            for end in (f"{cable}a", cable):  # now: with its namespace it would go some time later
                with suppress(subprocess.CalledProcessError):
                    run("ip", "link", "del", end)
        for namespace in self._namespace.values():
            with suppress(subprocess.CalledProcessError):
                run("ip", "netns", "del", namespace)
        with suppress(subprocess.CalledProcessError):
            run("ip", "link", "del", self._bridge)

    def command(self, name: str, *command: str) -> list[str]:
        """The command on that host. It takes the place of what this starts: the pid is its own."""
        return ["ip", "netns", "exec", self._namespace[name], *command]

    def pull(self, name: str, *, back: bool = False) -> None:
        """Pull the host's cable, or put it back."""
        run("ip", "link", "set", self._cable[name], "up" if back else "down")

    def drop(self, name: str, ip: str, *directions: Direction) -> None:
        """Let the host lose all that comes from that address, or goes there."""
        for direction in directions:
            chain, option = _CHAINS[direction]
            run(*self.command(name, "iptables", "-A", chain, option, ip, "-j", "DROP"))

    def lose(self, name: str, share: float) -> None:
        """Let the host lose this share of the packets that come in."""
        lost = ("-m", "statistic", "--mode", "random", "--probability", f"{share}")
        run(*self.command(name, "iptables", "-A", "INPUT", *lost, "-j", "DROP"))

    def slow_down(self, name: str, kbit: int) -> None:
        """Let the host send at this rate at the most."""
        shape = ("tbf", "rate", f"{kbit}kbit", "burst", "16kb", "latency", "400ms")
        run(*self.command(name, "tc", "qdisc", "add", "dev", "eth0", "root", *shape))

    def lengthen(self, name: str, *, delay_s: float, jitter_s: float, twice: float) -> None:
        """Let all that the host sends and gets come late, out of order where ``jitter_s`` allows, and a share of it
        ``twice``."""
        cable = self._cable[name]
        ends = (f"{cable}a", f"{cable}b")
        run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        run("ip", "link", "set", ends[1], "master", self._bridge, "up")
        for each in (ends[0], cable):  # not bridged, these are this machine's own, which is not to answer there
            run("ip", "link", "set", each, "nomaster", "arp", "off", "up")
        self._long[name] = Cable((cable, ends[0]), delay_s=delay_s, jitter_s=jitter_s, twice=twice)

    def _shorten(self, name: str) -> None:
        cable = self._cable[name]
        self._long.pop(name).close()
        run("ip", "link", "del", f"{cable}a")
        run("ip", "link", "set", cable, "master", self._bridge, "arp", "on", "up")

    def heal(self) -> None:
        """All cables, and all packets at once."""
        for name in list(self._long):
            self._shorten(name)
        for name in self._namespace:
            self.pull(name, back=True)
            run(*self.command(name, "iptables", "-F"))
            with suppress(subprocess.CalledProcessError):
                run(*self.command(name, "tc", "qdisc", "del", "dev", "eth0", "root"))
