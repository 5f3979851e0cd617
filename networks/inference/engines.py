"""What runs a trained network: PyTorch, ONNX Runtime or OpenVINO, all with the same inputs and outputs.

An engine maps an image to the network's outputs: uint8 RGB (H, W, 3) to one float32 array (h, w, C) each, valid until
the next call. benchmarks/inference.py measures them, benchmarks/accelerator.py the one for an NVIDIA GPU.
"""

from __future__ import annotations

import logging
import os
import platform
import subprocess
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from networks.inference.export import FromImage, onnx_file
from networks.inference.folding import folded
from networks.inference.quantisation import int8_file

logger = logging.getLogger(__name__)

_SIZES_KEPT = 4  # image sizes for which a compiled network is kept


class Engine(Protocol):
    """Something that runs one network."""

    name: str

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, ...]: ...


class TorchEngine:
    """PyTorch on the CPU, with batch norms folded, channels_last order and a pool of our own."""

    def __init__(self, network: nn.Module, name: str = "torch", bfloat16: bool = False) -> None:
        self.name = name
        self._bfloat16 = bfloat16
        self._network = FromImage(folded(network)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            outputs = self._network(_tensor(image))
        return tuple(output[0].float().numpy() for output in outputs)


def _tensor(image: np.ndarray) -> torch.Tensor:
    """(1, H, W, 3), without copying unless the image is read-only, which PyTorch warns of."""
    return torch.from_numpy(image if image.flags.writeable else image.copy())[None]


class CudaEngine:
    """PyTorch on the first NVIDIA GPU, float32, whose convolutions multiply as TF32 where PyTorch lets them."""

    def __init__(self, network: nn.Module) -> None:
        if not torch.cuda.is_available():
            raise ValueError("CUDA was asked for, but PyTorch finds no NVIDIA GPU here; choose another engine")
        self.name = "torch-cuda"
        self._network = FromImage(network).eval().to("cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(output.cpu().numpy() for output in self.tensors(image))

    def tensors(self, image: np.ndarray) -> tuple[torch.Tensor, ...]:
        """The outputs (h, w, C) where they were computed, for `device_postprocessing`."""
        with torch.inference_mode():
            return tuple(output[0] for output in self._network(_tensor(image).to("cuda")))


class _BySize:
    """An engine whose compiled network holds for one image size; the last few sizes are kept."""

    def __init__(self, name: str, model: Path) -> None:
        self.name = name
        self._model = model
        self._runs: dict[tuple[int, int], Callable[[np.ndarray], tuple[np.ndarray, ...]]] = {}

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        height, width = image.shape[:2]
        run = self._runs.pop((height, width), None) or self._compile(height, width)
        self._runs[height, width] = run  # the most recent one last
        while len(self._runs) > _SIZES_KEPT:
            del self._runs[next(iter(self._runs))]
        return run(image)

    def _compile(self, height: int, width: int) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
        raise NotImplementedError


class OnnxRuntimeEngine(_BySize):
    """ONNX Runtime on the CPU."""

    def __init__(self, model: Path, name: str = "onnxruntime", threads: int | None = None) -> None:
        super().__init__(name, model)
        self._threads = threads or cpu_count()

    def _compile(self, height: int, width: int) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3  # errors
        options.add_free_dimension_override_by_name("height", height)
        options.add_free_dimension_override_by_name("width", width)
        session = onnxruntime.InferenceSession(str(self._model), options, providers=["CPUExecutionProvider"])
        return lambda image: tuple(output[0] for output in session.run(None, {"image": image[None]}))


class OpenVinoEngine(_BySize):
    """OpenVINO on the CPU, at the precision that is asked for: left alone it would choose bf16 where the CPU has it."""

    def __init__(self, model: Path, name: str = "openvino", threads: int | None = None, precision: str = "f32") -> None:
        super().__init__(name, model)
        self._threads = threads or cpu_count()
        self._precision = precision

    def _compile(self, height: int, width: int) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
        import openvino

        core = openvino.Core()
        model = core.read_model(self._model)
        model.reshape([1, height, width, 3])
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self._precision,
            "INFERENCE_NUM_THREADS": self._threads,
        }
        request = core.compile_model(model, "CPU", settings).create_infer_request()

        def run(image: np.ndarray) -> tuple[np.ndarray, ...]:
            results = request.infer([image[None]], share_inputs=True, share_outputs=True)
            return tuple(results[i][0] for i in range(len(results)))

        return run


def cpu_count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_instructions() -> tuple[str, ...]:
    """Those of this CPU's instruction sets that decide how fast a network runs, by Linux's names."""
    wanted: tuple[str, ...] = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    wanted += ("asimd", "i8mm", "bf16")  # ARM
    try:
        if platform.system() == "Darwin":
            text = subprocess.run(["sysctl", "-a"], capture_output=True, text=True, timeout=5, check=False).stdout
            text = text.lower()
        else:
            text = Path("/proc/cpuinfo").read_text()
    except (OSError, subprocess.SubprocessError):
        return ()
    words = set(text.replace(":", " ").split())
    return tuple(name for name in wanted if name in words)


def _has(*modules: str) -> bool:
    return all(find_spec(module) is not None for module in modules)


def _bf16(*instructions: str) -> bool:
    return not set(instructions).isdisjoint(cpu_instructions())


# bf16 is worth its rounding only where the CPU multiplies in it: OpenVINO takes 0.45 of the time with AVX512-BF16
# (Zen 4), for 0.04 points of mIoU and 1 mm of depth RMSE on NYUv2; PyTorch gains nothing there. AMX was not tried.
AVAILABLE: dict[str, Callable[[], bool]] = {
    "torch-cuda": torch.cuda.is_available,
    "openvino-bf16": lambda: _has("onnx", "openvino") and _bf16("amx_bf16", "avx512_bf16"),
    "openvino": lambda: _has("onnx", "openvino"),
    "onnxruntime": lambda: _has("onnx", "onnxruntime"),
    "torch": lambda: True,
    "torch-bf16": lambda: _bf16("amx_bf16"),
    "openvino-int8": lambda: _has("onnx", "onnxruntime", "openvino"),
    "onnxruntime-int8": lambda: _has("onnx", "onnxruntime"),
}
BEST_FIRST = ("torch-cuda", "openvino-bf16", "openvino", "onnxruntime", "torch")  # int8 only on request
_EXTRA = "install it: pip install onnx onnxruntime openvino"
_REMEDY = {
    "torch-cuda": "PyTorch finds no NVIDIA GPU here",
    "openvino-bf16": "this needs OpenVINO and a CPU with bf16 (AMX or AVX512-BF16)",
    "openvino": _EXTRA,
    "onnxruntime": _EXTRA,
    "torch-bf16": "this CPU has no AMX bf16",
    "openvino-int8": _EXTRA,
    "onnxruntime-int8": _EXTRA,
}


def _open(name: str, network: nn.Module, threads: int | None, calibration: Iterable[np.ndarray] | None) -> Engine:
    if name == "torch-cuda":
        return CudaEngine(network)
    if name.startswith("torch"):
        return TorchEngine(network, name, bfloat16=name.endswith("-bf16"))
    model = int8_file(network, calibration) if name.endswith("-int8") else onnx_file(network)
    if name.startswith("onnxruntime"):
        return OnnxRuntimeEngine(model, name, threads)
    return OpenVinoEngine(model, name, threads, "bf16" if name.endswith("-bf16") else "f32")


def available_engines() -> list[str]:
    """The engines that this machine has."""
    return [name for name, present in AVAILABLE.items() if present()]


def open_engine(
    network: nn.Module,
    name: str | None = None,
    threads: int | None = None,
    calibration: Iterable[np.ndarray] | None = None,
) -> Engine:
    """An engine running `network`.

    Args:
        name: one of `available_engines()`; by default the first of `BEST_FIRST` that is here and takes the network.
        threads: for ONNX Runtime and OpenVINO (default: all cores); PyTorch has one setting for the whole process.
        calibration: for the int8 engines, see `quantisation.int8_file`.
    """
    if name is not None:
        if name not in AVAILABLE:
            raise ValueError(f"there is no engine {name!r}; there are {', '.join(AVAILABLE)}")
        if not AVAILABLE[name]():
            found = ", ".join(available_engines())
            raise ValueError(f"engine {name!r} was asked for and is not here: {_REMEDY[name]}; here are {found}")
        return _open(name, network, threads, calibration)
    for candidate in BEST_FIRST:
        if not AVAILABLE[candidate]():
            continue
        try:
            return _open(candidate, network, threads, None)
        except Exception as error:  # whatever a broken installation raises, there is a next engine
            logger.warning("engine %s does not work here (%s); trying the next", candidate, str(error).split("\n")[0])
    raise AssertionError("the torch engine is always there")
