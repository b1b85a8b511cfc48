"""The long run of ``make fuzz``: every target, or those that are named, for some seconds in all; or one input again."""

from __future__ import annotations

import argparse
import secrets
import sys
from fnmatch import fnmatch
from pathlib import Path

from tests.fuzz import campaign
from tests.fuzz.registry import strict
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument("--target", default="*", help="a name or a pattern (wire.*), or port: a live daemon's port")
    parser.add_argument("--seed", type=int, default=None, help="replays a run without atheris, and one of the port")
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--keep", action="store_true", help="put what reaches new code into tests/fuzz/corpus")
    parser.add_argument("--input", type=Path, help="run the target on this file alone")
    options = parser.parse_args()
    seed = secrets.randbits(31) if options.seed is None else options.seed
    if options.target == "port":
        from tests.fuzz.port import main as fuzz_port  # noqa: PLC0415 - it needs a cluster's worth of modules

        return fuzz_port(seconds=options.seconds, seed=seed)
    targets = [target for name, target in TARGETS.items() if fnmatch(name, options.target)]
    if not targets:
        parser.error(f"no target {options.target}; there are: port, {', '.join(TARGETS)}")
    if options.input:
        with strict():
            accepted = [target.run(options.input.read_bytes()) for target in targets]
        print("accepted" if all(accepted) else "refused, as it should be")
        return 0
    guided = campaign.has_atheris() and not options.plain
    print(f"{'guided by coverage (atheris)' if guided else 'plain mutations (no atheris)'}, seed {seed}", flush=True)
    failed = 0
    for target in targets:
        outcome = campaign.run(
            target, seconds=options.seconds / len(targets), seed=seed, guided=guided, keep=options.keep
        )
        print(f"{target.name:20} {outcome.executions:9} inputs {outcome.per_second:8.0f}/s", flush=True)
        for finding in outcome.findings:
            print(f"  FOUND {finding}", flush=True)
        failed += bool(outcome.findings)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
