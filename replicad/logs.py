"""The daemon's log: to standard error, one line an event, as key=value pairs (logfmt) or as JSON; with fields of their
own where that is the journal (:mod:`replicad.logjournal`).

Owns the format and the levels. It sits on the standard ``logging``, so what grpc, asyncio and Python's warnings log
comes out in the same form. It never dumps an object: a field is a plain value that its caller chose, and whatever
else is given shows as its type's name alone, so that no key, token or payload gets out by accident.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from enum import Enum
from typing import TextIO

from replicad.logjournal import Send, is_journal, journal_fields, native_send, priority
from replicad.logrepeats import Repeats

Value = str | int | float | bool | bytes | None

LEVELS: dict[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
VALUE_CHARS = 4096  # longer ones are cut
TRACE_CHARS = 16_384  # of a traceback; journald splits lines at 48 KiB, and escapes make some of this longer
BYTES_SHOWN = 64  # as hex: a hash, a key id; not a payload

_ROOT = "replicad"
_RESERVED = frozenset({"time", "level", "event", "msg", "logger", "exception"})
_BARE = re.compile(r"[!#-&(-<>-\[\]-~]+")  # printable ASCII but for space, quotes, equals sign and backslash
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Logger:
    """Logs events of one part of the daemon.

    ``event`` is a stable word (snake_case) to search and count by; ``text`` is for a person; fields are plain values,
    named with their units. bytes are shown as hex when they are short, else as their length. A field that is called as
    one of the line's own keys gets an underscore: ``level_``.
    """

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, text: str = "", /, **fields: Value) -> None:
        self._log(logging.DEBUG, event, text, fields)

    def info(self, event: str, text: str = "", /, **fields: Value) -> None:
        self._log(logging.INFO, event, text, fields)

    def warning(self, event: str, text: str = "", /, **fields: Value) -> None:
        self._log(logging.WARNING, event, text, fields)

    def error(self, event: str, text: str = "", /, *, exc: BaseException | None = None, **fields: Value) -> None:
        """As the others; ``exc`` adds an exception's traceback, for what is a bug of ours."""
        self._log(logging.ERROR, event, text, fields, exc)

    def is_debug(self) -> bool:
        """Whether debug events are logged: for who would have to compute their fields first."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def _log(
        self, level: int, event: str, text: str, fields: Mapping[str, Value], exc: BaseException | None = None
    ) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, text, exc_info=exc, extra={"replicad_event": event, "replicad_fields": fields})


def get_logger(name: str) -> Logger:
    """The logger of a module: ``get_logger(__name__)``, or any name below ``replicad``."""
    return Logger(name if name == _ROOT or name.startswith(f"{_ROOT}.") else f"{_ROOT}.{name}")


def setup(level: str = "info", format: str = "text", *, stream: TextIO | None = None) -> None:
    """Send all logging of this process to ``stream`` (standard error) in ``format`` (text or json).

    Calling it again replaces what the last call set up; what repeats is counted on. ValueError for a level or format
    that there is not.
    """
    if format not in _FORMATS:
        raise ValueError(f"there is no log format {format!r}; there are {', '.join(_FORMATS)}")
    stream = stream if stream is not None else sys.stderr
    journal = is_journal(stream)
    send = native_send() if journal else None
    kind = _PriorityFormatter if journal and send is None else _Formatter
    handler = _Handler(stream, send=send)
    handler.setFormatter(kind(_FORMATS[format], for_journal=journal))
    set_level(level)
    root = logging.getLogger()
    root.handlers = [old for old in root.handlers if not isinstance(old, _Handler)]
    root.addHandler(handler)
    logging.captureWarnings(True)


def tell_left_out() -> None:
    """Log what was left out of repeats and not told yet: for the end of the process."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler):
            handler.tell_left_out(all_of_them=True)


def set_level(level: str) -> None:
    """Change the level (one of LEVELS) at run time. Libraries log warnings and errors only, and at debug their info."""
    if level not in LEVELS:
        raise ValueError(f"there is no log level {level!r}; there are {', '.join(LEVELS)}")
    own = LEVELS[level]
    logging.getLogger(_ROOT).setLevel(own)
    logging.getLogger().setLevel(logging.INFO if own == logging.DEBUG else max(own, logging.WARNING))


