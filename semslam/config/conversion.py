"""Configurations: frozen dataclasses with working defaults, made of plain dicts and changed one by one."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml

from semslam.config.ranges import Where, check_choice, check_range, hints_of, members_of, shown
from semslam.config.text import parsed_yaml, read
from semslam.files.writing import replacing

T = TypeVar("T")
EXPECTED = {int: "a whole number", str: "text", bool: "true or false"}
LARGEST_NUMBER = 1e15


def load(path: str | Path, kind: type[T]) -> T:
    """The configuration of a YAML file; ValueError names an unknown key, and the known ones, or a wrong type."""
    return from_dict(read(path), kind, str(path))


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


def updated(config: T, values: Mapping[str, Any] | Iterable[tuple[str, Any]], where: str) -> T:
    """The configuration with some settings changed, each by its dotted name: {"slam.fusion.gate": 0.02}.

    Of one setting that is named twice the later value holds; all are checked together, after the last.
    Raises ValueError, which names `where` and the setting, for an unknown name or a value of a wrong type.
    """
    nested: Any = {}
    for name, value in values.items() if isinstance(values, Mapping) else values:
        for part in reversed(name.split(".")):
            value = {part: value}
        nested = _joined(nested, value, Where(where))
    return _updated(config, nested, Where(where))


def _joined(settings: Any, later: Any, where: Where) -> Any:
    """Settings and later ones: groups, which are dicts, are joined, and any other value replaces the one before."""
    if isinstance(settings, dict) != isinstance(later, dict):
        value = settings if isinstance(later, dict) else later
        raise ValueError(f"{where} is set to {shown(value)}, and settings within it are set too; leave one of them out")
    if not isinstance(settings, dict):
        return later
    both = {key: _joined(settings[key], later[key], where.inner(str(key))) for key in later if key in settings}
    return settings | later | both


def parsed(assignment: str) -> tuple[str, Any]:
    """The name and the value of "slam.fusion.gate=0.02"; the value is written as in YAML."""
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"{assignment!r} sets nothing; expected NAME=VALUE, slam.fusion.gate=0.02 for example")
    try:
        return name.strip(), parsed_yaml(text)
    except ValueError as error:
        raise ValueError(f"{assignment!r}: the value is not YAML: {error}") from None


def default_of(field: dataclasses.Field) -> Any:
    """The default of a dataclass's field; MISSING where it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _made(values: Any, kind: type[T], where: Where) -> T:
    defaults = {f.name: default_of(f) for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    checked = _checked(values, kind, where, defaults)
    if missing := [name for name, default in defaults.items() if default is dataclasses.MISSING and name not in values]:
        raise ValueError(f"{where}: lacks {', '.join(missing)}, which has no default")
    with _located(where):
        return kind(**checked)


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
        raise ValueError(f"{where} is {shown(values)}, expected settings by name: {', '.join(defaults)}")
    hints = hints_of(kind)
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
        check_range(converted, hint, where)
        return converted
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(value, next(a for a in arguments if a is not type(None)), where, default)
    if origin is Literal:
        check_choice(value, hint, where)
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            return value
        if default is None or default is dataclasses.MISSING:
            return _made(value, typing.cast(type, hint), where)
        return _updated(default, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {shown(value)}, expected values by name")
        return {key: _convert(v, arguments[1], where.inner(str(key)), dataclasses.MISSING) for key, v in value.items()}
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} is {shown(value)}, expected a list")
        inner = members_of(hint, len(value), where)
        return origin(_convert(v, each, where, dataclasses.MISSING) for v, each in zip(value, inner, strict=True))
    if hint in (int, float) and type(value) in (int, float) and not abs(value) < LARGEST_NUMBER:
        raise ValueError(f"{where} is {str(value)[:20]}, expected a number below {LARGEST_NUMBER:g}")
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (int, str, bool) and type(value) is not hint:
        raise ValueError(f"{where} is {shown(value)}, expected {EXPECTED[hint]}")
    if hint is float:
        raise ValueError(f"{where} is {shown(value)}, expected a number")
    return value
