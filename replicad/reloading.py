"""SIGHUP: reads the config again, has what may change live taken, and says what needs a restart.

Owns the order and what is said of it (docs/adr/0014 has why); what may be taken is :mod:`replicad.configreload`'s to
decide. Must not know where values are used: ``apply`` carries them there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from replicad import configfile, keys, tokensfile
from replicad.config import Config
from replicad.configreload import Plan, plan
from replicad.errors import ConfigError, KeyFileError
from replicad.keys import Signer
from replicad.logs import Logger
from replicad.supervision import Supervision


class Reloader:
    """1. Of a config with a fault nothing is taken. 2. One reload at a time; what asks meanwhile gets one more."""

    def __init__(
        self,
        path: str,
        config: Config,
        signer: Signer,
        *,
        asked: asyncio.Event,
        apply: Callable[[Config, Signer], Awaitable[None]],
        supervision: Supervision,
        log: Logger,
    ) -> None:
        """``asked`` is set when a reload is wanted."""
        self._path, self._config, self._signer = path, config, signer
        self._asked, self._apply = asked, apply
        self._supervision, self._log = supervision, log
        self.remark = ""  # for the status line: why the last reload did not take all

    async def run(self) -> None:
        """Reload whenever it is asked for, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            self._supervision.reloading()
            try:
                await self._take(*await asyncio.to_thread(self._read))
            except ConfigError as exc:
                self._refuse(exc.faults)
            except KeyFileError as exc:
                self._refuse([f"{exc}; as the file has it, this node would have no key to sign with"])
            self._supervision.reloaded()

    def _read(self) -> tuple[Plan, Signer, KeyFileError | None]:
        """The config's and the key's files. Raises ConfigError and KeyFileError."""
        made = plan(self._config, _load(self._path))
        signing_keys = made.config.this_node.signing_keys
        return made, *keys.read_again(self._signer, made.config.key_file, signing_keys)

    async def _take(self, plan: Plan, signer: Signer, key_fault: KeyFileError | None) -> None:
        before, self._config, self._signer = self._signer, plan.config, signer
        await self._apply(plan.config, signer)
        taken = ", ".join(f"{change.key} {change.runs_with} -> {change.wanted}" for change in plan.taken)
        self._log.info("reloaded", taken or "nothing has changed that a reload takes", taken=len(plan.taken))
        for change in plan.need_restart:
            text = f"{change.key} is {change.wanted} in the file, and stays {change.runs_with} until a restart"
            self._log.warning("needs_restart", text, key=change.key)
        waiting = ", ".join(change.key for change in plan.need_restart)
        self.remark = f"reload: {waiting} needs a restart" if waiting else ""
        self._tell_key(before, signer, key_fault)

    def _tell_key(self, before: Signer, signer: Signer, fault: KeyFileError | None) -> None:
        if fault is not None:
            text = f"{fault}; this node goes on signing with key {signer.key_id}"
            self._log.error("key_refused", text, key_id=signer.key_id)
            self.remark = "; ".join(filter(None, (self.remark, f"reload: the key file is not taken: {fault}")))
        elif signer.verifier != before.verifier:
            text = f"this node signs with key {signer.key_id} from now on, no more with {before.key_id}"
            self._log.info("rekeyed", text, key_id=signer.key_id, former_key_id=before.key_id)

    def _refuse(self, faults: list[str]) -> None:
        for fault in faults:
            self._log.error("reload_refused", fault)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        self.remark = f"reload refused, nothing of it taken: {count}, first: {faults[0]}"


def _load(path: str) -> Config:
    return tokensfile.with_principals(configfile.load(path))
