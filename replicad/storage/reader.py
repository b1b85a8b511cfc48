"""Reading the database: batches, ids, tiles, roots, on connections of their own that never hold up the writer.

Owns every SELECT on the log. Must not know how it is written. Each call sees one committed state of the log, which in
WAL mode is one that is on disk. Thread-safe.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from replicad.core.batch import Batch
from replicad.core.record import RESERVED_ID_PREFIX, Leaf, Records, epoch_record_id, parse_leaf
from replicad.core.start import EpochRecord
from replicad.core.tree import TILE_WIDTH, Tree, leaf_hashes
from replicad.errors import DamagedError, ForgottenError, PeerError, invariant
from replicad.storage import schema
from replicad.storage.checksum import checksum_of, checksum_of_state
from replicad.storage.edge import restore_tree, stored_root_at
from replicad.storage.faults import translated

DecodeRecords = Callable[[bytes], Records]

NO_END = (1 << 63) - 1  # the largest integer of SQLite
_MOST_BYTES = (1 << 16) - 1  # of a signer, a signature or a root: what a checksum or a statement has room for

#: The columns of a batch, in the order of Batch's fields, and its checksum.
_COLUMNS = "epoch, first_offset, count, time_ms, root, signer, signature, body, checksum"
COLUMN_TYPES = (int, int, int, int, bytes, str, bytes, bytes)

# The batch that holds an offset is the last one that begins at or below it.
_BATCHES_FROM = f"""SELECT {_COLUMNS} FROM batches
WHERE first_offset >= ifnull((SELECT max(first_offset) FROM batches WHERE first_offset <= :start), 0)
  AND first_offset < :until
