"""Whatever is changed in a batch on its way, the check refuses it and the caller's tree stays as it was."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from replicad.core.batch import Append, Batch
from replicad.core.check import check_batch
from replicad.core.frames import AppendBatch
from replicad.core.record import Messages, Records
from replicad.core.tree import Tree
from replicad.errors import PeerError
from replicad.wire.codec import (
    decode_master_frame,
    decode_records,
    encode_master_frame,
    encode_records,
)
from tests.support.builders import CLUSTER, LogBuilder, keyring, messages

PLACES = st.integers(0, (1 << 63) - 1)
BEFORE = 3  # records in the log before the batch under attack


def attacked(*parts: Messages) -> tuple[Tree, Batch]:
    """A log's tree, and the honest batch that comes next."""
    log = LogBuilder()
    log.add(BEFORE)
    tree = log.tree.copy()
    return tree, log.add_messages(*parts).batch


PLAIN = attacked(messages("a", "b", payloads=[b"first", b""]))
WITH_HEADERS = attacked(messages("a", "b", "c", headers=[{"k": "v"}, {}, {"long": "x" * 200}]))
SINGLE = attacked(messages("only", payloads=[b"x" * 300]))
SINGLE_WITH_HEADERS = attacked(messages("only", headers=[{"k": "v"}]))
SINGLE_WITH_EMPTY_HEADERS = attacked(messages("only", headers=[{}]))
ALL = st.sampled_from([PLAIN, WITH_HEADERS, SINGLE, SINGLE_WITH_HEADERS, SINGLE_WITH_EMPTY_HEADERS])


def check(tree: Tree, batch: Batch, *, cluster: str = CLUSTER, last_epoch: int = 1) -> tuple[Append, Tree]:
    return check_batch(
        batch, tree=tree, last_epoch=last_epoch, cluster=cluster, keyring=keyring(), decode=decode_records
    )


def assert_refused(tree: Tree, batch: Batch) -> str:
    """The batch is refused with a PeerError, and nothing has changed; its reason."""
    size, root = tree.size, tree.root()
    try:
        check(tree, batch)
    except PeerError as exc:
        assert (tree.size, tree.root()) == (size, root)
        return exc.reason
    raise AssertionError(f"taken in: {batch}")


def test_the_honest_batches_pass() -> None:
    for tree, batch in (PLAIN, WITH_HEADERS, SINGLE, SINGLE_WITH_HEADERS, SINGLE_WITH_EMPTY_HEADERS):
        _, after = check(tree, batch)
        assert (after.size, after.root()) == (batch.end, batch.root)


def test_every_byte_of_the_body_changed_to_every_other_value_near_it_is_refused() -> None:
    """All bytes, and for each the changes that matter to an encoding: each bit, and the neighbours."""
    for tree, batch in (PLAIN, SINGLE_WITH_HEADERS, SINGLE_WITH_EMPTY_HEADERS):
        for at, byte in enumerate(batch.body):
            others = {byte ^ (1 << bit) for bit in range(8)} | {(byte + 1) % 256, (byte - 1) % 256, 0, 255}
            for other in others - {byte}:
                body = batch.body[:at] + bytes((other,)) + batch.body[at + 1 :]
                assert_refused(tree, replace(batch, body=body))


@given(ALL, st.data())
@settings(deadline=None, max_examples=400)
def test_any_byte_changed_anywhere_in_the_body_is_refused(pair: tuple[Tree, Batch], data: st.DataObject) -> None:
    tree, batch = pair
    at = data.draw(st.integers(0, len(batch.body) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != batch.body[at]))
    body = batch.body[:at] + bytes((other,)) + batch.body[at + 1 :]
    assert_refused(tree, replace(batch, body=body))


@given(ALL, st.data())
@settings(deadline=None, max_examples=200)
def test_a_body_that_is_cut_short_is_refused(pair: tuple[Tree, Batch], data: st.DataObject) -> None:
    tree, batch = pair
    body = batch.body[: data.draw(st.integers(0, len(batch.body) - 1))]
    assert_refused(tree, replace(batch, body=body))


@given(ALL, st.data())
@settings(deadline=None, max_examples=200)
def test_any_byte_changed_in_root_or_signature_is_refused(pair: tuple[Tree, Batch], data: st.DataObject) -> None:
    tree, batch = pair
    name = data.draw(st.sampled_from(["root", "signature"]))
    value: bytes = getattr(batch, name)
    at = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != value[at]))
    changes: dict[str, Any] = {name: value[:at] + bytes((other,)) + value[at + 1 :]}
    assert assert_refused(tree, replace(batch, **changes)) == "signature"


