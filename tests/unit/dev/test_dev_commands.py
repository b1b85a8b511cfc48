"""``replicad dev`` as a person meets it, with a stand-in for the daemon."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from replicad.dev import DevCluster, main
from tests.support.ports import free_ports

STAND_IN = [sys.executable, str(Path(__file__).with_name("stand_in_node.py"))]
RUN_DEV = "import sys; from replicad.dev import main; sys.exit(main(sys.argv[3:], command=sys.argv[1:3]))"

Dev = subprocess.Popen[str]


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Callable[..., Dev]]:
    """Runs `replicad dev ARGUMENTS --dir DIR`, and kills what the test leaves."""
    with ExitStack() as stack:

        def run(*arguments: str) -> Dev:
            process = subprocess.Popen(
                [sys.executable, "-c", RUN_DEV, *STAND_IN, *arguments, "--dir", str(tmp_path)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield run
    if (tmp_path / "node-1" / "replicad.yaml").exists():
        DevCluster.open(tmp_path).kill()


def new(tmp_path: Path, nodes: int = 3) -> DevCluster:
    """A cluster made beforehand, on ports that are free."""
    return DevCluster.create(tmp_path, ports=free_ports(nodes), command=STAND_IN)


def read_until(output: IO[str] | None, text: str) -> str:
    """The output up to the line that holds ``text``; the test's own time limit ends a wait in vain."""
    assert output
    seen = ""
    for line in output:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came:\n{seen}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_stops_all_nodes_and_is_no_error(
    dev: Callable[..., Dev], tmp_path: Path, number: signal.Signals
) -> None:
    cluster = new(tmp_path)
    process = dev()
    read_until(process.stdout, "Ctrl-C stops all nodes.")
    assert len(cluster.running()) == 3

    process.send_signal(number)

    output, _ = process.communicate()
    assert process.returncode == 0
    assert "goes on with the data there" in output
    assert cluster.running() == {}


def test_the_first_run_makes_as_many_nodes_as_asked_from_the_base_port_on(
    dev: Callable[..., Dev], tmp_path: Path
) -> None:
    (base_port,) = free_ports(1)

    process = dev("--nodes", "1", "--base-port", str(base_port))

    output = read_until(process.stdout, "Ctrl-C stops all nodes.")
    assert f"node-1  master  127.0.0.1:{base_port}" in output
    assert f"REPLICAD_ADDRESS=127.0.0.1:{base_port}\n" in (tmp_path / "env").read_text()


@pytest.mark.parametrize(("option", "with_tls"), [([], True), (["--tls"], True), (["--no-tls"], False)])
def test_a_new_cluster_has_tls_unless_told_otherwise(
    dev: Callable[..., Dev], tmp_path: Path, option: list[str], with_tls: bool
) -> None:
    (base_port,) = free_ports(1)
    process = dev("--nodes", "1", "--base-port", str(base_port), *option)
    read_until(process.stdout, "Ctrl-C stops all nodes.")
    assert (tmp_path / "pki" / "ca.crt").exists() is with_tls
    assert (f"REPLICAD_CA={tmp_path}/pki/ca.crt\n" in (tmp_path / "env").read_text()) is with_tls
    mutual_address = DevCluster.open(tmp_path).master.mutual_address
    assert mutual_address == (f"127.0.0.1:{base_port + 1}" if with_tls else "")


def test_a_cluster_stays_with_or_without_tls_as_it_was_made(dev: Callable[..., Dev], tmp_path: Path) -> None:
    new(tmp_path)
    output, _ = dev("--tls").communicate()
    assert "was made with --no-tls; leave --tls out to go on with it" in output
    process = dev()
    read_until(process.stdout, "Ctrl-C stops all nodes.")
    assert not (tmp_path / "pki").exists()


def test_the_env_file_is_there_only_once_the_nodes_are_ready(dev: Callable[..., Dev], tmp_path: Path) -> None:
    cluster = new(tmp_path)
    (tmp_path / "env").write_text("of an earlier run")
    (tmp_path / "node-2" / "mode").write_text("never-ready")

    process = dev()
    read_until(process.stdout, "starting 3 nodes")
    process.send_signal(signal.SIGTERM)

    assert process.wait() == 0
    assert not (tmp_path / "env").exists()
    assert cluster.running() == {}


