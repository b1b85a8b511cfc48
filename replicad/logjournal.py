"""The journal: whether standard error is it, and log records with fields of their own there (journalctl PEER=node-2).

Owns the fields' names and priorities (systemd.journal-fields(7)). The native protocol is python3-systemd's, where that
is installed; without it lines go to standard error with their priority in front (sd-daemon(3)), and have no fields.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import TextIO

from replicad.logevents import CRITICAL, EVENTS

IDENTIFIER = "replicad"
Send = Callable[..., object]  # sendv("NAME=value", ...)

_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))
_CRITICAL = 2
_TAKEN = frozenset({"MESSAGE", "MESSAGE_ID", "PRIORITY", "EVENT", "LOGGER"})


def is_journal(stream: TextIO, env: Mapping[str, str] = os.environ) -> bool:
    """Whether ``stream`` is connected to the journal: JOURNAL_STREAM has its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return env.get("JOURNAL_STREAM", "") == f"{status.st_dev}:{status.st_ino}"


def native_send() -> Send | None:
    """What sends fields to the journal; None where python3-systemd is not installed."""
    try:
        from systemd import journal  # noqa: PLC0415 - optional
    except ImportError:
        return None
    send: Send = journal.sendv
    return send


def priority(record: logging.LogRecord) -> int:
    """The syslog priority."""
    if getattr(record, "replicad_event", "") in CRITICAL:
        return _CRITICAL
    return next((number for level, number in _PRIORITIES if record.levelno >= level), _PRIORITIES[-1][1])


def journal_fields(record: logging.LogRecord, message: str, values: Mapping[str, object]) -> list[str]:
    """A record as NAME=value, ``values`` being what the event's line has; None is no value."""
    event: str = getattr(record, "replicad_event", "library")
    fields = {
        "MESSAGE": message,
        "PRIORITY": str(priority(record)),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "EVENT": event,
        "LOGGER": record.name,
    }
    if event in EVENTS:
        fields["MESSAGE_ID"] = EVENTS[event].message_id
    for name, value in values.items():
        if value is not None:
            fields[_field_name(name)] = str(value).lower() if isinstance(value, bool) else str(value)
    return [f"{name}={value}" for name, value in fields.items()]


def _field_name(name: str) -> str:
    """A valid name: letters, digits, underscores, a letter first; not one that says something else already."""
    upper = re.sub(r"[^A-Z0-9_]", "_", name.upper()).lstrip("_0123456789")[:60] or "FIELD"
    return f"{upper}_" if upper in _TAKEN else upper
