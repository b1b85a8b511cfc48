"""Messages of a quarantine that are posted again: what is told of them."""

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import cast

import pytest

from replicad.cli import resubmit
from replicad.cli.errors import Failure
from replicad.cli.options import Session
from replicad.client import Posted, Record
from replicad.config import Config
from replicad.errors import Applied, ExitCode, IdConflict, Unauthorized


class Log(AbstractAsyncContextManager["Log"]):
    """Stands in for a client of a log that has every id already, with other content."""

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        return None

    async def repost(self, record: Record, *, write_concern: str) -> Posted:
        raise IdConflict("taken", offset=7)


@pytest.mark.parametrize(("count", "told"), [(1, "1 id stands in the log"), (2, "2 ids stand in the log")])
def test_conflicts_are_counted_in_words_that_fit(count: int, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resubmit, "make_client", lambda *_, **__: Log())
    records = [Record(number, 1, 0, f"id-{number}", "a", {}, b"x", True) for number in range(count)]
    config = cast(Config, None)  # is not asked: the command line has all
    with pytest.raises(Failure, match=told):
        resubmit.post_again(Session(addresses=["127.0.0.1:1"], ca="ca.crt"), config, records, write_concern="1")


def test_what_is_not_known_of_a_message_is_told_by_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    error = Unauthorized("withdrawn, after an answer was lost")
    error.applied = Applied.UNKNOWN

    class Lost(Log):
        async def repost(self, record: Record, *, write_concern: str) -> Posted:
            raise error

    monkeypatch.setattr(resubmit, "make_client", lambda *_, **__: Lost())
    with pytest.raises(Failure) as failed:
        resubmit.post_again(
            Session(addresses=["127.0.0.1:1"], ca="ca.crt"),
            cast(Config, None),
            [Record(0, 1, 0, "id", "a", {}, b"x", True)],
            write_concern="1",
        )
    assert failed.value.exit_code == ExitCode.UNKNOWN_OUTCOME