ORDER BY first_offset"""  # noqa: S608 (constants only)

# From the index on time alone. The clock may have stepped back along the log, so all of the range is looked at.
_NEXT_IN_TIME = """SELECT min(first_offset) FROM batches INDEXED BY batches_by_time
WHERE time_ms >= :since AND time_ms < :before AND first_offset >= :start AND first_offset < :until"""

# One step for any number of ids: each step of a statement gives up the GIL and may wait for it again.
_FIND_IDS = """SELECT json_group_object(ids.id, ids."offset")
FROM json_each(?) AS wanted CROSS JOIN ids ON ids.id = wanted.value"""

_TILE = 'SELECT hashes FROM tiles WHERE level = ? AND "index" = ?'

# Ids of the log itself are left out: two looks at the ends of ranges of the index, not a walk.
_GREATEST_ID = """SELECT ifnull((SELECT max(id) FROM ids WHERE id >= :after_reserved),
  ifnull((SELECT max(id) FROM ids WHERE id < :reserved), ''))"""
_RESERVED = {
    "reserved": RESERVED_ID_PREFIX,
    "after_reserved": RESERVED_ID_PREFIX[:-1] + chr(ord(RESERVED_ID_PREFIX[-1]) + 1),  # the first string beyond
}

_LAST = "SELECT max(first_offset) FROM batches"
_HOLDER = "SELECT first_offset, epoch FROM batches WHERE first_offset <= ? ORDER BY first_offset DESC LIMIT 1"

_END = """SELECT first_offset + count, epoch, root FROM batches ORDER BY first_offset DESC LIMIT 1"""


def typed(row: tuple[Any, ...], types: tuple[type, ...], table: str) -> tuple[Any, ...]:
    """The row, if its values are of these types. Raises DamagedError: SQLite looks at types when it writes, and hands
    out whatever a damaged file says."""
    if tuple(map(type, row)) != types:
        names = ", ".join(type(value).__name__ for value in row)
        raise DamagedError(f"the table {table} has a row of ({names}): the file is damaged")
    return row


class StoredState(NamedTuple):
    """What a node has promised, how much it knows to be committed, and whether that is what was written."""

    promised_epoch: int
    promised_to: str
    commit_size: int
    whole: bool


def stored_state(connection: sqlite3.Connection) -> StoredState:
    """Raises DamagedError: there is none, or it is none."""
    rows = connection.execute("SELECT promised_epoch, promised_to, commit_size, checksum FROM state").fetchall()
    if len(rows) != 1:
        raise DamagedError(f"the table state has {len(rows)} rows, not one: the file is damaged")
    *values, checksum = rows[0]
    promised_epoch, promised_to, commit_size = typed(tuple(values), (int, str, int), "state")
    whole = checksum in (None, checksum_of_state(promised_epoch, promised_to, commit_size))
    return StoredState(promised_epoch, promised_to, commit_size, whole)


def whole_state(connection: sqlite3.Connection) -> StoredState:
    """Raises ForgottenError: it is not what was written."""
    try:
        state = stored_state(connection)
    except DamagedError as exc:
        raise ForgottenError(str(exc)) from exc
    if not state.whole:
        raise ForgottenError("what this node has promised is not what was written, by its checksum")
    return state


class LogEnd(NamedTuple):
    """Where the log ends, as its last batch says."""

    size: int
    last_epoch: int
    root: bytes


def stored_batches(
    connection: sqlite3.Connection, start: int, *, until: int = NO_END
) -> Generator[tuple[Batch, bool], None, None]:
    """The batches from the one that holds ``start``, below ``until``, read as they are asked for, and whether each is
    what was written, as far as its checksum tells. Raises DamagedError at a row that is none."""
    at = start
    with closing(connection.execute(_BATCHES_FROM, {"start": start, "until": until})) as rows:
        while True:
            try:
                row = next(rows, None)
                if row is None:
                    return
                *values, checksum = row
                batch = Batch(*typed(tuple(values), COLUMN_TYPES, "batches"))
            except DamagedError as exc:
                raise DamagedError(str(exc), offset=at) from exc
            except sqlite3.OperationalError as exc:
                if getattr(exc, "sqlite_errorcode", None) is not None:
                    raise
                # Python's own, for a text that is not UTF-8
                raise DamagedError(f"the batch at offset {at} is not what was written: {exc}", offset=at) from exc
            if batch.end > start:  # else the first row is the log's last batch, and `start` is beyond it
                yield batch, is_possible(batch) and checksum in (None, checksum_of(batch))
                at = batch.end


def is_possible(batch: Batch) -> bool:
    """Whether its numbers, and its fields' lengths, are any that a batch may have."""
    if max(len(batch.signer.encode()), len(batch.signature), len(batch.root)) > _MOST_BYTES:
        return False
    return min(batch.first_offset, batch.epoch, batch.time_ms) >= 0 and 1 <= batch.count < 1 << 32


def batches_from(connection: sqlite3.Connection, start: int, *, until: int = NO_END) -> Generator[Batch, None, None]:
    """As :func:`stored_batches`. Raises DamagedError at one that is not what was written, or where one lacks."""
    expected = start
    with closing(stored_batches(connection, start, until=until)) as found:
        for batch, whole in found:
            at = max(start, batch.first_offset)
            if at != expected:
                raise DamagedError(f"no batch holds offset {expected}", offset=expected)
            if not whole:
                raise DamagedError(
                    f"the batch at offset {batch.first_offset} is not what was written: it has another checksum",
                    offset=at,
                )
            yield batch
            expected = batch.end


def log_end(connection: sqlite3.Connection) -> LogEnd | None:
    """The end of the log; None when it is empty. Reads no body."""
    row = connection.execute(_END).fetchone()
    return LogEnd(*typed(row, (int, int, bytes), "batches")) if row else None


def greatest_id(connection: sqlite3.Connection) -> str:
    """The greatest id in string order that is not the log's own; "" for none."""
    found: str = typed(connection.execute(_GREATEST_ID, _RESERVED).fetchone(), (str,), "ids")[0]
    return found


