"""Fernet keys, with which clients encrypt payloads end to end: made, and read from files and the environment.

Owns the key file: a key a line, newest first, ``#`` begins a comment, for its owner's eyes alone. What is done with the
keys, :mod:`replicad.client.encryption` owns; nodes never see one. Never puts a key into an error.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from cryptography.fernet import Fernet

from replicad import keys
from replicad.errors import KeyFileError
from replicad.files import read_with_stat

KEY_VARIABLE = "FERNET_KEY"
FILE_VARIABLE = "REPLICAD_FERNET_KEY_FILE"
MAKE = "replicad-cli keys generate-fernet"

MAX_KEYS = 64  # each is tried on a record that none fits; a key a month lasts five years

# https://github.com/fernet/spec: 32 bytes in the base64url alphabet, padded
_KEY = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]=")


def generate() -> str:
    """A new key."""
    return Fernet.generate_key().decode()


def write_new_file(path: Path, key: str) -> None:
    """Write a key file with this key. It appears whole, with mode 0600, or not at all. KeyFileError when ``path``
    exists (nothing is ever overwritten: what a lost key has encrypted is lost for good), or when it can't be written.
    """
    try:
        keys.write_new(path, [f"{key}\n".encode()])
    except FileExistsError as exc:
        raise KeyFileError(
            f"{path} exists and is never overwritten; give another path, or add the new key to it as the first line"
        ) from exc
    except FileNotFoundError as exc:
        raise KeyFileError(f"{path}: its folder does not exist; make it: mkdir -p {path.parent}") from exc
    except OSError as exc:
        raise KeyFileError(f"{path}: cannot be written ({exc.strerror}); give a path that you may write to") from exc


def checked(given: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The keys, each once, in their order. ``given`` are pairs: where a key stands, the key. Raises KeyFileError."""
    found: dict[str, None] = {}
    for where, key in given:
        if not isinstance(key, str) or _KEY.fullmatch(key) is None:
            raise KeyFileError(f"{where} is not a Fernet key (44 characters of base64url); make one: {MAKE}")
        found[key] = None
    if len(found) > MAX_KEYS:
        raise KeyFileError(f"there are {len(found)} Fernet keys, at most {MAX_KEYS} are used; leave out the oldest")
    return tuple(found)


def from_file(path: str | Path, *, env: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The keys in a key file, newest first. It is refused when group or others have any right to it. Raises
    KeyFileError with the line and the remedy."""
    path = Path(path)
    try:
        found, content = read_with_stat(path, at_most=keys.FILE_BYTES)
    except FileNotFoundError as exc:
        raise KeyFileError(f"{path}: no such key file; make one: {MAKE} --out {path}") from exc
    except OSError as exc:
        raise KeyFileError(f"{path}: cannot be read ({exc.strerror}); it must belong to you") from exc
    mode = found.st_mode
    if not stat.S_ISREG(mode):
        raise KeyFileError(f"{path}: is not a regular file; name the key file itself")
    if keys.rights_beyond_owner(path, mode, env):
        raise KeyFileError(
            f"{path}: group or others have rights to it (mode {stat.S_IMODE(mode):04o});"
            f" chmod 600 {path}, and put a new key in front if anybody may have read it"
        )
    if len(content) >= keys.FILE_BYTES:
        raise KeyFileError(f"{path}: has {keys.FILE_BYTES} bytes or more, no key file of at most {MAX_KEYS} keys has")
    lines = content.decode("latin-1").splitlines()
    stripped = [(number, line.partition("#")[0].strip()) for number, line in enumerate(lines, start=1)]
    found_keys = checked((f"{path}: line {number}", line) for number, line in stripped if line)
    if not found_keys:
        raise KeyFileError(f"{path}: holds no key; make one: {MAKE}")
    return found_keys


def from_text(text: str, where: str) -> tuple[str, ...]:
    """The keys in a text, newest first, with commas between. Raises KeyFileError, naming ``where`` it came from."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1:
        return checked([(where, parts[0])])
    return checked((f"{where}: key {number} of {len(parts)}", part) for number, part in enumerate(parts, start=1))


def from_environment(env: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The keys of FERNET_KEY, or of the file that REPLICAD_FERNET_KEY_FILE names; () when neither is set. Raises
    KeyFileError, also when both are."""
    text, path = env.get(KEY_VARIABLE, ""), env.get(FILE_VARIABLE, "")
    if text and path:
        raise KeyFileError(f"{KEY_VARIABLE} and {FILE_VARIABLE} are both set; unset one of them")
    if text:
        return from_text(text, KEY_VARIABLE)
    return from_file(path, env=env) if path else ()
