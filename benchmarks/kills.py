"""Commands ended at random moments and given again: each must reach the result of one without a break, byte for byte.

    python benchmarks/kills.py [--count 100] [--seed 0] [--only runs train batch compare calibrate]

Runs are killed (SIGKILL) and resumed, the other commands ended by SIGKILL, SIGINT, SIGTERM or SIGHUP and given once
more as they were, `--count` times each.
`python benchmarks/faults.py` kills runs beside its damaged files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import killed_commands
import numpy as np
from killed_commands import Kills, child, status_of

import semslam.runs.finished.finish  # once for all children, as the next, which then begin to work at once
import semslam.runs.reconstruct  # noqa: F401
from semslam.cli import main as command_line
from semslam.runs.folder import RunFolder

ROOM = "room:frames=60,width=160,height=120,noise=kinect"
VARIANTS = {
    "given poses, labels": ["--poses", "dataset", "--labels", "truth", "--label-every", "5"],
    "tracked": ["--poses", "tracked", "--labels", "none"],
    "over an older run": ["--poses", "dataset", "--labels", "none"],
}


def kills(count: int, seed: int = 0) -> Kills:
    """Kill runs with SIGKILL at `count` random moments, resume each until it is done, and compare its map."""
    rng, result = np.random.default_rng(seed), Kills()
    with tempfile.TemporaryDirectory() as folder:
        whole, seconds = {}, {}
        for name, options in VARIANTS.items():
            began = time.perf_counter()
            out = Path(folder) / f"whole {name}"
            assert status_of(child(partial(_reconstruct, out, options))) == 0, f"the run without a break failed: {name}"
            whole[name], seconds[name] = RunFolder.open(out).map.read_bytes(), time.perf_counter() - began
        while result.killed < count and len(result.broken) < 5:
            name = list(VARIANTS)[result.runs % len(VARIANTS)]
            out = Path(folder) / "run"
            shutil.rmtree(out, ignore_errors=True)
            if name == "over an older run":
                shutil.copytree(Path(folder) / "whole tracked", out)
            _until_done(out, VARIANTS[name], seconds[name], rng, result, name)
            result.runs += 1
            if not result.broken and RunFolder.open(out).map.read_bytes() != whole[name]:
                result.differing.append(f"run {result.runs}, {name}")
    return result


def _until_done(
    out: Path, options: list[str], seconds: float, rng: np.random.Generator, result: Kills, name: str
) -> None:
    """Start, kill, look at what is left, and start again, until the run comes to its end."""
    more = ["--overwrite"] if out.exists() else []
    while True:
        process = child(partial(_reconstruct, out, [*options, *more]))
        time.sleep(rng.uniform(0, seconds))
        os.kill(process, signal.SIGKILL)
        ended = status_of(process)
        if ended == 0:
            return
        if ended != -signal.SIGKILL:
            result.broken.append(f"{name}: exit status {ended} after {result.killed} kills")
            return
        result.killed += 1
        folder = RunFolder(out)
        there = folder.exists or folder.is_replaced
        if there and (ended := status_of(child(partial(_look, out)))):
            result.broken.append(f"{name}: after {result.killed} kills: reading it ends with {ended}")
            return
        # a run that is to replace an older one goes on once it has saved something; before, it is begun again
        begun = folder.exists if not more or more == ["--resume"] else folder.replacement.exists
        more = ["--resume"] if begun or not out.exists() else more


def _reconstruct(out: Path, options: list[str]) -> None:
    sys.argv = ["semslam", "reconstruct", ROOM, "--out", str(out), "--checkpoint", "0.02", "--no-mesh", *options]
    command_line()


def _look(out: Path) -> None:
    RunFolder.open(out).load_cloud()


def main() -> None:
    """Kill, and print what became of it; exit status 1 where a result differs or is lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=("runs", *killed_commands.COMMANDS), metavar="COMMAND")
    arguments = parser.parse_args()
    good = True
    for name in arguments.only or ("runs", *killed_commands.COMMANDS):
        rest = arguments.count, arguments.seed
        result = kills(*rest) if name == "runs" else killed_commands.kills(name, *rest)
        good = report(result, name) and good
    sys.exit(not good)


def report(result: Kills, name: str = "runs") -> bool:
    """Print it; whether all is as it should be."""
    print(
        f"{name}: {result.killed} kills in {result.runs} runs: {len(result.differing)} results differ, "
        f"{len(result.broken)} lost",
        flush=True,
    )
    for line in [*result.differing, *result.broken]:
        print(f"    {line}")
    return result.good


if __name__ == "__main__":
    main()
