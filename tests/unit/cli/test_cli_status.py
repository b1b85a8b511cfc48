"""Rows of the status table from what nodes tell: who is believed for what."""

import json
from io import StringIO

import pytest
from rich.console import Console

from replicad.cli.options import Session
from replicad.cli.output import Output
from replicad.cli.status import Answer, Row, certificate_note, nobody, rows_of, show_rows
from replicad.cli.statustable import print_table
from replicad.client import NodeStatus, Status
from replicad.errors import ExitCode, Unauthorized, Unavailable

NAMES = ("n1", "n2", "n3")


def address(name: str) -> str:
    return f"127.0.0.1:5{name[1:]}"


def account(name: str, *, role: str = "worker", epoch: int = 1, size: int = 10, lag: int = 0) -> Status:
    """What a node of three tells of itself; a master sees n3 ``lag`` behind."""
    nodes = tuple(
        NodeStatus(
            name=each,
            address=address(each),
            role="master" if role == "master" and each == name else "worker",
            health="self" if each == name else "HEALTHY" if role == "master" else "unknown",
            size=size - lag if each == "n3" else size,
            lag=lag if each == "n3" else 0,
            detail="",
        )
        for each in NAMES
    )
    return Status(
        cluster="c",
        node=name,
        version="1.2.3",
        role=role,
        state="open" if role == "master" else "following",
        epoch=epoch,
        size=size,
        commit_size=size - 1,
        root=bytes.fromhex("0123456789abcdef" * 4),
        master="n1",
        master_address=address("n1"),
        uptime_ms=1000,
        rss_bytes=60 << 20,
        nodes=nodes,
        commit_quorum=2,
        detail="",
    )


def whole(**changes: Answer) -> dict[str, Answer]:
    answers: dict[str, Answer] = {
        address("n1"): account("n1", role="master", size=1_000_000, lag=3),
        address("n2"): account("n2", size=1_000_000),
        address("n3"): account("n3", size=999_997),
    }
    return answers | {address(name): answer for name, answer in changes.items()}


def text_of(rows: list[Row], *, json: bool = False) -> str:
    stream = StringIO()
    show_rows(rows, Output(Session(json=json), stream))
    return stream.getvalue()


def table_of(rows: list[Row], *, width: int = 140) -> str:
    stream = StringIO()
    print_table(rows, Console(file=stream, width=width, highlight=False, markup=False))
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def test_a_pipe_gets_aligned_columns_without_colour() -> None:
    assert text_of(rows_of(whole())) == (
        "NODE  ADDRESS       ROLE    STATE      EPOCH  SIZE     COMMITTED  LAG  ROOT          RSS    HEALTH   NOTE\n"
        "n1    127.0.0.1:51  master  open       1      1000000  999999     0    0123456789ab  60MiB  HEALTHY  -\n"
        "n2    127.0.0.1:52  worker  following  1      1000000  999999     0    0123456789ab  60MiB  HEALTHY  -\n"
        "n3    127.0.0.1:53  worker  following  1      999997   999996     3    0123456789ab  60MiB  HEALTHY  -\n"
    )


TABLE = """\
cluster c: master n1, 3 of 3 nodes answer, commit quorum 2
node   address        role     state       epoch        size   committed   lag   root           memory   health
────────────────────────────────────────────────────────────────────────────────────────────────────────────────
n1     127.0.0.1:51   master   open            1   1,000,000     999,999     0   0123456789ab   60 MiB   HEALTHY
n2     127.0.0.1:52   worker   following       1   1,000,000     999,999     0   0123456789ab   60 MiB   HEALTHY
n3     127.0.0.1:53   worker   following       1     999,997     999,996     3   0123456789ab   60 MiB   HEALTHY
"""


def test_a_terminal_gets_a_table() -> None:
    assert table_of(rows_of(whole())) == TABLE


def test_json_has_the_whole_root_and_numbers_as_numbers() -> None:
    lines = [json.loads(line) for line in text_of(rows_of(whole()), json=True).splitlines()]
    assert [line["node"] for line in lines] == list(NAMES)
    assert lines[2] == {
        "cluster": "c",
        "node": "n3",
        "address": "127.0.0.1:53",
        "reachable": True,
        "error": "",
        "role": "worker",
        "state": "following",
        "epoch": 1,
        "size": 999_997,
        "commit_size": 999_996,
        "lag": 3,
        "root": "0123456789abcdef" * 4,
        "rss_bytes": 60 << 20,
        "health": "HEALTHY",
        "voter": True,
        "version": "1.2.3",
        "uptime_ms": 1000,
        "master": "n1",
        "commit_quorum": 2,
        "certificate_expires_ms": None,
        "damage": "",
        "scrubbed_ms": None,
        "detail": "",
        "note": "",
    }


