"""The composition root: from a config to a running node, and back to nothing at SIGTERM.

Owns the order of start and stop, and the exit codes. Must not decide anything about the log.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from replicad import __version__, dev, eventloop, keys, logjournal, logs, nodekeys, startfiles, streams
from replicad.certificates import Identity
from replicad.config import Config
from replicad.core import mandate
from replicad.core.batch import Batch
from replicad.core.candidate import Candidate
from replicad.core.concern import resolve
from replicad.core.effects import Follow, Lead, Reconfigured, State
from replicad.core.master import Master
from replicad.core.progress import Phase
from replicad.core.seal import Sealer
from replicad.core.settings import Settings
from replicad.core.worker import Worker
from replicad.damage import Damage
from replicad.errors import ConfigError, DamagedError, DiskFullError, ExitCode, ReplicadError
from replicad.hangup import Hangup
from replicad.notify import Notifier
from replicad.reloading import Reloader
from replicad.repair import mend_end, to_rebuild
from replicad.runtime import Machine, Runtime, Turn, role_of
from replicad.scrubbing import Scrubbing
from replicad.startfiles import Kit
from replicad.storage.interface import Store, StoreState
from replicad.storage.quarantine import write_quarantine
from replicad.storage.sqlite import SqliteStore
from replicad.supervision import Supervision, in_time
from replicad.transport import tls
from replicad.transport.dialing import Dialing
from replicad.transport.server import Server
from replicad.transport.supplying import Fetching
from replicad.wire.codec import decode_records, encode_records
from replicad.wire.frames import encode_batch

DEFAULT_CONFIG = "/etc/replicad.yaml"
ROOM_LOOK_S = 1.0  # between two looks at the disk's room: what fills it may be another program
SWITCH_S = 0.0002  # the writing thread waits for the interpreter lock this long at the most, not Python's 5 ms
OWN_FILES = 512  # the log, its reading threads, links to workers, and gRPC's own
READ_BYTES = 1 << 20  # what an aside copy holds in memory at a time

_log = logs.get_logger("replicad")


def main(argv: Sequence[str] | None = None, *, hangup: Hangup | None = None) -> int:
    """The ``replicad`` command: the daemon, or ``replicad dev``. Returns an exit code of :class:`ExitCode`."""
    hangup = hangup or Hangup()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["dev"]:
        hangup.leave()
        return dev.main(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        kit = startfiles.load_all(options.config, now_s=time.time())
        config = kit.config
        if options.check_config:
            return streams.say(f"{options.config}: good: {config.role} {config.node} of cluster {config.cluster}")
        logs.setup(config.log.level, config.log.format)
        return eventloop.run(_run(kit, options.config, hangup))
    except ConfigError as exc:
        return _not_started(exc, exc.faults, _last_line(exc.faults))
    except ReplicadError as exc:
        return _not_started(exc, [f"replicad: {exc}"], f"not started: {exc}")
    except Exception as exc:  # a bug of ours: its traceback goes to standard error
        Notifier().status(f"not started: {type(exc).__name__}: {exc}")
        raise


def _not_started(exc: ReplicadError, lines: Sequence[str], status: str) -> int:
    """Say why on standard error and to the service manager, whose `systemctl status` goes on showing it."""
    if logjournal.is_journal(sys.stderr):
        logs.setup()
        for line in lines:
            _log.error("not_started", line)
    else:
        streams.complain("\n".join(lines))
    Notifier().status(status)
    return exc.exit_code


def _last_line(faults: Sequence[str]) -> str:
    return f"config: {faults[0]}" if len(faults) == 1 else f"config: {len(faults)} faults, first: {faults[0]}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="replicad",
        description="A durable, ordered, signed message log: the node's daemon.",
        epilog="`replicad dev --help` tells of a whole cluster on this machine, for trying it out.",
    )
    parser.add_argument(
        "--config", default=DEFAULT_CONFIG, metavar="FILE", help="the config file (default: %(default)s)"
    )
    parser.add_argument(
        "--check-config", action="store_true", help="report every fault of the config and its files, and end"
    )
    parser.add_argument("--version", action="version", version=f"replicad {__version__}")
    return parser


async def _run(kit: Kit, config_file: str, hangup: Hangup) -> int:
    """Run the node until a signal or a fault ends it."""
    config, signer, identity = kit.config, kit.signer, kit.identity
    sys.setswitchinterval(SWITCH_S)
    _allow_files(config.limits.sockets)
    reload_asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload_asked.set)
    if hangup.came:
        reload_asked.set()
    began = time.monotonic()
    keyring = nodekeys.keyring_of(config)
    notifier = Notifier()
    store = await in_time(lambda: _open_store(config), notifier, status=f"opening {config.data_dir}")
    try:
        fetching = Fetching(config, tls=tls.NodeTls(config, identity, log=_log) if identity else None)
        start = await mend_end(
            store,
            lambda: in_time(store.load, notifier, status=f"loading {config.data_dir}"),
            config=config,
            keyring=keyring,
            fetch=fetching.batches,
            journal=_log,
        )
        settings = machine_settings(config)
        call = mandate.call_of(settings, start, configured_master=config.role == "master")
        machine: Machine
        if call is not None:
            machine = Candidate(settings, start, call=call)
        else:
            machine = Worker(settings, start, keyring=keyring, decode=decode_records)
    except BaseException:
        store.close()
        raise
    _log.info(
        "starting",
        f"{role_of(machine)} {config.node} of cluster {config.cluster}",
        version=__version__,
        size=start.size,
        commit_size=start.commit_size,
        epoch=start.promised_epoch,
        key_id=signer.key_id,
        loaded_ms=int((time.monotonic() - began) * 1000),
    )
    if not eventloop.IS_UVLOOP:
        _log.warning(
            "slow_loop", "uvloop is not installed: slower, and all is well; install python3-uvloop, and restart"
        )
    node = Node(
        config,
        machine,
        store,
        notifier,
        signer=signer,
        identity=identity,
        config_file=config_file,
        reload_asked=reload_asked,
    )
    return await node.run()


def _make_sealer(config: Config, signer: keys.Signer) -> Sealer:
    return Sealer(config.cluster, config.node, signer.sign, encode_records, os.urandom)


def _allow_files(sockets: int) -> None:
    """Let this process open as many files as its sockets may be, and the log's: shells often allow 1024, and a log that
    can't open its files is worse off than a client that can't connect."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sockets + OWN_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _open_store(config: Config) -> SqliteStore:
    try:
        return SqliteStore(
            Path(config.data_dir),
            cluster=config.cluster,
            node=config.node,
            decode_records=decode_records,
            reserve_bytes=config.limits.disk_reserve,
        )
    except DamagedError as exc:
        raise to_rebuild(exc) from exc


