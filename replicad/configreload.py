"""What a reload makes of a changed config: which keys are taken while the node runs, and which need a restart.

Pure: the config that runs and the one in the file give a plan. Whether a key is taken is declared beside it, in
:mod:`replicad.config`. Must not know how a value gets to where it is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from replicad import configrules
from replicad.config import Config
from replicad.configkeys import Path, Section, Sections, keys_of, path_text
from replicad.errors import ConfigError


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
    changes = list(_changes(Config, running, wanted, ()))
    taken = tuple(change for change in changes if change.live)
    config: Config = _with_live(Config, running, wanted)
    draft = dataclasses.asdict(config)
    faults = configrules.check(draft, {change.path for change in taken}, {})
    if faults:
        raise ConfigError([f"{fault.line()}; or restart, to have the whole file taken" for fault in faults])
    return Plan(config, taken, tuple(change for change in changes if not change.live))


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
                yield Change(path, f"{len(was)} entries", f"{len(now)} entries", key.kind.live)
            case Sections(of=of):
                for index, (one, other) in enumerate(zip(was, now, strict=True)):
                    yield from _changes(of, one, other, (*path, index))
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
        elif key.kind.live:
            values[key.field] = now
    return dataclasses.replace(running, **values)
