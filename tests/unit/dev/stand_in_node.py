"""A node for tests of how processes are handled: it does at its start and at SIGTERM what its folder's `mode` says.

Modes are words: `ready` (the default without a file), `never-ready`, `dies`, `stubborn` (ignores SIGTERM).
It logs its arguments and the variables of its environment that matter.
"""

import os
import signal
import sys
from pathlib import Path

import sdnotify  # type: ignore[import-untyped]

config_file = Path(sys.argv[sys.argv.index("--config") + 1])
mode_file = config_file.parent / "mode"
modes = mode_file.read_text().split() if mode_file.exists() else ["ready"]
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

for name in ("AUTH_TOKEN", "PORT", "MACHINE_ID"):
    print(f"{name}={os.environ.get(name)}", flush=True)
notifier = sdnotify.SystemdNotifier(debug=True)
notifier.notify("STATUS=reading the log")
if "dies" in modes:
    sys.exit("the disk is on fire")
if "never-ready" not in modes:
    notifier.notify("READY=1")
while signal.sigwait({signal.SIGTERM}) and "stubborn" in modes:
    pass
