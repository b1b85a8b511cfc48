"""The ``replicad`` command, and ``python -m replicad``: gRPC's environment first, then everything that imports it."""

from __future__ import annotations

import os
import sys

from replicad import grpctuning


def main() -> int:
    """Run the command. Returns its exit code."""
    grpctuning.tune(os.environ, grpctuning.installed_version())
    from replicad import app  # noqa: PLC0415 - gRPC reads its environment while it is imported

    return app.main()


if __name__ == "__main__":
    sys.exit(main())
