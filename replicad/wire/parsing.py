"""Parsing protobuf from strangers: one place that knows what a protobuf runtime raises. Knows no message of ours."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from replicad.errors import PeerError

M = TypeVar("M", bound=Message)

#: Places and times beyond this are refused: SQLite's integers end there, and no honest log comes near.
MAX_PLACE = (1 << 63) - 1


class ParseError(ValueError):
    """The bytes are not an encoding of the message asked for."""


def parse(kind: type[M], data: bytes) -> M:
    """The message that ``data`` encodes. Raises ParseError."""
    try:
        return kind.FromString(data)
    except (DecodeError, ValueError) as exc:  # ValueError: text that is not UTF-8, in the pure Python runtime
        raise ParseError(f"{len(data)} bytes are not a {kind.DESCRIPTOR.name} message") from exc


def parse_peer(kind: type[M], data: bytes) -> M:
    """As :func:`parse`, for what a peer sent. Raises PeerError("malformed")."""
    try:
        return parse(kind, data)
    except ParseError as exc:
        raise malformed(str(exc)) from exc


def malformed(text: str) -> PeerError:
    """The error for bytes that parse but do not fit together."""
    return PeerError("malformed", text)
