"""The log's lines: one an event whatever is in it, in both formats, the same for libraries."""

from __future__ import annotations

import io
import json
import logging
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicad import logs
from replicad.errors import Applied
from replicad.logs import get_logger, set_level, setup

UNHURRIED = settings(deadline=None)  # a busy machine is no fault
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("replicad")
    levels = (root.level, own.level)
    yield
    logging.captureWarnings(False)
    root.handlers = [handler for handler in root.handlers if type(handler).__module__ != "replicad.logs"]
    root.setLevel(levels[0])
    own.setLevel(levels[1])


def lines(action: Callable[[], object], *, level: str = "info", format: str = "text") -> list[str]:
    """What is logged while ``action`` runs; split as strictly as any reader does."""
    stream = io.StringIO()
    root = logging.getLogger()
    others, root.handlers = root.handlers, []  # pytest's own, which raise what a log must swallow
    try:
        setup(level, format, stream=stream)
        action()
    finally:
        root.handlers = others
    text = stream.getvalue()
    assert not text or text.endswith("\n")
    return text.splitlines()


def one_line(action: Callable[[], object], *, format: str = "text") -> str:
    (line,) = lines(action, format=format)
    return line


def test_an_event_is_a_line_of_time_level_event_fields_and_text() -> None:
    line = one_line(lambda: get_logger("replicad.app").info("opened", "open for posts", epoch=3, size=10))
    assert re.fullmatch(
        rf'time={TIME} level=info event=opened epoch=3 size=10 msg="open for posts"',
        line,
    )


def test_the_same_event_as_json_is_an_object_with_typed_values() -> None:
    line = one_line(
        lambda: get_logger("replicad.app").warning("lag", "behind", lag=3, ratio=0.1 + 0.2, down=True, peer=None),
        format="json",
    )
    record = json.loads(line)
    assert re.fullmatch(TIME, record.pop("time"))
    assert record == {
        "level": "warning",
        "event": "lag",
        "lag": 3,
        "ratio": 0.3,
        "down": True,
        "peer": None,
        "msg": "behind",
    }


def test_the_time_is_utc_to_the_millisecond() -> None:
    assert logs._utc(1_700_000_000.9999) == "2023-11-14T22:13:20.999Z"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("127.0.0.1:50052", "127.0.0.1:50052"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "x"', '"say \\"x\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("a\nb\r\tc", '"a\\nb\\r\\tc"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("a\u2028b\x85c", '"a\\u2028b\\u0085c"'),
        ("\u202eevil", '"\\u202eevil"'),
        ("\ud800", '"\\ud800"'),
        ("d'or", '"d\'or"'),  # whoever takes the line apart by the shell's rules gets it, too
        ("\U000e0001", '"\\U000e0001"'),
        ("caf\u00e9", '"caf\u00e9"'),
        (True, "true"),
        (None, ""),
        (1.5, "1.5"),
        (float("nan"), "nan"),
        (b"\x00\xff", "00ff"),
        (b"x" * 65, '"<65 bytes>"'),
        (Applied.UNKNOWN, "unknown"),
        (object(), "<object>"),
        ({"token": "hunter2"}, "<dict>"),
    ],
)
def test_a_value_is_quoted_only_when_it_must_be(value: Any, shown: str) -> None:
    line = one_line(lambda: get_logger("x").info("e", v=value))
    assert line.endswith(f" event=e v={shown}")


@UNHURRIED
@given(st.text(), st.text(), st.sampled_from(["text", "json"]))
def test_whatever_is_logged_is_one_line_and_json_gives_it_back(text: str, value: str, form: str) -> None:
    line = one_line(lambda: get_logger("x").info("e", text, v=value), format=form)
    assert line.isprintable()
    if form == "json":
        record = json.loads(line)
        assert (record["v"], record.get("msg", "")) == (value, text)
    else:
        assert all("=" in pair for pair in shlex.split(line))


def test_a_percent_sign_in_a_text_is_only_a_percent_sign() -> None:
    assert one_line(lambda: get_logger("x").info("e", "100 %s %d")).endswith('msg="100 %s %d"')


def test_a_field_called_like_a_key_of_the_line_gets_an_underscore() -> None:
    line = one_line(lambda: get_logger("x").info("e", "m", level="committed", event="y", text="t", msg="z"))
    assert line.endswith("level=info event=e level_=committed event_=y text=t msg_=z msg=m")


def test_a_very_long_value_is_cut_and_says_so() -> None:
    line = one_line(lambda: get_logger("x").info("e", "m" * 100_000, v="v" * 100_000))
    assert len(line) < 10_000
    assert "...(100000 characters)" in line


def test_levels_below_the_set_one_are_silent_and_it_can_be_changed_while_running() -> None:
    log = get_logger("replicad.x")

    def action() -> None:
        log.debug("one")
        set_level("debug")
        log.debug("two")
        set_level("error")
        log.warning("three")
        log.error("four")

    assert [re.sub(r".*event=", "", line) for line in lines(action)] == ["two", "four"]


def test_whether_debug_is_on_can_be_asked() -> None:
    setup("debug", stream=io.StringIO())
    assert get_logger("x").is_debug()
    set_level("info")
    assert not get_logger("x").is_debug()


@pytest.mark.parametrize("name", ["", "warn", "INFO", "trace"])
def test_a_level_or_format_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="debug, info, warning, error"):
        set_level(name)
    with pytest.raises(ValueError, match="text, json"):
        setup("info", name)


def test_a_librarys_log_comes_out_in_the_same_form() -> None:
    library = logging.getLogger("grpc._server")
    line = one_line(lambda: library.error("Exception calling %s:\n%s", "application", "boom"))
    assert line.endswith('level=error event=library logger=grpc._server msg="Exception calling application:\\nboom"')


def test_a_librarys_broken_format_string_is_logged_as_it_is() -> None:
    assert one_line(lambda: logging.getLogger("asyncio").error("%d", "x")).endswith("msg=%d")


def test_libraries_say_info_only_at_debug_and_never_debug() -> None:
    library = logging.getLogger("asyncio")

    def action() -> None:
        library.info("quiet")
        set_level("debug")
        library.info("heard")
        library.debug("never")

    assert [line.partition("msg=")[2] for line in lines(action)] == ["heard"]


def test_a_warning_of_python_is_a_line_too() -> None:
    def action() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("old\nways", DeprecationWarning, stacklevel=1)

    assert "event=library logger=py.warnings" in one_line(action)


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exceptions_traceback_stays_on_its_events_line(form: str) -> None:
    def action() -> None:
        try:
            raise ValueError("line one\nline two")
        except ValueError as exc:
            get_logger("x").error("bug", "a bug of ours", exc=exc)

    line = one_line(action, format=form)
    assert "Traceback (most recent call last)" in line
    assert "ValueError: line one\\nline two" in line


def test_a_second_setup_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    setup(stream=first)
    setup("info", "json", stream=second)
    get_logger("x").info("e")
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["event"] == "e"


def test_a_stream_that_is_gone_stops_nobody() -> None:
    stream = io.StringIO()
    setup(stream=stream)
    stream.close()
    get_logger("x").info("e", "nobody reads this")


def test_standard_error_is_the_default_and_standard_output_stays_clean(tmp_path: Path) -> None:
    script = "from replicad import logs; logs.setup(); logs.get_logger('x').info('e', 'caf\\u00e9 \\ud800')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
        env={"LC_ALL": "C", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert b"event=e" in done.stderr
