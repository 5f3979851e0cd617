"""Training pose networks by the trainer of the joint network, and scoring what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner
from variants import one_fast

from networks.joint import checkpoints
from networks.pose.networks import NETWORKS
from networks.pose.predictor import PosePredictor
from networks.pose.samples import PoseSource, open_source
from networks.training.loop import Loop
from networks.training.pose import PoseObjective, PoseTraining, train
from semslam import config as configs
from semslam.cli import app
from semslam.judging.pose_network import pose_errors, score_poses, table

COUNT = 8
CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("pose_*.yaml"))


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def deeploc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images with poses that their colours tell, all but one with labels."""
    root = tmp_path_factory.mktemp("data") / "DeepLoc"
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        folder = root / split
        (folder / "LeftImages").mkdir(parents=True)
        (folder / "labels").mkdir()
        lines = ["x", "img_name x y z qw qx qy qz"]
        for i in range(COUNT):
            image = rng.integers(0, 60, (32, 40, 3), dtype=np.uint8)
            image[:, : 5 * i] += 150
            cv2.imwrite(str(folder / "LeftImages" / f"Image_{i}.png"), image)
            if i != 3:
                labels = np.full((32, 40), 6, np.uint8)
                labels[:, : 5 * i] = 2
                cv2.imwrite(str(folder / "labels" / f"Image_{i}.png"), labels)
            q = np.roll(Rotation.from_rotvec([0, 0.1 * i, 0]).as_quat(), 1)
            lines.append(f"Image_{i} {0.5 * i} 1 {-0.2 * i} {' '.join(map(str, q))}")
        (folder / "poses.txt").write_text("\n".join(lines) + "\n")
    return root


def small(deeploc: Path, out: Path, **changes: object) -> PoseTraining:
    settings: dict = {
        "out": str(out),
        "sources": (PoseSource(str(deeploc)),),
        "validation": PoseSource(str(deeploc), split="test"),
        "encoder": "mobilenet_v2",
        "feature": 8,
        "shorter_side": 32,
        "batch": 2,
        "color": 0.2,
        "loop": Loop(steps=4, save_every=1, validate_every=100),
    }
    return PoseTraining(**(settings | changes))


class _Killed(BaseException):
    pass


def killing(at: int) -> Callable[[dict[str, float]], None]:
    def report(row: dict[str, float]) -> None:
        if row["step"] == at:
            raise _Killed

    return report


