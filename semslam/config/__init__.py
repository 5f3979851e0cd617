"""Configurations: frozen dataclasses with working defaults, read from and written to YAML, changed one by one."""

from semslam.config.conversion import (
    from_dict,
    load,
    parsed,
    save,
    to_dict,
    to_yaml,
    updated,
)
from semslam.config.explained import Setting, explained
from semslam.config.ranges import (
    Correlation,
    Count,
    Gate,
    Iterations,
    Natural,
    NotNegative,
    Positive,
    Range,
    Share,
    Turn,
    bytes_of,
    check_choices,
    check_ranges,
)
from semslam.config.text import parsed_yaml, read

__all__ = [
    "Correlation",
    "Count",
    "Gate",
    "Iterations",
    "Natural",
    "NotNegative",
    "Positive",
    "Range",
    "Setting",
    "Share",
    "Turn",
    "bytes_of",
    "check_choices",
    "check_ranges",
    "explained",
    "from_dict",
    "load",
    "parsed",
    "parsed_yaml",
    "read",
    "save",
    "to_dict",
    "to_yaml",
    "updated",
]
