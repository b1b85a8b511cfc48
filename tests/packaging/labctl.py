"""A lab whose hosts live on between commands, for Ansible's scenarios (ansible/molecule):

    python -m tests.packaging.labctl create|destroy|boot|power-off|reboot FOLDER [HOST...]

create reads what to make from standard input, {"number": 20, "hosts": {NAME: {"address": ..., "release": ...}}}, and
keeps it in FOLDER/lab.json for the other commands. Hosts boot from the roots that `make molecule` makes. Needs root,
and nothing but Python's own library.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.packaging.lab import Host, Lab, unpacked

ROOTS = Path(__file__).parents[2] / "build" / "roots"
SPECIFICATION = "lab.json"


def root_of(release: str) -> Path:
    """The tar file that hosts of a release boot from."""
    tars = list(ROOTS.glob(f"ansible-{release}-*.tar"))
    if len(tars) != 1:
        raise SystemExit(f"no root of Debian {release} in {ROOTS}: run make molecule")
    return tars[0]


def existing(folder: Path) -> tuple[Lab, dict[str, str]] | None:
    """The lab in a folder, and the release of each of its hosts; None where there is none."""
    if not (folder / SPECIFICATION).exists():
        return None
    made = json.loads((folder / SPECIFICATION).read_text())
    lab = Lab(made["number"], folder)
    for name, host in made["hosts"].items():
        lab.add(name, host["address"])
    return lab, {name: host["release"] for name, host in made["hosts"].items()}


def create(folder: Path, specification: str) -> None:
    """Make the lab and boot all its hosts, at once."""
    destroy(folder)
    folder.mkdir(parents=True)
    (folder / SPECIFICATION).write_text(specification)
    found = existing(folder)
    assert found is not None
    lab, releases = found
    lab.make_key()
    lab.connect()
    for name, host in lab.hosts.items():
        lab.lay_out(host, unpacked(root_of(releases[name])))
        host.start(lab.bridge)
    for host in lab.hosts.values():
        host.wait()


def destroy(folder: Path) -> None:
    """Remove the lab, however much there is of it."""
    if found := existing(folder):
        found[0].remove()
    elif folder.exists():
        shutil.rmtree(folder)  # it was broken off before it had any host


def reboot(lab: Lab, host: Host) -> None:
    host.shut_down()
    host.boot(lab.bridge)


DEEDS: dict[str, Callable[[Lab, Host], None]] = {
    "boot": lambda lab, host: host.boot(lab.bridge),
    "power-off": lambda _, host: host.die(),
    "reboot": reboot,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; of what goes wrong its user is told in words."""
    try:
        _run(arguments)
    except (AssertionError, subprocess.TimeoutExpired) as exc:
        raise SystemExit(str(exc)) from exc
    except subprocess.CalledProcessError as exc:
        raise SystemExit(f"{exc}\n{exc.stderr}") from exc


def _run(arguments: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(prog="labctl", description="A lab of test hosts.")
    parser.add_argument("command", choices=("create", "destroy", *DEEDS))
    parser.add_argument("folder", type=lambda text: Path(text).resolve(), help="where the lab is kept")
    parser.add_argument("hosts", nargs="*", help="for the other commands: which")
    given = parser.parse_args(arguments)
    if os.geteuid() != 0:
        raise SystemExit("test hosts are machines of systemd-nspawn, which only root may start")
    if given.command == "create":
        return create(given.folder, sys.stdin.read())
    if given.command == "destroy":
        return destroy(given.folder)
    found = existing(given.folder)
    if found is None:
        raise SystemExit(f"no lab in {given.folder}: run molecule create")
    lab = found[0]
    for name in given.hosts:
        if name not in lab.hosts:
            raise SystemExit(f"no host {name} in {given.folder}; it has {', '.join(lab.hosts)}")
        DEEDS[given.command](lab, lab.hosts[name])
    return None


if __name__ == "__main__":
    main()
