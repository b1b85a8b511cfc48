"""``replicad dev`` and ``replicad dev start``: the command line over :class:`replicad.dev.cluster.DevCluster`.

Owns its options and what it prints. ``replicad dev`` stays in the foreground and watches its nodes; it takes the pid
files for the truth, so a node that ``replicad dev start`` brought back from another terminal is one of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from replicad.config import MAX_NODES
from replicad.dev import layout, process
from replicad.dev.cluster import DevCluster
from replicad.errors import ExitCode, OperatorError, ReplicadError

DEFAULT_DIR = Path("replicad-dev")  # in the working folder: the data are to be found again, and not shared by chance
DEFAULT_NODES = 3
DEFAULT_BASE_PORT = 50052
MAX_PORT = 65535
LOOK_AGAIN_S = 1.0  # a node that another terminal started has no other way to make itself known to us

_DESCRIPTION = """\
Run a cluster on this machine: node-1 (the master), node-2, ... on consecutive
ports of 127.0.0.1.

On the first run it makes keys, certificates, configs and a token in DIR; on
every later one it goes on with what is there. Source DIR/env to use
replicad-cli. Each node's pid is in DIR/NODE/pid, its log in DIR/NODE/log. A
node that is killed stays dead until `replicad dev start NODE`. Ctrl-C or
SIGTERM stops all nodes."""
_START_DESCRIPTION = """\
Start one node of a cluster that `replicad dev` made, and return when it is ready. It runs on by itself; a
`replicad dev` that is up in the same DIR stops it with the others."""


def main(argv: list[str], *, command: Sequence[str] | None = None) -> int:
    """Run ``replicad dev`` with the arguments behind that word; the process's exit code.

    ``command`` is as :class:`DevCluster` takes it.
    """
    try:
        if argv[:1] == ["start"]:
            return _start(_start_parser().parse_args(argv[1:]), command)
        options = _parser().parse_args(argv)
        return run(options.dir, nodes=options.nodes, base_port=options.base_port, tls=options.tls, command=command)
    except ReplicadError as error:
        print(f"replicad dev: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # of a folder that is another's, is gone, or is none
        what = f"{error.filename or 'the working folder'}: {error.strerror}"
        print(f"replicad dev: {what}; give a --dir that is yours", file=sys.stderr)
        return ExitCode.CONFIG
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="replicad dev", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=_number(1, MAX_NODES), metavar="N", help=f"default: {DEFAULT_NODES}")
    _add_dir(parser)
    parser.add_argument(
        "--base-port", type=_number(1, MAX_PORT), metavar="PORT", help=f"node-1's; default: {DEFAULT_BASE_PORT}"
    )
    parser.add_argument(
        "--tls",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether a new cluster uses TLS, with a CA of its own in DIR/pki; nodes then also listen, for each other,"
        " on the ports behind; default: --tls",
    )
    parser.epilog = "See also: replicad dev start --help"
    return parser


def _start_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="replicad dev start", description=_START_DESCRIPTION)
    parser.add_argument("node", metavar="NODE", help="node-1, node-2, ...")
    _add_dir(parser)
    return parser


def _add_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dir", type=_folder, default=DEFAULT_DIR, metavar="DIR", help="the cluster's folder; default: ./%(default)s"
    )


def _folder(text: str) -> Path:
    if not text:  # a variable that nobody has set: a cluster would be made in this folder
        raise argparse.ArgumentTypeError("the path is empty")
    try:
        return Path(text).resolve()
    except RuntimeError as exc:
        raise argparse.ArgumentTypeError(f"{text}: {exc}") from exc


def _number(lowest: int, highest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{value} is not within {lowest} to {highest}")
        return value

    return number


def _start(options: argparse.Namespace, command: Sequence[str] | None) -> int:
    cluster = DevCluster.open(options.dir, command=command)
    node = cluster.node(options.node)
    cluster.start(node.name)
    print(f"{node.name} is ready on {node.address} (pid {cluster.pid(node.name)})")
    return ExitCode.OK


def run(
    folder: Path,
    *,
    nodes: int | None = None,
    base_port: int | None = None,
    tls: bool | None = None,
    command: Sequence[str] | None = None,
    then: Callable[[DevCluster], bool] | None = None,
) -> int:
    """Have a cluster up in ``folder`` until a stop signal comes; the exit code.

    ``then`` is called once all nodes are ready, and says whether to stay up after it.
    """
    with _stop_signals() as stop_fd:
        cluster = _open_or_create(folder, nodes=nodes, base_port=base_port, tls=tls, command=command)
        with _only_one_dev(cluster):
            if running := cluster.running():
                raise _still_running(cluster, running)
            cluster.layout.env_file.unlink(missing_ok=True)  # it is there again when the cluster can be used
            try:
                _say(f"starting {len(cluster.nodes)} nodes in {cluster.layout.folder} ...")
                if cluster.start(interrupt_fd=stop_fd):
                    cluster.layout.publish_env()
                    if then is None or then(cluster):
                        running = cluster.running()  # from here on, whatever ends is told of
                        _say(_welcome(cluster, running))
                        _watch(cluster, running, stop_fd)
                _say("stopping all nodes ...")
            finally:
                cluster.stop(say=_say)
            _say(f"stopped; `replicad dev --dir {_shell_path(cluster)}` goes on with the data there")
    return ExitCode.OK


def _open_or_create(
    folder: Path, *, nodes: int | None, base_port: int | None, tls: bool | None, command: Sequence[str] | None
) -> DevCluster:
    if not layout.exists(folder):
        first, count = base_port or DEFAULT_BASE_PORT, nodes or DEFAULT_NODES
        ports = range(first, first + count)
        mutual_ports = range(0) if tls is False else range(ports.stop, ports.stop + count)
        needed = len(ports) + len(mutual_ports)
        if first + needed - 1 > MAX_PORT:
            raise OperatorError(f"{needed} ports from {first} on go beyond {MAX_PORT}; give a lower --base-port")
        return DevCluster.create(folder, ports=ports, mutual_ports=mutual_ports, command=command)
    cluster = DevCluster.open(folder, command=command)
    if cluster.layout.tls:
        layout.renew_certificates(cluster.layout.folder, [node.name for node in cluster.nodes])
    if tls is not None and tls != cluster.layout.tls:
        made, wanted = ("--tls", "--no-tls") if cluster.layout.tls else ("--no-tls", "--tls")
        raise OperatorError(
            f"the cluster in {folder} was made with {made}; leave {wanted} out to go on with it, or make another one "
            "in another --dir"
        )
    made_with = {"--nodes": len(cluster.nodes), "--base-port": int(cluster.nodes[0].address.rpartition(":")[2])}
    for option, asked in (("--nodes", nodes), ("--base-port", base_port)):
        if asked is not None and asked != made_with[option]:
            raise OperatorError(
                f"the cluster in {folder} was made with {option} {made_with[option]}, not {asked}; leave "
                f"{option} out to go on with it, or make another one in another --dir"
            )
    return cluster


def _still_running(cluster: DevCluster, running: dict[str, int]) -> OperatorError:
    nodes = ", ".join(f"{name} (pid {pid})" for name, pid in running.items())
    pids = " ".join(str(pid) for pid in running.values())
    return OperatorError(f"of the cluster in {cluster.layout.folder} there still run {nodes}; stop them: kill {pids}")


def _welcome(cluster: DevCluster, running: dict[str, int]) -> str:
    folder = _shell_path(cluster)
    last = cluster.nodes[-1].name
    width = max(len(node.name) for node in cluster.nodes)
    rows = [
        f"  {node.name:{width}}  {node.role:6}  {node.address}  pid {running.get(node.name, '-')}"
        for node in cluster.nodes
    ]
    return "\n".join(
        (
            "all nodes are ready:",
            *rows,
            "",
            "In another terminal:",
            f"  . {folder}/env",
            '  replicad-cli post "hello, log"',
            "  replicad-cli list",
            "  replicad-cli status",
            f"  kill -9 $(cat {folder}/{last}/pid)            # a node dies ...",
            f"  replicad dev start {last} --dir {folder}   # ... and comes back",
            "",
            "Ctrl-C stops all nodes.",
        )
    )


def _watch(cluster: DevCluster, running: dict[str, int], stop_fd: int) -> None:
    """Tell of nodes that end and of nodes that are back, until a stop signal comes; ``running`` are told already."""
    known = running
    while True:
        with contextlib.ExitStack() as stack:
            held = [process.held(node) for node in cluster.nodes if node.name in known]
            pidfds = [each.pidfd for context in held if (each := stack.enter_context(context))]
            if stop_fd in process.readable([stop_fd, *pidfds], timeout_s=LOOK_AGAIN_S):
                return
        now = cluster.running()
        for name, pid in known.items():
            if now.get(name) != pid:
                _say(
                    f"{name} (pid {pid}) {cluster.how_it_ended(pid)}; to bring it back: "
                    f"replicad dev start {name} --dir {_shell_path(cluster)}"
                )
        for name, pid in now.items():
            if known.get(name) != pid:
                _say(f"{name} is back (pid {pid})")
        known = now


@contextlib.contextmanager
def _stop_signals() -> Iterator[int]:
    """A descriptor that becomes readable at SIGINT, SIGTERM and SIGHUP, which do nothing else meanwhile.

    So a signal never falls between a node's start and the note of its pid, and a second one cuts no stop short.
    """
    receiver, sender = socket.socketpair()
    with receiver, sender:
        sender.setblocking(False)
        signals = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
            signals.append(signal.SIGHUP)
        before = {number: signal.signal(number, lambda *_: None) for number in signals}
        fd_before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        try:
            yield receiver.fileno()
        finally:
            signal.set_wakeup_fd(fd_before)
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _only_one_dev(cluster: DevCluster) -> Iterator[None]:
    """Refuse a second `replicad dev` on the folder, also while none of its nodes runs."""
    descriptor = os.open(cluster.layout.folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise OperatorError(f"another `replicad dev` is up in {cluster.layout.folder}; stop it first") from exc
        yield
    finally:
        os.close(descriptor)


def _shell_path(cluster: DevCluster) -> str:
    return shlex.quote(str(cluster.layout.folder))


def _say(text: str) -> None:
    print(text, flush=True)  # also into a pipe: others wait for these lines
