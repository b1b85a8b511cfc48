"""SIGHUP: reads the config again, has what may change live taken, and says what needs a restart.

Owns the order and what is said of it (docs/adr/0014 has why); what may be taken is :mod:`replicad.configreload`'s to
decide. Must not know where values are used: ``apply`` carries them there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from replicad import configfile, tokensfile
from replicad.config import Config
from replicad.configreload import Plan, plan
from replicad.errors import ConfigError
from replicad.logs import Logger
from replicad.supervision import Supervision


class Reloader:
    """1. Of a config with a fault nothing is taken. 2. One reload at a time; what asks meanwhile gets one more."""

    def __init__(
        self,
        path: str,
        config: Config,
        *,
        asked: asyncio.Event,
        apply: Callable[[Config], None],
        supervision: Supervision,
        log: Logger,
    ) -> None:
        """``asked`` is set when a reload is wanted."""
        self._path, self._config, self._asked, self._apply = path, config, asked, apply
        self._supervision, self._log = supervision, log
        self.remark = ""  # for the status line: why the last reload did not take all

    async def run(self) -> None:
        """Reload whenever it is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            self._supervision.reloading()
            try:
                wanted = await asyncio.to_thread(_load, self._path)
                self._take(plan(self._config, wanted))
            except ConfigError as exc:
                self._refuse(exc.faults)
            self._supervision.reloaded()

    def _take(self, plan: Plan) -> None:
        self._config = plan.config
        self._apply(plan.config)
        taken = ", ".join(f"{change.key} {change.runs_with} -> {change.wanted}" for change in plan.taken)
        self._log.info("reloaded", taken or "nothing has changed that a reload takes", taken=len(plan.taken))
        for change in plan.need_restart:
            text = f"{change.key} is {change.wanted} in the file, and stays {change.runs_with} until a restart"
            self._log.warning("needs_restart", text, key=change.key)
        keys = ", ".join(change.key for change in plan.need_restart)
        self.remark = f"reload: {keys} needs a restart" if keys else ""

    def _refuse(self, faults: list[str]) -> None:
        for fault in faults:
            self._log.error("reload_refused", fault)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        self.remark = f"reload refused, nothing of it taken: {count}, first: {faults[0]}"


def _load(path: str) -> Config:
    return tokensfile.with_principals(configfile.load(path))
