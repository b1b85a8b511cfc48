"""Every gate at which bytes from outside are taken apart, and the parsers that need no target, with the reason."""

from __future__ import annotations

from tests.fuzz.registry import Target
from tests.fuzz.targets import core, disk, text, wire, x509

TARGETS: dict[str, Target] = {
    target.name: target for target in (*wire.TARGETS, *core.TARGETS, *text.TARGETS, *disk.TARGETS, *x509.TARGETS)
}

#: Named like parsers, and none: what they read was made or checked elsewhere.
EXEMPT = {
    "cli.bench.workloads.read_all": "reads a log through the client",
    "client.cutting.split": "cuts what the caller of the library posts",
    "dev.layout.load": "reads configs by configfile.load",
    "dev.process.readable": "waits for descriptors",
    "keys.read_again": "reads a key file by keys.load_signer",
    "startfiles.load_all": "reads files by configfile.read, keys.load_signer, certificates.load and tokensfile.load",
    "tokensfile.load_named": "is tokensfile.load",
    "transport.tls.load": "reads files by certificates.load",
    "runtime.read_contents": "reads batches that the store has checked",
}
