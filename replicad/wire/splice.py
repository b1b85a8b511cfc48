"""Protobuf put together from bytes that are there already: for the few messages that carry a batch's body.

A protobuf runtime copies every bytes field into its own memory and out again, and one of today's versions takes over
1 ms for a message of 1 MiB; these parts are joined once. https://protobuf.dev/programming-guides/encoding/
Knows the encoding, and no message of ours.
"""

from __future__ import annotations

from collections.abc import Iterable

_VARINT, _LENGTH_DELIMITED = 0, 2  # wire types


def varint(value: int) -> bytes:
    """Base 128, low group first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field_bytes(length: int) -> int:
    """What a field of that many bytes takes, its tag and length included, where its number is below 16."""
    return 1 + max(1, (length.bit_length() + 6) // 7) + length


def integer_field(number: int, value: int) -> list[bytes]:
    """A uint32 or uint64 field, as parts to join."""
    return [varint(number << 3 | _VARINT), varint(value)]


def bytes_field(number: int, parts: Iterable[bytes]) -> list[bytes]:
    """A bytes, string or message field whose content is these parts, as parts to join."""
    content = list(parts)
    return [varint(number << 3 | _LENGTH_DELIMITED), varint(sum(map(len, content))), *content]
