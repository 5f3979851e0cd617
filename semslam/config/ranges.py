"""What settings may be: ranges of numbers and choices of words, as annotations of a dataclass's fields."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
import typing
from typing import Annotated, Any, Literal

MEMORY = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}  # bytes
LONGEST_SHOWN = 60  # characters of a wrong value


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a setting may be: an annotation of its type, such as `width: Annotated[int, Range(1, 640)]`."""

    least: float
    most: float = math.inf
    open: bool = False  # whether `least` itself is too little

    def __contains__(self, value: float) -> bool:
        return (self.least < value if self.open else self.least <= value) and value <= self.most

    def __str__(self) -> str:
        if self.most == math.inf:
            return f"more than {self.least:g}" if self.open else f"{self.least:g} or more"
        return f"{f'more than {self.least:g}, at most' if self.open else f'{self.least:g} to'} {self.most:.9g}"


Positive = Annotated[float, Range(0, open=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Correlation = Annotated[float, Range(-1, 1)]
Turn = Annotated[float, Range(0, 180)]  # degrees
Gate = Annotated[float, Range(0, 90, open=True)]  # degrees between normals
Natural = Annotated[int, Range(0, 1e9)]
Count = Annotated[int, Range(1, 1e9)]
Iterations = Annotated[int, Range(0, 1000)]


@dataclasses.dataclass(frozen=True)
class Where:
    """A place in the settings, as errors name it: the file and the dotted name."""

    file: str
    name: str = ""

    def inner(self, key: str) -> Where:
        return Where(self.file, f"{self.name}.{key}" if self.name else key)

    def __str__(self) -> str:
        return ": ".join(word for word in (self.file, self.name and f"`{self.name}`") if word)


def check_choices(config: Any, group: str) -> None:
    """Raise ValueError if a field that is annotated with Literal holds none of its choices; group: its dotted name,
    empty for the whole of the settings."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        if typing.get_origin(hints[field.name]) is Literal:
            check_choice(getattr(config, field.name), hints[field.name], Where("", group).inner(field.name))


def check_choice(value: Any, hint: Any, where: Where) -> None:
    """Raise ValueError if a value is none that a Literal names."""
    if value not in (choices := typing.get_args(hint)):
        raise ValueError(f"{where} is {shown(value)}, expected one of {', '.join(map(str, choices))}")


def check_ranges(config: Any, group: str) -> None:
    """Raise ValueError if a field whose annotation has a `Range` lies outside of it; group: its dotted name, empty for
    the whole of the settings."""
    kind: Any = type(config)
    for name, hint in hints_of(kind).items():
        check_range(getattr(config, name), hint, Where("", group).inner(name))


def check_range(value: Any, hint: Any, where: Where) -> None:
    """Raise ValueError if a value, or one of a tuple or dict, is outside of the `Range` that its annotation has."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated and value not in arguments[1]:
        raise ValueError(f"{where} is {shown(value)}, expected {arguments[1]}")
    if origin is tuple:
        for inner, inner_hint in zip(value, members_of(hint, len(value), where), strict=True):
            check_range(inner, inner_hint, where)
    if origin is dict:
        for name, inner in value.items():
            check_range(inner, arguments[1], where.inner(str(name)))
    if origin in (typing.Union, types.UnionType) and value is not None:
        check_range(value, next(a for a in arguments if a is not type(None)), where)


def members_of(hint: Any, count: int, where: Where) -> tuple[Any, ...]:
    """The annotations of the `count` members of a tuple or list, in a tuple of fixed length one for each of them;
    ValueError for another length."""
    arguments = typing.get_args(hint) or (Any, Ellipsis)
    if typing.get_origin(hint) is not tuple or Ellipsis in arguments:
        return arguments[:1] * count
    if count != len(arguments):
        raise ValueError(f"{where} has {count} values, expected {len(arguments)}")
    return arguments


@functools.cache
def hints_of(kind: type) -> dict[str, Any]:
    """The annotations of a dataclass, ranges included."""
    return typing.get_type_hints(kind, include_extras=True)


def shown(value: Any) -> str:
    """A value as messages repeat it: a few words, because it may be a whole file that is none of settings."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def bytes_of(name: str, amount: str) -> int:
    """An amount of memory such as 500MB in bytes; ValueError, which names the setting, for what is none."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]B)\s*", amount, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise ValueError(f"`{name}` is {amount!r}, expected an amount such as 500MB or 2GB")
    return int(float(found[1]) * MEMORY[found[2].upper()])
