"""The journal: what it is known by, the fields that a record has there, and the lines where there are no fields."""

from __future__ import annotations

import ast
import io
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import replicad
from replicad import logs
from replicad.core.effects import State
from replicad.logevents import EVENTS
from replicad.logjournal import is_journal, journal_fields

PACKAGE = Path(replicad.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


def record(level: int = logging.INFO, event: str | None = "lost", **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("replicad.app", level, "", 0, "the text", None, None)
    if event is not None:
        made.replicad_event, made.replicad_fields = event, fields
    return made


# --- is it the journal? -----------------------------------------------------------------------------------------


def test_the_journal_is_known_by_the_device_and_inode_of_the_very_stream(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as stream, (tmp_path / "other").open("w") as other:
        status = os.fstat(stream.fileno())
        env = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(stream, env)
        assert not is_journal(other, env), "it was redirected since"
        assert not is_journal(stream, {})
        for odd in ("", ":", "x:y", f"{status.st_dev}", f"{status.st_dev}:"):
            assert not is_journal(stream, {"JOURNAL_STREAM": odd})
    assert not is_journal(stream, env), "it is closed"
    assert not is_journal(io.StringIO(), env)


# --- fields -----------------------------------------------------------------------------------------------------


def test_a_record_has_its_fields_in_capitals_and_its_events_id() -> None:
    fields = journal_fields(record(peer="node-2", epoch=3, size=10), "event=lost ...", {"peer": "node-2", "epoch": 3})
    assert fields == [
        "MESSAGE=event=lost ...",
        "PRIORITY=6",
        "SYSLOG_IDENTIFIER=replicad",
        "EVENT=lost",
        "LOGGER=replicad.app",
        f"MESSAGE_ID={EVENTS['lost'].message_id}",
        "PEER=node-2",
        "EPOCH=3",
    ]


@pytest.mark.parametrize(
    ("level", "event", "priority"),
    [
        (logging.DEBUG, "lost", 7),
        (logging.INFO, "lost", 6),
        (logging.WARNING, "lost", 4),
        (logging.ERROR, "lost", 3),
        (logging.CRITICAL, None, 3),
        (logging.ERROR, "fatal", 2),
    ],
)
def test_priorities_are_syslogs(level: int, event: str | None, priority: int) -> None:
    assert f"PRIORITY={priority}" in journal_fields(record(level, event), "", {})


def test_a_field_that_would_say_something_else_or_that_the_journal_would_drop_is_called_otherwise() -> None:
    values = {"message": 1, "priority": 2, "_pid": 3, "9lives": 4, "a-b": 5, "none": None, "up": True, "x" * 99: 6}
    fields = journal_fields(record(), "text", values)[6:]
    assert fields == ["MESSAGE_=1", "PRIORITY_=2", "PID=3", "LIVES=4", "A_B=5", "UP=true", f"{'X' * 60}=6"]


def test_the_journals_own_protocol_is_used_where_the_library_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of python3-systemd, which the journal's socket belongs to, stands a list."""
    sent: list[tuple[str, ...]] = []
    monkeypatch.setattr(logs, "native_send", lambda: lambda *fields: sent.append(fields))
    root = logging.getLogger()
    others, root.handlers = root.handlers, []
    levels = root.level, logging.getLogger("replicad").level
    try:
        with (tmp_path / "stderr").open("w+") as stream:
            status = os.fstat(stream.fileno())
            monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
            logs.setup(stream=stream)
            logs.get_logger("replicad.test").warning("lost", "gone", peer="n\n2", root=b"\x01\x02", config=object())  # type: ignore[arg-type]
            stream.seek(0)
            assert stream.read() == ""
    finally:
        root.handlers = others
        root.setLevel(levels[0])
        logging.getLogger("replicad").setLevel(levels[1])
        logging.captureWarnings(False)
    (fields,) = sent
    assert fields[0] == 'MESSAGE=event=lost peer="n\\n2" root=0102 config=<object> msg=gone'
    assert fields[1] == "PRIORITY=4"
    assert fields[-3:] == ("PEER=n\n2", "ROOT=0102", "CONFIG=<object>")


PROGRAM = """
import os, sys
status = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
sys.modules["systemd"] = None  # as where python3-systemd is not installed
from replicad import logs
logs.setup("debug", sys.argv[1])
log = logs.get_logger("replicad.test")
log.debug("a", "of\\nno note")
log.info("b", "", size=1)
log.warning("c"); log.error("d"); log.error("fatal", "the end")
"""


@pytest.mark.parametrize("format", ["text", "json"])
def test_without_the_library_each_line_has_its_priority_in_front_and_neither_time_nor_level(format: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, format], env=env, stderr=subprocess.PIPE, text=True, check=True
    )
    assert (
        ran.stderr.splitlines()
        == {
            "text": [
                '<7>event=a msg="of\\nno note"',
                "<6>event=b size=1",
                "<4>event=c",
                "<3>event=d",
                '<2>event=fatal msg="the end"',
            ],
            "json": [
                '<7>{"event":"a","msg":"of\\nno note"}',
                '<6>{"event":"b","size":1}',
                '<4>{"event":"c"}',
                '<3>{"event":"d"}',
                '<2>{"event":"fatal","msg":"the end"}',
            ],
        }[format]
    )


# --- the catalogue ----------------------------------------------------------------------------------------------


def logged_events() -> set[str]:
    """Every event that the package logs, by its source: Note(level, event, ...) and log.info(event, ...)."""
    found: set[str] = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.Call) or len(node.args) < 1:
                continue
            function = node.func
            if isinstance(function, ast.Name) and function.id == "Note":
                event = node.args[1]
            elif (
                isinstance(function, ast.Attribute)
                and function.attr in ("debug", "info", "warning", "error")
                and isinstance(function.value, ast.Attribute | ast.Name)
                and ast.unparse(function.value).endswith("_log")
            ):
                event = node.args[0]
            else:
                continue
            if isinstance(event, ast.Constant):
                found.add(str(event.value))
    return found


def test_every_event_that_is_logged_has_an_id_of_its_own() -> None:
    states = {
        state.value for state in (State.OPEN, State.READ_ONLY, State.DEPOSED, State.HANDING_OVER)
    }  # a Note's event is the state
    assert logged_events() | states | {"library"} == EVENTS.keys()
    ids = [kind.message_id for kind in EVENTS.values()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)
    assert all(kind.meaning.endswith(".") for kind in EVENTS.values())