class Node:
    """A running node: the runtime with all that surrounds it."""

    def __init__(
        self,
        config: Config,
        machine: Machine,
        store: SqliteStore,
        notifier: Notifier,
        *,
        signer: keys.Signer,
        identity: Identity | None = None,
        config_file: str,
        reload_asked: asyncio.Event,
    ) -> None:
        """``identity`` is what the files of ``config.tls`` hold; None without TLS. ``config_file`` is where ``config``
        came from, read again whenever ``reload_asked`` is set."""
        self._config, self._signer = config, signer
        self._rekeyed = (signer, 0)  # the key before this one, and the log's size when that was replaced
        self._ending: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._damage = Damage(log=_log, changed=self._tell_fitness)
        self._no_room = ""  # for records, on this node's disk: why
        self._runtime = Runtime(
            machine,
            store,
            damaged=self._damage.found,
            decode=decode_records,
            put_aside=lambda size, reason: _put_aside(store, config, self._signer, size, reason),
            next_machine=self._next_machine,
            turned=self._turned,
            log=_log,
            state_changed=self._state_changed,
            fatal=self._fatal,
        )
        self._runtime.set_catch_up_rate(config.limits.catch_up_rate)
        self._tls = tls.NodeTls(config, identity, log=_log) if identity else None
        self._scrubbing = Scrubbing(
            config,
            self._runtime,
            store,
            self._damage,
            keyring=lambda: nodekeys.keyring_of(self._config),
            fetch=Fetching(config, tls=self._tls).batches,
            log=_log,
        )
        self._server = Server(
            config,
            self._runtime,
            key_id=self._key_id,
            health_of_disk=lambda: (self._damage.text, self._scrubbing.scrubbed_ms),
            log=_log,
            tls=self._tls,
        )
        self._dialing = Dialing(config, self._runtime, tls=self._tls, log=_log, fatal=self._fatal)
        if self._tls is not None:
            self._tls.on_ca_removed = self._ca_removed
        self._supervision = Supervision(notifier, describe=self._status_line, stalled_s=self._runtime.disk.stalled_s)
        self._reloader = Reloader(
            config_file,
            config,
            signer,
            asked=reload_asked,
            apply=self._configure,
            supervision=self._supervision,
            log=_log,
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """Start, wait for the end, stop. Returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, None)
        try:
            await self._server.start()
        except ReplicadError:
            await self._runtime.close()
            raise
        self._tell_listening()
        self._warn_of_openness()
        running = [self._supervision.run(), self._reloader.run()]
        if self._tls is not None:
            running.append(self._tls.run())
        self._tasks = [loop.create_task(part) for part in running]
        self._readers = [loop.create_task(part) for part in (self._scrubbing.run(), self._watch_room())]
        for task in (*self._tasks, *self._readers):
            task.add_done_callback(self._task_ended)
        self._turned()
        self._runtime.start()
        fault = await self._ending
        await self._stop(fault)
        if fault is None:
            return ExitCode.OK
        return fault.exit_code if isinstance(fault, ReplicadError) else ExitCode.FAILED

    def _ca_removed(self) -> None:
        """Connections that rest on it end; those to workers one after the other, so that posts go on meanwhile."""
        self._server.end_untrusted()
        self._dialing.redial("a CA was withdrawn: on a new connection the other node shows its certificate again")

    def _tell_listening(self) -> None:
        config = self._config
        secure = "with TLS" if config.tls else "without TLS, so on loopback only"
        token = ", with a shared token" if config.auth_token else ""
        mutual = f", and for certificates on {config.tls.mutual_listen}" if config.tls else ""
        _log.info("listening", f"on {config.listen}{mutual}, {secure}{token}", address=config.listen)

    def _warn_of_openness(self) -> None:
        if not self._server.is_open:
            return
        if self._tls is None:
            text = "no tokens_file and no AUTH_TOKEN: whoever is on this machine may post, read and replicate"
            _log.warning("open_to_all", text)
        else:
            text = "no tokens_file and no AUTH_TOKEN: no client may call, not even one with a certificate"
            _log.warning("shut_to_all", text)

    async def _configure(self, config: Config, signer: keys.Signer) -> None:
        """Take the live keys of ``config`` to where they are used, and the key that the node signs with."""
        if signer.verifier != self._signer.verifier:
            self._rekeyed = (self._signer, self._runtime.machine.log.tip)
        self._config, self._signer = config, signer
        logs.setup(config.log.level, config.log.format)
        was_open = self._server.is_open
        self._server.configure(config)
        if not was_open:
            self._warn_of_openness()
        self._dialing.configure(config)
        self._scrubbing.configure(config)
        self._runtime.set_catch_up_rate(config.limits.catch_up_rate)
        sealer, keyring = _make_sealer(config, signer), nodekeys.keyring_of(config)
        self._runtime.feed(Reconfigured(machine_settings(config), keyring, sealer))
        if self._tls is not None:
            await self._tls.configure(config)  # last: it waits for the disk that the files are on

    def _key_id(self) -> str:
        """The id of the key that signs all that is yet to be on disk: a new one's once what the old signed is there."""
        former, tip = self._rekeyed
        return self._signer.key_id if self._runtime.machine.log.stored_size >= tip else former.key_id

    def _next_machine(self, effect: Turn, state: StoreState) -> Machine:
        """The machine that takes the place of the one that asked for it."""
        config = self._config
        settings, keyring = machine_settings(config), nodekeys.keyring_of(config)
        if isinstance(effect, Follow):
            return Worker(settings, state, keyring=keyring, decode=decode_records, detail=effect.detail)
        if isinstance(effect, Lead):
            return Master(
                settings,
                state,
                sealer=_make_sealer(config, self._signer),
                keyring=keyring,
                decode=decode_records,
                above_epoch=effect.above_epoch,
                insists=effect.insists,
                forced=effect.forced,
            )
        return Candidate(settings, state, call=effect.call)

    def _turned(self) -> None:
        """A machine is about to start: the streams that it needs, and whether the node is of use."""
        if isinstance(self._runtime.machine, Worker):
            self._dialing.stop()
            self._become_ready()
        else:
            self._server.health.set_serving(False)
            self._dialing.start()

    def _become_ready(self) -> None:
        self._server.health.set_serving(True)
        self._supervision.ready()

    def _state_changed(self, state: State, detail: str) -> None:
        del detail  # the status line has it within a second, the log has it now
        if state is State.OPEN:
            self._become_ready()
        elif state in (State.DEPOSED, State.READ_ONLY, State.HANDING_OVER):
            self._server.health.set_serving(False)

    async def _watch_room(self) -> None:
        """See whether records find room, also while there are none: without it this node is not to be the master."""
        while True:
            no_room = ""
            try:
                await self._runtime.disk.read(self._runtime.store.check_room)
            except DiskFullError as exc:
                no_room = str(exc)
            if bool(no_room) != bool(self._no_room):
                self._no_room = no_room
                self._tell_fitness()
                if no_room and isinstance(self._runtime.machine, Worker):  # a master says so itself
                    _log.warning("no_room", f"{no_room}; until there is room this node is not to be the master")
            await asyncio.sleep(ROOM_LOOK_S)

    def _tell_fitness(self) -> None:
        self._runtime.set_unfit(self._damage.text or self._no_room)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """These never end by themselves; without one of them this would be a node that does half its work."""
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._fatal(exc)

    def _end(self, fault: BaseException | None) -> None:
        if not self._ending.done():
            self._ending.set_result(fault)

    def _fatal(self, fault: BaseException) -> None:
        bug = None if isinstance(fault, ReplicadError) else fault
        fault = to_rebuild(fault) if isinstance(fault, DamagedError) else fault
        text = f"{type(fault).__name__}: {fault}; this node stops"
        _log.error("fatal", text, exc=bug)
        self._supervision.failed(f"failed: {text}")
        self._end(fault)

    async def _stop(self, fault: BaseException | None) -> None:
        """Take no more posts, answer what is under way, flush, leave."""
        self._supervision.stopping()
        _log.info("stopping", "answering what is under way" if fault is None else "after a fault")
        for task in self._readers:  # before the disk is closed, which they read
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await self._server.stop(0.0 if fault else self._config.timeouts.stop_s)
        await self._runtime.close()  # first: that the streams to the workers end now is nothing to act on or to log
        self._dialing.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, self._dialing.stopped(), return_exceptions=True)
        logs.tell_left_out()
        own_log = self._runtime.machine.log
        _log.info("stopped", "", size=own_log.stored_size, commit_size=own_log.commit_size)

    def _status_line(self) -> str:
        machine = self._runtime.machine
        sizes = f"epoch {machine.epoch}, size {machine.log.stored_size}, committed {machine.log.commit_size}"
        line = f"{role_of(machine)} {machine.state.value}, {sizes}"
        if isinstance(machine, Master):
            workers = machine.workers.values()
            lag = max((machine.log.stored_size - w.acked_size for w in workers), default=0)
            level = sum(w.acked_size >= machine.log.commit_size and w.phase is Phase.LEVELLING for w in workers)
            line += f", {level} of {len(workers)} workers in sync, lag {max(0, lag)}"
        certificate = self._tls.remark if self._tls else ""
        remarks = (self._missing(), self._damage.text, certificate, self._reloader.remark)
        return "; ".join(filter(None, (line, machine.detail, *remarks)))

    def _missing(self) -> str:
        """Whom a master that opens has not reached: what `systemctl start` waits for."""
        machine = self._runtime.machine
        if not isinstance(machine, Master) or machine.state is not State.OPENING:
            return ""
        missing = [worker.name for worker in machine.workers.values() if worker.phase is Phase.DOWN]
        return f"not reached: {', '.join(missing)}" if missing else ""


