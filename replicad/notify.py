"""Tells systemd how the daemon is (sd_notify), by way of the sdnotify library.

Owns the words of the protocol (sd_notify(3)). Without systemd, and when it does not listen, nothing happens: a log
must not stop because nobody watches it. When to say what is the runtime's to decide.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import sdnotify  # type: ignore[import-untyped]

SEND_TIMEOUT_S = 1.0  # systemd reads at once; when it is stuck, better to lose a word than to hold up the loop
STATUS_CHARS = 512  # a line of `systemctl status`


class Notifier:
    """The way to the service manager named by NOTIFY_SOCKET of this process; silent without one. Never raises."""

    def __init__(self) -> None:
        self._systemd = sdnotify.SystemdNotifier()
        if self._systemd.socket is not None:
            self._systemd.socket.settimeout(SEND_TIMEOUT_S)

    def ready(self) -> None:
        """The role is really ready: what waits for this unit may start."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload has begun; :meth:`ready` ends it. Both lines go as one message, as ``Type=notify-reload`` asks."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`: role, epoch, size and the like."""
        line = "".join(c if c.isprintable() else " " for c in text[:STATUS_CHARS])
        self._send(f"STATUS={line}")

    def watchdog(self) -> None:
        """The write loop makes progress; say so at least every :func:`watchdog_interval_s`."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The daemon has begun to stop."""
        self._send("STOPPING=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for ``seconds`` from now before a start or stop counts as hung; say it again to go on."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _send(self, state: str) -> None:
        # sdnotify encodes latin-1, systemd wants UTF-8: this hands the UTF-8 bytes through
        self._systemd.notify(state.encode("utf-8", "replace").decode("latin-1"))


def watchdog_interval_s(env: Mapping[str, str], *, pid: int | None = None) -> float | None:
    """How often to call :meth:`Notifier.watchdog`: half of WATCHDOG_USEC, as sd_watchdog_enabled(3) recommends.

    None where no watchdog is set, or one that is meant for another process than ``pid`` (this one), or is malformed.
    """
    if env.get("WATCHDOG_PID", "") not in ("", str(os.getpid() if pid is None else pid)):
        return None
    microseconds = env.get("WATCHDOG_USEC", "")
    if not (microseconds.isascii() and microseconds.isdigit() and len(microseconds) <= 19):
        return None
    return int(microseconds) / 2_000_000 or None
