"""The database file: its schema, its version, whose it is, and how connections to it are set up.

Owns every CREATE and every PRAGMA, with the reason for each number. Must not know how a batch is appended or read.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
from pathlib import Path

from replicad.errors import DamagedError, DataFolderError, DiskFullError, ForgottenError
from replicad.files import sync_folder
from replicad.storage.checksum import checksum_of_state
from replicad.storage.faults import from_sqlite, is_damage, opening, translated
from replicad.storage.wal import WalIndex, unreached_commits

DATABASE_NAME = "log.db"
_VERSIONS = ("1", "2")
META_KEYS = frozenset({"schema_version", "cluster", "node"})
SCHEMA_VERSION = 2  # 1, of release 0.1, has no checksums; it is made a 2 when a node starts on it
APPLICATION_ID = 0x72706C64  # "rpld": `file log.db` and a curious reader can tell what it is
# The first bytes of every database of ours: SQLite's header, https://www.sqlite.org/fileformat.html#the_database_header
_MAGIC, _APPLICATION_ID_AT, _HEADER_BYTES = b"SQLite format 3\0", 68, 100

# STRICT: a value of another type is refused where it is written, not found years later. `body` comes after what is read
# without it, so that this never walks its overflow pages. `checksum` is NULL in what release 0.1 wrote.
SCHEMA = (
    """CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE state (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  promised_epoch INTEGER NOT NULL,
  promised_to TEXT NOT NULL,
  commit_size INTEGER NOT NULL,
  checksum INTEGER
) STRICT""",
    """CREATE TABLE batches (
  first_offset INTEGER PRIMARY KEY,
  count INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  time_ms INTEGER NOT NULL,
  root BLOB NOT NULL,
  signer TEXT NOT NULL,
  signature BLOB NOT NULL,
  body BLOB NOT NULL,
  checksum INTEGER
) STRICT""",
    "CREATE INDEX batches_by_time ON batches (time_ms)",
    """CREATE TABLE ids (
  id TEXT PRIMARY KEY,
  "offset" INTEGER NOT NULL
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE tiles (
  level INTEGER NOT NULL,
  "index" INTEGER NOT NULL,
  hashes BLOB NOT NULL,
  PRIMARY KEY (level, "index")
) STRICT, WITHOUT ROWID""",
)

_CHECKED = ("batches", "state")
_ADD_CHECKSUM = "ALTER TABLE {} ADD COLUMN checksum INTEGER"
# Whoever reads a file of version 1, which is not his to change, sees it as one of version 2.
_AS_IF_CHECKSUM = "CREATE TEMP VIEW {0} AS SELECT *, NULL AS checksum FROM main.{0}"

# Measured on a virtio disk with a 0.15 ms fsync, 1-record and 4000-record batches of 250 B records:
# with 8 and 16 KiB pages a small commit is 10 to 30 % slower (it touches three pages, whole), a large one 15 % faster.
PAGE_BYTES = 4096
# 2, 4 and 8 MB came out alike for time-ordered ids; 4 holds the inner pages of the duplicate index of some 10 M ids.
WRITER_CACHE_KIB = 4000
# A reader's cache is void after each commit; this is a bound on memory, and holds what one call touches.
READER_CACHE_KIB = 1000
# 16 MiB: a batch of 4000 costs 1.6 us a record against 2.2 at SQLite's 1000 pages, and pages that small commits
# rewrite over and over are copied once in some 1300 of them; 32 MiB won nothing and doubled the longest pause.
CHECKPOINT_FRAMES = 4096
# Above what the WAL has in steady state, so that its blocks are reused (overwriting syncs faster than growing); what
# one huge transaction took beyond that is given back.
WAL_KEEP_BYTES = 32 << 20
# The WAL's size in steady state, which a new one is given at once: a commit that overwrites blocks syncs in 0.14 ms
# where one that grows the file takes 0.20 (40 ms a start, on the disk above).
WAL_START_BYTES = CHECKPOINT_FRAMES * PAGE_BYTES
_ROOMY = 16  # times that much free: a disk that is nearly full keeps its last blocks for records
# Only a program beside the daemon can hold a lock for long; then an error is better than to wait on.
BUSY_TIMEOUT_S = 5.0


def database_path(data_dir: Path) -> Path:
    return data_dir / DATABASE_NAME


def wal_path(database: Path) -> Path:
    """Where SQLite has it: beside the file itself, though a link may lead there."""
    database = database.resolve()
    return database.with_name(database.name + "-wal")


def connect(path: Path, *, mode: str) -> sqlite3.Connection:
    """A bare connection; ``mode`` is SQLite's: rw or ro. Transactions are ours to begin. Raises sqlite3.Error."""
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_S,
        check_same_thread=False,  # SQLite is built serialized; who uses which connection is settled by its owner
    )