_REPEATS = Repeats()


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to the stream, or, with ``send``, to the journal in its own protocol."""

    def __init__(self, stream: TextIO, *, send: Send | None = None, repeats: Repeats = _REPEATS) -> None:
        super().__init__(stream)
        self._send, self._repeats = send, repeats
        self.addFilter(repeats)

    def emit(self, record: logging.LogRecord) -> None:
        self.tell_left_out()
        self._write(record)

    def tell_left_out(self, *, all_of_them: bool = False) -> None:
        """Log again what was left out and had no successor in time, with the count."""
        for record in self._repeats.owed(all_of_them=all_of_them):
            self._write(record)

    def _write(self, record: logging.LogRecord) -> None:
        if self._send is None:
            super().emit(record)
            return
        try:
            self._send(*journal_fields(record, self.format(record), _plain_fields(record)))
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """A log that can't be written, its reader being gone, must not take the node with it, nor print more."""


class _Formatter(logging.Formatter):
    """``for_journal``: without time and level, which the journal has itself."""

    def __init__(self, render: Callable[[Mapping[str, Value]], str], *, for_journal: bool = False) -> None:
        super().__init__()
        self._render, self._for_journal = render, for_journal

    def format(self, record: logging.LogRecord) -> str:
        pairs: dict[str, Value] = {}
        if not self._for_journal:
            pairs |= {"time": _utc(record.created), "level": _level_name(record.levelno)}
        event: str | None = getattr(record, "replicad_event", None)
        if event is None:
            pairs |= {"event": "library", "logger": record.name}
        else:
            pairs["event"] = event
            for name, value in _plain_fields(record).items():
                pairs[f"{name}_" if name in _RESERVED else name] = value
        text = _message(record)
        if text:
            pairs["msg"] = _cut(text, VALUE_CHARS)
        if record.exc_info and record.exc_info[1] is not None:
            pairs["exception"] = _cut(self.formatException(record.exc_info), TRACE_CHARS)
        return self._render(pairs)


class _PriorityFormatter(_Formatter):
    """For the journal by way of a stream: the priority in front of the line (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        return f"<{priority(record)}>{super().format(record)}"


def _plain_fields(record: logging.LogRecord) -> dict[str, str | int | float | bool | None]:
    """An event's own fields, as every format can show them."""
    fields: Mapping[str, object] = getattr(record, "replicad_fields", {})
    return {name: _plain(value) for name, value in fields.items()}


def _render_text(pairs: Mapping[str, Value]) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in pairs.items())


def _render_json(pairs: Mapping[str, Value]) -> str:
    # ASCII only: some readers end a line at U+2028 too
    return json.dumps(pairs, ensure_ascii=True, separators=(",", ":"))


_FORMATS: Mapping[str, Callable[[Mapping[str, Value]], str]] = {"text": _render_text, "json": _render_json}


def _plain(value: object) -> str | int | float | bool | None:
    """A field's value as both formats can show it."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool | None):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        short = float(f"{value:.12g}")
        return short if abs(short) < float("inf") else str(value)  # JSON has neither nan nor infinity
    if isinstance(value, str):
        return _cut(value, VALUE_CHARS)
    if isinstance(value, bytes):
        return value.hex() if len(value) <= BYTES_SHOWN else f"<{len(value)} bytes>"
    return f"<{type(value).__name__}>"


def _quoted(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = "" if value is None else str(value)
    if _BARE.fullmatch(text) or (value is None):
        return text
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else _escaped(c)) for c in text) + '"'


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # a library's format string and arguments do not fit each other
        return str(record.msg)


def _utc(seconds: float) -> str:
    milliseconds = int(seconds * 1000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{whole}.{milliseconds % 1000:03d}Z"


def _level_name(number: int) -> str:
    return next((name for name, least in reversed(LEVELS.items()) if number >= least), "debug")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}...({len(text)} characters)"
