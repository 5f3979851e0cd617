"""Making the run of a variant, as `semslam reconstruct` would make it; one that is done is not made again."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from semslam.files.writing import write_json
from semslam.perception import Network
from semslam.runs import networks
from semslam.runs.config import RunConfig
from semslam.runs.finished.finish import finish
from semslam.runs.folder import RunFolder
from semslam.runs.reconstruct import prepare
from semslam.runs.recording import as_compared, is_the_one
from semslam.runs.run import Run
from semslam.runs.storage.arrays import Damaged
from semslam.runs.storage.lock import lock, unlock
from sequences import Sequence as Recording

MADE_BY = "variant.json"  # in a variant's folder: the weights that it was made with


def is_done(folder: RunFolder, config: RunConfig) -> bool:
    """Whether a folder holds the finished run of these settings, with figures of what it cost."""
    return _is_begun(folder, config) and "state_bytes" in (_read_json(folder.metrics) or {})


def check_free(folder: RunFolder, config: RunConfig, sequence: Recording, overwrite: bool) -> None:
    """ValueError where the run of these settings would destroy one of others, or of a recording that was changed since,
    or files that no comparison made; a run of a changed recording is removed where it may be.

    sequence: the recording, open.
    """
    if _is_begun(folder, config):
        if not (is_the_one(folder.load_recording(), sequence) or _shows_its_recording(folder)):
            if not overwrite:
                raise ValueError(
                    f"{folder.path}: its recording was changed since; name another --out, or add --overwrite"
                )
            lock(folder.path)
            shutil.rmtree(folder.path)
            unlock(folder.path)
        return
    if not (folder.path / MADE_BY).is_file():
        if any(not path.name.startswith(".") for path in folder.path.glob("*")):
            raise ValueError(f"{folder.path}: holds files that no comparison made; name another --out")
    elif folder.exists and not overwrite:
        raise ValueError(
            f"{folder.path}: holds a run with other settings or weights; name another --out, or add --overwrite"
        )


def prepared(folder: RunFolder, config: RunConfig, network: Network) -> Run:
    """The run of these settings, going on where it was interrupted, else from its first frame.

    network: used where the settings ask for predicted depth or labels. A run of other settings or weights is replaced:
    see `check_free`.
    """
    begun = _is_begun(folder, config)
    needed = "predicted" in (config.slam.perception.depth, config.slam.perception.labels)
    if not begun:
        shutil.rmtree(folder.path, ignore_errors=True)
        RunFolder.create(folder.path)
        write_json(folder.path / MADE_BY, {"weights": weights_digest(config.weights)})
    run = prepare(config, folder.path, network=network if needed else None, resume=begun)
    reset_peak_memory()
    return run


def finished(run: Run) -> None:
    """Write what a run that came to its end leaves behind, and what it cost."""
    metrics = finish(run, mesh=False)
    metrics["peak_memory_bytes"] = peak_memory()
    metrics["map_bytes"] = run.folder.map.stat().st_size
    metrics["state_bytes"] = run.folder.state.stat().st_size  # the last figure: a variant that has it is done
    run.folder.save_metrics(metrics)


def weights_digest(weights: str | None) -> str:
    """A name for the contents of a weights file: bundled ones change while their path does not."""
    return hashlib.sha256(networks.weights_file(weights).read_bytes()).hexdigest()[:16]


def reset_peak_memory() -> None:
    """Let `peak_memory` count from now on, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Most bytes of memory that this process held since `reset_peak_memory`; None where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found.group(1)) * 1024 if found else None


def _is_begun(folder: RunFolder, config: RunConfig) -> bool:
    """Whether a folder holds a run of these settings and weights, finished or not."""
    if not folder.exists or _read_json(folder.path / MADE_BY) != {"weights": weights_digest(config.weights)}:
        return False
    try:
        kept = folder.load_config()
        return kept == as_compared(config, kept)  # how poses are meant may have been found out when the run began
    except ValueError:  # damaged: it is made again
        return False


def _shows_its_recording(folder: RunFolder) -> bool:
    """Whether the recording of a run is the one that it was made of, with what the run undid of its camera's doing."""
    try:
        folder.open_sequence()
    except Damaged:
        raise
    except ValueError:
        return False
    return True


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
