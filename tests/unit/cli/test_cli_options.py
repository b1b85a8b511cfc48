"""What the command line takes, and what it refuses with a remedy."""

import json

import click
import pytest

from replicad.cli.main import main
from replicad.cli.options import Duration, Header, Moment, Offset, Size, WriteConcern, wants_json


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5.0), ("500ms", 0.5), ("2m", 120.0), ("1h", 3600.0), ("5", 5.0), ("0.25", 0.25)]
)
def test_a_duration_is_read_with_its_unit_and_in_seconds_without(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "5 s", "-1s", "5d", "0s", "25h", "1e9", "nan", "\u0665s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01T00:00:01", 1000),
        ("1970-01-01T01:00:01.5+01:00", 1500),
        ("1970-01-02", 86_400_000),
        ("1700000000123", 1_700_000_000_123),
        ("2023-11-14T22:13:20.123Z", 1_700_000_000_123),
        ("0", 0),
    ],
)
def test_a_time_is_iso_8601_in_utc_unless_it_says_otherwise_or_ms(text: str, ms: int) -> None:
    assert Moment().convert(text, None, None) == ms


@pytest.mark.parametrize("text", ["", "yesterday", "1969-12-31", "2026-13-01", "-5", "12:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Moment().convert(text, None, None)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("12", 12), (str((1 << 63) - 1), (1 << 63) - 1)])
def test_an_offset_is_a_number_that_the_log_can_have(text: str, number: int) -> None:
    assert Offset().convert(text, None, None) == number


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", str(1 << 63), "\u0663", "1_000"])
def test_what_is_no_offset_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Offset().convert(text, None, None)


@pytest.mark.parametrize("text", ["1", "3", "31", "majority", "all"])
def test_a_write_concern_is_taken_as_it_is(text: str) -> None:
    assert WriteConcern().convert(text, None, None) == text


@pytest.mark.parametrize("text", ["0", "-1", "most", "", "1.0", "99999"])
def test_what_is_no_write_concern_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        WriteConcern().convert(text, None, None)


def test_a_header_is_parted_at_its_first_equals_sign() -> None:
    assert Header().convert("k=v=w", None, None) == ("k", "v=w")
    assert Header().convert("k=", None, None) == ("k", "")


@pytest.mark.parametrize("text", ["k", "=v", "", "k=\udcff"])
def test_what_is_no_header_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Header().convert(text, None, None)


@pytest.mark.parametrize(("text", "size"), [("100", 100), ("100B", 100), ("1KiB", 1024), ("64MiB", 64 << 20)])
def test_a_size_is_read_with_its_unit_and_in_bytes_without(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["0", "-1", "1kB", "65MiB", "x"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Size().convert(text, None, None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--output", "json", "list"], True),
        (["list", "--output=json"], True),
        (["--output", "json", "list", "--output", "text"], False),
        (["post", "--", "--output=json"], False),
        (["list"], False),
        (["list", "--output"], False),
    ],
)
def test_the_format_is_known_before_anything_else_is(arguments: list[str], expected: bool) -> None:
    assert wants_json(arguments) is expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["--output", "json", "list", "--from", "x"],
        ["list", "--output", "json", "--from", "x"],
        ["list", "--from", "x", "--output=json"],
    ],
)
def test_a_usage_error_is_one_object_wherever_json_is_asked_for(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    error = json.loads(err)
    assert (error["name"], error["code"], error["applied"]) == ("USAGE", None, "-")
    assert "'x' is not an offset" in error["message"]
    assert error["remedy"] == "replicad-cli list --help"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["frobnicate"], "No such command"),
        (["list", "--frobnicate"], "No such option"),
        (["list", "extra"], "unexpected extra argument"),
        (["list", "--from", "9" * 23], "is not an offset; write a number from 0 to 9223372036854775807"),
        (["tokens", "create", "x", "--expires", "99999999d"], "write 90d, 12h or 30m, 36500d at the most"),
        (["list", "--level", "dirty"], "'dirty' is not one of"),
        (["tail", "--level", "linearizable"], "'linearizable' is not one of"),
        (["tail", "--from", "start"], "'start' is not an offset"),
        (["outcome"], "Missing argument 'ID'"),
        (["keys"], "Missing command"),
        (["--output", "text"], "Missing command"),
        (["--address", "nowhere", "status"], "--address: address 'nowhere' is not HOST:PORT"),
        (["--address", "", "status"], "--address: no address of a node"),
        (["tail", "--from", "last"], "'last' is not an offset or end; write a number from 0 to"),
        (["switchover", "--to", ""], "'--to': it is empty; name a node, or leave it out"),
        (["keys", "generate", "n1", "--out", ""], "'--out': the path is empty"),
        (["keys", "generate", "n1", "--out", "none/"], "'--out': none/ is no folder that is there"),
        (["backup", "--config", "c", "--out", "none/"], "'--out': none/ is no folder that is there"),
        (["keys", "generate-fernet", "--out", ""], "'--out': the path is empty"),
        (["backup", "--config", ""], "'--config': the path is empty"),
        (["backup", "--config", "c", "--out", ""], "'--out': the path is empty"),
        (["tokens", "list", "--file", ""], "'--file': the path is empty"),
        (["pki", "init", "--dir", ""], "'--dir': the path is empty"),
        (["bench", "--dir", ""], "'--dir': the path is empty"),
        (["post", "--fernet-key-file", "", "x"], "'--fernet-key-file': the path is empty"),
        (["verify", ""], "the path is empty"),
        (["restore", ""], "the path is empty"),
        (["--address", "host:65536", "status"], "--address: address 'host:65536' is not HOST:PORT; write it like"),
        (["post", "-w", "most", "x"], "'most' is not a number from 1, majority or all"),
        (["post", "--header", "k=1", "--header", "k=2", "x"], "the key 'k' is given twice"),
        (["post", "--lines", "text"], "--lines reads standard input"),
        (["verify"], "Which folder?"),
        (["verify", "data"], "Proven by whose keys?"),
        (["verify", "data", "--cluster", "c"], "Proven by whose keys?"),
        (["verify", "data", "--cluster", "c", "--key", "foo"], "--key number 1: "),
        (["verify", "--config", "f", "--cluster", "c"], "leave out --key and --cluster"),
        (["keys", "show", "some/file"], "Whose key is some/file?"),
        (["tokens", "create", "x", "--file", "f"], "Choose from: reader, writer, admin, node\n"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
        (["bench", "--workload", "W9"], "'W9' is not one of 'W1', 'W2', 'W3', 'W4', 'W5'"),
    ],
)
def test_bad_usage_is_told_in_words_with_exit_code_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert "--help" in err


def test_a_bad_address_in_the_environment_is_told_as_such(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICAD_ADDRESS", "nowhere")
    assert main(["status"]) == 2
    assert "REPLICAD_ADDRESS: address 'nowhere' is not HOST:PORT" in capsys.readouterr().err


def test_a_token_that_cannot_be_sent_is_told_of_and_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", "secret\n")
    assert main(["list"]) == 2
    err = capsys.readouterr().err
    assert "AUTH_TOKEN" in err
    assert "secret" not in err
