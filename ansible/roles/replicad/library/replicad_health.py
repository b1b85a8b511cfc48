#!/usr/bin/python3
"""Waits until a node's gRPC health service says that it serves."""

from __future__ import annotations

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: replicad_health
short_description: Wait until a replicad node serves
description: Asks the standard gRPC health service, which is open to all, by the python3-grpcio that the packages need.
options:
  address:
    description: HOST:PORT of the node.
    type: str
    required: true
  ca:
    description: The CA bundle, on the host.
    type: str
    required: true
  timeout:
    description: Seconds to wait.
    type: int
    default: 120
author: replicad maintainers
"""
EXAMPLES = r"""
- name: Wait until the node serves
  replicad_health:
    address: log-1.example.org:50052
    ca: /etc/replicad/ca.crt
"""
RETURN = r"""
waited:
  description: Seconds that it took.
  type: float
"""

CHECK = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}; the request, of the node as a whole, is empty
CALL_S = 5.0
AGAIN_S = 0.5


def main():
    options = {
        "address": {"type": "str", "required": True},
        "ca": {"type": "str", "required": True},
        "timeout": {"type": "int", "default": 120},
    }
    module = AnsibleModule(options, supports_check_mode=True)
    import grpc  # noqa: PLC0415 - ansible-doc reads this file where there is none

    address, began = module.params["address"], time.monotonic()
    while True:
        try:
            credentials = grpc.ssl_channel_credentials(Path(module.params["ca"]).read_bytes())
            with grpc.secure_channel(address, credentials) as channel:
                answer = channel.unary_unary(CHECK)(b"", timeout=CALL_S)
            told = "it serves" if answer == SERVING else "it does not serve yet"
        except (grpc.RpcError, OSError) as error:
            told = error.details() if isinstance(error, grpc.RpcError) else str(error)
        waited = time.monotonic() - began
        if told == "it serves":
            module.exit_json(changed=False, waited=round(waited, 1))
        if waited > module.params["timeout"]:
            module.fail_json(msg=f"{address} does not serve after {waited:.0f} s: {told}")
        time.sleep(AGAIN_S)


if __name__ == "__main__":
    main()
