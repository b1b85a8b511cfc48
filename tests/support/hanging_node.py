"""The daemon with a disk, or an event loop, that hangs when a test says so: the real thing but for that.

While the file ``hang`` stands beside the config, a transaction does not come to its end. From SIGUSR1 on the event loop
does nothing more, while all other threads live.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from replicad import app
from replicad.core.batch import Append
from replicad.storage.sqlite import SqliteStore

LOOK_AGAIN_S = 0.01


class HangingStore(SqliteStore):
    """The real store on a disk that hangs."""

    def append(self, appends: Sequence[Append], *, commit_size: int) -> None:
        hang = Path(sys.argv[-1]).with_name("hang")
        while hang.exists():
            time.sleep(LOOK_AGAIN_S)
        super().append(appends, commit_size=commit_size)


def hang_for_ever(number: int, frame: object) -> None:
    """A handler runs in the main thread, which is the loop's."""
    del number, frame
    while True:
        time.sleep(60)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, hang_for_ever)
    app.SqliteStore = HangingStore  # type: ignore[attr-defined]
    sys.exit(app.main())