@given(
    ALL,
    st.fixed_dictionaries(
        {},
        optional={
            "epoch": PLACES,
            "first_offset": PLACES,
            "count": st.integers(0, (1 << 32) - 1),
            "time_ms": PLACES,
            "root": st.binary(max_size=40),
            "signer": st.sampled_from(["n1", "n2", "n3", "", "stranger"]) | st.text(max_size=10),
            "signature": st.binary(max_size=70),
        },
    ),
)
@settings(deadline=None, max_examples=300)
def test_any_other_value_of_any_field_is_refused(pair: tuple[Tree, Batch], changes: dict[str, Any]) -> None:
    tree, batch = pair
    other = replace(batch, **changes)
    assume(other != batch)
    assert_refused(tree, other)


def test_every_field_of_a_batch_is_attacked_here() -> None:
    """A field that is added to Batch needs its attack: this fails until it has one."""
    attacked_fields = {"epoch", "first_offset", "count", "time_ms", "root", "signer", "signature", "body"}
    assert {field.name for field in fields(Batch)} == attacked_fields


@given(ALL, st.data())
@settings(deadline=None, max_examples=400)
def test_any_byte_changed_in_a_frame_on_the_wire_changes_nothing_that_is_signed(
    pair: tuple[Tree, Batch], data: st.DataObject
) -> None:
    """The whole frame, through the real codec: it does not decode, is refused, or still holds the same records.

    The commit size beside the batch is not signed: it is the session's word, not the log's.
    """
    tree, batch = pair
    frame = encode_master_frame(AppendBatch(batch, commit_size=1))
    at = data.draw(st.integers(0, len(frame) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != frame[at]))
    try:
        decoded = decode_master_frame(frame[:at] + bytes((other,)) + frame[at + 1 :])
        if not isinstance(decoded, AppendBatch):
            return  # another kind of frame: none of them carries records
        append, after = check(tree, decoded.batch)
    except PeerError:
        assert (tree.size, tree.root()) == (BEFORE, tree.root())
        return
    assert append.batch == batch
    assert after.root() == batch.root


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_records_in_any_other_order_are_refused(data: st.DataObject) -> None:
    tree, batch = WITH_HEADERS
    records = decode_records(batch.body)
    order = data.draw(st.permutations(range(len(records))))
    assume(order != list(range(len(records))))
    salts = [records.salts[16 * at : 16 * at + 16] for at in order]
    shuffled = Records(
        [records.leaves[at] for at in order],
        b"".join(salts),
        [records.payloads[at] for at in order],
        [records.headers[at] for at in order],
    )
    assert assert_refused(tree, replace(batch, body=encode_records(shuffled))) == "leaf"


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_payloads_salts_or_headers_that_changed_places_are_refused(data: st.DataObject) -> None:
    tree, batch = attacked(messages("a", "b", "c", headers=[{"k": "1"}, {"k": "2"}, {"k": "3"}]))
    records = decode_records(batch.body)
    order = data.draw(st.permutations(range(3)))
    assume(order != [0, 1, 2])
    kind = data.draw(st.sampled_from(["payloads", "salts", "headers"]))
    if kind == "salts":
        changed = replace(records, salts=b"".join(records.salts[16 * at : 16 * at + 16] for at in order))
    else:
        parts: dict[str, Any] = {kind: [getattr(records, kind)[at] for at in order]}
        changed = replace(records, **parts)
    reason = assert_refused(tree, replace(batch, body=encode_records(changed)))
    assert reason == ("headers" if kind == "headers" else "payload")


@given(st.sampled_from(["leaves", "payloads", "headers"]), st.integers(0, 2))
def test_a_record_part_that_is_left_out_is_refused(kind: str, at: int) -> None:
    tree, batch = WITH_HEADERS
    records = decode_records(batch.body)
    left = list(getattr(records, kind))
    del left[at]
    changes: dict[str, Any] = {kind: left}
    body = encode_records(replace(records, **changes))
    assert assert_refused(tree, replace(batch, body=body)) == "malformed"


@given(st.integers(0, 2))
def test_a_whole_record_that_is_left_out_is_refused(at: int) -> None:
    tree, batch = WITH_HEADERS
    records = decode_records(batch.body)
    one, rest = records.cut(0, at), records.cut(at + 1, 3)
    left = Records(
        [*one.leaves, *rest.leaves],
        one.salts + rest.salts,
        [*one.payloads, *rest.payloads],
        [*one.headers, *rest.headers],
    )
    assert assert_refused(tree, replace(batch, body=encode_records(left))) == "malformed"
    assert assert_refused(tree, replace(batch, body=encode_records(left), count=2)) == "signature"


@given(st.binary(max_size=200))
@example(b"")
def test_garbage_in_place_of_the_body_is_refused(body: bytes) -> None:
    tree, batch = PLAIN
    assert assert_refused(tree, replace(batch, body=body)) in {"malformed", "leaf"}
