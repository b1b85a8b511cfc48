"""A worker's runtime over a store in memory, for tests that play its peers, its readers or its disk."""

from __future__ import annotations

from collections.abc import Callable

from replicad import logs
from replicad.core.start import StoreState
from replicad.core.worker import Worker
from replicad.errors import DamagedError
from replicad.runtime import Runtime, Turn
from replicad.storage.memory import MemoryStore
from replicad.wire.codec import decode_records
from tests.support.builders import keyring, settings


def worker_runtime(
    store: MemoryStore,
    *,
    fatal: Callable[[BaseException], None],
    damaged: Callable[[DamagedError], None] = lambda _: None,
) -> Runtime:
    """Of node n2, which stays a worker: to become another machine is an error."""

    def next_machine(turn: Turn, state: StoreState) -> Worker:
        raise AssertionError(f"{turn} in a test of a worker, at {state.size}")

    return Runtime(
        Worker(settings("n2"), store.load(), keyring=keyring(), decode=decode_records),
        store,
        decode=decode_records,
        put_aside=lambda size, reason: None,
        damaged=damaged,
        next_machine=next_machine,
        turned=lambda: None,
        log=logs.get_logger("test"),
        state_changed=lambda state, detail: None,
        fatal=fatal,
    )
