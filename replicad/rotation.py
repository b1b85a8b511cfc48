"""The key files of a node while its key is being replaced: the one that it signs with, the next, and those before.

Owns the files' names and the order of their changes: every step is safe to repeat, wherever an earlier try ended, and
the node's own key file is whole at every moment. Must not know the config or other nodes.

| file            | holds                                                              |
|-----------------|--------------------------------------------------------------------|
| FILE            | the key that the node signs with from its next start or reload on  |
| FILE.next       | the key that is to follow, from :meth:`KeyFiles.prepare` on        |
| FILE.old-KEYID  | the key before, from :meth:`KeyFiles.activate` on                  |
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from replicad.errors import KeyFileError
from replicad.files import sync_folder
from replicad.keys import Signer, generate, load_signer

_NEXT, _OLD = ".next", ".old-"


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """The key file at ``path`` of the node ``name``, and those beside it. All methods raise KeyFileError."""

    name: str
    path: Path

    @property
    def next_path(self) -> Path:
        return self.path.with_name(self.path.name + _NEXT)

    def current(self) -> Signer:
        return load_signer(self.path, self.name)

    def following(self) -> Signer | None:
        """The key that was prepared and is not in use yet."""
        return load_signer(self.next_path, self.name) if self.next_path.exists() else None

    def old(self) -> dict[str, Path]:
        """The files of keys that were in use before, by key id; the current one, whatever its names, is not among them.

        What a KEYID in a name says is checked when the file is read: see :meth:`old_signer`.
        """
        current = self.current().key_id
        prefix = self.path.name + _OLD
        try:
            found = sorted(path for path in self.path.parent.iterdir() if path.name.startswith(prefix))
        except OSError as exc:
            raise _failed("look into", self.path.parent, exc) from exc
        by_id = {path.name.removeprefix(prefix): path for path in found}
        return {key_id: path for key_id, path in by_id.items() if key_id != current}

    def old_signer(self, path: Path) -> Signer:
        """The key in one of the files of :meth:`old`."""
        return load_signer(path, self.name)

    def prepare(self) -> Signer:
        """Make the key that is to follow, of the current one's owner; or the one that was made already."""
        status = self._stat()
        if not self.next_path.exists():
            try:
                generate(self.name, self.next_path, owner=(status.st_uid, status.st_gid))
            except KeyFileError:
                if not self.next_path.exists():
                    raise  # else another run of this has made it at the same moment
        return load_signer(self.next_path, self.name)

    def activate(self) -> None:
        """Put the next key in the place of the current one, which is kept under its id."""
        current = self.current()
        old = self.path.with_name(f"{self.path.name}{_OLD}{current.key_id}")
        try:
            if not old.exists():
                os.link(self.path, old, follow_symlinks=True)
                sync_folder(self.path.parent)
            elif self.old_signer(old).verifier != current.verifier:
                raise KeyFileError(f"{old} holds another key than its name says; move it away, then activate again")
            self.next_path.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as exc:
            raise _failed("replace", self.path, exc) from exc

    def remove(self, path: Path) -> None:
        """Remove a key that is not used any more."""
        try:
            path.unlink(missing_ok=True)
            sync_folder(path.parent)
        except OSError as exc:
            raise _failed("remove", path, exc) from exc

    def _stat(self) -> os.stat_result:
        self.current()  # says what is wrong with it, if anything is
        return self.path.stat()


def _failed(what: str, path: Path, exc: OSError) -> KeyFileError:
    return KeyFileError(f"cannot {what} {path} ({exc.strerror}); run this as the owner of the key file, or as root")
