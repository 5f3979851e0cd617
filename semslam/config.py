"""Configurations: frozen dataclasses with working defaults, read from and written to YAML, changed one by one."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import math
import re
import textwrap
import types
import typing
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml

from semslam.atomic import replacing, text_of

T = TypeVar("T")
EXPECTED = {int: "a whole number", str: "text", bool: "true or false"}
MEMORY = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}  # bytes
LONGEST_SHOWN = 60  # characters of a wrong value
LARGEST_FILE, MOST_NESTED, LARGEST_NUMBER = 1 << 20, 50, 1e15  # bytes; of anything that people write as settings
# A setting's comment begins with its unit and a colon: "metres: nearer depth is dropped".
UNITS = ("metres", "metres and radians", "radians", "degrees", "pixels", "seconds", "frames", "keyframes", "points",
         "surfels", "iterations", "grey levels", "grey levels per pixel", "standard deviations",
         "units per metre", "images", "tuples", "steps", "hours")  # fmt: skip


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


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text, because its floats need a dot; people mean a number.

    Without aliases, of which a short text makes a billion values, and not nested without end.
    """

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("settings have no aliases (*name)")
        if self.depth >= MOST_NESTED:
            raise yaml.YAMLError(f"nested more than {MOST_NESTED} deep")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := [name for name, count in names.items() if count > 1]:
            raise yaml.YAMLError(f"{twice[0]} is there twice; leave one of them out")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def load(path: str | Path, kind: type[T]) -> T:
    """The configuration of a YAML file; ValueError names an unknown key, and the known ones, or a wrong type."""
    return from_dict(read(path), kind, str(path))


def read(path: str | Path) -> Any:
    """What a YAML file holds, as plain dicts and lists; an empty file holds no settings."""
    try:
        text = text_of(path, "a YAML configuration", LARGEST_FILE)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; expected a YAML configuration") from None
    if "\0" in text:
        raise ValueError(f"{path}: is not a text file, expected a YAML configuration")
    try:
        return parsed_yaml(text) or {}
    except ValueError as error:
        raise ValueError(f"{path}: not YAML: {error}") from None


def parsed_yaml(text: str) -> Any:
    """What YAML text holds, as plain dicts, lists and scalars; ValueError, one line, where it is none."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except Exception as error:  # PyYAML lets through what its conversions raise, half a dozen kinds
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def save(path: str | Path, config: Any) -> None:
    """Write a configuration with every value it has, defaults included."""
    with replacing(path) as temporary:
        Path(temporary).write_text(to_yaml(config), encoding="utf-8")


def to_yaml(config: Any) -> str:
    """The text that `save` writes."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def to_dict(config: Any) -> Any:
    """Plain dicts, lists and scalars of a configuration."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, (list, tuple)):
        return [to_dict(value) for value in config]
    if isinstance(config, dict):
        return {key: to_dict(value) for key, value in config.items()}
    return str(config) if isinstance(config, Path) else config


def from_dict(values: Any, kind: type[T], where: str) -> T:
    """A configuration dataclass from nested dicts; `where` is named in errors."""
    return _made(values, kind, Where(where))


def updated(config: T, values: Mapping[str, Any], where: str) -> T:
    """The configuration with some settings changed, each by its dotted name: {"slam.fusion.gate": 0.02}.

    Raises ValueError, which names `where` and the setting, for an unknown name or a value of a wrong type.
    """
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    return _updated(config, nested, Where(where))


def parsed(assignment: str) -> tuple[str, Any]:
    """The name and the value of "slam.fusion.gate=0.02"; the value is written as in YAML."""
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"{assignment!r} sets nothing; expected NAME=VALUE, slam.fusion.gate=0.02 for example")
    try:
        return name.strip(), parsed_yaml(text)
    except ValueError as error:
        raise ValueError(f"{assignment!r}: the value is not YAML: {error}") from None


def rename(values: Any, renamed: Mapping[str, str]) -> list[str]:
    """Move settings, in place, from their old dotted names to their new ones; returns the old names that were there.

    Settings whose new name is empty are removed.
    """
    found = []
    for old, new in renamed.items():
        group, target, last = _group(values, old), _group(values, new), old.rpartition(".")[2]
        if group is not None and target is not None and last in group:
            value = group.pop(last)
            if new:
                target[new.rpartition(".")[2]] = value
            found.append(old)
    return found


def _group(values: Any, name: str) -> dict[str, Any] | None:
    """The dict that holds a dotted name; None where there is none."""
    for group in name.split(".")[:-1]:
        values = values.get(group) if isinstance(values, dict) else None
    return values if isinstance(values, dict) else None


def check_choices(config: Any, group: str) -> None:
    """Raise ValueError if a field that is annotated with Literal holds none of its choices; group: its dotted name."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        if typing.get_origin(hints[field.name]) is Literal:
            _convert(getattr(config, field.name), hints[field.name], Where("", f"{group}.{field.name}"), None)


