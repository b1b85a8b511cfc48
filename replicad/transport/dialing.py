"""All the streams that a master, or who wants to be one, keeps to the other nodes.

Owns the dialers: there are some while this node leads or wants to, and none while it is a worker. Must not know why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from replicad.config import Config
from replicad.logs import Logger
from replicad.runtime import Runtime
from replicad.transport.links import Dialer, MasterFrameEncoder
from replicad.transport.tls import NodeTls

REDIAL_EVERY_S = 2.0  # a worker on this machine is level again in a tenth of it


class Dialing:
    """1. ``fatal`` is called with what ended a dialer, which never ends by itself."""

    def __init__(
        self,
        config: Config,
        runtime: Runtime,
        *,
        tls: NodeTls | None,
        log: Logger,
        fatal: Callable[[BaseException], None],
    ) -> None:
        self._config, self._runtime, self._tls, self._log, self._fatal = config, runtime, tls, log, fatal
        self._dialers: dict[asyncio.Task[None], Dialer] = {}
        self._stopping: set[asyncio.Task[None]] = set()  # held, so that they are not collected

    def configure(self, config: Config) -> None:
        """Go by the timeouts of ``config`` from the next try on."""
        self._config = config
        for dialer in self._dialers.values():
            dialer.configure(config.timeouts)

    def start(self) -> None:
        """Dial every other node, and go on dialling; does nothing where that is so."""
        if self._dialers:
            return
        config = self._config
        encode = MasterFrameEncoder()
        metadata = (("authorization", f"Bearer {config.auth_token}"),) if config.auth_token else ()
        for node in config.nodes:
            if node.name == config.node:
                continue
            dialer = Dialer(
                node.name,
                node.mutual_address if self._tls else node.address,
                self._runtime,
                encode=encode,
                metadata=metadata,
                timeouts=config.timeouts,
                log=self._log,
                credentials=self._tls.channel_credentials if self._tls else None,
            )
            task = asyncio.get_running_loop().create_task(dialer.run())
            task.add_done_callback(self._ended)
            self._dialers[task] = dialer

    def stop(self) -> None:
        """End all streams."""
        for task in self._dialers:
            self._stopping.add(task)
            task.cancel()
        self._dialers.clear()

    async def stopped(self) -> None:
        """Return when the streams have ended, after :meth:`stop`."""
        await asyncio.gather(*self._stopping, return_exceptions=True)

    def redial(self, reason: str) -> None:
        """End the streams, one after the other so that posts go on meanwhile; each is dialled again."""
        for index, dialer in enumerate(self._dialers.values()):
            asyncio.get_running_loop().call_later(index * REDIAL_EVERY_S, dialer.redial, reason)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._stopping.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._fatal(exc)
