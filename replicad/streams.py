"""The standard streams of a daemon, however it was started. Imports nothing that starts slowly."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from replicad.errors import ExitCode


def fill() -> None:
    """Let those that whoever started us has closed (``2>&-``) go nowhere: else the next file or connection would have
    their descriptors, and get what a library writes to standard error."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest that is free: this one
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - open to the end, as they are
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def say(line: str) -> int:
    """A line on standard output, at once. Returns the exit code."""
    try:
        print(line, flush=True)
    except OSError as exc:
        descriptor = os.open(os.devnull, os.O_WRONLY)  # for what is left of it when the interpreter ends
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
        if exc.errno != errno.EPIPE:
            complain(f"replicad: standard output cannot be written: {exc.strerror}")
            return ExitCode.STORAGE
    return ExitCode.OK


def complain(text: str) -> None:
    """A line or more on standard error; where that can't be written, the exit code still tells."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stderr.fileno())
        os.close(descriptor)
