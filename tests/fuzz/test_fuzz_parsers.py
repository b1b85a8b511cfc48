"""The bounded part of the fuzzing: what is kept, some seconds of Hypothesis, of our own mutations and of atheris."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import replicad
from tests.fuzz import campaign
from tests.fuzz.mutate import mutate, read_fields, write_fields
from tests.fuzz.registry import CORPUS, FindingError, Target, strict
from tests.fuzz.targets import EXEMPT, TARGETS

SEED = 20_261_125
PLAIN_S = 0.15  # a target: 30 of them are a few seconds
PLAIN_EXECUTIONS = 2000
GUIDED = ("wire.post_frame", "core.checked_batch")  # what strangers reach first; `make fuzz` runs all

#: A module's function of such a name takes something from outside apart.
_PARSER = re.compile(r"(decode|parse|examine|split|error_from|from_text)(_|$)|(read|load)(_\w+|able)?$")
_GENERATED = "replicad.wire.v1"

CASES = [
    pytest.param(target, path, id=f"{name}-{path.name}") for name, target in TARGETS.items() for path in target.kept()
]


def parsers() -> Iterator[str]:
    """Every parser of the package, as ``module.name``."""
    for module_info in pkgutil.walk_packages(replicad.__path__, "replicad."):
        if module_info.name.startswith(_GENERATED) or module_info.name.endswith("__main__"):
            continue
        try:
            module = importlib.import_module(module_info.name)
        except ImportError:
            assert module_info.name == "replicad.logjournal"  # systemd's module is Debian's, and optional
            continue
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_") and _PARSER.match(name):
                yield f"{module.__name__.removeprefix('replicad.')}.{name}"


def test_every_parser_has_a_target_or_a_reason_why_not() -> None:
    found = set(parsers())
    assert len(found) > 20
    covered = {name for target in TARGETS.values() for name in target.covers}
    assert found - covered - set(EXEMPT) == set(), "parsers that no fuzz target drives: see tests/fuzz/targets"
    assert (covered | set(EXEMPT)) - found == set(), "no longer there"
    assert not covered & set(EXEMPT)


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    folders = [path for path in CORPUS.iterdir() if path.is_dir()]
    assert {path.name for path in folders} <= set(TARGETS)
    for folder in folders:
        files = list(folder.iterdir())
        assert all(path.stat().st_size <= TARGETS[folder.name].max_bytes for path in files)
        assert len(files) <= 2 * campaign.MAX_KEPT


@pytest.mark.parametrize(("target", "path"), CASES)
def test_what_is_kept_is_taken_or_refused_as_documented(target: Target, path: Path) -> None:
    with strict():
        target.run(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_good_inputs_and_their_mutations_are_taken_or_refused_as_documented(name: str) -> None:
    target = TARGETS[name]
    with strict():
        accepted = sum(target.run(data) for data in target.seeds())
    assert accepted, "not one seed is a good input: mutations of them reach nothing"
    outcome = campaign.run_plain(target, seconds=PLAIN_S, seed=SEED, executions=PLAIN_EXECUTIONS)
    assert not outcome.findings
    assert outcome.executions


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_bytes_that_hypothesis_finds_do_more_than_be_refused(data: st.DataObject) -> None:
    fast = [target for name, target in TARGETS.items() if not name.startswith("disk.")]
    target = data.draw(st.sampled_from(fast), label="target")
    given_bytes = data.draw(st.binary(max_size=200) | st.sampled_from(target.inputs()), label="bytes")
    at = data.draw(st.integers(0, len(given_bytes)), label="at")
    edit = data.draw(st.binary(max_size=8), label="put in")
    with strict():
        target.run((given_bytes[:at] + edit + given_bytes[at + len(edit) :])[: target.max_bytes])


@pytest.mark.skipif(not campaign.has_atheris(), reason="atheris has no wheel for this Python or machine")
@pytest.mark.parametrize("name", GUIDED)
def test_a_second_of_atheris_finds_nothing(name: str) -> None:
    outcome = campaign.run(TARGETS[name], seconds=1, seed=SEED, guided=True)
    assert not outcome.findings
    assert outcome.executions > 1000


# --- the harness itself -------------------------------------------------------------------------------------------


def _with_a_bug(data: bytes) -> None:
    """Raises what it does not document, for one input in some thousands that are not guided."""
    fields = read_fields(data) or []
    if any(number == 3 and content == b"\x80\x01" for number, _, content in fields):
        raise KeyError("a bug")
    raise ValueError("refused")


BUGGY = Target("with_a_bug", _with_a_bug, (ValueError,), (), lambda: [write_fields([(3, 0, b"\x05"), (4, 2, b"x")])])


def test_a_bug_is_found_by_mutation_kept_and_replayed_by_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "FOUND", tmp_path)
    monkeypatch.setattr(campaign, "ROOT", tmp_path)
    runs = [campaign.run_plain(BUGGY, seconds=30, seed=7) for _ in range(2)]
    assert runs[0].executions == runs[1].executions
    assert "KeyError" in runs[0].findings[0]
    (kept,) = (tmp_path / "with_a_bug").iterdir()
    with pytest.raises(FindingError, match="KeyError"):
        BUGGY.run(kept.read_bytes())


def test_a_warning_and_a_second_of_work_are_findings() -> None:
    import time  # noqa: PLC0415
    import warnings  # noqa: PLC0415

    def busy(data: bytes) -> None:
        until = time.process_time() + 1.1
        while time.process_time() < until:
            pass

    noisy = Target("noisy", lambda data: warnings.warn("not all data was converted", RuntimeWarning, 1), (), ())
    with strict(), pytest.raises(FindingError, match="RuntimeWarning"):
        noisy.run(b"")
    with pytest.raises(FindingError, match=r"took \d+\.\d s"):
        Target("busy", busy, (), ()).run(b"")


def test_the_mutator_reads_and_writes_fields_and_gives_the_same_for_the_same_seed() -> None:
    for name in ("wire.post_frame", "wire.master_frame", "wire.records"):
        for data in TARGETS[name].seeds():
            fields = read_fields(data)
            assert fields
            assert write_fields(fields) == data
            assert mutate(data, random.Random(3)) == mutate(data, random.Random(3))
    assert read_fields(b"\xff") is None
