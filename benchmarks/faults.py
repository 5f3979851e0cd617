"""Damaged files of every kind that semslam reads: each must give a value, or one line that names the file.

    python benchmarks/faults.py [--count 10000] [--only LOADER ...] [--keep FOLDER] [--kills 100]

Every loader reads `count` mutated files in worker processes that may take 1 GB more than they start with and a few
seconds per file. Printed for each loader: how many files gave a value, how many were refused in one line, and how many
ended otherwise: in an exception of another kind, in a line that does not name the file, in a crash, in a hang, over
1 GB. The same seed gives the same files. `--keep` collects the files that ended otherwise.
At the end `--kills` runs are killed at random moments and resumed, see kills.py.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import resource
import selectors
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from damage import ANY_FILE, Mutation, forge_image, forge_matlab, forge_yaml, forge_zip

GIGABYTE = 1 << 30
SECONDS = 10.0  # for one file; the first of a worker, which imports and compiles, may take STARTING
STARTING = 300.0
GOOD = ("value", "refused")
BAD = ("exception", "unclear", "crash", "hang", "over 1 GB")


# --- what is read: samples, and the loader that opens them by their names ---------------------------------------------


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


# --- a worker: one process, one loader, many files --------------------------------------------------------------------

NOT_FILES = ("missing", "folder", "pipe", "endless", "dangling", "forbidden")  # the first indices are these


def place(path: Path, samples: dict[Path, bytes], loader: Loader, rng: np.random.Generator, index: int) -> str:
    """Put damaged content, or something that is no file, at a path; what was done, in a word."""
    if path.is_symlink() or path.exists():
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    if index < len(NOT_FILES):
        match NOT_FILES[index]:
            case "folder":
                path.mkdir()
            case "pipe":
                os.mkfifo(path)
            case "endless":
                path.symlink_to("/dev/zero")
            case "dangling":
                path.symlink_to("nowhere")
            case "forbidden":
                path.write_bytes(samples[path])
                path.chmod(0)
        return NOT_FILES[index]
    mutations = [*ANY_FILE, *([loader.forge] * 4 if loader.forge else [])]
    mutation = mutations[rng.integers(len(mutations))]
    others = list(samples.values())
    path.write_bytes(mutation(samples[path], others[rng.integers(len(others))], rng))
    return mutation.__name__


def judge(load: Callable[[Path], object], path: Path) -> tuple[str, str]:
    """How reading a path ends: a key of GOOD or BAD, and what to look at where it is bad."""
    try:
        load(path)
    except (ValueError, OSError) as error:
        text = str(error)
        if "\n" in text.strip() or not (path.name in text or str(path.parent) in text):
            return "unclear", f"{type(error).__name__}: {text}"
        return "refused", text
    except MemoryError as error:
        return "over 1 GB", f"MemoryError: {error} {_where(error)}"
    except Exception as error:
        kind = "over 1 GB" if "memory" in str(error).lower() else "exception"
        return kind, f"{type(error).__name__}: {error} {_where(error)}"
    return "value", ""


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace else ""


def _status(name: str) -> int:
    """Bytes of a line of /proc/self/status: VmSize, VmHWM, VmRSS."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]


def work(name: str, first: int, last: int, seed: int, folder: Path, keep: Path | None) -> None:
    """Read the damaged files first..last-1 of a loader; a line of JSON before and after each on standard output."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is not ours
    warnings.simplefilter("ignore")
    loader = LOADERS[name]
    originals = {
        path: path.read_bytes() for path in sorted(map(Path, json.loads((folder / "samples.json").read_text())))
    }
    for path in originals:
        outcome, detail = judge(loader.load, path)  # imports and compiles, which the limit shall not count
        if outcome != "value":
            out.write(json.dumps({"broken": f"the undamaged {path.name} does not load: {outcome}, {detail}"}) + "\n")
            return
    size = _status("VmSize") + GIGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    for index in range(first, last):
        rng = np.random.default_rng((seed, zlib.crc32(name.encode()), index))
        path = list(originals)[rng.integers(len(originals))]
        done = place(path, originals, loader, rng, index)
        about = {"index": index, "of": str(path), "damage": done}
        out.write(json.dumps(about) + "\n")
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = _status("VmRSS")
        outcome, detail = judge(loader.load, path)
        taken = _status("VmHWM") - before
        if taken > GIGABYTE:
            outcome, detail = "over 1 GB", f"{taken / GIGABYTE:.1f} GB"
        if outcome in BAD and keep is not None and path.is_file():
            _keep(path, keep / f"{name}_{index}{path.suffix}")
        out.write(json.dumps(about | {"outcome": outcome, "detail": detail}) + "\n")
        if path.is_symlink() or not path.is_file() or index < len(NOT_FILES):
            place(path, originals, loader, rng, NOT_FILES.index("missing"))
        path.write_bytes(originals[path])
    out.write(json.dumps({"done": True}) + "\n")


def _keep(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(path.read_bytes())


# --- the parent: starts workers anew where they crash or hang ---------------------------------------------------------


@dataclass
class Report:
    """What became of one loader's files."""

    counts: Counter = field(default_factory=Counter)
    bad: list[dict] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, entry: dict) -> None:
        self.counts[entry["outcome"]] += 1
        if entry["outcome"] in BAD:
            self.bad.append(entry)


