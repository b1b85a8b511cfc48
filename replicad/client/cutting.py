"""What a caller gives to post, checked and cut into frames. Pure but for the ids it draws.

Owns how much of the input is read ahead: about a frame. Must not know who sends the frames.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import Any, NamedTuple, cast

from replicad.client.frames import FRAME_BYTES, FRAME_MESSAGES
from replicad.client.ids import UuidV7Source
from replicad.client.types import NewMessage
from replicad.core.record import encode_headers, header_key_fault, id_fault
from replicad.errors import BadRequest

MAX_PAYLOAD_BYTES = 64 << 20  # the hard limit of every log: docs/formats.md
FIRST_READ = 64  # messages, before their size is known

BulkMessage = bytes | str | NewMessage


class Content(NamedTuple):
    """What a frame carries: parallel lists, ``headers`` empty when no message has any."""

    ids: list[str]
    payloads: list[bytes]
    headers: list[bytes]
    size_bytes: int  # of payloads and headers


def payload_bytes(payload: object) -> bytes:
    """The payload as bytes. Raises BadRequest for what is neither bytes nor text."""
    if isinstance(payload, bytes):
        return bytes(payload)
    if isinstance(payload, bytearray | memoryview):
        return bytes(payload)
    if isinstance(payload, str):
        try:
            return payload.encode()
        except UnicodeEncodeError as exc:
            raise BadRequest(f"payload is not text that UTF-8 can hold: {exc}") from exc
    raise BadRequest(f"payload is {type(payload).__name__}; bytes or str is wanted")


def checked_id(message_id: str) -> str:
    """The id. Raises BadRequest when the log would refuse it."""
    fault = id_fault(message_id) if isinstance(message_id, str) else f"id is {type(message_id).__name__}; str is wanted"
    if fault is not None:
        raise BadRequest(fault)
    return message_id


def headers_bytes(headers: Mapping[str, str] | None) -> bytes:
    """The headers' canonical encoding. Raises BadRequest when a limit is passed or a key is reserved."""
    encoded = record_headers_bytes(headers)
    for key in headers or ():
        fault = header_key_fault(key)
        if fault is not None:
            raise BadRequest(fault)
    return encoded


def record_headers_bytes(headers: Mapping[str, str] | None) -> bytes:
    """The same of a record's, which has keys that are reserved, too."""
    if not headers:
        return b""
    if not isinstance(headers, Mapping):
        raise BadRequest(f"headers is {type(headers).__name__}; a mapping of text to text is wanted, such as a dict")
    try:
        return encode_headers(headers)
    except ValueError as exc:
        raise BadRequest(f"headers: {exc}") from exc
    except (AttributeError, TypeError) as exc:
        raise BadRequest(f"headers: {_odd_header(headers)}") from exc


def _odd_header(headers: Mapping[Any, Any]) -> str:
    """Which key or value is not text."""
    for key, value in headers.items():
        if not isinstance(key, str):
            return f"key {key!r} is {type(key).__name__}; str is wanted"
        if not isinstance(value, str):
            return f"value of {key!r} is {type(value).__name__}; str is wanted"
    return "keys and values are to be str"


def cut_frames(messages: Iterable[BulkMessage], ids: UuidV7Source) -> Iterator[Content]:
    """Frames of at most FRAME_MESSAGES and FRAME_BYTES, or of one larger message. Raises BadRequest."""
    iterator = iter(messages)
    want = FIRST_READ
    while messages_read := list(islice(iterator, want)):
        content = content_of(messages_read, ids)
        yield from split(content)
        if content.size_bytes > FRAME_BYTES:
            want = max(1, want * FRAME_BYTES // content.size_bytes)
        else:
            want = min(FRAME_MESSAGES, 4 * want)


def content_of(messages: Sequence[BulkMessage], ids: UuidV7Source) -> Content:
    """The messages as parallel lists. Raises BadRequest."""
    kinds = set(map(type, messages))
    headers: list[bytes] = []
    if kinds == {bytes}:
        payloads = cast(list[bytes], list(messages))
        message_ids = ids.many(len(payloads))
    elif NewMessage in kinds:
        whole = [each if isinstance(each, NewMessage) else NewMessage(each) for each in messages]
        payloads = [payload_bytes(each.payload) for each in whole]
        message_ids = [ids.one() if each.id is None else checked_id(each.id) for each in whole]
        headers = [headers_bytes(each.headers) for each in whole]
        if not any(headers):
            headers = []
    else:
        payloads = list(map(payload_bytes, messages))
        message_ids = ids.many(len(payloads))
    return Content(message_ids, payloads, headers, sum(map(len, payloads)) + sum(map(len, headers)))


def split(content: Content) -> Iterator[Content]:
    """The content in frames of no more than FRAME_BYTES, or of one larger message."""
    if content.size_bytes <= FRAME_BYTES:
        yield content
        return
    sizes = map(len, content.payloads)
    if content.headers:
        sizes = map(sum, zip(sizes, map(len, content.headers), strict=True))
    ends = list(accumulate(sizes))  # ends[i]: size of messages 0 to i
    start, before = 0, 0
    while start < len(ends):
        stop = max(start + 1, bisect_right(ends, before + FRAME_BYTES))
        part = slice(start, stop)
        yield Content(content.ids[part], content.payloads[part], content.headers[part], ends[stop - 1] - before)
        start, before = stop, ends[stop - 1]
