"""Messages of a quarantine into the log again. Which they are, :mod:`replicad.cli.quarantine` owns.

Owns how many are under way, and what is told of each. Must not know files.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterable
from itertools import islice

from replicad.cli.connect import make_client, run
from replicad.cli.errors import Failure, service_failure
from replicad.cli.options import Session
from replicad.cli.output import Output, count_text
from replicad.cli.rotationview import address_for
from replicad.client import Record
from replicad.client.settings import ADDRESS_VARIABLE, CA_VARIABLE
from replicad.config import Config
from replicad.errors import ExitCode, IdConflict, ServiceError

UNDER_WAY = 512  # they travel together in a few frames
TIMEOUT_S = 30.0  # for each: a node that is promoted has opened by then


def post_again(session: Session, config: Config, records: Iterable[Record], *, write_concern: str) -> None:
    """Post each record under its own id. Raises Failure: one could not be posted, or is in conflict."""
    output, results = Output(session), Counter[str]()
    _complete(session, config)

    async def work() -> None:
        remaining = iter(records)
        async with make_client(session, timeout_s=TIMEOUT_S) as client:

            async def one(record: Record) -> tuple[str, int | None]:
                try:
                    posted = await client.repost(record, write_concern=write_concern)
                except IdConflict as conflict:
                    return "conflict", conflict.offset
                return "present" if posted.duplicate else "posted", posted.offset

            while some := list(islice(remaining, UNDER_WAY)):
                answers = await asyncio.gather(*map(one, some), return_exceptions=True)
                failed = None
                for record, answer in zip(some, answers, strict=True):
                    if isinstance(answer, BaseException):
                        failed = failed or answer
                        continue
                    result, offset = answer
                    results[result] += 1
                    if session.json or result == "conflict":
                        text = f"{record.id}: the id stands at offset {offset} with other content"
                        fields = {"id": record.id, "was_at": record.offset, "offset": offset, "result": result}
                        output.show(text, fields)
                if failed is not None:
                    raise failed

    try:
        run(work())
    except ServiceError as error:
        failure = service_failure(error).of_post(error)
        failure.message = f"{failure.message} ({_sum(results)} before that; what was posted is known by its id)"
        raise failure from error
    if not session.json:
        output.write(f"{_sum(results)}\n")
    if count := results["conflict"]:
        stand = "stands" if count == 1 else "stand"
        raise Failure(
            f"{count_text(count, 'id')} {stand} in the log with other content; all else was posted",
            exit_code=ExitCode.CONFLICT,
            remedy="what is in conflict is to be posted under another id: `quarantine export` has it",
        )


def _sum(results: Counter[str]) -> str:
    return f"posted {results['posted']}, in the log already {results['present']}, in conflict {results['conflict']}"


def _complete(session: Session, config: Config) -> None:
    """We are on a node: what the command line and the environment do not say of the others, its config does."""
    if not session.addresses and not os.environ.get(ADDRESS_VARIABLE):
        session.addresses = [address_for(session, node) for node in config.nodes]
    if session.ca is None and not os.environ.get(CA_VARIABLE) and config.tls is not None:
        session.ca = config.tls.ca
