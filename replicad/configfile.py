"""Reads the config file: YAML whose every key and value keeps its line, so that each fault can name it.

Owns the file and the YAML; what keys mean is :mod:`replicad.config`'s. Stricter than YAML where YAML surprises: a key
that stands twice in a mapping is a fault, and so is an alias.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from replicad import configkeys
from replicad.config import Config, Found, explore
from replicad.configkeys import Fault, path_part
from replicad.errors import ConfigError
from replicad.keys import TLS_CREDENTIAL, credential_file

FILE_BYTES = 1 << 20  # a config of 31 nodes has about 10 KiB; YAML takes some 100 times its size in memory

_EXAMPLE = "begin with the example, packaging/examples/replicad.yaml (in a package: /usr/share/doc/replicad/examples)"
_PLACEHOLDER = "+PUT-THE-LINE-"  # in the example, where a public key belongs
_BARE_IPV6 = re.compile(r"[:\s]\s*\[[^\]\s]*:[^\]\s]*\]:\d")  # without quotes, YAML takes the brackets for a list's
_STANDARD_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def load(path: str | Path, env: Mapping[str, str] = os.environ, *, signs: bool = True, dials: bool = True) -> Config:
    """The config in the file at ``path``, under the overrides in ``env``; see :func:`replicad.config.parse`.

    Relative paths in it count from the file's folder. A key that systemd hands in as a credential comes before ``key``.
    ``signs=False`` is for who needs no ``key``, ``dials=False`` for who needs no ``tls.key``: it may be missing then.
    Raises ConfigError with all faults at once, each a line like
    ``/etc/replicad.yaml:12: nodes[1].address: what is wrong; the remedy``; also for a file that is missing, can't be
    read or is not YAML.
    """
    reading = read(path, env, signs=signs, dials=dials)
    if reading.config is None:
        raise ConfigError(reading.faults)
    return reading.config


def read(path: str | Path, env: Mapping[str, str] = os.environ, *, signs: bool = True, dials: bool = True) -> Reading:
    """As :func:`load`, but gives the faults of the config's values, for who has more to look at. Raises ConfigError for
    a file that has no values at all."""
    path = Path(path)
    document = parse_yaml(path, _read(path))
    if document.value is None:
        raise ConfigError([f"{path}: is empty; {_EXAMPLE}"])
    if _is_example(document.value):
        raise ConfigError(
            [
                f"{path}: is still the example: edit it, make this node's key with `replicad-cli keys generate NODE`, "
                "put each node's public line under nodes, then start"
            ]
        )
    config, faults, found = explore(
        document.value,
        env=env,
        credential=credential_file(env) or ("" if signs else os.devnull),
        tls_credential=credential_file(env, TLS_CREDENTIAL) or ("" if dials else os.devnull),
    )
    lines = fault_lines(path, document, faults)
    folder = path.absolute().parent
    return Reading(
        path,
        document,
        None if lines or config is None else _beside(config, folder),
        lines,
        _found_beside(found, folder),
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """A config's file. ``config`` is None where there are ``faults``, each a line; ``found`` is what is good
    nonetheless. Paths in both are absolute."""

    path: Path
    document: Document
    config: Config | None
    faults: list[str]
    found: Found

    def place(self, key: configkeys.Path) -> str:
        """The file, and the line where it has that key; where it has none (a credential, say), the file alone."""
        place = self.document.places.get(key)
        return str(self.path) if place is None else f"{self.path}:{place.value_line}"


def _beside(config: Config, folder: Path) -> Config:
    """With paths that count from the folder."""
    tls = config.tls
    if tls is not None:
        certificate, key_file, ca = (str(folder / each) for each in (tls.certificate, tls.key_file, tls.ca))
        tls = replace(tls, certificate=certificate, key_file=key_file, ca=ca)
    return replace(
        config,
        data_dir=str(folder / config.data_dir),
        key_file=str(folder / config.key_file),
        tls=tls,
        tokens_file=str(folder / config.tokens_file) if config.tokens_file else "",
    )


def _found_beside(found: Found, folder: Path) -> Found:
    files = found.tls_files
    return replace(
        found,
        key_file=str(folder / found.key_file) if found.key_file else "",
        tls_files=files and (str(folder / files[0]), str(folder / files[1]), str(folder / files[2])),
        tokens_file=str(folder / found.tokens_file) if found.tokens_file else "",
    )


def fault_lines(path: Path, document: Document, faults: Iterable[Fault]) -> list[str]:
    """YAML's own faults in the document and these, one line each with its place, in the order of the file."""
    told = {fault.path for _, fault in document.faults}
    located = [*document.faults, *((_line_of(fault, document), fault) for fault in faults if fault.path not in told)]
    located.sort(key=lambda line_and_fault: line_and_fault[0])
    return [fault.line("" if fault.variable else f"{path}:{line}") for line, fault in located]


def _is_example(value: object) -> bool:
    """Whether not one public key has been filled in: then nothing else there is worth a line."""
    nodes = value.get("nodes") if isinstance(value, Mapping) else None
    lines = [node.get("public_key") for node in nodes if isinstance(node, Mapping)] if isinstance(nodes, list) else []
    return bool(lines) and all(isinstance(line, str) and _PLACEHOLDER in line for line in lines)


