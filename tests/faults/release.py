"""The release before this one, as it was: its source, from the history that this checkout has.

Owns where it comes from. Must not know what is done with it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def previous_release(folder: Path) -> str:
    """Unpack the previous release's package below ``folder``; "" when done, else why there is none to be had."""
    found = subprocess.run(
        [ROOT / "packaging/previous-release.sh"], capture_output=True, text=True, timeout=120, check=False
    )
    if found.returncode != 0:
        return found.stderr.strip() or "this is no checkout of git's"
    folder.mkdir()
    packed = subprocess.run(
        ["git", "-C", ROOT, "archive", found.stdout.strip(), "replicad"], capture_output=True, timeout=60, check=True
    )
    subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, timeout=60, check=True)
    return ""
