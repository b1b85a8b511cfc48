"""``make faults``: real daemons under real faults, for as long as one likes. See docs/guarantees.md.

    python -m tests.faults --seconds 300 --seed 8123 --nodes 3

Needs root, for network namespaces and disks. Exit code 0: nothing was lost; 1: a promise was broken, and the folder of
the cluster, with all logs, is left for a look.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.campaign import Campaign
from tests.faults.history import Violation
from tests.faults.nemesis import FAULTS, possible
from tests.faults.release import previous_release
from tests.faults.report import lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300, help="how long faults are done (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="which faults, in which order; not how the machine runs them")
    parser.add_argument("--nodes", type=int, default=3, choices=(3, 5), help="default: %(default)s")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("network namespaces and disks need root")
    seed = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    left_out = sorted(FAULTS.keys() - possible().keys())
    print(f"seed {seed}" + (f"; this machine can't do: {', '.join(left_out)}" if left_out else ""), flush=True)
    folder = Path(tempfile.mkdtemp(prefix="replicad-faults-"))
    if why := previous_release(folder / "previous"):
        print(f"without a rolling upgrade: {why}", flush=True)
    campaign = Campaign(
        folder / "cluster",
        seed=seed,
        nodes=options.nodes,
        seconds=options.seconds,
        number=os.getpid() % 256,
        say=lambda text: print(text, flush=True),
        previous=None if why else folder / "previous",
    )
    try:
        result = campaign.run()
    except Violation as exc:
        print(
            "\n".join(lines(campaign.result, broken=True)),
            f"\nBROKEN: {exc}\nlogs: {folder}/cluster/node-*/log",
            sep="\n",
            flush=True,
        )
        return 1
    print("\n".join(["", *lines(result)]), flush=True)
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
