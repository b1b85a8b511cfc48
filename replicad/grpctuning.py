"""What our own programs ask of gRPC's C core, which reads it from the environment when it starts.

Owns those settings. The library leaves its host program's environment alone: only the commands call this.
"""

from __future__ import annotations

from collections.abc import MutableMapping

#: From 1.75 on, grpcio's Python runs on the EventEngine poller; a round trip on a stream took 210 us with it and 108 us
#: without (1.85.1, loopback). The names are known up to the release that was tried last.
_EVENT_ENGINE = ((1, 75), (1, 86))
_WITHOUT_EVENT_ENGINE = "-event_engine_client,-event_engine_listener"


def tune(env: MutableMapping[str, str], grpc_version: str) -> None:
    """Set what is not set: the quick poller, and no logging past our own log's format."""
    env.setdefault("GRPC_VERBOSITY", "NONE")
    first, beyond = _EVENT_ENGINE
    version = tuple(int(part) for part in grpc_version.split(".")[:2] if part.isdigit())
    if first <= version < beyond:
        env.setdefault("GRPC_EXPERIMENTS", _WITHOUT_EVENT_ENGINE)
