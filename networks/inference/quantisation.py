"""An 8-bit copy of a network for the CPU: ranges of the activations measured on images, weights rounded by channel.

Done by ONNX Runtime's quantiser; ONNX Runtime and OpenVINO both run the result. It pays on CPUs that multiply bytes
(VNNI, AMX) and costs some tenths of a point of mIoU.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import nn

from networks.inference.export import cache_folder, content_hash, onnx_file
from semslam.files.writing import replacing

# Kept in float: the first layers, where rounding costs most (on NYUv2, 3 points of mIoU in place of 0.2, for 5 % of
# the work), and the heads whose values are measured rather than compared.
_KEPT_IN_FLOAT = ("/layer1/", "/layer2/", "/depth/", "/normal/")
_QUANTISED = ("Conv", "Clip", "Add", "MaxPool", "Mul", "Resize")


def int8_file(network: nn.Module, images: Iterable[np.ndarray] | None = None) -> Path:
    """The quantised network as an ONNX file like that of `onnx_file`, in the cache.

    Args:
        images: (H, W, 3) uint8 RGB, some ten or more of the kind that it will see, at the size at which
            it will see them. None takes the file that an earlier call left, and is an error if there is none.
    """
    path = cache_folder() / f"{content_hash(network)}-int8-corrected.onnx"
    if images is None:
        if not path.is_file():
            raise ValueError(
                "this network was not quantised on this computer yet: run `semslam calibrate FOLDER` once, with images "
                "like those that it will see (and the same --weights)"
            )
        return path
    images = list(images)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, replacing(path) as result, _quiet_root_logger():
        _quantise(onnx_file(network), result, images, Path(folder))
        _correct_depth(result, onnx_file(network), images)
    return path


def _quantise(exact: Path, result: Path, images: Iterable[np.ndarray], folder: Path) -> None:
    """Write the quantised copy of an ONNX file; `folder` is for what is needed on the way."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    left = iter(images)

    class Images(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(left, None)
            return None if image is None else {"image": image[None]}

    prepared = folder / "prepared.onnx"
    quant_pre_process(str(exact), str(prepared), skip_symbolic_shape=True)
    nodes = onnx.load(prepared).graph.node
    quantize_static(
        prepared,
        result,
        Images(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[n.name for n in nodes if any(part in n.name for part in _KEPT_IN_FLOAT)],
        op_types_to_quantize=list(_QUANTISED),
    )


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """The quantiser talks to the root logger: let through only errors meanwhile."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _correct_depth(quantised: Path, exact: Path, images: Sequence[np.ndarray]) -> None:
    """Add to the depth head's bias what rounding takes from depth on average, in place.

    The rounding of what the head reads moves all depths one way, which later images share: with the bundled weights
    depth on NYUv2's val.txt came out 3.3 cm too near on average before, and 0.5 cm after.
    """
    import onnx
    import onnxruntime

    depths: list[list[float]] = []  # of both networks, the mean of each image: images may be of different sizes
    for path in (quantised, exact):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        if len(session.get_outputs()) < 2:
            return  # one task: classes
        depths.append([float(session.run(None, {"image": image[None]})[1].mean(dtype=np.float64)) for image in images])
    missing = float(np.mean(np.subtract(depths[1], depths[0])))
    model = onnx.load(quantised)
    heads = [n for n in model.graph.node if n.op_type == "Conv" and "/depth/" in n.name and len(n.input) == 3]
    (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == heads[-1].input[2]]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(missing), bias.name))
    onnx.save(model, quantised)