def check_ranges(config: Any, group: str) -> None:
    """Raise ValueError if a field whose annotation has a `Range` lies outside of it; group: its dotted name."""
    kind: Any = type(config)
    for name, hint in _hints(kind).items():
        _check_range(getattr(config, name), hint, Where("", f"{group}.{name}"))


def _check_range(value: Any, hint: Any, where: Where) -> None:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated and value not in arguments[1]:
        raise ValueError(f"{where} is {_shown(value)}, expected {arguments[1]}")
    if origin is tuple:
        for inner in value:
            _check_range(inner, arguments[0], where)
    if origin in (typing.Union, types.UnionType) and value is not None:
        _check_range(value, next(a for a in arguments if a is not type(None)), where)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """The annotations of a dataclass, ranges included."""
    return typing.get_type_hints(kind, include_extras=True)


@dataclasses.dataclass(frozen=True)
class Where:
    """A place in the settings, as errors name it: the file and the dotted name."""

    file: str
    name: str = ""

    def inner(self, key: str) -> Where:
        return Where(self.file, f"{self.name}.{key}" if self.name else key)

    def __str__(self) -> str:
        return ": ".join(word for word in (self.file, self.name and f"`{self.name}`") if word)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting of a configuration, as its dataclass describes it."""

    name: str  # dotted, slam.fusion.gate
    kind: str  # of the value: float, int | null, sensor | predicted
    default: str  # as YAML; empty where a value must be given
    unit: str  # empty where it has none
    meaning: str


def explained(kind: type, prefix: str = "") -> Iterator[Setting]:
    """Every setting of a configuration dataclass, groups entered, with the comments of the source as their meaning."""
    hints, comments = typing.get_type_hints(kind), _comments(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            default = _default(field)
            for setting in explained(typing.cast(type, hint), f"{prefix}{field.name}."):
                value = default
                for name in setting.name[len(prefix) + len(field.name) + 1 :].split("."):
                    value = getattr(value, name, dataclasses.MISSING)  # a group without a default has none to show
                yield setting if value is dataclasses.MISSING else dataclasses.replace(setting, default=_yaml(value))
            continue
        unit, colon, meaning = comments[field.name].partition(": ")
        if not colon or unit not in UNITS:
            unit, meaning = "", comments[field.name]
        yield Setting(f"{prefix}{field.name}", _kind(hint), _yaml(_default(field)), unit, meaning)


def _comments(kind: type) -> dict[str, str]:
    """The comment beside each field in the source of a dataclass, or else the one in the line above it."""
    source = textwrap.dedent(inspect.getsource(kind))
    lines = source.splitlines()
    comments: dict[str, str] = {}
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and node.end_lineno is not None:
            above = lines[node.lineno - 2].strip()
            beside = lines[node.end_lineno - 1].partition("  # ")[2]
            comments[ast.unparse(node.target)] = beside or above.removeprefix("# ") * above.startswith("# ")
    return comments


def _kind(hint: Any) -> str:
    """A type in the words of a settings file."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_kind(argument) for argument in arguments)
    if origin in (tuple, list):
        return f"list of {_kind(arguments[0])}"
    if dataclasses.is_dataclass(hint):
        return "{" + ", ".join(f.name for f in dataclasses.fields(hint)) + "}"
    return {type(None): "null", str: "text", bool: "true | false", Path: "path"}.get(
        hint, getattr(hint, "__name__", "")
    )


