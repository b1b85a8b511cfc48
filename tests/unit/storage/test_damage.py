"""Bytes that the disk changed: found when they are read, and what is whole is read all the same."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from replicad.core.batch import Append, Batch
from replicad.core.check import check_batch
from replicad.core.keyring import Keyring, NodeKey
from replicad.core.tree import Tree
from replicad.errors import DamagedError, ForgottenError, InvariantError
from replicad.storage.fsck import verify_folder
from replicad.storage.reader import NO_END
from replicad.storage.salvage import rebuilding
from replicad.storage.scrub import Gap, Look
from replicad.storage.sqlite import SqliteStore
from replicad.wire.codec import decode_records
from tests.storage_log import CLUSTER, NODE, LogMaker

BATCHES, RECORDS = 6, 50
BAD = 2 * RECORDS  # where the third batch begins
EVERYTHING = 1 << 30


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def opened(data_dir: Path) -> SqliteStore:
    return SqliteStore(data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records)


def filled(data_dir: Path, *, commit_size: int = BATCHES * RECORDS) -> LogMaker:
    log = LogMaker()
    with closing(opened(data_dir)) as store:
        store.set_promise(1, NODE)
        store.append([log.append(RECORDS) for _ in range(BATCHES)], commit_size=commit_size)
    return log


def damage(data_dir: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(data_dir / "log.db")) as database, database:
        assert database.execute(statement, values).rowcount > 0


def make_version_1(data_dir: Path) -> None:
    """The file as release 0.1 would have made it."""
    with closing(sqlite3.connect(data_dir / "log.db")) as database, database:
        for table in ("batches", "state"):
            database.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
        database.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE state SET promised_epoch = promised_epoch + 4",
        "UPDATE state SET promised_to = 'node-3'",
        "UPDATE state SET commit_size = commit_size - 1",
        "UPDATE state SET checksum = checksum + 1",
    ],
)
def test_a_promise_that_is_not_what_was_written_is_not_gone_by(data_dir: Path, statement: str) -> None:
    log = filled(data_dir, commit_size=BAD)
    with closing(opened(data_dir)) as store:
        store.set_commit_size(BAD + RECORDS)
        store.set_promise(7, "node-2")
        store.append([log.append(1)], commit_size=BAD + RECORDS + 1)
    with closing(opened(data_dir)) as store:
        state = store.load()
        assert (state.promised_epoch, state.promised_to, state.commit_size) == (7, "node-2", BAD + RECORDS + 1)
    damage(data_dir, statement)
    with pytest.raises(DamagedError, match="what this node has promised is not what was written"):
        opened(data_dir)
    with (
        pytest.raises(DamagedError, match="anew, with an empty data folder and without a vote"),
        rebuilding(data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records),
    ):
        pass
    report = verify_folder(data_dir, cluster=CLUSTER, keyring=log.key.keyring, decode_records=decode_records)
    assert report.fault is not None
    assert (report.fault.offset, "another checksum" in report.fault.reason) == (None, True)


@pytest.fixture(
    params=[
        "UPDATE batches SET body = CAST(hex(body) AS BLOB) WHERE first_offset = ?",
        "UPDATE batches SET time_ms = time_ms + 256 WHERE first_offset = ?",
        "UPDATE batches SET epoch = epoch + 1 WHERE first_offset = ?",
        "UPDATE batches SET count = count + 1 WHERE first_offset = ?",
        "UPDATE batches SET signer = 'n0de-1' WHERE first_offset = ?",
        "UPDATE batches SET signer = CAST(x'ee6f64652d31' AS TEXT) WHERE first_offset = ?",  # no UTF-8
        "UPDATE batches SET signature = zeroblob(64) WHERE first_offset = ?",
        "UPDATE batches SET signature = zeroblob(70000) WHERE first_offset = ?",  # a length that has no room
        "UPDATE batches SET root = zeroblob(32) WHERE first_offset = ?",
        "UPDATE batches SET checksum = checksum + 1 WHERE first_offset = ?",
        "UPDATE batches SET first_offset = first_offset + 1 WHERE first_offset = ?",
        "DELETE FROM batches WHERE first_offset = ?",
    ],
    ids=[
        "body",
        "time",
        "epoch",
        "count",
        "signer",
        "utf8",
        "signature",
        "length",
        "root",
        "checksum",
        "place",
        "gone",
    ],
)
def damaged(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[SqliteStore]:
    """A store in which one batch of six is not what was written."""
    filled(data_dir)
    damage(data_dir, request.param, BAD)
    with closing(opened(data_dir)) as store:
        yield store


def test_a_batch_that_is_not_what_was_written_is_never_given_out(damaged: SqliteStore) -> None:
    with pytest.raises(DamagedError) as caught:
        damaged.read(BAD, max_bytes=EVERYTHING)
    assert caught.value.offset == BAD
    with pytest.raises(DamagedError) as caught:
        damaged.read(BAD + 7, max_bytes=1)
    assert caught.value.offset in (BAD, BAD + 7)


def test_what_is_whole_before_and_after_it_is_read(damaged: SqliteStore, data_dir: Path) -> None:
    before = damaged.read(0, max_bytes=EVERYTHING)
    assert [batch.first_offset for batch in before] == [0, RECORDS]
    after = damaged.read(BAD + RECORDS, max_bytes=EVERYTHING)
    assert [batch.first_offset for batch in after] == [RECORDS * number for number in range(3, BATCHES)]
    early = damaged.read_time(0, since_ms=0, until_ms=NO_END, max_bytes=EVERYTHING, until_offset=BATCHES * RECORDS)
    assert [batch.first_offset for batch in early] == [0, RECORDS]


def test_verify_names_it(damaged: SqliteStore, data_dir: Path) -> None:
    damaged.close()
    report = verify_folder(data_dir, cluster=CLUSTER, keyring=LogMaker().key.keyring, decode_records=decode_records)
    assert report.fault is not None
    assert report.fault.offset is not None
    assert BAD <= report.fault.offset < BAD + RECORDS


@pytest.mark.parametrize("at", range(0, 4096, 256))
def test_a_flipped_bit_in_a_payload_is_found_whichever_it_is(data_dir: Path, at: int) -> None:
    """In the file, as a disk does it: not by SQLite."""
    log = filled(data_dir)
    (body,) = [batch.body for batch in log_batches(data_dir) if batch.first_offset == BAD]
    path = data_dir / "log.db"
    content = bytearray(path.read_bytes())
    place = content.index(body[at % (len(body) - 64) :][:64])
    content[place] ^= 1 << (at // 256 % 8)
    path.write_bytes(content)
    with closing(opened(data_dir)) as store:
        with pytest.raises(DamagedError):
            store.read(BAD, max_bytes=1)
        assert store.load().size == log.tree.size


def log_batches(data_dir: Path) -> list[Batch]:
    with closing(opened(data_dir)) as store:
        return store.read(0, max_bytes=EVERYTHING)


# --- a file of release 0.1 --------------------------------------------------------------------------------------


def test_a_file_of_release_0_1_is_taken_over_with_all_that_is_in_it(data_dir: Path) -> None:
    log = filled(data_dir)
    make_version_1(data_dir)
    with closing(opened(data_dir)) as store:
        assert store.load().tree.root() == log.tree.root()
        store.append([log.append(RECORDS)], commit_size=0)
    damage(data_dir, "UPDATE batches SET time_ms = time_ms + 1 WHERE first_offset = ?", BATCHES * RECORDS)
    with closing(opened(data_dir)) as store:  # which is one of this release now
        assert len(store.read(0, max_bytes=EVERYTHING)) == BATCHES
        with pytest.raises(DamagedError):
            store.read(BATCHES * RECORDS, max_bytes=1)


def test_a_file_of_release_0_1_is_verified_as_it_is(data_dir: Path) -> None:
    log = filled(data_dir)
    make_version_1(data_dir)
    before = (data_dir / "log.db").read_bytes()
    report = verify_folder(data_dir, cluster=CLUSTER, keyring=log.key.keyring, decode_records=decode_records)
    assert (report.fault, report.records, report.root) == (None, BATCHES * RECORDS, log.tree.root())
    assert (data_dir / "log.db").read_bytes() == before


def test_a_new_file_and_one_that_was_taken_over_have_the_same_schema(data_dir: Path, tmp_path: Path) -> None:
    filled(data_dir)
    make_version_1(data_dir)
    filled(tmp_path / "new")
    opened(data_dir).close()
    schemas = []
    for folder in (data_dir, tmp_path / "new"):
        with closing(sqlite3.connect(folder / "log.db")) as database:
            rows = database.execute("PRAGMA table_info(batches)").fetchall()
            schemas.append((rows, database.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchall()))
    assert schemas[0] == schemas[1]


# --- a scrub's looks, and repair ----------------------------------------------------------------------------------


def look_over(store: SqliteStore, *, step: int = 2000) -> Look:
    """A whole scrub, in steps, up to the first fault."""
    look = Look(Tree(), 0, None)
    while look.fault is None and look.tree.size < BATCHES * RECORDS:
        look = store.look(look.tree, until=BATCHES * RECORDS, max_bytes=step)
    return look


def proven(log: LogMaker, store: SqliteStore, gap: Gap) -> list[Append]:
    """What another node would send for the gap, checked as it comes in."""
    tree, epoch, appends = store.tree_at(gap.start), gap.last_epoch, []
    for append in LogMaker().appends(*[RECORDS] * BATCHES):
        if gap.start <= append.batch.first_offset < gap.end:
            checked, tree = check_batch(
                append.batch,
                tree=tree,
                last_epoch=epoch,
                cluster=CLUSTER,
                keyring=log.key.keyring,
                decode=decode_records,
            )
            appends.append(checked)
            epoch = append.batch.epoch
    return appends


def test_a_scrub_of_a_whole_log_finds_nothing(data_dir: Path) -> None:
    log = filled(data_dir)
    with closing(opened(data_dir)) as store:
        look = look_over(store)
    assert (look.fault, look.tree.root()) == (None, log.tree.root())


def test_a_scrub_finds_it_and_what_another_node_has_repairs_it(damaged: SqliteStore, data_dir: Path) -> None:
    look = look_over(damaged)
    assert look.fault is not None
    assert (look.fault.offset, look.fault.append, look.tree.size) == (BAD, None, BAD)
    gap = damaged.gap_at(look.fault.offset)
    assert (gap.start, gap.end) == (BAD, BAD + RECORDS)
    log = LogMaker()
    damaged.replace(gap, proven(log, damaged, gap))
    assert look_over(damaged).fault is None
    damaged.close()
    report = verify_folder(data_dir, cluster=CLUSTER, keyring=log.key.keyring, decode_records=decode_records)
    assert (report.fault, report.records) == (None, BATCHES * RECORDS)


@pytest.mark.parametrize(
    "statement",
    [
        'UPDATE ids SET "offset" = "offset" + 1 WHERE "offset" = ?',
        'DELETE FROM ids WHERE "offset" = ?',
        "UPDATE ids SET id = 'odd-' || id WHERE \"offset\" = ?",
        "UPDATE tiles SET hashes = zeroblob(8192) WHERE level = 0 AND ? > 0",
    ],
    ids=["place", "gone", "name", "tile"],
)
def test_what_is_kept_beside_the_log_is_made_again_of_the_log(data_dir: Path, statement: str) -> None:
    log = filled(data_dir)
    damage(data_dir, statement, BAD + 5)
    with closing(opened(data_dir)) as store:
        fault = look_over(store).fault
        assert fault is not None
        assert fault.append is not None
        batch = fault.append.batch
        store.replace(Gap(batch.first_offset, batch.end, 1, None), [fault.append])
        assert look_over(store).fault is None
    report = verify_folder(data_dir, cluster=CLUSTER, keyring=log.key.keyring, decode_records=decode_records)
    assert report.fault is None


def leave_out_of_time(data_dir: Path, offset: int) -> None:
    """Take the batch out of the index on time, and of nothing else."""
    sql = "UPDATE sqlite_schema SET sql = {} WHERE name = 'batches_by_time'"
    with closing(sqlite3.connect(data_dir / "log.db", isolation_level=None)) as database:
        row = database.execute("SELECT * FROM batches WHERE first_offset = ?", (offset,)).fetchone()
        database.execute("DELETE FROM batches WHERE first_offset = ?", (offset,))
        database.execute("PRAGMA writable_schema = ON")
        database.execute(sql.format("sql || ' WHERE first_offset < 0'"))
        database.execute("PRAGMA writable_schema = RESET")
        database.execute(f"INSERT INTO batches VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
        database.execute("PRAGMA writable_schema = ON")
        database.execute(sql.format("replace(sql, ' WHERE first_offset < 0', '')"))


def test_a_batch_that_reads_by_time_would_miss_is_found_and_indexed_again(data_dir: Path) -> None:
    log = filled(data_dir)
    leave_out_of_time(data_dir, BAD)
    with closing(opened(data_dir)) as store:
        fault = look_over(store).fault
        assert fault is not None
        assert (fault.offset, fault.reason) == (BAD, "the batch is not in the index on time")
        assert fault.append is not None
        store.replace(Gap(BAD, BAD + RECORDS, 1, None), [fault.append])
        assert look_over(store).fault is None
        batch = fault.append.batch
        read = store.read_time(
            0, since_ms=batch.time_ms, until_ms=batch.time_ms + 1, max_bytes=1, until_offset=log.tree.size
        )
        assert [each.first_offset for each in read] == [BAD]


@pytest.mark.parametrize("column", ["time_ms", "epoch"])
def test_impossible_numbers_without_a_checksum_are_a_fault_as_any_other(data_dir: Path, column: str) -> None:
    filled(data_dir)
    make_version_1(data_dir)
    damage(data_dir, f"UPDATE batches SET {column} = -1 WHERE first_offset = ?", BAD)  # noqa: S608
    with closing(opened(data_dir)) as store:
        fault = look_over(store).fault
        assert fault is not None
        assert (fault.offset, fault.append) == (BAD, None)
    with rebuilding(data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records) as (old, store):
        assert old.batch_at(BAD) is None
        store.append(LogMaker().appends(*[RECORDS] * BATCHES), commit_size=0)


def test_what_an_epoch_began_with_is_found_without_the_index_of_ids(data_dir: Path) -> None:
    """A node that forgets of which voters the log knows would open without asking them."""
    log = LogMaker()
    appends = log.appends(RECORDS, 1)
    log.epoch = 3
    appends += [log.append(ids=["replicad:epoch:3", "another"]), *log.appends(*[1] * 9)]
    with closing(opened(data_dir)) as store:
        store.set_promise(3, NODE)
        store.append(appends, commit_size=0)
    damage(data_dir, "DELETE FROM ids WHERE id = ?", "replicad:epoch:3")
    with closing(opened(data_dir)) as store:
        record = store.load().epoch_record
    assert record is not None
    assert record.offset == RECORDS + 1
    damage(data_dir, "UPDATE batches SET epoch = 1 WHERE first_offset = ?", RECORDS + 1)
    with closing(opened(data_dir)) as store, pytest.raises(DamagedError, match="of another epoch") as caught:
        store.load()
    assert caught.value.offset == RECORDS + 1


@pytest.mark.parametrize("count", [-(1 << 40), -1, 0, 1 << 40])
def test_a_damaged_count_does_not_lead_the_search_for_an_epochs_beginning_astray(data_dir: Path, count: int) -> None:
    log = LogMaker()
    appends = log.appends(*[10] * 8)
    log.epoch = 3
    appends += [log.append(ids=["replicad:epoch:3"]), *log.appends(*[1] * 300)]
    with closing(opened(data_dir)) as store:
        store.set_promise(3, NODE)
        store.append(appends, commit_size=0)
    damage(data_dir, "UPDATE batches SET count = ? WHERE first_offset < 70", count)
    with closing(opened(data_dir)) as store:
        record = store.load().epoch_record
    assert record is not None
    assert record.offset == 80
    damage(data_dir, "UPDATE batches SET count = ? WHERE first_offset = 70", count)  # beside it
    with closing(opened(data_dir)) as store, pytest.raises(DamagedError):
        store.load()


@pytest.mark.parametrize("epoch", [1, 7])
def test_an_epoch_that_a_disk_has_changed_is_not_what_the_log_ends_with_before_or_after_its_repair(
    data_dir: Path, epoch: int
) -> None:
    """Who has a later epoch at its end passes for ahead: to be believed in that, it must be what was signed."""
    log = LogMaker()
    appends = log.appends(RECORDS)
    log.epoch = 3
    appends += [log.append(ids=["replicad:epoch:3"]), *log.appends(*[RECORDS] * 4)]
    with closing(opened(data_dir)) as store:
        store.set_promise(3, NODE)
        store.append(appends, commit_size=log.size)
    last = appends[-1].batch.first_offset
    damage(data_dir, "UPDATE batches SET epoch = ? WHERE first_offset = ?", epoch, last)
    with closing(opened(data_dir)) as store:
        with pytest.raises(DamagedError) as caught:
            store.load()
        assert caught.value.offset == last
        store.replace(store.gap_at(last), appends[-1:])
        state = store.load()
    assert (state.last_epoch, state.size) == (3, log.size)
    assert state.epoch_record is not None
    assert state.epoch_record.offset == RECORDS


def test_several_damaged_batches_side_by_side_are_one_gap(data_dir: Path) -> None:
    filled(data_dir)
    damage(data_dir, "UPDATE batches SET count = count + 9 WHERE first_offset IN (?, 150, 200)", BAD)
    with closing(opened(data_dir)) as store:
        for offset in (BAD, BAD + 60, 249):
            gap = store.gap_at(offset)
            assert (gap.start, gap.end, gap.last_epoch) == (BAD, 250, 1)
            assert gap.after is not None
            assert gap.after.first_offset == 250


def test_a_damage_at_either_end_of_the_log(data_dir: Path) -> None:
    filled(data_dir)
    damage(data_dir, "UPDATE batches SET time_ms = 1 WHERE first_offset IN (0, ?)", (BATCHES - 1) * RECORDS)
    with closing(opened(data_dir)) as store:
        assert (store.gap_at(3).start, store.gap_at(3).end) == (0, RECORDS)
        gap = store.gap_at(BATCHES * RECORDS - 1)
        assert (gap.start, gap.end, gap.after) == ((BATCHES - 1) * RECORDS, BATCHES * RECORDS, None)


def test_the_tree_at_any_batch_is_had_from_the_tiles(data_dir: Path) -> None:
    log = LogMaker()
    with closing(opened(data_dir)) as store:
        roots = {0: log.tree.root()}
        for count in (1, 255, 1, 300, 700, 66_000, 5):
            store.append([log.append(count)], commit_size=0)
            roots[log.tree.size] = log.tree.root()
        assert {size: store.tree_at(size).root() for size in roots} == roots
        for size in roots:  # and it can be grown
            look = store.look(store.tree_at(size), until=log.tree.size, max_bytes=EVERYTHING)
            assert (look.fault, look.tree.root()) == (None, log.tree.root())


def test_tiles_that_are_damaged_give_no_tree(data_dir: Path) -> None:
    filled(data_dir)
    damage(data_dir, "UPDATE tiles SET hashes = zeroblob(8192) WHERE level = 0 AND ? > 0", BAD)
    with closing(opened(data_dir)) as store, pytest.raises(DamagedError, match="do not have the root"):
        store.tree_at(BAD)


def test_only_what_fits_is_put_in_its_place(data_dir: Path) -> None:
    filled(data_dir)
    with closing(opened(data_dir)) as store:
        appends = proven(LogMaker(), store, Gap(BAD, BAD + RECORDS, 1, None))
        with pytest.raises(InvariantError, match="do not fill"):
            store.replace(Gap(BAD, BAD + 2 * RECORDS, 1, None), appends)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE batches SET time_ms = 1, root = zeroblob(32) WHERE first_offset = ?",
        "UPDATE batches SET time_ms = 1, signature = zeroblob(64) WHERE first_offset = ?",
    ],
    ids=["root", "signature"],
)
def test_what_is_not_known_to_be_committed_is_replaced_by_itself_alone(data_dir: Path, statement: str) -> None:
    """Another node may rightly have other records there."""
    filled(data_dir, commit_size=BAD)
    damage(data_dir, statement, BAD)
    with closing(opened(data_dir)) as store:
        gap = store.gap_at(BAD)
        store.replace(gap, proven(LogMaker(), store, gap))
        assert look_over(store).fault is None
    damage(data_dir, "UPDATE batches SET root = zeroblob(32), signature = zeroblob(64) WHERE first_offset = ?", BAD)
    with closing(opened(data_dir)) as store:
        gap = store.gap_at(BAD)
        with pytest.raises(DamagedError, match="never known to be committed here"):
            store.replace(gap, proven(LogMaker(), store, gap))


def test_a_name_that_is_no_text_any_more_is_a_damage_and_not_another_programs_file(data_dir: Path) -> None:
    log = filled(data_dir)
    damage(data_dir, "UPDATE meta SET value = CAST(x'f4657374' AS TEXT) WHERE key = 'cluster'")
    with pytest.raises(DamagedError, match="UTF-8"):
        opened(data_dir)
    with pytest.raises(DamagedError, match="UTF-8"):
        verify_folder(data_dir, cluster=CLUSTER, keyring=log.key.keyring, decode_records=decode_records)
    with (
        pytest.raises(ForgottenError, match="UTF-8"),
        rebuilding(data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records),
    ):
        pass


# --- the WAL ------------------------------------------------------------------------------------------------------

COMMITS = 40
WAL_HEADER, FRAME = 32, 24 + 4096


@pytest.fixture
def killed(data_dir: Path, tmp_path: Path) -> tuple[Path, LogMaker, int]:
    """The folder of a daemon that was killed, with all of its log in the WAL, and how many frames that has."""
    log, copy = LogMaker(), tmp_path / "killed"
    with closing(opened(data_dir)) as store:
        store.set_promise(7, "node-2")
        for _ in range(COMMITS):
            store.append([log.append(10)], commit_size=0)
        assert store._wal is not None
        frames = store._wal.frames()
        shutil.copytree(data_dir, copy)
    return copy, log, frames


def flip_in_wal(data_dir: Path, place: int) -> None:
    with (data_dir / "log.db-wal").open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 4]))


def test_a_wal_that_is_whole_is_gone_by(killed: tuple[Path, LogMaker, int]) -> None:
    data_dir, log, _ = killed
    with closing(opened(data_dir)) as store:
        assert (store.load().size, store.load().promised_epoch) == (log.tree.size, 7)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("within", [4, 9, 20, 1000])
def test_a_flipped_bit_in_the_wal_takes_back_nothing_without_a_word(
    killed: tuple[Path, LogMaker, int], share: float, within: int
) -> None:
    """In a frame's head or its page: SQLite ends its reading there, as if nothing had come after."""
    data_dir, log, frames = killed
    flip_in_wal(data_dir, WAL_HEADER + int(frames * share) * FRAME + within)
    before = (data_dir / "log.db-wal").read_bytes()
    with pytest.raises(ForgottenError, match="without a vote until it is level"):
        opened(data_dir)
    report = verify_folder(data_dir, cluster=CLUSTER, keyring=log.key.keyring, decode_records=decode_records)
    assert not report.ok
    with (
        pytest.raises(ForgottenError),
        rebuilding(data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records),
    ):
        pass
    assert (data_dir / "log.db-wal").read_bytes() == before


