"""What the client's methods are given: values that can never work are refused by name, before anything is sent.

What is to be posted, :mod:`replicad.client.cutting` checks; what calls and the client have in common,
:mod:`replicad.client.settings`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence

from replicad.client.cutting import BulkMessage
from replicad.client.types import NewMessage, Record
from replicad.configvalues import MAX_OFFSET, is_name
from replicad.errors import BadRequest

LEVELS = ("committed", "local", "linearizable")


def checked_number(name: str, value: int) -> int:
    """The offset, count or time. Raises BadRequest for what the log can never have."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_OFFSET:
        raise BadRequest(f"{name} is {value!r}; a whole number from 0 to 2**63 - 1 is wanted")
    return value


def checked_optional(name: str, value: int | None) -> int | None:
    """As :func:`checked_number`, where None is none."""
    return None if value is None else checked_number(name, value)


def checked_level(level: str, known: Sequence[str]) -> str:
    """The level. Raises BadRequest for one that is not known there."""
    if level not in known:
        raise BadRequest(f"level {level!r} is not one of {', '.join(known)}")
    return level


def checked_node(name: str, value: str) -> str:
    """The name of a node, or "". Raises BadRequest."""
    if not (isinstance(value, str) and (is_name(value) or not value)):
        raise BadRequest(f"{name} is {value!r}; the name of a node is wanted")
    return value


def checked_flag(name: str, value: bool) -> bool:
    """True or False. Raises BadRequest for all else: the text "no" would count as true."""
    if not isinstance(value, bool):
        raise BadRequest(f"{name} is {value!r}; True or False is wanted")
    return value


def checked_record(value: Record) -> Record:
    """The record. Raises BadRequest for what is none."""
    if not isinstance(value, Record):
        raise BadRequest(f"record is {type(value).__name__}; a Record is wanted, as list and tail give them")
    return value


def checked_messages(
    messages: Iterable[BulkMessage] | AsyncIterable[BulkMessage],
) -> Iterable[BulkMessage] | AsyncIterable[BulkMessage]:
    """The messages. Raises BadRequest where there is one alone, which would be posted by the letter, or none."""
    one = isinstance(messages, str | bytes | bytearray | memoryview | NewMessage)
    if one or not isinstance(messages, Iterable | AsyncIterable):
        raise BadRequest(f"messages is {type(messages).__name__}; an iterable of messages is wanted, such as a list")
    return messages


def checked_iterable(messages: Iterable[BulkMessage]) -> Iterable[BulkMessage]:
    """The same for the blocking client."""
    checked = checked_messages(messages)
    if not isinstance(checked, Iterable):
        raise BadRequest(f"messages is {type(messages).__name__}; an iterable is wanted: AsyncClient takes async ones")
    return checked