def _yaml(value: Any) -> str:
    if value is dataclasses.MISSING:
        return ""
    return yaml.safe_dump(to_dict(value), default_flow_style=True, width=1e6).removesuffix("...\n").strip()


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _made(values: Any, kind: type[T], where: Where) -> T:
    defaults = {f.name: _default(f) for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    checked = _checked(values, kind, where, defaults)
    if missing := [name for name, default in defaults.items() if default is dataclasses.MISSING and name not in values]:
        raise ValueError(f"{where}: lacks {', '.join(missing)}, which has no default")
    with _located(where):
        return kind(**checked)


def drop_unknown(values: Any, kind: type, within: str = "") -> list[str]:
    """Remove from nested dicts what a dataclass has no setting for; the names of what was removed."""
    hints, dropped = typing.get_type_hints(kind), []
    for key in list(values) if isinstance(values, dict) else []:
        if key not in hints:
            del values[key]
            dropped.append(f"{within}{key}")
            continue
        for part in (hints[key], *typing.get_args(hints[key])):
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                dropped += drop_unknown(values[key], part, f"{within}{key}.")
    return dropped


@contextmanager
def _located(where: Where) -> Iterator[None]:
    """Raise what a dataclass says of its values together with the place that they came from."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where.file}: {error}" if where.file else str(error)) from None


def _updated(config: T, values: Any, where: Where) -> T:
    defaults = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    checked = _checked(values, type(config), where, defaults)
    with _located(where):
        return dataclasses.replace(config, **checked)  # type: ignore[type-var]


def _checked(values: Any, kind: type, where: Where, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values with the types of the fields; what a group leaves out has the defaults."""
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {_shown(values)}, expected settings by name: {', '.join(defaults)}")
    hints = _hints(kind)
    for key in values:
        if key not in defaults:
            raise ValueError(f"{where}: unknown setting {key!r}; known ones are {', '.join(defaults)}")
    infinite = {f.name for f in dataclasses.fields(kind) if f.metadata.get("infinite")}  # those that may be
    return {
        key: value
        if key in infinite and value == float("inf")
        else _convert(value, hints[key], where.inner(key), defaults[key])
        for key, value in values.items()
    }


def _convert(value: Any, hint: Any, where: Where, default: Any) -> Any:
    """The value as its annotation says; a group starts from `default`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        converted = _convert(value, arguments[0], where, default)
        _check_range(converted, hint, where)
        return converted
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(value, next(a for a in arguments if a is not type(None)), where, default)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where} is {_shown(value)}, expected one of {', '.join(map(str, arguments))}")
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            return value
        if default is None or default is dataclasses.MISSING:
            return _made(value, typing.cast(type, hint), where)
        return _updated(default, value, where)
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} is {_shown(value)}, expected a list")
        if origin is tuple and Ellipsis not in arguments and len(value) != len(arguments):
            raise ValueError(f"{where} has {len(value)} values, expected {len(arguments)}")
        inner = arguments[0] if arguments else Any
        return origin(_convert(v, inner, where, dataclasses.MISSING) for v in value)
    if hint in (int, float) and type(value) in (int, float) and not abs(value) < LARGEST_NUMBER:
        raise ValueError(f"{where} is {str(value)[:20]}, expected a number below {LARGEST_NUMBER:g}")
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (int, str, bool) and type(value) is not hint:
        raise ValueError(f"{where} is {_shown(value)}, expected {EXPECTED[hint]}")
    if hint is float:
        raise ValueError(f"{where} is {_shown(value)}, expected a number")
    return value


def _shown(value: Any) -> str:
    """A value as messages repeat it: a few words, because it may be a whole file that is none of settings."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def bytes_of(name: str, amount: str) -> int:
    """An amount of memory such as 500MB in bytes; ValueError, which names the setting, for what is none."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]B)\s*", amount, re.IGNORECASE)
    if found is None:
        raise ValueError(f"`{name}` is {amount!r}, expected an amount such as 500MB or 2GB")
    return int(float(found[1]) * MEMORY[found[2].upper()])
