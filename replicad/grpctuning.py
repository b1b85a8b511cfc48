"""What our own programs ask of gRPC's C core, which reads it from the environment while ``grpc`` is imported.

Owns those settings. To be called before anything imports gRPC: later it changes nothing, and nobody is told. The
library leaves its host program's environment alone: only the commands call this.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from importlib.util import find_spec
from pathlib import Path

#: From 1.75 on, grpcio's Python runs on the EventEngine poller; a round trip on a stream took 210 us with it and 108 us
#: without (1.85.1, loopback). The names are known up to the release that was tried last.
_EVENT_ENGINE = ((1, 75), (1, 86))
_WITHOUT_EVENT_ENGINE = "-event_engine_client,-event_engine_listener"


def installed_version() -> str:
    """grpcio's version, found without importing it (importlib.metadata would take 25 ms); "" when it can't be told."""
    spec = find_spec("grpc")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        try:
            text = (Path(folder) / "_grpcio_metadata.py").read_text()
        except OSError:
            continue
        if found := re.search(r'__version__ = "+([^"]+)"', text):
            return found[1]
    return ""


def tune(env: MutableMapping[str, str], grpc_version: str) -> None:
    """Set what is not set: the quick poller, and no logging past our own log's format."""
    env.setdefault("GRPC_VERBOSITY", "NONE")
    first, beyond = _EVENT_ENGINE
    version = tuple(int(part) for part in grpc_version.split(".")[:2] if part.isdigit())
    if first <= version < beyond:
        env.setdefault("GRPC_EXPERIMENTS", _WITHOUT_EVENT_ENGINE)
