"""Weights in files: there and back, the authors' old ones, and files that must be refused."""

from __future__ import annotations

import argparse
import os
import pickletools
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from networks.joint import checkpoints
from networks.joint.network import TASKS, JointNetwork, fit_decoder


@pytest.fixture(scope="module")
def network() -> JointNetwork:
    torch.manual_seed(0)
    return JointNetwork(6).eval()


def test_saved_weights_come_back_with_their_description(tmp_path: Path, network: JointNetwork) -> None:
    file = tmp_path / "weights.safetensors"
    checkpoints.save(file, network, {"class_set": "kitti6", "figures": {"miou": 0.5}}, half=False)
    loaded, metadata = checkpoints.load(file)
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    assert not loaded.training
    assert metadata["class_set"] == "kitti6"
    assert metadata["figures"] == {"miou": 0.5}
    assert (metadata["num_classes"], metadata["tasks"]) == (6, ["segmentation", "depth"])


def test_the_same_weights_are_the_same_bytes(tmp_path: Path, network: JointNetwork) -> None:
    """A training that was killed and resumed is compared with another by its file; 720 orders of six names."""
    names = ("recipe", "figures", "network", "class_set", "tasks", "encoder")
    for number in range(4):
        checkpoints.save(tmp_path / f"{number}.safetensors", network, dict.fromkeys(names, "\u00fc"))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert checkpoints.read_metadata(tmp_path / "0.safetensors")["encoder"] == "\u00fc"


def test_half_precision_halves_the_file_and_keeps_three_digits(tmp_path: Path, network: JointNetwork) -> None:
    file = tmp_path / "half.safetensors"
    checkpoints.save(file, network)
    assert file.stat().st_size < 2.2 * 3_000_000
    loaded, _ = checkpoints.load(file)
    for key, value in network.state_dict().items():
        assert loaded.state_dict()[key].dtype == value.dtype
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("classes", "tasks"), [(40, 2), (46, 2), (40, 3)])
def test_an_old_checkpoint_loads_strictly_and_tells_its_classes_and_tasks(
    tmp_path: Path, classes: int, tasks: int
) -> None:
    """As the authors' files: a legacy pickle, "state_dict" inside, no counts of batches."""
    original = JointNetwork(classes, TASKS[:tasks])
    state = {k: v for k, v in original.state_dict().items() if not k.endswith("num_batches_tracked")}
    file = tmp_path / "ExpNYUD.ckpt"
    torch.save({"state_dict": state, "epoch": 3}, file, _use_new_zipfile_serialization=False)
    loaded, metadata = checkpoints.load(file)
    assert (loaded.num_classes, loaded.tasks) == (classes, TASKS[:tasks])
    assert metadata["num_classes"] == classes
    others = {key: value for key, value in state.items() if not key.startswith("normal.")}  # see the next test
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in others.items())


def test_normals_of_the_authors_files_are_turned_to_our_axes(tmp_path: Path) -> None:
    """Theirs are (x, z, y); a state dict alone, as our trainer writes it, is ours and stays."""
    original = JointNetwork(40, TASKS)
    torch.nn.init.normal_(original.normal.bias)
    torch.save({"state_dict": original.state_dict()}, tmp_path / "theirs.ckpt")
    torch.save(original.state_dict(), tmp_path / "best.pt")
    image = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        expected = original.eval()(image)[2]
        theirs, ours = (checkpoints.load(tmp_path / name)[0](image)[2] for name in ("theirs.ckpt", "best.pt"))
    torch.testing.assert_close(theirs, expected[:, [0, 2, 1]])
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    ("prefix", "entry"),
    [
        ("", "model"),
        ("module.", "segmenter"),
        ("model.", "state_dict"),
        ("module.net.", "model_state_dict"),
        ("model.network.", None),
    ],
)
def test_checkpoints_of_trainers_load_whatever_they_keep_beside_the_tensors(
    tmp_path: Path, network: JointNetwork, prefix: str, entry: str | None
) -> None:
    """NumPy's and Python's numbers, the optimiser's state, a loss with weights of its own."""
    state: dict[str, object] = {f"{prefix}{key}": value for key, value in network.state_dict().items()}
    if prefix not in ("", "module."):
        state["criterion.weight"] = torch.ones(6)
    beside = {"epoch": 3, "best_val": np.float64(0.41), "miou": np.float32(0.3), "args": {"lr": 0.1, "name": "x"}}
    content = state | beside if entry is None else beside | {entry: state, "optimiser": {"step": torch.ones(1)}}
    torch.save(content, tmp_path / "trainer.pth.tar")
    loaded, _ = checkpoints.load(tmp_path / "trainer.pth.tar")
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in network.state_dict().items())


