"""replicad-cli as a person or a script runs it: a process of its own, in a chosen environment.

Owns how it is started and what its outputs are read as. Must not know what a test asks of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from replicad.dev import DevCluster

ROOT = Path(__file__).resolve().parents[2]
RUN_TIMEOUT_S = 60.0
PROGRAM = [sys.executable, "-m", "replicad.cli"]


class Ran(NamedTuple):
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Standard output as json: an object a line and nothing else."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """Standard error as json: one object and nothing else."""
        [line] = self.err.splitlines()
        found: dict[str, Any] = json.loads(line)
        return found


class CommandLine:
    """Runs replicad-cli in an environment of ours: of the tests' own, only what starts Python."""

    def __init__(self, env: Mapping[str, str], *, cwd: Path | None = None) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.env = {**kept, "PYTHONPATH": str(ROOT), **env}
        self.cwd = cwd

    @classmethod
    def of(cls, cluster: DevCluster) -> CommandLine:
        """With what `. DIR/env` gives."""
        return cls(cluster.client_env())

    def but(self, **env: str) -> CommandLine:
        """The same with other variables; an empty one is left out."""
        merged = {**self.env, **env}
        return CommandLine({name: value for name, value in merged.items() if value}, cwd=self.cwd)

    def run(self, *arguments: str, stdin: bytes | None = None) -> Ran:
        """Run to the end."""
        done = subprocess.run(
            [*PROGRAM, *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=self.env,
            cwd=self.cwd,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    def good(self, *arguments: str, stdin: bytes | None = None) -> Ran:
        """Run to the end, which must be a good one, with not a word on standard error."""
        ran = self.run(*arguments, stdin=stdin)
        assert (ran.code, ran.err) == (0, ""), ran
        return ran

    def objects(self, *arguments: str, stdin: bytes | None = None) -> list[dict[str, Any]]:
        """What a good run with --output json printed."""
        return self.good(*arguments, "--output", "json", stdin=stdin).objects

    def fails(self, code: int, *arguments: str, stdin: bytes | None = None) -> dict[str, Any]:
        """The error of a run with --output json that must end with this exit code and print nothing."""
        ran = self.run(*arguments, "--output", "json", stdin=stdin)
        assert (ran.code, ran.out) == (code, ""), ran
        assert ran.error["exit_code"] == code
        return ran.error

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A run that goes on, its three streams pipes; killed at the end if it still does."""
        process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
            cwd=self.cwd,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()


def lines_from(stream: IO[bytes] | None, count: int) -> list[str]:
    """The next lines of a running process; the test's own time limit ends a wait in vain."""
    assert stream is not None
    lines = [stream.readline().decode() for _ in range(count)]
    assert all(lines), f"the output ended after {lines}"
    return [line.rstrip("\n") for line in lines]
