"""Inputs made from good ones: edits of bytes, and edits that know protobuf's wire format, so that they reach deep.

Pure: the same generator gives the same input. Must not know any message.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from replicad.wire.splice import varint

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
EDITS = 4  # at most, of one input
NUMBERS = (0, 1, 127, 128, 255, 256, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32)
LARGE_NUMBERS = (1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)

Field = tuple[int, int, bytes]  # number, wire type, content: a number's bytes, or what a length stands before


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """One to four edits of ``data``; some take from ``others``."""
    for _ in range(rng.randint(1, EDITS)):
        if rng.random() < 0.5 and (fields := read_fields(data)):
            data = write_fields(_edit_fields(fields, rng, others))
        else:
            data = rng.choice(_BYTE_EDITS)(data, rng, others)
    return data


def read_fields(data: bytes) -> list[Field] | None:
    """The fields of an encoded message; None when it is none."""
    fields, at = [], 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            end = _read_varint(data, at)[1]
        elif kind == LENGTH_DELIMITED:
            length, at = _read_varint(data, at)
            end = at + length
        else:
            end = at + _FIXED_BYTES.get(kind, len(data) + 1)
        if not number or at < 0 or not at <= end <= len(data):
            return None
        fields.append((number, kind, data[at:end]))
        at = end
    return fields


def write_fields(fields: Sequence[Field]) -> bytes:
    """The inverse of :func:`read_fields`: lengths are right again, whatever was done to what is inside."""
    parts = []
    for number, kind, content in fields:
        length = varint(len(content)) if kind == LENGTH_DELIMITED else b""
        parts += [varint(number << 3 | kind), length, content]
    return b"".join(parts)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if not 0 <= at < len(data):
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    return 0, -1  # cut short, or of more than ten bytes


def _edit_fields(fields: list[Field], rng: random.Random, others: Sequence[bytes]) -> list[Field]:
    at = rng.randrange(len(fields))
    number, kind, content = fields[at]
    match rng.randrange(7):
        case 0:
            return fields[:at] + fields[at + 1 :]
        case 1:
            return [*fields, fields[at]]
        case 2:
            rng.shuffle(fields)
            return fields
        case 3:
            fields[at] = (rng.choice((number + 1, max(1, number - 1), rng.randint(1, 20))), kind, content)
            return fields
        case 4:
            return [*fields, (rng.randint(1, 2000), LENGTH_DELIMITED, rng.randbytes(rng.randint(0, 20)))]
    if kind == LENGTH_DELIMITED:
        fields[at] = (number, kind, mutate(content, rng, others))
    elif kind == VARINT:
        fields[at] = (number, kind, varint(rng.choice(NUMBERS + LARGE_NUMBERS)))
    return fields


def _flip_bit(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    del others
    if not data:
        return b"\0"
    at = rng.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]


def _set_byte(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    del others
    at = rng.randrange(len(data) + 1)
    return data[:at] + bytes((rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256))),)) + data[at + 1 :]


def _insert(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    del others
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 4, 8, 64))) + data[at:]


def _delete(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    del others
    start, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return data[:start] + data[end:]


def _repeat(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    del others
    start, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return data[:end] + data[start:end][:512] * rng.randint(1, 3) + data[end:]


def _cut(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    del others
    return data[: rng.randrange(len(data) + 1)]


def _cross(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others) if others else b""
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


_BYTE_EDITS: tuple[Callable[[bytes, random.Random, Sequence[bytes]], bytes], ...] = (
    _flip_bit,
    _set_byte,
    _insert,
    _delete,
    _repeat,
    _cut,
    _cross,
)
