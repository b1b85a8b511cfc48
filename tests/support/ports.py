"""Ports for the nodes of tests, of this test process alone.

Owns who takes which. Beside others (``pytest -n``) a process keeps to a share of its own: the port of a node that is
down for a while looks free to all.
"""

from __future__ import annotations

import os

from replicad import dev
from replicad.dev.layout import TEST_PORTS

_SHARE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_SHARES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def free_ports(count: int) -> list[int]:
    """As :func:`replicad.dev.free_ports`."""
    return dev.free_ports(count, among=TEST_PORTS[_SHARE::_SHARES])
