"""Labels that teachers give, hard and soft, and trainings that learn from them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_trainings import batch_of, groups_moved, tiny_training, write_images
from torch import Tensor, nn

from networks import losses
from networks.augmentation import Augmentation, augmented
from networks.inference.labelling import (
    Teacher,
    check_teachers,
    label_folder,
    label_image,
    load_teacher,
    soft_label_folder,
    soft_labels,
)
from networks.joint import checkpoints
from networks.joint.encoders import ENCODERS
from networks.joint.network import JointNetwork
from networks.joint.refinenet import MobileRefineNet, ResNetRefineNet
from networks.training.data import Samples, Source
from networks.training.joint import JointLearner, JointObjective, JointTraining, Stage, train
from networks.training.loop import Loop
from networks.training.validation import scored
from semslam.images import read_color
from semslam.images.labels import read_labels
from semslam.labels import label_set

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


def test_soft_labels_that_are_none_are_named(folder: Path, tmp_path: Path) -> None:
    source = Source(str(folder), "both", soft_labels=str(tmp_path))
    for name in ("000", "001"):
        np.save(tmp_path / f"{name}.npy", np.full((6, 8, 40), 6, np.uint8))
    assert Samples(source, 40)[0].soft_labels.shape == (6, 8, 40)
    np.save(tmp_path / "001.npy", np.ones((6, 8, 13), np.uint8))
    with pytest.raises(ValueError, match=r"001\.npy: it holds uint8 \(6, 8, 13\); expected uint8"):
        Samples(source, 40)
    for damaged in (b"half", b"", b"PK\x03\x04"):
        (tmp_path / "001.npy").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"001\.npy: not a whole NumPy file"):
            Samples(source, 40)
    (tmp_path / "001.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"001\.npy: missing; `semslam label --soft` writes"):
        Samples(source, 40)


def test_soft_labels_and_their_weight_go_together(folder: Path) -> None:
    plain, taught = Source(str(folder)), Source(str(folder), soft_labels="soft")
    with pytest.raises(ValueError, match="no source has soft_labels"):
        JointTraining("out", (plain,), plain, distillation=0.5)
    with pytest.raises(ValueError, match="distillation above 0, it is 0"):
        JointTraining("out", (plain, taught), plain)
    with pytest.raises(ValueError, match="soft: has soft_labels, and teachers look at each view"):
        JointTraining("out", (Source("soft", soft_labels="x"),), plain, teachers=("a",), distillation=1.0)


def test_a_process_whose_images_are_not_taught_takes_part_in_the_mean(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that sum over all of them wait for each other: each must sum as often as the others."""
    sums: list[Tensor] = []
    monkeypatch.setattr(losses, "summed", lambda value: sums.append(value) or value)
    source = Source(str(folder), soft_labels="soft")
    config = JointTraining("out", (source,), source, distillation=0.5)
    learner = JointLearner(nn.Identity(), nn.Identity(), None, config)  # type: ignore[arg-type]
    scores, hard = torch.randn(1, 3, 4, 4), {"segmentation": torch.zeros(1, 4, 4, dtype=torch.long)}
    learner.segmentation_loss(scores, hard | {"soft_labels": torch.rand(1, 3, 4, 4)})
    with_soft = len(sums)
    loss = learner.segmentation_loss(scores, hard)
    assert len(sums) == 2 * with_soft and loss == losses.cross_entropy(scores, hard["segmentation"])


def test_teachers_tell_classes_and_depth_of_images_that_have_neither(folder: Path, tmp_path: Path) -> None:
    """What is learned from them is nothing where the network says the same, and moves all heads where it does not."""
    teacher = JointNetwork(40, layers=ENCODERS["efficientnet_lite2"]).eval()
    checkpoints.save(tmp_path / "teacher.safetensors", teacher, half=False)
    config = tiny_training(folder, tmp_path / "x", teachers=(str(tmp_path / "teacher.safetensors"),), distillation=1.0)
    samples = Samples(config.sources[0], 40)
    assert checkpoints.load(tmp_path / "teacher.safetensors")[0].layers == teacher.layers
    objective = JointObjective(config, [samples], [])
    batch = batch_of([augmented(samples[i], np.random.default_rng(i), Augmentation((32, 32), (1, 1))) for i in (0, 1)])
    batch |= {"segmentation": torch.full_like(batch["segmentation"], 255), "depth": torch.zeros_like(batch["depth"])}
    batch |= {"taught": torch.ones(2, dtype=torch.bool), "examples": {"segmentation": 2, "depth": 2, "normals": 0}}
    assert groups_moved(objective, batch, tmp_path / "one") == {"encoder", "decoder", "head_depth", "head_segmentation"}
    itself = replace(config, backbone="efficientnet_lite2", weights=str(tmp_path / "teacher.safetensors"))
    learner = JointObjective(itself, [samples], []).learner
    _, terms, _ = learner.eval()(batch)
    assert float(terms["depth"]) < 1e-6


