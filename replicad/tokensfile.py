"""The tokens file: read for the daemon, changed by `replicad-cli tokens`.

Owns the file's rights, its lock, and how an edit keeps what people wrote into it. What its keys mean is
:mod:`replicad.access`'s. It holds hashes of tokens and no secret, but whoever may write it decides who gets in.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from replicad import access
from replicad.access import Principal, time_text
from replicad.config import Config
from replicad.configfile import FILE_BYTES, fault_lines, parse_yaml
from replicad.errors import ConfigError, OperatorError
from replicad.files import read_with_stat, replace_whole, take_lock

MODE = 0o640  # root's to write, the daemon's group to read
_FORBIDDEN = stat.S_IWGRP | stat.S_IRWXO
_MAKE = "make it: replicad-cli tokens create NAME --role ROLE --file FILE"
_HEAD = """\
# Who may call: names, roles, and hashes of tokens. Changed by `replicad-cli tokens create` and `revoke`, or by hand; a
# reload of the daemon takes it.
principals:
"""


def with_principals(config: Config) -> Config:
    """The config with what its tokens file holds. Raises ConfigError with every fault of that file."""
    return replace(config, principals=load_named(config.tokens_file, nodes=[node.name for node in config.nodes]))


def load_named(path: str, *, nodes: Sequence[str]) -> tuple[Principal, ...]:
    """All entries of the file that a config with these nodes names, none where it names none. Raises ConfigError with
    every fault of that file."""
    return _parse(Path(path), _read(Path(path)), nodes) if path else ()


def load(path: Path) -> tuple[Principal, ...]:
    """All entries of the file. Raises ConfigError."""
    return load_named(str(path), nodes=())


def _parse(path: Path, text: str, nodes: Sequence[str]) -> tuple[Principal, ...]:
    document = parse_yaml(path, text)
    principals, faults = access.parse(document.value, nodes=nodes)
    if lines := fault_lines(path, document, faults):
        raise ConfigError(lines)
    return principals


def _read(path: Path) -> str:
    """The file's text, once its rights are seen to be good."""
    try:
        found, content = read_with_stat(path, at_most=FILE_BYTES + 1)
    except FileNotFoundError as exc:
        raise ConfigError([f"{path}: no such tokens file; {_MAKE}, or correct tokens_file"]) from exc
    except OSError as exc:
        remedy = "it must be a file that the daemon's user may read"
        raise ConfigError([f"{path}: cannot be read ({exc.strerror}); {remedy}"]) from exc
    _check_rights(path, found)
    if len(content) > FILE_BYTES:
        raise ConfigError([f"{path}: has more than {FILE_BYTES} bytes; is it the right file?"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigError([f"{path}: is not UTF-8 text; save the file as UTF-8"]) from exc


def _check_rights(path: Path, found: os.stat_result) -> None:
    """Raises ConfigError."""
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError([f"{path}: is not a regular file; let tokens_file name the file itself"])
    if found.st_mode & _FORBIDDEN:
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        raise ConfigError(
            [f"{path}: its group may write it, or others have rights to it (mode {mode}); chmod 640 {path}"]
        )
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError([f"{path}: belongs to user {found.st_uid}, who could let in anybody; chown root {path}"])


# --- changing it --------------------------------------------------------------------------------------------------


def add(path: Path, principal: Principal) -> None:
    """Add an entry; the file is made where there is none. Raises ConfigError when the result would have a fault."""
    with _locked(path):
        text = _read(path) if path.exists() else f"{_HEAD}  []\n"
        _replace(path, _added(path, text, principal))


def remove(path: Path, name: str, *, keep_newest: bool = False) -> int:
    """Remove the entries of that name, with ``keep_newest`` all but the last in the file. Returns how many."""
    with _locked(path):
        text = _read(path)
        entries = _parse(path, text, [])
        gone = [index for index, entry in enumerate(entries) if entry.name == name]
        if keep_newest:
            gone = gone[:-1]
        if gone:
            _replace(path, _without(path, text, entries, gone))
        return len(gone)


def _added(path: Path, text: str, principal: Principal) -> str:
    entries = _parse(path, text, [])
    wanted = (*entries, principal)
    block = re.sub(r"(?m)^principals:\s*(?:\[\s*\])?[ \t]*$", "principals:", text) if not entries else text
    indent = " " * (_item_column(text) if entries else 2)
    edited = f"{block.rstrip()}\n{indent}- {f'{chr(10)}{indent}  '.join(_lines(principal))}\n"
    return _checked(path, edited, wanted)


def _without(path: Path, text: str, entries: Sequence[Principal], gone: Sequence[int]) -> str:
    wanted = tuple(entry for index, entry in enumerate(entries) if index not in gone)
    lines, items = text.splitlines(keepends=True), _items(text)
    for index in reversed(gone):
        del lines[items[index].start_mark.line : _last_line(items[index]) + 1]
    edited = "".join(lines)
    if not wanted:
        edited = re.sub(r"(?m)^principals:[ \t]*$", "principals: []", edited)
    return _checked(path, edited, wanted)


def _checked(path: Path, edited: str, wanted: tuple[Principal, ...]) -> str:
    """The edited text when it says what is wanted; else, where people wrote the file in another form, a new one."""
    with contextlib.suppress(ConfigError):
        if _parse(path, edited, []) == wanted:
            return edited
    items = "".join(f"  - {f'{chr(10)}    '.join(_lines(each))}\n" for each in wanted)
    fresh = f"{_HEAD}{items or '  []' + chr(10)}"
    if _parse(path, fresh, []) != wanted:
        raise OperatorError(f"{path}: could not be changed; change it by hand")
    return fresh


def _lines(principal: Principal) -> list[str]:
    """An entry as the file has it."""
    lines = [
        f"name: {principal.name}",
        f"roles: [{', '.join(role for role in access.Role if role in principal.roles)}]",
    ]
    lines.append(f"hash: {principal.hash}" if principal.hash else f"certificate: {principal.certificate}")
    if principal.expires_at:
        lines.append(f"expires: {time_text(principal.expires_at)}")
    if principal.rate:
        lines.append(f"rate: {principal.rate}")
    if principal.rate_bytes:
        lines.append(f"rate_bytes: {principal.rate_bytes}")
    return lines


def _items(text: str) -> list[yaml.Node]:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == "principals" and isinstance(value, yaml.SequenceNode):
            return list(value.value)
    return []


def _item_column(text: str) -> int:
    """How far the dash of an entry is indented."""
    line = text.splitlines()[_items(text)[0].start_mark.line]
    return len(line) - len(line.lstrip())


def _last_line(node: yaml.Node) -> int:
    """Of what the node itself holds: comments behind it belong to what follows."""
    if isinstance(node, yaml.MappingNode):
        return max(_last_line(part) for pair in node.value for part in pair)
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return max(map(_last_line, node.value))
    end: int = node.end_mark.line
    return end


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One change at a time, by a lock file beside it: the file itself is replaced."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        descriptor = take_lock(lock)
    except FileNotFoundError as exc:
        raise OperatorError(f"{path}: its folder does not exist; make it: mkdir -p {path.parent}") from exc
    except OSError as exc:
        raise OperatorError(f"{path}: cannot be changed ({exc.strerror}: {lock}); do it as the file's owner") from exc
    try:
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    """Put the text there; owner, group and mode stay, and a new file is its folder's group's."""
    try:
        if path.exists():
            found = path.stat()
            mode, owner = stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid)
        else:
            mode, owner = MODE, (-1, path.parent.stat().st_gid)
        replace_whole(path, text.encode(), mode=mode, owner=owner)
    except OSError as exc:
        raise OperatorError(f"{path}: cannot be written ({exc.strerror}); do it as the file's owner") from exc