def epoch_record(connection: sqlite3.Connection, decode_records: DecodeRecords, epoch: int) -> EpochRecord | None:
    """The first record of the log's last epoch; None when it is not one that begins an epoch. Raises DamagedError.

    By halves, since epochs never fall along the log. The index of ids would be shorter, but an id there that a disk has
    changed must not look as if the log had never heard of a change of its voters.
    """
    last = connection.execute(_LAST).fetchone()[0]
    if last is None:
        return None
    _look_at_epoch(connection, decode_records, last, below=epoch + 1)  # who is ahead of whom is told by it
    low, high = 0, int(last)  # the epoch's first batch begins there or in between
    while low < high:
        middle = (low + high) // 2
        first_offset, its_epoch = typed(connection.execute(_HOLDER, (middle,)).fetchone() or (), (int, int), "batches")
        low, high = (middle + 1, high) if its_epoch < epoch else (low, first_offset)
    # Where the search was led astray, it ends beside what led it there.
    if high:
        _look_at_epoch(connection, decode_records, high - 1, below=epoch)
    with closing(batches_from(connection, high, until=high + 1)) as found:
        batch = next(found, None)
    if batch is None:
        raise DamagedError(f"no batch holds offset {high}", offset=high)
    records = decode_body(batch, decode_records)
    if _leaf(records, batch).id != epoch_record_id(epoch):
        return None
    return EpochRecord(batch.first_offset, records.payloads[0])


def _look_at_epoch(connection: sqlite3.Connection, decode_records: DecodeRecords, offset: int, *, below: int) -> None:
    """Raises DamagedError: the batch that holds the offset is of an epoch that is not below, or may be of another than
    it says. A payload may be damaged."""
    with closing(stored_batches(connection, offset, until=offset + 1)) as found:
        for batch, whole in found:
            sure = whole or _leaf(decode_body(batch, decode_records), batch).epoch == batch.epoch
            if sure and batch.epoch < below:
                return
            raise DamagedError(
                f"the batch at offset {batch.first_offset} is not what was written: its records are of another epoch",
                offset=batch.first_offset,
            )
    raise DamagedError(f"no batch holds offset {offset}", offset=offset)


def _leaf(records: Records, batch: Batch) -> Leaf:
    """The first one of the batch."""
    try:
        return parse_leaf(records.leaves[0])
    except ValueError as exc:
        text = f"the batch at offset {batch.first_offset} holds no leaves: {exc}"
        raise DamagedError(text, offset=batch.first_offset) from exc


def stored_tile(connection: sqlite3.Connection, level: int, index: int) -> bytes | None:
    row = connection.execute(_TILE, (level, index)).fetchone()
    return typed(row, (bytes,), "tiles")[0] if row else None


def decode_body(batch: Batch, decode_records: DecodeRecords) -> Records:
    """The records of a stored batch. Raises DamagedError when they are not what the batch says."""
    try:
        records = decode_records(batch.body)
    except PeerError as exc:
        text = f"the batch at offset {batch.first_offset} cannot be decoded: {exc}"
        raise DamagedError(text, offset=batch.first_offset) from exc
    if len(records) != batch.count:
        text = f"the batch at offset {batch.first_offset} has {len(records)} records, not {batch.count}"
        raise DamagedError(text, offset=batch.first_offset)
    return records


def tail_hashes(
    connection: sqlite3.Connection, decode_records: DecodeRecords, start: int, stop: int, *, proven_later: bool = False
) -> list[bytes]:
    """The leaf hashes of records ``start`` to ``stop - 1``, from the batches that hold them. ``proven_later``: whoever
    asks looks at the root, so that a payload which is damaged does no harm."""
    hashes: list[bytes] = []
    whole = batches_from(connection, start, until=stop)
    for batch in (each for each, _ in stored_batches(connection, start, until=stop)) if proven_later else whole:
        leaves = decode_body(batch, decode_records).leaves
        first = max(start - batch.first_offset, 0)
        hashes += leaf_hashes(leaves[first : stop - batch.first_offset])
    if len(hashes) != stop - start:
        raise DamagedError(f"{len(hashes)} records found at offsets {start} to {stop - 1}")
    return hashes