def test_teachers_tell_classes_only_of_images_whose_source_has_them_to_be_learned(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = JointNetwork(40).eval()
    teacher.segm.weight.data *= 1000  # it is sure of what it sees
    checkpoints.save(tmp_path / "teacher.safetensors", teacher)
    sources = (Source(str(folder), "both"), Source(str(folder), "rest", tasks=("depth",)))
    settings = {"sources": sources, "teachers": (str(tmp_path / "teacher.safetensors"),), "distillation": 1.0}
    config = tiny_training(folder, tmp_path / "x", batch=6, **settings)
    objective = JointObjective(config, [Samples(source, 40) for source in sources], [])
    batch = objective.batch(0, 0.0)
    assert batch["examples"]["segmentation"] == int(batch["taught"].sum()) == 2 and batch["examples"]["depth"] == 6
    assert torch.equal((batch["segmentation"] != 255).flatten(1).any(1), batch["taught"])
    everywhere = batch | {"taught": torch.ones(6, dtype=torch.bool)}
    told, of_all = (objective.learner.eval()(each)[1]["segmentation"] for each in (batch, everywhere))
    assert not torch.isclose(told, of_all)


@pytest.mark.slow
def test_a_learner_keeps_its_network_once_compiled_or_not(folder: Path, tmp_path: Path) -> None:
    config = tiny_training(folder, tmp_path)
    for compiled in (False, True):
        network = JointNetwork(40)
        learner = JointLearner(network, nn.Identity(), None, replace(config, compiled=compiled))
        assert set(learner.state_dict()) == {f"network.{name}" for name in network.state_dict()}


def test_a_teacher_labels_a_folder_and_its_labels_are_learned_from(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = JointNetwork(40)
    labelling = Teacher(teacher, label_set("nyu40"))
    assert len(list(label_folder(labelling, folder, tmp_path / "labels"))) == 8
    assert not list(label_folder(labelling, folder, tmp_path / "labels"))  # a killed run goes on
    samples = Samples(Source(str(folder), "rest", labels=str(tmp_path / "labels")), 40)
    with torch.no_grad():
        teacher.eval()
        assert scored(teacher, samples)["pixel_accuracy"] == 1.0  # they are the teacher's own


def test_a_teacher_is_loaded_by_what_its_file_holds(tmp_path: Path) -> None:
    for teacher in (ResNetRefineNet(50, 6), MobileRefineNet(6)):
        torch.save({"state_dict": teacher.state_dict()}, tmp_path / "teacher.ckpt")
        loaded = load_teacher(tmp_path / "teacher.ckpt")
        assert type(loaded.network) is type(teacher) and loaded.input_size is None and loaded.label_set.name == "kitti6"
        state = loaded.network.state_dict()
        assert all(torch.equal(state[key], value) for key, value in teacher.state_dict().items())
    checkpoints.save(tmp_path / "joint.safetensors", JointNetwork(6), {"input_size": [24, 32]})
    loaded = load_teacher(tmp_path / "joint.safetensors")
    assert isinstance(loaded.network, JointNetwork) and loaded.input_size == (24, 32)
    torch.save({"clf_conv.weight": torch.zeros(6, 256, 3, 3)}, tmp_path / "half.ckpt")
    with pytest.raises(ValueError, match=r"half\.ckpt: a ResNet whose third layer has 0 blocks"):
        load_teacher(tmp_path / "half.ckpt")


def test_a_teacher_of_classes_that_have_no_set_here_is_refused(tmp_path: Path) -> None:
    """PASCAL VOC's 21 classes, written as ids of NYU's 40, would be learned as truth."""
    torch.save(MobileRefineNet(21).state_dict(), tmp_path / "voc.ckpt")
    with pytest.raises(ValueError, match=r"voc\.ckpt: a teacher of 21 classes, which are none of the label sets here"):
        load_teacher(tmp_path / "voc.ckpt")
    with pytest.raises(ValueError, match="none of the label sets here"):
        load_teacher(tmp_path / "voc.ckpt", "nyu40")


@pytest.mark.parametrize(("classes", "outputs"), [("kitti6", 6), ("nyu40", 40), ("kitti6", 46)])
def test_a_teachers_labels_are_in_the_file_ids_of_its_set(
    folder: Path, tmp_path: Path, classes: str, outputs: int
) -> None:
    """KITTI's files count from 0, NYU's from 1; of a network of both sets only the chosen one's outputs compete."""
    network = JointNetwork(outputs)
    checkpoints.save(tmp_path / "teacher.safetensors", network)
    teacher = load_teacher(tmp_path / "teacher.safetensors", classes)
    assert list(label_folder(teacher, folder, tmp_path / "labels", "val")) == [("006", None), ("007", None)]
    expected = label_image(teacher, read_color(folder / "color" / "006.png"))
    stored = cv2.imread(str(tmp_path / "labels" / "006.png"), cv2.IMREAD_UNCHANGED)
    assert expected.max() < len(label_set(classes))
    np.testing.assert_array_equal(stored, expected + (1 if classes == "nyu40" else 0))
    np.testing.assert_array_equal(read_labels(tmp_path / "labels" / "006.png", classes), expected)


def test_teachers_write_probabilities_that_a_training_learns_from(folder: Path, tmp_path: Path) -> None:
    """Those of an image and its mirror image are each other's, and two equal teachers say what one does."""
    torch.manual_seed(1)
    teacher = Teacher(JointNetwork(40), label_set("nyu40"))
    assert list(soft_label_folder([teacher, teacher], folder, tmp_path / "soft", "val")) == [
        ("006", None),
        ("007", None),
    ]
    color = read_color(folder / "color" / "006.png")
    soft = np.load(tmp_path / "soft" / "006.npy")
    assert soft.shape == (12, 16, 40) and soft.dtype == np.uint8
    assert np.abs(soft.sum(2, dtype=int) - 255).max() <= 20  # rounded
    np.testing.assert_array_equal(soft, soft_labels([teacher], color))
    np.testing.assert_array_equal(soft[:, ::-1], soft_labels([teacher], np.ascontiguousarray(color[:, ::-1])))
    source = Source(str(folder), "val", ("depth",), soft_labels=str(tmp_path / "soft"))
    loop = Loop(steps=1, validate_every=1)
    config = JointTraining(str(tmp_path / "run"), (source,), Source(str(folder), "val"), batch=2, distillation=1.0,
                           stages=(Stage(crop=(32, 32)),), loop=loop)  # fmt: skip
    rows: list[dict[str, float]] = []
    train(config, rows.append)
    assert rows[0]["segmentation"] > 0
    with pytest.raises(ValueError, match="the same classes; theirs are nyu40, kitti6"):
        soft_label_folder([teacher, Teacher(JointNetwork(6), label_set("kitti6"))], folder, tmp_path / "none")


def test_labels_of_two_teachers_are_not_mixed(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    check_teachers(tmp_path / "out", [one, other], "nyu40", soft=True)
    check_teachers(tmp_path / "out", [other, one], "nyu40", soft=True)  # a killed run goes on
    for weights, classes, soft in (
        ([one], "nyu40", True),
        ([one, other], "nyu40", False),
        ([one, other], "kitti6", True),
    ):
        with pytest.raises(ValueError, match="holds labels of other teachers or classes"):
            check_teachers(tmp_path / "out", weights, classes, soft)


def test_an_unreadable_image_does_not_end_a_teachers_work(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "folder"
    shutil.copytree(folder, broken)
    first = sorted((broken / "color").iterdir())[0]
    first.write_bytes(first.read_bytes()[:100])
    found = dict(label_folder(Teacher(JointNetwork(40), label_set("nyu40")), broken, tmp_path / "labels"))
    assert "truncated" in (found.pop(first.stem) or "") and len(found) == 7 and set(found.values()) == {None}


def test_a_teacher_sees_images_at_the_size_that_it_was_trained_for(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = JointNetwork(40).eval()
    half, area = Teacher(teacher, label_set("nyu40"), resolution=0.5), Teacher(teacher, label_set("nyu40"), 0, (24, 32))
    assert list(label_folder(half, folder, tmp_path / "half", "val"))
    assert list(label_folder(area, folder, tmp_path / "area", "val"))
    for file in (tmp_path / "half").iterdir():
        assert file.read_bytes() == (tmp_path / "area" / file.name).read_bytes()
