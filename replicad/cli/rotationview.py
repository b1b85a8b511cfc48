"""How a rotation of a node's key stands, and what is to be done next: from its key files, its config and all nodes.

Owns the words. Must not change anything: the files are :mod:`replicad.rotation`'s.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from replicad import configfile
from replicad.cli.connect import make_client, run
from replicad.cli.errors import plain, service_failure
from replicad.cli.options import Session
from replicad.client import Status
from replicad.client.settings import CA_VARIABLE, CERTIFICATE_VARIABLE
from replicad.config import Config, FormerKey, Node
from replicad.errors import Forbidden, ServiceError, Unauthorized, Unavailable
from replicad.keys import Signer
from replicad.rotation import KeyFiles

LOOK_AGAIN_S = 0.05  # a worker is behind by milliseconds while posts go on

Answer = Status | ServiceError


@dataclass(frozen=True, slots=True)
class View:
    """1. ``old`` are the keys before ``current`` that still have a file, by id. 2. ``answers`` has every node."""

    config: Config
    files: KeyFiles
    current: Signer
    following: Signer | None
    old: Mapping[str, Path]
    answers: Mapping[str, Answer]
    options: str  # of the command line, for the next one

    @property
    def node(self) -> Node:
        return self.config.this_node

    @property
    def newest(self) -> Signer:
        return self.following or self.current

    @property
    def signs_with(self) -> str | None:
        """The key that the daemon signs with; None when it does not say."""
        own = self.answers[self.node.name]
        return own.key_id or None if isinstance(own, Status) else None

    @property
    def live(self) -> list[str]:
        """The public lines of former keys that the config lets sign still."""
        return [line for line in self.node.signing_keys if line != self.current.verifier.line]

    @property
    def state(self) -> str:
        if self.following:
            return "prepared"
        return "activated" if self.old or self.live else "steady"

    @property
    def own(self) -> Status | None:
        """What the node itself says once it signs with the current key; None before."""
        own = self.answers[self.node.name]
        return own if isinstance(own, Status) and own.key_id == self.current.key_id else None

    @property
    def is_retired(self) -> bool:
        """Whether the old key has no file any more, and all that is left is to say in the configs where it ends."""
        return self.state == "activated" and not self.old and self.own is not None

    @property
    def ahead(self) -> int:
        """The most records that a node has."""
        return max((each.size for each in self.answers.values() if isinstance(each, Status)), default=0)

    @property
    def silent(self) -> dict[str, str]:
        """The nodes that do not answer, and why."""
        return {name: plain(each.message) for name, each in self.answers.items() if isinstance(each, ServiceError)}

    @property
    def unaware(self) -> list[str]:
        """The nodes that answer, and in whose config not all may sign for this node that are to: the newest key, and
        those that this node's own config lets sign."""
        wanted = {(_key_id(line), None) for line in (self.newest.verifier.line, *self.node.signing_keys)}
        return [
            name
            for name, each in self.answers.items()
            if isinstance(each, Status) and not wanted <= _keys_at(each, self.node.name)
        ]

    def late(self) -> list[str]:
        """The nodes that answer, and believe a former key of this node for longer than its config says."""
        wanted = {(_key_id(former.public_key), former.until) for former in self.node.former_keys}
        return [
            name
            for name, each in self.answers.items()
            if isinstance(each, Status) and not wanted <= _keys_at(each, self.node.name)
        ]

    def again(self) -> View:
        """After a change of the files."""
        files = self.files
        return replace(self, current=files.current(), following=files.following(), old=files.old())

    def entry(self, untils: Mapping[str, int] | None = None) -> tuple[str, list[FormerKey]]:
        """What every node's config is to have for this node; ``untils`` are those found just now, by public line."""
        known = {former.public_key: former.until for former in self.node.former_keys}
        old = [self.files.old_signer(path).verifier.line for path in self.old.values()]
        lines = dict.fromkeys([self.current.verifier.line, *old, self.node.public_key, *known])
        lines.pop(self.newest.verifier.line, None)
        until = {**known, **(untils or {})}
        return self.newest.verifier.line, [FormerKey(line, until.get(line)) for line in lines]


def look(session: Session, config_file: Path, key_file: Path | None, timeout_s: float) -> View:
    """Read config and key files, and ask every node. Raises what they raise; Failure when a token is refused."""
    config = configfile.load(config_file, signs=key_file is None)
    files = KeyFiles(
        config.node, (key_file or Path(config.key_file)).resolve()
    )  # it may be a link to the one to replace
    current, following, old = files.current(), files.following(), files.old()
    if session.ca is None and not os.environ.get(CA_VARIABLE) and config.tls is not None:
        session.ca = config.tls.ca  # we are on the node: it knows the others by that bundle
    answers = run(_ask(session, config, timeout_s))
    for answer in answers.values():
        if isinstance(answer, Unauthorized | Forbidden):
            raise service_failure(answer)
    options = f"--config {config_file}" + (f" --key {key_file}" if key_file else "")
    return View(config, files, current, following, old, answers, options)


