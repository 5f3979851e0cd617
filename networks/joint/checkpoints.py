"""Weights in files: ours are safetensors with their description in the header; the authors' are old pickles.

Nothing in a file is ever executed; see `pickled`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from networks.joint import pickled
from networks.joint.encoders import ENCODERS, LAYERS, MEAN, STD
from networks.joint.network import TASKS, ZERO_AT_FIRST, JointNetwork
from semslam.files.writing import replacing

# The label sets of the paper's networks and their outputs, by the number of all: for files without a description.
_OUTPUTS: dict[int, dict[str, tuple[int, int]]] = {
    40: {"nyu40": (0, 40)},
    6: {"kitti6": (0, 6)},
    13: {"nyu13": (0, 13)},
    46: {"nyu40": (0, 40), "kitti6": (40, 46)},
}
# Where trainers keep the tensors of the network, in the order in which they are looked for.
ENTRIES = ("state_dict", "model_state_dict", "model", "segmenter", "network", "net", "weights")
# What our files say of a network, as JSON; others' have names and texts of their own beside the tensors.
_DESCRIBED = frozenset(
    {"num_classes", "tasks", "mean", "std", "class_set", "label_sets", "input_size", "focal", "temperature", "recipe"}
    | {"figures", "network", "encoder", "feature", "dropout"}
)
_PARTS = frozenset({"encoder", "decoder", "backbone", "heads", "0", "1"})  # names of parts that are kept apart
BUNDLED = Path(__file__).parents[1] / "weights" / "joint_nyud40.safetensors"


def bundled() -> Path:
    """The weights that come with the package: 40 NYUv2 classes and depth."""
    if not BUNDLED.is_file():
        raise FileNotFoundError(f"{BUNDLED}: the bundled weights are missing; reinstall the package or pass --weights")
    return BUNDLED


@dataclass(frozen=True)
class Weights:
    """What a weights file holds."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]  # empty of files that are not ours
    wrapped: bool = False  # a PyTorch file whose tensors lie in an entry of a dict, as trainers write them


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a PyTorch file: a state dict, or a trainer's dict that holds one."""
    return read(path).tensors


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The description in the header of a .safetensors file of ours; empty for any other weights."""
    path = _existing(path)
    if path.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a whole .safetensors file ({_first_line(error)}); copy it again") from error
    return _metadata(header, path)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file")
    return path


def _metadata(header: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What a header says by our names, checked."""
    try:
        return _checked({key: json.loads(value) for key, value in header.items() if key in _DESCRIBED}, path)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: its metadata is not JSON ({error})") from error


def read(path: str | Path) -> Weights:
    """The content of a weights file; ValueError, one line, where it is damaged or holds no tensors.

    Of a trainer's dict the first entry of `ENTRIES` counts that holds tensors, or else the only entry that does; what
    lies beside tensors is left out, and so is the `module.` that training in parallel puts before each name.
    """
    path = _existing(path)
    pickled.check_binary(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                header = file.metadata() or {}
        except (SafetensorError, OSError, AttributeError, RuntimeError, ValueError) as error:
            raise ValueError(f"{path}: not a whole .safetensors file ({_first_line(error)}); copy it again") from error
        return Weights(_finite(tensors, path), _metadata(header, path))
    if path.suffix == ".npz":
        raise ValueError(
            f"{path}: holds NumPy arrays, expected the weights of a network as .safetensors or as a PyTorch checkpoint "
            f"(an encoder to start a training from is named in its YAML)"
        )
    content = pickled.load(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a state dict of tensors, found {type(content).__name__}")
    entry = next((content[name] for name in ENTRIES if _holds_tensors(content.get(name))), None)
    others = [value for value in content.values() if _holds_tensors(value)]
    if entry is None and len(others) == 1 and not _holds_tensors(content):  # by a name of its own, such as "generator"
        entry = others[0]
    state = content if entry is None else entry
    tensors = {str(key): _as_tensor(value) for key, value in state.items() if _is_tensor(value)}
    if not tensors:
        found = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise ValueError(f"{path}: expected a state dict of tensors; in the file are {found}")
    return Weights(_finite(without_prefix(tensors, "module."), path), {}, entry is not None)


def _holds_tensors(content: object) -> bool:
    return isinstance(content, dict) and any(_is_tensor(value) for value in content.values())


def _is_tensor(value: object) -> bool:
    """Whether a value is a tensor, or an array that some trainers keep in its place."""
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiub")


def _as_tensor(value: Tensor | np.ndarray) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))


