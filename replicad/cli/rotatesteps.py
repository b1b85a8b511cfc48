"""The steps of ``replicad-cli keys rotate``, each safe to repeat; what they are for, :mod:`replicad.cli.rotate` says.

Owns when a step may be taken. How things stand, :mod:`replicad.cli.rotationview` tells; the files are
:mod:`replicad.rotation`'s, and up to which offset a key has signed, :mod:`replicad.storage.signatures`'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from replicad.cli.errors import Failure
from replicad.cli.options import Session
from replicad.cli.output import Output
from replicad.cli.rotationview import View, advice, comes_to, fields_of, look, text_of
from replicad.client import Status
from replicad.errors import ExitCode
from replicad.nodekeys import node_key
from replicad.storage.signatures import last_signed


def status(session: Session, **where: Any) -> None:
    view = look(session, **where)
    if view.is_retired and comes_to(session, view, view.ahead, where["timeout_s"]):
        _show(session, view, _untils(view))
    else:
        _show(session, view)


def prepare(session: Session, **where: Any) -> None:
    view = look(session, **where)
    if view.state == "steady":
        view.files.prepare()
    _show(session, view.again())


def activate(session: Session, **where: Any) -> None:
    view = look(session, **where)
    following = view.following
    if following is None:
        if view.state == "steady":
            raise _not_yet("there is no next key", f"replicad-cli keys rotate prepare {view.options}")
        _show(session, view)
        return
    if following.verifier.line not in view.node.signing_keys:
        raise _not_yet(f"this node's config does not have the new key {following.key_id}", advice(view), view)
    if view.unaware:
        text = f"the new key {following.key_id}, or one before it, is not in the config of {', '.join(view.unaware)}"
        raise _not_yet(text, advice(view), view)
    heard = sum(isinstance(view.answers[node.name], Status) for node in view.config.nodes if node.voter)
    if heard < view.config.commit_quorum:
        silent = "; ".join(f"{name}: {why}" for name, why in view.silent.items())
        text = f"{heard} of {view.config.voters} nodes answer, so it is not known whether a majority knows the new key"
        raise _not_yet(f"{text} ({silent})", "start the others, or see that they are reached, then again")
    view.files.activate()
    _show(session, view.again())


def retire(session: Session, **where: Any) -> None:
    view = look(session, **where)
    if view.following is not None:
        raise _not_yet("the next key is not in use yet", f"replicad-cli keys rotate activate {view.options}")
    if view.state == "steady":
        _show(session, view)
        return
    if view.own is None:
        raise _not_yet(f"it is not certain that {view.node.name} signs with the new key", advice(view), view)
    if not comes_to(session, view, view.ahead, where["timeout_s"]):
        text = f"{view.node.name} lacks some of {view.ahead} records, and the old key may have signed some of those"
        raise Failure(f"{text}; nothing was changed", exit_code=ExitCode.TRY_AGAIN, remedy="try again when it is level")
    untils = _untils(view)
    _show(session, view, untils)
    for path in view.old.values():
        view.files.remove(path)


def _untils(view: View) -> dict[str, int]:
    """Where the last batch of each old key ends, by public line."""
    old = [view.files.old_signer(path).verifier.line for path in view.old.values()]
    settled = {former.public_key for former in view.node.former_keys if former.until is not None}
    lines = [line for line in dict.fromkeys([*old, *view.live]) if line not in settled]
    keys = {line: node_key(line) for line in lines}
    config = view.config
    folder = Path(config.data_dir)
    ends = last_signed(folder, cluster=config.cluster, node=config.node, keys=list(keys.values()))
    return {line: ends[key.key_id] for line, key in keys.items()}


def _show(session: Session, view: View, untils: dict[str, int] | None = None) -> None:
    output, entry = Output(session), view.entry(untils)
    text = advice(view)
    if untils is not None:
        text = "put the lines above into the config of every node and reload every node; then the rotation is over"
    output.show(text_of(view, entry, text), fields_of(view, entry, text))
    output.flush()


def _not_yet(what: str, remedy: str, view: View | None = None) -> Failure:
    """Why a step is not taken. ``view``: its lines are part of the remedy."""
    if view is not None and "lines above" in remedy:
        remedy = remedy.replace("the lines above", f"the lines that `keys rotate status {view.options}` shows")
    return Failure(f"{what}; nothing was changed", exit_code=ExitCode.CONFIG, remedy=remedy)
