"""Four ways to learn from images of which few have labels and all have depth: Table III of Nekrasov et al., small.

Every regime has the same budget of steps; the teacher's own training is not counted, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from networks.inference.labelling import Teacher, label_folder
from networks.joint import checkpoints
from networks.training.data import Source
from networks.training.joint import JointTraining, train
from networks.training.loop import Loop
from semslam.labels import label_set

Report = Callable[[str, dict[str, float]], None]


@dataclass(frozen=True)
class Result:
    """One regime with one seed."""

    regime: str
    seed: int
    figures: dict[str, float]  # of the last validation, see networks.training.validation


def compare(
    base: JointTraining, labelled: Source, unlabelled: Source, seeds: Iterable[int], report: Report | None = None
) -> Iterator[Result]:
    """Train with each regime and seed; trainings that were finished or killed before are not begun anew.

    Args:
        base: everything but the data; `out` holds a folder for each training.
        labelled: images with every label.
        unlabelled: images whose class labels are not to be used.
        report: called with the training's name and each row of its log.
    """
    depth_alone = replace(unlabelled, tasks=tuple(task for task in base.tasks if task != "segmentation"))
    mixed = (labelled, depth_alone)
    for seed in seeds:
        seeded = replace(base, loop=replace(base.loop, seed=seed))
        out = Path(base.out)

        def run(name: str, config: JointTraining, seed: int = seed, out: Path = out) -> dict[str, float]:
            name = f"{name}-{seed}"
            inform = None if report is None else lambda row: report(name, row)
            return train(replace(config, out=str(out / name)), inform)

        yield Result("fine-tuning", seed, run("fine-tuning", replace(seeded, sources=(labelled,))))
        yield Result("BlitzNet", seed, run("blitznet", replace(seeded, sources=mixed)))
        uber = replace(seeded, sources=mixed, task_examples=10, shared_examples=30)
        yield Result("UberNet", seed, run("ubernet", uber))
        # the teacher is what the labelled images alone taught
        teacher, _ = checkpoints.load(out / f"fine-tuning-{seed}" / "network.safetensors")
        labels = out / f"labels-{seed}"
        writer = Teacher(teacher, label_set(unlabelled.classes), unlabelled.first_output, resolution=base.resolution)
        for _, problem in label_folder(writer, unlabelled.path, labels, unlabelled.split):
            if problem is not None:
                raise ValueError(problem)
        whole = (labelled, replace(unlabelled, labels=str(labels)))
        first = replace(seeded, sources=whole, loop=_share(seeded.loop, 2 / 3))
        run("pre-training", first)
        second = replace(
            seeded,
            sources=(labelled,),
            weights=str(out / f"pre-training-{seed}" / "network.safetensors"),
            encoder_rate=seeded.encoder_rate / 10,
            decoder_rate=seeded.decoder_rate / 10,
            loop=_share(seeded.loop, 1 / 3),
        )
        yield Result("teacher's labels, then fine-tuning", seed, run("ours", second))


def _share(loop: Loop, share: float) -> Loop:
    """A part of a training's length, by whatever it is limited."""
    hours, cpu = (None if h is None else h * share for h in (loop.hours, loop.cpu_hours))
    return replace(loop, steps=max(1, round(loop.steps * share)), hours=hours, cpu_hours=cpu)
