"""The ``replicad`` command, and ``python -m replicad``: SIGHUP first, then the standard streams, gRPC's environment,
and everything that imports it."""

from __future__ import annotations

import os
import signal
import sys

from replicad.hangup import Hangup


def main() -> int:
    """Run the command. Returns its exit code."""
    hangup = Hangup()
    try:
        from replicad import grpctuning, streams  # noqa: PLC0415 - what they import takes 20 ms

        streams.fill()
        grpctuning.tune(os.environ, grpctuning.installed_version())
        from replicad import app  # noqa: PLC0415 - gRPC reads its environment while it is imported

        return app.main(hangup=hangup)
    except KeyboardInterrupt:  # before the node takes the signal itself
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
