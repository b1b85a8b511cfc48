"""The contract of replicad.storage.interface, kept by both stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from replicad.core.batch import Append, Batch
from replicad.core.effects import Effect, FindIds, ReadContent, Submit
from replicad.core.posts import Posts
from replicad.core.start import EpochRecord
from replicad.core.tree import EMPTY_ROOT, Tree, leaf_hashes
from replicad.core.voters import EpochLists
from replicad.errors import DuplicateIdError, InvariantError
from replicad.runtime import read_contents
from replicad.storage.interface import Store
from replicad.storage.memory import MemoryStore
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records
from tests.storage_log import CLUSTER, NODE, LogMaker
from tests.support.builders import LogBuilder, messages
from tests.support.transcript import show_all

EVERYTHING = 1 << 62


class Opened:
    """A store, and how to have it after a restart."""

    def __init__(self, start: Callable[[Store | None], Store]) -> None:
        self._start = start
        self.store = start(None)

    def restart(self) -> Store:
        self.store = self._start(self.store)
        return self.store


@pytest.fixture(params=["sqlite", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    def start_sqlite(old: Store | None) -> Store:
        if old is not None:
            old.close()
        return SqliteStore(tmp_path / "data", cluster=CLUSTER, node=NODE, decode_records=decode_records)

    def start_memory(old: Store | None) -> Store:
        return old.copy() if isinstance(old, MemoryStore) else MemoryStore(decode_records)

    box = Opened(start_sqlite if request.param == "sqlite" else start_memory)
    yield box
    box.store.close()


@pytest.fixture
def store(opened: Opened) -> Store:
    return opened.store


@pytest.fixture
def log() -> LogMaker:
    return LogMaker()


def everything(store: Store) -> list[Batch]:
    return store.read(0, max_bytes=EVERYTHING)


def batches_of(appends: list[Append]) -> list[Batch]:
    return [append.batch for append in appends]


def test_a_new_store_is_empty(store: Store) -> None:
    state = store.load()
    assert state.epoch_record is None
    assert (state.size, state.last_epoch, state.commit_size) == (0, 0, 0)
    assert (state.promised_epoch, state.promised_to, state.greatest_id) == (0, "", "")
    assert state.tree.root() == EMPTY_ROOT == store.root_at(0)
    assert everything(store) == []
    assert store.find_ids(["a"]) == {}
    assert store.tile(0, 0) is None


def test_what_is_appended_is_read_back_byte_for_byte_also_after_a_restart(opened: Opened, log: LogMaker) -> None:
    appends = [log.append(1), log.append(3, with_headers=True), log.append(2, payload_bytes=0)]
    opened.store.append(appends[:1], commit_size=0)
    opened.store.append(appends[1:], commit_size=0)
    assert everything(opened.store) == batches_of(appends)
    assert everything(opened.restart()) == batches_of(appends)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 511, 512, 600, 65535, 65536, 65793])
def test_a_restart_has_the_tree_at_every_kind_of_edge(opened: Opened, log: LogMaker, size: int) -> None:
    first = min(size, 200)
    opened.store.append(log.appends(first), commit_size=0)
    while log.size < size:
        opened.store.append([log.append(min(7000, size - log.size))], commit_size=0)
    state = opened.restart().load()
    assert state.size == state.tree.size == size
    assert state.tree.root() == log.tree.root()
    more = log.append(300)  # the maker's tree and the restored one go on alike, tiles included
    assert state.tree.append(_leaf_hashes(more)) == more.tiles
    assert state.tree.root() == more.batch.root


def test_a_restart_restores_the_tree_from_many_small_batches(opened: Opened, log: LogMaker) -> None:
    for _ in range(300):
        opened.store.append([log.append()], commit_size=0)
    assert opened.restart().load().tree.root() == log.tree.root()


def test_the_tree_given_out_is_the_callers_own(store: Store, log: LogMaker) -> None:
    store.append([log.append(3)], commit_size=0)
    store.load().tree.append([b"x" * 32])
    assert store.load().tree.root() == log.tree.root()


def test_the_state_after_a_restart_is_what_was_stored_last(opened: Opened, log: LogMaker) -> None:
    opened.store.set_promise(2, "node-2")
    log.epoch = 2
    opened.store.append(log.appends(2, 3), commit_size=2)
    opened.store.set_promise(4, "node-3")
    opened.store.set_commit_size(4)
    state = opened.restart().load()
    assert (state.size, state.last_epoch, state.commit_size) == (5, 2, 4)
    assert (state.promised_epoch, state.promised_to) == (4, "node-3")


def test_more_batches_than_one_statement_takes_are_one_append(opened: Opened, log: LogMaker) -> None:
    appends = [log.append(1 + number % 3) for number in range(250)]
    opened.store.append(appends, commit_size=7)
    store = opened.restart()
    assert everything(store) == batches_of(appends)
    assert store.load().tree.root() == log.tree.root()
    assert store.find_ids([appends[-1].ids[-1]]) == {appends[-1].ids[-1]: log.size - 1}
    assert store.tile(0, 0) is not None


def test_an_append_of_nothing_stores_the_commit_size(opened: Opened, log: LogMaker) -> None:
    opened.store.append([log.append(2)], commit_size=0)
    opened.store.append([], commit_size=2)
    assert opened.restart().load().commit_size == 2


# --- what a caller may not do -----------------------------------------------------------------------------------


def unchanged(store: Store, log: LogMaker, appends: list[Append]) -> bool:
    state = store.load()
    ids = [message_id for append in appends for message_id in append.ids]
    return (
        everything(store) == batches_of(appends)
        and state.size == log.size
        and state.tree.root() == log.tree.root()
        and store.find_ids(ids) == {message_id: offset for offset, message_id in enumerate(ids)}
    )


@pytest.mark.parametrize("gap", [-1, 1])
def test_a_batch_that_does_not_follow_is_refused_and_changes_nothing(store: Store, log: LogMaker, gap: int) -> None:
    appends = log.appends(3)
    store.append(appends, commit_size=0)
    kept = log.tree.copy()
    wrong = log.append(2)
    log.rewind(kept)
    batch = replace(wrong.batch, first_offset=wrong.batch.first_offset + gap)
    with pytest.raises(InvariantError):
        store.append([replace(wrong, batch=batch)], commit_size=0)
    assert unchanged(store, log, appends)


@pytest.mark.parametrize("before", [0, 1, 40])
def test_an_id_that_is_in_the_log_is_refused_and_changes_nothing(store: Store, log: LogMaker, before: int) -> None:
    appends = log.appends(300)
    store.append(appends, commit_size=0)
    kept = log.tree.copy()
    wrong = [*log.appends(*[10] * before), log.append(ids=["new", appends[0].ids[7]])]
    log.rewind(kept)
    with pytest.raises(DuplicateIdError):
        store.append(wrong, commit_size=301)
    assert unchanged(store, log, appends)
    assert store.find_ids(["new"]) == {}
    assert store.load().commit_size == 0


@pytest.mark.parametrize("batches", [(["a", "b", "a"],), (["a"], ["b", "a"])])
def test_an_id_that_stands_twice_in_an_append_is_refused(
    store: Store, log: LogMaker, batches: tuple[list[str], ...]
) -> None:
    with pytest.raises(DuplicateIdError):
        store.append([log.append(ids=ids) for ids in batches], commit_size=0)
    assert store.load().size == 0
    assert store.find_ids(["a", "b"]) == {}


def test_an_append_goes_on_after_one_that_was_refused(store: Store, log: LogMaker) -> None:
    kept = log.tree.copy()
    with pytest.raises(DuplicateIdError):
        store.append([log.append(ids=["a", "a"])], commit_size=0)
    log.rewind(kept)
    appends = [log.append(ids=["a", "b"])]
    store.append(appends, commit_size=0)
    assert unchanged(store, log, appends)


def test_ids_and_count_must_fit(store: Store, log: LogMaker) -> None:
    append = log.append(2)
    with pytest.raises(InvariantError):
        store.append([replace(append, ids=["only one"])], commit_size=0)
    assert store.load().size == 0


def test_a_commit_size_beyond_the_log_is_refused(store: Store, log: LogMaker) -> None:
    store.append([log.append(2)], commit_size=0)
    with pytest.raises(InvariantError):
        store.set_commit_size(3)
    with pytest.raises(InvariantError):
        store.append([log.append(2)], commit_size=5)
    assert store.load().size == 2
    assert store.load().commit_size == 0


def test_the_commit_size_never_falls(opened: Opened, log: LogMaker) -> None:
    opened.store.append([log.append(5)], commit_size=4)
    opened.store.set_commit_size(2)
    opened.store.append([log.append(5)], commit_size=3)
    assert opened.store.load().commit_size == 4
    assert opened.restart().load().commit_size == 4


def test_a_promise_never_falls_and_an_epoch_has_one_master(opened: Opened) -> None:
    opened.store.set_promise(3, "node-1")
    opened.store.set_promise(3, "node-1")
    with pytest.raises(InvariantError):
        opened.store.set_promise(2, "node-1")
    with pytest.raises(InvariantError):
        opened.store.set_promise(3, "node-2")
    for state in (opened.store.load(), opened.restart().load()):
        assert (state.promised_epoch, state.promised_to) == (3, "node-1")


def test_a_closed_store_answers_nothing(store: Store, log: LogMaker) -> None:
    store.close()
    store.close()
    with pytest.raises(InvariantError):
        store.append([log.append()], commit_size=0)
    with pytest.raises(InvariantError):
        store.read(0, max_bytes=1)


# --- reading ----------------------------------------------------------------------------------------------------


def test_a_read_begins_with_the_batch_that_holds_the_offset(store: Store, log: LogMaker) -> None:
    batches = batches_of(appends := log.appends(3, 3, 3))
    store.append(appends, commit_size=0)
    assert store.read(2, max_bytes=EVERYTHING) == batches
    assert store.read(3, max_bytes=EVERYTHING) == batches[1:]
    assert store.read(5, max_bytes=EVERYTHING) == batches[1:]
    assert store.read(8, max_bytes=EVERYTHING) == batches[2:]
    assert store.read(9, max_bytes=EVERYTHING) == []
    assert store.read(10, max_bytes=EVERYTHING) == []


def test_a_read_takes_the_batches_that_begin_below_its_end(store: Store, log: LogMaker) -> None:
    batches = batches_of(appends := log.appends(3, 3, 3))
    store.append(appends, commit_size=0)
    assert store.read(0, max_bytes=EVERYTHING, until_offset=0) == []
    assert store.read(0, max_bytes=EVERYTHING, until_offset=3) == batches[:1]
    assert store.read(0, max_bytes=EVERYTHING, until_offset=4) == batches[:2]
    assert store.read(4, max_bytes=EVERYTHING, until_offset=9) == batches[1:]


def test_a_read_ends_when_it_has_its_bytes_and_always_gets_one_batch(store: Store, log: LogMaker) -> None:
    batches = batches_of(appends := log.appends(2, 2, 2, 2))
    store.append(appends, commit_size=0)
    first, second = (len(batch.body) for batch in batches[:2])
    assert store.read(0, max_bytes=0) == batches[:1]
    assert store.read(0, max_bytes=first) == batches[:1]
    assert store.read(0, max_bytes=first + 1) == batches[:2]
    assert store.read(0, max_bytes=first + second + 1) == batches[:3]


def test_a_read_by_time_gives_exactly_the_batches_of_that_time(store: Store, log: LogMaker) -> None:
    batches = batches_of(appends := log.appends(*[2] * 10))
    store.append(appends, commit_size=0)
    start = batches[0].time_ms

    def between(since: int, until: int, from_offset: int = 0, until_offset: int = 100) -> list[Batch]:
        return store.read_time(
            from_offset,
            since_ms=start + since,
            until_ms=start + until,
            max_bytes=EVERYTHING,
            until_offset=until_offset,
        )

    assert between(0, 10) == batches
    assert between(3, 5) == batches[3:5]
    assert between(3, 5, from_offset=9) == batches[4:5]
    assert between(3, 9, until_offset=9) == batches[3:5]
    assert between(5, 5) == []
    assert between(10, 99) == []
    assert between(-9, 0) == []


def test_a_read_by_time_finds_all_when_the_clock_has_stepped_back(store: Store, log: LogMaker) -> None:
    appends = []
    for time_ms in (100, 200, 50, 150, 300, 150, 10, 160):
        log.time_ms = time_ms - 1
        appends.append(log.append(2))
    store.append(appends, commit_size=0)
    batches = batches_of(appends)
    found = store.read_time(0, since_ms=150, until_ms=201, max_bytes=EVERYTHING, until_offset=100)
    assert found == [batches[1], batches[3], batches[5], batches[7]]


def test_a_read_by_time_ends_when_it_has_its_bytes(store: Store, log: LogMaker) -> None:
    batches = batches_of(appends := log.appends(*[2] * 10))
    store.append(appends, commit_size=0)
    found = store.read_time(0, since_ms=batches[4].time_ms, until_ms=EVERYTHING, max_bytes=1, until_offset=100)
    assert found == batches[4:5]


def test_ids_are_found_with_their_offsets_and_others_are_left_out(opened: Opened, log: LogMaker) -> None:
    odd = ['quote"s', "back\\slash", "per%cent", "{}", "ü".encode("ascii", "backslashreplace").decode(), " ", "'", "~"]
    opened.store.append([log.append(ids=odd), log.append(5000)], commit_size=0)
    wanted = [*odd, "nobody", "id-000000100", "id-000005007", "id-000005008"]
    expected = {message_id: offset for offset, message_id in enumerate(odd)}
    expected |= {"id-000000100": 100, "id-000005007": 5007}
    assert opened.store.find_ids(wanted) == expected
    assert opened.restart().find_ids(wanted) == expected
    assert opened.store.find_ids([]) == {}


def test_the_greatest_id_is_in_string_order_and_not_the_logs_own(opened: Opened, log: LogMaker) -> None:
    opened.store.append([log.append(ids=["replicad:epoch:1"])], commit_size=0)
    assert opened.store.load().greatest_id == ""
    opened.store.append([log.append(ids=["a", "Z", "9"])], commit_size=0)
    assert opened.store.load().greatest_id == "a"
    opened.store.append([log.append(ids=["replicad9", "replicad:epoch:2"])], commit_size=0)
    assert opened.restart().load().greatest_id == "replicad9"
    opened.store.append([log.append(ids=["replicad;", "b"])], commit_size=0)
    assert opened.restart().load().greatest_id == "replicad;"


def test_tiles_are_kept_as_they_were_given(store: Store, log: LogMaker) -> None:
    appends = log.appends(255, 2, 600, 1, 300)
    store.append(appends[:2], commit_size=0)
    for append in appends[2:]:
        store.append([append], commit_size=0)
    newest = {(tile.level, tile.index): tile.hashes for append in appends for tile in append.tiles}
    assert set(newest) == {(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)}
    for (level, index), hashes in newest.items():
        assert store.tile(level, index) == hashes
    assert store.tile(0, 4) is None
    assert store.tile(1, 1) is None
    assert store.tile(2, 0) is None


def test_the_root_at_every_size_is_the_one_the_log_had_then(store: Store, log: LogMaker) -> None:
    roots = {0: EMPTY_ROOT}
    for count in (1, 1, 253, 1, 1, 255, 100, 300, 1):
        append = log.append(count)
        store.append([append], commit_size=0)
        roots[append.batch.end] = append.batch.root
    for size, root in roots.items():
        assert store.root_at(size) == root
    naive = Tree()
    for batch in everything(store):
        for leaf in _leaf_hashes(batch):
            naive.append([leaf])
            assert store.root_at(naive.size) == naive.root()
    with pytest.raises(InvariantError):
        store.root_at(log.size + 1)


def test_threads_read_while_one_writes_and_see_whole_batches_only(store: Store, log: LogMaker) -> None:
    store.append([log.append(3)], commit_size=0)

    def read_on(_: int) -> int:
        seen = 0
        for _ in range(40):
            batches = store.read(0, max_bytes=EVERYTHING)
            assert [batch.first_offset for batch in batches] == [0, *(batch.end for batch in batches[:-1])]
            size = batches[-1].end
            assert size >= seen
            assert store.root_at(size) == batches[-1].root
            seen = size
        return seen

    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(read_on, number) for number in range(4)]
        for _ in range(60):
            store.append([log.append(5)], commit_size=0)
        assert all(read.result() >= 3 for read in reads)
    assert store.load().tree.root() == log.tree.root()


def test_the_first_record_of_the_last_epoch_is_known_with_what_it_says_also_after_a_truncation(opened: Opened) -> None:
    log = LogBuilder("n1")
    log.add_epoch(1)
    log.add(300)
    log.add_epoch(2, lists=EpochLists(("n1", "n2")))
    log.add(2)
    opened.store.append(log.appends, commit_size=0)
    payload = b'{"voters":["n1","n2"]}'
    assert opened.store.load().epoch_record == EpochRecord(301, payload)
    opened.store.truncate(302)
    assert opened.store.load().epoch_record == opened.restart().load().epoch_record == EpochRecord(301, payload)
    opened.store.truncate(301)
    assert opened.store.load().epoch_record == opened.restart().load().epoch_record == EpochRecord(0, b"")
    opened.store.truncate(0)
    assert opened.store.load().epoch_record is None


def test_a_log_whose_last_epoch_has_no_first_record_says_so(store: Store) -> None:
    log = LogBuilder("n1")
    log.add_epoch(1)
    log.epoch = 2
    log.add(1)
    store.append(log.appends, commit_size=0)
    assert store.load().epoch_record is None


# --- truncating -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(1,), (3, 2), (256,), (255, 1), (300, 300), (65530, 6, 20), (65536, 70000)])
@pytest.mark.parametrize("dropped", [(1,), (255, 1, 1), (300, 66000)])
def test_a_truncated_log_is_as_if_the_rest_had_never_been(
    opened: Opened, counts: tuple[int, ...], dropped: tuple[int, ...]
) -> None:
    log, twin = LogMaker(), LogMaker()
    kept = log.appends(*counts)
    twin.appends(*counts)
    opened.store.append(kept, commit_size=log.size)
    size, tree, after = log.size, log.tree.copy(), log.appends(*dropped)
    opened.store.append(after, commit_size=0)

    left = opened.store.truncate(size)

    assert left.root() == tree.root()
    assert left.size == size
    assert everything(opened.store) == batches_of(kept)
    gone = [message_id for append in after for message_id in (append.ids[0], append.ids[-1])]
    assert opened.store.find_ids(gone) == {}
    assert opened.store.tile(0, size // 256) is None
    state = opened.restart().load()
    assert (state.size, state.commit_size, state.tree.root()) == (size, size, tree.root())
    assert state.greatest_id == kept[-1].ids[-1]
    _same_from_here(opened, twin)


def _same_from_here(opened: Opened, twin: LogMaker) -> None:
    """The log takes other records under the ids that were dropped, tiles come out right, and it restarts."""
    first = twin.size
    twin.epoch = 2
    again = twin.appends(1, 300, 5)
    opened.store.append(again, commit_size=0)
    assert opened.store.read(first, max_bytes=EVERYTHING) == batches_of(again)
    for tile in {(t.level, t.index): t for append in again for t in append.tiles}.values():
        assert opened.store.tile(tile.level, tile.index) == tile.hashes
    state = opened.restart().load()
    assert (state.last_epoch, state.tree.root()) == (2, twin.tree.root())
    assert opened.store.root_at(first + 1) == again[0].batch.root


def test_a_log_can_be_truncated_to_nothing(opened: Opened, log: LogMaker) -> None:
    opened.store.append(log.appends(300, 1), commit_size=0)
    assert opened.store.truncate(0).root() == EMPTY_ROOT
    state = opened.restart().load()
    assert (state.size, state.last_epoch, state.greatest_id) == (0, 0, "")
    assert everything(opened.store) == []
    assert opened.store.tile(0, 0) is None
    assert opened.store.tile(1, 0) is None


def test_a_truncation_at_the_end_changes_nothing(store: Store, log: LogMaker) -> None:
    appends = log.appends(3, 300)
    store.append(appends, commit_size=0)
    assert store.truncate(303).root() == log.tree.root()
    assert unchanged(store, log, appends)


@pytest.mark.parametrize("size", [2, 4, 6, 10, -1])
def test_a_truncation_below_the_commit_size_within_a_batch_or_beyond_is_refused(
    store: Store, log: LogMaker, size: int
) -> None:
    appends = log.appends(3, 2, 4)
    store.append(appends, commit_size=5)
    with pytest.raises(InvariantError):
        store.truncate(size)
    assert unchanged(store, log, appends)


def _leaf_hashes(source: Append | Batch) -> list[bytes]:
    batch = source.batch if isinstance(source, Append) else source
    return leaf_hashes(decode_records(batch.body).leaves)


def test_what_either_store_reads_back_tells_an_encrypted_retry_from_a_conflict(opened: Opened) -> None:
    log = LogBuilder(NODE, cluster=CLUSTER)
    ids = ("a", "b", "c")
    tags = [{"replicad:encrypted": "fernet:" + letter * 43} for letter in ids]
    first = messages(*ids, payloads=[b"cipher 1"] * 3, headers=tags)
    opened.store.append([log.add_messages(first, author="alice")], commit_size=0)
    store = opened.restart()
    state = store.load()

    def answer(author: str) -> list[Effect]:
        posts = Posts(next_offset=3, recent_ids=10, greatest_id=state.greatest_id, waiting_frames=10)
        retry = messages(*ids, payloads=[b"cipher 2"] * 3, headers=[tags[0], tags[0], tags[2]])
        [asked] = posts.submit(Submit(1, retry, author, 1, 1e9), stored_size=3)
        assert isinstance(asked, FindIds)
        [wanted] = posts.ids_found(1, store.find_ids(asked.ids), stored_size=3)
        assert isinstance(wanted, ReadContent)
        contents = read_contents(store, wanted.offsets, decode_records)
        return posts.content_read(1, contents, stored_size=3) + posts.reached([3])

    assert show_all(answer("alice")) == [
        "answer #1: [0]@0 duplicate, [2]@2 duplicate, [1] ID_CONFLICT applied=no @1, on 1"
    ]
    assert show_all(answer("bob")) == [
        "answer #1: [0] ID_CONFLICT applied=no @0, [1] ID_CONFLICT applied=no @1, [2] ID_CONFLICT applied=no @2"
    ]
