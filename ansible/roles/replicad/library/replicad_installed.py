#!/usr/bin/python3
"""Tells which version of replicad is installed, whether wholly, and whether the node runs it."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: replicad_installed
short_description: Tell how the packages of replicad stand
description:
  - Changes nothing. An installation that was broken off, a restart that never came, and a node that is down are told.
options:
  packages:
    description: The packages, which are of one version.
    type: list
    elements: str
    required: true
  wanted:
    description: The version that is wanted; without one, the newest that apt knows.
    type: str
    default: ""
  unit:
    description: The unit.
    type: str
    default: replicad.service
author: replicad maintainers
"""
EXAMPLES = r"""
- name: Look at the packages
  replicad_installed:
    packages: [python3-replicad, replicad, replicad-cli]
    wanted: 0.2.0
  register: here
"""
RETURN = r"""
version:
  description: The installed version; empty where there is none, several where the packages are not of one.
  type: str
wanted:
  description: The version that is wanted.
  type: str
newer:
  description: Whether what is installed is newer than that.
  type: bool
whole:
  description: Whether all packages are installed, of one version, and dpkg was not broken off.
  type: bool
stale:
  description: Whether the node's process began before the files that are installed were there.
  type: bool
active:
  description: Whether the node runs.
  type: bool
as_wanted:
  description: Whether there is nothing to be done.
  type: bool
"""

LISTS = Path("/var/lib/dpkg/info")  # a package's list of files is written when they have been unpacked
JOURNAL = Path("/var/lib/dpkg/updates")  # empty unless dpkg was broken off


def statuses(module):
    """Each known package's status and version."""
    shown = "--showformat=${Package} ${db:Status-Status} ${Version}\n"
    _, out, _ = module.run_command(["dpkg-query", "--show", shown, *module.params["packages"]])
    rows = [line.split() for line in out.splitlines()]
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}  # without a version it is only known


def candidate(module):
    """The version that apt would install; "" for none."""
    _, out, _ = module.run_command(["apt-cache", "policy", "replicad"], environ_update={"LC_ALL": "C"})
    found = [line.split()[1] for line in out.splitlines() if line.split()[:1] == ["Candidate:"]]
    return found[0] if found and found[0] != "(none)" else ""


def is_newer(module, version, wanted):
    rc, _, _ = module.run_command(["dpkg", "--compare-versions", version, "gt", wanted])
    return bool(version and wanted) and rc == 0


def unit(module):
    """Whether the unit's process runs, and when it began, in whole seconds; 0 for never."""
    names = "--property=ActiveState,ExecMainStartTimestamp"
    _, out, _ = module.run_command(["systemctl", "show", "--timestamp=unix", names, module.params["unit"]])
    shown = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    began = shown.get("ExecMainStartTimestamp", "").lstrip("@")
    return shown.get("ActiveState") in ("active", "reloading"), int(began) if began.isdigit() else 0


def unpacked(packages):
    """When the last of the packages' files were unpacked, in whole seconds."""
    lists = [LISTS / f"{name}.list" for name in packages]
    return max((int(path.stat().st_mtime) for path in lists if path.exists()), default=0)


def main():
    options = {
        "packages": {"type": "list", "elements": "str", "required": True},
        "wanted": {"type": "str", "default": ""},
        "unit": {"type": "str", "default": "replicad.service"},
    }
    module = AnsibleModule(options, supports_check_mode=True)
    found = statuses(module)
    version = " ".join(sorted({each for _, each in found.values()}))
    wanted = module.params["wanted"] or candidate(module)
    installed = [name for name, (status, _) in found.items() if status == "installed"]
    broken_off = any(JOURNAL.iterdir()) or len(installed) < len(module.params["packages"])
    whole = not broken_off and " " not in version
    active, began = unit(module)
    stale = active and began < unpacked(installed)
    module.exit_json(
        changed=False,
        version=version,
        wanted=wanted,
        newer=is_newer(module, version, wanted),
        whole=whole,
        stale=stale,
        active=active,
        as_wanted=whole and active and not stale and version == wanted,
    )


if __name__ == "__main__":
    main()
