"""What the master knows of one worker, and what it sends next.

Owns the phases of a worker's session and the window. Must not know of posts, write concerns or other workers: it is
told the log's sizes, and says what it wants as effects.

| phase    | waits for           | then                                                       |
|----------|---------------------|------------------------------------------------------------|
| DOWN     | a stream            | GREETING                                                   |
| GREETING | Welcome             | HELD until the epoch has begun, else SEARCHING             |
| HELD     | the epoch           | SEARCHING                                                  |
| SEARCHING| Root, own root      | LEVELLING if the worker has only less, else ALIGNING       |
| ALIGNING | Aligned             | LEVELLING                                                  |
| LEVELLING| Acks                | stays: batches from memory, or from disk, within the window|
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from replicad.core.batch import Batch
from replicad.core.common import RootSearch
from replicad.core.effects import Effect, Hangup, Note, ReadBatches, Send
from replicad.core.frames import Align, AppendBatch, Heartbeat, Welcome
from replicad.core.ownlog import OwnLog
from replicad.errors import InvariantError


class Phase(Enum):
    DOWN = "down"
    GREETING = "greeting"
    HELD = "held"
    SEARCHING = "searching"
    ALIGNING = "aligning"
    LEVELLING = "levelling"


class Health(StrEnum):
    HEALTHY = "HEALTHY"
    SUSPECTED = "SUSPECTED"
    UNHEALTHY = "UNHEALTHY"


@dataclass(slots=True)
class Progress:
    """1. ``acked_size`` is on the worker's disk, in this epoch's log, for as long as the worker keeps its disk.
    2. ``window`` holds what was sent and not acknowledged: (end, bytes), ascending.
    """

    name: str
    window_bytes: int
    read_bytes: int
    phase: Phase = Phase.DOWN
    session: int = 0  # answers to an earlier session's questions are dropped
    health: Health = Health.UNHEALTHY
    detail: str = "never reached"
    acked_size: int = 0
    probe_acked: int = 0
    next_offset: int = 0
    commit_told: int = 0
    last_heard: float = 0.0
    last_sent: float = 0.0
    welcome: Welcome | None = None
    window: deque[tuple[int, int]] = field(default_factory=deque)
    in_flight_bytes: int = 0
    reading: bool = False
    search: RootSearch | None = None

    # --- the session -------------------------------------------------------------------------------

    def up(self, now: float) -> None:
        """A stream is up; Hello goes out next."""
        self.phase, self.session = Phase.GREETING, self.session + 1
        self.health, self.last_heard, self.last_sent, self.detail = Health.HEALTHY, now, now, ""
        self.welcome, self.search, self.reading, self.commit_told = None, None, False, 0
        self.window.clear()
        self.in_flight_bytes = 0

    def down(self, reason: str) -> None:
        """The stream is gone. What the worker has on disk it still has."""
        self.phase, self.health, self.detail = Phase.DOWN, Health.UNHEALTHY, reason
        self.session += 1
        self.window.clear()
        self.in_flight_bytes = 0

    def heard(self, now: float) -> None:
        self.last_heard, self.health = now, Health.HEALTHY

    # --- where the logs part -----------------------------------------------------------------------

    def begin_search(self, log: OwnLog) -> list[Effect]:
        """Compare roots with the worker, from the largest size that both have."""
        welcome = self.welcome
        if welcome is None:
            raise InvariantError("a search follows a Welcome")
        self.phase = Phase.SEARCHING
        high = min(welcome.size, log.tip)
        if high > log.stored_size and (high != welcome.size or log.known_root(high) != welcome.root):
            high = log.stored_size  # the disk can tell about no more; what is not stored is of this epoch
        self.search = RootSearch(self.name, self.session, welcome, low=welcome.commit_size, high=high)
        return self.search.ask(log) + self._found(log)

    def own_root_read(self, size: int, root: bytes, log: OwnLog) -> list[Effect]:
        return self.search.own_root(size, root, log) + self._found(log) if self.search else []

    def peer_root_arrived(self, size: int, root: bytes, log: OwnLog) -> list[Effect]:
        return self.search.peer_root(size, root, log) + self._found(log) if self.search else []

    def _found(self, log: OwnLog) -> list[Effect]:
        """Go on when the search has ended."""
        agreed = self.search.agreed if self.search else None
        if agreed is None or self.welcome is None:
            return []
        self.search = None
        if agreed < self.welcome.commit_size:
            return self._fork()
        surplus = self.welcome.size - agreed
        if not surplus and agreed < log.tip:
            return self.aligned(agreed, log)  # the next batch proves to the worker that the logs agree
        self.phase, self.next_offset = Phase.ALIGNING, agreed
        if not surplus:
            return [Send(self.name, Align(agreed))]
        text = f"{self.name} has {surplus} records that never were committed; it puts them aside"
        fields = {"peer": self.name, "size": agreed, "peer_size": self.welcome.size}
        return [Note("warning", "align", text, fields), Send(self.name, Align(agreed))]

    def _fork(self) -> list[Effect]:
        self.detail = (
            "its log parts from this master's below its commit size: one of the two data folders is not of this log"
        )
        return [Note("error", "fork", f"{self.name}: {self.detail}", {"peer": self.name}), Hangup(self.name, "fork")]

    def aligned(self, size: int, log: OwnLog) -> list[Effect]:
        """Both logs agree up to ``size``, the worker's end."""
        self.phase, self.acked_size, self.next_offset = Phase.LEVELLING, size, size
        behind = log.tip - size
        note = Note(
            "info", "follows", f"{self.name} follows, {behind} records behind", {"peer": self.name, "size": size}
        )
        return [note, *self.feed(log)]

    # --- batches -----------------------------------------------------------------------------------

    def feed(self, log: OwnLog) -> list[Effect]:
        """Send what the worker lacks and the window has room for, from memory; ask the disk for what is older."""
        effects: list[Effect] = []
        while self.phase is Phase.LEVELLING and self.next_offset < log.tip and self.in_flight_bytes < self.window_bytes:
            batch = log.recent.beginning_at(self.next_offset)
            if batch is None:
                if not self.reading:
                    self.reading = True
                    room = min(self.read_bytes, self.window_bytes - self.in_flight_bytes)
                    effects.append(ReadBatches(self.name, self.session, self.next_offset, log.stored_size, room))
                break
            effects.append(self._send(batch, log))
        return effects

    def batches_read(self, batches: Sequence[Batch], log: OwnLog) -> list[Effect]:
        self.reading = False
        effects: list[Effect] = []
        for batch in batches:
            if self.phase is not Phase.LEVELLING or batch.first_offset != self.next_offset:
                break
            effects.append(self._send(batch, log))
        return effects + self.feed(log)

    def _send(self, batch: Batch, log: OwnLog) -> Effect:
        self.next_offset = batch.end
        self.window.append((batch.end, len(batch.body)))
        self.in_flight_bytes += len(batch.body)
        self.commit_told = log.commit_size
        return Send(self.name, AppendBatch(batch, log.commit_size))

    def acknowledged(self, size: int, probe: int) -> bool:
        """Take in a worker's answer; whether it moved ``acked_size``. An answer beyond what was sent is ignored."""
        self.probe_acked = max(self.probe_acked, probe)
        if self.phase is not Phase.LEVELLING or not self.acked_size < size <= self.next_offset:
            return False
        self.acked_size = size
        while self.window and self.window[0][0] <= size:
            self.in_flight_bytes -= self.window.popleft()[1]
        return True

    def heartbeat(self, *, commit_size: int, probe: int, now: float) -> Effect:
        self.last_sent, self.commit_told = now, commit_size
        return Send(self.name, Heartbeat(commit_size, probe))
