"""The joint network's regimes, on tiny images."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tiny_trainings import Killed, batch_of, groups_moved, tiny_training, weights_of, write_images
from typer.testing import CliRunner

from networks.augmentation import Augmentation, augmented
from networks.joint import checkpoints
from networks.joint.network import JointNetwork
from networks.training.data import Samples, Source, camera_of
from networks.training.joint import JointObjective, JointTraining, Stage, train
from networks.training.loop import Loop
from semslam import config as configs
from semslam.cli import app
from sequences.images.labelled_images import NYU_CAMERA

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("views", ["processor", "device"])
def test_the_joint_network_trains_resumes_and_ships(folder: Path, tmp_path: Path, views: str) -> None:
    config = tiny_training(folder, tmp_path / "a", class_balance=0.3, frozen_layers=1, views=views)
    whole = train(config)
    assert {"miou", "rmse", "score"} <= whole.keys()
    network, metadata = checkpoints.load(tmp_path / "a" / "network.safetensors")
    assert metadata["label_sets"] == {"nyu40": [0, 40]}
    assert metadata["input_size"] == [48, 64]
    assert metadata["figures"] == whole

    def kill(row: dict[str, float]) -> None:
        if row["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        train(replace(config, out=str(tmp_path / "b")), kill)
    assert train(replace(config, out=str(tmp_path / "b"))) == whole
    again, _ = checkpoints.load(tmp_path / "b" / "network.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(weights_of(network), weights_of(again), strict=True))


def test_batches_made_on_a_device_are_those_of_the_loader(folder: Path, tmp_path: Path) -> None:
    """Two sources, one without labels, and the step's own random numbers: only colours may differ, by rounding."""
    sources = (Source(str(folder), "both"), Source(str(folder), "rest", tasks=("depth",)))
    config = tiny_training(folder, tmp_path, sources=sources, batch=4)
    loaded, made = (
        JointObjective(
            replace(config, views=views),
            [Samples(source, 40) for source in sources],
            Samples(config.validation, 40),
        ).batch(3, 0.9)
        for views in ("processor", "device")
    )
    assert made.keys() == loaded.keys()
    assert made["examples"] == loaded["examples"] == {"segmentation": 1, "depth": 4, "normals": 0}
    for name in ("segmentation", "depth", "normals"):
        assert torch.equal(made[name], loaded[name])
    assert made["image"].stride() == loaded["image"].stride()
    assert (made["image"] - loaded["image"]).abs().max() < 3.1 / (255 * 0.224)  # three grey levels, normalised
    with pytest.raises(ValueError, match="`views` is 'gpu', expected one of auto, processor, device"):
        replace(config, views="gpu")


def test_the_joint_network_learns_what_is_plain_to_see(folder: Path, tmp_path: Path) -> None:
    config = tiny_training(folder, tmp_path, decoder_rate=2e-3, loop=Loop(steps=20, average=0.5), color=0.0)
    rows: list[dict[str, float]] = []
    train(config, rows.append)
    for task in ("segmentation", "depth"):
        assert sum(row[task] for row in rows[-4:]) < 0.7 * sum(row[task] for row in rows[:4])


def test_a_head_steps_only_when_its_labels_are_there(folder: Path, tmp_path: Path) -> None:
    """BlitzNet's rhythm: of a batch with depth alone the segmentation head learns nothing."""
    sources = (Source(str(folder), "both"), Source(str(folder), "rest", tasks=("depth",)))
    config = tiny_training(folder, tmp_path / "x", sources=sources)
    objective = JointObjective(config, [Samples(s, 40) for s in sources], [])
    rest = objective.sets[1]
    assert all(sample.labels is None and sample.depth is not None for sample in rest)
    view = [augmented(s, np.random.default_rng(0), Augmentation((32, 32), (1, 1))) for s in (rest[0], rest[1])]
    assert groups_moved(objective, batch_of(view), tmp_path / "depth") == {"encoder", "decoder", "head_depth"}
    both = objective.sets[0]
    objective = JointObjective(config, [both, rest], [])
    view = [augmented(s, np.random.default_rng(0), Augmentation((32, 32), (1, 1))) for s in (both[0], rest[1])]
    everything = {"encoder", "decoder", "head_depth", "head_segmentation"}
    assert groups_moved(objective, batch_of(view), tmp_path / "both") == everything