def test_a_killed_training_goes_on_to_the_same_bits(deeploc: Path, tmp_path: Path) -> None:
    mapnet = {"tuple_length": 3, "skip": 2, "relative": "difference", "dropout": 0.5, "network": "multitask"}
    figures = train(small(deeploc, tmp_path / "whole", **mapnet))
    with pytest.raises(_Killed):
        train(small(deeploc, tmp_path / "killed", **mapnet), killing(3))
    assert train(small(deeploc, tmp_path / "killed", **mapnet)) == figures
    ours, theirs = (checkpoints.read_tensors(tmp_path / n / "network.safetensors") for n in ("whole", "killed"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_statistics_are_computed_once_kept_and_saved_with_the_weights(deeploc: Path, tmp_path: Path) -> None:
    train(small(deeploc, tmp_path))
    kept = json.loads((tmp_path / "statistics.json").read_text())
    expected = open_source(PoseSource(str(deeploc))).T_world_camera[:, :3, 3]
    np.testing.assert_allclose(kept["mean"], expected.mean(0))
    np.testing.assert_allclose(kept["std"], [*expected.std(0)[:1], 1.0, *expected.std(0)[2:]])
    predictor = PosePredictor.load(tmp_path / "network.safetensors")
    assert list(predictor.statistics.mean) == kept["mean"]
    with pytest.raises(ValueError, match="of a training with another `metric` than True; choose another `out`"):
        PoseObjective(small(deeploc, tmp_path, metric=True))
    # weights that are gone on from keep theirs, whatever the data
    sources, weights = (PoseSource(str(deeploc), first=4),), str(tmp_path / "network.safetensors")
    later = small(deeploc, tmp_path / "2", weights=weights, sources=sources)
    assert PoseObjective(later).statistics == predictor.statistics


def test_other_poses_in_the_same_folder_are_refused(deeploc: Path, tmp_path: Path) -> None:
    PoseObjective(small(deeploc, tmp_path))
    with pytest.raises(ValueError, match=r"statistics\.json: is of other poses than .*choose another `out`"):
        PoseObjective(small(deeploc, tmp_path, sources=(PoseSource(str(deeploc), last=4),)))


def test_recordings_by_odometry_take_every_second_place_of_a_batch(deeploc: Path, tmp_path: Path) -> None:
    config = small(deeploc, tmp_path, tuple_length=3, skip=1, batch=4, unlabelled=(PoseSource(str(deeploc)),))
    objective = PoseObjective(config)
    assert objective.batch(0, 0.0)["placed"].tolist() == [True, True, False, False]
    _, terms, _ = objective.learner(objective.batch(0, 0.0))
    assert set(terms) == {"translation", "rotation", "odometry_translation", "odometry_rotation"}


def test_images_without_labels_teach_a_multi_task_network_poses_and_are_left_out_of_dual_input(
    deeploc: Path, tmp_path: Path
) -> None:
    multi = PoseObjective(small(deeploc, tmp_path / "a", network="multitask"))
    assert len(multi.sets[0]) == COUNT and (multi.sets[0][3][1] == 255).all()
    dual = PoseObjective(small(deeploc, tmp_path / "b", network="dual_input"))
    assert len(dual.sets[0]) == COUNT - 1
    blue, green = dual.network.colors.table[0, 2], dual.network.colors.table[1, 1]
    assert blue > 2 and green > 2  # DeepLoc's background is blue, its sky green


@pytest.mark.parametrize("precision", one_fast("bfloat16", "float32"))
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_takes_a_step_and_is_scored(deeploc: Path, tmp_path: Path, network: str, precision: str) -> None:
    lengths = {"tuple_length": 2, "skip": 1, "relative": "motion", "weighting": "uncertainty"}
    figures = train(small(deeploc, tmp_path, network=network, loop=Loop(steps=1, precision=precision), **lengths))
    predictor = PosePredictor.load(tmp_path / "network.safetensors")
    tasks = predictor.network.tasks
    assert ("median_m" in figures) == ("pose" in tasks) and ("miou" in figures) == ("segmentation" in tasks)
    images = open_source(PoseSource(str(deeploc), split="test", labelled_only=True, last=2))
    score = score_poses(predictor, images)
    assert len(score.predicted) == (len(images) if "pose" in tasks else 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "posnet"}, "network is 'posnet'; known are pose, segmentation"),
        ({"relative": "plain"}, "relative is 'plain'; known are difference, motion"),
        ({"relative": "motion"}, "tuple_length of at least 2"),
        ({"sources": ()}, "sources is empty"),
        ({"trunk": "bundled"}, "trunk is for network joint, not pose"),
        ({"weights": "a.safetensors", "imagenet": "b.pth"}, "leave out weights or imagenet"),
        ({"weights": "absent.safetensors"}, r"absent\.safetensors: no such weights file"),
        ({"sources": (PoseSource("nowhere"),)}, "nowhere: no such data"),
    ],
)
def test_wrong_settings_are_answered_in_one_line(deeploc: Path, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        PoseObjective(small(deeploc, tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_a_network_of_labels_without_labels_says_so(deeploc: Path, tmp_path: Path) -> None:
    rows = ["Image_0.png 0 0 0 1 0 0 0", "Image_1.png 1 0 0 1 0 0 0"]
    listing = deeploc / "test" / "LeftImages" / "list.txt"
    listing.write_text("\n".join(rows))
    with pytest.raises(ValueError, match=r"list\.txt: there are no labels, which this network needs"):
        PoseObjective(small(deeploc, tmp_path, network="dual_input", sources=(PoseSource(str(listing)),)))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configurations_that_come_along_are_whole(path: Path) -> None:
    values = configs.read(path)
    assert values.pop("kind") == "pose"
    configs.from_dict(values, PoseTraining, str(path))


# ------------------------------------------------------------------------------------------------------- scoring


def test_errors_are_metres_and_the_angle_between_orientations() -> None:
    truth = np.tile(np.eye(4), (3, 1, 1))
    predicted = truth.copy()
    predicted[0, :3, 3] = [3, 4, 0]
    predicted[1, :3, :3] = Rotation.from_rotvec([0, np.radians(30), 0]).as_matrix()
    predicted[2, :3, :3] = Rotation.from_rotvec([np.pi, 0, 0]).as_matrix()
    errors = pose_errors(predicted, truth)
    np.testing.assert_allclose(errors.metres, [5, 0, 0])
    np.testing.assert_allclose(errors.degrees, [0, 30, 180])
    figures = errors.figures()
    assert figures["median_m"] == 0 and figures["mean_m"] == pytest.approx(5 / 3)
    assert figures["median_deg"] == pytest.approx(30) and figures["within_5cm_5deg"] == 0


def test_train_and_score_are_commands_and_tell_apart_the_two_kinds(deeploc: Path, tmp_path: Path) -> None:
    settings = configs.to_dict(small(deeploc, tmp_path / "out", network="multitask", loop=Loop(steps=1)))
    import yaml

    (tmp_path / "pose.yaml").write_text(yaml.safe_dump({"kind": "pose", **settings}))
    done = CliRunner().invoke(app, ["train", str(tmp_path / "pose.yaml")])
    assert done.exit_code == 0, done.output
    assert "network.safetensors" in done.output
    weights = tmp_path / "out" / "network.safetensors"
    arguments = ["score", "--data", str(deeploc), "--split", "test", "--weights", str(weights), "--json",
                 str(tmp_path / "f.json"), "--out", str(tmp_path / "pictures")]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "Multi-task, report" in done.output and "1.07" in done.output and "VLocNet++" in done.output
    figures = json.loads((tmp_path / "f.json").read_text())
    assert {"median_m", "mean_m", "median_deg", "mean_deg", "pixel_accuracy", "miou", "miou_without_background"} <= set(
        figures
    )
    assert figures["labelled_images"] == COUNT - 1
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert pictures == {"poses.png", "errors.png", "labels.png"}
    done = CliRunner().invoke(app, [*arguments, "--engine", "torch"])
    assert "--engine is for --recording and joint weights, not for pose weights" in str(done.exception)
    (tmp_path / "pose.yaml").write_text("kind: poses\n")
    done = CliRunner().invoke(app, ["train", str(tmp_path / "pose.yaml")])
    assert "kind is 'poses'; known are joint, pose" in str(done.exception)


def test_the_table_shows_the_published_rows_and_ours() -> None:
    figures = {"images": 5, "median_m": 0.123, "mean_m": 0.2, "median_deg": 3.0, "mean_deg": 4.0}
    lines = table(figures, "ours", "DeepLoc").splitlines()
    assert lines[-1].split() == ["ours", "on", "DeepLoc", "(5", "images)", "0.123", "0.200", "3.00", "4.00"]
    assert len(lines) == 2 + 7 + 1


# --------------------------------------------------------------------------------------------------- on real data


@pytest.mark.slow
def test_a_dozen_frames_are_learned_by_heart(shared_data: Path, tmp_path: Path) -> None:
    dozen = PoseSource(str(shared_data / "redkitchen"), last=132, hold_out=11, held_out=True)
    config = PoseTraining(
        out=str(tmp_path),
        sources=(dozen,),
        validation=dozen,
        encoder="mobilenet_v2",
        imagenet=str(shared_data / "weights" / "mobilenet_v2_imagenet_folded.npz"),
        feature=128,
        dropout=0.0,
        shorter_side=64,
        batch=12,
        encoder_rate=5e-4,
        head_rate=2e-3,
        loop=Loop(steps=200, average=0.9, clip=5.0, warmup=10, validate_every=200, save_every=200),
    )
    train(config)
    score = score_poses(PosePredictor.load(tmp_path / "network.safetensors"), open_source(dozen))
    assert len(score.truth) == 12
    assert score.errors is not None
    assert score.errors.metres.max() < 0.01
    assert score.errors.degrees.max() < 1
