"""Every command and every example in README.md is run as it stands there, in the page's order.

Owns how the page becomes commands. A fenced block of ``sh`` or ``python`` is run but for those under a comment that
begins with "not run"; what stands under the comment "until Ctrl-C" gets one once it is at work.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from replicad.dev import DevCluster
from replicad.dev.layout import create
from tests.support.ports import free_ports
from tests.support.programs import ROOT, programs_env
from tests.support.waiting import eventually_true

WITHIN_S = 60.0  # for a command; each takes a second or two
INTERRUPTED = 130

UNTIL_CTRL_C = "until Ctrl-C"
_BLOCK = re.compile(r"^(?:<!-- (?P<note>.+?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    note: str
    text: str

    @property
    def is_run(self) -> bool:
        return not self.note.startswith("not run")


def blocks(language: str) -> list[Block]:
    found = _BLOCK.finditer((ROOT / "README.md").read_text())
    return [Block(each["note"] or "", each["text"]) for each in found if each["language"] == language]


def with_real_ports(text: str, cluster: DevCluster) -> str:
    """The page's nodes are on ports 50052 and on; the test's where there was room."""
    for port, node in enumerate(cluster.nodes, start=50052):
        text = text.replace(f":{port}", f":{node.address.rpartition(':')[2]}")
    return text


class Terminal:
    """Runs a line of the page as someone would who follows it in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = free_ports(6)  # as `replicad dev` makes it: with TLS
        self.cluster = DevCluster(create(folder / "replicad-dev", ports=ports[:3], mutual_ports=ports[3:]))
        self._env = programs_env(folder / "bin")
        self._output = folder / "output"
        self.dev: subprocess.Popen[bytes] | None = None

    def bash(self, line: str) -> list[str]:
        """The command line for a line of the page, typed where DIR/env was sourced."""
        line = with_real_ports(line, self.cluster).replace(".venv/bin/", "")
        line = line.replace("/etc/replicad.yaml", "replicad-dev/node-3/replicad.yaml")
        return ["bash", "-c", f"test ! -e replicad-dev/env || . replicad-dev/env; {line}"]

    def run(self, line: str) -> None:
        ran = subprocess.run(
            self.bash(line),
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert ran.returncode == 0, f"exit code {ran.returncode} of: {line}\n{ran.stdout}"
        if line.startswith("kill "):  # whoever types on has given the node time to die
            eventually_true(lambda: len(self.cluster.running()) < 3, within_s=WITHIN_S, what=f"end of the node: {line}")

    def start(self, line: str, *, at_work: Callable[[str], bool]) -> subprocess.Popen[bytes]:
        """Start what runs until Ctrl-C, and return when its output says that it is ``at_work``."""
        with self._output.open("wb") as output:
            started = subprocess.Popen(
                self.bash(f"exec {line}"),
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

        def look() -> bool:
            said = self._output.read_text()
            assert started.poll() is None, f"exit code {started.returncode} of: {line}\n{said}"
            return at_work(said)

        try:
            eventually_true(look, within_s=WITHIN_S, what=f"output of: {line}")
        except BaseException:
            started.kill()
            raise
        return started

    def until_ctrl_c(self, line: str) -> None:
        """Start the line, see it at work, press Ctrl-C; only the cluster stays up."""
        if "replicad dev" in line:
            self.dev = self.start(line, at_work=lambda said: "Ctrl-C stops all nodes" in said)
        elif "replicad-cli tail" in line:
            ended = self.press(self.start(line, at_work=self._posted_is_there))
            assert ended == INTERRUPTED, line
        else:
            assert self.press(self.start(line, at_work=lambda said: "event=listening" in said)) == 0, line

    def _posted_is_there(self, said: str) -> bool:
        self.run("replicad-cli post 'a tail sees this'")  # every time: `--from end` may begin behind the first
        return "a tail sees this" in said

    @staticmethod
    def press(process: subprocess.Popen[bytes]) -> int:
        """Ctrl-C goes to all that runs in the terminal; the exit code."""
        os.killpg(process.pid, signal.SIGINT)
        return process.wait(timeout=WITHIN_S)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    try:
        yield made
    finally:
        if made.dev and made.dev.poll() is None:
            made.dev.kill()
        made.cluster.kill()


@pytest.mark.timeout(300)
def test_every_command_in_the_readme_does_its_work(terminal: Terminal) -> None:
    (terminal.folder / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (terminal.folder / "events.txt").write_text("".join(f"event {number}\n" for number in range(5000)))

    for block in blocks("sh"):
        for line in block.text.splitlines() if block.is_run else ():
            if block.note == UNTIL_CTRL_C:
                terminal.until_ctrl_c(line)
            else:
                terminal.run(line)

    assert terminal.dev is not None
    assert terminal.press(terminal.dev) == 0
    assert terminal.cluster.running() == {}


def test_every_command_of_the_cli_is_in_the_readme() -> None:
    from replicad.cli.main import COMMANDS  # noqa: PLC0415 - the page is about programs; only their names are wanted

    page = "\n".join(block.text for block in blocks("sh"))
    assert [name for name in COMMANDS if f"replicad-cli {name}" not in page] == []


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_every_example_in_python_does_its_work(cluster: DevCluster, tmp_path: Path, number: int) -> None:
    block = blocks("python")[number]
    script, output = tmp_path / "example.py", tmp_path / "output"
    script.write_text(with_real_ports(block.text, cluster))
    env = os.environ | cluster.client_env() | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    with output.open("wb") as file:
        example = subprocess.Popen([sys.executable, str(script)], env=env, stdout=file, stderr=subprocess.STDOUT)
    try:
        if block.note == UNTIL_CTRL_C:
            eventually_true(lambda: "hello, log" in output.read_text(), within_s=WITHIN_S, what="a record")
            assert example.poll() is None
        else:
            assert example.wait(timeout=WITHIN_S) == 0, output.read_text()
            assert "hello, log" in output.read_text()
    finally:
        example.kill()
        example.wait()
