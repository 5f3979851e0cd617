"""Configurations: frozen dataclasses with working defaults, read from and written to YAML."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from semslam.atomic import replacing

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text, because its floats need a dot; people mean a number."""


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
    path = Path(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; expected a YAML configuration") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    return values or {}


def save(path: str | Path, config: Any) -> None:
    """Write a configuration with every value it has, defaults included."""
    with replacing(path) as temporary:
        Path(temporary).write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")


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
    if not isinstance(values, dict):
        raise ValueError(f"{where}: found {values!r}, expected settings of {kind.__name__}")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ValueError(f"{where}: unknown setting {key!r}; known ones are {', '.join(known)}")
    if missing := [f.name for f in dataclasses.fields(kind) if f.name not in values and _required(f)]:  # type: ignore[arg-type]
        raise ValueError(f"{where}: lacks {', '.join(missing)}, which has no default")
    return kind(**{key: _convert(value, hints[key], f"{where}: {key}") for key, value in values.items()})


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(value, next(a for a in arguments if a is not type(None)), where)
    if dataclasses.is_dataclass(hint):
        return from_dict(value, hint, where)  # type: ignore[arg-type]
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: found {value!r}, expected a list")
        if origin is tuple and Ellipsis not in arguments and len(value) != len(arguments):
            raise ValueError(f"{where}: found {len(value)} values, expected {len(arguments)}")
        inner = arguments[0] if arguments else Any
        return origin(_convert(v, inner, where) for v in value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (int, str, bool) and type(value) is not hint:
        raise ValueError(f"{where}: found {value!r}, expected {hint.__name__}")
    if hint is float:
        raise ValueError(f"{where}: found {value!r}, expected a number")
    return value
