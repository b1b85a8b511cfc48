"""Parsing protobuf from strangers: one place that knows what a protobuf runtime raises. Knows no message of ours."""

from __future__ import annotations

import warnings
from typing import TypeVar

from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError, Message

from replicad.errors import PeerError

M = TypeVar("M", bound=Message)

#: Places and times beyond this are refused: SQLite's integers end there, and no honest log comes near.
MAX_PLACE = (1 << 63) - 1


# Debian's protobuf 3.21 takes a zero byte or an end-group tag for the end of a message: it warns, and gives what it has
# read so far. What is not read to its end is refused below, and says so better.
warnings.filterwarnings("ignore", "Unexpected end-group tag", RuntimeWarning, module=__name__.replace(".", r"\."))


_STOPS_EARLY = api_implementation.Type() == "cpp"
_END_GROUP = 4  # a wire type
_PROBE = b"\xc0\x3e\x00"  # a field that no message of ours has, 1000: is it read, or was the end before it?


class ParseError(ValueError):
    """The bytes are not an encoding of the message asked for."""


def parse(kind: type[M], data: bytes) -> M:
    """The message that ``data`` encodes. Raises ParseError."""
    message = kind()
    try:
        read = message.MergeFromString(data)
    except (DecodeError, ValueError) as exc:  # ValueError: text that is not UTF-8, in pure Python
        raise ParseError(f"{len(data)} bytes are not a {kind.DESCRIPTOR.name} message") from exc
    if _STOPS_EARLY and data and (not data[-1] or data[-1] & 7 == _END_GROUP):
        read = kind().MergeFromString(data + _PROBE) - len(_PROBE)  # one such byte alone counts as read
    if read != len(data):
        raise ParseError(f"{len(data)} bytes are not a {kind.DESCRIPTOR.name} message: it ends after {read} of them")
    return message


def parse_peer(kind: type[M], data: bytes) -> M:
    """As :func:`parse`, for what a peer sent. Raises PeerError("malformed")."""
    try:
        return parse(kind, data)
    except ParseError as exc:
        raise malformed(str(exc)) from exc


def malformed(text: str) -> PeerError:
    """The error for bytes that parse but do not fit together."""
    return PeerError("malformed", text)