@pytest.mark.parametrize("place", [1, 9, 17, 25])
def test_a_flipped_bit_in_the_wals_header_takes_back_nothing_without_a_word(
    killed: tuple[Path, LogMaker, int], place: int
) -> None:
    data_dir, _, _ = killed
    flip_in_wal(data_dir, place)
    with pytest.raises(DamagedError):
        opened(data_dir)


def test_a_last_commit_that_is_torn_was_never_answered_and_the_log_goes_on(
    killed: tuple[Path, LogMaker, int],
) -> None:
    """As a loss of power leaves it: its last frame is on the disk, one before it is not."""
    data_dir, log, frames = killed
    flip_in_wal(data_dir, WAL_HEADER + (frames - 1) * FRAME - 100)
    for _ in range(3):  # and again, before anything was written over it
        with closing(opened(data_dir)) as store:
            assert store.load().size == log.tree.size - 10


@pytest.mark.parametrize("whole", [0, 1, 20, 39.5])
def test_a_wal_that_ends_in_the_midst_is_read_as_far_as_it_goes(
    killed: tuple[Path, LogMaker, int], whole: float
) -> None:
    data_dir, log, frames = killed
    os.truncate(data_dir / "log.db-wal", WAL_HEADER + int(frames * whole / COMMITS * FRAME) + 7)
    with closing(opened(data_dir)) as store:
        assert store.load().size <= log.tree.size - 10


