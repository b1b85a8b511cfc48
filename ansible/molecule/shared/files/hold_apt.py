"""Hold the lock of apt's folder of downloads, as unattended-upgrades does, until an apt-get install has met it."""

import fcntl
import time
from pathlib import Path

LOCK = Path("/var/cache/apt/archives/lock")
TRIES = 2  # who comes once more waits for it


def installing() -> set[str]:
    """The processes that are an apt-get install."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().split(b"\0")[:2] == [b"apt-get", b"install"]:
                found.add(path.parent.name)
        except OSError:  # it has ended meanwhile
            continue
    return found


with LOCK.open("a") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    met: set[str] = set()
    while len(met) < TRIES:
        met |= installing()
        time.sleep(0.01)
