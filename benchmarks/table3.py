"""Table III of the paper at small scale: four ways to learn from 200 images with labels and 595 with depth alone.

    python benchmarks/table3.py [--config configs/table3.yaml] [--seeds 42 43 44] [--threads 1] [--json FILE]

Two tables: every regime with the same number of steps, and with the same number of labelled examples; batches and
validation images are the same. Run it again after a break: trainings that are done or half done go on where they were.
The tables, means and spread over the seeds, are printed at the end and written to --json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from regimes import BUDGETS, Result, compare

from networks.training.joint import JointTraining
from semslam import config as configs
from semslam.files.writing import write_json

FIGURES = {"miou": ("mIoU %", 100, 1), "pixel_accuracy": ("pixel acc. %", 100, 1), "rmse": ("RMSE m", 1, 3)}
# Nekrasov et al., Table III: 795 images with labels and depth, or these and 25,405 more with depth alone
PAPER = {
    "fine-tuning": (32.48, 0.6328),
    "BlitzNet": (34.82, 0.5823),
    "UberNet": (35.88, 0.5728),
    "teacher's labels, then fine-tuning": (42.02, 0.565),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/table3.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--json", type=Path, default=None, help="where the table is written; default: OUT/table3.json")
    parser.add_argument("--threads", type=int, default=1, help="on a busy machine one is as fast as two")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(arguments.threads)
    base = configs.load(arguments.config, JointTraining)
    labelled, unlabelled = base.sources
    out, results, began = Path(base.out), [], time.time()
    for result in compare(base, labelled, unlabelled, arguments.seeds, _progress):
        results.append(result)
        figures = " ".join(f"{name}={value:.4f}" for name, value in result.figures.items())
        print(
            f"[{time.time() - began:6.0f} s] {result.regime}, same {result.budget}, seed {result.seed}: {figures}",
            flush=True,
        )
        # after every run, so that a table of what is there survives
        write_json(arguments.json or out / "table3.json", summary(base, results))
    for budget in BUDGETS:
        print(f"\nthe same number of {budget}")
        print(table(result for result in results if result.budget == budget))


def _progress(name: str, row: dict[str, float]) -> None:
    if row["step"] % 40 == 0:
        losses = " ".join(f"{task}={row[task]:.3f}" for task in ("segmentation", "depth") if task in row)
        print(f"  {name} step {int(row['step'])} {losses} {row['seconds']:.0f} s", flush=True)


def summary(base: JointTraining, results: Iterable[Result]) -> dict:
    """What was compared, and every run's figures."""
    stage = base.stages[-1]
    return {
        "protocol": f"fine-tuning takes {base.loop.steps} steps of {base.batch} images, crops "
        f"{stage.crop[0]}x{stage.crop[1]} at {base.resolution:g} of the resolution, outputs at 1/{stage.stride}; "
        f"figures of the averaged weights on split "
        f"{base.validation.split!r}, one confusion matrix, absent classes skipped; depth pooled, no crop, no cap",
        "published": {name: {"miou": miou / 100, "rmse": rmse} for name, (miou, rmse) in PAPER.items()},
        "runs": [asdict(result) for result in results],
    }


def table(results: Iterable[Result]) -> str:
    """A line per regime: mean and standard deviation over the seeds, and the paper's figures."""
    by_regime: dict[str, list[Result]] = {}
    for result in results:
        by_regime.setdefault(result.regime, []).append(result)
    heads = "".join(f"{head:>18}" for head, _, _ in FIGURES.values())
    lines = [f"{'':36}{'seeds':>6}{'steps':>7}{'labelled':>10}{heads}   paper: mIoU %  RMSE m"]
    for regime, runs in by_regime.items():
        cells = ""
        for name, (_, factor, digits) in FIGURES.items():
            values = factor * np.array([run.figures[name] for run in runs])
            cells += f"{f'{values.mean():.{digits}f} +- {values.std():.{digits}f}':>18}"
        miou, rmse = PAPER[regime]
        lines.append(
            f"{regime:36}{len(runs):6}{runs[0].steps:7}{runs[0].labelled_examples:10}{cells}"
            f"          {miou:6.2f}  {rmse:6.4f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