def test_an_empty_database_is_not_taken_for_a_new_one(killed: tuple[Path, LogMaker, int]) -> None:
    data_dir, _, _ = killed
    os.truncate(data_dir / "log.db", 0)
    with pytest.raises(ForgottenError, match=r"log\.db is empty"):
        opened(data_dir)
    with (
        pytest.raises(ForgottenError, match=r"log\.db is empty"),
        rebuilding(data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records),
    ):
        pass


# --- what a rebuild begins with -----------------------------------------------------------------------------------


def salvaged_size(data_dir: Path) -> int | None:
    """Where the old log is taken to have ended; nothing is put into the new one, so it does not take its place."""
    sizes: list[int | None] = []
    with (
        pytest.raises(DamagedError, match=r"^0 of [0-9]+ records could be had"),
        rebuilding(data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records) as (old, _),
    ):
        sizes.append(old.size)
    return sizes[0]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM batches WHERE first_offset >= ?",  # as when a part of the tree can't be reached
        "UPDATE batches SET count = 7 WHERE first_offset > ?",
        'DELETE FROM ids WHERE "offset" > ?',
    ],
    ids=["batches", "count", "ids"],
)
def test_a_rebuild_wants_all_that_any_part_of_the_old_file_knows_of(data_dir: Path, statement: str) -> None:
    filled(data_dir)
    damage(data_dir, statement, BAD)
    before = (data_dir / "log.db").read_bytes()
    assert salvaged_size(data_dir) == BATCHES * RECORDS
    assert (data_dir / "log.db").read_bytes() == before
    assert sorted(path.name for path in data_dir.iterdir()) == ["lock", "log.db"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_rebuilds_is_the_owners_the_lock_included(data_dir: Path) -> None:
    filled(data_dir)
    (data_dir / "lock").unlink()  # it is a copy
    for path in (data_dir, data_dir / "log.db"):
        os.chown(path, 65534, 65534)
    with rebuilding(data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records) as (_, store):
        store.append(LogMaker().appends(*[RECORDS] * BATCHES), commit_size=0)
    assert {path.stat().st_uid for path in (data_dir / "lock", data_dir / "log.db")} == {65534}


def test_records_of_a_later_epoch_raise_the_promise_with_them(data_dir: Path) -> None:
    """What a node had above its commit size is damaged; what others have committed there is of their epoch."""
    filled(data_dir, commit_size=BAD)
    other = LogMaker(signer="node-2")
    appends = other.appends(*[RECORDS] * 2)
    other.epoch = 4
    appends += other.appends(*[RECORDS] * 5)
    with rebuilding(data_dir, cluster=CLUSTER, node=NODE, decode_records=decode_records) as (old, store):
        assert (old.promised_epoch, old.commit_size) == (1, BAD)
        store.append(appends, commit_size=0)
    with closing(opened(data_dir)) as store:
        state = store.load()
        assert (state.promised_epoch, state.promised_to, state.commit_size) == (4, "node-2", BAD)
        assert state.size == BATCHES * RECORDS + RECORDS
    keyring = Keyring({"node-2": [NodeKey(other.key.key_id, other.key)]})
    report = verify_folder(data_dir, cluster=CLUSTER, keyring=keyring, decode_records=decode_records)
    assert report.fault is None
