"""The candidate's machine: ask the voters how they stand before one of them is asked to promise anything.

Owns the inquiry, and the decision to lead or to follow. It promises nothing and writes nothing, so whoever may not be
the master finds that out without disturbing the one there is.

1. It leads only with answers of R voters, its own counted, none of which is a reason not to.
2. A node that has never promised anything leads nobody who has, nor anybody who has more of the log: its data folder
   is new, and the cluster is not. Not even its own name in their promises gives it back what it has lost.
"""

from __future__ import annotations

from collections.abc import Callable

from replicad.core import mandate
from replicad.core.effects import (
    Answer,
    Call,
    Confirm,
    Confirmed,
    Effect,
    Event,
    Follow,
    FrameArrived,
    FrameResult,
    HandOver,
    HandOverEnded,
    Hangup,
    Lead,
    Note,
    PeerDown,
    PeerUp,
    Promote,
    Reconfigured,
    Send,
    State,
    Submit,
    Tick,
)
from replicad.core.frames import Hello, Inquiry, Refused, Standing
from replicad.core.ownlog import OwnLog
from replicad.core.settings import Settings
from replicad.core.start import StoreState
from replicad.errors import Unavailable


class Candidate:
    """1. Nothing comes after a Lead or a Follow."""

    def __init__(self, settings: Settings, start: StoreState, *, call: Call) -> None:
        self.settings, self.call = settings, call
        self._own_call = call if call in (Call.RESUME, Call.BEGIN) else None  # by its own past
        self.state = State.OPENING
        self.epoch, self.promised_to = start.promised_epoch, start.promised_to
        self.log = OwnLog.restore(start, 0)
        self._heard: dict[str, Standing] = {}
        self._gone: set[str] = set()  # others that are known not to be reached now
        self._asked: dict[str, float] = {}  # on a stream that is there: who has not answered, and since when
        self._refusals: dict[str, str] = {}
        self._now = self._began = self._own_began = 0.0
        self._decided_at = 0.0  # when it was last asked what to do with the answers that there are
        self._handlers: dict[type, Callable[..., list[Effect]]] = {
            PeerUp: self._peer_up,
            PeerDown: self._peer_down,
            FrameArrived: self._frame,
            Tick: self._tick,
            Promote: self._promote,
            Reconfigured: self._reconfigured,
            Submit: lambda event: [Answer(event.ticket, FrameResult(error=self._refusal()))],
            Confirm: lambda event: [Confirmed(event.ticket, self._refusal())],
            HandOver: lambda event: [HandOverEnded(event.ticket, "", self._refusal())],
        }

    @property
    def detail(self) -> str:
        """Whose answer is missing."""
        missing = [name for name in self._others if name not in self._heard]
        refusals = "".join(f"; {name} refuses: {text}" for name, text in sorted(self._refusals.items()))
        voters = f"all {self._needed} voters of its config" if self.call is Call.FORCED else f"{self._needed} voters"
        asked = f"asks {voters}, itself counted, whether it may be the master"
        return f"{asked}; no answer of {', '.join(missing) or 'none'}{refusals}"

    @property
    def _others(self) -> list[str]:
        return [name for name in self.settings.voter_list if name != self.settings.node]

    def start(self, *, now: float, wall_ms: int) -> list[Effect]:
        """A cluster of one needs nobody's answer."""
        del wall_ms
        self._now = self._began = self._own_began = now
        decision = self._decide()
        if decision:
            return decision
        return [Note("info", "asks", self.detail, {"epoch": self.epoch, "size": self.log.tip})]

    def step(self, event: Event, *, now: float, wall_ms: int) -> list[Effect]:
        """What to do about an event."""
        del wall_ms
        self._now = now
        handler = self._handlers.get(type(event))
        return handler(event) if handler else []

    def wake_at(self) -> float:
        """When the next :class:`Tick` is due."""
        ends = (due for due in (self._courtesy_ends, self._patience_ends) if self._decided_at < due)
        return min((*ends, *(at + self.settings.unhealthy_s for at in self._asked.values())), default=float("inf"))

    @property
    def _courtesy_ends(self) -> float:
        """How long one that is wanted waits for those beyond R: the master may be among them, and open."""
        return self._began + self.settings.suspect_s if self._is_wanted else self._began

    @property
    def _awaited(self) -> list[str]:
        """Whose answers that courtesy is for. Who hands over may have given up on this node, and gone on."""
        return [self.promised_to] if self.call is Call.HANDED_OVER else self._others

    @property
    def _patience_ends(self) -> float:
        """How long silent voters are waited for: by who begins, for all; by who was called by another, for R."""
        return float("inf") if self.call is Call.RESUME else self._began + self.settings.unhealthy_s

    @property
    def _is_wanted(self) -> bool:
        """Whether an operator or the master wants it to lead, or only its own past."""
        return self.call in (Call.APPOINTED, Call.FORCED, Call.HANDED_OVER)

    @property
    def _needed(self) -> int:
        """How many answers of voters are enough. With data to be lost, of all: each may be the one that has most."""
        settings = self.settings
        return len(settings.voter_list) if self.call is Call.FORCED else settings.fence_quorum

    def _refusal(self) -> Unavailable:
        return Unavailable(f"{self.settings.node} {self.detail}", retry_after_s=0.2)

    # --- peers -------------------------------------------------------------------------------------

    def _peer_up(self, event: PeerUp) -> list[Effect]:
        if event.peer not in self.settings.workers:
            return []
        self._asked[event.peer] = self._now
        return [Send(event.peer, Inquiry(self.settings.cluster, self.settings.node))]

    def _tick(self, _: Tick) -> list[Effect]:
        """Who does not answer is asked again, on another stream: the end of this one may never be told of."""
        silent = [peer for peer, at in self._asked.items() if self._now >= at + self.settings.unhealthy_s]
        for peer in silent:
            del self._asked[peer]
        return [*(Hangup(peer, "silent") for peer in silent), *self._decide()]

    def _peer_down(self, event: PeerDown) -> list[Effect]:
        if event.peer not in self.settings.workers:
            return []
        self._heard.pop(event.peer, None)
        self._asked.pop(event.peer, None)
        self._gone.add(event.peer)
        return self._decide()

    def _frame(self, event: FrameArrived) -> list[Effect]:
        match event.frame:
            case Standing() as standing if event.peer == standing.node and standing.node in self.settings.workers:
                self._heard[event.peer] = standing
                self._asked.pop(event.peer, None)
                self._gone.discard(event.peer)
                self._refusals.pop(event.peer, None)
                return self._decide()
            case Refused(_, text) if event.peer in self.settings.workers:
                self._refusals[event.peer] = text
                self._asked.pop(event.peer, None)
                return [Hangup(event.peer, "refused")]
            case Inquiry() as inquiry:
                return [Send(event.peer, mandate.answer_inquiry(self.settings, inquiry, self._standing))]
            case Hello() as hello:
                return self._hello(event.peer, hello)
        return []

    def _hello(self, peer: str, hello: Hello) -> list[Effect]:
        """Somebody is the master, or is about to be."""
        fault = mandate.hello_fault(self.settings, hello, epoch=self.epoch, promised_to=self.promised_to)
        if fault is None and not self._is_wanted:
            text = f"{hello.master} leads epoch {hello.epoch}"
            return [Hangup(peer, "busy"), Follow(hello.epoch, hello.master, text)]
        reason, text = fault or ("busy", f"{self.settings.node} asks to be the master itself")
        return [Send(peer, Refused(reason, text, self.epoch, self._bound_to)), Hangup(peer, reason)]

    @property
    def _bound_to(self) -> str:
        """To whom it says that it is bound: not to itself for an epoch that it never began, or it would depose a master
        that has led all the while."""
        in_vain = self.promised_to == self.settings.node and self.log.last_epoch < self.epoch
        return "" if in_vain else self.promised_to

    def _promote(self, event: Promote) -> list[Effect]:
        """From now on it is an operator's will."""
        self.call, self._began = mandate.call_by_operator(forced=event.forced), self._now
        return self._decide()

    def _reconfigured(self, event: Reconfigured) -> list[Effect]:
        self.settings = event.settings
        return []

    # --- the decision ------------------------------------------------------------------------------

    def _decide(self) -> list[Effect]:
        """Lead or follow, once enough is known."""
        self._decided_at = self._now
        for standing in self._heard.values():
            reason = self._objection(standing)
            if reason:
                return self._follow(standing, reason)
        heard = [name for name in self._others if name in self._heard]
        enough = len(heard) + (self.settings.node not in self.settings.non_voters) >= self._needed
        patient = self._now < self._patience_ends
        if not enough:
            if self._is_wanted and not patient:
                return self._give_up()
            return []
        if self.call is Call.BEGIN and len(heard) < len(self._others) and patient:
            return []  # one that is silent may be the one that has a log
        if self._now < self._courtesy_ends and any(
            name not in self._heard and name not in self._gone for name in self._awaited
        ):
            return []
        above = max((standing.promised_epoch for standing in self._heard.values()), default=0)
        return [Lead(above, insists=self._is_wanted, forced=self.call is Call.FORCED)]

    def _give_up(self) -> list[Effect]:
        """Too few answer one that is wanted. What it would have done by itself, it goes on doing."""
        text = f"it did not become the master: {self.detail}"
        if self._own_call is None:
            return self._follow(None, text)
        self.call, self._began = self._own_call, self._own_began
        return [Note("warning", "asks", f"{text}; it goes on asking", {"epoch": self.epoch, "size": self.log.tip})]

    def _objection(self, standing: Standing) -> str:
        """Why this node does not become the master, with that one there; "" for no reason."""
        node, promised = standing.node, standing.promised_to
        if self.call is Call.BEGIN:
            more = (standing.last_epoch, standing.size) > (self.log.last_epoch, self.log.tip)
            has = f"has promised epoch {standing.promised_epoch} to {promised}" if promised else ""
            has = has or (f"has {standing.size} records" if more else "")
            return has and (
                f"this data folder has never been in use, and {node} {has}: `replicad-cli promote` says who leads"
            )
        if self.call is Call.RESUME:
            return self._objection_to_resume(standing)
        if self._is_wanted and standing.leads:
            return f"it did not become the master: {node} is it, and is open; use `replicad-cli switchover`"
        return ""

    def _objection_to_resume(self, standing: Standing) -> str:
        node, promised = standing.node, standing.promised_to
        if standing.leads and standing.last_epoch >= self.log.last_epoch:
            return f"{node} is the master, and is open"  # of an epoch that this node never got beyond
        text = f"{node} has promised epoch {standing.promised_epoch} to {promised}"
        if standing.asks:
            return text if mandate.comes_before(standing, self._standing) else ""
        # Not against its own promise: that may be of starts that came to nothing while another one led.
        begun, own = self.log.last_epoch + 1, self.settings.node
        way = mandate.gives_way(own, begun, to=promised, their_epoch=standing.promised_epoch)
        return text if way else ""

    @property
    def _standing(self) -> Standing:
        asks = self.call is Call.RESUME
        return mandate.standing(self.settings, self.log, epoch=self.epoch, promised_to=self.promised_to, asks=asks)

    def _follow(self, standing: Standing | None, text: str) -> list[Effect]:
        note = Note("warning", "follows_instead", text, {"epoch": self.epoch})
        if standing is None or self._is_wanted:
            return [note, Follow(self.epoch, self.promised_to, text)]
        # A promise to itself would pass for its own at the next start, though what it stood for is lost.
        other = "" if standing.promised_to == self.settings.node else standing.promised_to
        return [note, Follow(standing.promised_epoch, other, text)]
