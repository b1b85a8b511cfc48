"""Checks before a batch is taken in: each refusal has its own reason, and the caller's tree stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest

from replicad.core.batch import Append, Batch, statement_of
from replicad.core.check import check_batch, check_records
from replicad.core.keyring import Keyring, NodeKey
from replicad.core.record import LEAF_HEAD, Messages, Records, encode_headers
from replicad.core.tree import Tree, leaf_hashes
from replicad.core.voters import EpochLists
from replicad.errors import PeerError
from replicad.wire.codec import decode_records, encode_records
from tests.support.builders import CLUSTER, LogBuilder, keyring, messages, signer
from tests.support.golden import GOLDEN_BATCH


def check(
    batch: Batch,
    *,
    tree: Tree | None = None,
    last_epoch: int = 0,
    cluster: str = CLUSTER,
    keys: Keyring | None = None,
) -> tuple[Append, Tree]:
    return check_batch(
        batch,
        tree=tree or Tree(),
        last_epoch=last_epoch,
        cluster=cluster,
        keyring=keys or keyring(),
        decode=decode_records,
    )


def signed(batch: Batch, records: Records | None = None, *, root: bytes | None = None) -> Batch:
    """The log's first batch with these records, signed again by its signer: a faulty master's.

    The root is the one that the records give, unless it is said to be another.
    """
    body = batch.body if records is None else encode_records(records)
    after = Tree()
    after.append(leaf_hashes(decode_records(body).leaves))
    batch = replace(batch, body=body, root=root or after.root())
    statement = statement_of(batch, cluster=CLUSTER)
    return replace(batch, signature=signer(batch.signer).sign(statement))


def refusal(attempt: Callable[[], object]) -> str:
    """The reason of the PeerError that ``attempt`` ends with."""
    with pytest.raises(PeerError) as caught:
        attempt()
    return caught.value.reason


# --- taken ------------------------------------------------------------------------------------------------------


def test_the_golden_batch_passes_and_gives_the_append_that_its_sealer_gave() -> None:
    append, tree = check(GOLDEN_BATCH)
    assert append.batch is GOLDEN_BATCH
    assert append.ids == ["id-1", "id-2", "id-3"]
    assert (tree.size, tree.root()) == (3, GOLDEN_BATCH.root)


def test_a_whole_log_passes_batch_by_batch_with_the_tiles_its_sealer_made() -> None:
    log = LogBuilder("n1")
    log.add_epoch(1)
    for count in (100, 154, 1, 1, 300):
        log.add(count)
    log.add_epoch(4, node="n2")
    log.add(5)
    tree, last_epoch = Tree(), 0
    for append in log.appends:
        checked, tree = check(append.batch, tree=tree, last_epoch=last_epoch)
        last_epoch = append.batch.epoch
        assert checked == append
    assert tree.root() == log.tree.root()


def test_a_batch_that_passes_leaves_the_callers_tree_as_it_was() -> None:
    tree = Tree()
    check(GOLDEN_BATCH, tree=tree)
    assert (tree.size, tree.root()) == (0, Tree().root())


def test_a_later_batch_may_be_of_any_epoch_that_does_not_fall() -> None:
    log = LogBuilder(epoch=3)
    log.add()
    before = log.tree.copy()
    batch = log.fork(epoch=3).add().batch
    check(batch, tree=before, last_epoch=3)
    later = log.fork(epoch=9).add().batch
    check(later, tree=before, last_epoch=3)


# --- refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 3, 4])
def test_a_batch_that_does_not_begin_where_the_log_ends_is_refused_as_a_gap(size: int) -> None:
    log = LogBuilder()
    log.add(2)
    batch = log.add(1).batch
    other = LogBuilder()
    if size:
        other.add(size)
    assert refusal(lambda: check(batch, tree=other.tree, last_epoch=1)) == "gap"


def test_a_batch_of_a_lower_epoch_than_the_last_record_is_refused() -> None:
    assert refusal(lambda: check(GOLDEN_BATCH, last_epoch=4)) == "epoch"


def test_there_is_no_epoch_zero() -> None:
    assert refusal(lambda: check(LogBuilder(epoch=0).add().batch)) == "epoch"


def test_a_batch_signed_by_no_node_of_the_config_is_refused() -> None:
    assert refusal(lambda: check(GOLDEN_BATCH, keys=keyring(["n2", "n3"]))) == "signer"


def test_a_batch_of_another_cluster_does_not_verify() -> None:
    assert refusal(lambda: check(GOLDEN_BATCH, cluster="other")) == "signature"
    assert refusal(lambda: check(LogBuilder(cluster="other").add().batch)) == "signature"


def test_a_list_of_headers_that_are_all_empty_is_refused_because_one_log_has_one_form() -> None:
    batch = LogBuilder().add(2).batch
    records = decode_records(batch.body)
    assert refusal(lambda: check(signed(batch, replace(records, headers=[b"", b""])))) == "malformed"


def test_a_batch_under_another_nodes_name_does_not_verify() -> None:
    assert refusal(lambda: check(replace(GOLDEN_BATCH, signer="n2"))) == "signature"


def test_a_batch_under_another_nodes_key_does_not_verify() -> None:
    assert (
        refusal(lambda: check(GOLDEN_BATCH, keys=Keyring({"n1": [NodeKey("n2s", signer("n2").verifier)]})))
        == "signature"
    )


@pytest.mark.parametrize("signature", [b"", b"x", bytes(63), bytes(64), bytes(65), GOLDEN_BATCH.signature + b"\x00"])
def test_a_signature_that_is_none_is_refused(signature: bytes) -> None:
    assert refusal(lambda: check(replace(GOLDEN_BATCH, signature=signature))) == "signature"


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 4},
        {"count": 2},
        {"count": 4},
        {"time_ms": 1_700_000_000_001},
        {"root": bytes(32)},
    ],
)
def test_a_place_other_than_the_signed_one_does_not_verify(change: dict[str, int | bytes]) -> None:
    assert refusal(lambda: check(replace(GOLDEN_BATCH, **change))) == "signature"  # type: ignore[arg-type]


def test_the_signature_of_another_batch_of_the_same_master_does_not_verify() -> None:
    log = LogBuilder()
    first, second = log.add(2).batch, log.fork().add(2).batch
    assert refusal(lambda: check(replace(first, signature=second.signature))) == "signature"


def test_a_batch_of_another_history_is_refused_by_its_root() -> None:
    log = LogBuilder()
    other = log.fork(seed=1)
    log.add(2)
    other.add(2)
    batch = log.add(1).batch
    assert refusal(lambda: check(batch, tree=other.tree, last_epoch=1)) == "root"


def test_a_root_that_the_records_do_not_give_is_refused_though_it_is_signed() -> None:
    assert signed(GOLDEN_BATCH) == GOLDEN_BATCH
    assert refusal(lambda: check(signed(GOLDEN_BATCH, root=bytes(32)))) == "root"


# --- records that do not fit, under a good signature ------------------------------------------------------------


def faulty(change: Callable[[Records], Records], batch: Batch = GOLDEN_BATCH) -> Batch:
    """A batch whose records are changed so, and signed over as they are."""
    return signed(batch, change(decode_records(batch.body)))


def replaced(items: object, at: int, item: bytes) -> list[bytes]:
    assert isinstance(items, list)
    return [*items[:at], item, *items[at + 1 :]]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_count_other_than_that_of_the_records_is_malformed(count: int) -> None:
    assert refusal(lambda: check(signed(replace(GOLDEN_BATCH, count=count)))) == "malformed"


def test_a_batch_of_no_records_is_malformed() -> None:
    empty = signed(replace(GOLDEN_BATCH, count=0), Records([], b"", [], []))
    assert refusal(lambda: check(empty)) == "malformed"


@pytest.mark.parametrize("body", [b"", b"\xff", GOLDEN_BATCH.body[:-1], GOLDEN_BATCH.body + b"\x0a"])
def test_a_body_that_does_not_decode_is_malformed(body: bytes) -> None:
    assert refusal(lambda: check(replace(GOLDEN_BATCH, body=body))) == "malformed"


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("byte", [0, 8, 16, 24])  # the last bytes of version, epoch, offset and time
def test_a_leaf_of_another_version_epoch_offset_or_time_is_refused(at: int, byte: int) -> None:
    def change(records: Records) -> Records:
        leaf = bytearray(records.leaves[at])
        leaf[byte] ^= 1
        return replace(records, leaves=replaced(records.leaves, at, bytes(leaf)))

    assert refusal(lambda: check(faulty(change))) == "leaf"


@pytest.mark.parametrize("length", [0, 24, 25, LEAF_HEAD.size - 1, LEAF_HEAD.size, LEAF_HEAD.size + 1])
def test_a_leaf_that_is_too_short_for_what_it_says_is_refused(length: int) -> None:
    def change(records: Records) -> Records:
        return replace(records, leaves=replaced(records.leaves, 1, records.leaves[1][:length]))

    assert refusal(lambda: check(faulty(change))) == "leaf"


def test_a_leaf_with_bytes_to_spare_is_refused() -> None:
    def change(records: Records) -> Records:
        return replace(records, leaves=replaced(records.leaves, 2, records.leaves[2] + b"x"))

    assert refusal(lambda: check(faulty(change))) == "leaf"


def test_a_leaf_without_an_id_is_refused() -> None:
    def change(records: Records) -> Records:
        leaf = bytearray(records.leaves[0])
        leaf[LEAF_HEAD.size - 2 : LEAF_HEAD.size] = bytes((0, len(leaf) - LEAF_HEAD.size))
        return replace(records, leaves=replaced(records.leaves, 0, bytes(leaf)))

    assert refusal(lambda: check(faulty(change))) == "leaf"


def test_an_id_that_is_not_ascii_is_refused() -> None:
    def change(records: Records) -> Records:
        leaf = bytearray(records.leaves[0])
        leaf[LEAF_HEAD.size] = 0xE9
        return replace(records, leaves=replaced(records.leaves, 0, bytes(leaf)))

    assert refusal(lambda: check(faulty(change))) == "leaf"


@pytest.mark.parametrize("payload", [b"", b"hell", b"hello\x00", b"hellp"])
def test_a_payload_other_than_the_one_its_leaf_was_made_of_is_refused(payload: bytes) -> None:
    def change(records: Records) -> Records:
        return replace(records, payloads=replaced(records.payloads, 0, payload))

    assert refusal(lambda: check(faulty(change))) == "payload"


def test_a_payload_length_in_the_leaf_that_is_not_the_payloads_is_refused() -> None:
    def change(records: Records) -> Records:
        leaf = bytearray(records.leaves[0])
        leaf[28] ^= 1
        return replace(records, leaves=replaced(records.leaves, 0, bytes(leaf)))

    assert refusal(lambda: check(faulty(change))) == "payload"


def test_a_salt_other_than_the_one_its_leaf_was_made_with_is_refused() -> None:
    for at in (0, 15, 16, 47):

        def change(records: Records, at: int = at) -> Records:
            salts = bytearray(records.salts)
            salts[at] ^= 0x80
            return replace(records, salts=bytes(salts))

        assert refusal(lambda change=change: check(faulty(change))) == "payload"  # type: ignore[misc]


def test_headers_other_than_the_ones_their_leaf_was_made_of_are_refused() -> None:
    def change_one(records: Records) -> Records:
        return replace(records, headers=replaced(records.headers, 0, encode_headers({"a": "y"})))

    def add_one(records: Records) -> Records:
        return replace(records, headers=replaced(records.headers, 2, records.headers[0]))

    def drop_all(records: Records) -> Records:
        return replace(records, headers=[])

    for change in (change_one, add_one, drop_all):
        assert refusal(lambda change=change: check(faulty(change))) == "headers"  # type: ignore[misc]


def test_headers_that_a_batch_without_headers_was_given_are_refused() -> None:
    batch = LogBuilder(epoch=1).add(2).batch

    def change(records: Records) -> Records:
        return replace(records, headers=[b"", encode_headers({"k": "v"})])

    assert refusal(lambda: check(faulty(change, batch))) == "headers"


def test_records_in_another_order_are_refused() -> None:
    def change(records: Records) -> Records:
        salts = records.salts
        return Records(
            [records.leaves[1], records.leaves[0], records.leaves[2]],
            salts[16:32] + salts[:16] + salts[32:],
            [records.payloads[1], records.payloads[0], records.payloads[2]],
            [records.headers[1], records.headers[0], records.headers[2]],
        )

    assert refusal(lambda: check(faulty(change))) == "leaf"


@pytest.mark.parametrize("field", ["leaves", "payloads", "headers"])
def test_a_missing_record_part_is_malformed(field: str) -> None:
    records = decode_records(GOLDEN_BATCH.body)
    body = encode_records(replace(records, **{field: getattr(records, field)[:-1]}))
    assert refusal(lambda: check(replace(GOLDEN_BATCH, body=body))) == "malformed"


def test_missing_salts_are_malformed() -> None:
    body = encode_records(replace(decode_records(GOLDEN_BATCH.body), salts=bytes(47)))
    assert refusal(lambda: check(replace(GOLDEN_BATCH, body=body))) == "malformed"


def test_a_refused_batch_leaves_the_callers_tree_as_it_was() -> None:
    log = LogBuilder()
    log.add(300)
    tree, root = log.tree.copy(), log.tree.root()
    batch = log.add(3).batch
    wrong_root = signed(batch, root=bytes(32))
    wrong_body = replace(batch, body=GOLDEN_BATCH.body)
    for bad, reason in (
        (replace(batch, first_offset=9), "gap"),
        (replace(batch, signature=bytes(64)), "signature"),
        (wrong_body, "leaf"),
        (wrong_root, "root"),
    ):
        assert refusal(lambda bad=bad: check(bad, tree=tree, last_epoch=1)) == reason  # type: ignore[misc]
        assert (tree.size, tree.root()) == (300, root)


def test_check_records_names_the_offset_at_fault() -> None:
    log = LogBuilder()
    log.add(41)
    batch = log.add(3).batch
    records = decode_records(batch.body)
    payloads = replaced(records.payloads, 1, b"forged")
    with pytest.raises(PeerError, match="payload at offset 42 is not"):
        check_records(batch, replace(records, payloads=payloads))


def test_check_records_reads_the_salt_of_each_record_at_its_own_place() -> None:
    payload = b"same"
    append = LogBuilder().add_messages(Messages(["a", "b"], [payload, payload], [], 8))
    records = decode_records(append.batch.body)
    assert check_records(append.batch, records) == ["a", "b"]
    digests = [leaf[29:61] for leaf in records.leaves]
    assert digests == [sha256(records.salts[at : at + 16] + payload).digest() for at in (0, 16)]


# --- an epoch's first record ------------------------------------------------------------------------------------


def begun(payload: bytes, *, message_id: str = "replicad:epoch:2") -> Batch:
    """The first batch of a log, of epoch 2, whose first record is this."""
    log = LogBuilder("n1", epoch=2)
    return log.add_messages(messages(message_id, payloads=[payload]), author="node:n1").batch


def test_what_an_epochs_first_record_says_of_voters_comes_with_the_append() -> None:
    lists = EpochLists(("n1", "n4"), (("n1", "n2", "n3"),))
    assert check(begun(lists.encode()))[0].lists == lists
    assert check(begun(b""))[0].lists is None, "a record of release 0.1 says nothing"


@pytest.mark.parametrize("payload", [b"{}", b'{"voters":["n2","n1"]}', b'{"voters":["n1"]} ', b"x" * 100_000])
def test_an_epochs_first_record_that_says_what_is_no_list_is_malformed(payload: bytes) -> None:
    assert refusal(lambda: check(begun(payload))) == "malformed"


def test_only_the_first_record_of_an_epoch_is_looked_at() -> None:
    assert check(begun(b"{}", message_id="a message"))[0].lists is None
    assert check(begun(b"{}"), last_epoch=2)[0].lists is None