def test_a_node_that_does_not_come_up_stops_the_others_and_is_an_error(dev: Callable[..., Dev], tmp_path: Path) -> None:
    cluster = new(tmp_path)
    (tmp_path / "node-3" / "mode").write_text("dies")

    process = dev()
    output, _ = process.communicate()

    assert process.returncode == 3
    assert "replicad dev: node-3 ended with status 1 before it was ready" in output
    assert "the disk is on fire" in output
    assert cluster.running() == {}


def test_a_killed_node_is_told_of_and_a_start_from_another_terminal_brings_it_back(
    dev: Callable[..., Dev], tmp_path: Path
) -> None:
    cluster = new(tmp_path)
    process = dev()
    read_until(process.stdout, "Ctrl-C stops all nodes.")

    os.kill(cluster.running()["node-2"], signal.SIGKILL)
    read_until(process.stdout, "was killed by SIGKILL; to bring it back: replicad dev start node-2")
    assert set(cluster.running()) == {"node-1", "node-3"}

    start = dev("start", "node-2")
    output, _ = start.communicate()
    assert start.returncode == 0
    assert f"node-2 is ready on {cluster.node('node-2').address} (pid {cluster.running()['node-2']})" in output
    read_until(process.stdout, "node-2 is back")

    process.send_signal(signal.SIGINT)
    assert process.wait() == 0
    assert cluster.running() == {}


def test_a_second_run_goes_on_with_what_is_there(dev: Callable[..., Dev], tmp_path: Path) -> None:
    cluster = new(tmp_path)
    configs = [node.config_file.read_text() for node in cluster.nodes]
    for _ in range(2):
        process = dev()
        read_until(process.stdout, "Ctrl-C stops all nodes.")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    assert [node.config_file.read_text() for node in cluster.nodes] == configs


def test_a_second_run_is_refused_while_the_first_is_up(dev: Callable[..., Dev], tmp_path: Path) -> None:
    new(tmp_path)
    first = dev()
    read_until(first.stdout, "Ctrl-C stops all nodes.")

    second = dev()
    output, _ = second.communicate()

    assert second.returncode == 3
    assert "another `replicad dev` is up in" in output
    assert first.poll() is None


def test_a_run_is_refused_while_nodes_of_an_earlier_one_live_on(dev: Callable[..., Dev], tmp_path: Path) -> None:
    cluster = new(tmp_path)
    cluster.start("node-2")

    process = dev()
    output, _ = process.communicate()

    assert process.returncode == 3
    assert f"there still run node-2 (pid {cluster.pid('node-2')}); stop them: kill {cluster.pid('node-2')}" in output
    assert set(cluster.running()) == {"node-2"}


def test_another_number_of_nodes_than_there_are_is_refused(dev: Callable[..., Dev], tmp_path: Path) -> None:
    new(tmp_path)
    process = dev("--nodes", "5")
    output, _ = process.communicate()
    assert process.returncode == 3
    assert "was made with --nodes 3, not 5" in output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--dir", ""], "argument --dir: the path is empty"),
        (["--nodes", "0"], "0 is not within 1 to 31"),
        (["--base-port", "70000"], "70000 is not within 1 to 65535"),
        (["--nodes", "many"], "invalid number value: 'many'"),
        (["start"], "required: NODE"),
    ],
)
def test_wrong_arguments_are_usage_errors(dev: Callable[..., Dev], arguments: list[str], complaint: str) -> None:
    process = dev(*arguments)
    output, _ = process.communicate()
    assert process.returncode == 2
    assert complaint in output


def test_start_without_a_cluster_says_how_to_make_one(dev: Callable[..., Dev]) -> None:
    process = dev("start", "node-1")
    output, _ = process.communicate()
    assert process.returncode == 3
    assert "holds no cluster; make one: replicad dev --dir" in output


@pytest.mark.parametrize("command", [[], ["start", "node-1"]])
def test_a_folder_that_can_be_none_is_an_error_in_words(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    too_long = tmp_path / ("a" * 300)
    assert main([*command, "--dir", str(too_long)]) == 3
    assert f"replicad dev: {too_long}/node-1/replicad.yaml: File name too long; give a --dir" in capsys.readouterr().err
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SystemExit):
        main([*command, "--dir", str(tmp_path / "loop")])
    assert "loop" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["start", "--help"]])
def test_help_fits_a_terminal_of_80_columns(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(arguments)
    assert max(map(len, capsys.readouterr().out.splitlines())) < 80