class _Settings(dict):
    """As configurations of other libraries, which are not installed where the weights are read."""


class _Seen:
    """Says when it is made."""

    made = False

    def __init__(self, **settings: object) -> None:
        self.__dict__.update(settings)

    def __setstate__(self, state: dict) -> None:
        type(self).made = True


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("entry", ["model", "generator"])
def test_settings_of_any_class_beside_the_tensors_are_passed_over(
    tmp_path: Path, network: JointNetwork, zipped: bool, entry: str
) -> None:
    """And their classes are not called; an optimiser's schedule and the state of random numbers lie there as well."""
    beside = {
        "args": argparse.Namespace(lr=0.1, out=tmp_path),
        "hyper_parameters": _Settings(rate=0.1, nested=_Settings(name="x")),
        "object": _Seen(a=1),
        "random": np.random.RandomState(0).get_state(),
        "scheduler": torch.optim.lr_scheduler.StepLR(torch.optim.SGD(network.parameters()), 3),
    }
    file = tmp_path / "trainer.pth"
    torch.save(beside | {entry: network.state_dict()}, file, _use_new_zipfile_serialization=zipped)
    loaded, _ = checkpoints.load(file)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in network.state_dict().items())
    assert not _Seen.made


def test_arrays_in_place_of_tensors_load(tmp_path: Path, network: JointNetwork) -> None:
    torch.save({"params": {key: value.numpy() for key, value in network.state_dict().items()}}, tmp_path / "arrays.pth")
    loaded, _ = checkpoints.load(tmp_path / "arrays.pth")
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in network.state_dict().items())


def test_a_whole_network_in_a_file_is_refused(tmp_path: Path, network: JointNetwork) -> None:
    torch.save({"model": network}, tmp_path / "module.pth")
    with pytest.raises(ValueError, match=r"module\.pth: refused.*\(torch\.nn\..*save its state dict alone"):
        checkpoints.load(tmp_path / "module.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<!DOCTYPE html><html><head><title>Sign in</title>", r"is text that begins with '<!DOCTYPE html>"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 6\n", r"is a pointer of Git LFS; fetch"),
    ],
)
def test_text_in_place_of_weights_is_called_so(tmp_path: Path, suffix: str, content: str, said: str) -> None:
    (tmp_path / f"weights{suffix}").write_text(content)
    with pytest.raises(ValueError, match=said):
        checkpoints.read(tmp_path / f"weights{suffix}")


def test_variances_below_zero_are_refused(tmp_path: Path, network: JointNetwork) -> None:
    state = {key: -value if key.endswith("1.running_var") else value for key, value in network.state_dict().items()}
    torch.save(state, tmp_path / "negative.pth")
    with pytest.raises(ValueError, match=r"negative\.pth: layer1\.1\.running_var is -1, but a variance is never"):
        checkpoints.load(tmp_path / "negative.pth")


def test_what_others_say_beside_their_tensors_is_passed_over(tmp_path: Path, network: JointNetwork) -> None:
    path = tmp_path / "theirs.safetensors"
    save_file(dict(network.state_dict()), path, {"framework": "a name, not JSON", "author": "{", "focal": "500"})
    assert checkpoints.read_metadata(path) == {"focal": 500}
    assert "author" not in checkpoints.load(path)[1]


@pytest.mark.parametrize("names", [("0.", "1."), ("module.0.", "module.1."), ("encoder.", "decoder.")])
def test_an_encoder_and_a_decoder_that_were_saved_apart_are_one_network(
    tmp_path: Path, network: JointNetwork, names: tuple[str, str]
) -> None:
    state = {names[not key.startswith("layer")] + key: value for key, value in network.state_dict().items()}
    torch.save(state, tmp_path / "parts.ckpt")
    loaded, _ = checkpoints.load(tmp_path / "parts.ckpt")
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in network.state_dict().items())


