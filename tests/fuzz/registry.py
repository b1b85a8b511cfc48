"""What a fuzz target is, and what counts as a finding.

Owns the rules that hold for every parser at a gate: only the errors that it documents, no warning, no second spent, no
memory blown up. Must not know which parsers there are (tests/fuzz/targets) nor who makes the inputs.
"""

from __future__ import annotations

import resource
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 1.0  # for one input, of a few KiB at the most: beyond, a stranger could hold a node up
GROWTH_KIB = 128 << 10  # of the process's peak memory by one input

CORPUS = Path(__file__).parent / "corpus"


class FindingError(AssertionError):
    """An input did what it must not: raise something undocumented, warn, take too long or too much memory."""


@dataclass(frozen=True, slots=True)
class Target:
    """One gate: ``function`` gives it bytes from outside, and asserts what must hold of whatever it accepts.

    1. ``covers`` are the parsers that it drives, as ``module.name`` below ``replicad``.
    2. ``seeds`` are good inputs, the same in every run: mutation begins with them.
    """

    name: str
    function: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]
    covers: tuple[str, ...]
    seeds: Callable[[], Iterable[bytes]] = field(default=tuple)
    max_bytes: int = 4096

    def run(self, data: bytes) -> bool:
        """Whether the input was accepted. Raises FindingError. Warnings are errors only inside :func:`strict`."""
        began, began_cpu, before_kib = (
            time.perf_counter(),
            time.process_time(),
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        )
        accepted = True
        try:
            self.function(data)
        except self.allowed:
            accepted = False
        except Exception as exc:
            raise FindingError(f"{self.name}: {type(exc).__name__}: {exc}; input: {shown(data)}") from exc
        seconds = time.perf_counter() - began
        growth_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
        if seconds > SECONDS and time.process_time() - began_cpu > SECONDS:
            raise FindingError(f"{self.name}: took {seconds:.1f} s; input: {shown(data)}")
        if growth_kib > GROWTH_KIB:
            raise FindingError(f"{self.name}: took {growth_kib >> 10} MiB of memory; input: {shown(data)}")
        return accepted

    @property
    def corpus(self) -> Path:
        """The folder of inputs that are kept: those that found something, and those that reach what seeds do not."""
        return CORPUS / self.name

    def kept(self) -> list[Path]:
        return sorted(path for path in self.corpus.glob("*") if path.is_file())

    def inputs(self) -> list[bytes]:
        """All good beginnings: the seeds, then what is kept."""
        return [*self.seeds(), *(path.read_bytes() for path in self.kept())]


def shown(data: bytes) -> str:
    """An input in a message, whole enough to be replayed where it is small."""
    return f"bytes.fromhex({data[:2048].hex()!r})" + (f" and {len(data) - 2048} bytes more" if len(data) > 2048 else "")


@contextmanager
def strict() -> Iterator[None]:
    """Inside, a warning is an error: a parser that only warns has let something through."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Debian's protobuf 3.21 forgets to look whether this one was raised; replicad.wire.parsing looks for itself.
        warnings.filterwarnings("ignore", "Unexpected end-group tag", RuntimeWarning)
        yield
