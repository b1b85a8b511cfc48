"""docs/guarantees.md: every test that it names is there, every promise has one, every invariant is one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py::\w+)`", PAGE)))
_TABLES = PAGE.partition("\n## ")[2]
ROWS = [line for line in _TABLES.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
INVARIANTS = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", NAMED)
def test_every_test_that_the_page_names_is_there(name: str) -> None:
    file, _, function = name.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text())
    assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:40])
def test_every_promise_has_a_test_and_known_invariants(row: str) -> None:
    promise, invariants, shown = (cell.strip() for cell in row.strip("|").split(" | "))
    assert promise
    assert set(re.findall(r"\d+", invariants)) <= set(INVARIANTS)
    assert re.search(r"`[\w/]+\.py::test_\w+`", shown)


def test_the_simulation_checks_the_invariants_that_the_page_says_it_does() -> None:
    """A violation is reported by its number."""
    checker = "".join((ROOT / "tests" / "simulation" / name).read_text() for name in ("invariants.py", "run.py"))
    checked = set(re.findall(r"self\.fail\((\d+),", checker)) | set(re.findall(r'"invariant (\d+)', checker))
    assert set(map(str, range(1, 12))) - checked == set()
    assert {"13", "17", "18"} - checked == set()
