"""Where a batch leaves its results: a folder, or any address that fsspec knows."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semslam.files.writing import check_makeable, replacing


@dataclass(frozen=True)
class Results:
    """A folder on this machine (or one that all machines share), or an address such as s3://bucket/folder.

    A folder's tasks write straight into it. Those of an address write into a scratch folder, which is copied when the
    task has ended well.
    """

    address: str  # of a folder: absolute

    @staticmethod
    def at(address: str) -> Results:
        """Results at an address, made ready; OSError, ValueError or ImportError where nothing can be written there."""
        results = Results(address if "://" in address else str(Path(address).absolute()))
        if results.folder is not None:
            check_makeable(results.folder)
        try:
            results.write("tasks/README.txt", "A record and what was printed, for each task of `semslam batch`.\n")
        except ImportError as error:  # of an address: the library of its protocol is missing
            raise ImportError(f"--out {address}: {error}") from None
        except ValueError as error:  # of an address: no such protocol; some kinds cannot be made of one line
            raise ValueError(f"--out {address}: {error}") from None
        return results

    @property
    def folder(self) -> Path | None:
        """The folder, unless this is an address."""
        return None if "://" in self.address else Path(self.address)

    def workplace(self, name: str) -> Path:
        """Where the command of a task writes: the same for each attempt on one machine, so that it can go on."""
        if self.folder is not None:
            return self.folder
        place = hashlib.sha256(self.address.encode()).hexdigest()[:12]
        scratch = Path(tempfile.gettempdir()) / f"semslam-batch-{place}" / name
        scratch.mkdir(parents=True, exist_ok=True)
        return scratch

    def deliver(self, name: str, whole: bool) -> None:
        """Copy what a task has left in its workplace to the address, and remove it there.

        whole: otherwise the task has failed, and only what it printed is copied; the next attempt goes on here.
        """
        if self.folder is not None:
            return
        scratch = self.workplace(name)
        system, root = _file_system(self.address)
        for path in sorted((scratch if whole else scratch / "tasks").rglob("*")):
            if path.is_file():
                target = f"{root}/{path.relative_to(scratch).as_posix()}"
                system.makedirs(target.rpartition("/")[0], exist_ok=True)
                system.put_file(str(path), target)
        if whole:
            shutil.rmtree(scratch)

    def has(self, name: str) -> bool:
        """Whether there is a file or folder of this name."""
        if self.folder is not None:
            return (self.folder / name).exists()
        system, root = _file_system(self.address)
        return bool(system.exists(f"{root}/{name}"))

    def read(self, name: str) -> str:
        """The text of a file; FileNotFoundError where there is none."""
        if self.folder is not None:
            return (self.folder / name).read_text(encoding="utf-8")
        system, root = _file_system(self.address)
        return system.cat_file(f"{root}/{name}").decode()

    def write(self, name: str, text: str) -> None:
        """Write a file, whole or not at all."""
        if self.folder is not None:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
            return
        system, root = _file_system(self.address)
        system.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        system.pipe_file(f"{root}/{name}", text.encode())


def _file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path in it."""
    from fsspec.core import url_to_fs

    system, root = url_to_fs(address)
    return system, root.rstrip("/")
