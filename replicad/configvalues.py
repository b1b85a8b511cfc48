"""The kinds of values that a config's keys take: names, addresses, sizes, durations and the like, with their limits.

Owns how strictly each is read and what is said of one that can't be taken. Must not know which keys there are, nor
how they nest: that is :mod:`replicad.configkeys`.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from replicad.errors import KeyFileError
from replicad.vkeys import parse_vkey

NAME_CHARS = 64  # names stand in every signed statement, log line and status table
TEXT_CHARS = 4096  # as long as a path can be (PATH_MAX)
MAX_OFFSET = (1 << 63) - 1  # the largest integer of SQLite
SHOWN_CHARS = 60  # a fault stays a line that fits a terminal

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_NUMBER_AND_UNIT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)")
_PRIVATE_KEY = re.compile(r"PRIVATE[ +]KEY")
_KIND_WORDS = ((type(None), "nothing"), (Mapping, "a mapping"), (list | tuple, "a list"))


@dataclass(frozen=True, slots=True)
class Bad:
    """Why a value can't be taken, and the remedy."""

    wrong: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Key:
    """What a config key is for (``doc``, for man pages and people), how its value is read, and when it is taken."""

    doc: str
    name: str = dataclasses.field(default="", kw_only=True)  # in the file, where it is not the field's own
    live: bool = dataclasses.field(default=False, kw_only=True)  # a reload takes it; others need a restart

    suffix: ClassVar[str] = ""  # of the field's name: its unit, which the file's key does not have

    def read(self, value: object) -> Any:
        """The value for the dataclass field, or Bad."""
        raise NotImplementedError

    def show(self, value: Any) -> str:
        """A field's value as the file would have it; an empty text is a key that is left out."""
        return "none" if value == "" else str(value)

    def form(self) -> str:
        """What may be written, and within which limits, in a few words for a manual."""
        raise NotImplementedError


class Text(Key):
    """Any text."""

    __slots__ = ()

    def read(self, value: object) -> str | Bad:
        if not isinstance(value, str):
            hint = " (YAML reads on and yes as true, off and no as false)" if isinstance(value, bool) else ""
            return Bad(f"is {shown(value)}{hint}, not text", "put it in quotes if it is what you mean")
        if (private := private_key_inside(value)) is not None:
            return private
        if not value.strip():
            return Bad("is empty", "give a value")
        if len(value) > TEXT_CHARS:
            return Bad(f"has {len(value)} characters", f"at most {TEXT_CHARS} are allowed")
        return value

    def form(self) -> str:
        return "text"


class Name(Text):
    """A name: 1-64 of a-z 0-9 . _ -, a letter or digit first. Safe in vkey lines, file names and log lines."""

    __slots__ = ()

    def read(self, value: object) -> str | Bad:
        text = Text.read(self, value)
        if isinstance(text, Bad) or is_name(text):
            return text
        return Bad(
            f"{shown(text)} is not a name", f"use 1 to {NAME_CHARS} of a-z 0-9 . _ -, with a letter or digit first"
        )

    def form(self) -> str:
        return f"a name: 1 to {NAME_CHARS} of a-z 0-9 . _ -, with a letter or digit first"


class FilePath(Text):
    """A file's or folder's path; a relative one counts from the config file's folder."""

    __slots__ = ()

    def read(self, value: object) -> str | Bad:
        text = Text.read(self, value)
        if isinstance(text, Bad):
            return text
        if not text.isprintable():
            return Bad(f"{shown(text)} holds control characters", "give a path on one line")
        if text.startswith("~"):
            return Bad(f"{shown(text)}: ~ is not expanded", "write the whole path")
        return text

    def form(self) -> str:
        return "a path; a relative one counts from the config file's folder"


class Address(Text):
    """HOST:PORT, an IPv6 address in brackets."""

    __slots__ = ()

    def read(self, value: object) -> str | Bad:
        text = Text.read(self, value)
        if isinstance(text, Bad) or split_address(text) is not None:
            return text
        return Bad(f"{shown(text)} is not HOST:PORT", "write it like 127.0.0.1:50052 or [::1]:50052, port 1 to 65535")

    def show(self, value: Any) -> str:
        return value or "none"

    def form(self) -> str:
        return "HOST:PORT, an IPv6 address in brackets, port 1 to 65535"


