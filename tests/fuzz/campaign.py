"""Running a target for some time: under atheris where it is, else with our own mutations alone.

Owns the child process, its corpus and what it found. Must not know what a target does.
"""

from __future__ import annotations

import importlib.util
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from tests.fuzz.mutate import mutate
from tests.fuzz.registry import FindingError, Target, strict

ROOT = Path(__file__).parents[2]
FOUND = ROOT / "build" / "fuzz"  # inputs that found something; `make clean` takes it away
MAX_KEPT = 16  # inputs of a target that the repository holds beside those that found something: a corpus, not a dump

_RSS_MIB = 1024
_INPUT_S = 5  # libFuzzer's own alarm, for what hangs; what is merely slow, the target tells itself
_LEAVE_S = 60  # for imports, what is made once, and the last input
_RUNS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


@dataclass(slots=True)
class Outcome:
    """What a run of one target came to."""

    executions: int = 0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)  # each a message for a person

    @property
    def per_second(self) -> float:
        return self.executions / self.seconds if self.seconds else 0.0


def has_atheris() -> bool:
    return importlib.util.find_spec("atheris") is not None


def run(target: Target, *, seconds: float, seed: int, guided: bool, keep: bool = False) -> Outcome:
    """Fuzz ``target``; what is found is kept under build/fuzz. ``keep`` puts what reached new code into the corpus."""
    return _run_guided(target, seconds, seed, keep=keep) if guided else run_plain(target, seconds=seconds, seed=seed)


def run_plain(target: Target, *, seconds: float, seed: int, executions: int = sys.maxsize) -> Outcome:
    """Mutations of the good inputs; replayed by the same seed. Ends at the first finding."""
    rng, inputs, outcome = random.Random(seed), target.inputs(), Outcome()
    began = time.monotonic()
    with strict():
        while outcome.executions < executions and outcome.seconds < seconds:
            data = mutate(rng.choice(inputs), rng, inputs)[: target.max_bytes]
            try:
                target.run(data)
            except FindingError as exc:
                outcome.findings.append(f"seed {seed}: {exc}; kept as {_keep_finding(target, data)}")
                break
            finally:
                outcome.executions += 1
                outcome.seconds = time.monotonic() - began
    return outcome


def _run_guided(target: Target, seconds: float, seed: int, *, keep: bool) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="replicad-fuzz-") as name:
        work = Path(name)
        for folder in ("corpus", "seeds", "found", "tmp"):
            (work / folder).mkdir()
        for data in target.inputs():
            _write(work / "seeds", data)
        began = time.monotonic()
        arguments = [f"-max_total_time={max(1, int(seconds))}", f"-seed={seed}", "-print_final_stats=1"]
        done = _libfuzzer(target, work, [*arguments, str(work / "corpus"), str(work / "seeds")], seconds)
        runs = _RUNS.search(done.stdout)
        outcome = Outcome(int(runs[1]) if runs else 0, min(seconds, time.monotonic() - began))
        for path in sorted((work / "found").iterdir()):
            kept = _keep_finding(target, path.read_bytes())
            outcome.findings.append(f"{_reason(done.stdout)}; kept as {kept}")
        if done.returncode and not outcome.findings:
            outcome.findings.append(f"{target.name}: the fuzzer ended with {done.returncode}: {done.stdout[-2000:]}")
        if keep and not outcome.findings:
            _minimise(target, work)
        return outcome


def _libfuzzer(target: Target, work: Path, arguments: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    common = [f"-max_len={target.max_bytes}", f"-rss_limit_mb={_RSS_MIB}", f"-timeout={_INPUT_S}"]
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz.guided",
            target.name,
            *common,
            f"-artifact_prefix={work}/found/",
            *arguments,
        ],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(work / "tmp")},  # it ends without cleaning up
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=seconds + _LEAVE_S,
        check=False,
    )


def _minimise(target: Target, work: Path) -> None:
    """Put the fewest inputs that reach all that was reached, and that no seed reaches, into the repository's corpus."""
    (work / "least").mkdir()
    folders = [str(work / name) for name in ("least", "seeds", "corpus")]
    _libfuzzer(target, work, ["-merge=1", *folders], _LEAVE_S)
    seeds = {path.name for path in (work / "seeds").iterdir()}
    least = {sha256(path.read_bytes()).hexdigest()[:16]: path for path in (work / "least").iterdir()}
    for path in sorted((path for name, path in least.items() if name not in seeds), key=_size)[:MAX_KEPT]:
        target.corpus.mkdir(exist_ok=True)
        _write(target.corpus, path.read_bytes())


def _size(path: Path) -> int:
    return path.stat().st_size


def _reason(output: str) -> str:
    lines = [
        line for line in output.splitlines() if "FindingError" in line or (line.startswith("==") and "ERROR" in line)
    ]
    return (lines or ["no reason was told"])[0][:500]


def _keep_finding(target: Target, data: bytes) -> Path:
    folder = FOUND / target.name
    folder.mkdir(parents=True, exist_ok=True)
    return _write(folder, data).relative_to(ROOT)


def _write(folder: Path, data: bytes) -> Path:
    path = folder / sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path