def _finite(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors; ValueError where one holds NaN or infinity, which would spread through every prediction."""
    for key, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{path}: {key} holds NaN or infinity; the training failed, or the file is damaged")
    return tensors


def without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items()}


def named_from(tensors: dict[str, Tensor], known: str) -> dict[str, Tensor]:
    """The tensors of one network in a larger one, by its own names: those that begin as `known` does where it is found.

    `model.layer1.0.weight` beside `criterion.weight`, for `layer1.0.weight`, gives `layer1.0.weight`. Where encoder
    and decoder are numbered or named apart, all that stand beside each other lose their first name.
    """
    if known in tensors:
        return tensors
    ends = [key for key in tensors if key.endswith(f".{known}")]
    if len(ends) != 1:
        return tensors
    prefix = ends[0][: -len(known)]
    parent = prefix[: prefix[:-1].rfind(".") + 1]  # of the part, in `model.encoder.`
    part = prefix[len(parent) : -1]
    if part in _PARTS:
        inside = {key[len(parent) :] for key in tensors if key.startswith(parent)}
        if any(key.split(".")[0] in _PARTS - {part} for key in inside):
            return {
                key[len(parent) :].split(".", 1)[1]: value
                for key, value in tensors.items()
                if key.startswith(parent) and key[len(parent) :].split(".")[0] in _PARTS
            }
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def load(path: str | Path | None = None, num_classes: int | None = None) -> tuple[JointNetwork, dict[str, Any]]:
    """The joint network of a weights file (default: the bundled one), in eval mode and float32, and its metadata.

    The number of classes, the tasks and the encoder are read off the tensors. Metadata has at least `num_classes`,
    `tasks`, `mean`, `std`; ours also `class_set`, `input_size` (height, width of the images that it was trained on),
    `focal` (pixels, at that size), `recipe`, `figures`.

    Args:
        path: a .safetensors file of ours or one of the authors' .ckpt files.
        num_classes: refuse a file with another number of classes.

    ValueError, one line, also where a layer's weights are all one number.
    """
    path = bundled() if path is None else Path(path)
    weights = read(path)
    tensors = named_from(weights.tensors, "layer1.0.weight")
    if lacking := [key for key in ("layer1.0.weight", "segm.weight", "depth.weight") if key not in tensors]:
        raise ValueError(
            f"{path}: not a joint network: no tensor {lacking[0]} among its {len(tensors)}, the first of which is "
            f"{next(iter(tensors))}"
        )
    found = tensors["segm.weight"].shape[0]
    if num_classes is not None and found != num_classes:
        raise ValueError(f"{path}: weights are for {found} classes, expected {num_classes}; choose other weights")
    deepest = tensors["conv8.weight"].shape[1] if "conv8.weight" in tensors else None
    layers = next((layers for layers in ENCODERS.values() if layers[-1].channels == deepest), LAYERS)
    module = JointNetwork(found, TASKS if "normal.weight" in tensors else TASKS[:2], layers)
    if weights.wrapped:  # the authors' files: their normals are (x, z, y)
        heads = {key: value for key, value in tensors.items() if key.startswith("normal.") and len(value) == 3}
        tensors = tensors | {key: value[[0, 2, 1]] for key, value in heads.items()}
    fill(module, tensors, path)
    _check_trained(module, path)
    metadata = {"num_classes": found, "tasks": list(module.tasks), "mean": list(MEAN), "std": list(STD)}
    return module.eval(), metadata | weights.metadata


def _check_trained(module: nn.Module, path: Path) -> None:
    """ValueError where the weights of a layer, of several inputs each, are all one number: it mixes nothing.

    Those that a training begins with at zero may have stayed there: one at stride 8 leaves out the finest level.
    """
    for key, value in module.named_buffers():
        if key.endswith("running_var") and bool((value < 0).any()):
            raise ValueError(
                f"{path}: {key} is {float(value.min()):g}, but a variance is never below 0; the file is damaged: "
                f"choose other weights"
            )
    for key, value in module.named_parameters():
        first = value.detach().flatten()[0]
        if key in ZERO_AT_FIRST and first == 0:
            continue
        if value.ndim >= 2 and value[0].numel() > 1 and bool((value == first).all()):
            raise ValueError(
                f"{path}: {key} is {float(first):g} throughout, which tells nothing of an image; the training failed "
                f"or the file is damaged: choose other weights"
            )


def _checked(metadata: dict[str, Any], path: Path) -> dict[str, Any]:
    """The metadata; ValueError where a value that running a network depends on cannot be one."""
    size, sets = metadata.get("input_size"), metadata.get("label_sets") or {}
    numbers = {"focal": metadata.get("focal"), "temperature": metadata.get("temperature")}
    if size is not None and not (
        isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and 8 <= n <= 8192 for n in size)
    ):
        raise ValueError(f"{path}: its input_size is {size}; expected [height, width] in pixels")
    for name, value in numbers.items():
        if value is not None and not (isinstance(value, int | float) and 0 < value < math.inf):
            raise ValueError(f"{path}: its {name} is {value}; expected a number above 0")
    for name, least in (("mean", -math.inf), ("std", 0)):
        value = metadata.get(name)
        if value is not None and not (
            isinstance(value, list)
            and len(value) == 3
            and all(isinstance(n, int | float) and least < n < math.inf for n in value)
        ):
            raise ValueError(f"{path}: its {name} is {value}; expected three numbers{' above 0' if least == 0 else ''}")
    if not isinstance(sets, dict) or not all(
        isinstance(span, list) and len(span) == 2 and all(isinstance(n, int) and n >= 0 for n in span)
        for span in sets.values()
    ):
        raise ValueError(f"{path}: its label_sets are {sets}; expected names with the first and last + 1 output")
    return metadata


def label_sets(count: int, metadata: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """The label sets of a network of `count` class outputs, and the first and last + 1 output of each."""
    if metadata.get("label_sets"):
        return {name: (int(first), int(last)) for name, (first, last) in metadata["label_sets"].items()}
    if metadata.get("class_set"):
        return {str(metadata["class_set"]): (0, count)}
    return dict(_OUTPUTS.get(count, {}))


def label_outputs(
    count: int, metadata: Mapping[str, Any], wanted: str | None = None, path: str | Path = "the weights"
) -> tuple[str, tuple[int, int]]:
    """The name of a label set, and the range (first, last + 1) of a network's `count` class outputs that is its own.

    Args:
        metadata: of the weights; those without a description are told by their number of outputs.
        wanted: which of the sets; the first by default.
        path: of the weights, for messages.
    """
    known = label_sets(count, metadata) or {wanted or f"{count} classes": (0, count)}
    name = wanted or next(iter(known))
    if name not in known:
        raise ValueError(f"{path}: these weights tell apart {' and '.join(known)} ({count} classes), not {name}")
    if known[name][1] > count:
        raise ValueError(f"{path}: these weights say that they are for {name} but have {count} classes")
    return name, known[name]


def fill(module: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Load `tensors` into `module` strictly; the error names the first tensor that does not fit.

    A joint network of two tasks takes those of one of three, whose normals it leaves out.
    """
    wanted = module.state_dict()
    tensors = dict(tensors)
    if isinstance(module, JointNetwork) and "normals" not in module.tasks:
        tensors = {key: value for key, value in tensors.items() if key.split(".")[0] not in ("pre_normal", "normal")}
    for key, value in wanted.items():
        if key.endswith("num_batches_tracked"):  # PyTorch before 0.4.1 did not store it
            tensors.setdefault(key, value)
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or unknown:
        example = f"lacks {missing[0]}" if missing else f"has {unknown[0]}"
        raise ValueError(
            f"{path}: not the weights of this {type(module).__name__}: {len(missing)} tensors are missing and "
            f"{len(unknown)} unknown (it {example})"
        )
    for key, value in wanted.items():
        if tensors[key].shape != value.shape:
            raise ValueError(f"{path}: {key} is {tuple(tensors[key].shape)}, expected {tuple(value.shape)}")
    module.load_state_dict(tensors)


def save(path: str | Path, module: nn.Module, metadata: dict[str, Any] | None = None, half: bool = True) -> None:
    """Write a module's tensors as .safetensors, float16 if `half`, with `metadata` (anything JSON) in the header.

    The file appears whole or not at all, with the same bytes whenever the same is written.
    """
    from safetensors.torch import save_file

    tensors = {
        key: (value.half() if half and value.is_floating_point() else value).contiguous()
        for key, value in module.state_dict().items()
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {key: json.dumps(value) for key, value in (metadata or {}).items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, header | {"format": "pt"})
        _sort_metadata(temporary)
        temporary.chmod(0o644)  # the library writes files that only their owner reads


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a .safetensors file in the order of their names: the library's is random in each process."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size, "as compact as the library writes it"
        file.seek(8)
        file.write(text.ljust(size))
