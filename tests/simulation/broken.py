"""Deliberately broken cores: the test of the test. Each breaks one rule in one place; the simulation must notice.

Owns the list, and within how many seeds each has to be caught. Replaces single functions for as long as a context
lasts; what is broken here must never be reachable from the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from replicad.core import mandate, master, opening, posts, worker
from replicad.core.batch import Append, Batch
from replicad.core.check import check_records
from replicad.core.common import CommonSize
from replicad.core.duplicates import RecentIds
from replicad.core.effects import Effect, Hangup, Send
from replicad.core.frames import Ack, Align, AppendBatch, Hello, TakeOver
from replicad.core.handover import Handover
from replicad.core.keyring import Keyring, NodeKey, Verifier
from replicad.core.master import Master
from replicad.core.opening import Opening
from replicad.core.ownlog import OwnLog
from replicad.core.posts import Posts
from replicad.core.progress import Progress
from replicad.core.record import Records
from replicad.core.settings import Settings
from replicad.core.start import EpochRecord, StoreState
from replicad.core.tree import Tree, leaf_hashes
from replicad.core.voters import VoterList, standing
from replicad.core.worker import Worker
from replicad.errors import OutcomeUnknown, ServiceError, Unavailable
from tests.simulation import disk
from tests.simulation.cluster import Cluster
from tests.simulation.disk import TurnWrite
from tests.simulation.node import Node
from tests.simulation.profile import MIXED
from tests.simulation.run import Scenario

Replacement = tuple[object, str, object]


@dataclass(frozen=True, slots=True)
class Breakage:
    """``within_seeds``: how many seeds, from 1 on, are enough to catch it; in one weather, where it takes that."""

    name: str
    within_seeds: int
    weather: str
    nodes: int | None
    replacements: Callable[[], list[Replacement]]

    def scenarios(self) -> list[Scenario]:
        return [Scenario(seed, self.nodes, self.weather) for seed in range(1, self.within_seeds + 1)]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The core is broken inside this context."""
        with ExitStack() as stack:
            for owner, name, value in self.replacements():
                stack.callback(setattr, owner, name, owner.__dict__[name])
                setattr(owner, name, value)
            yield


BREAKAGES: dict[str, Breakage] = {}


def breakage(
    *, within_seeds: int, weather: str = MIXED, nodes: int | None = None
) -> Callable[[Callable[[], list[Replacement]]], Breakage]:
    """Enter a broken core, under its function's name, in the list."""

    def enter(replacements: Callable[[], list[Replacement]]) -> Breakage:
        name = replacements.__name__
        BREAKAGES[name] = Breakage(name, within_seeds, weather, nodes, replacements)
        return BREAKAGES[name]

    return enter


# --- durability -------------------------------------------------------------------------------------------------


@breakage(within_seeds=20)
def a_worker_acknowledges_before_it_has_synced() -> list[Replacement]:
    original = Worker._append

    def append(self: Worker, frame: AppendBatch) -> list[Effect]:
        effects = original(self, frame)
        return [*effects, Send(self._session or "", Ack(self.log.tip, 0))]

    return [(Worker, "_append", append)]


@breakage(within_seeds=20)
def a_master_answers_before_its_own_sync() -> list[Replacement]:
    def sizes(self: Master) -> list[int]:
        return [self.log.tip, *sorted((w.acked_size for w in self.workers.values()), reverse=True)]

    return [(Master, "_sizes", sizes)]


