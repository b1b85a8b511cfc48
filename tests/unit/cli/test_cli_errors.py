"""Every error becomes words, an object and an exit code."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from replicad.cli.errors import EXIT_CODES, expected_failure, plain, post_failure, unexpected_failure
from replicad.cli.main import cli, main
from replicad.errors import (
    SERVICE_ERRORS,
    Applied,
    BadRequest,
    ConfigError,
    DamagedError,
    DataFolderError,
    ExitCode,
    IdConflict,
    InvariantError,
    KeyFileError,
    NotFound,
    NotMaster,
    OutcomeUnknown,
    PeerError,
    RateLimited,
    ReplicadError,
    ServiceError,
    TooLarge,
    Unauthorized,
    Unavailable,
    WriteConcernTimeout,
)


def test_every_exit_code_is_documented() -> None:
    assert set(EXIT_CODES) == {*map(int, ExitCode), 130, 141}


@pytest.mark.parametrize("kind", SERVICE_ERRORS.values(), ids=lambda kind: kind.name)
def test_every_service_error_has_its_own_codes(kind: type[ServiceError]) -> None:
    failure = post_failure(kind("what happened"), message_id="x")
    told = json.loads(failure.as_json())
    assert (told["code"], told["name"], told["applied"]) == (kind.code, kind.name, kind.applied.value)
    assert told["message"] == "what happened"
    assert told["id"] == "x"
    assert failure.exit_code == told["exit_code"] == kind.exit_code
    assert f"what happened ({kind.code} {kind.name})" in failure.as_text()


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (ConfigError(["a: 1", "b: 2"]), 3),
        (KeyFileError("no key"), 3),
        (DataFolderError("in use"), 3),
        (DamagedError("no database"), 11),
        (PeerError("gap", "a record is missing"), 1),
    ],
)
def test_errors_that_no_node_made_have_a_name_and_no_code(error: ReplicadError, exit_code: int) -> None:
    failure = expected_failure(error)
    assert failure is not None
    told = json.loads(failure.as_json())
    assert (told["code"], told["name"], told["applied"]) == (None, ExitCode(exit_code).name, "-")
    assert failure.exit_code == exit_code
    assert str(error) in failure.as_text()


def test_a_read_says_nothing_of_applied() -> None:
    failure = expected_failure(Unavailable("nobody there"))
    assert failure is not None
    assert failure.applied is Applied.NOT_A_POST
    assert "applied" not in failure.as_text()


def test_a_late_post_tells_where_the_record_is_and_how_to_wait_for_it() -> None:
    failure = post_failure(WriteConcernTimeout("too late", offset=12, nodes=2), message_id="x")
    assert failure.as_text() == (
        "error: too late (504 WRITE_CONCERN_TIMEOUT)\n"
        "applied: yes, at offset 12, on 2 nodes\n"
        "try: it goes on replicating, and stays for good once a majority has it; to wait for it, or to have it posted "
        "anew should another master lack it, post the same message again with --id x"
    )


def test_an_unknown_outcome_says_how_to_learn_it() -> None:
    failure = post_failure(OutcomeUnknown("no answer"), message_id="x")
    assert "applied: unknown" in failure.as_text()
    assert "replicad-cli outcome x, or post the same message again with --id x" in failure.as_text()


def test_an_error_that_may_follow_on_a_lost_answer_says_how_to_learn_the_outcome() -> None:
    error = Unavailable("nobody there")
    error.applied = Applied.UNKNOWN
    assert "replicad-cli outcome x" in post_failure(error, message_id="x").as_text()


def test_a_conflict_says_where_the_other_message_is() -> None:
    failure = post_failure(IdConflict("taken", offset=7), message_id="x")
    assert "replicad-cli list --from 7 --limit 1" in failure.as_text()


def test_a_limit_is_to_be_raised_only_where_it_can_be() -> None:
    raised = "split the message, or raise limits.payload in every node's config"
    assert post_failure(TooLarge("the payload has 9 bytes, at most 8 are taken"), message_id="x").remedy == raised


def test_a_payload_that_no_log_takes_is_to_be_split(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("replicad.client.aio.MAX_PAYLOAD_BYTES", 8)
    assert main(["--address", "127.0.0.1:1", "post", "--output", "json", "123456789"]) == 2
    assert json.loads(capsys.readouterr().err)["remedy"] == "split the message"


def test_of_a_standard_input_that_no_log_takes_no_length_is_told_that_was_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("replicad.cli.post.MAX_PAYLOAD_BYTES", 1 << 20)
    (tmp_path / "file").write_bytes(bytes(3 << 20))
    with (tmp_path / "file").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert main(["--address", "127.0.0.1:1", "post", "--id", "x"]) == 2
    assert capsys.readouterr().err == (
        "error: standard input has more than 1 MiB, which no log takes in one message (413 TOO_LARGE)\n"
        "applied: no\n"
        "try: split the message\n"
    )


@pytest.mark.parametrize(
    ("error", "exit_code", "remedy"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "d/log.db"), 3, "do it as its owner or as root"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "d/log.db"), 3, "name another path"),
        (OSError(errno.ENOSPC, "No space left on device", "d/log.db"), 11, ""),
        (OSError(errno.EIO, "Input/output error", "d/log.db"), 11, ""),
    ],
)
def test_what_the_system_says_of_a_file_has_a_remedy(error: OSError, exit_code: int, remedy: str) -> None:
    failure = expected_failure(error)
    assert failure is not None
    assert (failure.message, failure.exit_code) == (f"d/log.db: {error.strerror}", exit_code)
    assert failure.remedy.startswith(remedy)


def test_a_file_that_may_not_be_read_is_no_matter_of_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands():
        for parameter in command.params:
            if isinstance(parameter.type, click.Path):  # else click itself refuses it, with exit code 2 and no remedy
                assert not parameter.type.readable, (command.name, parameter.name)


def commands(group: click.Group = cli) -> Iterator[click.Command]:
    """Every command, the groups included."""
    yield group
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command)
        else:
            yield command


def test_an_error_is_written_in_the_form_of_results() -> None:
    told = post_failure(Unavailable("away"), message_id="x").as_json()
    assert told == json.dumps(json.loads(told), separators=(",", ":"))


def test_a_node_that_is_not_the_master_names_it() -> None:
    failure = post_failure(NotMaster("not me", master="n2", master_address="h:1"), message_id="x")
    assert "the master is n2 at h:1" in failure.as_text()
    assert json.loads(failure.as_json())["master_address"] == "h:1"


def test_a_limit_says_when_to_try_again() -> None:
    assert "in 1.5 s" in post_failure(RateLimited("slow down", retry_after_s=1.5), message_id="x").as_text()


def test_what_is_not_known_is_left_out_of_the_object() -> None:
    failure = expected_failure(NotFound("no such id"))
    assert failure is not None
    assert set(json.loads(failure.as_json())) == {"code", "name", "applied", "message", "remedy", "exit_code"}


def test_a_bug_of_ours_is_expected_by_nobody() -> None:
    for bug in (InvariantError("tip behind commit size"), ZeroDivisionError()):
        assert expected_failure(bug) is None
        assert unexpected_failure(bug).exit_code == ExitCode.FAILED


@pytest.mark.parametrize(
    "message",
    [
        "h:1: failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote "
        "host: Connection refused",
        "h:1: failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:1: Connection refused",
    ],
)
def test_what_grpc_tells_of_its_inner_life_is_left_out(message: str) -> None:
    assert plain(message) == "h:1: cannot be reached: Connection refused"


@pytest.mark.parametrize("kind", [RateLimited, Unavailable, Unauthorized, BadRequest])
def test_no_exit_code_says_that_nothing_was_applied_when_that_is_not_known(kind: type[ServiceError]) -> None:
    error = kind("refused, after an answer was lost")
    assert post_failure(error, message_id="x").exit_code == kind.exit_code
    error.applied = Applied.UNKNOWN
    failure = post_failure(error, message_id="x")
    assert failure.exit_code == json.loads(failure.as_json())["exit_code"] == ExitCode.UNKNOWN_OUTCOME
    assert "replicad-cli outcome x" in failure.as_text()


def test_a_master_that_cannot_be_reached_is_to_be_started_or_replaced() -> None:
    failure = post_failure(Unavailable("n2 names n1, which can't be reached", master="n1"), message_id="x")
    assert "try: start n1; if it is gone for good, replicad-cli promote" in failure.as_text()


def test_what_tls_asks_for_is_named_by_its_option() -> None:
    failure = post_failure(Unavailable("h:1: it may want TLS: give a CA (Socket closed)"), message_id="x")
    assert "try: give the nodes' CA bundle: --ca FILE, or REPLICAD_CA" in failure.as_text()
