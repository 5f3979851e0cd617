"""Settings explained: a dataclass's comments as the meaning of its fields."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml

from semslam.config.conversion import default_of, to_dict

# A setting's comment begins with its unit and a colon: "metres: nearer depth is dropped".
UNITS = ("metres", "metres and radians", "radians", "degrees", "pixels", "seconds", "frames", "keyframes", "points",
         "surfels", "iterations", "grey levels", "grey levels per pixel", "standard deviations",
         "units per metre", "images", "tuples", "steps", "hours")  # fmt: skip


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
            default = default_of(field)
            for setting in explained(typing.cast(type, hint), f"{prefix}{field.name}."):
                value = default
                for name in setting.name[len(prefix) + len(field.name) + 1 :].split("."):
                    value = getattr(value, name, dataclasses.MISSING)  # a group without a default has none to show
                yield setting if value is dataclasses.MISSING else dataclasses.replace(setting, default=_yaml(value))
            continue
        unit, colon, meaning = comments[field.name].partition(": ")
        if not colon or unit not in UNITS:
            unit, meaning = "", comments[field.name]
        yield Setting(f"{prefix}{field.name}", _kind(hint), _yaml(default_of(field)), unit, meaning)


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