@breakage(within_seeds=20)
def a_commit_needs_only_a_minority() -> list[Replacement]:
    return [(Settings, "commit_quorum", property(lambda settings: max(1, settings.voters // 2)))]


@breakage(within_seeds=50)
def a_reader_is_shown_a_commit_size_that_is_not_on_disk() -> list[Replacement]:
    def show_commit(self: Node, shown: Callable[[int], None]) -> None:
        size = self.running.log.commit_size
        self.checker.shown(self, size)
        shown(size)

    return [(Node, "show_commit", show_commit)]


# --- epochs -----------------------------------------------------------------------------------------------------


@breakage(within_seeds=20)
def a_worker_answers_before_its_promise_is_on_disk() -> list[Replacement]:
    original = Worker._hello

    def hello(self: Worker, peer: str, frame: Hello) -> list[Effect]:
        self._promised = max(self._promised, frame.epoch)
        return original(self, peer, frame)

    return [(Worker, "_hello", hello)]


@breakage(within_seeds=200)
def a_promise_is_forgotten_by_a_restart() -> list[Replacement]:
    original = Cluster.loaded

    def loaded(self: Cluster, node: Node) -> StoreState:
        state = original(self, node)
        return replace(state, promised_epoch=state.last_epoch, promised_to="")

    return [(Cluster, "loaded", loaded)]


@breakage(within_seeds=200)
def a_lower_epoch_than_the_promised_one_is_followed() -> list[Replacement]:
    return [(mandate, "hello_fault", lambda *_, **__: None)]


@breakage(within_seeds=200)
def a_master_opens_without_the_fence_quorum() -> list[Replacement]:
    return [(opening, "fence_quorum", lambda voters: 1)]


@breakage(within_seeds=200)
def a_master_opens_without_fetching_a_missing_tail() -> list[Replacement]:
    return [(opening, "_end", lambda welcome: (0, 0))]


@breakage(within_seeds=300, weather="duel")
def a_record_of_an_old_epoch_is_committed_by_count() -> list[Replacement]:
    original = Master._advance

    def advance(self: Master) -> list[Effect]:
        start = self._epoch_start
        self._epoch_start = min(start, 0)
        try:
            return original(self)
        finally:
            self._epoch_start = start

    return [(Master, "_advance", advance)]


@breakage(within_seeds=50)
def a_restarted_master_gives_way_to_nobody() -> list[Replacement]:
    return [(mandate, "gives_way", lambda *_, **__: False)]


@breakage(within_seeds=150)
def a_master_hands_over_before_the_other_has_all() -> list[Replacement]:
    original = Master._hand_on

    def hand_on(self: Master, ending: Handover) -> list[Effect]:
        if ending.asked:
            return original(self, ending)
        ending.asked = True
        return [*original(self, ending), Send(ending.to, TakeOver(self.epoch))]

    return [(Master, "_hand_on", hand_on)]


@breakage(within_seeds=50)
def a_master_that_learns_of_a_higher_epoch_goes_on() -> list[Replacement]:
    return [(Master, "_step_down", lambda self, epoch, master: [])]


@breakage(within_seeds=50)
def a_master_begins_in_the_epoch_that_it_had() -> list[Replacement]:
    original = Master.start

    def start(self: Master, *, now: float, wall_ms: int) -> list[Effect]:
        self.epoch = max(self.epoch, self.log.last_epoch) - 1 if self.epoch else self.epoch
        return original(self, now=now, wall_ms=wall_ms)

    return [(Master, "start", start)]


@breakage(within_seeds=100)
def a_candidate_that_follows_takes_back_its_promise() -> list[Replacement]:
    original = Node.turn_written

    def turn_written(self: Node, write: TurnWrite) -> None:
        self.platter.store._promised_epoch = 0
        original(self, write)

    return [(Node, "turn_written", turn_written)]


@breakage(within_seeds=100)
def the_next_machine_begins_before_the_disk_is_done() -> list[Replacement]:
    return [(disk.Disk, "write", _turn_at_once(disk.Disk.write))]


def _turn_at_once(original: Callable[..., None]) -> Callable[..., None]:
    def write(self: disk.Disk, wanted: disk.Write) -> None:
        if isinstance(wanted, TurnWrite) and not self._node.still:
            self._node.turn_written(wanted)
        else:
            original(self, wanted)

    return write


@breakage(within_seeds=300, weather="duel")
def a_master_that_a_voter_can_not_follow_keeps_its_epoch() -> list[Replacement]:
    return [(Master, "_renew", lambda self, worker: [Hangup(worker, "epoch")])]


@breakage(within_seeds=300, weather="duel")
def appointed_masters_duel_for_ever() -> list[Replacement]:
    return [(master, "INSISTENCE", 1 << 30)]


# --- logs that part ---------------------------------------------------------------------------------------------


@breakage(within_seeds=200)
def records_are_dropped_without_quarantine() -> list[Replacement]:
    return [(disk.Disk, "_put_aside", lambda self, size: None)]


@breakage(within_seeds=200)
def logs_are_aligned_without_comparing_roots() -> list[Replacement]:
    def init(self: CommonSize, *, low: int, high: int) -> None:
        self._low, self._differs, self._proven, self.question = high, high + 1, True, None

    return [(CommonSize, "__init__", init)]


# --- checks -----------------------------------------------------------------------------------------------------


@breakage(within_seeds=200)
def a_worker_does_not_verify_signatures() -> list[Replacement]:
    return [(Keyring, "check", lambda self, batch, statement: None)]


@breakage(within_seeds=20, weather="new-keys")
def a_worker_goes_on_with_the_keys_that_it_started_with() -> list[Replacement]:
    return [(Worker, "_reconfigured", lambda self, event: [])]


@breakage(within_seeds=20, weather="new-keys")
def only_the_newest_key_of_a_node_is_believed() -> list[Replacement]:
    original = Keyring.__init__

    def init(self: Keyring, keys: Mapping[str, Sequence[NodeKey]]) -> None:
        original(self, {name: each[:1] for name, each in keys.items()})

    return [(Keyring, "__init__", init)]


@breakage(within_seeds=20, weather="new-keys")
def a_former_key_is_believed_for_one_record_less_than_it_signed() -> list[Replacement]:
    original = NodeKey.__init__

    def init(self: NodeKey, key_id: str, verifier: Verifier, until: int | None = None) -> None:
        original(self, key_id, verifier, None if until is None else until - 1)

    return [(NodeKey, "__init__", init)]


@breakage(within_seeds=200)
def a_worker_does_not_check_the_root() -> list[Replacement]:
    def check(batch: Batch, *, tree: Tree, decode: Callable[[bytes], Records], **_: Any) -> tuple[Append, Tree]:
        records, after = decode(batch.body), tree.copy()
        tiles = after.append(leaf_hashes(records.leaves))
        return Append(batch, check_records(batch, records), tiles), after

    return [(worker, "check_batch", check)]


# --- lists of voters --------------------------------------------------------------------------------------------


@breakage(within_seeds=20, weather="new-nodes")
def a_new_list_of_voters_is_all_that_counts() -> list[Replacement]:
    return [(OwnLog, "standing_lists", lambda self, configured: (configured,))]


@breakage(within_seeds=150, weather="new-nodes")
def lists_before_the_last_are_forgotten_though_it_never_took_effect() -> list[Replacement]:
    def lists(self: OwnLog, configured: VoterList) -> tuple[VoterList, ...]:
        return standing(self.lists, committed=True, configured=configured)

    return [(OwnLog, "standing_lists", lists)]


@breakage(within_seeds=150, weather="new-nodes")
def an_epoch_opens_without_the_commit_quorum_of_the_list_before() -> list[Replacement]:
    original = Master._try_open

    def try_open(self: Master, opening: Opening) -> list[Effect]:
        opening.lists = (self.settings.voter_list,)
        return original(self, opening)

    return [(Master, "_try_open", try_open)]


@breakage(within_seeds=150, weather="new-nodes")
def records_that_were_put_aside_still_say_who_votes() -> list[Replacement]:
    original = OwnLog.reset

    def reset(self: OwnLog, tree: Tree, last_epoch: int, epoch_record: EpochRecord | None) -> None:
        said = self.epoch_offset, self.lists
        original(self, tree, last_epoch, epoch_record)
        self.epoch_offset, self.lists = said

    return [(OwnLog, "reset", reset)]


@breakage(within_seeds=20, weather="new-nodes")
def a_node_without_a_vote_counts_for_a_write_concern() -> list[Replacement]:
    def sizes(self: Master) -> list[int]:
        stored = self.log.stored_size
        acked = sorted((w.acked_size for w in self.workers.values()), reverse=True)
        return [stored, *(min(stored, size) for size in acked)]

    return [(Master, "_sizes", sizes)]


# --- duplicates and answers -------------------------------------------------------------------------------------


@breakage(within_seeds=20)
def there_is_no_duplicate_check() -> list[Replacement]:
    return [(RecentIds, "all_new", lambda self, ids: True)]


@breakage(within_seeds=1000)
def ids_that_an_opening_master_fetched_are_not_known() -> list[Replacement]:
    return [(RecentIds, "came_in", lambda self, ids: None)]


@breakage(within_seeds=500)
def ids_that_the_disk_was_not_asked_about_pass_for_new() -> list[Replacement]:
    original = Posts.ids_found

    def ids_found(self: Posts, ticket: int, offsets: dict[str, int], *, stored_size: int) -> list[Effect]:
        frame = self._held.get(ticket)
        if frame is not None:
            frame.asked = [i for i in frame.messages.ids if self.ids.get(i) is None]
        return original(self, ticket, offsets, stored_size=stored_size)

    return [(Posts, "ids_found", ids_found)]


@breakage(within_seeds=100)
def a_post_that_times_out_is_told_that_it_is_not_applied() -> list[Replacement]:
    def late(*_: object) -> ServiceError:
        return Unavailable("too late")

    return [(posts, "_late", late)]


@breakage(within_seeds=300)
def a_deposed_master_says_not_applied_for_what_it_has_sent() -> list[Replacement]:
    original = Posts.abandon

    def abandon(self: Posts, error: ServiceError) -> list[Effect]:
        assert isinstance(error, OutcomeUnknown)
        return original(self, Unavailable("deposed"))

    return [(Posts, "abandon", abandon)]


# --- liveness and memory ----------------------------------------------------------------------------------------


@breakage(within_seeds=50)
def a_commit_waits_for_all_nodes() -> list[Replacement]:
    return [(Settings, "commit_quorum", property(lambda settings: settings.voters))]


@breakage(within_seeds=50)
def a_slow_worker_has_no_window() -> list[Replacement]:
    original = Progress.up

    def up(self: Progress, now: float) -> None:
        self.window_bytes = 1 << 60
        original(self, now)

    return [(Progress, "up", up)]


@breakage(within_seeds=50)
def a_dead_worker_keeps_its_window() -> list[Replacement]:
    original = Progress.down

    def down(self: Progress, reason: str) -> None:
        kept, size = list(self.window), self.in_flight_bytes
        original(self, reason)
        self.window.extend(kept)
        self.in_flight_bytes = size

    return [(Progress, "down", down)]


@breakage(within_seeds=800, weather="duel")
def an_epoch_begins_before_what_was_fetched_is_on_disk() -> list[Replacement]:
    original = Opening._next

    def go_on(self: Opening, log: OwnLog) -> list[Effect]:
        stored, log.stored_size = log.stored_size, log.tip
        try:
            return original(self, log)
        finally:
            log.stored_size = stored

    return [(Opening, "_next", go_on)]


@breakage(within_seeds=300, weather="duel")
def a_promise_for_a_lower_epoch_counts_for_a_higher() -> list[Replacement]:
    def greet_anew(self: Master, epoch: int) -> list[Effect]:
        return self._take_epoch(epoch)

    return [(Master, "_greet_anew", greet_anew)]


# --- bugs that the core once had --------------------------------------------------------------------------------


@breakage(within_seeds=500, weather="slow-disks", nodes=3)
def a_root_is_asked_for_beyond_what_is_on_disk() -> list[Replacement]:
    original = Progress.begin_search

    def begin_search(self: Progress, log: OwnLog) -> list[Effect]:
        stored, log.stored_size = log.stored_size, log.tip
        try:
            return original(self, log)
        finally:
            log.stored_size = stored

    return [(Progress, "begin_search", begin_search)]


@breakage(within_seeds=900, weather="nasty", nodes=3)
def a_log_is_aligned_again_in_an_epoch_that_it_agreed_in() -> list[Replacement]:
    original = Worker._align

    def align(self: Worker, frame: Align) -> list[Effect]:
        self._agreed_epoch = 0
        return original(self, frame)

    return [(Worker, "_align", align)]


@breakage(within_seeds=500, weather="duel", nodes=5)
def an_opening_master_waits_for_a_source_that_is_gone() -> list[Replacement]:
    return [(Opening, "resume", lambda self, log: [])]
