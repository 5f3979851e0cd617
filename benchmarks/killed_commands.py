"""What `kills.py` ends and begins again besides runs: trainings, batches, comparisons and calibrations."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDED = 3  # times at most that a command is ended before it may come to its end: most of its time is its start
INTERRUPTED = 130  # the exit status of a command that was asked to end
ROOM = "room:frames=%d,width=96,height=72"


@dataclass
class Kills:
    """What became of killed runs."""

    killed: int = 0  # while at work
    runs: int = 0  # that came to their end, killed or not
    differing: list[str] = field(default_factory=list)  # those whose result is not that of a run without a break
    broken: list[str] = field(default_factory=list)  # those that could not be opened, or did not end well

    @property
    def good(self) -> bool:
        return not self.differing and not self.broken


@dataclass(frozen=True)
class Command:
    """A command that goes on where it was ended when it is given once more."""

    given: Callable[[Path, Path], list[str]]  # its words, by a folder with what it reads and the one that it writes to
    results: tuple[str, ...]  # patterns of files that have to be the same in the end
    needed: Callable[[Path], object] = lambda folder: None  # writes what it reads


def kills(name: str, count: int, seed: int = 0) -> Kills:
    """End a command at `count` random moments, give it again until it is done, and compare what it has made."""
    rng, result, command = np.random.default_rng(seed), Kills(), COMMANDS[name]
    with tempfile.TemporaryDirectory() as folder:
        needed, out = Path(folder) / "needed", Path(folder) / "out"
        needed.mkdir()
        assert status_of(child(partial(command.needed, needed))) == 0, f"what {name} needs cannot be made"
        began = time.perf_counter()
        assert status_of(child(partial(_give, command.given(needed, out), out))) == 0, f"{name} fails unbroken"
        seconds, expected = time.perf_counter() - began, _made(out, command)
        assert expected, f"{name} leaves nothing to compare"
        while result.killed < count and len(result.broken) < 5:
            shutil.rmtree(out, ignore_errors=True)
            _until_done(partial(_give, command.given(needed, out), out), seconds, rng, result)
            result.runs += 1
            if not result.broken and (made := _made(out, command)) != expected:
                differing = sorted({path for path, _ in expected.items() ^ made.items()})
                result.differing.append(f"run {result.runs}: {', '.join(differing)}")
    return result


def _until_done(work: Callable[[], object], seconds: float, rng: np.random.Generator, result: Kills) -> None:
    """Begin, end at a random moment by a random signal, and begin again; after a few times let it come to its end."""
    for _ in range(ENDED):
        number = SIGNALS[rng.integers(len(SIGNALS))]
        process = child(work)
        time.sleep(rng.uniform(0, seconds))
        os.kill(process, number)
        ended = status_of(process)
        if ended == 0:
            return
        if ended not in (INTERRUPTED, -number):
            result.broken.append(f"exit status {ended} after {result.killed} kills, the last by {number.name}")
            return
        result.killed += 1
    if (ended := status_of(child(work))) != 0:
        result.broken.append(f"exit status {ended} where it was let go on, after {result.killed} kills")


def _made(out: Path, command: Command) -> dict[str, bytes]:
    """The files that a command has made, by their names."""
    paths = (path for pattern in command.results for path in out.glob(pattern) if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def _give(words: list[str], out: Path) -> None:
    """The command line with these words; its cache is in a folder of the results."""
    from semslam.cli import main

    os.environ["SEMSLAM_CACHE"] = str(out / "cache")
    sys.argv = ["semslam", *words]
    main()


def child(work: Callable[[], object]) -> int:
    """The id of a process of its own that does some work; its exit status is 1 where an exception ends that.

    This process itself must not run compiled loops: their threads do not survive a fork.
    """
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        logging.disable()
        work()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        os._exit(status)


def status_of(process: int) -> int:
    """The exit status of a process, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


# The commands


def _images(folder: Path) -> None:
    """A dozen small images with depth and labels, and a training on them."""
    import cv2
    import yaml

    for kind in ("color", "label40", "depth"):
        (folder / kind).mkdir()
    rng = np.random.default_rng(0)
    names = [f"{i:03d}" for i in range(12)]
    for name in names:
        edge = int(rng.integers(20, 44))
        color = rng.integers(0, 60, (48, 64, 3)).astype(np.uint8)
        color[:, edge:] += 150
        right = np.tile(np.arange(64) >= edge, (48, 1))
        cv2.imwrite(str(folder / "color" / f"{name}.png"), color)
        cv2.imwrite(str(folder / "label40" / f"{name}.png"), (1 + right).astype(np.uint8))
        cv2.imwrite(str(folder / "depth" / f"{name}.png"), (1000 + 2000 * right).astype(np.uint16))
    (folder / "train.txt").write_text("\n".join(names[:10]))
    (folder / "val.txt").write_text("\n".join(names[10:]))
    settings = {
        "sources": [{"path": str(folder)}],
        "validation": {"path": str(folder), "split": "val"},
        "stages": [{"crop": [32, 32], "scale": [0.8, 1.2]}],
        "batch": 2,
        "loop": {"steps": 8, "warmup": 1, "save_every": 2},
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(settings))


def _train(needed: Path, out: Path) -> list[str]:
    import yaml

    settings = yaml.safe_load((needed / "train.yaml").read_text())
    (needed / f"{out.name}.yaml").write_text(yaml.safe_dump(settings | {"out": str(out)}))
    return ["train", str(needed / f"{out.name}.yaml")]


def _list(folder: Path) -> None:
    (folder / "list.txt").write_text("".join(f"{ROOM % frames}\n" for frames in (10, 14, 18)))


def _batch(needed: Path, out: Path) -> list[str]:
    command = "reconstruct --poses tracked --labels none --no-mesh --checkpoint 0.05"
    return ["batch", str(needed / "list.txt"), "--out", str(out), "--command", command, "--retries", "0"]


def _compare(needed: Path, out: Path) -> list[str]:
    return ["compare", ROOM % 12, "--out", str(out), "--variants", "sensor,sensor_tracked,sensor_true_labels"]


def _calibrate(needed: Path, out: Path) -> list[str]:
    return ["calibrate", str(needed / "color")]


COMMANDS: dict[str, Command] = {
    "train": Command(_train, ("network.safetensors",), _images),
    "batch": Command(_batch, ("room*/map.ply", "room*/trajectory.txt"), _list),
    "compare": Command(_compare, ("sensor*/map.ply", "sensor*/trajectory.txt")),
    "calibrate": Command(_calibrate, ("cache/**/*int8*",), _images),
}
