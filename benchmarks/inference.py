"""How fast the joint network runs here: every engine against the plain PyTorch module, in one process.

    python benchmarks/inference.py [--size 640x480] [--rounds 15] [--threads 2] [--weights FILE] [--calibrate FOLDER]

Engines take turns, so that a busy moment hits all of them; medians. "x eager" is against the module as it is (NCHW),
"x channels_last" against the module in channels_last order, which is one line of work. Then the post-processing.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from networks.inference.engines import available_engines, cpu_instructions, open_engine
from networks.inference.export import FromImage
from networks.inference.predictor import Predictor
from networks.joint import checkpoints
from semslam.single_image.predict import images_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="640x480", help="of the image, WIDTHxHEIGHT")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", default=None, help="default: the bundled ones")
    parser.add_argument("--engines", nargs="*", default=None, help="default: every one that is here")
    parser.add_argument("--calibrate", default=None, help="folder of images for the int8 engines; without it none run")
    arguments = parser.parse_args()
    width, height = (int(n) for n in arguments.size.split("x"))
    torch.set_num_threads(arguments.threads)
    network, metadata = checkpoints.load(arguments.weights)
    image = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    image = np.repeat(np.repeat(image, 16, 0), 16, 1)[:height, :width].copy()  # as smooth as pictures are

    runs: dict[str, Callable[[], object]] = {
        "eager": eager(network, image, torch.contiguous_format),
        "eager, channels_last": eager(network, image, torch.channels_last),
    }
    images = [] if arguments.calibrate is None else calibration(Path(arguments.calibrate), metadata.get("input_size"))
    for name in arguments.engines or available_engines():
        if name.endswith("-int8") and not images:
            continue
        engine = open_engine(network, name, arguments.threads, images)
        runs[name] = lambda engine=engine: engine(image)
    times = interleaved(runs, arguments.rounds)

    print(f"CPU: {' '.join(cpu_instructions())}; {arguments.threads} threads; {width}x{height}; median of "
          f"{arguments.rounds}")  # fmt: skip
    print(f"{'':24}{'ms':>9}{'x eager':>9}{'x channels_last':>17}")
    for name, milliseconds in times.items():
        ratios = times["eager"] / milliseconds, times["eager, channels_last"] / milliseconds
        print(f"{name:24}{milliseconds:9.1f}{ratios[0]:9.1f}{ratios[1]:17.1f}")

    full_size = {**metadata, "input_size": None}
    plain = Predictor(network, full_size, engine=list(runs)[2], threads=arguments.threads)
    table = np.arange(plain.num_classes) % 13
    predictor = plain.merged(table, "13 classes")
    outputs = tuple(output.copy() for output in predictor.outputs(image))
    post = interleaved(
        {
            "13 classes and depth": lambda: predictor.interpreted(outputs, (width, height)).class_probabilities,
            f"{plain.num_classes} classes and depth": lambda: (
                plain.interpreted(outputs, (width, height)).class_probabilities
            ),
        },
        arguments.rounds,
    )
    print(f"\npost-processing to {width}x{height}, beside the network's pass in {plain.engine}")
    for name, milliseconds in post.items():
        print(f"{name:24}{milliseconds:9.1f} ms = {milliseconds / times[plain.engine]:.2f} of it")


def calibration(folder: Path, input_size: list[int] | None) -> list[np.ndarray]:
    """Twenty images of a folder, at the size that the network was trained for."""
    images = images_of(folder, 20)
    if input_size is None:
        return images
    return [cv2.resize(i, (input_size[1], input_size[0]), interpolation=cv2.INTER_AREA) for i in images]


def eager(network: torch.nn.Module, image: np.ndarray, order: torch.memory_format) -> Callable[[], object]:
    """The module as trained, in eval mode, weights and activations in the given memory order."""
    module = FromImage(copy.deepcopy(network)).eval().to(memory_format=order)  # type: ignore[call-overload]
    tensor = torch.from_numpy(image)[None]
    mean, scale = module.mean, module.scale

    def run() -> object:
        with torch.inference_mode():
            return module.network(((tensor.float() - mean) * scale).permute(0, 3, 1, 2).contiguous(memory_format=order))

    return run


def interleaved(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, after two warm-up rounds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 2):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: float(np.median(values[2:])) for name, values in times.items()}


if __name__ == "__main__":
    main()