def read_tree(connection: sqlite3.Connection, decode_records: DecodeRecords) -> Tree:
    """The tree over the whole log, from its tiles and last records. Raises DamagedError: not the last batch's root."""
    end = log_end(connection)
    tree = restore_tree(
        end.size if end else 0,
        tile=lambda level, index: stored_tile(connection, level, index),
        leaf_hashes=lambda start, stop: (
            tail_hashes(connection, decode_records, start, stop, proven_later=True) if stop > start else []
        ),
    )
    if end and tree.root() != end.root:
        raise _damage_near(connection, end) or DamagedError(
            f"the stored tree of {end.size} records has another root than the last batch"
        )
    return tree


def _damage_near(connection: sqlite3.Connection, end: LogEnd) -> DamagedError | None:
    """Which of the batches that the end's tree was made of is not what was written."""
    try:
        for _ in batches_from(connection, end.size - end.size % TILE_WIDTH):
            pass
    except DamagedError as exc:
        return exc
    return None


@contextmanager
def _whole(batches: list[Batch]) -> Iterator[None]:
    """What was read before a damage is good: the damage is met by the next read, which begins with it."""
    try:
        yield
    except (DamagedError, sqlite3.DatabaseError) as exc:
        if not batches or isinstance(exc, sqlite3.OperationalError):
            raise


class Reader:
    """The reading half of the store; connections are made as threads need them, and kept."""

    def __init__(self, path: Path, decode_records: DecodeRecords) -> None:
        self._path = path
        self._decode = decode_records
        self._idle: list[sqlite3.Connection] = []  # list.append and list.pop are atomic
        self._closed = False

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        invariant(not self._closed, "the store is closed")
        with translated(f"read {self._path}"):
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = schema.open_reader(self._path)
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._idle.append(connection)
                if self._closed:
                    self.close()

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """One state of the log over several statements."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    def read(self, from_offset: int, *, max_bytes: int, until_offset: int | None = None) -> list[Batch]:
        batches: list[Batch] = []
        room = max_bytes
        with self._connection() as connection:
            until = NO_END if until_offset is None else until_offset
            with closing(batches_from(connection, from_offset, until=until)) as found, _whole(batches):
                for batch in found:
                    batches.append(batch)
                    room -= len(batch.body)
                    if room <= 0:
                        break
        return batches

    def read_time(
        self, from_offset: int, *, since_ms: int, until_ms: int, max_bytes: int, until_offset: int
    ) -> list[Batch]:
        batches: list[Batch] = []
        room, at = max_bytes, from_offset
        until_ms, until_offset = min(until_ms, NO_END), min(until_offset, NO_END)
        with self.snapshot() as connection:
            while True:
                # Runs of batches are read in order; only where one ends is the index asked for the next.
                missed = None
                with closing(batches_from(connection, at, until=until_offset)) as found, _whole(batches):
                    for batch in found:
                        if not since_ms <= batch.time_ms < until_ms:
                            missed = batch.end
                            break
                        batches.append(batch)
                        room -= len(batch.body)
                        if room <= 0:
                            return batches
                if missed is None:
                    return batches
                place = {"since": since_ms, "before": until_ms, "start": missed, "until": until_offset}
                (at,) = connection.execute(_NEXT_IN_TIME, place).fetchone()
                if at is None:
                    return batches

    def find_ids(self, ids: Sequence[str]) -> dict[str, int]:
        with self._connection() as connection:
            found: dict[str, int] = json.loads(connection.execute(_FIND_IDS, (json.dumps(ids),)).fetchone()[0])
            typed(tuple(found.values()), (int,) * len(found), "ids")
            return found

    def tile(self, level: int, index: int) -> bytes | None:
        with self._connection() as connection:
            return stored_tile(connection, level, index)

    def root_at(self, size: int) -> bytes:
        with self.snapshot() as connection:
            end = log_end(connection)
            log_size = end.size if end else 0
            invariant(0 <= size <= log_size, f"no root at size {size}: the log has {log_size} records")
            return stored_root_at(
                size,
                log_size=log_size,
                tile=lambda level, index: stored_tile(connection, level, index),
                leaf_hashes=lambda start, stop: tail_hashes(connection, self._decode, start, stop),
            )

    def close(self) -> None:
        """Close what is idle; a connection in use is closed by its thread when it comes back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