def test_weights_with_nan_and_descriptions_that_cannot_be_are_refused(tmp_path: Path, network: JointNetwork) -> None:
    for name, metadata, problem in (
        ("size", {"input_size": 3}, "input_size is 3; expected"),
        ("large", {"input_size": [10**6, 10**6]}, "input_size is"),
        ("focal", {"focal": -1}, "focal is -1; expected a number above 0"),
        ("sets", {"label_sets": ["nyu40"]}, "label_sets are"),
        ("mean", {"mean": 3}, "mean is 3; expected three numbers$"),
        ("std", {"std": [1, 0, 1]}, r"std is \[1, 0, 1\]; expected three numbers above 0"),
    ):
        checkpoints.save(tmp_path / f"{name}.safetensors", network, metadata)
        with pytest.raises(ValueError, match=rf"{name}\.safetensors: its {problem}"):
            checkpoints.load(tmp_path / f"{name}.safetensors")
        with pytest.raises(ValueError, match=rf"{name}\.safetensors: its {problem}"):
            checkpoints.read_metadata(tmp_path / f"{name}.safetensors")
    broken = JointNetwork(6)
    with torch.no_grad():
        broken.conv5.weight[3, 4] = float("nan")
    checkpoints.save(tmp_path / "nan.safetensors", broken)
    with pytest.raises(ValueError, match=r"nan\.safetensors: conv5\.weight holds NaN"):
        checkpoints.load(tmp_path / "nan.safetensors")


@pytest.mark.parametrize("number", [0.0, 0.5])
def test_a_layer_that_is_one_number_throughout_is_refused(tmp_path: Path, number: float) -> None:
    """It would give the same depth and class for every pixel, in silence."""
    constant = JointNetwork(6)
    torch.nn.init.constant_(constant.depth.weight, number)
    checkpoints.save(tmp_path / "constant.safetensors", constant)
    with pytest.raises(ValueError, match=rf"constant\.safetensors: depth\.weight is {number:g} throughout"):
        checkpoints.load(tmp_path / "constant.safetensors")


def test_a_network_that_was_trained_without_its_finest_level_loads(tmp_path: Path) -> None:
    """Whose weights are zero at first, and stay so at stride 8."""
    trained = JointNetwork(6)
    fit_decoder(trained.eval(), torch.rand(1, 3, 64, 64))
    assert not trained.conv3.weight.any()
    checkpoints.save(tmp_path / "coarse.safetensors", trained)
    checkpoints.load(tmp_path / "coarse.safetensors")
    torch.nn.init.constant_(trained.conv3.weight, 0.5)
    checkpoints.save(tmp_path / "coarse.safetensors", trained)
    with pytest.raises(ValueError, match=r"conv3\.weight is 0\.5 throughout"):
        checkpoints.load(tmp_path / "coarse.safetensors")


def test_no_damage_to_a_weights_file_ends_in_anything_but_one_line(tmp_path: Path, network: JointNetwork) -> None:
    """Bits of the header and of the numbers, spliced and blown-up lengths."""
    rng = np.random.default_rng(0)
    checkpoints.save(tmp_path / "whole.safetensors", network, {"class_set": "kitti6", "input_size": [24, 32]})
    torch.save(network.state_dict(), tmp_path / "whole.pth")
    for suffix in ("safetensors", "pth"):
        whole = (tmp_path / f"whole.{suffix}").read_bytes()
        for trial in range(16):
            data = bytearray(whole)
            for place in rng.integers(0, 20000 if trial % 2 else len(whole), 1 + trial % 5):
                data[place] ^= 1 << int(rng.integers(8))
            if trial % 8 == 7:
                data[: trial % 9 + 1] = rng.bytes(trial % 9 + 1)
            (tmp_path / f"damaged.{suffix}").write_bytes(bytes(data))
            try:
                checkpoints.load(tmp_path / f"damaged.{suffix}")
            except ValueError as problem:
                assert "\n" not in str(problem) and "damaged" in str(problem)


