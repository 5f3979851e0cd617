"""What faults.py damages: samples of every kind of file that semslam reads, and the loader that opens them."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from damage import Mutation, forge_image, forge_matlab, forge_yaml, forge_zip


@dataclass(frozen=True)
class Loader:
    """One kind of files: how samples of it are written into a folder, and how one is read.

    A sample may lie beside files that it needs; only the samples named are damaged.
    """

    samples: Callable[[Path], list[Path]]
    load: Callable[[Path], object]
    forge: Mutation | None = None  # damage that keeps the outer form right


def _images(folder: Path, dtype: type, high: int, suffixes: tuple[str, ...], channels: int = 1) -> list[Path]:
    import cv2

    rng = np.random.default_rng(0)
    shape = (48, 64, channels) if channels > 1 else (48, 64)
    coarse = rng.integers(0, high, (6, 8, *shape[2:])).astype(np.float32)
    smooth: np.ndarray = cv2.resize(coarse, (64, 48)).astype(dtype)
    for suffix in suffixes:
        cv2.imwrite(str(folder / f"frame{suffix}"), smooth.reshape(shape))
    return [folder / f"frame{suffix}" for suffix in suffixes]


def _trajectories(folder: Path) -> list[Path]:
    angles = np.linspace(0, 1, 20)
    rows = [(a, np.cos(a), np.sin(a), 0.1 * a, 0.0, 0.0, np.sin(a / 2), np.cos(a / 2)) for a in angles]
    matrices = [[[np.cos(a), -np.sin(a), 0, a], [np.sin(a), np.cos(a), 0, 0], [0, 0, 1, 0.5]] for a in angles]
    texts = {
        "tum.txt": "".join(" ".join(f"{v:.6f}" for v in row) + "\n" for row in rows),
        "kitti.txt": "".join(" ".join(f"{v:.6e}" for v in np.ravel(m)) + "\n" for m in matrices),
        "open3d.log": "".join(
            f"{i} {i} {i + 1}\n" + "".join(" ".join(f"{v:.8f}" for v in row) + "\n" for row in [*m, [0, 0, 0, 1]])
            for i, m in enumerate(matrices)
        ),
        "euroc.csv": "".join(
            f"{int(a * 1e9) + 10**18}," + ",".join(f"{v:.6f}" for v in row[:7]) + "\n" for a, *row in rows
        ),
        "elastic.csv": "".join(f"{int(a * 1e6)}," + ",".join(f"{v:.6f}" for v in row) + "\n" for a, *row in rows),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


def _surfaces(folder: Path) -> list[Path]:
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    triangles = [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1)]
    head = (
        f"ply\nformat {{}} 1.0\nelement vertex {len(corners)}\nproperty float x\nproperty float y\nproperty float z\n"
    )
    head += f"element face {len(triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    text = "".join("{} {} {}\n".format(*c) for c in corners) + "".join("3 {} {} {}\n".format(*t) for t in triangles)
    (folder / "text.ply").write_text(head.format("ascii") + text)
    for name, order in (("binary_little_endian", "<"), ("binary_big_endian", ">")):
        body = b"".join(struct.pack(f"{order}3f", *c) for c in corners)
        body += b"".join(struct.pack(f"{order}B3i", 3, *t) for t in triangles)
        (folder / f"{name}.ply").write_bytes(head.format(name).encode() + body)
    return [folder / "text.ply", folder / "binary_little_endian.ply", folder / "binary_big_endian.ply"]


def _objects(folder: Path) -> list[Path]:
    text = "# a box\nmtllib box.mtl\n" + "".join(
        f"v {x} {y} {z} 0.5 0.5 0.5\n" for x in (0, 1) for y in (0, 1) for z in (0, 1)
    )
    text += "vt 0 0\nvn 0 0 1\nusemtl red\nf 1/1/1 2/1/1 4/1/1\nf 1//1 4//1 3//1\nf 5 7 8 6\nf -8 -4 -3\n"
    (folder / "box.obj").write_text(text)
    (folder / "box.mtl").write_text("newmtl red\nKd 1 0 0\n")
    return [folder / "box.obj"]


def _matlab(folder: Path) -> list[Path]:
    import h5py
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    for name, options in (("plain.mat", {}), ("packed.mat", {"compression": "gzip", "chunks": True})):
        with h5py.File(folder / name, "w") as file:
            file.create_dataset("images", data=rng.integers(0, 255, (3, 3, 16, 12), np.uint8), **options)
            file.create_dataset("labels", data=rng.integers(0, 894, (3, 16, 12)).astype(np.uint16), **options)
            for depths in ("depths", "rawDepths"):
                file.create_dataset(depths, data=rng.random((3, 16, 12), np.float32), **options)
    splits = {"trainNdxs": np.array([[1], [2]], np.uint16), "testNdxs": np.array([[3]], np.uint16)}
    savemat(folder / "splits.mat", splits, do_compression=True)
    savemat(folder / "splits_plain.mat", splits)
    return [folder / name for name in ("plain.mat", "packed.mat", "splits.mat", "splits_plain.mat")]


def _weights(folder: Path) -> list[Path]:
    import torch
    from safetensors.torch import save_file

    from networks.joint.checkpoints import bundled

    tensors = {
        "layer1.0.weight": torch.ones(4, 3, 3, 3),
        "segm.weight": torch.ones(5, 4, 1, 1),
        "depth.weight": torch.ones(1),
    }
    save_file(tensors, folder / "small.safetensors", {"num_classes": "5", "input_size": "[240, 320]", "focal": "259.4"})
    torch.save({"state_dict": tensors}, folder / "small.pth")
    (folder / "whole.safetensors").write_bytes(bundled().read_bytes())
    return [folder / "small.safetensors", folder / "small.pth", folder / "whole.safetensors"]


def _raw(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    (folder / "r-1.5-2.ppm").write_bytes(b"P6\n64 48\n255\n" + rng.bytes(64 * 48 * 3))
    (folder / "d-1.5-2.pgm").write_bytes(b"P5\n64 48\n65535\n" + rng.bytes(64 * 48 * 2))
    return [folder / "r-1.5-2.ppm", folder / "d-1.5-2.pgm"]


def _recordings(folder: Path) -> list[Path]:
    """Small recordings: the text files of a plain and of a TUM folder, and files that hold whole recordings."""
    import cv2

    from sequences import open_sequence
    from sequences.recordings.cameras.klg import write_klg
    from sequences.recordings.folder import write_folder

    sequence = open_sequence("room:frames=4,width=64,height=48")
    plain, tum = write_folder(sequence, folder / "plain"), folder / "tum"
    (tum / "rgb").mkdir(parents=True)
    (tum / "depth").mkdir()
    lists: dict[str, list[str]] = {"rgb": [], "depth": []}
    for kind, source in (("rgb", "color"), ("depth", "depth")):
        for seconds, image in zip(sequence.timestamps, sorted((plain / source).iterdir())):
            (tum / kind / f"{seconds:.6f}.png").write_bytes(image.read_bytes())
            lists[kind].append(f"{seconds:.6f} {kind}/{seconds:.6f}.png\n")
        (tum / f"{kind}.txt").write_text("# timestamp filename\n" + "".join(lists[kind]))
    (tum / "groundtruth.txt").write_bytes((plain / "groundtruth.txt").read_bytes())
    (tum / "camera.yaml").write_bytes((plain / "camera.yaml").read_bytes())
    (folder / "streams").mkdir()
    klg = write_klg(sequence, folder / "streams" / "a.klg")
    sens = folder / "streams" / "b.sens"
    matrices = (sequence.camera.K, np.eye(3), sequence.camera.K, np.eye(3))
    head = struct.pack("<IQ", 4, 6) + b"sensor"
    for matrix in matrices:
        full = np.eye(4, dtype="<f4")
        full[:3, :3] = matrix
        head += full.tobytes()
    sens.write_bytes(head + struct.pack("<iiIIIIfQ", 0, 1, 64, 48, 64, 48, 1000.0, len(sequence)))
    with sens.open("ab") as file:
        for frame in sequence:
            depth = zlib.compress((1000 * np.asarray(frame.depth)).astype("<u2").tobytes())
            file.write(np.asarray(frame.T_world_camera, "<f4").tobytes())
            file.write(struct.pack("<QQQQ", frame.index * 33_333, frame.index * 33_333, frame.color.size, len(depth)))
            file.write(frame.color.tobytes() + depth)
    video = folder / "streams" / "c.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, (64, 48))
    for frame in sequence:
        writer.write(frame.color[..., ::-1])
    writer.release()
    (folder / "streams" / "camera.yaml").write_bytes((plain / "camera.yaml").read_bytes())
    texts = [plain / name for name in ("camera.yaml", "groundtruth.txt")]
    texts += [tum / name for name in ("rgb.txt", "depth.txt", "groundtruth.txt", "camera.yaml")]
    return [*texts, klg, sens, video]


def _run(folder: Path) -> list[Path]:
    """The files of a run of three small frames, made by the command itself."""
    command = ["reconstruct", "room:frames=3,width=64,height=48", "--labels", "truth", "--out", str(folder)]
    subprocess.run([sys.executable, "-m", "semslam.cli", *command], check=True, capture_output=True)
    return [folder / name for name in ("map.npz", "associations.npz", "map.ply", "mesh.ply", "config.yaml")]


def _of_run(*names: str) -> Callable[[Path], list[Path]]:
    return lambda folder: [path for path in _run(folder) if path.name in names]


def _camera(folder: Path) -> list[Path]:
    text = "width: 640\nheight: 480\nfx: 525.0\nfy: 525.0\ncx: 319.5\ncy: 239.5\ndepth_scale: 1000.0\nfps: 30.0\n"
    (folder / "camera.yaml").write_text(text + "distortion: [0.1, -0.2, 0.001, 0.002, 0.05]\n")
    return [*_of_run("config.yaml")(folder), folder / "camera.yaml"]


def _load_color(path: Path) -> object:
    from semslam.images import read_color

    return read_color(path)


def _load_depth(path: Path) -> object:
    from semslam.images import read_depth

    return read_depth(path)


def _load_labels(path: Path) -> object:
    from semslam.images.labels import read_labels

    return read_labels(path)


def _load_trajectory(path: Path) -> object:
    from semslam.trajectory.files import read_trajectory

    return read_trajectory(path)


def _load_settings(path: Path) -> object:
    from semslam import config
    from semslam.runs.run import RunConfig
    from sequences.recordings.folder import read_camera

    return read_camera(path) if path.name == "camera.yaml" else config.load(path, RunConfig)


def _load_surface(path: Path) -> object:
    from semslam.geometry.export import read_map_ply, read_mesh_ply
    from semslam.geometry.files import read_surface

    by_name: dict[str, Callable[[Path], object]] = {"map.ply": read_map_ply, "mesh.ply": read_mesh_ply}
    return by_name.get(path.name, read_surface)(path)


def _load_matlab(path: Path) -> object:
    from sequences.images.nyu_mat import NyuMat

    if path.name.startswith("splits"):
        return NyuMat(path.with_name("plain.mat"), split="train", splits=path)[0]
    return list(NyuMat(path))


def _load_run(path: Path) -> object:
    from semslam.engine.labels.evidence_map import EvidenceMap
    from semslam.runs.folder import RunFolder

    folder = RunFolder(path.parent)
    if path.name == "map.npz":
        return folder.load_cloud(), folder.load_progress()
    associations = folder.load_associations(folder.load_state())
    if associations is None:
        raise ValueError(f"{path}: not there")
    associations.fuse_again(EvidenceMap(13), lambda *_: None, image=np.iinfo(np.int32).max)
    return associations


def _load_recording(path: Path) -> object:
    from sequences import open_sequence

    sequence = open_sequence(path.parent if path.suffix in (".txt", ".yaml") else path)
    return sequence.trajectory, sequence[0], sequence[len(sequence) - 1]


def _load_weights(path: Path) -> object:
    from networks.joint.checkpoints import load, read_tensors

    return load(path) if path.name == "whole.safetensors" else read_tensors(path)


def _load_raw(path: Path) -> object:
    from semslam.images import read_color
    from sequences.recordings.nyu_raw import read_projected_depth

    return read_color(path) if path.suffix == ".ppm" else read_projected_depth(path)


LOADERS = {
    "color": Loader(lambda f: _images(f, np.uint8, 255, (".png", ".jpg"), channels=3), _load_color, forge_image),
    "depth": Loader(lambda f: _images(f, np.uint16, 5000, (".png",)), _load_depth, forge_image),
    "labels": Loader(lambda f: _images(f, np.uint8, 41, (".png",)), _load_labels, forge_image),
    "raw": Loader(_raw, _load_raw),
    "trajectory": Loader(_trajectories, _load_trajectory),
    "settings": Loader(_camera, _load_settings, forge_yaml),
    "ply": Loader(lambda f: [*_of_run("map.ply", "mesh.ply")(f), *_surfaces(f)], _load_surface),
    "obj": Loader(_objects, _load_surface),
    "mat": Loader(_matlab, _load_matlab, forge_matlab),
    "run": Loader(_of_run("map.npz", "associations.npz"), _load_run, forge_zip),
    "weights": Loader(_weights, _load_weights),
    "recordings": Loader(_recordings, _load_recording, forge_yaml),
}
