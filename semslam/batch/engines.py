"""What runs the tasks: processes of this machine, or a Ray cluster. Adding one is a function and a line in ENGINES."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

from semslam.batch.tasks import Task
from semslam.batch.work import LOOK_EVERY, Outcome, Work

Interrupted = Callable[[], bool]  # whether the batch is to end: tasks that were not begun have no outcome then
# (tasks, work, tasks at once, interrupted) -> outcomes as they come
Engine = Callable[[list[Task], Work, int, Interrupted], Iterator[Outcome]]


def local(tasks: list[Task], work: Work, jobs: int, interrupted: Interrupted) -> Iterator[Outcome]:
    """`jobs` processes at once, which share this machine's cores; a command that is interrupted saves what is done."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(work, task, threads, interrupted) for task in tasks}
        try:
            while running:
                done, running = wait(running, LOOK_EVERY, FIRST_COMPLETED)
                yield from (future.result() for future in done)
                if interrupted():
                    running = {future for future in running if not future.cancel()}
        finally:
            for future in running:
                future.cancel()


def on_ray(tasks: list[Task], work: Work, jobs: int, interrupted: Interrupted) -> Iterator[Outcome]:
    """`jobs` tasks at once on the cluster at RAY_ADDRESS, or on one of this machine that is started for them.

    Each gets an equal share of the cores. A task whose worker dies is done again elsewhere, `work.retries` times. What
    runs when it is interrupted ends, and goes on from its last checkpoint another time. ImportError where Ray is not
    installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ImportError("--engine ray needs Ray, which is not installed: pip install ray") from None
    with_cluster = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
    ray.init(log_to_driver=False, logging_level="ERROR", **with_cluster)
    try:
        nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        threads = max(1, min(max(nodes), sum(nodes) // jobs))
        remote = ray.remote(_work).options(num_cpus=threads, max_retries=work.retries)
        waiting = iter(tasks)
        running: dict[Any, Task] = {}
        while True:
            while len(running) < jobs and (task := next(waiting, None)) is not None:
                running[remote.remote(work, task, threads)] = task
            if not running or interrupted():
                return
            ended, _ = ray.wait(list(running), timeout=LOOK_EVERY)
            if not ended:
                continue
            task = running.pop(first := ended[0])
            try:
                yield ray.get(first)
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[0]
                yield Outcome(
                    *(task.name, task.command, False, 1 + work.retries, 0.0, f"its worker died: {reason}"),
                    input=task.input,
                )
    finally:
        ray.shutdown()


def _work(work: Work, task: Task, threads: int) -> Outcome:
    return work(task, threads)


ENGINES: dict[str, Engine] = {"local": local, "ray": on_ray}
