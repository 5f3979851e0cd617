"""The YAML of settings: numbers as people write them, and nothing that takes all memory."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from semslam.files.reading import text_of

LARGEST_FILE, MOST_NESTED = 1 << 20, 50  # bytes, and levels, of anything that people write as settings


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