def open_writer(path: Path, *, cluster: str, node: str) -> sqlite3.Connection:
    """The connection that writes; makes the database when it is missing.

    Raises ForgottenError; DataFolderError: not ours, of another cluster, node or schema, or on a file system that can't
    do WAL.
    """
    if path.is_symlink():  # SQLite would have its WAL where that leads, and a folder is copied and moved as a whole
        raise DataFolderError(f"{path} is a symbolic link: move the folder, and let data_dir say where it is")
    if not path.exists():
        _make(path, cluster=cluster, node=node)
    if not path.stat().st_size:
        raise ForgottenError(f"{path} is empty, and no node leaves it so. If this one has never run, remove it; else")
    torn = check_wal(path)
    with opening(path):
        connection = connect(path, mode="rw")
    try:
        with opening(path):
            set_up(connection, cache_kib=WRITER_CACHE_KIB)
            if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise DataFolderError(f"{path} is on a file system that cannot do WAL (a network one?): move it")
            connection.execute("PRAGMA synchronous = FULL")
            # Ours to do: SQLite's own checkpoint swallows the errors of its fsync.
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_KEEP_BYTES}")
            # Debian's build zeroes what is deleted; that would write every page of a truncation twice for nothing.
            connection.execute("PRAGMA secure_delete = OFF")
        check_meta(connection, path, cluster=cluster, node=node)
        with translated(f"write {path}"):
            migrate(connection)
        # A killed daemon may have left commits in the WAL that it had written and not synced. They count from now on.
        with translated(f"sync {path}"):
            _sync_file(wal_path(path))
            if torn:
                _empty_wal(connection)
            sync_folder(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection


def _empty_wal(connection: sqlite3.Connection) -> None:
    """Take all of it in, and drop a torn commit: two such would look as if a disk had changed it. On a full disk it
    stays, and the node starts all the same."""
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as exc:
        if not isinstance(from_sqlite(exc, "checkpoint"), DiskFullError):
            raise


def grow_wal(connection: sqlite3.Connection, path: Path) -> None:
    """Give the WAL its size in steady state: write that much in a transaction, and take it back.

    What is taken back is overwritten by the commits to come. Changes nothing else; does nothing where room is scarce.
    """
    wal = wal_path(path)
    missing = WAL_START_BYTES - (wal.stat().st_size if wal.exists() else 0)
    if missing <= 0 or shutil.disk_usage(path.parent).free < _ROOMY * WAL_START_BYTES:
        return
    half_cache = WRITER_CACHE_KIB * 1024 // 2  # what the cache can't hold is spilt into the WAL
    connection.execute("BEGIN IMMEDIATE")
    with contextlib.suppress(sqlite3.OperationalError):  # no room after all: the node starts all the same, for reads
        connection.execute("CREATE TABLE filler (zeros BLOB)")
        for _ in range(missing // half_cache + 2):
            connection.execute("INSERT INTO filler VALUES (zeroblob(?))", (half_cache,))
    if connection.in_transaction:  # a full disk may have taken it back already
        connection.execute("ROLLBACK")
    with contextlib.suppress(OSError):
        _sync_file(wal)


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, and never waits for one that does. Raises sqlite3.Error."""
    connection = connect(path, mode="ro")
    try:
        set_up(connection, cache_kib=READER_CACHE_KIB)
        show_as_newest(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def set_up(connection: sqlite3.Connection, *, cache_kib: int) -> None:
    """What every connection has, a reading one and a writing one."""
    connection.execute(f"PRAGMA cache_size = -{cache_kib}")
    connection.execute("PRAGMA temp_store = MEMORY")  # sorts here are of one batch's ids; no file outside the folder
    connection.execute("PRAGMA trusted_schema = OFF")  # a folder may come from elsewhere


def allow_missing_pages(connection: sqlite3.Connection) -> None:
    """Let a file be read that is shorter than it says. SQLite opens such a one for no other purpose than a repair."""
    connection.execute("PRAGMA writable_schema = ON")


def show_as_newest(connection: sqlite3.Connection) -> None:
    """Let a connection that writes nothing read a file of version 1 as one of this version."""
    columns = [row[1] for row in connection.execute("PRAGMA table_info(batches)")]
    if columns and "checksum" not in columns:
        for table in _CHECKED:
            connection.execute(_AS_IF_CHECKSUM.format(table))


def migrate(connection: sqlite3.Connection) -> None:
    """Make a file of version 1 one of this version. Takes no time: no row is touched."""
    if _version(connection) != 1:
        return
    check_schema(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for table in _CHECKED:
            connection.execute(_ADD_CHECKSUM.format(table))
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(SCHEMA_VERSION),))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def check_wal(path: Path) -> int:
    """How many commits of the WAL SQLite passes over: one that is torn, or none. Raises ForgottenError: others, which
    were on the disk.

    To be called before any connection is there that writes: its end would take in what it can reach, and drop the rest.
    """
    wal = wal_path(path)
    if not wal.exists() or not wal.stat().st_size:
        return 0
    index: WalIndex | None = None
    with opening(path):
        connection = connect(path, mode="ro")
        try:
            allow_missing_pages(connection)
            try:
                connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # SQLite looks the WAL over
            except sqlite3.DatabaseError as exc:
                if not is_damage(exc):  # of the file, which comes after the WAL, and is found later
                    raise
            index = WalIndex(path.resolve())
            frames = index.frames()
        except FileNotFoundError:  # it keeps the index in memory, where it may write none
            return 0
        finally:
            connection.close()
            if index is not None:
                index.close()
    unreached = unreached_commits(wal, frames, page_bytes=PAGE_BYTES)
    if unreached > 1:
        raise ForgottenError(
            f"{wal} has commits behind what a disk has changed, and no reader can reach them, so what this node has "
            "promised and acknowledged last is not known"
        )
    return unreached


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()[0])


def _make(path: Path, *, cluster: str, node: str) -> None:
    """A new database under its name, or none: a file without a schema is never one whose making was cut short.

    Only we can read it: SQLite would take the umask, and gives the WAL the mode of this file.
    """
    draft = path.with_name(f"{path.name}.unfinished")
    try:
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise DataFolderError(f"{path} cannot be made: {exc.strerror}") from exc
    with translated(f"make {path}"):
        with contextlib.closing(connect(draft, mode="rw")) as connection:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            _create(connection, cluster=cluster, node=node)
        _sync_file(draft)
        draft.rename(path)
        sync_folder(path.parent)


def _sync_file(path: Path) -> None:
    # A second handle is safe here: SQLite's POSIX locks, which any close in the process drops, are on the other files.
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _create(connection: sqlite3.Connection, *, cluster: str, node: str) -> None:
    """All of the schema or, after a crash in the midst of it, nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO state VALUES (1, 0, '', 0, ?)", (checksum_of_state(0, "", 0),))
        connection.execute(
            "INSERT INTO meta VALUES ('schema_version', ?), ('cluster', ?), ('node', ?)",
            (str(SCHEMA_VERSION), cluster, node),
        )
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def check_backup(path: Path) -> None:
    """Refuse a file that does not begin as a backup does; one that was damaged, or cut off, further on is let pass.

    SQLite itself says of either that it is malformed. Raises DataFolderError, with the remedy; DiskFailedError.
    """
    with translated(f"read {path}"):
        try:
            with path.open("rb") as file:
                header = file.read(_HEADER_BYTES)
        except PermissionError as exc:
            raise DataFolderError(f"{path} cannot be read ({exc.strerror}): see its owner and mode") from exc
    is_ours = header[_APPLICATION_ID_AT:].startswith(APPLICATION_ID.to_bytes(4, "big"))
    if not (header.startswith(_MAGIC) and is_ours):
        raise DataFolderError(
            f"{path} is not a backup of replicad ({'it does not begin as one' if header else 'it is empty'}): "
            "name a file that `replicad-cli backup` made"
        )


def read_meta(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    """The rows of meta, the schema's version checked first. Raises DataFolderError, DamagedError."""
    with opening(path):
        try:
            meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        except sqlite3.OperationalError as exc:  # SQLITE_ERROR: no such table; else what a disk does, or has changed
            if getattr(exc, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
                raise
            raise DataFolderError(f"{path} is not a log of replicad: {exc}; correct data_dir") from exc
    if not all(isinstance(text, str) for row in meta.items() for text in row):
        raise DamagedError(f"{path}: the table meta holds what is no text: the file is damaged")
    found = meta.get("schema_version")
    if found not in _VERSIONS:
        raise DataFolderError(
            f"{path} has schema version {found}, this release knows {SCHEMA_VERSION}: run the release that wrote it"
        )
    return meta


def check_meta(connection: sqlite3.Connection, path: Path, *, cluster: str, node: str) -> None:
    """Refuse the folder of another cluster or node. Raises DataFolderError, with the remedy."""
    meta = read_meta(connection, path)
    for what, ours in (("cluster", cluster), ("node", node)):
        if meta.get(what) != ours:
            raise DataFolderError(
                f"{path} belongs to {what} {meta.get(what)!r}, the config says {ours!r}: "
                f"give this node its own data_dir, or correct {what} in the config"
            )


def check_schema(connection: sqlite3.Connection) -> None:
    """Refuse a database whose tables are not the very ones that this release makes. Raises DamagedError."""
    version = _version(connection)
    wanted = {_squeezed(sql if version > 1 else sql.replace(",\n  checksum INTEGER", "")) for sql in SCHEMA}
    found = {
        _squeezed(str(sql)) for (sql,) in connection.execute("SELECT sql FROM main.sqlite_schema WHERE sql IS NOT NULL")
    }
    if found != wanted:
        odd = sorted(sql.split("(")[0].strip() for sql in found ^ wanted)
        raise DamagedError(f"the schema is not that of version {version}: {', '.join(odd)}")


def _squeezed(sql: str) -> str:
    """A statement without the spaces that make it pretty: SQLite puts a new column in with its own."""
    return re.sub(r"\s+(?=[,)])", "", re.sub(r"\s+", " ", sql))
