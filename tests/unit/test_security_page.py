"""SECURITY.md: every test that it names is there, every row has one or a reason, every command is one."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from replicad.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py::\w+)`", PAGE)))
_THREATS = PAGE.partition("\n## What an attacker can")[2].partition("\n## ")[0]
ROWS = [line for line in _THREATS.splitlines() if line.startswith("| ") and not line.startswith("| attempt")]
_LINES = [line.strip() for line in PAGE.splitlines()]
COMMANDS = [shlex.split(line, comments=True)[1:] for line in _LINES if line.startswith("replicad-cli ")]


@pytest.mark.parametrize("name", NAMED)
def test_every_test_that_the_page_names_is_there(name: str) -> None:
    file, _, function = name.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text())
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert function in functions


def test_no_name_of_a_test_is_written_in_another_form() -> None:
    """It would not be looked for."""
    assert len(re.findall(r"\btest_\w+\.py", PAGE)) == len(re.findall(r"`[\w/]+\.py::test_\w+`", PAGE))
    assert len(NAMED) > 50


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:40])
def test_every_row_has_a_test_or_says_that_it_is_not_defended(row: str) -> None:
    attempt, outcome, shown = (cell.strip() for cell in row.strip("|").split(" | "))
    assert attempt
    assert re.search(r"`[\w/]+\.py::test_\w+`", shown) or (shown == "-" and "**not defended**" in outcome.lower())
    if "**not defended**" in outcome.lower():
        assert re.search(r"\*\*not defended\*\*[^:]*: \S", outcome, re.IGNORECASE), "why, and what to do"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_of_the_page_is_one(words: list[str]) -> None:
    """Parsed, not run."""
    found: click.Command = cli
    context = click.Context(cli)
    arguments = list(words)
    while isinstance(found, click.Group):
        name = arguments.pop(0)
        below = found.get_command(context, name)
        assert below is not None, name
        found, context = below, click.Context(below, info_name=name, parent=context)
    found.parse_args(context, arguments)


def test_there_are_commands_for_what_was_stolen() -> None:
    assert {words[0] for words in COMMANDS} == {"tokens", "pki", "keys", "verify", "status", "promote"}


def test_the_events_to_watch_are_events() -> None:
    from replicad.logevents import EVENTS  # noqa: PLC0415 - the other tests need no catalogue

    [line] = re.findall(r"Watch the log's events (.+?)\.", PAGE, re.DOTALL)
    assert [name for name in re.findall(r"`([\w-]+)`", line) if name not in EVENTS] == []