def machine_settings(config: Config) -> Settings:
    """The config in the core's words."""
    limits, timeouts = config.limits, config.timeouts
    return Settings(
        cluster=config.cluster,
        node=config.node,
        workers=tuple(node.name for node in config.nodes if node.name != config.node),
        non_voters=frozenset(node.name for node in config.nodes if not node.voter),
        min_nodes=resolve(config.min_nodes, voters=config.voters),
        batch_bytes=limits.batch_bytes,
        batch_records=limits.batch_records,
        window_bytes=limits.window_bytes,
        read_bytes=limits.read_bytes,
        waiting_frames=limits.waiting_frames,
        heartbeat_s=timeouts.heartbeat_s,
        suspect_s=timeouts.suspect_s,
        unhealthy_s=timeouts.unhealthy_s,
    )


def _put_aside(store: Store, config: Config, signer: keys.Signer, size: int, reason: str) -> None:
    """Copy everything at ``size`` and beyond to quarantine, on disk when this returns."""

    def batches() -> Iterator[Batch]:
        offset = size
        while found := store.read(offset, max_bytes=READ_BYTES):
            yield from found
            offset = found[-1].end

    write_quarantine(
        Path(config.data_dir),
        batches(),
        cluster=config.cluster,
        node=config.node,
        reason=reason,
        encode=encode_batch,
        signer=signer,
        time_ms=time.time_ns() // 1_000_000,
    )
