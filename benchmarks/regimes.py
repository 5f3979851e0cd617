"""Four ways to learn from images of which few have labels and all have depth: Table III of Nekrasov et al., small.

Two budgets are fair in different ways: the same number of steps, where a regime that also learns from images without
labels sees the labelled ones less often; and the same number of labelled examples, where it takes more steps. The
teacher's own training is not counted, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from networks.inference.labelling import Teacher, label_folder
from networks.joint import checkpoints
from networks.training.data import Source, open_images
from networks.training.joint import JointTraining, train
from networks.training.loop import Loop
from semslam.labels import label_set

Report = Callable[[str, dict[str, float]], None]
BUDGETS = ("steps", "labelled examples")


@dataclass(frozen=True)
class Result:
    """One regime with one seed."""

    regime: str
    seed: int
    figures: dict[str, float]  # of the last validation, see networks.training.validation
    budget: str  # one of BUDGETS
    steps: int
    labelled_examples: int  # images with true labels that were learned from, repetitions counted


def compare(
    base: JointTraining,
    labelled: Source,
    unlabelled: Source,
    seeds: Iterable[int],
    report: Report | None = None,
    budgets: Iterable[str] = BUDGETS,
) -> Iterator[Result]:
    """Train with each regime, budget and seed; trainings that were finished or killed before are not begun anew.

    Args:
        base: everything but the data; `out` holds a folder for each training. Its steps are those of fine-tuning.
        labelled: images with every label.
        unlabelled: images whose class labels are not to be used.
        report: called with the training's name and each row of its log.
        budgets: of BUDGETS; fine-tuning is the same in both.
    """
    count = len(open_images(labelled))
    share = count / (count + len(open_images(unlabelled)))  # of labelled images, where all are mixed
    budgets = list(budgets)
    for seed in seeds:
        run = _Regimes(base, labelled, unlabelled, seed, report)
        for budget in budgets:
            more = 1.0 if budget == "steps" else 1 / share  # steps for one of fine-tuning, of the mixed regimes
            whole = 1.0 if budget == "steps" else 1 / (2 / 3 * share + 1 / 3)
            suffix = "" if budget == "steps" else "-labelled"
            regimes: tuple[tuple[str, float, float, Callable[[], dict[str, float]]], ...] = (
                ("fine-tuning", 1.0, 1.0, run.fine_tuned),
                ("BlitzNet", more, share, partial(run.mixed, f"blitznet{suffix}", more)),
                ("UberNet", more, share, partial(run.mixed, f"ubernet{suffix}", more, 10, 30)),
                (
                    "teacher's labels, then fine-tuning",
                    whole,
                    2 / 3 * share + 1 / 3,
                    partial(run.taught, suffix, whole),
                ),
            )
            for regime, steps, true, trained in regimes:
                done = steps * base.loop.steps
                yield Result(regime, seed, trained(), budget, round(done), round(true * done * base.batch))


class _Regimes:
    """The trainings of one seed; `share` is of the steps of fine-tuning."""

    def __init__(
        self, base: JointTraining, labelled: Source, unlabelled: Source, seed: int, report: Report | None
    ) -> None:
        self.base = replace(base, loop=replace(base.loop, seed=seed))
        self.labelled, self.unlabelled, self.seed, self.report = labelled, unlabelled, seed, report
        self.out = Path(base.out)

    def fine_tuned(self) -> dict[str, float]:
        """From the labelled images alone."""
        return self._trained("fine-tuning", replace(self.base, sources=(self.labelled,)))

    def mixed(self, name: str, share: float, task_examples: int = 1, shared_examples: int = 1) -> dict[str, float]:
        """From all images at once, each task from those that have its labels."""
        tasks = tuple(task for task in self.base.tasks if task != "segmentation")
        config = replace(
            self.base,
            sources=(self.labelled, replace(self.unlabelled, tasks=tasks)),
            task_examples=task_examples,
            shared_examples=shared_examples,
            loop=_share(self.base.loop, share),
        )
        return self._trained(name, config)

    def taught(self, suffix: str, share: float) -> dict[str, float]:
        """From all images with a teacher's labels for two thirds of the steps, then from the labelled ones."""
        whole = (self.labelled, replace(self.unlabelled, labels=str(self._teachers_labels())))
        before = f"pre-training{suffix}"
        self._trained(before, replace(self.base, sources=whole, loop=_share(self.base.loop, share * 2 / 3)))
        config = replace(
            self.base,
            sources=(self.labelled,),
            weights=str(self.out / f"{before}-{self.seed}" / "network.safetensors"),
            encoder_rate=self.base.encoder_rate / 10,
            decoder_rate=self.base.decoder_rate / 10,
            loop=_share(self.base.loop, share / 3),
        )
        return self._trained(f"ours{suffix}", config)

    def _teachers_labels(self) -> Path:
        """A folder of labels for the images without; the teacher is what the labelled images alone taught."""
        teacher, _ = checkpoints.load(self.out / f"fine-tuning-{self.seed}" / "network.safetensors")
        folder, source = self.out / f"labels-{self.seed}", self.unlabelled
        writer = Teacher(teacher, label_set(source.classes), source.first_output, resolution=self.base.resolution)
        for _, problem in label_folder(writer, source.path, folder, source.split):
            if problem is not None:
                raise ValueError(problem)
        return folder

    def _trained(self, name: str, config: JointTraining) -> dict[str, float]:
        name = f"{name}-{self.seed}"
        report = self.report
        inform = None if report is None else lambda row: report(name, row)
        return train(replace(config, out=str(self.out / name)), inform)


def _share(loop: Loop, share: float) -> Loop:
    """A part of a training's length, by whatever it is limited."""
    hours, cpu = (None if h is None else h * share for h in (loop.hours, loop.cpu_hours))
    return replace(loop, steps=max(1, round(loop.steps * share)), hours=hours, cpu_hours=cpu)
