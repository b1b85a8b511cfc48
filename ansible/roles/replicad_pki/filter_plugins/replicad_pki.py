"""The filter behind the change of a fleet's CA: which stage its folder is in."""

from __future__ import annotations


def stage(stats):
    """What is ``told``, and the ``possible`` stages, by the module stat on ca.key, ca-next.key and ca-next.crt."""
    key, next_key, next_certificate = stats[:3]
    if not key["exists"]:
        return {"told": "there is no ca.key: the CA is your own, and so is its change", "possible": []}
    if not (next_key["exists"] and next_certificate["exists"]):
        return {"told": "no new CA is made yet", "possible": ["trust"]}
    if key["checksum"] != next_key["checksum"]:
        return {"told": "both CAs are trusted, and the old one signs", "possible": ["trust", "issue"]}
    return {"told": "the new CA signs", "possible": ["issue", "drop"]}


class FilterModule:
    """What Ansible loads."""

    def filters(self):
        return {"replicad_pki_stage": stage}