def _as_python_2_wrote_it(file: Path) -> None:
    """Turn the text in a legacy checkpoint, five pickles and then the numbers, into Python 2's byte strings."""
    data, written, start = file.read_bytes(), b"", 0
    for _ in range(5):
        operations = list(pickletools.genops(data[start:]))
        ends = [place for _, _, place in operations[1:]] + [operations[-1][2] + 1]
        for (operation, text, place), end in zip(operations, ends, strict=True):
            if operation.name == "BINUNICODE":
                raw = str(text).encode()
                written += b"T" + struct.pack("<i", len(raw)) + raw if len(raw) > 255 else bytes([85, len(raw)]) + raw
            else:
                written += data[start + place : start + end]
        start += ends[-1]
    file.write_bytes(written + data[start:])


def test_a_checkpoint_of_python_2_loads(tmp_path: Path) -> None:
    original = JointNetwork(6)
    file = tmp_path / "ExpKITTI_joint.ckpt"
    torch.save({"state_dict": dict(original.state_dict())}, file, _use_new_zipfile_serialization=False)
    _as_python_2_wrote_it(file)
    assert b"U\x0cconv8.weight" in file.read_bytes()  # a byte string
    loaded, _ = checkpoints.load(file)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in original.state_dict().items())


def test_weights_of_another_class_count_are_refused(tmp_path: Path, network: JointNetwork) -> None:
    file = tmp_path / "kitti.safetensors"
    checkpoints.save(file, network)
    with pytest.raises(ValueError, match=r"kitti\.safetensors: weights are for 6 classes, expected 40"):
        checkpoints.load(file, num_classes=40)


def test_weights_of_another_architecture_are_refused(tmp_path: Path, network: JointNetwork) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"resnet\.pth: not a joint network"):
        checkpoints.load(tmp_path / "resnet.pth")
    state = network.state_dict()
    del state["crp3.0.2_outvar_dimred.weight"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(ValueError, match=r"1 tensors are missing.*crp3\.0\.2"):
        checkpoints.load(tmp_path / "less.pth")
    state["crp3.0.2_outvar_dimred.weight"] = torch.zeros(256, 1, 1, 1)
    torch.save(state, tmp_path / "shape.pth")
    with pytest.raises(ValueError, match=r"crp3\.0\.2_outvar_dimred\.weight is \(256, 1, 1, 1\), expected"):
        checkpoints.load(tmp_path / "shape.pth")


class _Malicious:
    def __reduce__(self) -> tuple:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "evil.ckpt"
    torch.save({"state_dict": _Malicious()}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"evil\.ckpt: refused.*could run code") as caught:
        checkpoints.load(file)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".ckpt"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused_in_one_line(
    tmp_path: Path, network: JointNetwork, suffix: str, kept: float
) -> None:
    file = tmp_path / f"half{suffix}"
    if suffix == ".safetensors":
        checkpoints.save(file, network)
    else:
        torch.save(network.state_dict(), file, _use_new_zipfile_serialization=suffix == ".pth")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"half\..*not a whole.*copy it again") as caught:
        checkpoints.load(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_no_state_dict_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no such weights file"):
        checkpoints.load(tmp_path / "none.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="expected a state dict of tensors, found list"):
        checkpoints.load(tmp_path / "list.pth")


def test_arrays_of_numpy_are_no_weights_of_a_network(tmp_path: Path) -> None:
    np.savez(tmp_path / "encoder.npz", weight=np.zeros(3))
    with pytest.raises(ValueError, match=r"encoder\.npz: holds NumPy arrays, expected the weights .* \.safetensors"):
        checkpoints.load(tmp_path / "encoder.npz")


def test_the_bundled_weights_load_and_say_what_they_are() -> None:
    network, metadata = checkpoints.load()
    assert (network.num_classes, network.tasks) == (40, TASKS)
    assert metadata["class_set"] == "nyu40"
    assert metadata["input_size"] == [336, 448]
    assert checkpoints.bundled().stat().st_size < 7e6
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())


def test_a_network_of_two_tasks_takes_the_weights_of_three(tmp_path: Path) -> None:
    three, two = JointNetwork(6, TASKS), JointNetwork(6)
    checkpoints.save(tmp_path / "three.safetensors", three, half=False)
    checkpoints.fill(two, checkpoints.read_tensors(tmp_path / "three.safetensors"), "three")
    assert all(torch.equal(value, three.state_dict()[key]) for key, value in two.state_dict().items())
    with pytest.raises(ValueError, match="lacks normal"):
        checkpoints.fill(three, two.state_dict(), "two")
