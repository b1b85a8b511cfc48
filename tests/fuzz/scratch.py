"""A folder of this process's own, for the parsers that read files; gone when the process ends."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

_held: list[tempfile.TemporaryDirectory[str]] = []


@cache
def scratch() -> Path:
    """The folder, the same at every call."""
    _held.append(tempfile.TemporaryDirectory(prefix="replicad-fuzz-"))
    return Path(_held[0].name)
