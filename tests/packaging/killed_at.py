"""Run a playbook and kill it, with all that it started here, as it comes to a task: a power cut of the controller.

    python killed_at.py TASK TIME COMMAND...

TASK is a task's name, TIME which of its banners is meant, from 1. What the command prints is passed on. Ends with 0
when it was killed, and with 1 when it ended before. Must not know what the playbook is for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys


def main(task: str, time: int, command: list[str]) -> int:
    """Kill the command at the ``time``-th banner of ``task``; 0 when it came to that."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, text=True) as playbook:
        assert playbook.stdout is not None
        for line in playbook.stdout:
            print(line, end="", flush=True)
            time -= line.startswith("TASK [") and line.partition("]")[0].removeprefix("TASK [").endswith(task)
            if time == 0:
                os.killpg(playbook.pid, signal.SIGKILL)
                return 0
    print(f"it ended before it came to the task {task!r}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
