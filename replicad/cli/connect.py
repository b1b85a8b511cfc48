"""The client that a command works with, made from what the command line and the environment say."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from replicad import eventloop, fernetkeys
from replicad.cli.errors import Interrupted
from replicad.cli.options import Session
from replicad.client import AsyncClient, Encryption
from replicad.client.settings import ADDRESS_VARIABLE, Settings, make_settings

DEFAULT_TIMEOUT = "10s"  # a node that restarts is back by then

_Result = TypeVar("_Result")


def node_addresses(session: Session) -> tuple[str, ...]:
    """Where to look for nodes: as given by --address, else by the environment. Raises click.UsageError."""
    given = ",".join(session.addresses) if session.addresses else None
    where = ADDRESS_VARIABLE if given is None else "--address"
    try:
        return _settings(session, given).addresses
    except ValueError as exc:
        text = str(exc)
        raise click.UsageError(f"{where}: {text}" if "address" in text[:12] else text) from exc


def _settings(session: Session, addresses: str | None) -> Settings:
    return make_settings(
        addresses,
        token=None,
        timeout_s=1.0,
        write_concern=None,
        ca=session.ca,
        certificate=session.certificate,
        key=session.key,
    )


def find_encryption(key_file: Path | None) -> Encryption | None:
    """The keys that payloads are encrypted with: of that file, else of the environment, else None. KeyFileError."""
    keys = fernetkeys.from_file(key_file) if key_file is not None else fernetkeys.from_environment()
    return Encryption(keys) if keys else None


def make_client(session: Session, *, timeout_s: float, encryption: Encryption | None = None) -> AsyncClient:
    """A client of those addresses; AUTH_TOKEN comes from the environment. Raises click.UsageError."""
    return AsyncClient(
        node_addresses(session),
        timeout_s=timeout_s,
        ca=session.ca,
        certificate=session.certificate,
        key=session.key,
        encryption=encryption,
    )


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a command's work. Ctrl-C cancels it; Interrupted is raised once it has ended."""
    try:
        return eventloop.run(work)
    except KeyboardInterrupt:
        raise Interrupted from None
