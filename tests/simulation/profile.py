"""What one seed is about: how many nodes, how fast things are, and which faults happen how often.

Not every seed has every fault: a bug that needs ten quiet seconds between two crashes is never found in a storm.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

NEVER = float("inf")
MIXED = "mixed"  # any faults in any mixture, and now and then one of the other weathers


@dataclass(frozen=True, slots=True)
class Profile:
    """Times in seconds; ``*_every_s`` is the mean time between two such faults, NEVER for none of them."""

    nodes: int
    duration_s: float
    clients: int
    think_s: float  # mean pause of a client between two frames
    frame_messages: int
    network_s: float  # mean time of a frame on its way
    disk_s: float  # mean time of a transaction
    read_s: float  # mean time of a read
    uneven: float  # by how much disks differ at the most: one may be so many times as slow, or as fast
    crash_every_s: float
    break_every_s: float  # a stream breaks
    stall_every_s: float  # nothing passes from one node to another, one way or both
    full_every_s: float  # a disk is full
    pause_every_s: float  # a process stands still
    jump_every_s: float  # a wall clock jumps
    move_every_s: float  # another node is made master, while the old one may still be at work
    corrupt: float  # probability that a frame with batches arrives changed
    nasty: float  # probability that a frame inside a stream is lost, doubled or overtaken: gRPC never does it
    rising_ids: float  # share of clients whose ids rise with time, as the library's do
    batch_records: int
    window_bytes: int
    cache_bytes: int
    read_bytes: int
    recent_ids: int
    waiting_frames: int
    min_nodes: int
    unstored_batches: int
    rotate_every_s: float = NEVER  # a node's key is replaced
    change_every_s: float = NEVER  # the list of nodes, or who of them has a vote
    spare_nodes: int = 0  # machines that the first config does not have

    @property
    def changes_nodes(self) -> bool:
        return self.change_every_s != NEVER

    @property
    def honest(self) -> bool:
        """Streams are as gRPC has them."""
        return not self.nasty


def draw(rng: random.Random, *, nodes: int | None = None, weather: str = MIXED) -> Profile:
    """A profile for a seed; of so many nodes, and in that weather, where it is asked for."""
    profile = _mixed(rng, nodes or rng.choice((1, 2, 3, 3, 3, 3, 3, 3, 3, 4, 5, 5)))
    if weather == MIXED:
        weather = rng.choices((MIXED, *WEATHERS), weights=(70, 12, 12, 6, 0, 0))[0]
    return WEATHERS[weather](rng, profile) if weather in WEATHERS else profile


def _duel(rng: random.Random, profile: Profile) -> Profile:
    """Masters come and go faster than their epochs open, and nodes are cut off: what Raft's figure 8 is about."""
    return replace(
        profile,
        duration_s=rng.choice((1.0, 2.0)),
        clients=1,
        think_s=0.03,
        network_s=rng.choice((0.0005, 0.002)),
        disk_s=rng.choice((0.001, 0.004)),
        crash_every_s=rng.choice((0.1, 0.3)),
        stall_every_s=rng.choice((0.05, 0.15)),
        move_every_s=rng.choice((0.05, 0.1, 0.2)),
        full_every_s=NEVER,
        batch_records=1,
        window_bytes=rng.choice((1, 300)),
        min_nodes=1,
    )


def _nasty(rng: random.Random, profile: Profile) -> Profile:
    """A network that gRPC would not be, while logs part and are aligned again and again."""
    return replace(
        profile,
        nasty=rng.choice((0.02, 0.1, 0.3)),
        network_s=rng.choice((0.002, 0.008)),
        crash_every_s=rng.choice((0.15, 0.3, NEVER)),
        break_every_s=rng.choice((0.1, 0.3)),
        stall_every_s=rng.choice((0.1, 0.3)),
        move_every_s=rng.choice((0.1, 0.25)),
    )


def _slow_disks(rng: random.Random, profile: Profile) -> Profile:
    """Disks that are slow, each in its own way, and full now and then: much is sent that is not stored yet."""
    return replace(
        profile,
        network_s=rng.choice((0.0005, 0.002)),
        disk_s=0.02,
        read_s=rng.choice((0.001, 0.02, 0.1)),
        uneven=10.0,
        crash_every_s=rng.choice((0.2, 0.5)),
        break_every_s=rng.choice((0.05, 0.2)),
        full_every_s=rng.choice((0.2, 0.5, NEVER)),
        move_every_s=rng.choice((0.2, 0.5, NEVER)),
    )


def _new_keys(rng: random.Random, profile: Profile) -> Profile:
    """Keys are replaced again and again, also before all nodes have heard of the next one; masters come and go."""
    return replace(
        profile,
        rotate_every_s=rng.choice((0.05, 0.15, 0.3)),
        crash_every_s=rng.choice((0.2, 0.5, NEVER)),
        move_every_s=rng.choice((0.15, 0.4, NEVER)),
    )


def _new_nodes(rng: random.Random, profile: Profile) -> Profile:
    """The list of nodes changes again and again, also before the last change has taken effect; masters come and go."""
    return replace(
        profile,
        spare_nodes=rng.choice((0, 1, 2, 3)),
        duration_s=rng.choice((1.5, 2.5)),
        clients=1,
        network_s=rng.choice((0.0005, 0.002)),
        disk_s=rng.choice((0.001, 0.004)),
        change_every_s=rng.choice((0.1, 0.2, 0.4)),
        crash_every_s=rng.choice((0.15, 0.4, NEVER)),
        stall_every_s=rng.choice((0.1, 0.3, NEVER)),
        move_every_s=rng.choice((0.15, 0.4, NEVER)),
        full_every_s=NEVER,
        min_nodes=1,
    )


WEATHERS: dict[str, Callable[[random.Random, Profile], Profile]] = {
    "duel": _duel,
    "nasty": _nasty,
    "slow-disks": _slow_disks,
    "new-keys": _new_keys,
    "new-nodes": _new_nodes,
}


def _mixed(rng: random.Random, nodes: int) -> Profile:
    """Any faults in any mixture."""

    def sometimes(probability: float, *every_s: float) -> float:
        return rng.choice(every_s) if rng.random() < probability else NEVER

    return Profile(
        nodes=nodes,
        duration_s=rng.choice((0.8, 1.5, 2.5)),
        clients=rng.choice((1, 2, 3)),
        think_s=rng.choice((0.01, 0.03, 0.08)),
        frame_messages=rng.choice((1, 2, 4)),
        network_s=rng.choice((0.0005, 0.002, 0.008)),
        disk_s=rng.choice((0.001, 0.004, 0.02)),
        read_s=rng.choice((0.0005, 0.003, 0.02)),
        uneven=rng.choice((1.0, 3.0, 10.0)),
        crash_every_s=sometimes(0.7, 0.15, 0.4, 1.0),
        break_every_s=sometimes(0.6, 0.1, 0.4, 1.0),
        stall_every_s=sometimes(0.5, 0.2, 0.6),
        full_every_s=sometimes(0.25, 0.3, 0.8),
        pause_every_s=sometimes(0.3, 0.3, 0.8),
        jump_every_s=sometimes(0.2, 0.5),
        move_every_s=sometimes(0.4, 0.3, 0.6, 1.2),
        corrupt=rng.choice((0.01, 0.05)) if rng.random() < 0.2 else 0.0,
        nasty=0.0,
        rising_ids=rng.choice((0.0, 0.5, 1.0)),
        batch_records=rng.choice((1, 3, 8)),
        window_bytes=rng.choice((300, 1000, 8 << 20)),
        cache_bytes=rng.choice((0, 600, 8 << 20)),
        read_bytes=rng.choice((1, 500, 1 << 20)),
        recent_ids=rng.choice((4, 16, 32_768)),
        waiting_frames=rng.choice((3, 100, 100)),
        min_nodes=rng.choice((1, 1, 1, nodes // 2 + 1)),
        unstored_batches=rng.choice((1, 2, 2, 4)),
    )