@dataclass(frozen=True, slots=True)
class _Place:
    key_line: int
    value_line: int


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML file holds, and where in it."""

    value: object
    places: Mapping[configkeys.Path, _Place]
    faults: list[tuple[int, Fault]]  # what YAML allows and we do not, with lines


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    except FileNotFoundError as exc:
        raise ConfigError([f"{path}: no such file; name another with --config, or {_EXAMPLE}"]) from exc
    except OSError as exc:
        remedy = "it must be a file that the daemon's user may read"
        raise ConfigError([f"{path}: cannot be read ({exc.strerror}); {remedy}"]) from exc
    if len(content) > FILE_BYTES:
        raise ConfigError([f"{path}: has more than {FILE_BYTES} bytes; is it the right file? {_EXAMPLE}"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ConfigError([f"{path}:{line}: is not UTF-8 text; save the file as UTF-8"]) from exc


def parse_yaml(path: Path, text: str) -> Document:
    """The values in a YAML text, with the line of each; ``path`` is for what is said of it. Raises ConfigError."""
    try:
        loader = _Loader(text)  # looks at the text's characters already
        root = loader.get_single_node()
        return Document(None, {}, []) if root is None else _Walk(loader).document(root)
    except yaml.MarkedYAMLError as exc:
        raise ConfigError([_syntax_fault(path, text, exc)]) from exc
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise ConfigError([f"{path}:{line}: holds a character that YAML does not allow; remove it"]) from exc
    except RecursionError as exc:
        raise ConfigError([f"{path}: is nested too deeply; {_EXAMPLE}"]) from exc


def _syntax_fault(path: Path, text: str, exc: yaml.MarkedYAMLError) -> str:
    context = exc.context or ""
    # the scanner notices an open quote or a missing colon only where the text ends; the fault is where it began
    scanning = exc.context_mark if context.startswith("while scanning") else None
    mark = scanning or exc.problem_mark or exc.context_mark
    place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
    if exc.context_mark and not scanning:
        context += f" that begins in line {exc.context_mark.line + 1}"
    problem = exc.problem or "cannot be read"
    remedy = "look at the indentation, colons and quotes there"
    if "\\t" in problem:
        remedy = "indent with spaces, not tabs"
    elif mark and any(map(_BARE_IPV6.search, text.split("\n")[mark.line : mark.line + 1])):
        remedy = 'put an IPv6 address in quotes, as in "[::1]:50052"'
    return f"{place}: not valid YAML: {' '.join((problem, context)).strip()}; {remedy}"


def _line_of(fault: Fault, document: Document) -> int:
    if fault.variable:
        return sys.maxsize  # the environment's come last
    place = document.places.get(fault.path)
    if place is None:
        return _nearest_line(document, fault.path[:-1])
    return place.key_line if fault.on_key else place.value_line


def _nearest_line(document: Document, path: configkeys.Path) -> int:
    """Where the section stands that lacks a key; the first line when it is not there itself."""
    while path:
        if path in document.places:
            return document.places[path].key_line
        path = path[:-1]
    return 1


class _Loader(yaml.SafeLoader):
    """SafeLoader that notes aliases instead of following them: a few of them make gigabytes, or a loop."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.alias_marks: list[tuple[yaml.Node, str]] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if not self.check_event(yaml.AliasEvent):
            return super().compose_node(parent, index)
        event = self.get_event()  # type: ignore[no-untyped-call]  # a gap in the stubs
        node = yaml.ScalarNode("tag:yaml.org,2002:null", "", event.start_mark, event.end_mark)
        self.alias_marks.append((node, event.anchor))
        return node


class _Walk:
    """Turns YAML nodes into plain values, and keeps the line of each."""

    def __init__(self, loader: _Loader) -> None:
        self.loader = loader
        self.aliases = {id(node): name for node, name in loader.alias_marks}
        self.places: dict[configkeys.Path, _Place] = {}
        self.faults: list[tuple[int, Fault]] = []

    def document(self, root: yaml.Node) -> Document:
        self.places[()] = _Place(1, 1)
        return Document(self._value(root, ()), self.places, self.faults)

    def _value(self, node: yaml.Node, path: configkeys.Path) -> object:
        if id(node) in self.aliases:
            self._fault(node, path, f"is the YAML alias *{self.aliases[id(node)]}", "write the value out")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in _STANDARD_TAGS:
            self._fault(node, path, f"has the YAML tag {node.tag!a}", "remove the tag, and write the plain value")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]

    def _item(self, node: yaml.Node, path: configkeys.Path) -> object:
        line = node.start_mark.line + 1
        self.places[path] = _Place(line, line)
        return self._value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: configkeys.Path) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            name = path_part(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            key_line = key_node.start_mark.line + 1
            if name in values:
                first = self.places[(*path, name)].key_line
                self._fault(key_node, (*path, name), f"stands in line {first} already", "keep one of the two")
                continue
            self.places[(*path, name)] = _Place(key_line, value_node.start_mark.line + 1)
            values[name] = self._value(value_node, (*path, name))
        return values

    def _scalar(self, node: yaml.ScalarNode, path: configkeys.Path) -> object:
        try:
            return self.loader.construct_object(node)
        except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError):
            # PyYAML lets whatever int(), datetime() and the like raise pass through
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            self._fault(node, path, f"can't be read as YAML's {kind!a}", "write a plain value; put text in quotes")
            return None

    def _fault(self, node: yaml.Node, path: configkeys.Path, wrong: str, remedy: str) -> None:
        self.faults.append((node.start_mark.line + 1, Fault(path, wrong, remedy)))
