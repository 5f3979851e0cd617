"""Running a trained network: every engine computes the module's function, and everything around it is undone."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from used_networks import used_network, with_used_norms

from networks.inference import engines, export
from networks.inference.engines import available_engines, open_engine
from networks.inference.folding import NarrowConvolution, folded, for_export, max_pool_5x5
from networks.inference.postprocessing import resized
from networks.inference.predictor import Predictor
from networks.joint import checkpoints
from networks.joint.network import JointNetwork, normalised
from networks.joint.refinenet import MobileRefineNet, ResNetRefineNet
from semslam.labels import remap_probabilities, remapping

pytestmark = pytest.mark.usefixtures("one_torch_thread", "own_cache")
FLOAT32_ENGINES = ("torch", "onnxruntime", "openvino", "torch-cuda")


@pytest.fixture(scope="module")
def network() -> JointNetwork:
    return used_network()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """An image of a size that no stride divides."""
    rng = np.random.default_rng(0)
    return resized(rng.integers(0, 256, (14, 18, 3), dtype=np.uint8), (131, 98))


@pytest.fixture(scope="module")
def truth(network, image) -> tuple[np.ndarray, ...]:
    """What the module itself returns."""
    with torch.no_grad():
        return tuple(o[0].permute(1, 2, 0).numpy() for o in network(normalised(torch.from_numpy(image)[None])))


@pytest.fixture(scope="module")
def predictor(network) -> Predictor:
    return Predictor(network, engine="torch")


# ------------------------------------------------------------------------------------------------------ engines


@pytest.mark.parametrize("name", FLOAT32_ENGINES)
def test_every_engine_computes_what_the_module_computes(name, network, image, truth) -> None:
    if name not in available_engines():
        pytest.skip(f"{name} is not installed here")
    engine = open_engine(network, name)
    for _ in range(2):  # the second call reuses what the first one compiled
        outputs = engine(image)
        assert engine.name == name
        assert [o.shape for o in outputs] == [(25, 33, 40), (25, 33, 1), (25, 33, 3)]
        for ours, theirs in zip(outputs, truth, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-3)
        same = outputs[0].argmax(-1) == truth[0].argmax(-1)
        assert same.mean() >= 0.9999


@pytest.mark.parametrize(
    ("flags", "engines_there", "best"),
    [
        ("avx2 avx512f", set(), "openvino"),
        ("avx2 avx512f avx512_bf16", {"openvino-bf16"}, "openvino-bf16"),
        ("avx2 avx512f avx512_bf16 amx_bf16 amx_tile", {"openvino-bf16", "torch-bf16"}, "openvino-bf16"),
    ],
)
def test_bfloat16_runs_where_the_processor_multiplies_in_it(monkeypatch, network, flags, engines_there, best) -> None:
    """PyTorch gains nothing from AVX512-BF16, and an instruction set is named whole: bf16 is not in avx512f."""
    read = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda p, *a, **k: f"flags\t\t: {flags}" if str(p) == "/proc/cpuinfo" else read(p, *a, **k)
    )
    monkeypatch.setattr(engines.platform, "system", lambda: "Linux")
    monkeypatch.setattr(engines, "_has", lambda *modules: True)
    monkeypatch.setattr(engines, "_open", lambda name, *arguments: name)
    monkeypatch.setitem(engines.AVAILABLE, "torch-cuda", lambda: False)
    assert {name for name in available_engines() if name.endswith("bf16")} == engines_there
    assert open_engine(network) == best


def test_bfloat16_changes_few_classes_and_depth_by_its_rounding(network, image, truth) -> None:
    if "openvino-bf16" not in available_engines():
        pytest.skip("no OpenVINO, or a processor without bf16")
    once, twice = (tuple(o.copy() for o in open_engine(network, "openvino-bf16", n)(image)) for n in (1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(once, twice, strict=True))  # any number of threads
    assert np.abs(once[1] - truth[1]).max() < 0.03 * np.abs(truth[1]).max()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_engine_takes_images_of_changing_size(name, network, image) -> None:
    if name not in available_engines():
        pytest.skip(f"{name} is not installed here")
    engine = open_engine(network, name, threads=1)
    first = engine(image)[1].copy()
    assert engine(image[:64, :96])[0].shape == (16, 24, 40)
    np.testing.assert_array_equal(engine(image)[1], first)


@pytest.mark.parametrize("build", [lambda: JointNetwork(6), lambda: ResNetRefineNet(50, 5), lambda: MobileRefineNet(5)])
@torch.no_grad()
def test_folding_changes_no_output_and_leaves_no_batch_norm(build) -> None:
    torch.manual_seed(1)
    network = with_used_norms(build())
    state = {key: value.clone() for key, value in network.state_dict().items()}
    fast = folded(network).to(memory_format=torch.channels_last)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in fast.modules())
    image = torch.randn(1, 3, 33, 50).contiguous(memory_format=torch.channels_last)
    ours, theirs = fast(image), network(image)
    for a, b in zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]:
        torch.testing.assert_close(a, b, atol=1e-3 * float(b.abs().max()), rtol=0)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in state.items())


@torch.no_grad()
def test_the_network_for_export_is_the_same_function(network) -> None:
    rewritten = for_export(network)
    assert isinstance(rewritten.depth, NarrowConvolution) and isinstance(rewritten.normal, NarrowConvolution)
    image = torch.randn(1, 3, 33, 50, generator=torch.Generator().manual_seed(3))
    for ours, theirs in zip(rewritten(image), network(image), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()), rtol=0)


@pytest.mark.parametrize("shape", [(1, 256, 30, 40), (2, 8, 200, 160), (1, 3, 1, 1), (1, 4, 2, 7), (3, 5, 5, 3)])
def test_our_pool_is_the_pool_exactly_on_any_number_of_threads(shape, monkeypatch) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(shape, generator=generator)
    expected = F.max_pool2d(x, 5, stride=1, padding=2)
    assert torch.equal(max_pool_5x5(x), expected)
    x = x.contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr("networks.inference.folding._WORTH_A_THREAD", 0)
    for threads in (1, 2, 7):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert torch.equal(max_pool_5x5(x), expected)
    half = x.bfloat16()
    assert torch.equal(max_pool_5x5(half), F.max_pool2d(half, 5, stride=1, padding=2))


def test_an_exported_network_is_found_again_and_another_one_is_not(network, monkeypatch) -> None:
    pytest.importorskip("onnx")
    path = export.onnx_file(network)
    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, "export", lambda *a, **k: pytest.fail("exported again"))
        assert export.onnx_file(network) == path
    changed = with_used_norms(JointNetwork(40, ("segmentation", "depth", "normals")), seed=3)
    assert export.content_hash(changed) != export.content_hash(network)
    assert not [p for p in path.parent.iterdir() if p.name.startswith(".")]  # nothing half-written stays


def test_the_cache_is_where_the_user_wants_it_and_a_read_only_home_is_no_obstacle(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SEMSLAM_CACHE", str(tmp_path / "mine"))
    assert export.cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("SEMSLAM_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert export.cache_folder() == tmp_path / "xdg" / "semslam"
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = export.cache_folder()
    assert folder.parent == tmp_path and folder.is_dir()
    folder.chmod(0o777)  # anybody could leave a network there
    with pytest.raises(PermissionError, match="is not a folder that only you may write into"):
        export.cache_folder()
    folder.rmdir()
    folder.symlink_to(tmp_path / "mine")
    with pytest.raises(PermissionError, match="is not a folder that only you"):
        export.cache_folder()


def test_an_engine_that_is_absent_or_unknown_is_one_clear_line(network, monkeypatch) -> None:
    with pytest.raises(ValueError, match=r"no engine 'tensorrt'; there are .*openvino"):
        open_engine(network, "tensorrt")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(engines.AVAILABLE, "torch-cuda", lambda: False)
    with pytest.raises(ValueError, match=r"'torch-cuda' was asked for .* no NVIDIA GPU.*torch"):
        open_engine(network, "torch-cuda")
    monkeypatch.setitem(engines.AVAILABLE, "openvino", lambda: False)
    with pytest.raises(ValueError, match="pip install"):
        open_engine(network, "openvino")


def test_the_best_engine_is_taken_and_a_broken_one_passed_over(network, monkeypatch, caplog) -> None:
    def broken(*_):
        raise ImportError("libopenvino.so: cannot open shared object file")

    for name in engines.AVAILABLE:
        monkeypatch.setitem(engines.AVAILABLE, name, lambda name=name: name in ("openvino", "torch"))
    monkeypatch.setattr(engines, "onnx_file", broken)
    assert open_engine(network).name == "torch"
    assert "openvino does not work here" in caplog.text
    with pytest.raises(ImportError):
        open_engine(network, "openvino")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openvino-int8", "onnxruntime-int8"])
def test_an_int8_engine_is_calibrated_once_and_stays_near_the_module(name, image) -> None:
    if name not in available_engines():
        pytest.skip(f"{name} is not installed here")
    fresh = checkpoints.load()[0]  # rounding does more harm to random weights
    fresh.segm.bias.data += len(name)  # a network that the cache does not know
    with pytest.raises(ValueError, match="calibrate"):
        open_engine(fresh, name)
    exact = open_engine(fresh, "torch")(image)
    for calibration in ([image, image[:, ::-1].copy()], None):
        outputs = open_engine(fresh, name, calibration=calibration)(image)
        assert [o.shape for o in outputs] == [o.shape for o in exact]
        for ours, theirs in zip(outputs, exact, strict=True):
            assert np.abs(ours - theirs).mean() < 0.3 * theirs.std()


# ---------------------------------------------------------------------------------------------------- predictor


def test_everything_comes_back_at_the_size_of_the_image(predictor, image) -> None:
    prediction = predictor(image)
    assert prediction.depth.shape == prediction.depth_confidence.shape == (98, 131)
    assert prediction.class_probabilities.shape == (98, 131, 40)
    assert prediction.normals is not None and prediction.normals.shape == (98, 131, 3)
    for array in (prediction.depth, prediction.depth_confidence, prediction.class_probabilities, prediction.normals):
        assert array.dtype == np.float32 and np.isfinite(array).all()
    assert (prediction.depth >= 0).all()
    np.testing.assert_allclose(prediction.class_probabilities.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(prediction.normals, axis=-1), 1, atol=1e-5)
    assert (predictor.num_classes, predictor.label_set, predictor.engine) == (40, "nyu40", "torch")


def test_depth_and_probabilities_are_the_modules_upsampled(predictor, image, truth) -> None:
    prediction = predictor(image)
    scores, depth = (torch.from_numpy(t).permute(2, 0, 1)[None] for t in truth[:2])
    depth = F.interpolate(depth.abs(), size=image.shape[:2], mode="bilinear", align_corners=False)[0, 0]
    probabilities = F.interpolate(scores.softmax(1), size=image.shape[:2], mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(prediction.depth, depth.numpy(), atol=1e-3)
    np.testing.assert_allclose(prediction.class_probabilities, probabilities.permute(1, 2, 0).numpy(), atol=1e-3)


def test_merged_classes_have_the_sum_of_their_probabilities(predictor, image) -> None:
    to_13 = predictor.merged(remapping("nyu40", "nyu13"), "nyu13")
    assert (to_13.num_classes, to_13.label_set) == (13, "nyu13") and predictor.num_classes == 40
    expected = remap_probabilities(predictor(image).class_probabilities, "nyu40", "nyu13")
    np.testing.assert_allclose(to_13(image).class_probabilities, expected, atol=1e-5)
    two = to_13.merged(np.arange(13) % 2, "odd and even")
    np.testing.assert_allclose(two(image).class_probabilities[..., 1], expected[..., 1::2].sum(-1), atol=1e-5)
    with pytest.raises(ValueError, match="40"):
        predictor.merged(np.zeros(13, int), "x")


def test_probabilities_alone_and_at_another_size_are_the_same_probabilities(predictor, image) -> None:
    small = predictor(image, size=(66, 50))
    assert small.depth.shape == (50, 66) and small.class_probabilities.shape == (50, 66, 40)
    np.testing.assert_array_equal(predictor.class_probabilities(image, size=(66, 50)), small.class_probabilities)


def test_what_the_mirror_image_says_is_of_the_image(predictor, image) -> None:
    mirror = predictor.class_probabilities(np.ascontiguousarray(image[:, ::-1]), size=(66, 50))[:, ::-1].copy()
    of_mirror = predictor.class_probabilities(image, size=(66, 50), mirrored=True)
    np.testing.assert_allclose(of_mirror, mirror, atol=1e-6)
    assert np.abs(of_mirror - predictor.class_probabilities(image, size=(66, 50))).max() > 0.01


def test_looking_at_the_mirror_image_too_an_image_and_its_mirror_image_are_told_alike(predictor, image) -> None:
    mirror = np.ascontiguousarray(image[:, ::-1])
    seen, seen_in_mirror = predictor(image, mirror_too=True), predictor(mirror, mirror_too=True)
    for name in ("depth", "depth_confidence", "class_probabilities"):
        np.testing.assert_allclose(getattr(seen, name), getattr(seen_in_mirror, name)[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(seen.normals, seen_in_mirror.normals[:, ::-1] * [-1, 1, 1], atol=1e-3)
    alone, alone_in_mirror = predictor(image), predictor(mirror)
    low = np.minimum(alone.depth, alone_in_mirror.depth[:, ::-1])
    high = np.maximum(alone.depth, alone_in_mirror.depth[:, ::-1])
    assert (np.median(high - low) > 0.01) and (((seen.depth > low - 1e-4) & (seen.depth < high + 1e-4)).mean() > 0.95)


def test_an_image_that_is_remembered_says_the_same_again_and_its_depth_is_not_computed(network, image) -> None:
    forgetful, remembering = (Predictor(network, engine="torch") for _ in range(2))
    remembering.remembered, computed = 1, []
    run = remembering._run
    remembering._run = lambda seen: (computed.append(len(computed)), run(seen))[1]
    remembering(image)
    for mirror_too in (False, True):
        told, again = forgetful(image, mirror_too=mirror_too), remembering(image, mirror_too=mirror_too)
        np.testing.assert_array_equal(again.depth, told.depth)
        assert len(computed) == 1 + mirror_too  # the mirror image is another one
    np.testing.assert_array_equal(again.class_probabilities, told.class_probabilities)
    np.testing.assert_array_equal(again.normals, told.normals)
    assert len(computed) == 3
    remembering(255 - image)
    remembering(image)
    assert len(computed) == 5  # only so many are remembered


def test_an_engine_is_asked_by_one_thread_at_a_time(network, image, monkeypatch) -> None:
    """What it returns is valid until it is asked again."""
    predictor, alone = Predictor(network, engine="torch"), Lock()
    run = predictor._run

    def watched(seen: np.ndarray) -> tuple[np.ndarray, ...]:
        assert alone.acquire(blocking=False)
        time.sleep(0.01)
        alone.release()
        return run(seen)

    monkeypatch.setattr(predictor, "_run", watched)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda part: predictor(part, mirror_too=True), [image[i:] for i in range(6)]))


def test_an_image_is_brought_to_the_size_that_the_network_was_trained_for(network, image) -> None:
    half = Predictor(network, {"input_size": [240, 320]}, engine="torch")
    assert half.input_shape(480, 640) == (240, 320)
    assert half.input_shape(240, 320) == (240, 320)
    height, width = half.input_shape(350, 1200)
    assert abs(height * width / (240 * 320) - 1) < 0.01 and abs(width / height - 1200 / 350) < 0.03
    small = Predictor(network, {"input_size": [49, 66]}, engine="torch")
    assert small.outputs(image)[0].shape == (13, 17, 40)
    assert small(image).depth.shape == (98, 131)


def test_a_longer_lens_makes_the_same_picture_farther_away(network, image) -> None:
    trained = Predictor(network, {"input_size": [98, 131], "focal": 100.0}, engine="torch")
    np.testing.assert_allclose(trained(image, focal=150.0).depth, 1.5 * trained(image).depth, rtol=1e-5)
    double = resized(image, (262, 196))
    ratio = trained(double, focal=200.0).depth / trained(double).depth
    np.testing.assert_allclose(ratio, 1.0, rtol=1e-5)  # the same camera with twice the pixels


def test_a_temperature_flattens_the_probabilities_and_keeps_their_order(network, image, predictor) -> None:
    warm = Predictor(network, {"temperature": 3.0}, engine="torch").class_probabilities(image, size=(33, 25))
    plain = predictor.class_probabilities(image, size=(33, 25))
    assert (warm.max(-1) < plain.max(-1)).all()
    np.testing.assert_array_equal(warm.argmax(-1), plain.argmax(-1))


def test_a_network_of_two_label_sets_speaks_one_at_a_time(image) -> None:
    torch.manual_seed(0)
    both = JointNetwork(46).eval()
    indoors, outdoors = (Predictor(both, label_set=name, engine="torch") for name in ("nyu40", "kitti6"))
    assert (indoors.num_classes, outdoors.num_classes) == (40, 6)
    np.testing.assert_allclose(outdoors.class_probabilities(image).sum(-1), 1, atol=1e-5)
    assert Predictor(both, engine="torch").label_set == "nyu40"


def test_weights_come_from_files_and_say_which_classes_they_know(tmp_path, network, image, predictor) -> None:
    metadata = {"class_set": "nyu40", "input_size": [98, 131]}
    checkpoints.save(tmp_path / "net.safetensors", network, metadata, half=False)
    loaded = Predictor.load(tmp_path / "net.safetensors", engine="torch")
    np.testing.assert_array_equal(loaded(image).depth, predictor(image).depth)
    with pytest.raises(ValueError, match=r"net\.safetensors: .*nyu40 \(40 classes\), not kitti6"):
        Predictor.load(tmp_path / "net.safetensors", label_set="kitti6", engine="torch")
    with pytest.raises(FileNotFoundError):
        Predictor.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((8, 9), np.uint8, "grey"),
        ((8, 9, 1), np.uint8, "grey"),
        ((8, 9, 4), np.uint8, "alpha"),
        ((8, 9, 3), np.uint16, "uint16.*256"),
        ((8, 9, 3), np.float32, "float32"),
        ((0, 9, 3), np.uint8, "shape"),
        ((3,), np.uint8, "shape"),
    ],
)
def test_other_kinds_of_images_are_one_clear_line(predictor, shape, dtype, message) -> None:
    for call in (predictor, predictor.class_probabilities):
        with pytest.raises(ValueError, match=message) as error:
            call(np.zeros(shape, dtype))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_engine_returns_the_same_bits_for_any_number_of_threads(name, network, image) -> None:
    """PyTorch does not: `Predictor.same_for_any_threads` says so, and metrics.json with it."""
    if name not in available_engines():
        pytest.skip(f"{name} is not installed here")
    one, two = (open_engine(network, name, threads=threads)(image) for threads in (1, 2))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)
    assert Predictor(network, engine=name).same_for_any_threads
    assert not Predictor(network, engine="torch").same_for_any_threads


@pytest.mark.slow
def test_what_8_bits_take_from_depth_is_given_back_at_calibration(monkeypatch, tmp_path) -> None:
    if "onnxruntime-int8" not in available_engines():
        pytest.skip("onnxruntime is not installed here")
    monkeypatch.setenv("SEMSLAM_CACHE", str(tmp_path))
    torch.manual_seed(3)
    module = JointNetwork(5).eval()
    rng = np.random.default_rng(0)
    images = [resized(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (96, 64)) for _ in range(6)]
    images[1] = np.ascontiguousarray(np.rot90(images[1]))  # a photograph that was taken upright
    exact = open_engine(module, "onnxruntime")
    plain = [exact(image)[1].copy() for image in images]
    quantised = open_engine(module, "onnxruntime-int8", calibration=images[:4])
    errors = [quantised(image)[1] - depth for image, depth in zip(images, plain, strict=True)]
    assert abs(np.mean([error.mean() for error in errors[:4]])) < 1e-4
    assert abs(np.mean(errors[4:])) < 0.02  # other images share the shift
