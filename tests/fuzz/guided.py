"""One target under atheris, guided by coverage: python -m tests.fuzz.guided TARGET LIBFUZZER-ARGUMENTS...

A process of its own: it instruments what it imports, and libFuzzer ends it without ceremony. Started by
:mod:`tests.fuzz.campaign`.
"""

from __future__ import annotations

import sys
import warnings

import atheris


def main() -> None:
    with atheris.instrument_imports(include=["replicad"], enable_loader_override=False):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - instrumented as it is imported
    target = TARGETS[sys.argv[1]]
    target.seeds()  # whatever is made once, is made before the clock runs
    warnings.simplefilter("error")
    # libFuzzer's merge starts its first argument anew, by a shell.
    command = f"{sys.executable} -m tests.fuzz.guided {target.name}"
    atheris.Setup([command, *sys.argv[2:]], lambda data: void(target.run(data[: target.max_bytes])))
    atheris.Fuzz()


def void(_: object) -> None:
    """libFuzzer takes an answer for a wish."""


if __name__ == "__main__":
    main()
