"""The config's sections of bounds and waits: what a client or peer can make this node hold, and for how long.

Owns their defaults with the reason for each, as :mod:`replicad.config` does for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from replicad.access import MAX_RATE
from replicad.configvalues import Count, Duration, Size

KIB = 1 << 10
MIB = 1 << 20
MAX_PAYLOAD_BYTES = 64 * MIB  # a payload is held in memory whole, a few times over


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what clients and peers can make this node hold.

    Those that are not live are told to gRPC when the port is opened: streams, and all that its largest message follows
    from.
    """

    payload_bytes: Annotated[
        int, Size("Largest payload of one message; the same on all nodes.", at_most=MAX_PAYLOAD_BYTES)
    ] = 1 * MIB
    batch_bytes: Annotated[
        int,
        # below a page there is nothing left to group; a worker takes a batch in whole
        Size("A batch is closed when its payloads are this much.", at_least=4 * KIB, at_most=64 * MIB),
    ] = 1 * MIB  # larger ones only add delay
    batch_records: Annotated[
        int,
        Count("A batch is closed when it has so many records.", at_most=65_536),
    ] = 8192  # hashing a batch holds the event loop for about 1 us a record on each node
    frame_bytes: Annotated[
        int,
        Size(
            "Payloads of one client frame of many messages, over and above one largest payload.",
            at_least=4 * KIB,
            at_most=64 * MIB,
        ),
    ] = 4 * MIB
    window_bytes: Annotated[
        int,
        Size("Sent to one worker and not yet answered by it.", at_least=4 * KIB, at_most=1024 * MIB, live=True),
    ] = 8 * MIB  # two round trips at 1 Gbit/s and 30 ms
    queue_bytes: Annotated[
        int,
        Size(
            "Accepted by the master and not yet on its disk; clients' streams wait while it is full.",
            at_least=4 * KIB,
            at_most=4096 * MIB,
            live=True,
        ),
    ] = 64 * MIB  # half a second of a disk that writes 128 MiB/s
    waiting_frames: Annotated[
        int,
        Count("Posts' frames that wait for their write concern; more are answered 429.", at_most=10_000_000, live=True),
    ] = 100_000  # about 1 KiB of memory each
    stream_frames: Annotated[
        int,
        Count(
            "Frames of one client stream that are not yet on disk; reading the stream pauses beyond.",
            at_most=65_536,
            live=True,
        ),
    ] = 1024
    streams: Annotated[int, Count("Concurrent calls on one connection.", at_most=65_536)] = 1024
    connections: Annotated[int, Count("Connections with calls under way.", at_most=65_536, live=True)] = 1024
    sockets: Annotated[
        int,
        Count(
            "Open connections, those without a call included; more are closed at once (by gRPC 1.67 and later).",
            at_most=1_000_000,
        ),
    ] = 4096  # about 20 KiB of memory each; the rest of the unit's 65536 files is for the log
    principal_calls: Annotated[
        int,
        Count("Concurrent calls of one principal, on all its connections.", at_most=1_000_000, live=True),
    ] = 4096  # a principal may be a fleet that shares a token; about 30 KiB of memory each
    open_calls: Annotated[
        int,
        Count(
            "Concurrent calls of each method that asks for no token: health, reflection. One address has half of them"
            " at the most.",
            at_most=65_536,
            live=True,
        ),
    ] = 16  # a stranger's may hold one largest message each: 180 MiB by the defaults, for each method
    metadata_bytes: Annotated[
        int,
        Size("Metadata of one call: its token, and what proxies and tracing add.", at_least=8 * KIB, at_most=1 * MIB),
    ] = 16 * KIB  # a token has 4096 characters at the most
    auth_waiting: Annotated[
        int,
        Count(
            "Answers to failed authentications of one address that are held back at a time; its new connections are"
            " answered 429 beyond.",
            at_most=1024,  # of all addresses: transport/guard.py
            live=True,
        ),
    ] = 64  # with the longest wait of 5 s, 13 guesses a second
    ping_strikes: Annotated[
        int, Count("A connection that has sent so many pings too fast, and one more, is closed.", at_most=1000)
    ] = 5  # a clock that runs a little fast is forgiven
    principal_rate: Annotated[
        int,
        Count(
            "Messages a second that each principal may post whose entry in the tokens file has no rate; 0: no limit."
            " More are answered 429.",
            at_least=0,
            at_most=MAX_RATE,
            live=True,
        ),
    ] = 0  # what is too much depends on the disk; limits.queue holds clients back when it is
    principal_bytes: Annotated[
        int,
        Size(
            "Bytes of payloads and headers a second that each principal may post whose entry has no rate_bytes;"
            " 0: no limit.",
            name="principal_bytes",
            at_least=0,
            at_most=MAX_RATE,
            live=True,
        ),
    ] = 0
    total_rate: Annotated[
        int,
        Count(
            "Messages a second that all principals together may post; 0: no limit.",
            at_least=0,
            at_most=MAX_RATE,
            live=True,
        ),
    ] = 0
    total_bytes: Annotated[
        int,
        Size(
            "Bytes a second that all principals together may post; 0: no limit.",
            name="total_bytes",
            at_least=0,
            at_most=MAX_RATE,
            live=True,
        ),
    ] = 0
    rate_burst_s: Annotated[
        float,
        Duration("So many seconds' worth of a rate may come at once.", at_least=0.01, at_most=3600, live=True),
    ] = 2.0  # a second's work of a program that posts by the second, and one that came late
    auth_failures: Annotated[
        int,
        Count(
            "Failed authentications of one address, with less than a minute between them, that are answered at once;"
            " further ones wait, each twice as long as the last.",
            at_most=65_536,
            live=True,
        ),
    ] = 10  # a program that was started with an old token, and again
    disk_reserve: Annotated[
        int,
        Size(
            "Room on the data folder's disk below which no records are taken (507): it is for the node's own state.",
            name="disk_reserve",
            at_least=0,
            at_most=1024 * 1024 * MIB,
        ),
    ] = 64 * MIB  # promises, commit sizes, a WAL that grows while a reader holds it, a tail that goes to quarantine
    catch_up_rate: Annotated[
        int,
        Size(
            "Bytes of records a second that the master reads from its disk for workers that lag, all together;"
            " 0: no limit.",
            name="catch_up_rate",
            at_least=0,
            at_most=MAX_RATE,
            live=True,
        ),
    ] = 0  # while a worker lags, one more disk may not fail; and posts hardly notice
    scrub_rate: Annotated[
        int,
        Size(
            "Bytes of records a second that the scrub looks over; 0: no scrub.",
            name="scrub_rate",
            at_least=0,
            at_most=1024 * MIB,
            live=True,
        ),
    ] = 1 * MIB  # some hundredths of a core; 84 GiB a day
    read_bytes: Annotated[
        int,
        Size("Records in one response of a List or Tail.", at_least=4 * KIB, at_most=64 * MIB, live=True),
    ] = 1 * MIB


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long this node waits, and for what."""

    heartbeat_s: Annotated[
        float,
        Duration("An idle master lets its workers hear from it this often.", at_least=0.01, at_most=60, live=True),
    ] = 0.5
    suspect_s: Annotated[
        float, Duration("A peer not heard of for so long is SUSPECTED.", at_least=0.02, at_most=600, live=True)
    ] = 2.0  # four heartbeats
    unhealthy_s: Annotated[
        float,
        Duration(
            "A peer not heard of for so long is UNHEALTHY: the connection is dropped and dialled again. "
            "A batch must get over the line in less: longer on a slow one.",
            at_least=0.03,
            at_most=3600,
            live=True,
        ),
    ] = 10.0
    reconnect_min_s: Annotated[
        float,
        Duration(
            "First wait before a peer is dialled again; it doubles, with jitter.", at_least=0.01, at_most=60, live=True
        ),
    ] = 0.1
    reconnect_max_s: Annotated[
        float, Duration("Longest wait before a peer is dialled again.", at_least=0.01, at_most=600, live=True)
    ] = 5.0
    scrub_interval_s: Annotated[
        float,
        Duration(
            "From the end of one scrub to the beginning of the next.", at_least=0.1, at_most=366 * 86_400, live=True
        ),
    ] = 86_400.0  # a damage is found within a day, and the time that a scrub takes
    read_wait_s: Annotated[
        float, Duration("Longest wait of a read for its min_offset.", at_least=0.001, at_most=3600, live=True)
    ] = 30.0
    request_s: Annotated[
        float,
        Duration(
            "For a call's request to arrive whole, where it is not a stream.", at_least=0.1, at_most=600, live=True
        ),
    ] = 20.0  # the largest payload of 64 MiB at 30 Mbit/s
    stalled_s: Annotated[
        float,
        Duration(
            "A client that takes nothing of what is sent to it for so long is cut off.",
            at_least=0.1,
            at_most=3600,
            live=True,
        ),
    ] = 60.0  # a person who has stopped a tail in a terminal for a moment comes back
    idle_stream_s: Annotated[
        float,
        Duration(
            "A PostStream on which nothing comes for so long, and nothing waits, is ended.",
            at_least=0.1,
            at_most=86_400,
            live=True,
        ),
    ] = 3600.0  # the client library opens another with the next post
    idle_connection_s: Annotated[
        float,
        Duration("A connection without a call for so long is closed.", at_least=0.1, at_most=86_400),
    ] = 300.0  # it costs memory and a file; the client library dials anew without a word
    handshake_s: Annotated[
        float,
        Duration("For a new connection's first words, TLS included.", at_least=0.1, at_most=600),
    ] = 10.0  # some round trips on a bad line
    keepalive_s: Annotated[
        float,
        Duration("A connection that says nothing for so long is asked whether it is there.", at_least=1, at_most=7200),
    ] = 20.0  # a client whose machine is gone is found out within half a minute
    keepalive_answer_s: Annotated[
        float, Duration("For its answer; then the connection is closed.", at_least=0.1, at_most=600)
    ] = 10.0
    ping_interval_s: Annotated[
        float,
        # nodes and the client library ask every 10 s
        Duration("Pings of a client that come faster than this count against it.", at_least=0.1, at_most=10),
    ] = 5.0
    auth_delay_s: Annotated[
        float,
        Duration("Longest wait of the answer to a failed authentication.", at_least=0.0, at_most=60, live=True),
    ] = 5.0  # a dozen guesses a second of one address at the most; see transport/guard.py
    stop_s: Annotated[
        float,
        # a node leaves within 10 s of SIGTERM; what is beyond this is for closing the store
        Duration("For answering what is under way at SIGTERM.", at_least=0.1, at_most=9, live=True),
    ] = 8.0