class PublicKey(Text):
    """A vkey line."""

    __slots__ = ()

    def read(self, value: object) -> str | Bad:
        text = Text.read(self, value)
        if isinstance(text, Bad):
            return text
        try:
            return parse_vkey(text).line
        except KeyFileError as exc:
            return Bad(f"is not a public key: {exc}", "copy the line that `replicad-cli keys show` prints on that node")

    def form(self) -> str:
        return "a public key: NAME+8 hex digits+base64"


@dataclass(frozen=True, slots=True)
class Choice(Key):
    """One of a few words."""

    words: tuple[str, ...] = ()

    def read(self, value: object) -> str | Bad:
        if isinstance(value, str) and value in self.words:
            return value
        near = did_you_mean(value, self.words)
        return Bad(f"is {shown(value)}", near or f"write {any_of(self.words)}")

    def form(self) -> str:
        return any_of(self.words)


@dataclass(frozen=True, slots=True)
class Quorum(Key):
    """How many voters: a number 1..``highest``, majority or all; kept as text."""

    highest: int = 1

    def read(self, value: object) -> str | Bad:
        words = ("majority", "all")
        number = _whole_number(value)
        if isinstance(number, int) and 1 <= number <= self.highest:
            return str(number)
        if isinstance(value, str):
            if value in words:
                return value
            if _is_digits(value):
                return _QUOTED_NUMBER
        return Bad(f"is {shown(value)}", did_you_mean(value, words) or f"write {self.form()}")

    def form(self) -> str:
        numbers = "1" if self.highest == 1 else "a number from 1 to the number of nodes"
        return f"{numbers}, majority or all"


class Flag(Key):
    """true or false."""

    __slots__ = ()

    def read(self, value: object) -> bool | Bad:
        return value if isinstance(value, bool) else Bad(f"is {shown(value)}", "write true or false, without quotes")

    def show(self, value: Any) -> str:
        return "true" if value else "false"

    def form(self) -> str:
        return "true or false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Count(Key):
    """A whole number within limits."""

    at_least: int = 1
    at_most: int

    def read(self, value: object) -> int | Bad:
        if isinstance(value, str) and _is_digits(value):
            return _QUOTED_NUMBER
        number = _whole_number(value)
        remedy = f"write {self.form()}"
        if number is None:
            return Bad(f"is {shown(value)}, not a whole number", remedy)
        return number if self.at_least <= number <= self.at_most else Bad(f"is {shown(value)}", remedy)

    def form(self) -> str:
        return f"a number from {self.at_least} to {self.at_most}"


class Offset(Key):
    """An offset, or a size of a log."""

    __slots__ = ()

    def read(self, value: object) -> int | Bad:
        return Count("", at_least=0, at_most=MAX_OFFSET).read(value)

    def show(self, value: Any) -> str:
        return "none" if value is None else str(value)

    def form(self) -> str:
        return "an offset, 0 or more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size(Key):
    """Bytes: ``1MiB``, ``512KiB``, or a number of bytes; within limits."""

    at_least: int = 1
    at_most: int

    suffix: ClassVar[str] = "_bytes"
    units: ClassVar[Mapping[str, int]] = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}

    def read(self, value: object) -> int | Bad:
        size = _with_unit(value, self.units, "1MiB, 512KiB or a number of bytes")
        if isinstance(size, Bad):
            return size
        if size != int(size):
            return Bad(f"is {shown(value)}, a fraction of a byte", "write a whole number, with a smaller unit")
        if not self.at_least <= size <= self.at_most:
            return Bad(f"is {shown(value)}", f"write {self.form()}")
        return int(size)

    def show(self, value: Any) -> str:
        if not value:
            return "0"
        unit, factor = next((unit, factor) for unit, factor in self.units.items() if value % factor == 0)
        return f"{value // factor}{unit}"

    def form(self) -> str:
        return f"a size from {self.show(self.at_least)} to {self.show(self.at_most)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration(Key):
    """Seconds: ``5s``, ``500ms``, ``2m``, ``1h``, or a number of seconds; within limits."""

    at_least: float = 0.001
    at_most: float

    suffix: ClassVar[str] = "_s"
    units: ClassVar[Mapping[str, float]] = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

    def read(self, value: object) -> float | Bad:
        seconds = _with_unit(value, self.units, "5s, 500ms, 2m or a number of seconds")
        if isinstance(seconds, Bad):
            return seconds
        seconds = round(seconds, 9)  # 0.001 has no exact binary form: 300ms is 0.3, as a person would write it
        if not self.at_least <= seconds <= self.at_most:
            return Bad(f"is {shown(value)}", f"write {self.form()}")
        return float(seconds)

    def show(self, value: Any) -> str:
        if value >= 60 and value % 60 == 0:
            return f"{int(value // 60)}m"
        return f"{value:.12g}s" if value >= 1 else f"{value * 1000:.9g}ms"

    def form(self) -> str:
        return f"a duration from {self.show(self.at_least)} to {self.show(self.at_most)}"


