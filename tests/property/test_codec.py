"""The codec under Hypothesis: round trips, and that no bytes make it raise what it does not document."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from replicad.core.batch import Batch
from replicad.core.frames import (
    Ack,
    Align,
    Aligned,
    AppendBatch,
    Fetch,
    Heartbeat,
    Hello,
    Inquiry,
    MasterFrame,
    Refused,
    RootAnswer,
    RootQuery,
    Standing,
    Supply,
    TakeOver,
    Welcome,
    WorkerFrame,
)
from replicad.core.record import (
    LEAF_HEAD,
    LEAF_VERSION,
    MAX_ID_BYTES,
    RESERVED_ID_PREFIX,
    Messages,
    Records,
    decode_headers,
    encode_headers,
    parse_leaf,
)
from replicad.errors import BadRequest, PeerError, TooLarge
from replicad.wire import codec

PLACES = st.integers(0, (1 << 63) - 1)
NAMES = st.text(max_size=20)
ROOTS = st.binary(min_size=32, max_size=32)
IDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=MAX_ID_BYTES)
HEADERS = st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=40), max_size=4).map(encode_headers)
BATCHES = st.builds(
    Batch,
    epoch=PLACES,
    first_offset=st.integers(0, 1 << 62),
    count=st.integers(1, (1 << 32) - 1),
    time_ms=PLACES,
    root=ROOTS,
    signer=NAMES,
    signature=st.binary(max_size=64),
    body=st.binary(min_size=1, max_size=300),
)
MASTER_FRAMES: st.SearchStrategy[MasterFrame] = st.one_of(
    st.builds(Hello, NAMES, NAMES, PLACES),
    st.builds(RootQuery, PLACES),
    st.builds(Align, PLACES),
    st.builds(AppendBatch, BATCHES, PLACES),
    st.builds(Heartbeat, PLACES, st.integers(0, (1 << 64) - 1)),
    st.builds(Fetch, PLACES, PLACES),
    st.builds(Inquiry, NAMES, NAMES),
    st.builds(TakeOver, PLACES),
)
WORKER_FRAMES: st.SearchStrategy[WorkerFrame] = st.one_of(
    st.builds(Welcome, NAMES, PLACES, PLACES, ROOTS, PLACES),
    st.builds(RootAnswer, PLACES, ROOTS),
    st.builds(Aligned, PLACES),
    st.builds(Ack, PLACES, st.integers(0, (1 << 64) - 1)),
    st.builds(Supply, st.lists(BATCHES, max_size=3).map(tuple), PLACES),
    st.builds(Refused, NAMES, NAMES, PLACES, NAMES),
    st.builds(Standing, NAMES, PLACES, NAMES, PLACES, PLACES, st.booleans(), st.booleans()),
)


@st.composite
def post_frames(draw: st.DrawFn) -> codec.PostFrame:
    ids = draw(st.lists(IDS.filter(lambda each: not each.startswith(RESERVED_ID_PREFIX)), min_size=1, max_size=12))
    count = len(ids)
    payloads = draw(st.lists(st.binary(max_size=50), min_size=count, max_size=count))
    headers = draw(st.lists(HEADERS, min_size=count, max_size=count))
    if not any(headers):
        headers = []
    size_bytes = sum(map(len, payloads)) + sum(map(len, headers))
    return codec.PostFrame(
        sequence=draw(st.integers(0, (1 << 64) - 1)),
        messages=Messages(ids, payloads, headers, size_bytes),
        write_concern=draw(NAMES),
        timeout_ms=draw(st.integers(0, (1 << 32) - 1)),
    )


def leaf_of(epoch: int, offset: int, time_ms: int, message_id: str, author: str) -> bytes:
    encoded_author = author.encode()
    digests = b"d" * 32, b"h" * 32
    head = LEAF_HEAD.pack(LEAF_VERSION, epoch, offset, time_ms, 0, *digests, len(message_id), len(encoded_author))
    return head + message_id.encode() + encoded_author


@st.composite
def bodies(draw: st.DrawFn) -> Records:
    """Consecutive records; now and then so alike that they decode by columns."""
    count, first = draw(st.integers(1, 24)), draw(st.integers(0, 1 << 62))
    if draw(st.booleans()):
        one = draw(st.tuples(PLACES, PLACES, st.text(max_size=9)))
        facts = [one] * count
        width = draw(st.integers(2, 20))
        ids = [f"{index:0{width}}" for index in range(count)]
    else:
        facts = draw(st.lists(st.tuples(PLACES, PLACES, st.text(max_size=9)), min_size=count, max_size=count))
        ids = draw(st.lists(IDS, min_size=count, max_size=count))
    leaves = [
        leaf_of(epoch, first + index, time_ms, ids[index], author)
        for index, (epoch, time_ms, author) in enumerate(facts)
    ]
    headers = draw(st.one_of(st.just([]), st.lists(HEADERS, min_size=count, max_size=count)))
    payloads = draw(st.lists(st.binary(max_size=30), min_size=count, max_size=count))
    return Records(leaves, draw(st.binary(min_size=16 * count, max_size=16 * count)), payloads, headers)


def encode_frame(frame: codec.PostFrame) -> bytes:
    messages = frame.messages
    return codec.encode_post_frame(
        frame.sequence,
        messages.ids,
        messages.payloads,
        messages.headers,
        write_concern=frame.write_concern,
        timeout_ms=frame.timeout_ms,
    )


def decode_frame(data: bytes) -> codec.PostFrame:
    return codec.decode_post_frame(data, payload_bytes=50, frame_bytes=1 << 20)


@given(post_frames())
def test_a_post_frame_round_trips(frame: codec.PostFrame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


@given(MASTER_FRAMES)
def test_a_masters_frame_round_trips(frame: MasterFrame) -> None:
    assert codec.decode_master_frame(codec.encode_master_frame(frame)) == frame


@given(WORKER_FRAMES)
def test_a_workers_frame_round_trips(frame: WorkerFrame) -> None:
    assert codec.decode_worker_frame(codec.encode_worker_frame(frame)) == frame


@given(bodies())
def test_a_body_round_trips(records: Records) -> None:
    assert codec.decode_records(codec.encode_records(records)) == records


@given(st.lists(bodies(), max_size=3), st.integers(0, (1 << 64) - 1))
def test_a_list_response_gives_each_record_as_its_leaf_says(batches: list[Records], commit_size: int) -> None:
    data = codec.encode_list_response(commit_size, [codec.encode_records(each) for each in batches])
    size, lists = codec.decode_list_response(data)
    assert size == commit_size
    for records, decoded in zip(batches, lists, strict=True):
        for index, (leaf, record) in enumerate(zip(map(parse_leaf, records.leaves), decoded, strict=True)):
            headers = decode_headers(records.headers[index]) if records.headers else {}
            assert record == (
                leaf.offset,
                leaf.epoch,
                leaf.time_ms,
                leaf.id,
                leaf.author,
                headers,
                records.payloads[index],
                leaf.offset < commit_size,
                "replicad:encrypted" in headers,
                False,
            )


#: Every decoder with the errors that its docstring names, and a strategy for honest bytes to damage.
DECODERS: list[tuple[Callable[[bytes], object], tuple[type[Exception], ...], st.SearchStrategy[bytes]]] = [
    (decode_frame, (BadRequest, codec.FrameError), post_frames().map(encode_frame)),
    (
        lambda data: codec.decode_post_request(data, payload_bytes=50),
        (BadRequest, TooLarge),
        post_frames().map(encode_frame),
    ),
    (codec.decode_master_frame, (PeerError,), MASTER_FRAMES.map(codec.encode_master_frame)),
    (codec.decode_worker_frame, (PeerError,), WORKER_FRAMES.map(codec.encode_worker_frame)),
    (codec.decode_records, (PeerError,), bodies().map(codec.encode_records)),
    (
        codec.decode_list_response,
        (PeerError,),
        bodies().map(lambda each: codec.encode_list_response(7, [codec.encode_records(each)])),
    ),
    (codec.decode_post_results, (PeerError,), st.binary(max_size=60)),
    (codec.error_from_trailer, (), st.binary(max_size=60)),
]


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Callable[[bytes], object], tuple[type[Exception], ...], bytes]:
    decoder, documented, honest = draw(st.sampled_from(DECODERS))
    data = bytearray(draw(st.one_of(honest, st.binary(max_size=200))))
    for _ in range(draw(st.integers(1, 3))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["flip", "cut", "drop", "double"])):
            case "flip":
                data[at] ^= draw(st.integers(1, 255))
            case "cut":
                del data[at:]
            case "drop":
                del data[at]
            case _:
                data[at:at] = data[max(0, at - 8) : at]
    return decoder, documented, bytes(data)


@given(damaged())
def test_damaged_bytes_raise_only_what_is_documented(
    case: tuple[Callable[[bytes], object], tuple[type[Exception], ...], bytes],
) -> None:
    decoder, documented, data = case
    with suppress(*documented):
        decoder(data)
