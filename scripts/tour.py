"""``make run``: a cluster of three on this machine, shown at work with the commands that a newcomer would type.

Owns the tour. Each command is printed before it runs, as it can be typed in another terminal. On a terminal the cluster
stays up until Ctrl-C; otherwise it ends after the tour. The exit code is 0 when every command did what it should.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from replicad.dev.cluster import DevCluster
from replicad.dev.commands import DEFAULT_DIR, run
from replicad.errors import ReplicadError

BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
MESSAGES = 10_000


class TourError(Exception):
    """A command of the tour failed."""


class Tour:
    """Runs commands in a shell as one who has sourced DIR/env, the project's scripts on PATH."""

    def __init__(self, cluster: DevCluster) -> None:
        self._cluster = cluster
        path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        self._env = os.environ | cluster.client_env() | {"PATH": path}

    def say(self, text: str) -> None:
        print(f"\n{BOLD}# {text}{PLAIN}", flush=True)

    def show(self, command: str) -> None:
        print(f"{DIM}${PLAIN} {command}", flush=True)

    def run(self, command: str) -> None:
        """Show the command, run it. Raises TourError when it fails."""
        self.show(command)
        status = subprocess.run(["sh", "-c", command], env=self._env, check=False).returncode
        if status:
            raise TourError(f"exit code {status} of: {command}")


def tour(cluster: DevCluster) -> None:
    shell = Tour(cluster)
    folder = _short(cluster.layout.folder)
    last = cluster.nodes[-1]

    shell.say("Source this, and replicad-cli knows where the cluster is")
    shell.show(f". {folder}/env")

    shell.say("Post: answered when a majority has it on disk, or as many nodes as you say")
    shell.run('replicad-cli post "hello, log"')
    shell.run('replicad-cli post -w all --header kind=greeting "on the disk of every node"')
    shell.run(f"seq 1 {MESSAGES} | replicad-cli post --lines")

    shell.say("Every node has the same log")
    for node in cluster.nodes:
        shell.run(f"replicad-cli list --address {node.address} --min-offset 2 --limit 4")
    shell.run("replicad-cli status")

    shell.say("A node dies; two of three are a majority, so posts go on")
    shell.run(f"kill -9 $(cat {folder}/{last.name}/pid)")
    shell.run('replicad-cli post "one of us is missing"')

    shell.say("What the dead node has can be proven, offline, with public keys alone")
    shell.run(f"replicad-cli verify --config {folder}/{last.name}/replicad.yaml")

    shell.say("It comes back and catches up by itself")
    shell.run(f"replicad dev start {last.name} --dir {folder}")
    shell.run('replicad-cli post -w all "we are complete again"')
    shell.run("replicad-cli status")


def _short(folder: Path) -> str:
    """The folder as one would type it from here."""
    return shlex.quote(os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder))


def main() -> int:
    parser = argparse.ArgumentParser(description="Start a cluster of three on this machine and show it at work.")
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR, help="the cluster's folder (default: ./%(default)s)")
    parser.add_argument("--base-port", type=int, help="node-1's port (default: as `replicad dev`)")
    options = parser.parse_args()
    failed: list[TourError] = []

    def then(cluster: DevCluster) -> bool:
        try:
            tour(cluster)
        except TourError as error:
            failed.append(error)
            print(f"tour: {error}", file=sys.stderr)
            return False
        print(flush=True)
        return sys.stdin.isatty()

    try:
        status = run(options.dir, base_port=options.base_port, then=then)
    except ReplicadError as error:
        print(f"tour: {error}", file=sys.stderr)
        return error.exit_code
    return 1 if failed else status


if __name__ == "__main__":
    sys.exit(main())
