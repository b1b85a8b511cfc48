#!/usr/bin/python3
"""Runs replicad-cli on the host; the token is in no command line, no log and no file."""

from __future__ import annotations

import json
import os

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: replicad_cli
short_description: Run replicad-cli
description:
  - Runs it with C(--output json). The token goes to it in its environment, which only root can see.
  - In check mode only what is O(read_only) is run.
options:
  arguments:
    description: The command and its options.
    type: list
    elements: str
    required: true
  addresses:
    description: Nodes to ask, HOST:PORT. None of them for a command that asks no node.
    type: list
    elements: str
    default: []
  ca:
    description: The CA bundle, on the host.
    type: str
    default: ""
  token:
    description: Who asks.
    type: str
    default: ""
  read_only:
    description: Whether it changes nothing.
    type: bool
    default: false
  good:
    description: Exit codes that are no failure.
    type: list
    elements: int
    default: [0]
author: replicad maintainers
"""
EXAMPLES = r"""
- name: Ask the cluster how it is
  replicad_cli:
    arguments: [status]
    addresses: ["log-1.example.org:50052"]
    ca: /etc/replicad/ca.crt
    token: "{{ replicad_operator_token }}"
    read_only: true
  register: answer
"""
RETURN = r"""
rc:
  description: Its exit code.
  type: int
objects:
  description: What it printed, an object a line.
  type: list
error:
  description: Its error object, with code, name, message and remedy; empty without one.
  type: dict
"""

OPTIONS = {
    "arguments": {"type": "list", "elements": "str", "required": True},
    "addresses": {"type": "list", "elements": "str", "default": []},
    "ca": {"type": "str", "default": ""},
    "token": {"type": "str", "default": "", "no_log": True},
    "read_only": {"type": "bool", "default": False},
    "good": {"type": "list", "elements": "int", "default": [0]},
}


def objects(text):
    """The JSON objects among the lines."""
    found = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def main():
    module = AnsibleModule(OPTIONS, supports_check_mode=True)
    params = module.params
    if module.check_mode and not params["read_only"]:
        module.exit_json(changed=True, rc=0, objects=[], error={}, skipped=True, msg="not run in check mode")
    program = module.get_bin_path("replicad-cli", required=True)
    given = {
        "AUTH_TOKEN": params["token"],
        "REPLICAD_CA": params["ca"],
        "REPLICAD_ADDRESS": ",".join(params["addresses"]),
    }
    # The module's own environment is its child's, and ends with it. Empty would be a token, and a wrong one.
    os.environ.update({name: value for name, value in given.items() if value})
    rc, out, err = module.run_command([program, *params["arguments"], "--output", "json"])
    found, errors = objects(out), objects(err)
    error = errors[-1] if errors else {}
    result = {"changed": not params["read_only"], "rc": rc, "objects": found, "error": error}
    if rc not in params["good"]:
        told = error.get("message") or err.strip() or f"exit code {rc}"
        remedy = error.get("remedy")
        module.fail_json(
            msg=f"replicad-cli {params['arguments'][0]}: {told}{f'; {remedy}' if remedy else ''}", **result
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
