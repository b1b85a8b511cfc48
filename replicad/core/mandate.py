"""Who may be the master: what every machine says of itself, whom it lets be, and which of two gives way.

The promise on a node's disk decides, not its config: a node whose last promise is to itself was the master, or was
about to be, and may ask to be it again; any other is a worker. The config's role counts on a node that never promised.
"""

from __future__ import annotations

from replicad.core.effects import Call
from replicad.core.frames import Hello, Inquiry, Refused, Standing
from replicad.core.ownlog import OwnLog
from replicad.core.settings import Settings
from replicad.core.start import StoreState


def call_of(settings: Settings, start: StoreState, *, configured_master: bool) -> Call | None:
    """With which right a node that starts asks to be the master; None for a worker."""
    if settings.node in settings.non_voters:
        return None
    if start.promised_to == settings.node:
        return Call.RESUME
    return Call.BEGIN if configured_master and not start.promised_to else None


def call_by_operator(*, forced: bool) -> Call:
    """With which right a node asks that is promoted."""
    return Call.FORCED if forced else Call.APPOINTED


def standing(
    settings: Settings, log: OwnLog, *, epoch: int, promised_to: str, leads: bool = False, asks: bool = False
) -> Standing:
    """The answer to an Inquiry."""
    return Standing(settings.node, epoch, promised_to, log.last_epoch, log.stored_size, leads, asks)


def hello_fault(settings: Settings, hello: Hello, *, epoch: int, promised_to: str) -> tuple[str, str] | None:
    """Why a node that has promised ``epoch`` does not follow this master: a reason and a text; None when it does."""
    if hello.cluster != settings.cluster:
        return "cluster", f"this node is of cluster {settings.cluster!r}, not {hello.cluster!r}"
    if hello.master not in settings.workers:
        return "master", f"{hello.master!r} is no other node of this node's config"
    if hello.epoch < epoch:
        return "epoch", f"epoch {hello.epoch} is over: epoch {epoch} is promised to {promised_to}"
    if hello.epoch == epoch and hello.master != promised_to:
        return "epoch", f"epoch {epoch} is promised to {promised_to} already"
    return None


def answer_inquiry(settings: Settings, inquiry: Inquiry, own: Standing) -> Standing | Refused:
    """What a node says that is asked how it stands."""
    if inquiry.cluster == settings.cluster:
        return own
    text = f"this node is of cluster {settings.cluster!r}, not {inquiry.cluster!r}"
    return Refused("cluster", text, own.promised_epoch, own.promised_to)


def gives_way(node: str, epoch: int, *, to: str, their_epoch: int) -> bool:
    """Whether a node that is about to begin ``epoch`` gives way to one that was promised ``their_epoch``. Two that were
    promised the same both do: only an operator can have wanted a second one, and is there to say which."""
    return to not in ("", node) and their_epoch >= epoch


def comes_before(rival: Standing, own: Standing) -> bool:
    """Which of two nodes that both ask to be the master by nothing but their past, as when all start at once: the one
    that has more of the log, was promised more, or is the first by name. The other gives way, so that not both do."""
    theirs, ours = ((s.last_epoch, s.size, s.promised_epoch) for s in (rival, own))
    return theirs > ours or (theirs == ours and rival.node < own.node)
