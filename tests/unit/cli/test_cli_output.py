"""The two forms of what is printed, byte for byte."""

import base64
import json
import subprocess
from collections.abc import Iterable
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicad.cli import output as output_module
from replicad.cli.errors import Failure
from replicad.cli.options import Session
from replicad.cli.output import (
    Output,
    OutputClosed,
    columns_text,
    count_text,
    escape_payload,
    headers_text,
    size_text,
    time_text,
)
from replicad.client import Posted, Record

TIME_MS = 1_700_000_000_123

GREETING = Record(1, 1, TIME_MS, "id-1", "token", {}, b"hello, log", True)
EPOCH = Record(0, 1, TIME_MS, "replicad:epoch:1", "node:node-1", {}, b"", True)
ODD = Record(12, 2, TIME_MS, 'a"b', "token", {"kind": "x,y", "tab": "a\tb"}, b"\x1b[31mred\n\xff\\", False)


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"a": "1", "b": "2"}, "a=1,b=2"),
        ({"a": "1,b=2"}, r"a=1\x2cb=2"),
        ({"a": "b=c"}, "a=b=c"),
        ({"a=b": "c"}, r"a\x3db=c"),
        ({"a,b": r"c\x2c"}, r"a\x2cb=c\\x2c"),
    ],
)
def test_headers_are_parted_by_commas_and_split_at_the_first_equals_sign(headers: dict[str, str], text: str) -> None:
    assert headers_text(headers) == text
    pairs = [pair.partition("=") for pair in text.split(",")]
    assert {_printf_b(key): _printf_b(value) for key, _, value in pairs} == headers


def _printf_b(text: str) -> str:
    """What bash's printf %b makes of it."""
    return subprocess.check_output(["bash", "-c", 'printf %b "$1"', "bash", text], text=True)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def printed(records: Iterable[Record], *, json: bool = False, terminal: bool = False) -> str:
    stream = Terminal() if terminal else StringIO()
    Output(Session(json=json), stream).records(records)
    return stream.getvalue()


def test_a_pipe_gets_a_line_of_tab_parted_fields_a_record() -> None:
    assert printed([EPOCH, GREETING, ODD]) == (
        "0\t2023-11-14T22:13:20.123Z\tcommitted\treplicad:epoch:1\tnode:node-1\t-\t\n"
        "1\t2023-11-14T22:13:20.123Z\tcommitted\tid-1\ttoken\t-\thello, log\n"
        '12\t2023-11-14T22:13:20.123Z\tuncommitted\ta"b\ttoken\tkind=x\\x2cy,tab=a\\tb\t\\x1b[31mred\\n\\xff\\\\\n'
    )


def test_json_has_every_field_of_a_record_and_text_only_where_it_is_utf_8() -> None:
    lines = printed([GREETING, ODD], json=True).splitlines()
    assert lines[0] == (
        '{"offset":1,"epoch":1,"time":"2023-11-14T22:13:20.123Z","id":"id-1","author":"token","headers":{},'
        '"committed":true,"encrypted":false,"decrypted":false,"payload":"aGVsbG8sIGxvZw==","text":"hello, log"}'
    )
    assert json.loads(lines[1]) == {
        "offset": 12,
        "epoch": 2,
        "time": "2023-11-14T22:13:20.123Z",
        "id": 'a"b',
        "author": "token",
        "headers": {"kind": "x,y", "tab": "a\tb"},
        "committed": False,
        "encrypted": False,
        "decrypted": False,
        "payload": base64.b64encode(ODD.payload).decode(),
    }


def test_what_could_not_be_decrypted_is_marked_and_what_could_is_shown_like_any_other() -> None:
    locked = GREETING._replace(payload=b"gAAAAA==", encrypted=True, headers={"replicad:encrypted": "fernet:t"})
    opened = GREETING._replace(encrypted=True, decrypted=True)
    assert [line.split("\t")[5:] for line in printed([locked, opened]).splitlines()] == [
        ["replicad:encrypted=fernet:t", "(encrypted) gAAAAA=="],
        ["-", "hello, log"],
    ]
    first, second = map(json.loads, printed([locked, opened], json=True).splitlines())
    assert (first["encrypted"], first["decrypted"], "text" in first) == (True, False, False)
    assert (second["encrypted"], second["decrypted"], second["text"]) == (True, True, "hello, log")
    assert "(encrypted) gAAAAA==" in printed([locked], terminal=True)
    assert "(encrypted)" not in printed([opened], terminal=True)