def test_ubernets_groups_wait_for_their_examples(folder: Path, tmp_path: Path) -> None:
    config = tiny_training(folder, tmp_path, task_examples=10, shared_examples=30)
    objective = JointObjective(config, [Samples(config.sources[0], 40)], [])
    assert {g.name: g.every for g in objective.groups} == {
        "encoder": 30, "decoder": 30, "head_segmentation": 10, "head_depth": 10,
    }  # fmt: skip


def test_other_labels_reach_the_training_from_every_form_of_source(folder: Path, tmp_path: Path) -> None:
    """A folder, a list file: the labels that a source names take the place of its own, and are never left out."""
    names = sorted(path.stem for path in (folder / "color").iterdir())
    (tmp_path / "labels").mkdir()
    for name in names:
        cv2.imwrite(str(tmp_path / "labels" / f"{name}.png"), np.full((48, 64), 7, np.uint8))
    lines = [f"{folder}/color/{p.name} {folder}/label40/{p.stem}.png" for p in sorted((folder / "color").iterdir())]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    for path in (str(folder), str(tmp_path / "list.txt")):
        samples = Samples(Source(path, None, labels=str(tmp_path / "labels")), 40)
        assert all((sample.labels == 6).all() for sample in samples)
    (tmp_path / "labels" / f"{names[0]}.png").unlink()
    with pytest.raises(FileNotFoundError, match=f"no {names[0]}.png among its 7 label images"):
        Samples(Source(str(tmp_path / "list.txt"), None, labels=str(tmp_path / "labels")), 40)


def test_a_training_on_labels_that_are_all_void_ends_with_one_line(folder: Path, tmp_path: Path) -> None:
    for path in (folder / "color").iterdir():
        (tmp_path / "void").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "void" / f"{path.stem}.png"), np.zeros((48, 64), np.uint8))
    with pytest.raises(ValueError, match="all pixels of the 8 label images looked at are void"):
        Samples(Source(str(folder), None, labels=str(tmp_path / "void")), 40)