def _lines(process: subprocess.Popen) -> Iterator[dict | None]:
    """The worker's lines as they come; None where it is silent for too long."""
    assert process.stdout is not None
    pending, patience = b"", STARTING
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(patience):
                yield None
                return
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                return
            patience = SECONDS
            *lines, pending = (pending + chunk).split(b"\n")
            yield from (json.loads(line) for line in lines)


def damaged_files(name: str, count: int, seed: int = 0, keep: Path | None = None) -> Report:
    """Read `count` damaged files of a loader in worker processes."""
    report, start = Report(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix=f"faults_{name}_") as temporary:
        folder = Path(temporary)
        (folder / "samples.json").write_text(json.dumps([str(path) for path in LOADERS[name].samples(folder)]))
        originals = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        first = 0
        while first < count:
            for path, content in originals.items():  # a worker that died left a damaged one
                if path.is_symlink() or path.exists():
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
                path.write_bytes(content)
            first = _one_worker(name, first, count, seed, folder, keep, report)
    report.seconds = time.perf_counter() - start
    return report


def _one_worker(name: str, first: int, count: int, seed: int, folder: Path, keep: Path | None, report: Report) -> int:
    """Let one worker go on from `first`; the index to go on from after its end."""
    command = [
        sys.executable,
        __file__,
        "--work",
        name,
        str(first),
        str(count),
        str(seed),
        str(folder),
        str(keep or ""),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    begun: dict = {"index": first - 1}
    silent = False
    try:
        for line in _lines(process):
            if line is None:
                silent = True
                break
            if line.get("done"):
                return count
            if "broken" in line:
                raise RuntimeError(f"{name}: {line['broken']}")
            if "outcome" in line:
                report.add(line)
            else:
                begun = line
        if begun["index"] < first:
            raise RuntimeError(f"the worker of {name} did not start: {' '.join(command)}")
    finally:
        process.kill()
        process.wait()
    if sum(report.counts.values()) == begun["index"]:  # the last one begun did not end
        outcome, detail = ("hang", "") if silent else ("crash", f"exit status {process.returncode}")
        report.add(begun | {"outcome": outcome, "detail": detail})
        damaged = Path(begun["of"])
        if keep is not None and damaged.is_file():
            _keep(damaged, keep / f"{name}_{begun['index']}{damaged.suffix}")
    return begun["index"] + 1


def main() -> None:
    """Damage, read, count; exit status 1 where anything ended otherwise than it should."""
    if sys.argv[1:2] == ["--work"]:
        name, first, last, seed, folder, keep = sys.argv[2:]
        work(name, int(first), int(last), int(seed), Path(folder), Path(keep) if keep else None)
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="files of each loader")
    parser.add_argument("--only", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--kills", type=int, default=100, help="runs that are killed and resumed, too; 0 = none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="loaders at the same time")
    parser.add_argument("--keep", type=Path, help="folder for the files that ended otherwise")
    arguments = parser.parse_args()
    print(f"{'loader':<12}{'files':>8}" + "".join(f"{outcome:>11}" for outcome in (*GOOD, *BAD)) + f"{'seconds':>9}")
    failed = False
    read = functools.partial(damaged_files, count=arguments.count, seed=arguments.seed, keep=arguments.keep)
    with ThreadPoolExecutor(arguments.workers) as pool:
        for name, report in zip(arguments.only, pool.map(read, arguments.only)):
            counts = "".join(f"{report.counts[outcome]:>11}" for outcome in (*GOOD, *BAD))
            print(f"{name:<12}{sum(report.counts.values()):>8}{counts}{report.seconds:>9.0f}", flush=True)
            failed = failed or bool(report.bad)
            seen: Counter = Counter()
            for entry in report.bad:
                seen[entry["outcome"]] += 1
                if seen[entry["outcome"]] <= 5:
                    text = " ".join(entry["detail"].split())[:200]
                    about = f"{entry['index']}, {entry['damage']} of {Path(entry['of']).name}"
                    print(f"    {entry['outcome']}: file {about}: {text}", flush=True)
    if arguments.kills:
        import kills  # here, because the workers need nothing of it

        failed = not kills.report(kills.kills(arguments.kills, arguments.seed)) or failed
    sys.exit(failed)


if __name__ == "__main__":
    main()
