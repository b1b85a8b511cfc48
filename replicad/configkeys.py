"""The keys of a config's section, and the walk over a mapping that reads them: strict, with every fault kept.

A section is a dataclass whose fields are annotated with a :class:`~replicad.configvalues.Key` each. Must not know
which sections there are: those are in :mod:`replicad.config`. Reads no file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

from replicad.configvalues import SHOWN_CHARS, Bad, Key, did_you_mean, private_key_inside, shown

Path = tuple[str | int, ...]  # of a value in the config: ("nodes", 1, "public_key")
Draft = dict[str, Any]  # a section's values by field: read and good, or their defaults; what is faulty is absent


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a config, with what to do about it."""

    path: Path
    wrong: str
    remedy: str
    on_key: bool = False  # the key itself is at fault, not its value
    variable: str = ""  # the environment variable at fault; ``path`` is empty then

    def line(self, place: str = "") -> str:
        """The fault as one line; ``place`` is the file and line number, where they are known."""
        where = f"environment {self.variable}" if self.variable else path_text(self.path)
        return ": ".join(part for part in (place, where, f"{self.wrong}; {self.remedy}") if part)


@dataclass(frozen=True, slots=True)
class Section(Key):
    """A mapping with the keys of the dataclass ``of``; an ``optional`` one that is left out is None, not defaults."""

    of: type = object
    optional: bool = False

    def form(self) -> str:
        return f"a mapping of {key_list(self.of)}"


@dataclass(frozen=True, slots=True)
class Sections(Key):
    """A list of ``at_least``..``at_most`` mappings with the keys of the dataclass ``of``.

    ``identity`` is the field that tells which entry is which, where their order does not.
    """

    of: type = object
    at_least: int = 1
    at_most: int = 1
    identity: str = ""

    def show(self, value: Any) -> str:
        return "1 entry" if len(value) == 1 else f"{len(value)} entries"

    def form(self) -> str:
        return f"a list of {self.at_least} to {self.at_most}, each with {key_list(self.of)}"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key of the config as the file has it."""

    name: str
    field: str
    kind: Key
    required: bool
    default: Any  # None where there is none


@cache
def keys_of(section: type) -> tuple[KeyInfo, ...]:
    """The keys of a section's dataclass: its fields that are annotated with a Key. Others can't be set in the file."""
    hints = get_type_hints(section, include_extras=True)
    keys = []
    for field in dataclasses.fields(section):
        kinds = [kind for kind in getattr(hints[field.name], "__metadata__", ()) if isinstance(kind, Key)]
        for kind in kinds:
            name = kind.name or field.name.removesuffix(kind.suffix)
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            default = None if field.default is dataclasses.MISSING else field.default
            keys.append(KeyInfo(name, field.name, kind, required, default))
    return tuple(keys)


def walk_keys(section: type, prefix: Path = ()) -> Iterator[tuple[Path, KeyInfo]]:
    """Every key with its path, sections before what they hold; a list's items stand under the path part 0."""
    for key in keys_of(section):
        path = (*prefix, key.name)
        yield path, key
        match key.kind:
            case Section(of=of):
                yield from walk_keys(of, path)
            case Sections(of=of):
                yield from walk_keys(of, (*path, 0))


class Reader:
    """Reads sections into drafts and collects every fault on the way; ``given`` gains the path of every key it meets.

    ``refused`` has keys that are never to stand in the file, wherever they do, each with its Bad.
    """

    def __init__(self, root: type, *, refused: Mapping[str, Bad]) -> None:
        self.root = root
        self.refused = refused
        self.faults: list[Fault] = []
        self.given: set[Path] = set()

    def section(self, of: type, value: object, path: Path) -> Draft:
        """The draft of the section at ``path``; None, an empty section in YAML, has all its defaults."""
        if value is not None and not isinstance(value, Mapping):
            self.faults.append(Fault(path, f"is {shown(value)}, not a mapping", f"write {key_list(of)} under it"))
            return {}
        given = {path_part(name): item for name, item in (value or {}).items()}
        known = {key.name: key for key in keys_of(of)}
        self._report_unknown(given, known, path)
        draft: Draft = {}
        for name, key in known.items():
            if name in given:
                self.given.add((*path, name))
                self._read(key, given[name], (*path, name), draft)
            elif key.required:
                self.faults.append(Fault((*path, name), "is missing", f"add it: {key.kind.doc}", on_key=True))
            elif isinstance(key.kind, Section) and not key.kind.optional:
                draft[key.field] = self.section(key.kind.of, None, (*path, name))
            else:
                draft[key.field] = key.default
        return draft

    def _read(self, key: KeyInfo, value: object, path: Path, draft: Draft) -> None:
        match key.kind:
            case Section(of=of):
                draft[key.field] = self.section(of, value, path)
            case Sections():
                draft[key.field] = self._list(key.kind, value, path)
            case kind:
                result = Bad("has no value", "give one, or remove the key") if value is None else kind.read(value)
                if isinstance(result, Bad):
                    self.faults.append(Fault(path, result.wrong, result.remedy))
                else:
                    draft[key.field] = result

    def _list(self, kind: Sections, value: object, path: Path) -> list[Draft]:
        if not isinstance(value, list | tuple) or not kind.at_least <= len(value) <= kind.at_most:
            wrong = f"has {kind.show(value)}" if isinstance(value, list | tuple) else f"is {shown(value)}, not a list"
            allowed = f"list {kind.at_least} to {kind.at_most}, each with {key_list(kind.of)}"
            self.faults.append(Fault(path, wrong, allowed))
            return []
        return [self.section(kind.of, {} if item is None else item, (*path, n)) for n, item in enumerate(value)]

    def _report_unknown(self, given: Mapping[str, object], known: Mapping[str, KeyInfo], path: Path) -> None:
        for name, value in given.items():
            if name in known:
                continue
            refused = self.refused.get(name.lower().replace("-", "_"))
            refused = refused or private_key_inside(value) or Bad("no such key", self._suggestion(name, known))
            self.faults.append(Fault((*path, name), refused.wrong, refused.remedy, on_key=True))

    def _suggestion(self, name: str, known: Mapping[str, KeyInfo]) -> str:
        near = did_you_mean(name, tuple(known))
        elsewhere = [path_text(path) for path, _ in walk_keys(self.root) if path[-1] == name]
        if elsewhere and not near:
            near = f"did you mean {' or '.join(elsewhere)}?"
        return near or f"remove it; known here are {', '.join(known)}"


def build(section: type, draft: Draft) -> Any:
    """The dataclass ``section`` from a draft that had no fault."""
    values = dict(draft)
    for key in keys_of(section):
        match key.kind:
            case Section(of=of) if values[key.field] is not None:
                values[key.field] = build(of, values[key.field])
            case Sections(of=of):
                values[key.field] = tuple(build(of, item) for item in values[key.field])
    return section(**values)


# --- paths -------------------------------------------------------------------------------------------------------


def path_part(key: object) -> str:
    """A key as it stands in a path: also one that is not text, as YAML allows, or not printable."""
    return key if isinstance(key, str) and key.isprintable() and 0 < len(key) <= SHOWN_CHARS else shown(key)


def path_text(path: Path) -> str:
    """nodes[1].public_key"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def key_list(section: type) -> str:
    return ", ".join(key.name for key in keys_of(section))