def test_the_camera_of_a_source_is_the_one_named_or_recorded_or_else_nyus(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "folder"
    shutil.copytree(folder, copy)
    assert camera_of(Source(str(copy)), 64, 48)[0].fx == NYU_CAMERA.fx
    (copy / "camera.yaml").write_text("{width: 640, height: 480, fx: 585, fy: 585, cx: 320, cy: 240}")
    assert camera_of(Source(str(copy)), 64, 48)[0].fx == pytest.approx(58.5)
    assert camera_of(Source(str(copy), camera=(50, 50, 32, 24)), 64, 48)[0].fx == 50


def test_two_label_sets_share_one_network(folder: Path, tmp_path: Path) -> None:
    """NYU's 40 classes and KITTI's 6 behind them: 46 outputs."""
    kitti = tmp_path / "kitti"
    (kitti / "color").mkdir(parents=True)
    (kitti / "label6").mkdir()
    rng = np.random.default_rng(0)
    cv2.imwrite(str(kitti / "color" / "0.png"), rng.integers(0, 255, (48, 64, 3)).astype(np.uint8))
    road = np.zeros((48, 64, 3), np.uint8)
    road[24:] = (128, 64, 128)
    cv2.imwrite(str(kitti / "label6" / "0.png"), road)
    sources = (Source(str(folder)), Source(str(kitti), None, classes="kitti6", first_output=40))
    config = tiny_training(folder, tmp_path / "out", sources=sources, num_classes=46, loop=Loop(steps=2))
    second = Samples(sources[1], 46)
    assert set(np.unique(second[0].labels)) == {42, 255}
    figures = train(config)  # validated on NYU's outputs alone
    assert 0 <= figures["miou"] <= 1
    _, metadata = checkpoints.load(tmp_path / "out" / "network.safetensors")
    assert metadata["label_sets"] == {"nyu40": [0, 40], "kitti6": [40, 46]}
    with pytest.raises(ValueError, match="has a label for output 42, the network has 40 outputs"):
        Samples(sources[1], 40)


def test_label_sets_share_the_outputs_one_after_the_other(folder: Path, tmp_path: Path) -> None:
    nyu, kitti = Source("nyu"), Source("kitti", classes="kitti6", first_output=40)
    fine = tiny_training(folder, tmp_path, sources=(kitti, nyu), validation=kitti, num_classes=46)
    assert list(fine.outputs.items()) == [("nyu40", (0, 40)), ("kitti6", (40, 46))]
    depth = replace(kitti, first_output=0, tasks=("depth",))  # of which nothing is labelled
    assert tiny_training(folder, tmp_path, sources=(nyu, depth)).outputs == {"nyu40": (0, 40)}
    for settings, problem in (
        ({"sources": (nyu, kitti), "validation": replace(kitti, first_output=0)}, "kitti6 is 0 here and 40 in another"),
        ({"sources": (nyu, replace(nyu, first_output=40))}, "first_output of nyu40 is 40 here and 0 in another"),
        ({"sources": (nyu, replace(kitti, first_output=30))}, "kitti6 is 30, among .* nyu40, which end at 40"),
        ({"sources": (nyu, kitti), "num_classes": 40}, "num_classes is 40; nyu40 and kitti6 need 46 outputs"),
        ({"sources": (replace(nyu, classes="nyu13"),), "num_classes": 40}, "num_classes is 40; nyu13 .* 13 classes"),
    ):
        with pytest.raises(ValueError, match=problem):
            tiny_training(folder, tmp_path, **({"num_classes": 46, "validation": settings["sources"][0]} | settings))
    tiny_training(folder, tmp_path, num_classes=46, weights="of both sets")


def test_labels_of_many_classes_are_refused_before_they_wrap(folder: Path, tmp_path: Path) -> None:
    """Bytes would make 44 of the 300th class, and 38 of 40 + 254."""
    (tmp_path / "labels").mkdir()
    for path in (folder / "color").iterdir():
        labels = np.full((48, 64), 301, np.uint16)
        labels[:8] = 0
        cv2.imwrite(str(tmp_path / "labels" / f"{path.stem}.png"), labels)
    source = Source(str(folder), labels=str(tmp_path / "labels"), classes="nyu894")
    with pytest.raises(ValueError, match="has a label for output 300, the network has 40 outputs"):
        Samples(source, 40)
    with pytest.raises(ValueError, match="num_classes is 894; labels are learned as bytes, expected at most 255"):
        Samples(source, 894)
    with pytest.raises(ValueError, match="has a label for output 256, the network has 40 outputs"):
        Samples(Source(str(folder), first_output=255), 40)
    for path in (tmp_path / "labels").iterdir():
        labels[8:] = 7
        cv2.imwrite(str(path), labels)
    found = Samples(source, 40)[0].labels
    assert (found[:8] == 255).all() and (found[8:] == 6).all()


def test_normals_are_not_computed_with_the_camera_of_another_shape(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "folder"
    shutil.copytree(folder, copy)
    for kind in ("color", "label40", "depth"):
        path = copy / kind / "003.png"
        cv2.imwrite(str(path), np.rot90(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))
    with pytest.raises(
        ValueError, match="the depth of 003 is 48x64 pixels, of another shape than its camera's 640x480"
    ):
        Samples(Source(str(copy)), 40, normals=True)


def test_a_third_task_learns_normals_computed_from_depth(folder: Path, tmp_path: Path) -> None:
    config = tiny_training(folder, tmp_path, tasks=("segmentation", "depth", "normals"), loop=Loop(steps=2))
    rows: list[dict[str, float]] = []
    figures = train(config, rows.append)
    assert "normals" in rows[0]
    assert 0 <= figures["normal_mean_deg"] <= 180
    heads = {g.name: g.rate for g in JointObjective(config, [Samples(config.sources[0], 40)], []).groups}
    assert heads["head_normals"] == 10 * heads["head_depth"]


def test_learned_task_weights_are_learned(folder: Path, tmp_path: Path) -> None:
    config = tiny_training(folder, tmp_path, learned_task_weights=True, loop=Loop(steps=2))
    train(config)
    saved = torch.load(tmp_path / "last.pt", weights_only=True)["learner"]
    assert float(saved["balance.log_variance.depth"]) != 0


def test_depth_is_learned_as_the_camera_of_the_validation_would_see_it(folder: Path, tmp_path: Path) -> None:
    """A network knows one focal length: through a lens twice as long, everything looks half as far away."""
    source = Source(str(folder), camera=(1000.0, 1000.0, 32.0, 24.0))
    recorded, learned = Samples(source, 40)[0].depth, Samples(source, 40, focal=500.0)[0].depth
    assert recorded is not None and learned is not None and np.allclose(learned, recorded / 2)
    unknown = Samples(Source(str(folder)), 40, focal=500.0)[0].depth
    assert unknown is not None and np.array_equal(unknown, recorded)


def test_settings_that_cannot_work_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sources is empty"):
        tiny_training(folder, tmp_path, sources=())
    with pytest.raises(ValueError, match=r"`stages.stride` is 2, expected one of 4, 8"):
        tiny_training(folder, tmp_path, stages=(Stage(stride=2),))
    with pytest.raises(ValueError, match=r"`stages.until` is 0.5 after 0.7; expected it to increase"):
        tiny_training(folder, tmp_path, stages=(Stage(0.7), Stage(0.5), Stage(1.0)))
    for weights in ({"depht": 1.0, "segmentation": 1.0}, {"depth": 1.0}):
        with pytest.raises(ValueError, match=r"`task_weights` has .*; expected segmentation, depth"):
            tiny_training(folder, tmp_path, task_weights=weights)
    with pytest.raises(ValueError, match=r"`tasks` is depth; expected segmentation, depth or"):
        tiny_training(folder, tmp_path, tasks=("depth",))
    with pytest.raises(ValueError, match=r"`learned_task_weights` replaces them"):
        weights = {"segmentation": 0.5, "depth": 0.5}
        tiny_training(folder, tmp_path, task_weights=weights, learned_task_weights=True)
    with pytest.raises(ValueError, match=r"is 2 to 0\.5; expected the smaller one first"):
        Stage(scale=(2.0, 0.5))
    with pytest.raises(ValueError, match="leave out weights or encoder"):
        tiny_training(folder, tmp_path, weights="a.safetensors", encoder="b.npz")
    with pytest.raises(ValueError, match="learned is empty"):
        tiny_training(folder, tmp_path, learned=())
    for settings in ({"learned": ("segm", "conv9")}, {"learned": ("conv9", "layer1."), "frozen_layers": 2}):
        config = tiny_training(folder, tmp_path, **settings)
        with pytest.raises(
            ValueError, match=r"begins with 'conv9' \(`learned`\); known are (layer1|layer3), .* depth$"
        ):
            JointObjective(config, [Samples(config.sources[0], 40)], [])
    with pytest.raises(ValueError, match="unknown task 'pose'; known are segmentation, depth, normals"):
        Source(str(folder), tasks=("pose",))


CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("file", [p for p in CONFIGS if not p.stem.startswith("pose_")], ids=lambda p: p.stem)
def test_our_configurations_are_understood(file: Path) -> None:
    from semslam.config import load

    if "sources" in file.read_text():
        config = load(file, JointTraining)
        assert config.stages[-1].until == 1.0


def test_the_four_regimes_run_on_two_budgets(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images with labels and four without: of the mixed batches a third of the images is labelled."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    import regimes

    base = tiny_training(folder, tmp_path, batch=4, stages=(Stage(),), loop=Loop(steps=6))
    trained: dict[str, JointTraining] = {}

    def remembered(config: JointTraining, report: Any) -> dict[str, float]:
        trained[Path(config.out).name] = config
        checkpoints.save(Path(config.out) / "network.safetensors", JointNetwork(40))
        return {"rmse": 1.0}

    monkeypatch.setattr(regimes, "train", remembered)
    results = list(regimes.compare(base, Source(str(folder), "both"), Source(str(folder), "rest"), [1]))
    assert [r.regime for r in results] == 2 * [
        "fine-tuning", "BlitzNet", "UberNet", "teacher's labels, then fine-tuning",
    ]  # fmt: skip
    # the teacher's pre-training is two thirds of the steps, and fine-tuning the rest
    assert [(r.steps, r.labelled_examples) for r in results[:4]] == [(6, 24), (6, 8), (6, 8), (6, 13)]
    assert [(r.steps, r.labelled_examples) for r in results[4:]] == [(6, 24), (18, 24), (18, 24), (11, 24)]
    assert {name: config.loop.steps for name, config in trained.items()} == {
        "fine-tuning-1": 6, "blitznet-1": 6, "ubernet-1": 6, "pre-training-1": 4, "ours-1": 2,
        "blitznet-labelled-1": 18, "ubernet-labelled-1": 18, "pre-training-labelled-1": 7, "ours-labelled-1": 4,
    }  # fmt: skip
    assert trained["ubernet-1"].task_examples == 10 and trained["blitznet-1"].task_examples == 1
    assert trained["ours-1"].weights == str(tmp_path / "pre-training-1" / "network.safetensors")
    assert trained["ours-1"].encoder_rate == base.encoder_rate / 10
    assert {p.stem for p in (tmp_path / "labels-1").iterdir()} == {"002", "003", "004", "005"}


_SHARED_TRAINING = """
import sys, torch
torch.set_num_threads(1)
from networks.training.loop import Loop
from networks.training.joint import JointTraining, Stage, train
from networks.training.data import Source
folder, out = sys.argv[1:]
train(JointTraining(
    out=out,
    sources=(Source(folder, "both"), Source(folder, "rest", tasks=("depth",))),
    validation=Source(folder, "val"),
    stages=(Stage(1.0, (32, 32), (0.8, 1.2), 4),),
    batch=4,
    class_balance=0.3,
    learned_task_weights=True,
    loop=Loop(steps=3, optimiser="sgd", average=0.0, clip=1.0, precision="float32"),
))
"""


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_batch(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "shared.py"
    script.write_text(_SHARED_TRAINING)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for launcher, name in (([sys.executable], "one"), (torchrun, "two")):
        command = [*launcher, str(script), str(folder), str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("one", "two"))
    for key, value in one["learner"].items():
        torch.testing.assert_close(two["learner"][key], value, rtol=1e-5, atol=1e-5)
    for group, state in one["optimisers"].items():  # what the gradients of all three steps left
        for number, of_parameter in state["state"].items():
            ours = two["optimisers"][group]["state"][number]["momentum_buffer"]
            theirs = of_parameter["momentum_buffer"]
            assert (ours - theirs).norm() <= 1e-2 * theirs.norm() + 1e-9
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("one", "two")]
    columns = logs[0][0].split(",")
    for a, b in zip(logs[0][1:], logs[1][1:], strict=True):
        for column in ("segmentation", "depth"):
            place = columns.index(column)
            assert np.isclose(float(a.split(",")[place] or "nan"), float(b.split(",")[place] or "nan"),
                              rtol=1e-3, equal_nan=True)  # fmt: skip


def test_crops_that_the_images_do_not_fill_are_told(folder: Path, tmp_path: Path, caplog) -> None:
    for crop, told in (((64, 64), False), ((96, 128), True)):
        config = tiny_training(folder, tmp_path, stages=(Stage(1.0, crop, (0.5, 2.0)),))
        caplog.clear()
        JointObjective(config, [Samples(config.sources[0], 40)], [])
        assert ("75 % of the usual view is padding: images of 64x48" in caplog.text) == told


def test_the_command_line_changes_any_setting_of_a_training(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "training.yaml"
    configs.save(file, tiny_training(folder, tmp_path / "out"))
    found = CliRunner().invoke(app, ["train", str(file), "--set", "loop.steps=3", "--set", f"out={tmp_path / 'other'}"])
    assert found.exit_code == 0 and (tmp_path / "other" / "network.safetensors").exists()
    with pytest.raises(ValueError, match=r"--set.*unknown setting 'sted'"):
        CliRunner().invoke(app, ["train", str(file), "--set", "sted=3"], catch_exceptions=False)
