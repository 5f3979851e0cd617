"""The tasks of a list: one command for each of its lines, or for some of them together."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from semslam.files.reading import names_of

TAKEN = ("tasks", "summary.csv", "summary.html")  # names beside the results of tasks
COMMENT = re.compile(r"(?:^|\s)#.*")  # a name may hold '#'
PLACES = ("{sequence}", "{out}", "{name}")  # in a command: what of a task's own stands there


class Command(NamedTuple):
    """What a task must know of a command of the command line."""

    takes: bool  # whether its first words name what it works on
    needs_out: bool  # whether it must be given --out
    writes_json: bool  # whether it writes its figures with --json


@dataclass(frozen=True)
class Task:
    """A command for one line of a list, or for several."""

    name: str  # unique; of its results and its record
    lines: tuple[str, ...]
    words: tuple[str, ...]  # after `semslam`; `{out}` still stands for where its results go

    @property
    def command(self) -> str:
        return shlex.join(self.words)

    @property
    def input(self) -> str:
        """The line of the list, or the first of several, in words."""
        return f"{self.lines[0]} and {len(self.lines) - 1} more" if len(self.lines) > 1 else self.lines[0]

    def words_for(self, out: Path) -> list[str]:
        """The words with the path of the task's results."""
        return [word.replace("{out}", str(out)) for word in self.words]


def tasks_of(listing: Path, command: str, known: Mapping[str, Command], group: int = 1) -> list[Task]:
    """The tasks of a list, a text file with one sequence, image or run a line; comments begin with '#' at the start of
    a line or after white space.

    command: such as "reconstruct --poses tracked"; PLACES in it stand for the task's own, and where they do not occur
    the lines come first and --out last. known: the commands by name. group: lines that one task takes. ValueError for
    an unknown command, an empty list, or a group where there is room for one line; OSError for a list that cannot be
    read.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"--command is {command!r}: {error}") from None
    if not words or words[0] not in known:
        raise ValueError(f"--command is '{command}', expected one of {', '.join(known)} and its options")
    if group < 1:
        raise ValueError(f"--group is {group}, expected 1 or more lines a task")
    lines = [COMMENT.sub("", line).strip() for line in names_of(listing).splitlines()]
    if any("\0" in line for line in lines):
        raise ValueError(f"{listing}: is not a text file; expected one sequence, image or run a line")
    if not (lines := [line for line in lines if line]):
        raise ValueError(f"{listing}: lists nothing; expected one sequence, image or run a line")
    words = _completed(words, known[words[0]])
    if group > 1 and "{sequence}" not in words:
        raise ValueError(f"--group is {group}, but '{command}' takes one line; write {{sequence}} as a word of its own")
    groups = [tuple(lines[first : first + group]) for first in range(0, len(lines), group)]
    return [Task(name, part, _filled(words, part, name)) for name, part in zip(_names(groups), groups)]


def _completed(words: Sequence[str], command: Command) -> list[str]:
    """The words of a command with the places that it needs."""
    text = " ".join(words)
    completed = [*words]
    options = {word.partition("=")[0] for word in words}
    if "{sequence}" not in text and "{name}" not in text:
        if not command.takes:
            raise ValueError(f"--command '{text}' does not say where a line of the list goes; write {{sequence}} there")
        completed.insert(1, "{sequence}")
    if command.needs_out and "--out" not in options:
        completed += ["--out", "{out}"]
    if command.writes_json and "--json" not in options:
        completed += ["--json", "{out}.json"]
    return completed


def _filled(words: Sequence[str], lines: tuple[str, ...], name: str) -> tuple[str, ...]:
    filled: list[str] = []
    for word in words:
        whole = lines if word == "{sequence}" else [word.replace("{sequence}", lines[0])]
        filled += whole if word == "{sequence}" else [part.replace("{name}", name) for part in whole]
    return tuple(filled)


def _names(groups: Iterable[tuple[str, ...]]) -> list[str]:
    """A name for each group: that of its first line, with a number where it is taken."""
    names: dict[str, None] = {}
    for lines in groups:
        name = re.sub(r"[^\w.-]+", "_", Path(lines[0]).name or lines[0]).strip("._") or "task"
        numbered = (f"{name}-{number}" for number in count(2))
        names[next(free for free in chain([name], numbered) if free not in names and free not in TAKEN)] = None
    return list(names)
