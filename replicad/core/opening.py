"""How a master opens an epoch: promise, fence quorum, missing tail (semantics.md, Epochs and failover).

Owns the steps up to the epoch's first record. Must not know of posts or of feeding workers.

1. The epoch is promised to itself, on disk. 2. Hello to the workers: each has the promise on disk before its Welcome.
3. With R voters of the configured list (itself counted), the one that is ahead by (last epoch, size) is looked for.
4. When it is not this node, the missing tail is fetched first; an own tail that differs from it, never committed, is
put aside before. 5. With R voters of every other list, too, that the log names as perhaps in force, the epoch may begin
(docs/adr/0023 has why that is safe whatever the lists are).

Forced, by an operator who accepts that data is lost, it is another bargain: all voters of the configured list promise,
since each may be the one that has most, and the other lists are waived where they have no quorum.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from replicad.core.batch import Append, Batch
from replicad.core.common import RootSearch
from replicad.core.effects import Effect, Hangup, Note, Send, StoreBatch, Truncate
from replicad.core.frames import Fetch, Supply, Welcome
from replicad.core.ownlog import OwnLog
from replicad.core.tree import Tree
from replicad.core.voters import MAX_STANDING, VoterList, fence_quorum
from replicad.errors import PeerError

#: Checks a batch against a log's end and tree; raises PeerError.
Check = Callable[[Batch, Tree, int], tuple[Append, Tree]]


class Opening:
    """1. ``ready`` only with R promises of each of ``lists`` for this epoch on disk, none of them from a node that is
    ahead of the own log; ``lists`` and ``waived`` are those that this very log names, and the configured one.
    2. ``waived`` is empty unless the opening is forced.
    """

    def __init__(
        self,
        *,
        node: str,
        configured: VoterList,
        fetch_bytes: int,
        check: Check,
        truncating: bool = False,
        forced: bool = False,
    ) -> None:
        """``truncating``: an own tail is being put aside already, for an epoch that was given up."""
        self._node, self._configured = node, configured
        self._fetch_bytes, self._check = fetch_bytes, check
        self._welcomes: dict[str, tuple[int, Welcome]] = {}  # session and Welcome, by worker
        self._search: RootSearch | None = None
        self._promised = False
        self._fetching = False  # a Supply is awaited
        self.truncating = truncating
        self.forced = forced
        self.source: str | None = None  # the worker whose tail is being fetched
        self.lists: tuple[VoterList, ...] = ()  # once it is ready
        self.waived: tuple[VoterList, ...] = ()  # then, too
        self.ready = False

    @property
    def promised_by(self) -> Collection[str]:
        """The nodes that have promised the epoch, this one included."""
        return {self._node, *self._welcomes} if self._promised else ()

    @property
    def is_fetching(self) -> bool:
        """Whether the log is about to be another one."""
        return self.source is not None or self.truncating

    def lacking(self, log: OwnLog) -> list[VoterList]:
        """The lists that this log asks for and that have no fence quorum yet; the configured one first."""
        lists = log.standing_lists(self._configured)
        lacking = [each for each in sorted(lists, key=self._configured.__ne__) if not self._fences(each)]
        if self.forced and lacking and lacking[0] != self._configured and not self._has_all:
            return [self._configured, *lacking]
        return lacking

    def _fences(self, voters: VoterList) -> bool:
        return len(set(voters).intersection(self.promised_by)) >= fence_quorum(len(voters))

    @property
    def _has_all(self) -> bool:
        """Whether each voter of the config has promised: where a list is waived, any may be the one that has most."""
        return set(self._configured) <= set(self.promised_by)

    def begin(self, log: OwnLog) -> list[Effect]:
        """The own promise is on disk."""
        self._promised = True
        return self._next(log)

    def welcome(self, session: int, welcome: Welcome, log: OwnLog) -> list[Effect]:
        self._welcomes[welcome.node] = (session, welcome)
        return self._next(log)

    def down(self, peer: str) -> None:
        """A worker is gone: it will say Welcome again, perhaps with another log."""
        self._welcomes.pop(peer, None)
        if self.source == peer:
            self.source, self._search, self._fetching = None, None, False

    def force(self, log: OwnLog) -> list[Effect]:
        """From now on data may be lost."""
        self.forced = True
        return self._next(log)

    def resume(self, log: OwnLog) -> list[Effect]:
        """Go on without a source that is gone, when the others that have promised are enough."""
        return self._next(log)

    def _next(self, log: OwnLog) -> list[Effect]:
        """Look whether anyone is ahead, once R voters of the configured list have promised and what was fetched so far
        is on disk. Whoever is ahead has all that is committed here; its log may tell that a list of this one is gone.
        """
        if self.ready or self.is_fetching or log.stored_size < log.tip or not self._fences(self._configured):
            return []
        ahead = max(self._welcomes.values(), key=lambda entry: _end(entry[1]), default=None)
        if ahead is None or _end(ahead[1]) <= (log.last_epoch, log.tip):
            standing, lacking = log.standing_lists(self._configured), self.lacking(log)
            self.waived = tuple(sorted(lacking)) if self.forced and self._has_all else ()
            self.lists = tuple(each for each in standing if each not in self.waived)
            self.ready = len(standing) <= MAX_STANDING and not set(lacking) - set(self.waived)
            return []
        session, welcome = ahead
        self.source = welcome.node
        text = f"{welcome.node} is ahead: size {welcome.size} of epoch {welcome.last_epoch}; fetching its tail"
        note = Note("info", "fetch", text, {"peer": welcome.node, "size": log.tip, "peer_size": welcome.size})
        high = min(welcome.size, log.stored_size)
        self._search = RootSearch(welcome.node, session, welcome, low=log.commit_size, high=high)
        return [note, *self._search.ask(log), *self._found(log)]

    def own_root_read(self, size: int, root: bytes, log: OwnLog) -> list[Effect]:
        return self._search.own_root(size, root, log) + self._found(log) if self._search else []

    def peer_root_arrived(self, size: int, root: bytes, log: OwnLog) -> list[Effect]:
        return self._search.peer_root(size, root, log) + self._found(log) if self._search else []

    def _found(self, log: OwnLog) -> list[Effect]:
        """Go on when it is known where the own log and the source's part."""
        agreed = self._search.agreed if self._search else None
        if agreed is None or self.source is None:
            return []
        self._search = None
        if agreed < log.commit_size:
            text = (
                f"{self.source} is ahead, but its log parts from this one below the commit size {log.commit_size}: "
                "one of the two data folders is not of this log; this node does not open"
            )
            return [Note("error", "fork", text, {"peer": self.source}), *self.interrupted("fork")]
        if agreed < log.tip:
            if log.roots_asked:  # for an earlier search; it must not be answered from a shorter log
                return self.interrupted("busy")
            self.truncating = True
            return [Truncate(agreed, f"{self.source} is ahead and has other records from offset {agreed} on")]
        return self._fetch(log)

    def truncated(self, log: OwnLog) -> list[Effect]:
        self.truncating = False
        return self._fetch(log) if self.source else self._next(log)

    def _fetch(self, log: OwnLog) -> list[Effect]:
        if self.source is None:
            return []
        self._fetching = True
        return [Send(self.source, Fetch(log.tip, self._fetch_bytes))]

    def supply(self, supply: Supply, log: OwnLog) -> list[Effect]:
        """Take in a part of the tail; each batch is checked as a worker checks it."""
        if not self._fetching:
            return []
        self._fetching = False
        effects: list[Effect] = []
        try:
            if not supply.batches:
                raise PeerError("gap", f"{self.source} has no batch at offset {log.tip}, though it is ahead")
            for batch in supply.batches:
                append, tree = self._check(batch, log.tree, log.last_epoch)
                log.appended(append, tree)
                effects.append(StoreBatch(append, log.commit_size))
        except PeerError as exc:
            effects.append(Note("error", "refused", str(exc), {"peer": self.source, "reason": exc.reason}))
            effects += self.interrupted(exc.reason)
        return effects

    def stored(self, log: OwnLog) -> list[Effect]:
        """What was fetched is on disk: ask for more, or look again who is ahead."""
        if self.source is None:
            return self._next(log)
        if self._search or self._fetching or self.truncating or log.stored_size < log.tip:
            return []
        welcome = self._welcomes[self.source][1]
        if log.tip < welcome.size:
            return self._fetch(log)
        self.source = None
        return self._next(log)

    def interrupted(self, reason: str) -> list[Effect]:
        """Nothing more from this source now: begin again when it is back."""
        peer = self.source
        if peer is None:
            return []
        self.down(peer)
        return [Hangup(peer, reason)]


def _end(welcome: Welcome) -> tuple[int, int]:
    return welcome.last_epoch, welcome.size
