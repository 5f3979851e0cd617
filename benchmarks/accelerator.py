"""What an NVIDIA GPU makes of the training and of the network: rates, and whether it computes what the CPU computes.

    python benchmarks/accelerator.py [--only rates|engine] [--data ../shared/data/nyuv2] [--seconds 6]

Rates: images a second of the views alone and of whole steps with views, losses and optimiser, after two steps of
warming up. Engine: the GPU's engine against PyTorch on the CPU on images of the data, and how long a call takes.
Without a GPU it runs on the CPU at the same sizes, a few steps each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from networks.inference.predictor import Predictor
from networks.joint import checkpoints
from networks.joint.encoders import ENCODERS
from networks.joint.network import JointNetwork
from networks.training.data import Samples, Source
from networks.training.joint import JointObjective, JointTraining, Stage
from networks.training.loop import Loop, run

CUDA = torch.cuda.is_available()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("rates", "engine"))
    parser.add_argument("--data", default="../shared/data/nyuv2", help="folder of labelled images")
    parser.add_argument("--split", default="train")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each rate")
    parser.add_argument("--images", type=int, default=96, help="of the data, for the rates")
    arguments = parser.parse_args()
    name = torch.cuda.get_device_name() if CUDA else "CPU"
    print(f"{name}, PyTorch {torch.__version__}", flush=True)
    source = Source(arguments.data, split=arguments.split, tasks=("segmentation", "depth", "normals"))
    samples = Samples(replace(source, in_memory=False), 40, normals=True)
    if arguments.only != "engine":
        rates(source, [samples[i] for i in range(min(arguments.images, len(samples)))], arguments.seconds)
    if arguments.only != "rates":
        engine([samples[i].color for i in range(min(20, len(samples)))])


def rates(source: Source, samples: list, seconds: float) -> None:
    base = JointTraining(
        out="", sources=(source,), validation=source, resolution=0.5, stages=(Stage(crop=(240, 304)),), batch=8,
        color=0.35, frozen_layers=2, class_balance=0.2, label_smoothing=0.05,
    )  # fmt: skip
    large = replace(
        base, resolution=0.7, stages=(Stage(crop=(320, 416)),), batch=32, lovasz=0.5, lovasz_stride=2,
        tasks=("segmentation", "depth", "normals"),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        teacher = f"{folder}/teacher.safetensors"
        checkpoints.save(teacher, JointNetwork(40, layers=ENCODERS["efficientnet_lite2"]))
        kinds = {
            "half resolution, 8 images": base,
            "half resolution, 32 images": replace(base, batch=32),
            "0.7, 3 tasks, Lovasz, 32 images": large,
            "the same with a teacher": replace(large, teachers=(teacher,), distillation=1.0),
            "0.7, EfficientNet-Lite2": replace(large, backbone="efficientnet_lite2"),
        }
        print(f"{'images a second':36}{'views':>9}{'steps':>9}")
        for name, config in kinds.items():
            views, steps = rate(config, samples, seconds, folder)
            print(f"{name:36}{views:9.0f}{steps:9.0f}", flush=True)


def rate(config: JointTraining, samples: list, seconds: float, folder: str) -> tuple[float, float]:
    """Images a second: of views alone, and of whole steps."""
    objective = JointObjective(config, [samples], [])
    objective.validate = lambda network: {"score": 0.0}  # type: ignore[method-assign]
    objective.batch(0, 0.0)
    started, count = time.monotonic(), 0
    while time.monotonic() - started < seconds / 3:
        objective.batch(count + 1, 0.0)
        count += 1
        if CUDA:
            torch.cuda.synchronize()
    views = count * config.batch / (time.monotonic() - started)
    ends: list[float] = []
    warming_up = Loop(steps=2, validate_every=10**6, save_every=10**6, clip=20.0)  # a GPU's algorithms take 40 seconds
    for loop in (warming_up, replace(warming_up, steps=10**6, hours=seconds / 3600)):
        ends.clear()
        with tempfile.TemporaryDirectory(dir=folder) as out:
            run(objective, loop, out, lambda row: ends.append(time.monotonic()))
    return views, (len(ends) - 1) * config.batch / max(ends[-1] - ends[0], 1e-9) if len(ends) > 1 else float("nan")


def engine(images: list[np.ndarray]) -> None:
    predictor = Predictor.load(engine="torch-cuda" if CUDA else "torch")
    on_cpu = Predictor.load(engine="torch")
    equal, apart = [], []
    for image in images:
        ours, theirs = predictor(image), on_cpu(image)
        equal.append((ours.class_probabilities.argmax(-1) == theirs.class_probabilities.argmax(-1)).mean())
        apart.append(np.abs(ours.depth - theirs.depth).max())
    print(f"{predictor.engine} against torch on the CPU: {100 * np.mean(equal):.2f} % of the labels equal, depth at "
          f"most {1000 * np.max(apart):.1f} mm apart")  # fmt: skip
    merged = predictor.merged(np.arange(40) % 13, "thirteen")
    height, width = images[0].shape[:2]
    print(f"a call, {width}x{height}: 40 classes {median(lambda: predictor(images[0])):.1f} ms, 13 classes "
          f"{median(lambda: merged(images[0])):.1f} ms, the network alone "
          f"{median(lambda: predictor.outputs(images[0])):.1f} ms")  # fmt: skip


def median(call: Callable[[], object], rounds: int = 30) -> float:
    """Milliseconds."""
    times = []
    for _ in range(rounds if CUDA else 5):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))


if __name__ == "__main__":
    main()