def address_for(session: Session, node: Node) -> str:
    """Where to ask a node: on its other port when a certificate says who we are."""
    by_certificate = session.certificate or os.environ.get(CERTIFICATE_VARIABLE)
    return node.mutual_address if by_certificate and node.mutual_address else node.address


async def _ask(session: Session, config: Config, timeout_s: float) -> dict[str, Answer]:
    async def one(node: Node) -> Answer:
        try:
            status = await client.status(address_for(session, node))
        except ServiceError as error:
            return error
        if (status.cluster, status.node) == (config.cluster, node.name):
            return status
        return Unavailable(f"{status.node} of cluster {status.cluster} answers at {address_for(session, node)}")

    session.addresses = session.addresses or [address_for(session, node) for node in config.nodes]
    async with make_client(session, timeout_s=timeout_s) as client:
        answers = await asyncio.gather(*map(one, config.nodes))
    return dict(zip((node.name for node in config.nodes), answers, strict=True))


def comes_to(session: Session, view: View, size: int, timeout_s: float) -> bool:
    """Wait until this node has so many records on disk; whether that came in time."""

    async def wait() -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), make_client(session, timeout_s=timeout_s) as client:
                while (await client.status(address_for(session, view.node))).size < size:  # noqa: ASYNC110 - another process's doing
                    await asyncio.sleep(LOOK_AGAIN_S)
                return True
        return False

    return run(wait())


def advice(view: View) -> str:
    """What is to be done next."""
    name, command = view.node.name, f"replicad-cli keys rotate {{}} {view.options}"
    activate, retire = command.format("activate"), command.format("retire")
    if view.following is not None:
        if view.following.verifier.line not in view.node.signing_keys:
            text = f"put the lines above into the config of every node, reload every node, then: {activate}"
        elif unaware := view.unaware:
            text = f"reload {_and(unaware)}, with the lines above in each one's config, then: {activate}"
        else:
            text = f"every node that answers knows the new key: {activate}"
    elif view.state == "activated":
        if view.signs_with is None:
            text = f"start {name}, then: {retire}"
        elif view.signs_with != view.current.key_id:
            text = (
                f"reload {name}, so that it signs with the new key (where systemd hands the key in as a credential,"
                f" restart it), then: {retire}"
            )
        else:
            text = f"{name} signs with the new key: {retire}"
    elif late := view.late():
        text = f"reload {_and(late)}, with the lines above in each one's config; then the rotation is over"
    else:
        text = f"nothing; {command.format('prepare')} begins a rotation"
    return text


def config_lines(public_key: str, former_keys: Sequence[FormerKey]) -> str:
    """A node's keys as its entry under ``nodes`` has them."""
    lines = [f"    public_key: {public_key}"]
    lines += ["    former_keys:"] if former_keys else []
    for former in former_keys:
        lines.append(f"      - public_key: {former.public_key}")
        if former.until is not None:
            lines.append(f"        until: {former.until}")
    return "\n".join(lines)


def text_of(view: View, entry: tuple[str, list[FormerKey]], advice: str) -> str:
    """The whole of it for a person."""
    silent = [f"not reached: {name}: {why}" for name, why in view.silent.items()]
    files = [f"key file:    {view.files.path}, key {view.current.key_id}"]
    files += [f"next key:    {view.files.next_path}, key {view.following.key_id}"] if view.following else []
    files += [f"old key:     {path}" for path in view.old.values()]
    files.append(f"signs with:  {view.signs_with or 'not known: the node does not say'}")
    lines = config_lines(*entry)
    place = f"In the config of every node, the entry of {view.node.name} under `nodes` is to have:"
    return "\n".join([*files, *silent, "", place, "", lines, "", f"Next: {advice}"])


def fields_of(view: View, entry: tuple[str, list[FormerKey]], advice: str) -> dict[str, object]:
    public_key, former_keys = entry
    return {
        "node": view.node.name,
        "state": view.state,
        "key_file": str(view.files.path),
        "key_id": view.current.key_id,
        "next_key_id": view.following.key_id if view.following else None,
        "old_key_ids": list(view.old),
        "signs_with": view.signs_with,
        "public_key": public_key,
        "former_keys": [_former_fields(former) for former in former_keys],
        "unaware": view.unaware,
        "unreachable": list(view.silent),
        "next": advice,
    }


def _former_fields(former: FormerKey) -> dict[str, object]:
    """As the config has it, which takes no ``until`` without a value."""
    fields: dict[str, object] = {"public_key": former.public_key}
    return fields if former.until is None else {**fields, "until": former.until}


def _keys_at(status: Status, node: str) -> set[tuple[str, int | None]]:
    """The keys of ``node`` in the config of the node whose status this is."""
    return {(key.key_id, key.until) for each in status.nodes if each.name == node for key in each.keys}


def _key_id(line: str) -> str:
    return line.split("+")[1]


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
