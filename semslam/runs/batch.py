"""Many sequences by one command: each a task in a process of its own, recorded when done, tried again when not."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from semslam.atomic import replacing

KNOWN_COMMANDS = ("reconstruct", "doctor", "convert", "evaluate", "relabel", "refine", "export", "compare", "score")
WITH_OUT = ("reconstruct", "export", "compare", "relabel")  # commands that take --out
FIGURES = ("frames", "frames_fused", "frames_lost", "surfels", "frames_per_second")  # of metrics.json, in the summary


@dataclass(frozen=True)
class Task:
    """One sequence and the words of the command for it."""

    name: str  # unique; of its folder and its record
    sequence: str
    words: tuple[str, ...]  # after `semslam`


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    name: str
    sequence: str
    command: str
    ok: bool
    attempts: int
    seconds: float
    message: str = ""  # the last line of what it printed, where it failed
    fresh: bool = True  # False: it was done before


def tasks_of(listing: Path, command: str, out: Path) -> list[Task]:
    """The tasks of a list of sequences, one a line, '#' before a comment.

    command: such as "reconstruct --poses tracked"; {sequence}, {out} and {name} stand for the task's own, and where
    they do not occur the sequence comes first and --out last. ValueError for an unknown command or an empty list.
    """
    words = shlex.split(command)
    if not words or words[0] not in KNOWN_COMMANDS:
        raise ValueError(f"--command is '{command}', expected one of {', '.join(KNOWN_COMMANDS)} and its options")
    if not listing.is_file():
        raise ValueError(f"{listing}: no such list; expected a text file with a sequence a line")
    sequences = [line.split("#")[0].strip() for line in listing.read_text(encoding="utf-8-sig").splitlines()]
    names: dict[str, int] = {}
    tasks = []
    for sequence in filter(None, sequences):
        name = re.sub(r"[^\w.-]+", "_", Path(sequence).name or sequence).strip("._") or "sequence"
        names[name] = names.get(name, 0) + 1
        name = name if names[name] == 1 else f"{name}-{names[name]}"
        place = {"{sequence}": sequence, "{out}": str(out / name), "{name}": name}
        filled = [_filled(word, place) for word in words]
        if "{sequence}" not in command:
            filled.insert(1, sequence)
        if "{out}" not in command and words[0] in WITH_OUT and "--out" not in words:
            filled += ["--out", str(out / name)]
        tasks.append(Task(name, sequence, tuple(filled)))
    if not tasks:
        raise ValueError(f"{listing}: lists no sequences; expected one a line")
    return tasks


def _filled(word: str, place: dict[str, str]) -> str:
    for mark, value in place.items():
        word = word.replace(mark, value)
    return word


def run_tasks(
    tasks: list[Task], out: Path, jobs: int = 1, retries: int = 1, tell: Callable[[Outcome], object] = lambda _: None
) -> list[Outcome]:
    """Run the tasks in `jobs` processes at once; outcomes in the order of the tasks. One that fails stops no other.

    A task that was done before, by the same command, is not run again: its record lies in out/tasks. A task that
    fails is tried again `retries` times; `reconstruct` then goes on where it was interrupted.
    """
    if jobs < 1 or retries < 0:
        raise ValueError(f"--jobs is {jobs}, --retries {retries}; expected at least 1 and 0")
    (out / "tasks").mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    waiting = []
    for task in tasks:
        done = _recorded(out, task)
        if done is None:
            waiting.append(task)
        else:
            outcomes[task.name] = done
            tell(done)
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(_run, task, out, jobs, retries) for task in waiting]
        try:
            for future in as_completed(futures):
                outcome = future.result()
                outcomes[outcome.name] = outcome
                tell(outcome)
        finally:
            for future in futures:
                future.cancel()
    return [outcomes[task.name] for task in tasks]


def _run(task: Task, out: Path, jobs: int, retries: int) -> Outcome:
    began, ok, lines = time.perf_counter(), False, [""]
    log = out / "tasks" / f"{task.name}.log"
    environment = os.environ | {"NUMBA_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    attempts = 0
    while attempts <= retries and not ok:
        attempts += 1
        words = [*task.words]
        if words[0] == "reconstruct" and attempts > 1 and "--resume" not in words:
            words.append("--resume")
        with log.open("w", encoding="utf-8") as file:
            code = subprocess.run(
                [sys.executable, "-m", "semslam.cli", *words], stdout=file, stderr=subprocess.STDOUT, env=environment
            ).returncode
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
        ok = code == 0
        if not ok and code < 0:
            lines.append(f"ended by signal {-code}")
    seconds = time.perf_counter() - began
    outcome = Outcome(
        task.name, task.sequence, shlex.join(task.words), ok, attempts, round(seconds, 3), "" if ok else lines[-1][:300]
    )
    with replacing(out / "tasks" / f"{task.name}.json") as temporary:
        temporary.write_text(json.dumps(asdict(outcome), indent=1), encoding="utf-8")
    return outcome


def _recorded(out: Path, task: Task) -> Outcome | None:
    """The outcome of a task that was done before by the same command; None where it has to be run."""
    try:
        values = json.loads((out / "tasks" / f"{task.name}.json").read_text(encoding="utf-8"))
        outcome = Outcome(**values | {"fresh": False})
    except (OSError, TypeError, ValueError):
        return None
    return outcome if outcome.ok and outcome.command == shlex.join(task.words) else None


def summary(outcomes: list[Outcome], out: Path) -> Iterator[dict[str, object]]:
    """A row for every task: name, whether it went well, time, and what its metrics.json says."""
    for outcome in outcomes:
        row: dict[str, object] = {"name": outcome.name, "ok": outcome.ok, "attempts": outcome.attempts}
        row["seconds"] = outcome.seconds
        try:
            metrics = json.loads((out / outcome.name / "metrics.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            metrics = {}
        row |= {name: metrics.get(name, "") for name in FIGURES}
        yield row | {"message": outcome.message}


def write_summary(rows: list[dict[str, object]], path: Path) -> None:
    """Write the rows as CSV."""
    import csv

    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
