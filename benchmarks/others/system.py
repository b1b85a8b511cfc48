"""What all systems have in common: servers on this machine, callers that wait for each answer, and what they saw.

Owns processes, ports and percentiles. Must not know what any system is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

START_S = 30.0
STOP_S = 10.0
PAYLOAD = b"x" * 100


class BenchmarkError(Exception):
    """It could not be measured; the text says why."""


@dataclass(frozen=True, slots=True)
class Result:
    """``p50_ms`` and ``p99_ms``: of the time from a post to its answer."""

    msg_per_s: float
    p50_ms: float
    p99_ms: float


#: Measures so many callers, each with one post in flight, for so many seconds.
Measure = Callable[[int, float], Result]


class System(Protocol):
    """A system of three nodes that acknowledges a message when a majority has it, on disk where it can say so."""

    name: str

    def missing(self) -> str:
        """What is not installed that it needs, by the names of Debian's packages; "" when all is there."""

    def running(self, folder: Path) -> AbstractContextManager[Measure]:
        """Three nodes with their data in ``folder``, for as long as the context lasts."""


def result_of(latencies_s: Sequence[float], seconds: float) -> Result:
    """Percentiles are latencies that were seen (nearest rank)."""
    if not latencies_s:
        raise BenchmarkError("nothing was answered")
    ordered = sorted(latencies_s)
    p50, p99 = (ordered[-(-len(ordered) * percent // 100) - 1] * 1000 for percent in (50, 99))
    return Result(len(ordered) / seconds, p50, p99)


async def closed_loop(posts: Sequence[Callable[[], Awaitable[None]]], seconds: float) -> Result:
    """Each of ``posts`` is a caller that posts again as soon as it has its answer. The first fifth is a warm-up."""
    latencies_s: list[float] = []
    began = time.perf_counter() + seconds / 5
    end = began + seconds

    async def call(post: Callable[[], Awaitable[None]]) -> None:
        while (now := time.perf_counter()) < end:
            await post()
            answered = time.perf_counter()
            if now >= began:
                latencies_s.append(answered - now)

    await asyncio.gather(*map(call, posts))
    return result_of(latencies_s, time.perf_counter() - began)


def wait_until(look: Callable[[], bool], what: str) -> None:
    """Raises BenchmarkError when it has not come within START_S."""
    end = time.monotonic() + START_S
    while not look():
        if time.monotonic() > end:
            raise BenchmarkError(f"{what} did not come about within {START_S:g} s")
        time.sleep(0.05)


@contextlib.contextmanager
def servers(commands: Sequence[Sequence[str]], folder: Path) -> Iterator[None]:
    """These processes, each with its output in ``folder``, stopped at the end."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number, command in enumerate(commands, 1):
            with (folder / f"log-{number}").open("wb") as log:
                started.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder))
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def run(command: Sequence[str], *, user: str = "", env: Mapping[str, str] | None = None) -> str:
    """What a command prints; as ``user`` when we are root, for programs that refuse to be root's.

    Raises BenchmarkError with its last line when it fails.
    """
    as_user = user if user and os.geteuid() == 0 else None
    groups = [pwd.getpwnam(as_user).pw_gid] if as_user else None
    done = subprocess.run(
        command,
        user=as_user,
        group=groups[0] if groups else None,
        extra_groups=groups,
        env={**os.environ, **(env or {})},
        cwd="/",
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise BenchmarkError(f"{' '.join(command[:3])} ...: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout
