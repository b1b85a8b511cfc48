"""A client that posts while a fleet is worked on, and what it was answered held against every node's log:

    python -m tests.packaging.loader post --addresses A,B,C --ca FILE --token-file FILE --folder FOLDER
    python -m tests.packaging.loader check --addresses A,B,C --ca FILE --token-file FILE --folder FOLDER

post goes on until there is FOLDER/enough, FOLDER is gone, or SECONDS are over. It leaves retries to the library and
takes a post that failed for a fault. FOLDER/acknowledged has a line for each answer: id, offset, and when, in seconds.
Needs replicad's own Python environment. Must not know where the nodes run, nor what is done to them.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from replicad.client import AsyncClient

LANES = 4  # posts under way at once
PAUSE_S = 0.05  # of a lane between an answer and its next post: load for a fleet whose hosts share two processors
SECONDS = 900.0  # a scenario takes a third of it; after that nobody is left to say that it is enough
PATIENCE_S = 180.0  # for a post, retries included: longer than a host takes to boot and to lead again


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A post that was answered."""

    id: str
    offset: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """Where the nodes are, and how one gets in."""

    addresses: tuple[str, ...]
    ca: str
    token: str

    def client(self, *addresses: str) -> AsyncClient:
        return AsyncClient(addresses or self.addresses, ca=self.ca, token=self.token, timeout_s=PATIENCE_S)


class Failed(Exception):
    """What was acknowledged is not what is in the logs."""


def is_enough(folder: Path) -> bool:
    """Whether the posts are to end."""
    return not folder.exists() or (folder / "enough").exists()


async def post(fleet: Fleet, folder: Path, *, run: str, write_concern: str, seconds: float) -> int:
    """Post until it is enough; how many were answered. A post that failed ends it, with the library's error."""
    deadline = time.monotonic() + seconds
    count = 0

    async def lane(client: AsyncClient, number: int) -> None:
        nonlocal count
        turn = 0
        while not is_enough(folder) and time.monotonic() < deadline:
            id = f"{run}-{number}-{turn}"
            posted = await client.post(f"message {id}", id=id, write_concern=write_concern)
            answers.write(f"{id} {posted.offset} {time.time():.3f}\n")
            count, turn = count + 1, turn + 1
            await asyncio.sleep(PAUSE_S)

    with (folder / "acknowledged").open("a", buffering=1) as answers:
        async with fleet.client() as client, asyncio.TaskGroup() as lanes:
            for number in range(LANES):
                lanes.create_task(lane(client, number))
    return count


def acknowledged(folder: Path) -> list[Acknowledged]:
    """What was answered, by offset."""
    lines = (line.split() for line in (folder / "acknowledged").read_text().splitlines())
    return sorted((Acknowledged(id, int(at), float(s)) for id, at, s in lines), key=lambda each: each.offset)


def faults(answers: list[Acknowledged], log: dict[int, str]) -> Iterator[str]:
    """What is wrong with a log, its ids by offset, for who was given these answers."""
    places: dict[str, list[int]] = {}
    for offset, id in log.items():
        places.setdefault(id, []).append(offset)
    for answer in answers:
        if places.get(answer.id) != [answer.offset]:
            yield f"{answer.id}, acknowledged at {answer.offset}, stands at {places.get(answer.id, 'no offset')}"


def longest_pause_s(answers: list[Acknowledged]) -> float:
    """The longest time without an answer."""
    times = sorted(answer.at_s for answer in answers)
    return max((later - earlier for earlier, later in pairwise(times)), default=0.0)


async def check(fleet: Fleet, folder: Path) -> str:
    """Hold the answers against the log of every node; how many they are. Failed when something is amiss."""
    answers = acknowledged(folder)
    if not answers:
        raise Failed("nothing was acknowledged")
    logs: dict[str, dict[int, str]] = {}
    for address in fleet.addresses:
        async with fleet.client(address) as client:
            logs[address] = {each.offset: each.id async for each in client.list(min_offset=answers[-1].offset)}
    for address, log in logs.items():
        if found := list(faults(answers, log)):
            raise Failed(f"{address}: {len(found)} faults, the first: {found[0]}")
        shared = range(answers[-1].offset + 1)
        if any(log.get(offset) != logs[fleet.addresses[0]].get(offset) for offset in shared):
            raise Failed(f"{address} has not the records of {fleet.addresses[0]}")
    return (
        f"{len(answers)} acknowledged messages are in the logs of {len(logs)} nodes, each once; "
        f"longest pause {longest_pause_s(answers):.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="loader", description="A client that posts, and checks what became of it.")
    parser.add_argument("command", choices=("post", "check"))
    parser.add_argument("--addresses", required=True, type=lambda text: tuple(text.split(",")), help="HOST:PORT,...")
    parser.add_argument("--ca", required=True)
    parser.add_argument("--token-file", required=True, type=Path)
    parser.add_argument("--folder", required=True, type=Path, help="where the answers are kept")
    parser.add_argument("--write-concern", default="majority")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    given = parser.parse_args()
    fleet = Fleet(given.addresses, given.ca, given.token_file.read_text().strip())
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.command == "check":
        try:
            print(asyncio.run(check(fleet, given.folder)))
        except Failed as exc:
            raise SystemExit(str(exc)) from exc
    else:
        run = f"load-{time.time_ns()}"
        count = asyncio.run(
            post(fleet, given.folder, run=run, write_concern=given.write_concern, seconds=given.seconds)
        )
        print(f"{count} acknowledged")


if __name__ == "__main__":
    main()
