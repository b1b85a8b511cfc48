"""A disk of its own for a node, from which the power can be taken: ext4 on an image.

What a file system has not written to its device when the power goes is gone. Here the device is a file, the image, so a
copy of the image is what a machine would find when the power is back, its journal as it was in the midst of its work.

Owns the image and where it is mounted. Needs root. Must not know what is on it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.faults.network import run

COPY_TRIES = 50


class Disk:
    def __init__(self, image: Path, folder: Path, *, megabytes: int) -> None:
        """Make the image, and mount it at ``folder``."""
        self._image, self._folder, self._lives = image, folder, 0
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        run("mkfs.ext4", "-q", "-m", "0", str(image))
        folder.mkdir(parents=True, exist_ok=True)
        self.mount()
        folder.chmod(0o700)

    def mount(self) -> None:
        run("mount", "-o", "loop", str(self._image), str(self._folder))

    def unmount(self) -> None:
        """Nothing may have a file open there."""
        run("umount", str(self._folder))

    def take_power(self) -> None:
        """Give the folder what is on the device at this moment, and no more. Nothing may run there any more."""
        self._lives += 1
        survivor = self._image.with_name(f"{self._image.name}.{self._lives}")
        for _ in range(COPY_TRIES):
            before = self._image.stat().st_mtime_ns
            run("cp", "--sparse=always", str(self._image), str(survivor))
            if self._image.stat().st_mtime_ns == before:  # the kernel wrote nothing meanwhile: it is of one moment
                break
        else:
            raise RuntimeError(f"{self._image} was written to all the while")
        self.unmount()
        survivor.replace(self._image)
        self.mount()
        self.make_room()  # that it was made may not have been on the device

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self._folder).free

    def fill(self) -> None:
        """Leave no room."""
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, self.free_bytes - (64 << 10)))

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self._folder / "ballast"
