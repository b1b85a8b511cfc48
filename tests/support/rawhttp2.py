"""HTTP/2 by hand, as far as breaking it needs: RFC 9113 frames and RFC 7541 headers without compression.

For what no gRPC library would send. Must not know what the server makes of it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0, 1, 3, 4, 6
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame: RFC 9113, section 4.1."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(pairs: Sequence[tuple[str, str | bytes]]) -> bytes:
    """A header block, each a literal never indexed with a new name: RFC 7541, section 6.2.3."""
    block = b""
    for name, value in pairs:
        for index, text in enumerate((name, value)):
            raw = text if isinstance(text, bytes) else text.encode()
            assert len(raw) < 127, "a length of more than 7 bits is not needed here"
            block += (b"\x10" if index == 0 else b"") + bytes((len(raw),)) + raw
    return block


def call(path: str | bytes, *, token: str, body: bytes, end: bool) -> bytes:
    """A connection's first bytes: preface, settings, and one gRPC call with ``body`` as its data."""
    pairs: list[tuple[str, str | bytes]] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", f"Bearer {token}"),
    ]
    return (
        PREFACE
        + frame(SETTINGS, 0, 0, b"")
        + frame(HEADERS, END_HEADERS, 1, headers(pairs))
        + frame(DATA, END_STREAM if end else 0, 1, body)
    )


def exchange(address: str, sent: bytes, *, wait_s: float) -> bytes:
    """Send bytes, say no more, and take what comes until the other side ends it or ``wait_s`` pass."""
    host, _, port = address.rpartition(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except OSError:
            pass  # how it gets rid of a stranger who talks nonsense is the server's choice
    return received
