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
from damage import ANY_FILE
from fault_samples import LOADERS, Loader

GIGABYTE = 1 << 30
SECONDS = 10.0  # for one file; the first of a worker, which imports and compiles, may take STARTING
STARTING = 300.0
GOOD = ("value", "refused")
BAD = ("exception", "unclear", "crash", "hang", "over 1 GB")


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
