"""One task: its command in a process of its own, tried again when it fails, recorded when it is done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from semslam.batch.results import Results
from semslam.batch.tasks import Task

CHILD = "semslam.batch.child"  # the module that runs a command
INTERRUPTED = (130, -signal.SIGINT)  # exit codes of a command that Ctrl-C ended
WRONG_USE = 2  # exit code of a command that says what is wrong: another attempt would end like the first
LOOK_EVERY = 0.1  # seconds between two looks at whether a command has ended, or the batch was interrupted
BOX = " \t│╭╮╰╯─"  # what the command line frames its own messages with
LONGEST_MESSAGE = 300  # characters
_running: set[subprocess.Popen[bytes]] = set()  # commands of this process


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    name: str
    command: str
    ok: bool
    attempts: int
    seconds: float
    message: str = ""  # the last line of what it printed, where it failed
    figures: Mapping[str, float] = field(default_factory=dict)  # single numbers of its metrics.json, or of its --json
    input: str = ""  # what of the list it was given


@dataclass(frozen=True)
class Work:
    """What all tasks of a batch have in common."""

    results: Results
    retries: int  # attempts after the first
    cwd: str  # where relative paths of the list start

    def __call__(self, task: Task, threads: int, interrupted: Callable[[], bool] = lambda: False) -> Outcome:
        """Do a task, with so many threads; what goes wrong is in the outcome.

        interrupted: asked again and again; once it says so, the command is interrupted as by Ctrl-C, and not retried.
        """
        began, attempts, problem, hopeless = time.perf_counter(), 0, "not tried", False
        while problem and attempts <= self.retries and not hopeless:
            attempts += 1
            try:
                problem, hopeless = self._attempt(task, threads, interrupted)
            except OSError as error:  # no room for its log, or no process to be had
                problem = f"cannot be begun: {error}"
            hopeless = hopeless or interrupted()  # not every command ends with a code that says so
        seconds = round(time.perf_counter() - began, 3)
        figures = {} if problem else self._figures(task)
        try:
            self.results.deliver(task.name, whole=not problem)
        except Exception as error:  # storage raises kinds of its own
            unwritten = f"{self.results.address}: cannot be written ({type(error).__name__}: {error})"
            problem = f"{problem}; {unwritten}" if problem else unwritten
        message = problem[:LONGEST_MESSAGE]
        return self._recorded(
            Outcome(task.name, task.command, not problem, attempts, seconds, message, figures, input=task.input)
        )

    def done_before(self, task: Task) -> Outcome | None:
        """The outcome of a task that was done before by the same command; None where it has to be done."""
        try:
            kept = json.loads(self.results.read(_record(task.name)))
            outcome = Outcome(**kept)
        except (OSError, TypeError, ValueError):
            return None
        written = [word.partition("=")[2] or word for word in task.words if "{out}" in word]
        is_there = all(self.results.has(word.replace("{out}", task.name)) for word in written)
        return outcome if outcome.ok and outcome.command == task.command and is_there else None

    def _attempt(self, task: Task, threads: int, interrupted: Callable[[], bool]) -> tuple[str, bool]:
        """Run the command once; why it failed, or nothing, and whether another attempt would be in vain."""
        workplace = self.results.workplace(task.name)
        log = workplace / "tasks" / f"{task.name}.log"
        log.parent.mkdir(exist_ok=True)
        out = workplace / task.name
        words = task.words_for(out)
        if words[0] == "reconstruct" and not {"--resume", "--overwrite"} & {*words} and out.exists():
            words.append("--resume")  # with what an earlier attempt, perhaps of a process that was killed, has left
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", CHILD, *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"NUMBA_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)},
                cwd=self.cwd if Path(self.cwd).is_dir() else None,
                process_group=0,  # a terminal's Ctrl-C reaches it through us alone: once, and told as such
            )
            _running.add(process)
            try:
                _let_end(process, interrupted)
            finally:
                _running.discard(process)
                _end_group(process)
            code = process.wait()
        if code == 0:
            return "", False
        if code in INTERRUPTED:
            return "interrupted; the same command goes on", True
        if code < 0:
            return f"ended by signal {-code}", False
        lines = (line.strip(BOX) for line in log.read_text(encoding="utf-8", errors="replace").splitlines())
        said = [line for line in lines if line]
        return said[-1] if said else f"ended with exit code {code}", code == WRONG_USE

    def _figures(self, task: Task) -> dict[str, float]:
        """Single numbers among what the command says of its result."""
        place = self.results.workplace(task.name)
        written = [place / f"{task.name}.json"] if "{out}.json" in task.command else []  # else it is of another one
        for path in (*written, place / task.name / "metrics.json"):
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(values, dict):
                return {name: value for name, value in values.items() if type(value) in (int, float)}
        return {}

    def _recorded(self, outcome: Outcome) -> Outcome:
        try:
            self.results.write(_record(outcome.name), json.dumps(asdict(outcome), indent=1))
        except Exception as error:
            message = f"{self.results.address}: the record cannot be written ({type(error).__name__}: {error})"
            return replace(outcome, ok=False, message=message[:LONGEST_MESSAGE], figures={})
        return outcome


@contextmanager
def pausing_together() -> Iterator[None]:
    """Ctrl-Z makes the commands that run rest with this process, and go on with it: they are not in its group.

    A command's own workers, of a training for example, are in the group that it leads, and rest with it.
    """

    def pause(number: int, frame: object) -> None:
        resting = [process for process in _running if not _has_ended(process)]
        for process in resting:
            _signal_group(process, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)  # it returns when we go on
        for process in resting:
            _signal_group(process, signal.SIGCONT)

    if not hasattr(signal, "SIGTSTP"):  # Windows has neither
        yield
        return
    before = signal.signal(signal.SIGTSTP, pause)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a command and its workers; nothing where all have ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a command, and what is left of its workers."""
    if hasattr(os, "killpg"):
        _signal_group(process, signal.SIGKILL)
    else:
        process.kill()


def _let_end(process: subprocess.Popen[bytes], interrupted: Callable[[], bool]) -> None:
    """Wait until a process has ended, which is interrupted once if we are."""
    told = False
    while not _has_ended(process):
        time.sleep(LOOK_EVERY)
        if interrupted() and not told:
            os.kill(process.pid, signal.SIGINT)  # `send_signal` would ask for the exit code
            told = True


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has ended; its id, which is that of its group, stays its own until `wait` asks for its exit
    code."""
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _record(name: str) -> str:
    return f"tasks/{name}.json"


def undone(tasks: list[Task], work: Work) -> tuple[list[Task], list[Outcome]]:
    """Tasks that have to be done, and the outcomes of the others."""
    before: dict[str, Any] = {task.name: work.done_before(task) for task in tasks}
    return [task for task in tasks if before[task.name] is None], [found for found in before.values() if found]