def test_a_node_without_a_vote_is_shown_as_such() -> None:
    master = account("n1", role="master")
    nodes = tuple(node._replace(voter=node.name != "n3") for node in master.nodes)
    rows = rows_of(whole(n1=master._replace(nodes=nodes)))
    assert [row.note for row in rows] == ["", "", "has no vote"]
    assert "n3: has no vote\n" in table_of(rows)
    assert [json.loads(line)["voter"] for line in text_of(rows, json=True).splitlines()] == [True, True, False]


def test_a_node_that_does_not_answer_is_shown_as_such_with_the_reason() -> None:
    rows = rows_of(whole(n3=Unavailable("127.0.0.1:53: Connection refused")))
    assert "n3    127.0.0.1:53  worker  unreachable  -      -" in text_of(rows)
    table = table_of(rows)
    assert "2 of 3 nodes answer" in table
    assert "n3: 127.0.0.1:53: Connection refused\n" in table
    last = json.loads(text_of(rows, json=True).splitlines()[-1])
    assert (last["reachable"], last["size"], last["lag"], last["error"]) == (
        False,
        None,
        3,
        "127.0.0.1:53: Connection refused",
    )


def test_without_a_master_nobody_knows_health_and_lag() -> None:
    rows = rows_of(whole(n1=Unavailable("gone")))
    assert [row.health for row in rows] == ["unknown"] * 3
    assert [row.lag for row in rows] == [None] * 3


def test_of_two_who_think_that_they_are_master_the_one_of_the_higher_epoch_is_believed() -> None:
    rows = rows_of(whole(n2=account("n2", role="master", epoch=2, size=20, lag=7)))
    assert [row.lag for row in rows] == [0, 0, 7]


def test_an_address_that_is_no_nodes_is_shown_when_it_does_not_answer() -> None:
    rows = rows_of({"old-host:1": Unavailable("no such host"), **whole()})
    assert [row.name for row in rows] == [*NAMES, "?"]
    assert "old-host:1" in text_of(rows)


def test_an_answer_by_another_address_than_the_configs_counts() -> None:
    answers = {"localhost:51" if key == address("n1") else key: answer for key, answer in whole().items()}
    assert [row.own is not None for row in rows_of(answers)] == [True] * 3


def test_a_narrow_terminal_gets_fewer_columns_and_whole_numbers() -> None:
    for width in (60, 80, 100):
        table = table_of(rows_of(whole()), width=width)
        assert "1,000,000" in table
        assert "…" not in table
        assert "(a wider terminal also shows" in table


def test_what_a_node_says_is_no_markup_and_steers_no_terminal() -> None:
    rows = rows_of(whole(n3=Unavailable("[bold]x[/bold] \x1b[31m")))
    for text in (table_of(rows), text_of(rows)):
        assert "[bold]x[/bold] \\x1b[31m" in text


def test_when_no_node_answers_a_refusal_is_told_rather_than_a_silence() -> None:
    failure = nobody({"a:1": Unavailable("gone"), "b:1": Unauthorized("no token")})
    assert failure.exit_code == ExitCode.DENIED


def test_when_no_node_answers_every_reason_is_told() -> None:
    failure = nobody({"a:1": Unavailable("a:1: gone"), "b:1": Unavailable("b:1: lost")})
    assert failure.exit_code == ExitCode.TRY_AGAIN
    assert "a:1: gone; b:1: lost" in failure.message


@pytest.mark.parametrize("state", ["opening", "deposed", "waiting", "read-only"])
def test_a_node_that_does_not_do_what_it_is_for_says_why(state: str) -> None:
    troubled = account("n2")._replace(state=state, detail="because")
    rows = rows_of(whole(n2=troubled))
    assert rows[1].note == "because"
    assert "n2: because" in table_of(rows)


def test_a_certificate_that_ends_soon_is_noted() -> None:
    now_s = 1_800_000_000.0
    assert certificate_note(0, now_s=now_s) == ""
    assert certificate_note(int((now_s + 31 * 86_400) * 1000), now_s=now_s) == ""
    assert certificate_note(int((now_s + 2.5 * 86_400) * 1000), now_s=now_s) == "its certificate ends in 2.5 days"
    assert certificate_note(int((now_s - 1) * 1000), now_s=now_s) == "its certificate has expired"