_QUOTED_NUMBER = Bad("is a number in quotes, so a text", "remove the quotes")

# --- helpers ----------------------------------------------------------------------------------------------------


def is_name(text: str) -> bool:
    """Whether ``text`` may name a node or a cluster."""
    return len(text) <= NAME_CHARS and _NAME.fullmatch(text) is not None


def split_address(text: str) -> tuple[str, int] | None:
    """Host (an IPv6 one without its brackets) and port of HOST:PORT; None when it is not one."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ip(host, version=6):
            return None
    elif re.fullmatch(r"[A-Za-z0-9._-]{1,253}", host) is None:
        return None
    good_port = colon and re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= 65535
    return (host, int(port)) if good_port else None


def join_address(host: str, port: int) -> str:
    """HOST:PORT, with brackets round an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether nothing but this machine reaches ``host``: 127.0.0.0/8, ::1 or localhost."""
    if host.lower() == "localhost":
        return True
    return (_is_ip(host, version=4) or _is_ip(host, version=6)) and ipaddress.ip_address(host).is_loopback


def private_key_inside(value: object) -> Bad | None:
    """The Bad of a text that holds a private key, in whatever format."""
    if not isinstance(value, str) or _PRIVATE_KEY.search(value) is None:
        return None
    return Bad(
        "holds a private key (not shown)",
        "keep it in a file of mode 0600 and give the file's path as `key`; make a new one if others saw this",
    )


def shown(value: object) -> str:
    """A value in a fault: short, on one line, and never a private key."""
    if isinstance(value, str):
        if _PRIVATE_KEY.search(value):
            return "a private key (not shown)"
        return ascii(value) if len(value) <= SHOWN_CHARS else f"{value[:SHOWN_CHARS]!a}..."
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return "a number of 20 digits or more"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    return next((words for kind, words in _KIND_WORDS if isinstance(value, kind)), f"a {type(value).__name__}")


def did_you_mean(word: object, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word.lower()[:SHOWN_CHARS], known, n=1) if isinstance(word, str) else []
    return f"did you mean {near[0]}?" if near else ""


def any_of(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _with_unit(value: object, units: Mapping[str, Any], example: str) -> Any:
    """The value times its unit's factor (a bare number's is 1), or Bad."""
    if _whole_number(value) is not None or (isinstance(value, float) and math.isfinite(value)):
        return value
    if not isinstance(value, str):
        return Bad(f"is {shown(value)}", f"write {example}")
    match = _NUMBER_AND_UNIT.fullmatch(value)
    if match is None:
        return Bad(f"is {shown(value)}", f"write {example}")
    number, unit = match.groups()
    if not unit:
        return Bad(f"is the text {shown(value)}, without a unit", f"add the unit, or remove the quotes: {example}")
    if unit not in units:
        return Bad(f"is {shown(value)}; there is no unit {unit}", f"use {any_of(tuple(units))}")
    return (float(number) if "." in number else int(number)) * units[unit]


def _is_ip(text: str, *, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version and "%" not in text
    except ValueError:
        return False


def _whole_number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()