def test_a_terminal_without_colour_gets_aligned_fields_with_the_id_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert printed([EPOCH, GREETING, ODD], terminal=True) == (
        "     0  2023-11-14 22:13:20.123  node:node-1  (epoch 1 begins)  replicad:epoch:1\n"
        "     1  2023-11-14 22:13:20.123  token        hello, log  id-1\n"
        "    12  2023-11-14 22:13:20.123  token        \\x1b[31mred\\n\\xff\\\\  kind=x\\x2cy,tab=a\\tb"
        '  (not committed yet)  a"b\n'
    )


def test_a_terminal_with_colour_gets_no_escape_sequence_of_the_payload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    text = printed([ODD], terminal=True)
    assert "\x1b[36m" in text
    assert "\x1b[31m" not in text


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_colour_is_for_terminals_that_have_it_and_want_it(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", term)
    assert ("\x1b[" in printed([GREETING], terminal=True)) is (term == "xterm")
    assert "\x1b[" not in printed([GREETING])


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode(errors="surrogatepass"))))
def test_an_escaped_payload_is_one_harmless_line(payload: bytes) -> None:
    escaped = escape_payload(payload)
    assert all(character.isprintable() or character in "\u200c\u200d" for character in escaped)


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode(errors="surrogatepass"))))
def test_no_two_payloads_are_escaped_alike(payload: bytes) -> None:
    assert unescaped(escape_payload(payload)) == payload


def test_printf_makes_the_payload_again() -> None:
    payload = bytes(range(1, 256)) + "grüße 👩‍👩‍👧".encode()
    made = subprocess.run(
        ["bash", "-c", 'printf %b "$1"', "-", escape_payload(payload)], capture_output=True, check=True
    )
    assert made.stdout == payload


def unescaped(text: str) -> bytes:
    """What printf(1) makes of the escapes that we use."""
    made, at = bytearray(), 0
    while at < len(text):
        if text[at] != "\\":
            made += text[at].encode()
            at += 1
        elif text[at + 1] == "x":
            made.append(int(text[at + 2 : at + 4], 16))
            at += 4
        else:
            made += {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\"}[text[at + 1]]
            at += 2
    return bytes(made)


@given(st.integers(0, (1 << 64) - 1))
def test_every_time_that_a_leaf_can_hold_can_be_shown(time_ms: int) -> None:
    assert time_text(time_ms).endswith(("Z", "ms"))


def test_times_are_iso_8601_utc_with_ms() -> None:
    assert time_text(0) == "1970-01-01T00:00:00.000Z"
    assert time_text(TIME_MS) == "2023-11-14T22:13:20.123Z"


def test_a_posted_message_is_told_in_one_line() -> None:
    assert output_module.posted_text(Posted("x", 12, False, 2)) == "offset 12  id x  on 2 nodes"
    assert output_module.posted_text(Posted("x", 12, True, 1)) == (
        "offset 12  id x  on 1 node  duplicate: it was in the log before, nothing was added"
    )


def test_posted_messages_are_an_object_each() -> None:
    lines = output_module.posted_json([Posted("x", 12, False, 2), Posted("y", 3, True, 3)]).splitlines()
    assert [json.loads(line) for line in lines] == [
        {"code": 200, "name": "OK", "id": "x", "offset": 12, "duplicate": False, "nodes": 2},
        {"code": 409, "name": "DUPLICATE_RECEIVED", "id": "y", "offset": 3, "duplicate": True, "nodes": 3},
    ]


def test_what_is_counted_is_in_the_singular_where_it_is_one() -> None:
    assert [count_text(count, "record") for count in (0, 1, 2)] == ["0 records", "1 record", "2 records"]


def test_columns_are_aligned_and_no_cell_is_empty() -> None:
    assert columns_text([("NODE", "LAG"), ("node-1", ""), ("n", "12")]) == "NODE    LAG\nnode-1  -\nn       12\n"


def test_sizes_are_told_in_the_unit_that_fits() -> None:
    assert [size_text(size) for size in (0, 1023, 1024, 60 << 20, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1 KiB",
        "60 MiB",
        "3.0 GiB",
    ]


class Full(StringIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str, /) -> int:
        raise self.error


def test_a_reader_who_has_gone_is_no_error() -> None:
    with pytest.raises(OutputClosed):
        Output(Session(), Full(BrokenPipeError(32, "Broken pipe"))).write("x")


def test_a_full_disk_under_standard_output_is_an_error_in_words() -> None:
    with pytest.raises(Failure, match="standard output cannot be written: No space left on device"):
        Output(Session(), Full(OSError(28, "No space left on device"))).write("x")
