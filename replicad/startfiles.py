"""All that a node reads before it starts: its config, and the key, certificates and tokens file that this names.

Owns that every fault of all of them is told in one go. What is right in a file, the module says that reads it. Opens no
socket, and nothing in the data folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from replicad import certificates, configfile, keys, tokensfile
from replicad.certificates import Files, Identity
from replicad.config import Config
from replicad.configfile import Reading
from replicad.errors import ConfigError, KeyFileError
from replicad.keys import Signer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kit:
    """``config`` has its principals; ``signer`` has a key that the config's own entry names; ``identity`` is None
    without TLS."""

    config: Config
    signer: Signer
    identity: Identity | None


def load_all(path: str | Path, *, now_s: float, env: Mapping[str, str] = os.environ) -> Kit:
    """What the config at ``path`` and its files hold, checked, at the time ``now_s``.

    Raises ConfigError with all faults at once: those of the config's values, then those of the files, each behind the
    config's line and key that name the file. What can't be judged while a value is faulty is left out: a certificate
    without the node's name, say.
    """
    reading = configfile.read(path, env)
    found, faults = reading.found, list(reading.faults)

    def kept(read: Callable[[], T], *, key: str = "") -> T | None:
        try:
            return read()
        except ConfigError as exc:
            faults.extend(f"{_place(reading, key or fault.partition(':')[0], key)}{fault}" for fault in exc.faults)
        except KeyFileError as exc:
            faults.append(f"{_place(reading, key, key)}{exc}")
        return None

    signer = identity = None
    if found.node and found.key_file:
        signer = kept(lambda: _signer(found.key_file, found.node, found.signing_keys, env), key="key")
    if found.node and (files := found.tls_files) is not None:
        identity = kept(lambda: certificates.load(Files(*files), name=found.node, now_s=now_s, env=env))
    principals = kept(lambda: tokensfile.load_named(found.tokens_file, nodes=found.nodes), key="tokens_file")
    if faults or reading.config is None or signer is None or principals is None:
        raise ConfigError(faults)
    return Kit(replace(reading.config, principals=principals), signer, identity)


def _place(reading: Reading, at: str, key: str) -> str:
    """The line of the key ``at``, and ``key`` itself where the fault does not begin with it."""
    return f"{reading.place(tuple(at.split('.')))}: {f'{key}: ' if key else ''}"


def _signer(path: str, node: str, signing_keys: tuple[str, ...], env: Mapping[str, str]) -> Signer:
    signer = keys.load_signer(path, node, env=env)
    if signing_keys:
        keys.check_matches(signer, signing_keys)
    return signer
