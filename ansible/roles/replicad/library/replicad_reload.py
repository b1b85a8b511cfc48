#!/usr/bin/python3
"""Reloads a node that runs, and tells what it made of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: replicad_reload
short_description: Have a replicad node take what has changed in its files
description:
  - Reloads the unit and waits for the daemon's own account of it in the journal, for the signal that asks it
    is answered later.
  - A run that broke off between writing a file and this is made good by the next, for a reload is always asked for.
options:
  unit:
    description: The unit.
    type: str
    default: replicad.service
  program:
    description: The daemon, which looks whether a config that was refused is good for a restart.
    type: str
    default: replicad
  files:
    description: The config, and what else a node that is not ready yet, and so can't reload, may have read too early.
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds for the daemon to answer.
    type: int
    default: 30
author: replicad maintainers
"""
EXAMPLES = r"""
- name: Have the node take what has changed
  replicad_reload:
    files: [/etc/replicad.yaml, /etc/replicad/tokens.yaml]
  register: reload
"""
RETURN = r"""
restart:
  description: Whether the node has to be restarted for what is in its files.
  type: bool
reasons:
  description: Why, as the daemon or systemd says it.
  type: list
taken:
  description: How many changes the reload took.
  type: int
"""

ENDS = ("reloaded", "reload_refused")
AGAIN_S = 0.1
SILENT_S = 2.0  # where log.level hides that a reload was taken


class Unit:
    """What systemd and the journal know of the unit."""

    def __init__(self, module):
        self.module, self.name = module, module.params["unit"]

    def run(self, *command):
        return self.module.run_command(list(command), check_rc=True)[1]

    def show(self):
        names = ("ActiveState", "MainPID", "ExecMainStartTimestamp", "NeedDaemonReload", "StatusText")
        lines = self.run("systemctl", "show", "--timestamp=unix", f"--property={','.join(names)}", self.name)
        return dict(line.split("=", 1) for line in lines.splitlines() if "=" in line)

    def cursor(self):
        lines = self.run("journalctl", "--lines=1", "--output=json", "--quiet").splitlines()
        return json.loads(lines[-1])["__CURSOR"] if lines else ""

    def events(self, cursor):
        """The daemon's events since then, in order."""
        after = [f"--after-cursor={cursor}"] if cursor else ["--boot"]
        lines = self.run("journalctl", f"--unit={self.name}", *after, "--output=json", "--quiet").splitlines()
        return [entry for entry in map(json.loads, lines) if "EVENT" in entry]


def newer_files(files, started):
    """Those of the files that changed after a process started; systemd has whole seconds."""
    return [name for name in files if Path(name).exists() and Path(name).stat().st_mtime >= started]


def reload(module, unit):
    """Reload, wait for the end of it; taken, reasons for a restart, faults."""
    cursor, deadline = unit.cursor(), time.monotonic() + module.params["timeout"]
    unit.run("systemctl", "reload", unit.name)
    silent = time.monotonic() + SILENT_S
    while True:
        events = unit.events(cursor)
        ends = [entry for entry in events if entry["EVENT"] in ENDS]
        if ends:
            break
        if time.monotonic() > min(deadline, silent) and hides_info(module):
            break
        if time.monotonic() > deadline:
            module.fail_json(msg=f"{unit.name} does not answer a reload in {module.params['timeout']} s")
        time.sleep(AGAIN_S)
    unit.run("journalctl", "--sync")
    events = unit.events(cursor)
    faults = [entry["MESSAGE"] for entry in events if entry["EVENT"] == "reload_refused"]
    keys = [entry.get("KEY", "") for entry in events if entry["EVENT"] == "needs_restart"]
    taken = sum(int(entry.get("TAKEN", 0)) for entry in events if entry["EVENT"] == "reloaded")
    return taken, [f"{key} needs a restart" for key in dict.fromkeys(keys)], faults


def hides_info(module):
    """Whether the config keeps the log from saying that a reload was taken."""
    text = Path(module.params["files"][0]).read_text(encoding="utf-8")
    return any(f"level: {level}" in text for level in ("warning", "error"))


def main():
    options = {
        "unit": {"type": "str", "default": "replicad.service"},
        "program": {"type": "str", "default": "replicad"},
        "files": {"type": "list", "elements": "str", "required": True},
        "timeout": {"type": "int", "default": 30},
    }
    module = AnsibleModule(options, supports_check_mode=True)
    unit = Unit(module)
    shown = unit.show()
    result = {"changed": False, "restart": False, "reasons": [], "taken": 0}
    if module.check_mode or shown["ActiveState"] not in ("active", "reloading", "activating"):
        module.exit_json(**result)
    reasons = ["the unit has changed"] if shown["NeedDaemonReload"] == "yes" else []
    if shown["ActiveState"] == "activating":
        stamp = shown["ExecMainStartTimestamp"].lstrip("@")
        started = int(stamp) if stamp.isdigit() else 0
        reasons += [
            f"it is not ready, and read {name} before it changed"
            for name in newer_files(module.params["files"], started)
        ]
    else:
        result["taken"], more, faults = reload(module, unit)
        reasons += more
        if faults:
            config = module.params["files"][0]
            rc, _, _ = module.run_command([module.params["program"], "--config", config, "--check-config"])
            if rc != 0:
                module.fail_json(
                    msg=f"the node refuses its files and goes on as before: {'; '.join(faults)}",
                    faults=faults,
                    **result,
                )
            reasons += faults
    result.update(changed=bool(reasons or result["taken"]), restart=bool(reasons), reasons=reasons)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
