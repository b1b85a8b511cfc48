"""What a reload makes of a changed config: which keys are taken while the node runs, and which need a restart.

Pure: the config that runs and the one in the file give a plan. Whether a key is taken is declared beside it, in
:mod:`replicad.config`. Must not know how a value gets to where it is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from replicad import configrules
from replicad.access import Principal
from replicad.config import Config
from replicad.configkeys import Path, Section, Sections, keys_of, path_text
from replicad.errors import ConfigError

SHOWN_NAMES = 10  # a line of the log stays readable


@dataclass(frozen=True, slots=True)
class Change:
    """A key whose value in the file is not the one that the node runs with; both as the file would have them."""

    path: Path
    runs_with: str
    wanted: str
    live: bool

    @property
    def key(self) -> str:
        """nodes[1].address"""
        return path_text(self.path)


@dataclass(frozen=True, slots=True)
class Plan:
    """1. ``config`` is the running one with the ``taken`` changes alone, and keeps every rule of a config."""

    config: Config
    taken: tuple[Change, ...]
    need_restart: tuple[Change, ...]


def plan(running: Config, wanted: Config) -> Plan:
    """What to take of ``wanted``.

    Raises ConfigError when what can be taken does not go together with what has to stay until a restart: then nothing
    is to be taken.
    """
    changes = [*_changes(Config, running, wanted, ()), *_principals(running, wanted)]
    if _names_of(running) != _names_of(wanted):  # a node that leaves goes from the one list to the other in one step
        wanted = dataclasses.replace(wanted, former_nodes=running.former_nodes)
        changes = [_at_restart(change) if change.path[0] == "former_nodes" else change for change in changes]
    taken = tuple(change for change in changes if change.live)
    config: Config = dataclasses.replace(_with_live(Config, running, wanted), principals=wanted.principals)
    draft = dataclasses.asdict(config)
    faults = configrules.check(draft, {change.path for change in taken}, {})
    if faults:
        raise ConfigError([f"{fault.line()}; or restart, to have the whole file taken" for fault in faults])
    return Plan(config, taken, tuple(change for change in changes if not change.live))


def _principals(running: Config, wanted: Config) -> Iterator[Change]:
    """What has changed in the tokens file, by names: whoever withdraws a token wants to read that it is so."""
    was, now = set(running.principals), set(wanted.principals)
    if was != now:
        gone, new = (_names(each) for each in (was - now, now - was))
        yield Change(("principals",), gone, new, live=True)


def _names_of(config: Config) -> set[str]:
    return {node.name for node in config.nodes}


def _at_restart(change: Change) -> Change:
    return dataclasses.replace(change, live=False)


def _names(principals: set[Principal]) -> str:
    names = sorted({each.name for each in principals})
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return f"[{', '.join(names[:SHOWN_NAMES])}{more}]"


def _changes(section: type, running: Any, wanted: Any, prefix: Path) -> Iterator[Change]:
    for key in keys_of(section):
        path, was, now = (*prefix, key.name), getattr(running, key.field), getattr(wanted, key.field)
        match key.kind:
            case Section() if (was is None) != (now is None):
                yield Change(path, _presence(was), _presence(now), live=False)
            case Section(of=of):
                if was is not None:
                    yield from _changes(of, was, now, path)
            case Sections() if len(was) != len(now):
                yield Change(path, key.kind.show(was), key.kind.show(now), key.kind.live)
            case Sections(of=of):
                same = _same_entries(key.kind, was, now)
                for index, (one, other) in enumerate(_paired(key.kind, was, now)):
                    for change in _changes(of, one, other, (*path, index)):
                        yield change if same else _at_restart(change)
            case kind if was != now:
                yield Change(path, kind.show(was), kind.show(now), kind.live)


def _presence(section: Any) -> str:
    return "left out" if section is None else "there"


def _with_live(section: type, running: Any, wanted: Any) -> Any:
    """``running`` with what is live from ``wanted``."""
    values = {}
    for key in keys_of(section):
        was, now = getattr(running, key.field), getattr(wanted, key.field)
        if isinstance(key.kind, Section):
            if was is None or now is None:
                continue  # whether an optional section is there is not live
            values[key.field] = _with_live(key.kind.of, was, now)
        elif isinstance(key.kind, Sections) and not key.kind.live:
            if _same_entries(key.kind, was, now):
                pairs = _paired(key.kind, was, now)
                values[key.field] = tuple(_with_live(key.kind.of, one, other) for one, other in pairs)
        elif key.kind.live:
            values[key.field] = now
    return dataclasses.replace(running, **values)


def _same_entries(kind: Sections, was: Sequence[Any], now: Sequence[Any]) -> bool:
    """Whether the lists are of the same things, in whatever order: what is live in each can be taken then."""
    if not kind.identity:
        return len(was) == len(now)
    return sorted(getattr(one, kind.identity) for one in was) == sorted(getattr(one, kind.identity) for one in now)


def _paired(kind: Sections, was: Sequence[Any], now: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Each entry that runs with the one that is wanted for it; by their places when the lists are of other things."""
    if kind.identity and _same_entries(kind, was, now):
        wanted = {getattr(one, kind.identity): one for one in now}
        return [(one, wanted[getattr(one, kind.identity)]) for one in was]
    return list(zip(was, now, strict=True))
