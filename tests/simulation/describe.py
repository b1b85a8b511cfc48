"""Events, effects and frames in words, for the transcript of a failure."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from replicad.core.batch import Append, Batch
from replicad.core.effects import (
    FrameResult,
    Note,
    Reconfigured,
    Run,
    Send,
    StateChanged,
    StoreFailed,
    Submit,
    Tick,
    Truncated,
)
from replicad.core.record import Messages
from replicad.core.tree import Tree

_SHORT = 12  # hex digits of a root


def describe(thing: object) -> str:
    """One part of a line."""
    match thing:
        case str():
            return thing
        case list() | tuple():
            return "[" + ", ".join(describe(part) for part in thing if not isinstance(part, Tick)) + "]"
        case Batch():
            return f"{thing.signer} e{thing.epoch} {thing.first_offset}..{thing.end}"
        case Append():
            return f"{describe(thing.batch)} {list(thing.ids)}"
        case Send():
            return f"Send({thing.peer}, {describe(thing.frame)})"
        case Submit():
            return f"Submit(#{thing.ticket} w={thing.nodes} until {thing.deadline:.4f} {list(thing.messages.ids)})"
        case Messages():
            return str(list(thing.ids))
        case Reconfigured():
            return "Reconfigured"
        case Run():
            kind = "dup" if thing.duplicate else "new"
            return f"{kind} [{thing.first_index}+{thing.count}]@{thing.first_offset}"
        case FrameResult():
            errors = [f"[{index}] {error.name} {error}" for index, error in thing.errors]
            whole = f" {thing.error.name}: {thing.error}" if thing.error else ""
            return f"{describe(tuple(thing.runs))} {errors}{whole} nodes={thing.nodes}"
        case Note():
            return f"Note({thing.event}: {thing.text})"
        case StateChanged():
            return f"State({thing.state.value}: {thing.detail})"
        case StoreFailed():
            return f"StoreFailed({thing.reason} size={thing.size} e{thing.last_epoch})"
        case Truncated():
            return f"Truncated(size={thing.tree.size} e{thing.last_epoch})"
        case Tree():
            return f"tree of {thing.size}"
        case bytes():
            return thing.hex()[:_SHORT]
        case float():
            return f"{thing:.4f}"
        case dict():
            return "{" + ", ".join(f"{key}: {describe(value)}" for key, value in thing.items()) + "}"
    if is_dataclass(thing):
        parts = ", ".join(f"{field.name}={describe(getattr(thing, field.name))}" for field in fields(thing))
        return f"{type(thing).__name__}({parts})"
    return repr(thing)
