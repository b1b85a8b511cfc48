"""Effects as lines of text, so that a test reads as a transcript: what came in, what the machine says to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from replicad.core.batch import Batch
from replicad.core.effects import (
    Answer,
    Confirmed,
    Effect,
    FindIds,
    Follow,
    FrameResult,
    HandOverEnded,
    Hangup,
    Lead,
    Note,
    ReadBatches,
    ReadContent,
    ReadRoot,
    Send,
    Stand,
    StateChanged,
    StoreBatch,
    StorePromise,
    Truncate,
)
from replicad.core.frames import (
    Ack,
    Align,
    Aligned,
    AppendBatch,
    Fetch,
    Heartbeat,
    Hello,
    Inquiry,
    MasterFrame,
    Refused,
    RootAnswer,
    RootQuery,
    Standing,
    Supply,
    TakeOver,
    Welcome,
    WorkerFrame,
)
from replicad.errors import ServiceError


def show_all(effects: Sequence[Effect]) -> list[str]:
    """A line for each effect, notes left out."""
    return [show(effect) for effect in effects if not isinstance(effect, Note)]


def show(effect: Effect) -> str:
    """One effect: ``disk: ...`` for what the store does, ``NODE < ...`` for what is sent."""
    return _EFFECTS[type(effect)](effect)


def show_frame(frame: MasterFrame | WorkerFrame) -> str:
    return _FRAMES[type(frame)](frame)


def show_batch(batch: Batch) -> str:
    return f"{batch.first_offset}..{batch.end} e{batch.epoch}"


def show_result(result: FrameResult) -> str:
    """Runs as ``[0-2]@5 new``, errors as ``[1] 504@7 on 2``, then how many nodes have it."""
    if result.error is not None:
        return f"all {show_error(result.error)}"
    parts = [
        f"{_span(run.first_index, run.count)}@{run.first_offset} {'duplicate' if run.duplicate else 'new'}"
        for run in result.runs
    ]
    parts += [f"[{index}] {show_error(error)}" for index, error in result.errors]
    if result.runs:
        parts.append(f"on {result.nodes}")
    return ", ".join(parts)


def show_error(error: ServiceError) -> str:
    text = f"{error.name} applied={error.applied}"
    if error.offset is not None:
        text += f" @{error.offset}"
    return text + (f" on {error.nodes}" if error.nodes else "")


def _span(first: int, count: int) -> str:
    return f"[{first}]" if count == 1 else f"[{first}-{first + count - 1}]"


def _show_confirmed(effect: Confirmed) -> str:
    if effect.error is None:
        return f"confirmed #{effect.ticket}"
    return f"not confirmed #{effect.ticket}: {show_error(effect.error)}"


def _show_handed_over(effect: HandOverEnded) -> str:
    if effect.error is None:
        return f"handed over #{effect.ticket} to {effect.to}"
    return f"not handed over #{effect.ticket}: {effect.error}"


def _show_supply(frame: Supply) -> str:
    return f"supply {' '.join(map(show_batch, frame.batches)) or 'nothing'} of {frame.size}"


_EFFECTS: dict[type, Callable[..., str]] = {
    StorePromise: lambda e: f"disk: promise {e.epoch} to {e.master}",
    StoreBatch: lambda e: f"disk: store {show_batch(e.append.batch)} commit={e.commit_size}",
    Truncate: lambda e: f"disk: truncate to {e.size}",
    ReadBatches: lambda e: f"disk: read {e.from_offset}..{e.until_offset} for {e.peer}",
    ReadRoot: lambda e: f"disk: root at {e.size} for {e.peer}",
    FindIds: lambda e: f"disk: find {','.join(e.ids)} for #{e.ticket}",
    ReadContent: lambda e: f"disk: content of {','.join(map(str, e.offsets))} for #{e.ticket}",
    Send: lambda e: f"{e.peer} < {show_frame(e.frame)}",
    Hangup: lambda e: f"hang up {e.peer}: {e.reason}",
    Answer: lambda e: f"answer #{e.ticket}: {show_result(e.result)}",
    Confirmed: _show_confirmed,
    HandOverEnded: _show_handed_over,
    Stand: lambda e: f"turn: candidate, {e.call.value}",
    Lead: lambda e: (
        f"turn: master above e{e.above_epoch}{', insists' if e.insists else ''}{', forced' if e.forced else ''}"
    ),
    Follow: lambda e: f"turn: worker, {e.epoch} to {e.master or 'nobody'}",
    StateChanged: lambda e: f"state {e.state.value}",
    Note: lambda e: f"note {e.level} {e.event}",
}

_FRAMES: dict[type, Callable[..., str]] = {
    Hello: lambda f: f"hello e{f.epoch} from {f.master}",
    RootQuery: lambda f: f"root? {f.size}",
    Align: lambda f: f"align {f.size}",
    AppendBatch: lambda f: f"append {show_batch(f.batch)} commit={f.commit_size}",
    Heartbeat: lambda f: f"heartbeat commit={f.commit_size} probe={f.probe}",
    Fetch: lambda f: f"fetch {f.from_offset}",
    Inquiry: lambda f: f"inquiry of {f.node}",
    TakeOver: lambda f: f"take over from e{f.epoch}",
    Standing: lambda f: (
        f"standing of {f.node}: {f.promised_epoch} to {f.promised_to or 'nobody'}, e{f.last_epoch} size={f.size}"
        f"{', leads' if f.leads else ''}{', asks' if f.asks else ''}"
    ),
    Welcome: lambda f: f"welcome e{f.last_epoch} size={f.size} commit={f.commit_size}",
    RootAnswer: lambda f: f"root of {f.size}",
    Aligned: lambda f: f"aligned {f.size}",
    Ack: lambda f: f"ack {f.size} probe={f.probe}",
    Supply: _show_supply,
    Refused: lambda f: f"refused {f.reason}, promised {f.promised_epoch}",
}
